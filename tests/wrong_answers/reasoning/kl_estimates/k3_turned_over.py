MESSAGE = "the ratio in k3 is turned over"


import torch


def kl_estimates(log_p, log_ref):
    log_ratio = log_p - log_ref
    r = torch.exp(log_ratio)
    return log_ratio, log_ratio**2 / 2, r - 1 - torch.log(r)
