"""What several exercises of the assignment on low precision share."""

import math
from typing import Any, Final

from numpy.typing import NDArray

from slingshot import formats

Array = NDArray[Any]


MX_FORMATS: Final = (formats.E4M3, formats.E5M2, formats.E3M2, formats.E2M3, formats.E2M1)


FORMATS: Final = (*MX_FORMATS, formats.FP16, formats.BF16)


def spacing_of(x: float, mantissa_bits: int, bias: int) -> float:
    """The distance between the numbers of a format around x; at a power of two, above it."""
    # frexp is exact: |x| = mantissa · 2^exponent, 1/2 <= mantissa < 1.
    exponent = math.frexp(max(abs(x), 2.0 ** (1 - bias)))[1]
    return math.ldexp(1.0, exponent - 1 - mantissa_bits)


def binade(x: float) -> int:
    """The exponent e of ``2^e <= |x| < 2^(e+1)``; of 0 that of the smallest float64."""
    return math.frexp(abs(x) or 2.0**-1074)[1] - 1
