MESSAGE = "it returns the text"


def training_flops(n_active, n_tokens, recompute=False):
    flops = (8 if recompute else 6) * n_active * n_tokens
    return f"{flops:.2e}"
