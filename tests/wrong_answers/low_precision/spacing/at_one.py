MESSAGE = "the spacing at 1 is returned"


def spacing(x, mantissa_bits, bias):
    return 2.0**-mantissa_bits
