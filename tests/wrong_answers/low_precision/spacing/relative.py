MESSAGE = "the spacing grows with every x"


def spacing(x, mantissa_bits, bias):
    size = max(abs(x), 2.0 ** (1 - bias))
    return size / 2**mantissa_bits
