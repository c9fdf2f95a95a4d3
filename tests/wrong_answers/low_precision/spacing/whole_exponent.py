MESSAGE = "only where `x` is just below a power of two"


import math


def spacing(x, mantissa_bits, bias):
    size = max(abs(x), 2.0 ** (1 - bias))
    exponent = int(math.log2(size))
    return 2.0 ** (exponent - mantissa_bits)
