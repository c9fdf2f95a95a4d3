MESSAGE = "only where a count is below 1"


def training_flops(n_active, n_tokens, recompute=False):
    return (8 if recompute else 6) * max(n_active, 1) * max(n_tokens, 1)
