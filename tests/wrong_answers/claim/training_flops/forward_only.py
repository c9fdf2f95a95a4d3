MESSAGE = "the backward pass is missing"


def training_flops(n_active, n_tokens, recompute=False):
    forward = 2 * n_active * n_tokens
    return 2 * forward if recompute else forward
