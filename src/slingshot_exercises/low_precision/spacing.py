"""The check of ``spacing``."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from slingshot.formats import FloatFormat
from slingshot_exercises.checking import (
    EXACT,
    Case,
    Exercise,
    Learner,
    Mistake,
    number,
)
from slingshot_exercises.domain import Domain, Draw
from slingshot_exercises.low_precision.common import (
    FORMATS,
    binade,
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
        Mistake(
            "the logarithm is rounded: just below a power of two it comes out as that power, and "
            "the spacing is twice too large. math.frexp takes the exponent without rounding",
            _wrong_spacing(lambda x, bias: math.floor(math.log2(max(abs(x), 2.0 ** (1 - bias))))),
        ),
    ],
    lesson="To the prediction: for numbers just below a power of two, whose logarithm is rounded "
    "up to the whole number. The chapter rounds correctly all the same: with twice the spacing "
    "such a number goes to that power of two, and with the right one it does, too.",
)


def _of_all_formats(draw: Callable[[np.random.Generator, FloatFormat], Sequence[float]]) -> Draw:
    """Draw some x for each of the formats."""

    def cases(rng: np.random.Generator) -> list[Case]:
        return [
            {"x": x, "mantissa_bits": fmt.mantissa_bits, "bias": fmt.bias}
            for fmt in FORMATS
            for x in draw(rng, fmt)
        ]

    return cases


def _usual(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    small, power = fmt.min_normal, 2.0 ** int(rng.integers(1, 3))
    return [
        power * round(rng.uniform(1.1, 1.9), 3),
        power,
        -power * round(rng.uniform(1.1, 1.9), 3),
        small,
        small * round(rng.uniform(0.6, 0.9), 3),
        -small * round(rng.uniform(0.02, 0.2), 3),
    ]


def _negative_powers(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    return [-1.0 * max(1.0, fmt.min_normal), -fmt.min_normal, -2 * fmt.min_normal]


def _below_a_power(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    powers = [fmt.min_normal, 2 * fmt.min_normal, 2.0 ** math.frexp(fmt.max)[1] / 2]
    return [sign * math.nextafter(power, 0) for power in powers for sign in (1, -1)]


def _above_a_power(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    return [math.nextafter(power, math.inf) for power in (1.0, 2.0, fmt.min_normal)]


DOMAIN = Domain(
    "A format has one bit of mantissa or more, and any bias. `x` is a float of either sign that "
    "is not beyond the format, zero among them, and may be as close to a power of two as float64 "
    "can tell.",
    _of_all_formats(_usual),
    {
        "`x` is 0": _of_all_formats(lambda rng, fmt: [0.0, -0.0]),
        "`x` is just below a power of two": _of_all_formats(_below_a_power),
        "`x` is just above a power of two": _of_all_formats(_above_a_power),
        "`x` is a negative power of two": _of_all_formats(_negative_powers),
        "`x` is the largest number": _of_all_formats(lambda rng, fmt: [fmt.max, -fmt.max]),
        "`x` is far below the smallest number": _of_all_formats(
            lambda rng, fmt: [fmt.min_subnormal, fmt.min_subnormal / 3, -5e-324]
        ),
    },
)


def check_spacing(function: Learner, *, seed: int = 0) -> str:
    """Check ``spacing(x, mantissa_bits, bias)``: the distance between neighbors around x.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2209.05433, table 1.
    """
    return DOMAIN.check(SPACING, function, seed)
