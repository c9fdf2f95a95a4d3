MESSAGE = "no gradient reaches the scores; .detach(), .item(), .numpy() or torch."


import torch


def balance_loss(scores, experts):
    n_experts = scores.shape[1]
    load = torch.bincount(experts.flatten(), minlength=n_experts)
    share = load.to(scores.dtype) / experts.numel()
    normalized = scores / scores.sum(dim=1, keepdim=True)
    return (
        torch.tensor(1.0, dtype=scores.dtype)
        * n_experts
        * (share * torch.tensor(normalized.mean(dim=0).tolist(), dtype=scores.dtype)).sum()
    )
