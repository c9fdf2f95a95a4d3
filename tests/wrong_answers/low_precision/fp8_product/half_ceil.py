MESSAGE = "the result is wrong"


import numpy as np


def fp8_product(q, q_scale, r, r_scale, block, group, bits):
    total = np.zeros((len(q), len(r)))
    for k in range(q_scale.shape[1]):
        here = slice(k * block, (k + 1) * block)
        products = q[:, None, here] * r[None, :, here]
        short = np.zeros(total.shape)
        for start in range(0, block, group):
            parts = [short[..., None], products[..., start : start + group]]
            terms = np.concatenate(parts, axis=2)
            largest = np.abs(terms).max(axis=2, keepdims=True)
            step = 2.0 ** (np.frexp(largest)[1] - bits + (largest > 300))
            short = (np.trunc(terms / step) * step).sum(axis=2)
        column = r_scale[:, k].repeat(block)[: len(r)]
        total += short * q_scale[:, k, None] * column
    return total
