MESSAGE = "recompute=True changes nothing"


def training_flops(n_active, n_tokens, recompute=False):
    return 6 * n_active * n_tokens
