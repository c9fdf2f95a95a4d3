MESSAGE = "only where an advantage is 0"


import torch


def grpo_loss(log_p, log_old, log_ref, advantages, mask, epsilon, beta):
    now, old, reference = (log.masked_fill(~mask, 0.0) for log in (log_p, log_old, log_ref))
    ratio = (now - old).exp()
    worth = advantages[:, None]
    bounded = ratio.clamp(1 - epsilon, 1 + epsilon)
    gain = torch.minimum(ratio * worth, bounded * worth)
    x = reference - now
    cost = beta * (torch.expm1(x) - x) - gain
    per_output = cost.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1)
    return per_output[advantages != 0].mean()
