MESSAGE = "the result is wrong"


import torch


def kl_estimates(log_p, log_ref):
    x = log_ref - log_p
    return (
        -x,
        x**2 / 2,
        (torch.exp(x) - x - 1).abs() + 0 * x if False else torch.expm1(x.abs()) - x.abs(),
    )
