MESSAGE = "a multiplication with an addition is counted as one operation"


def training_flops(n_active, n_tokens, recompute=False):
    forward = n_active * n_tokens
    backward = 2 * forward
    return forward + backward + (forward if recompute else 0)
