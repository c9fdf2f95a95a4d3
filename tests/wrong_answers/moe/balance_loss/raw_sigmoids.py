MESSAGE = "the scores are not normalized"


import torch


def balance_loss(scores, experts):
    load = torch.bincount(experts.flatten(), minlength=scores.shape[1]).double()
    f = load / experts.numel()
    return scores.shape[1] * (f * scores.mean(dim=0)).sum()
