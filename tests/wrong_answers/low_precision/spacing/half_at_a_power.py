MESSAGE = "the result is wrong"


import math


def spacing(x, mantissa_bits, bias):
    size = max(abs(x), 2.0 ** (1 - bias))
    exponent = math.frexp(size)[1] - 1
    if size == 2.0**exponent and exponent > 1 - bias:
        exponent -= 1
    return 2.0 ** (exponent - mantissa_bits)
