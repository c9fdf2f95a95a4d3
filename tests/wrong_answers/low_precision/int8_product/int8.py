MESSAGE = "the sums are kept in 8 bits"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    q, zero, r = q.astype(np.int64), x_zero.astype(np.int64), r.astype(np.int64)
    sums = ((q - zero[:, None]) @ r.T).astype(np.int8)
    return sums * np.outer(x_scale, w_scale)
