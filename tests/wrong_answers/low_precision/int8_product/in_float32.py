MESSAGE = "the result is close, but not as close as float64"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    x = q.astype(np.float32) - x_zero[:, None].astype(np.float32)
    sums = x @ r.astype(np.float32).T
    return sums * np.outer(x_scale, w_scale).astype(np.float32)
