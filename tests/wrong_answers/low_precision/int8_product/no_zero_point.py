MESSAGE = "the zero point is not subtracted"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    q, r = q.astype(np.int64), r.astype(np.int64)
    sums = q @ r.T
    return sums * np.outer(x_scale, w_scale)
