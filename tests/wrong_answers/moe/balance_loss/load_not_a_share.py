MESSAGE = "the load is not divided by the number of choices"


import torch


def balance_loss(scores, experts):
    load = torch.bincount(experts.flatten(), minlength=scores.shape[1]).double()
    shares = scores / scores.sum(dim=1, keepdim=True)
    return scores.shape[1] * (load * shares.mean(dim=0)).sum()
