MESSAGE = "only where `x` is just below a power of two"


import math

import numpy as np


def spacing(x, mantissa_bits, bias):
    size = max(abs(float(np.float32(x))), 2.0 ** (1 - bias))
    return 2.0 ** (math.frexp(size)[1] - 1 - mantissa_bits)
