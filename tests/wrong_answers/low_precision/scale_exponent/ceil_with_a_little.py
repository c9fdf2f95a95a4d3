MESSAGE = "only where `amax` is next to where the exponent changes"


import math


def scale_exponent(amax, largest, rule):
    if amax == 0:
        return -127
    mantissa, exponent = math.frexp(amax)
    largest_mantissa, largest_exponent = math.frexp(largest)
    exponent -= largest_exponent
    if rule == "ceil":
        return min(max(math.ceil(math.log2(amax) - math.log2(largest) - 1e-12), -127), 127)
    if rule == "ceil" and mantissa > largest_mantissa:
        exponent += 1
    return min(max(exponent, -127), 127)
