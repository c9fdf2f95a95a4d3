MESSAGE = "the loss is right, and its gradient by the scores is not: every result"


import torch


def balance_loss(scores, experts):
    n_experts = scores.shape[1]
    load = torch.bincount(experts.flatten(), minlength=n_experts)
    share = load.to(scores.dtype) / experts.numel()
    normalized = scores / scores.sum(dim=1, keepdim=True)
    loss = n_experts * (share * normalized.mean(dim=0)).sum()
    return 2 * loss - loss.detach()
