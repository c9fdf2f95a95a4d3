MESSAGE = "the mean goes over all tokens of the batch, as in DAPO"


import torch


def grpo_loss(log_p, log_old, log_ref, advantages, mask, epsilon, beta):
    log_p, log_old, log_ref = (log.masked_fill(~mask, 0) for log in (log_p, log_old, log_ref))
    ratio = torch.exp(log_p - log_old)
    worth = advantages[:, None]
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    gain = torch.minimum(ratio * worth, clipped * worth)
    x = log_ref - log_p
    loss = beta * (torch.exp(x) - 1 - x) - gain
    return loss[mask].mean()
