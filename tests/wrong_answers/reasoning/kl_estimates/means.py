MESSAGE = "it returns a tuple of 3; return three tensors (k1, k2, k3)"


import torch


def kl_estimates(log_p, log_ref):
    x = log_ref - log_p
    return tuple(float(k.mean()) for k in (-x, x**2 / 2, torch.exp(x) - 1 - x))
