MESSAGE = "the sign of k1 is turned"


import torch


def kl_estimates(log_p, log_ref):
    x = log_ref - log_p
    return x, x**2 / 2, torch.exp(x) - 1 - x
