MESSAGE = "the result is wrong"


import torch


def attend(query, key, value):
    n_new, n_tokens = len(query), len(key)
    scores = query @ key.T / len(key) ** 0.5
    hidden = torch.ones(n_new, n_tokens, dtype=torch.bool).triu(n_tokens - n_new + 1)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=1)
    return weights @ value
