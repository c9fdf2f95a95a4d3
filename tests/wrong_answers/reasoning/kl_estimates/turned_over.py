MESSAGE = "the ratio is turned over: x is log_ref - log_p"


import torch


def kl_estimates(log_p, log_ref):
    x = log_p - log_ref
    return -x, x**2 / 2, torch.exp(x) - 1 - x
