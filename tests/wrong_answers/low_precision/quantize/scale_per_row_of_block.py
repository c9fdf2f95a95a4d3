MESSAGE = "scales: the result has shape [4, 2]; return [2, 2]"


import numpy as np

from slingshot_exercises.low_precision import E4M3


def quantize(x, block):
    rows, columns = block
    tall, wide = -(-x.shape[0] // rows), -(-x.shape[1] // columns)
    scales = np.ones((x.shape[0], wide))
    values = np.zeros(x.shape)
    for i in range(tall):
        for j in range(wide):
            place = np.s_[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            amax = np.abs(x[place]).max()
            if amax > 0:
                scales[place[0], j : j + 1] = amax / E4M3.max
            values[place] = E4M3.round(x[place] / scales[place[0], j : j + 1])
    return values, scales
