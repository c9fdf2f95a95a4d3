MESSAGE = "the sum goes over the tokens"


import torch


def gate(scores, k):
    values, indices = scores.topk(k, dim=1)
    weights = values / values.sum(dim=0)
    return torch.zeros_like(scores).scatter(1, indices, weights)
