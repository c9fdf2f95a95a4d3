MESSAGE = "there is one scale for the whole matrix"


import numpy as np

from slingshot_exercises.low_precision import E4M3


def quantize(x, block):
    scales = np.abs(x).max(keepdims=True) / E4M3.max
    return E4M3.round(x / scales), scales
