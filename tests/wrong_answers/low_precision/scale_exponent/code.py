MESSAGE = "the code is returned"


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return 0
    mantissa, exponent = math.frexp(amax)
    top, top_exponent = math.frexp(largest)
    e = exponent - top_exponent
    if rule == "ceil" and mantissa > top:
        e += 1
    return max(0, min(e + 127, 254))
