MESSAGE = "the result is wrong"


import torch


def balance_loss(scores, experts):
    n_experts = scores.shape[1]
    load = torch.bincount(experts.flatten(), minlength=n_experts)
    share = load.to(scores.dtype) / experts.numel()
    normalized = scores / scores.sum(dim=0, keepdim=True)
    return n_experts * (share * normalized.mean(dim=0)).sum()
