MESSAGE = "every result is 0.5 times the right one"


import torch


def balance_loss(scores, experts):
    load = torch.bincount(experts.flatten(), minlength=scores.shape[1]).double()
    shares = scores / scores.sum(dim=1, keepdim=True)
    p = shares.mean(dim=0)
    p = 0.5 * p + 0.5 * p.detach()
    return scores.shape[1] * (load / experts.numel() * p).sum()
