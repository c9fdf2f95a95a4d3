MESSAGE = "subnormal numbers become 0"


import math


def round_to(x, mantissa_bits, bias, largest):
    if math.isnan(x):
        return x
    if math.isinf(x):
        return math.copysign(largest, x)
    exponent = math.frexp(max(abs(x), 2.0 ** (1 - bias)))[1] - 1
    gap = 2.0 ** (exponent - mantissa_bits)
    rounded = round(x / gap) * gap
    if abs(rounded) < 2.0 ** (1 - bias):
        return 0.0
    return max(-largest, min(rounded, largest))
