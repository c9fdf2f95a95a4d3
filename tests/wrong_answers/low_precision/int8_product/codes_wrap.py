MESSAGE = "code minus zero point is computed in uint8, which has no negative numbers"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    x = (q - x_zero[:, None]).astype(np.int64)
    sums = x @ r.astype(np.int64).T
    return sums * np.outer(x_scale, w_scale)
