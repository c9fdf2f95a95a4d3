MESSAGE = "the scale is returned"


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return 2.0**-127
    mantissa, exponent = math.frexp(amax)
    top, top_exponent = math.frexp(largest)
    e = exponent - top_exponent
    if rule == "ceil" and mantissa > top:
        e += 1
    return 2.0 ** max(-127, min(e, 127))
