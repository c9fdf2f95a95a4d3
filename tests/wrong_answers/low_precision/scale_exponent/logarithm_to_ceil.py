MESSAGE = "a logarithm is rounded"


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    e = math.frexp(amax)[1] - math.frexp(largest)[1]
    if rule == "ceil":
        e = math.ceil(math.log2(amax / largest))
    return max(-127, min(e, 127))
