MESSAGE = "only where all scores are tiny"


import torch


def balance_loss(scores, experts):
    n_experts = scores.shape[1]
    load = torch.bincount(experts.flatten(), minlength=n_experts)
    share = load.to(scores.dtype) / experts.numel()
    normalized = scores / scores.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return n_experts * (share * normalized.mean(dim=0)).sum()
