MESSAGE = 'rule has no effect, "ceil" is done always'


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    e = math.ceil(math.log2(amax / largest))
    return max(-127, min(e, 127))
