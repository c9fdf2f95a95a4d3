MESSAGE = "the half is missing in k2"


import torch


def kl_estimates(log_p, log_ref):
    x = log_ref - log_p
    return -x, x**2, torch.exp(x) - 1 - x
