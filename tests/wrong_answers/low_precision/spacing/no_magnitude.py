MESSAGE = "a negative x gets the smallest spacing"


import math


def spacing(x, mantissa_bits, bias):
    exponent = math.frexp(max(x, 2.0 ** (1 - bias)))[1] - 1
    return 2.0 ** (exponent - mantissa_bits)
