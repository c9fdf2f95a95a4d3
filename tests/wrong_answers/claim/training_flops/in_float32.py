MESSAGE = "the result is close, but not as close as float64 is; is a step rounded"


import numpy as np


def training_flops(n_active, n_tokens, recompute=False):
    return float(np.float32((8 if recompute else 6) * n_active * n_tokens))
