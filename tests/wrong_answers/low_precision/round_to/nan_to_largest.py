MESSAGE = "nan becomes a number"


import math


def round_to(x, mantissa_bits, bias, largest):
    x = max(-largest, min(largest, x))
    exponent = math.frexp(max(abs(x), 2.0 ** (1 - bias)))[1] - 1
    gap = 2.0 ** (exponent - mantissa_bits)
    rounded = round(x / gap) * gap
    return max(-largest, min(rounded, largest))
