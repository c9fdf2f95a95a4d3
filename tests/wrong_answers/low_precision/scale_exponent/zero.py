MESSAGE = "amax 0 gets the exponent 0"


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return 0
    mantissa, exponent = math.frexp(amax)
    top, top_exponent = math.frexp(largest)
    e = exponent - top_exponent
    if rule == "ceil" and mantissa > top:
        e += 1
    return max(-127, min(e, 127))
