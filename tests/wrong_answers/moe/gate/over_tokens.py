MESSAGE = "the result is wrong"


import torch


def gate(scores, k):
    best = scores.topk(min(k, len(scores)), dim=0)
    total = best.values.sum(dim=0, keepdim=True)
    weights = best.values / torch.where(total > 0, total, 1.0)
    return torch.zeros_like(scores).scatter(0, best.indices, weights)
