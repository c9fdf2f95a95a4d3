MESSAGE = "beyond the largest number it goes on"


import math


def round_to(x, mantissa_bits, bias, largest):
    if not math.isfinite(x):
        return x
    exponent = math.frexp(max(abs(x), 2.0 ** (1 - bias)))[1] - 1
    gap = 2.0 ** (exponent - mantissa_bits)
    rounded = round(x / gap) * gap
    return rounded
