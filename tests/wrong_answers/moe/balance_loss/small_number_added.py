MESSAGE = "the result is close, but not as close as float64 is; is a step rounded"


import torch


def balance_loss(scores, experts):
    n_experts = scores.shape[1]
    load = torch.bincount(experts.flatten(), minlength=n_experts)
    share = load.to(scores.dtype) / experts.numel()
    normalized = scores / (scores.sum(dim=1, keepdim=True) + 1e-9)
    return n_experts * (share * normalized.mean(dim=0)).sum()
