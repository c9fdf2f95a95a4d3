MESSAGE = "every result is twice the right one"


import math


def spacing(x, mantissa_bits, bias):
    _, exponent = math.frexp(max(abs(x), 2.0 ** (1 - bias)))
    return math.ldexp(1.0, exponent - mantissa_bits)
