MESSAGE = "the estimates are weighted with the probability"


import torch


def kl_estimates(log_p, log_ref):
    p = torch.exp(log_p)
    x = log_ref - log_p
    return -p * x, p * x**2 / 2, p * (torch.exp(x) - 1 - x)
