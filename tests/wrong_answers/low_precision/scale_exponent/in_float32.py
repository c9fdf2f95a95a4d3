MESSAGE = "the result is wrong"


import math

import numpy as np


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    mantissa, exponent = math.frexp(float(np.float32(amax)))
    largest_mantissa, largest_exponent = math.frexp(largest)
    exponent -= largest_exponent
    if rule == "ceil" and mantissa > largest_mantissa:
        exponent += 1
    return min(max(exponent, -127), 127)
