MESSAGE = '"floor" rounds the logarithm of amax / largest down'


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    e = math.log2(amax / largest)
    e = math.ceil(e) if rule == "ceil" else math.floor(e)
    return max(-127, min(e, 127))
