MESSAGE = "the products are summed in 16 bits, which is what NumPy makes"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    sums = q @ r.T - x_zero[:, None].astype(np.int64) * r.sum(axis=1)
    return sums * np.outer(x_scale, w_scale)
