MESSAGE = "the scores are normalized over all experts before the choice"


import torch


def gate(scores, k):
    shares = scores / scores.sum(dim=1, keepdim=True).clamp(min=1e-30)
    best = shares.topk(k, dim=1)
    return torch.zeros_like(scores).scatter(1, best.indices, best.values)
