MESSAGE = "the spacing goes on shrinking"


import math


def spacing(x, mantissa_bits, bias):
    if x == 0:
        return 2.0**-1074 / 2**mantissa_bits
    exponent = math.frexp(x)[1] - 1
    return 2.0 ** (exponent - mantissa_bits)
