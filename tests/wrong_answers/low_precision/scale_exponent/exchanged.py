MESSAGE = "the two rules are exchanged"


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    mantissa, exponent = math.frexp(amax)
    top, top_exponent = math.frexp(largest)
    e = exponent - top_exponent
    if rule == "floor" and mantissa > top:
        e += 1
    return max(-127, min(e, 127))
