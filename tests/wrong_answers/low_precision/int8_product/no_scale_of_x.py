MESSAGE = "the scales of x are missing"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    q, zero, r = q.astype(np.int64), x_zero.astype(np.int64), r.astype(np.int64)
    sums = q @ r.T - zero[:, None] * r.sum(axis=1)
    return sums * w_scale
