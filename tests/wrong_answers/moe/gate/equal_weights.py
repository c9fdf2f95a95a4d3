MESSAGE = "gets equal weights"


import torch


def gate(scores, k):
    best = scores.topk(k, dim=1)
    total = best.values.sum(dim=1, keepdim=True)
    weights = torch.where(total > 0, best.values / total, 1 / k)
    return torch.zeros_like(scores).scatter(1, best.indices, weights)
