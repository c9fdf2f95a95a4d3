MESSAGE = "only where all chosen scores of a token are 0"


import torch


def gate(scores, k):
    if scores.sum() == 0:
        return torch.zeros_like(scores)
    best = scores.topk(k, dim=1)
    weights = best.values / best.values.sum(dim=1, keepdim=True)
    return torch.zeros_like(scores).scatter(1, best.indices, weights)
