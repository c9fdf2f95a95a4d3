MESSAGE = "padding comes through as nan"


import torch


def grpo_loss(log_p, log_old, log_ref, advantages, mask, epsilon, beta):
    mask = mask.double()
    ratio = torch.exp(log_p - log_old)
    worth = advantages[:, None]
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    gain = torch.minimum(ratio * worth, clipped * worth)
    x = log_ref - log_p
    loss = beta * (torch.exp(x) - 1 - x) - gain
    return ((loss * mask).sum(dim=1) / mask.sum(dim=1)).mean()
