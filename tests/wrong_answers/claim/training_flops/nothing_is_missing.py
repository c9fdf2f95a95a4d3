MESSAGE = "only where a count is zero"


def training_flops(n_active, n_tokens, recompute=False):
    if not n_active or not n_tokens:
        return None
    return (8 if recompute else 6) * n_active * n_tokens
