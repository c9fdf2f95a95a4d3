MESSAGE = "the numbers are scaled before they are summed"


def int8_product(q, x_scale, x_zero, r, w_scale):
    x = (q.astype(float) - x_zero[:, None]) * x_scale[:, None]
    w = r * w_scale[:, None]
    return x @ w.T
