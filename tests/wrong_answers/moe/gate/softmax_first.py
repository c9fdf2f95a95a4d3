MESSAGE = "a softmax over all experts comes before the choice"


import torch


def gate(scores, k):
    best = torch.softmax(scores, dim=1).topk(k, dim=1)
    return torch.zeros_like(scores).scatter(1, best.indices, best.values)
