MESSAGE = "a softmax over the chosen scores"


import torch


def gate(scores, k):
    best = scores.topk(k, dim=1)
    weights = torch.softmax(best.values, dim=1)
    return torch.zeros_like(scores).scatter(1, best.indices, weights)
