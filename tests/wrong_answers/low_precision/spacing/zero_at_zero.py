MESSAGE = "only where `x` is 0"


import math


def spacing(x, mantissa_bits, bias):
    if x == 0:
        return 0.0
    size = max(abs(x), 2.0 ** (1 - bias))
    exponent = math.frexp(size)[1] - 1
    return 2.0 ** (exponent - mantissa_bits)
