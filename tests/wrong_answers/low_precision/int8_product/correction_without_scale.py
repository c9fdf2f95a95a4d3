MESSAGE = "what the zero points add is subtracted without the scales"


import numpy as np


def int8_product(q, x_scale, x_zero, r, w_scale):
    q, zero, r = q.astype(np.int64), x_zero.astype(np.int64), r.astype(np.int64)
    product = (q @ r.T) * np.outer(x_scale, w_scale)
    return product - zero[:, None] * r.sum(axis=1)
