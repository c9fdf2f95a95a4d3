MESSAGE = "the result is wrong"


import torch


def attend(query, key, value):
    n_new, n_tokens = len(query), len(key)
    scores = query @ key.T / key.shape[1] ** 0.5
    hidden = torch.ones(n_new, n_tokens, dtype=torch.bool).triu(n_tokens - n_new + 1)
    weights = scores.masked_fill(hidden, -torch.inf)
    weights = (weights - weights.amax(1, keepdim=True)).exp()
    return weights @ value
