"""The check of ``scale_exponent``."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from slingshot.formats import E8M0, FloatFormat
from slingshot_exercises.checking import (
    EXACT,
    Exercise,
    Learner,
    Mistake,
    number,
)
from slingshot_exercises.low_precision.common import (
    MX_FORMATS,
    binade,
    draw_formats,
)


def _scale_exponent(amax: float, largest: float, rule: Any) -> int:  # noqa: ANN401 a text
    import torch  # late: who answers with NumPy does not wait for torch

    from slingshot import quant

    (fmt,) = (f for f in MX_FORMATS if f.max == largest)
    # quantize refuses what no scale of E8M0 reaches; the exercise ends at the largest one.
    reached = min(amax, largest * 2.0**E8M0.bias)
    x = torch.tensor([[reached]], dtype=torch.float64)
    scale = quant.quantize(x, fmt, scale="e8m0", rule=rule).scale.item()
    return math.frexp(scale)[1] - 1


def _within_e8m0(exponent: int) -> int:
    return max(-E8M0.bias, min(exponent, E8M0.bias))


Rule = Callable[[float, float], float]


def _floor(amax: float, largest: float) -> int:
    return binade(amax) - binade(largest)


def _ceil(amax: float, largest: float) -> int:
    return _floor(amax, largest) + (math.frexp(amax)[0] > math.frexp(largest)[0])


def _log_floor(amax: float, largest: float) -> int:
    return math.floor(math.log2(amax)) - math.floor(math.log2(largest))


def _log_ceil(amax: float, largest: float) -> int:
    return math.ceil(math.log2(amax / largest))


def _wrong_exponent(
    floor: Rule = _floor,
    ceil: Rule = _ceil,
    *,
    limit: Callable[[int], int] = _within_e8m0,
    zero: float = -E8M0.bias,
    result: Callable[[int], float] = float,
) -> Callable[[float, float, str], float]:
    """An exponent with one rule exchanged, or what is done to both."""

    def wrong(amax: float, largest: float, rule: str) -> float:
        if amax == 0:
            return result(int(zero)) if zero == -E8M0.bias else zero
        return result(limit(int((ceil if rule == "ceil" else floor)(amax, largest))))

    return wrong


SCALE_EXPONENT = Exercise(
    "scale_exponent",
    _scale_exponent,
    number,
    EXACT,
    [
        Mistake(
            'rule has no effect, "floor" is done always; with "ceil" nothing saturates',
            _wrong_exponent(ceil=_floor),
        ),
        Mistake(
            'rule has no effect, "ceil" is done always; "floor" leaves the largest numbers of some '
            "blocks beyond the format",
            _wrong_exponent(floor=_ceil),
        ),
        Mistake("the two rules are exchanged", _wrong_exponent(_ceil, _floor)),
        Mistake(
            '"floor" rounds the logarithm of amax / largest down; MX takes the floor of both '
            "logarithms, each for itself",
            _wrong_exponent(
                floor=lambda amax, largest: (
                    _floor(amax, largest) - (math.frexp(amax)[0] < math.frexp(largest)[0])
                )
            ),
        ),
        Mistake(
            '"ceil" rounds the logarithm of amax up and that of largest down; in most blocks '
            "the scale is then twice as large as it need be",
            _wrong_exponent(
                ceil=lambda amax, largest: (
                    binade(amax) + (math.frexp(amax)[0] > 0.5) - binade(largest)
                )
            ),
        ),
        Mistake(
            '"ceil" adds one to "floor"; a block that fits already needs no larger scale',
            _wrong_exponent(ceil=lambda amax, largest: _floor(amax, largest) + 1),
        ),
        Mistake(
            "the logarithm is rounded to the nearest; then some numbers saturate, and with the "
            "rules nothing changes",
            _wrong_exponent(*[lambda amax, largest: round(math.log2(amax / largest))] * 2),
        ),
        Mistake(
            "it does not end at -127 and 127; E8M0 has no other exponents",
            _wrong_exponent(limit=lambda exponent: exponent),
        ),
        Mistake(
            "amax 0 gets the exponent 0; it gets the smallest, -127, so that nothing else changes",
            _wrong_exponent(zero=0),
        ),
        Mistake(
            "the code is returned, which has 127 added; return the exponent",
            _wrong_exponent(result=lambda exponent: exponent + E8M0.bias),
        ),
        Mistake(
            "the scale is returned, a power of two; return its exponent",
            _wrong_exponent(result=lambda exponent: 2.0**exponent),
        ),
    ],
)


SCALE_EXPONENT_AT_EDGES = Exercise(
    "scale_exponent",
    _scale_exponent,
    number,
    EXACT,
    [
        *(
            Mistake(
                "a logarithm is rounded: next to a power of two it comes out as that power, and "
                "the exponent is one off. math.frexp rounds nothing",
                _wrong_exponent(*rules),
            )
            for rules in ((_log_floor, _log_ceil), (_floor, _log_ceil), (_log_floor, _ceil))
        ),
    ],
)


def check_scale_exponent(function: Learner, *, seed: int = 0) -> None:
    """Check ``scale_exponent(amax, largest, rule)``: the exponent of a block's scale in E8M0.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: Rouhani et al., arXiv
    2310.10537, algorithm 1, for ``"floor"``; DeepSeek's DeepGEMM for ``"ceil"``.
    """
    rng = np.random.default_rng([seed, 34])
    drawn = draw_formats(rng, seed, MX_FORMATS)
    for exercise, draw in ((SCALE_EXPONENT, _amaxes), (SCALE_EXPONENT_AT_EDGES, _amaxes_at_edges)):
        cases = [
            {"amax": amax, "largest": fmt.max, "rule": rule}
            for fmt in drawn
            for amax in draw(rng, fmt)
            for rule in ("floor", "ceil")
        ]
        exercise.check(function, cases)


def _amaxes(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    """Magnitudes in a low and a high part of a binade, some that fit exactly, and extremes."""
    power = 2.0 ** int(rng.integers(5, 12))
    return [
        round(rng.uniform(1.01, 1.2) * power, 3),
        round(rng.uniform(1.9, 1.99) / power, 6),
        fmt.max,
        fmt.max * power,
        power,
        2.0 ** int(rng.integers(-1000, -300)),
        2.0 ** int(rng.integers(300, 1000)),
        0.0,
    ]


def _amaxes_at_edges(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    """What fits no more by a last digit, and what is a power of two but for one."""
    power = 2.0 ** int(rng.integers(5, 12))
    return [math.nextafter(fmt.max * power, math.inf), math.nextafter(power, 0)]
