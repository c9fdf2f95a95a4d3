MESSAGE = "recompute=True repeats the whole step"


def training_flops(n_active, n_tokens, recompute=False):
    flops = 6.0 * n_active * n_tokens
    if recompute:
        flops *= 2
    return flops
