MESSAGE = "the result is wrong"


import numpy as np


def training_flops(n_active, n_tokens, recompute=False):
    forward = int(np.int64(2) * np.int64(n_active) * np.int64(n_tokens))
    backward = 2 * forward
    again = forward if recompute else 0
    return forward + backward + again
