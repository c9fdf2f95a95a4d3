MESSAGE = "a logarithm is rounded"


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    if rule == "ceil":
        e = math.ceil(math.log2(amax / largest))
    else:
        e = math.floor(math.log2(amax)) - math.floor(math.log2(largest))
    return max(-127, min(e, 127))
