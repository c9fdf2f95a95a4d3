MESSAGE = "it is rounded twice: in float32 a number just above a middle becomes t"


import math

import numpy as np


def round_to(x, mantissa_bits, bias, largest):
    if math.isnan(x):
        return x
    if abs(x) >= largest:
        return math.copysign(largest, x)
    normal = max(abs(x), 2.0 ** (1 - bias))
    gap = 2.0 ** (math.frexp(normal)[1] - 1 - mantissa_bits)
    return float(np.rint(np.float32(x) / np.float32(gap))) * gap
