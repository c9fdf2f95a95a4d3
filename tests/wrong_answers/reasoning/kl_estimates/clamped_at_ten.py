MESSAGE = "only where the reference finds a token far likelier"


import torch


def kl_estimates(log_p, log_ref):
    x = (log_ref - log_p).clamp(max=10)
    return -x, x**2 / 2, torch.expm1(x) - x
