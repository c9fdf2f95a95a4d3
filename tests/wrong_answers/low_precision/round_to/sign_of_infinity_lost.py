MESSAGE = "the result is wrong"


import math


def round_to(x, mantissa_bits, bias, largest):
    if math.isnan(x):
        return x
    if abs(x) >= largest:
        return largest
    normal = max(abs(x), 2.0 ** (1 - bias))
    gap = 2.0 ** (math.frexp(normal)[1] - 1 - mantissa_bits)
    return round(x / gap) * gap
