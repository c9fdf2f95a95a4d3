MESSAGE = "the result is wrong"


import math


def round_to(x, mantissa_bits, bias, largest):
    if math.isnan(x):
        return x
    if math.isinf(x):
        return math.copysign(largest, x)
    normal = max(abs(x), 2.0 ** (1 - bias))
    gap = 2.0 ** (math.frexp(normal)[1] - 1 - mantissa_bits)
    y = round(x / gap) * gap
    return max(-largest, y) if y < largest * 1.05 else largest
