MESSAGE = '"ceil" adds one to "floor"'


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    e = math.frexp(amax)[1] - math.frexp(largest)[1]
    if rule == "ceil":
        e += 1
    return max(-127, min(e, 127))
