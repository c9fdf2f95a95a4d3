MESSAGE = "code minus zero point is computed in uint8 and wraps, and then"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    sums = (q - x_zero[:, None]) @ r.T
    return sums * np.outer(x_scale, w_scale)
