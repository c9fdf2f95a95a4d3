MESSAGE = "the three are returned in another order"


import torch


def kl_estimates(log_p, log_ref):
    x = log_ref - log_p
    return torch.exp(x) - 1 - x, x**2 / 2, -x
