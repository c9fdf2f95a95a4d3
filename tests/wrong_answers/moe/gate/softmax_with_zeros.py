MESSAGE = "a softmax after the others were set to 0"


import torch


def gate(scores, k):
    best = scores.topk(k, dim=1)
    kept = torch.zeros_like(scores).scatter(1, best.indices, best.values)
    return torch.softmax(kept, dim=1)
