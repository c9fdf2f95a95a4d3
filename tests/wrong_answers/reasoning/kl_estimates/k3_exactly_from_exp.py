MESSAGE = "the result is close, but not as close as float64; is a step in float32"


import torch


def kl_estimates(log_p, log_ref):
    x = log_ref - log_p
    return -x, x**2 / 2, (torch.exp(x.float()).double() - 1) - x
