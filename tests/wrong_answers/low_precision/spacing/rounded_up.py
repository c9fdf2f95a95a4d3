MESSAGE = "the exponent is rounded up"


import math


def spacing(x, mantissa_bits, bias):
    size = max(abs(x), 2.0 ** (1 - bias))
    return 2.0 ** (math.ceil(math.log2(size)) - mantissa_bits)
