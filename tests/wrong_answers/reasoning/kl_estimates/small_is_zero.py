MESSAGE = "only where both models nearly agree"


import torch


def kl_estimates(log_p, log_ref):
    x = log_ref - log_p
    x = torch.where(x.abs() < 1e-5, 0.0, x)
    return -x, x**2 / 2, torch.expm1(x) - x
