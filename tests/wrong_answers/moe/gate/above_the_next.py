MESSAGE = "only where two scores are equal"


import torch


def gate(scores, k):
    if k == scores.shape[1]:
        kept = scores
    else:
        kept = scores * (scores > scores.topk(k + 1, dim=1).values[:, -1:])
    total = kept.sum(dim=1, keepdim=True)
    return kept / torch.where(total > 0, total, 1.0)
