MESSAGE = "it rounds down always"


import math


def round_to(x, mantissa_bits, bias, largest):
    if math.isnan(x):
        return x
    if math.isinf(x):
        return math.copysign(largest, x)
    exponent = math.frexp(max(abs(x), 2.0 ** (1 - bias)))[1] - 1
    gap = 2.0 ** (exponent - mantissa_bits)
    rounded = x // gap * gap
    return max(-largest, min(rounded, largest))
