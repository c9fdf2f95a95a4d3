"""The check of ``scale_exponent``."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from slingshot.formats import E8M0, FloatFormat
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
    MX_FORMATS,
    binade,
)


def _scale_exponent(amax: float, largest: float, rule: str) -> int:
    if amax == 0:
        return -E8M0.bias
    return _within_e8m0((_ceil if rule == "ceil" else _floor)(amax, largest))


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
        Mistake(
            '"ceil" takes one more where the largest magnitude fits exactly; what fits needs no '
            "larger scale",
            _wrong_exponent(
                ceil=lambda amax, largest: (
                    _floor(amax, largest) + (math.frexp(amax)[0] >= math.frexp(largest)[0])
                )
            ),
        ),
        Mistake(
            "it ends at -126; the exponents of E8M0 begin at -127",
            _wrong_exponent(limit=lambda exponent: max(-126, min(exponent, 127)), zero=-126),
        ),
        Mistake(
            "it ends at -126; the exponents of E8M0 begin at -127",
            _wrong_exponent(limit=lambda exponent: max(-126, min(exponent, 127))),
        ),
        Mistake(
            "it ends at 128, or at -128; the exponents of E8M0 end at -127 and 127",
            _wrong_exponent(limit=lambda exponent: max(-127, min(exponent, 128))),
        ),
        Mistake(
            "it ends at 128, or at -128; the exponents of E8M0 end at -127 and 127",
            _wrong_exponent(limit=lambda exponent: max(-128, min(exponent, 127))),
        ),
        *(
            Mistake(
                "a logarithm is rounded: next to a power of two it comes out as that power, and "
                "the exponent is one off. math.frexp rounds nothing",
                _wrong_exponent(*rules),
            )
            for rules in ((_log_floor, _log_ceil), (_floor, _log_ceil), (_log_floor, _ceil))
        ),
    ],
    lesson='To the prediction: "floor" returns 0, as 500 and 448 lie in one binade, and the 500 '
    'becomes 448. "ceil" returns 1, and 500 is stored as 250, rounded to 256, so it becomes 512.',
)


def _of_all_formats(draw: Callable[[np.random.Generator, FloatFormat], Sequence[float]]) -> Draw:
    """Draw some magnitudes for each of the formats, and ask for both rules."""

    def cases(rng: np.random.Generator) -> list[Case]:
        return [
            {"amax": amax, "largest": fmt.max, "rule": rule}
            for fmt in MX_FORMATS
            for amax in draw(rng, fmt)
            for rule in ("floor", "ceil")
        ]

    return cases


def _usual(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
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


def _next_to(*powers: int) -> Callable[[np.random.Generator, FloatFormat], Sequence[float]]:
    """What just fits and just does not, at powers of two and at the largest number."""

    def draw(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
        exact = [size * 2.0**power for power in powers for size in (1.0, fmt.max)]
        return [
            near
            for size in exact
            for near in (math.nextafter(size, 0), math.nextafter(size, 1e308))
        ]

    return draw


def _at_the_ends(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    """Magnitudes whose exponents are the last ones of E8M0 and those beside them."""
    return [
        size * fmt.max * 2.0**exponent
        for exponent in (-129, -128, -127, -126, -125, 125, 126, 127, 128)
        for size in (0.75, 1.0, 1.0625)
    ]


DOMAIN = Domain(
    "`amax` is a finite float, zero, tiny and huge ones among them, and may be as close to a power "
    "of two, or to a power of two times `largest`, as float64 can tell. `largest` is a float above "
    'zero, and `rule` one of `"floor"` and `"ceil"`.',
    _of_all_formats(_usual),
    {
        "`amax` is next to where the exponent changes": _of_all_formats(_next_to(0, 7, -9, 11)),
        "the exponent is near -127 or 127": _of_all_formats(_at_the_ends),
        "`amax` is tiny": _of_all_formats(lambda rng, fmt: [5e-324, 1e-310, 2.0**-1022]),
        "`amax` is huge": _of_all_formats(lambda rng, fmt: [1.7e308]),
        "`largest` is next to a power of two": lambda rng: [
            {"amax": amax, "largest": largest, "rule": rule}
            for amax in (1.0, 3.0, 4.0, 0.3)
            for largest in (1.0, 4.0, 3.9375, 2.0**-20, 57344.0)
            for rule in ("floor", "ceil")
        ],
    },
)


def check_scale_exponent(function: Learner, *, seed: int = 0) -> str:
    """Check ``scale_exponent(amax, largest, rule)``: the exponent of a block's scale in E8M0.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: Rouhani et al., arXiv
    2310.10537, algorithm 1, for ``"floor"``; DeepSeek's DeepGEMM for ``"ceil"``.
    """
    return DOMAIN.check(SCALE_EXPONENT, function, seed)
