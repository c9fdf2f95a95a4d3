MESSAGE = "a logarithm is rounded"


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    if rule == "floor":
        e = math.floor(math.log2(amax)) - math.floor(math.log2(largest))
    else:
        e = math.frexp(amax)[1] - math.frexp(largest)[1]
        if math.ldexp(largest, e) < amax:
            e += 1
    return max(-127, min(e, 127))
