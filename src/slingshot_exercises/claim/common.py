"""What several exercises of the assignment on the claim share."""

import math
from collections.abc import Sequence

import numpy as np


def named(names: Sequence[str], *values: object) -> dict[str, object]:
    """Put values behind their names, in order."""
    return dict(zip(names, values, strict=True))


def three_digits(rng: np.random.Generator, low: float, high: float, count: int) -> list[float]:
    """Numbers of three digits between low and high, evenly spread over their logarithms."""
    drawn = np.exp(rng.uniform(math.log(low), math.log(high), count))
    return [float(f"{value:.2e}") for value in drawn]
