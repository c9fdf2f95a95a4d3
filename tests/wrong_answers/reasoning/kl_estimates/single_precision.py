MESSAGE = "close, but not as close as float64"


import torch


def kl_estimates(log_p, log_ref):
    x = log_ref - log_p
    r = torch.exp(x.float())
    return -x, x**2 / 2, r.double() - 1 - x
