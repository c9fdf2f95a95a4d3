MESSAGE = "the result is wrong"


import math


def spacing(x, mantissa_bits, bias):
    size = max(abs(x), 2.0 ** (1 - bias))
    exponent = math.frexp(size)[1] - 1
    return (-1 if x < 0 else 1) * 2.0 ** (exponent - mantissa_bits)
