MESSAGE = "the result has shape [3, 1]; return [3, 1, 3]"


import torch


def kl_estimates(log_p, log_ref):
    x = log_ref - log_p
    return tuple(k.sum(dim=1) for k in (-x, x**2 / 2, torch.expm1(x) - x))
