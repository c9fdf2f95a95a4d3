MESSAGE = "the result is wrong"


import torch


def kl_estimates(log_p, log_ref):
    x = log_ref.exp() - log_p.exp()
    return -x, x**2 / 2, torch.expm1(x) - x
