"""The check of ``round_to``."""

import math
from collections.abc import Callable, Sequence
from typing import Any

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
        if not math.isfinite(x):
            return x if math.isnan(x) else math.copysign(largest, x)
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


def _nan_becomes(value: Callable[[float], float]) -> Callable[[float, int, int, float], float]:
    return lambda x, mantissa_bits, bias, largest: (
        value(largest) if math.isnan(x) else _round_to(x, mantissa_bits, bias, largest)
    )


def _in_float32(x: float, *rest: Any) -> float:  # noqa: ANN401 as in _round_to
    once = float(np.float32(x)) if abs(x) < 1e30 else x
    return _round_to(once, *rest)


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
        Mistake(
            "infinity stays infinity; here it saturates like any other overflow",
            lambda x, *rest: x if math.isinf(x) else _round_to(x, *rest),
        ),
        Mistake(
            "infinity becomes nan, from infinity / infinity or 0 times infinity; deal with it "
            "before anything is divided",
            lambda x, *rest: math.nan if math.isinf(x) else _round_to(x, *rest),
        ),
        *(
            Mistake(
                "nan becomes a number, which hides that something went wrong before; it stays nan",
                _nan_becomes(number),
            )
            for number in (
                lambda largest: largest,
                lambda largest: -largest,
                lambda largest: 0.0,
            )
        ),
        Mistake(
            "it is rounded twice: in float32 a number just above a middle becomes the middle, and "
            "goes to the even side",
            _in_float32,
        ),
    ],
)


def _of_all_formats(draw: Callable[[np.random.Generator, FloatFormat], Sequence[float]]) -> Draw:
    """Draw some x for each of the formats."""

    def cases(rng: np.random.Generator) -> list[Case]:
        return [
            {"x": x, "mantissa_bits": f.mantissa_bits, "bias": f.bias, "largest": f.max}
            for f in FORMATS
            for x in draw(rng, f)
        ]

    return cases


def _usual(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    """Numbers within the format, ties, subnormals, and what is too large."""
    step, tiny = 2.0**-fmt.mantissa_bits, fmt.min_subnormal
    top = spacing_of(fmt.max, fmt.mantissa_bits, fmt.bias)
    power = 2.0 ** int(rng.integers(0, 2))
    return [
        *(power * round(x, 3) for x in rng.uniform(1, 2, 2).tolist()),
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
    """Numbers beside a middle, by less than float32 can tell, where a tie would go elsewhere."""
    power = 2.0 ** int(rng.integers(0, 2))
    half = 2.0 ** -(fmt.mantissa_bits + 1)
    above = power * (1 + half) * (1 + 2.0**-40)  # its lower neighbor is even
    below = power * (1 + 3 * half) * (1 - 2.0**-40)  # its upper neighbor is even
    return [above, -above, below]


def _next_to_powers(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    powers = [fmt.min_normal, 2 * fmt.min_normal, max(2.0, 4 * fmt.min_normal)]
    half = 2.0 ** -(fmt.mantissa_bits + 1)
    return [
        power * factor for power in powers for factor in (1, 1 - half / 2, 1 - half, 1 + half / 2)
    ]


def _subnormal_ties(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    return [steps * fmt.min_subnormal for steps in (0.5, -1.5, 1.5, 0.75, -0.5000001, 1.0)]


def _around_the_end(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    top = spacing_of(fmt.max, fmt.mantissa_bits, fmt.bias)
    near = [fmt.max - top / 2, fmt.max - top / 4, fmt.max - top, fmt.max + top / 2, fmt.max + top]
    return [fmt.max, *near, *(-x for x in near)]


DOMAIN = Domain(
    "`x` is any float: zero, tiny or huge, infinite or NaN, and as close to the middle between two "
    "numbers as float64 can tell. The format has one bit of mantissa or more, and any bias. "
    "`largest` need not be the last number of its binade.",
    _of_all_formats(_usual),
    {
        "`x` is infinite": _of_all_formats(lambda rng, fmt: [math.inf, -math.inf]),
        "`x` is NaN": _of_all_formats(lambda rng, fmt: [math.nan]),
        "`x` is just beside a middle": _of_all_formats(_nearly_a_tie),
        "`x` is next to a power of two": _of_all_formats(_next_to_powers),
        "`x` is a middle between subnormal numbers": _of_all_formats(_subnormal_ties),
        "`x` is near the largest number": _of_all_formats(_around_the_end),
        "`x` is huge": _of_all_formats(lambda rng, fmt: [1e300, -1.7e308]),
        "`x` is tiny": _of_all_formats(lambda rng, fmt: [5e-324, -1e-200, -0.0]),
    },
)


def check_round_to(function: Learner, *, seed: int = 0) -> str:
    """Check ``round_to(x, mantissa_bits, bias, largest)``: to nearest and even, and saturating.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: IEEE 754-2019, §4.3.1; arXiv
    2209.05433, §3.
    """
    return DOMAIN.check(ROUND_TO, function, seed)
