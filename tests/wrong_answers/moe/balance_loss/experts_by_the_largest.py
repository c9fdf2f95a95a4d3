MESSAGE = "the result is wrong"


import torch


def balance_loss(scores, experts):
    n_experts = int(experts.max()) + 1
    load = torch.bincount(experts.flatten(), minlength=n_experts)
    share = load.to(scores.dtype) / experts.numel()
    normalized = scores / scores.sum(dim=1, keepdim=True)
    return n_experts * (share * normalized[:, :n_experts].mean(dim=0)).sum()
