MESSAGE = "infinity becomes nan"


import numpy as np


def round_to(x, mantissa_bits, bias, largest):
    exponent = np.floor(np.log2(max(abs(x), 2.0 ** (1 - bias))))
    gap = 2.0 ** (exponent - mantissa_bits)
    return np.clip(np.rint(x / gap) * gap, -largest, largest)
