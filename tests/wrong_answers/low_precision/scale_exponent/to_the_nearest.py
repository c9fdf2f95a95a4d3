MESSAGE = "the logarithm is rounded to the nearest"


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    e = round(math.log2(amax / largest))
    return max(-127, min(e, 127))
