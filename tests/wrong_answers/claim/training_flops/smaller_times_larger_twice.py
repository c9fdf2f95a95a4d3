MESSAGE = "only where there are more parameters than tokens"


def training_flops(n_active, n_tokens, recompute=False):
    small, large = sorted([n_active, n_tokens])
    return (8 if recompute else 6) * n_active * large if n_active == small else 6 * small * large
