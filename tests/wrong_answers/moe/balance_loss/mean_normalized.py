MESSAGE = "the mean of the scores is normalized"


import torch


def balance_loss(scores, experts):
    load = torch.bincount(experts.flatten(), minlength=scores.shape[1]).double()
    f = load / experts.numel()
    mean = scores.mean(dim=0)
    return scores.shape[1] * (f * mean / mean.sum()).sum()
