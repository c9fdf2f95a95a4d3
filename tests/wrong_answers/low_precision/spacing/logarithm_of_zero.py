MESSAGE = "it raises ValueError"


import math


def spacing(x, mantissa_bits, bias):
    exponent = max(math.floor(math.log2(abs(x))), 1 - bias)
    return 2.0 ** (exponent - mantissa_bits)
