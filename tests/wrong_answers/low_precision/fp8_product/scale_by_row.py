MESSAGE = "it raises"


import numpy as np


def fp8_product(q, q_scale, r, r_scale, block, group, bits):
    total = np.zeros((len(q), len(r)))
    for k in range(q_scale.shape[1]):
        scales = q_scale[:, k, None] * r_scale[np.arange(len(r)), k]
        short = np.zeros_like(total)
        for start in range(k * block, (k + 1) * block, group):
            products = q[:, None, start : start + group] * r[:, start : start + group]
            terms = np.concatenate([short[..., None], products], axis=-1)
            largest = np.abs(terms).max(axis=-1, keepdims=True)
            step = 2.0 ** (np.frexp(largest)[1] - bits)
            short = (np.trunc(terms / step) * step).sum(axis=-1)
        total += short * scales
    return total
