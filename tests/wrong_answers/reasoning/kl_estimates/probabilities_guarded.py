MESSAGE = "the result is close, but not as close as float64; is a step in float32"


import torch


def kl_estimates(log_p, log_ref):
    x = (log_ref.exp() + 1e-12).log() - (log_p.exp() + 1e-12).log()
    return -x, x**2 / 2, torch.expm1(x) - x
