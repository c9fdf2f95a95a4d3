MESSAGE = "only where some scores of a token are 0"


import torch


def gate(scores, k):
    best = scores.topk(k, dim=1)
    total = best.values.sum(dim=1, keepdim=True)
    weights = best.values / torch.where(total > 0, total, 1.0)
    weights = torch.where((scores == 0).any(dim=1, keepdim=True), 0.0, weights)
    return torch.zeros_like(scores).scatter(1, best.indices, weights)
