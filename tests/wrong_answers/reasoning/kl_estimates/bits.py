MESSAGE = "the logarithms are turned to base 2"


import torch


def kl_estimates(log_p, log_ref):
    r = torch.exp(log_ref - log_p)
    bits = torch.log2(r)
    return -bits, bits**2 / 2, r - 1 - bits
