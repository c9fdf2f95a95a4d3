MESSAGE = "the weights are not normalized"


import torch


def gate(scores, k):
    best = scores.topk(k, dim=1)
    return torch.zeros_like(scores).scatter(1, best.indices, best.values)
