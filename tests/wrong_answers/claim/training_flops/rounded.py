MESSAGE = "the result is close, but not as close as float64 is"


import numpy as np


def training_flops(n_active, n_tokens, recompute=False):
    factor = np.float32(8 if recompute else 6)
    return factor * np.float32(n_active) * np.float32(n_tokens)
