MESSAGE = "the result is wrong"


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    mantissa, exponent = math.frexp(amax)
    largest_mantissa, largest_exponent = math.frexp(largest)
    exponent -= largest_exponent
    if rule == "ceil" and mantissa > largest_mantissa:
        exponent += 1
    return min(max(exponent + 127, 0), 254)
