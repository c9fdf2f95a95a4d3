MESSAGE = "no gradient reaches the scores"


import torch


def balance_loss(scores, experts):
    load = torch.bincount(experts.flatten(), minlength=scores.shape[1]).double()
    shares = scores / scores.sum(dim=1, keepdim=True)
    loss = scores.shape[1] * (load / experts.numel() * shares.mean(dim=0)).sum()
    return loss.item()
