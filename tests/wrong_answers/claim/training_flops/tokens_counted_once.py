MESSAGE = "the result is wrong"


def training_flops(n_active, n_tokens, recompute=False):
    factor = 6
    if recompute:
        factor += 2
    return factor * n_active + n_tokens
