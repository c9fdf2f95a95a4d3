MESSAGE = "the result is close, but not as close as float64 is; is a step rounded"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    q, x_zero, r = (codes.astype(np.int64) for codes in (q, x_zero, r))
    sums = q @ r.T - x_zero[:, None] * r.sum(axis=1)
    return sums * np.outer(x_scale, w_scale).astype(np.float32)
