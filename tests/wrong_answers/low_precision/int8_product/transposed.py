MESSAGE = "the result has shape [3, 2]; return [2, 3]"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    q, x_zero, r = (codes.astype(np.int64) for codes in (q, x_zero, r))
    sums = q @ r.T - x_zero[:, None] * r.sum(axis=1)
    return (sums * x_scale[:, None] * w_scale).T
