MESSAGE = "an overflow becomes nan"


import math


def round_to(x, mantissa_bits, bias, largest):
    if not math.isfinite(x):
        return math.nan
    exponent = math.frexp(max(abs(x), 2.0 ** (1 - bias)))[1] - 1
    gap = 2.0 ** (exponent - mantissa_bits)
    rounded = round(x / gap) * gap
    return rounded if abs(rounded) <= largest else math.nan
