MESSAGE = "the result has shape [1, 2]; return [1, 4]"


import torch


def gate(scores, k):
    best = scores.topk(k, dim=1)
    total = best.values.sum(dim=1, keepdim=True)
    weights = best.values / torch.where(total > 0, total, 1.0)
    return weights
