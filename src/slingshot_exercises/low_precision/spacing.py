"""The check of ``spacing``."""

import math
from collections.abc import Callable

import numpy as np

from slingshot_exercises.checking import (
    EXACT,
    Case,
    Exercise,
    Learner,
    Mistake,
    number,
)
from slingshot_exercises.low_precision.common import (
    binade,
    draw_formats,
    spacing_of,
)


def _wrong_spacing(
    exponent: Callable[[float, int], float],
) -> Callable[[float, int, int], float]:
    """A spacing of ``2^(exponent(x, bias) - M)``."""
    return lambda x, mantissa_bits, bias: 2.0 ** (exponent(x, bias) - mantissa_bits)


SPACING = Exercise(
    "spacing",
    spacing_of,
    number,
    EXACT,
    [
        Mistake(
            "below the smallest normal number the spacing goes on shrinking; it stays what it is "
            "in the first binade, from 2^(1-bias)",
            _wrong_spacing(lambda x, bias: binade(x)),
        ),
        Mistake(
            "the first binade begins at 2^-bias here; exponent 0 has the spacing of exponent 1, "
            "so it begins at 2^(1-bias)",
            _wrong_spacing(lambda x, bias: max(binade(x), -bias)),
        ),
        Mistake(
            "a negative x gets the smallest spacing; take its magnitude first",
            _wrong_spacing(lambda x, bias: binade(max(x, 2.0 ** (1 - bias)))),
        ),
        Mistake(
            "the exponent is rounded up; the binade of x begins at the power of two below it",
            _wrong_spacing(lambda x, bias: math.ceil(math.log2(max(abs(x), 2.0 ** (1 - bias))))),
        ),
        Mistake(
            "every result is twice the right one; math.frexp returns a mantissa from 1/2 to 1, so "
            "its exponent is one more than that of the binade",
            _wrong_spacing(lambda x, bias: max(binade(x), 1 - bias) + 1),
        ),
        Mistake(
            "every result is half the right one; a binade has 2^M steps, as the leading 1 takes no "
            "bit",
            _wrong_spacing(lambda x, bias: max(binade(x), 1 - bias) - 1),
        ),
        Mistake(
            "the spacing at 1 is returned for every x; it doubles from one binade to the next",
            _wrong_spacing(lambda x, bias: 0),
        ),
        Mistake(
            "the spacing grows with every x; within a binade it is the same for all",
            lambda x, mantissa_bits, bias: max(abs(x), 2.0 ** (1 - bias)) * 2.0**-mantissa_bits,
        ),
    ],
)


SPACING_BELOW_A_POWER = Exercise(
    "spacing",
    spacing_of,
    number,
    EXACT,
    [
        Mistake(
            "the logarithm is rounded: just below a power of two it comes out as that power, and "
            "the spacing is twice too large. math.frexp takes the exponent without rounding",
            _wrong_spacing(lambda x, bias: math.floor(math.log2(max(abs(x), 2.0 ** (1 - bias))))),
        ),
    ],
)


def check_spacing(function: Learner, *, seed: int = 0) -> None:
    """Check ``spacing(x, mantissa_bits, bias)``: the distance between neighbors around x.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2209.05433, table 1.
    """
    rng = np.random.default_rng([seed, 31])
    cases: list[Case] = []
    for fmt in draw_formats(rng, seed):
        small = fmt.min_normal
        power = 2.0 ** rng.integers(1, 3)
        xs = [
            power * round(rng.uniform(1.1, 1.9), 3),
            power,
            -power * round(rng.uniform(1.1, 1.9), 3),
            small,
            small * round(rng.uniform(0.6, 0.9), 3),
            -small * round(rng.uniform(0.02, 0.2), 3),
            0.0,
        ]
        cases += [{"x": x, "mantissa_bits": fmt.mantissa_bits, "bias": fmt.bias} for x in xs]
    SPACING.check(function, cases)
    below = [math.nextafter(2.0 ** int(power), 0) for power in rng.integers(5, 12, 2)]
    rest = {"mantissa_bits": 10, "bias": 15}  # of FP16, which reaches beyond all of them
    SPACING_BELOW_A_POWER.check(function, [{"x": x, **rest} for x in below])
