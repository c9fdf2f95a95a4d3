MESSAGE = "or is a small number added"


import torch


def gate(scores, k):
    best = scores.topk(k, dim=1)
    weights = best.values / (best.values.sum(dim=1, keepdim=True) + 1e-8)
    return torch.zeros_like(scores).scatter(1, best.indices, weights)
