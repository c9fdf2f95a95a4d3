"""The check of ``round_to``."""

import math
from collections.abc import Callable

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
from slingshot_exercises.low_precision.common import (
    FORMATS,
    binade,
    draw_formats,
    spacing_of,
)


def _round_to(x: float, mantissa_bits: int, bias: int, largest: float) -> float:
    (fmt,) = (f for f in FORMATS if (f.mantissa_bits, f.bias) == (mantissa_bits, bias))
    return math.nan if math.isnan(x) else float(fmt.round(x, saturate=True))


def _saturate(value: float, largest: float) -> float:
    return math.copysign(largest, value) if abs(value) > largest else value


def _wrong_round(
    *,
    whole: Callable[[float], float] = np.rint,
    step: Callable[[float, int, int], float] = spacing_of,
    beyond: Callable[[float, float], float] = _saturate,
) -> Callable[[float, int, int, float], float]:
    """A rounding with one step exchanged; ``beyond`` gets what was rounded, and the maximum."""

    def wrong(x: float, mantissa_bits: int, bias: int, largest: float) -> float:
        spacing = step(x, mantissa_bits, bias) if x else 1.0
        return beyond(float(whole(x / spacing)) * spacing, largest)

    return wrong


def _overflow(value: float) -> Callable[[float, float], float]:
    return lambda rounded, largest: (
        math.copysign(value, rounded) if abs(rounded) > largest else rounded
    )


def _without_subnormals(x: float, mantissa_bits: int, bias: int, largest: float) -> float:
    rounded = _wrong_round()(x, mantissa_bits, bias, largest)
    return 0.0 if abs(rounded) < 2.0 ** (1 - bias) else rounded


ROUND_TO = Exercise(
    "round_to",
    _round_to,
    number,
    EXACT,
    [
        Mistake(
            "a tie goes away from zero; from the middle the even one of the two is taken",
            _wrong_round(whole=lambda steps: math.copysign(math.floor(abs(steps) + 0.5), steps)),
        ),
        Mistake(
            "a tie goes up; from the middle the even one of the two is taken",
            _wrong_round(whole=lambda steps: math.floor(steps + 0.5)),
        ),
        Mistake(
            "the rest is cut off, toward zero; round to the nearest",
            _wrong_round(whole=math.trunc),
        ),
        Mistake("it rounds down always; round to the nearest", _wrong_round(whole=math.floor)),
        Mistake(
            "subnormal numbers become 0; below the smallest normal number there are 2^M - 1 more",
            _without_subnormals,
        ),
        Mistake(
            "tiny numbers are kept; below the smallest normal number the spacing does not shrink "
            "any more",
            _wrong_round(step=lambda x, mantissa_bits, bias: 2.0 ** (binade(x) - mantissa_bits)),
        ),
        Mistake(
            "beyond the largest number it goes on; what would round beyond it becomes the largest",
            _wrong_round(beyond=lambda rounded, largest: rounded),
        ),
        Mistake(
            "an overflow becomes infinity; here it saturates, at the largest number",
            _wrong_round(beyond=_overflow(math.inf)),
        ),
        Mistake(
            "an overflow becomes nan; here it saturates, at the largest number",
            _wrong_round(beyond=_overflow(math.nan)),
        ),
        Mistake(
            "it saturates on one side only; what is below -largest becomes -largest",
            _wrong_round(beyond=min),
        ),
    ],
)


ROUND_TO_INFINITY = Exercise(
    "round_to",
    _round_to,
    number,
    EXACT,
    [
        Mistake(
            "infinity stays infinity; here it saturates like any other overflow",
            lambda x, mantissa_bits, bias, largest: x,
        ),
        Mistake(
            "infinity becomes nan, from infinity / infinity or 0 times infinity; deal with it "
            "before anything is divided",
            lambda x, mantissa_bits, bias, largest: math.nan,
        ),
    ],
)


ROUND_TO_NAN = Exercise(
    "round_to",
    _round_to,
    number,
    EXACT,
    reason="nan becomes a number, which hides that something went wrong before; it stays nan",
)


ROUND_TO_ONCE = Exercise(
    "round_to",
    _round_to,
    number,
    EXACT,
    [
        Mistake(
            "it is rounded twice: in float32 a number just above a middle becomes the middle, and "
            "goes to the even side",
            lambda x, *rest: _wrong_round()(float(np.float32(x)), *rest),
        ),
    ],
)


def check_round_to(function: Learner, *, seed: int = 0) -> None:
    """Check ``round_to(x, mantissa_bits, bias, largest)``: to nearest and even, and saturating.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: IEEE 754-2019, §4.3.1; arXiv
    2209.05433, §3.
    """
    rng = np.random.default_rng([seed, 32])
    for exercise, draw in (
        (ROUND_TO, _ordinary_numbers),
        (ROUND_TO_INFINITY, lambda rng, fmt: [-math.inf, math.inf]),
        (ROUND_TO_NAN, lambda rng, fmt: [math.nan]),
        (ROUND_TO_ONCE, _nearly_a_tie),
    ):
        cases: list[Case] = []
        for fmt in draw_formats(np.random.default_rng([seed, 32]), seed):
            rest = {"mantissa_bits": fmt.mantissa_bits, "bias": fmt.bias, "largest": fmt.max}
            cases += [{"x": x, **rest} for x in draw(rng, fmt)]
        exercise.check(function, cases)


def _ordinary_numbers(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    """Numbers within the format, ties, subnormals, and what is too large."""
    step, tiny = 2.0**-fmt.mantissa_bits, fmt.min_subnormal
    top = spacing_of(fmt.max, fmt.mantissa_bits, fmt.bias)
    power = 2.0 ** int(rng.integers(0, 2))
    return [
        *(power * round(x, 3) for x in rng.uniform(1, 2, 2)),
        -power * round(rng.uniform(1, 2), 3),
        power * (1 + step / 2),
        -power * (1 + step / 2),
        -power * (1 + 1.5 * step),
        power * (1 + 1.5 * step),
        tiny * round(rng.uniform(0.6, 0.9), 3),
        -tiny / 2,
        tiny * round(rng.uniform(0.1, 0.4), 3),
        fmt.max + top / 4,
        fmt.max + round(rng.uniform(0.6, 0.9), 3) * top,
        -3 * fmt.max,
        0.0,
    ]


def _nearly_a_tie(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    """A number above a middle whose lower neighbor is even, by less than float32 can tell."""
    power = 2.0 ** int(rng.integers(0, 2))
    return [power * (1 + 2.0 ** -(fmt.mantissa_bits + 1)) * (1 + 2.0**-40)]
