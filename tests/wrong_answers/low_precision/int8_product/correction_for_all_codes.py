MESSAGE = "the result is wrong"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    q, x_zero, r = (codes.astype(np.int64) for codes in (q, x_zero, r))
    sums = q @ r.T - 128 * r.sum(axis=1)
    return sums * x_scale[:, None] * w_scale
