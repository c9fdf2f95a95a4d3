MESSAGE = "a token whose chosen scores are all 0 gets nan"


import torch


def gate(scores, k):
    best = scores.topk(k, dim=1)
    weights = best.values / best.values.sum(dim=1, keepdim=True)
    return torch.zeros_like(scores).scatter(1, best.indices, weights)
