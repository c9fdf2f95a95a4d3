MESSAGE = "the result is wrong"


def kl_estimates(log_p, log_ref):
    x = log_ref - log_p
    return -x, x**2 / 2, x**2 / 2 + x**3 / 6
