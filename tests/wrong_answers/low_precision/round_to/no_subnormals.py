MESSAGE = "tiny numbers are kept"


import math


def round_to(x, mantissa_bits, bias, largest):
    if math.isnan(x) or x == 0:
        return x
    if math.isinf(x):
        return math.copysign(largest, x)
    exponent = math.frexp(x)[1] - 1
    gap = 2.0 ** (exponent - mantissa_bits)
    rounded = round(x / gap) * gap
    return max(-largest, min(rounded, largest))
