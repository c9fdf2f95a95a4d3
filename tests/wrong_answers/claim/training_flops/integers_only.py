MESSAGE = "only where a count is below 1"


def training_flops(n_active, n_tokens, recompute=False):
    forward = 2 * int(n_active) * int(n_tokens)
    backward = 2 * forward
    again = forward if recompute else 0
    return forward + backward + again
