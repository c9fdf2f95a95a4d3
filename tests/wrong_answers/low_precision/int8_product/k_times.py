MESSAGE = "K times the zero point is subtracted"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    q, zero, r = q.astype(np.int64), x_zero.astype(np.int64), r.astype(np.int64)
    sums = q @ r.T - q.shape[1] * zero[:, None]
    return sums * np.outer(x_scale, w_scale)
