MESSAGE = "only where the numbers are tiny"


import numpy as np

from slingshot_exercises.low_precision import E4M3


def quantize(x, block):
    rows, columns = block
    tall, wide = -(-x.shape[0] // rows), -(-x.shape[1] // columns)
    scales = np.ones((tall, wide))
    values = np.zeros(x.shape)
    for i in range(tall):
        for j in range(wide):
            place = np.s_[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            amax = np.abs(x[place]).max()
            if amax > 1e-10:
                scales[i, j] = amax / E4M3.max
            values[place] = E4M3.round(x[place] / scales[i, j])
    return values, scales
