MESSAGE = '"ceil" rounds the logarithm of amax up'


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    e = math.ceil(math.log2(amax)) if rule == "ceil" else math.floor(math.log2(amax))
    e -= math.floor(math.log2(largest))
    return max(-127, min(e, 127))
