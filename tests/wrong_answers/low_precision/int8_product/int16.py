MESSAGE = "the sums are kept in 16 bits"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    q, zero, r = q.astype(np.int16), x_zero.astype(np.int16), r.astype(np.int16)
    sums = (q - zero[:, None]) @ r.T
    return sums * np.outer(x_scale, w_scale)
