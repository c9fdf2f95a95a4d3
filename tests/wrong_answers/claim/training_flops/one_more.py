MESSAGE = "recompute=True adds one operation a weight"


def training_flops(n_active, n_tokens, recompute=False):
    return (6 + int(recompute)) * n_active * n_tokens
