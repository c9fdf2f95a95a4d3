MESSAGE = "the result is wrong"


def training_flops(n_active, n_tokens, recompute=False):
    return (4 if recompute else 6) * n_active * n_tokens
