MESSAGE = "the result is wrong"


import math


def spacing(x, mantissa_bits, bias):
    size = max(abs(x), 2.0 ** (1 - bias))
    exponent = math.floor(math.log2(size) - 1e-12)
    return 2.0 ** (exponent - mantissa_bits)
