MESSAGE = "the rest of a row or column that fills no block is left out"


import numpy as np

from slingshot_exercises.low_precision import E4M3


def quantize(x, block):
    rows, columns = block
    scales = np.ones((len(x) // rows, x.shape[1] // columns))
    values = np.zeros_like(x)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            place = np.s_[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            scales[i, j] = np.abs(x[place]).max() / E4M3.max or 1.0
            values[place] = E4M3.round(x[place] / scales[i, j])
    return values, scales
