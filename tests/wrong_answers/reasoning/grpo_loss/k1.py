MESSAGE = "the KL is estimated with k1"


import torch


def grpo_loss(log_p, log_old, log_ref, advantages, mask, epsilon, beta):
    log_p, log_old, log_ref = (log.masked_fill(~mask, 0) for log in (log_p, log_old, log_ref))
    ratio = torch.exp(log_p - log_old)
    worth = advantages[:, None]
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    gain = torch.minimum(ratio * worth, clipped * worth)
    x = log_ref - log_p
    loss = -beta * x - gain
    return ((loss * mask).sum(dim=1) / mask.sum(dim=1)).mean()
