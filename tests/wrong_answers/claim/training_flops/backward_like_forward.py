MESSAGE = "the backward pass is counted like a forward pass"


def training_flops(n_active, n_tokens, recompute=False):
    one_pass = 2 * n_active * n_tokens
    passes = 3 if recompute else 2
    return passes * one_pass
