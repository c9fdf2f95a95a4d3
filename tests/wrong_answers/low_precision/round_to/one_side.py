MESSAGE = "it saturates on one side only"


import math


def round_to(x, mantissa_bits, bias, largest):
    if math.isnan(x):
        return x
    if math.isinf(x):
        return min(x, largest)
    exponent = math.frexp(max(abs(x), 2.0 ** (1 - bias)))[1] - 1
    gap = 2.0 ** (exponent - mantissa_bits)
    rounded = round(x / gap) * gap
    return min(rounded, largest)
