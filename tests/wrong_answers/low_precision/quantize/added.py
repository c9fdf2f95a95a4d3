MESSAGE = "scales: the result is close, but not as close as float64 is; is a step"


import numpy as np

from slingshot_exercises.low_precision import E4M3


def quantize(x, block):
    rows, columns = block
    padded = np.pad(x, ((0, -len(x) % rows), (0, -x.shape[1] % columns)))
    down, across = len(padded) // rows, padded.shape[1] // columns
    tiles = padded.reshape(down, rows, across, columns)
    amax = np.abs(tiles).max(axis=(1, 3))
    scales = np.where(amax > 0, amax / E4M3.max + 1e-12, 1.0)
    values = E4M3.round(tiles / scales[:, None, :, None])
    values = values.reshape(padded.shape)[: len(x), : x.shape[1]]
    return values, scales
