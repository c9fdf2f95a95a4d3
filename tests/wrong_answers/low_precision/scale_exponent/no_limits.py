MESSAGE = "it does not end at -127 and 127"


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    mantissa, exponent = math.frexp(amax)
    top, top_exponent = math.frexp(largest)
    e = exponent - top_exponent
    if rule == "ceil" and mantissa > top:
        e += 1
    return e
