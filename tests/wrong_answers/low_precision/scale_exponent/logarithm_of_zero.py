MESSAGE = "it raises ValueError"


import math


def scale_exponent(amax, largest, rule):
    e = math.ceil(math.log2(amax / largest))
    return max(-127, min(e, 127))
