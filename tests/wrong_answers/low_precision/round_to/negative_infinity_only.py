MESSAGE = "a tie goes up; from the middle the even one of the two is taken"


import math


def round_to(x, mantissa_bits, bias, largest):
    if math.isnan(x):
        return x
    if x >= largest or x == -math.inf:
        return math.copysign(largest, x)
    x = max(x, -largest)
    normal = max(abs(x), 2.0 ** (1 - bias))
    gap = 2.0 ** (math.frexp(normal)[1] - 1 - mantissa_bits)
    return math.floor(x / gap + 0.5) * gap
