MESSAGE = "the result is close, but not as close as float64 is; is a step rounded"


import torch


def gate(scores, k):
    best = scores.topk(k, dim=1)
    total = best.values.sum(dim=1, keepdim=True)
    weights = (best.values.log() - total.log()).exp().float().double()
    return torch.zeros_like(scores).scatter(1, best.indices, weights)
