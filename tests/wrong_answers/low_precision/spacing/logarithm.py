MESSAGE = "the logarithm is rounded"


import numpy as np


def spacing(x, mantissa_bits, bias):
    size = max(abs(x), 2.0 ** (1 - bias))
    exponent = np.floor(np.log2(size))
    return 2.0 ** (exponent - mantissa_bits)
