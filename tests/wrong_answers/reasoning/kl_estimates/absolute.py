MESSAGE = "k1 has lost its sign"


import torch


def kl_estimates(log_p, log_ref):
    x = log_ref - log_p
    return x.abs(), x**2 / 2, torch.exp(x) - 1 - x
