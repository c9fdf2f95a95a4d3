MESSAGE = "the result is wrong"


import math


def round_to(x, mantissa_bits, bias, largest):
    if math.isnan(x):
        return x
    if abs(x) >= largest:
        return math.copysign(largest, x)
    normal = max(abs(x), 2.0 ** (1 - bias))
    gap = 2.0 ** (math.frexp(normal)[1] - 1 - mantissa_bits)
    x = round(x / gap * 4) * gap / 4
    return round(x / gap) * gap
