MESSAGE = "it returns None (is a `return` missing?)"


def training_flops(n_active, n_tokens, recompute=False):
    print((8 if recompute else 6) * n_active * n_tokens)
