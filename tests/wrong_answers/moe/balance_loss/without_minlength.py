MESSAGE = "it raises RuntimeError: The size of tensor a"


import torch


def balance_loss(scores, experts):
    n_experts = scores.shape[1]
    load = torch.bincount(experts.flatten())
    share = load.to(scores.dtype) / experts.numel()
    normalized = scores / scores.sum(dim=1, keepdim=True)
    return n_experts * (share * normalized.mean(dim=0)).sum()
