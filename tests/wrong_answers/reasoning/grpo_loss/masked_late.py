MESSAGE = "its gradient is nan behind the mask"


import torch


def grpo_loss(log_p, log_old, log_ref, advantages, mask, epsilon, beta):
    real = mask
    ratio = torch.exp(log_p - log_old)
    worth = advantages[:, None]
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    gain = torch.minimum(ratio * worth, clipped * worth)
    x = log_ref - log_p
    loss = beta * (torch.exp(x) - 1 - x) - gain
    loss = torch.where(real, loss, 0.0)
    return (loss.sum(dim=1) / mask.sum(dim=1)).mean()
