MESSAGE = "the factor E is missing"


import torch


def balance_loss(scores, experts):
    load = torch.bincount(experts.flatten(), minlength=scores.shape[1]).double()
    shares = scores / scores.sum(dim=1, keepdim=True)
    return (load / experts.numel() * shares.mean(dim=0)).sum()
