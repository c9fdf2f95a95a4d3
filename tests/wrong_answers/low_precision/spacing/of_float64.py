MESSAGE = "the result is wrong"


import numpy as np


def spacing(x, mantissa_bits, bias):
    return np.spacing(abs(x))
