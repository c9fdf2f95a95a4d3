MESSAGE = "it returns a tuple of 2; return three tensors (k1, k2, k3) of the shap"


import torch


def kl_estimates(log_p, log_ref):
    x = log_ref - log_p
    return x**2 / 2, torch.expm1(x) - x
