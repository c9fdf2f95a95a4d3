MESSAGE = "the result is wrong"


import math


def spacing(x, mantissa_bits, bias):
    size = max(abs(x), 2.0**-6)
    exponent = math.frexp(size)[1] - 1
    return 2.0 ** (exponent - mantissa_bits)
