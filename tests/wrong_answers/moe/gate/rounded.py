MESSAGE = "the result is wrong"


import torch


def gate(scores, k):
    best = scores.topk(k, dim=1)
    total = best.values.sum(dim=1, keepdim=True)
    weights = best.values / torch.where(total > 0, total, 1.0)
    weights = weights.round(decimals=6)
    return torch.zeros_like(scores).scatter(1, best.indices, weights)
