MESSAGE = "an overflow becomes infinity"


import math


def round_to(x, mantissa_bits, bias, largest):
    if not math.isfinite(x):
        return x
    exponent = math.frexp(max(abs(x), 2.0 ** (1 - bias)))[1] - 1
    gap = 2.0 ** (exponent - mantissa_bits)
    rounded = round(x / gap) * gap
    if abs(rounded) > largest:
        return math.copysign(math.inf, x)
    return rounded
