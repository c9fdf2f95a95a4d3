MESSAGE = "only where `recompute` is not given"


def training_flops(n_active, n_tokens, recompute=True):
    forward = 2 * n_active * n_tokens
    backward = 2 * forward
    again = forward if recompute else 0
    return forward + backward + again
