MESSAGE = "only where some experts are not used"


import torch


def balance_loss(scores, experts):
    n_experts = scores.shape[1]
    load = torch.bincount(
        scores.topk(experts.shape[1], dim=1).indices.flatten(), minlength=n_experts
    )
    share = load.to(scores.dtype) / experts.numel()
    normalized = scores / scores.sum(dim=1, keepdim=True)
    return n_experts * (share * normalized.mean(dim=0)).sum()
