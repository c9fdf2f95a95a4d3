"""The check of ``export_limit``."""

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations

import numpy as np

from slingshot import facts
from slingshot_exercises.checking import Case, Exercise, Learner, Mistake, numbers, roundings
from slingshot_exercises.claim.common import named
from slingshot_exercises.domain import Domain

Pairs = Sequence[tuple[float, float]]


def _export_limit(rates: Mapping[int, float], die_mm2: float, rule: Pairs) -> tuple[float, float]:
    return _tpp(rates), _limit(die_mm2, rule)


def _tpp(rates: Mapping[int, float]) -> float:
    return max(bits * rate for bits, rate in rates.items())


def _limit(die_mm2: float, rule: Pairs) -> float:
    return min(max(least, density * die_mm2) for least, density in rule)


def _wrong_limit(
    tpp: Callable[[Mapping[int, float]], float] = _tpp,
    limit: Callable[[float, Pairs], float] = _limit,
) -> Callable[..., tuple[float, float]]:
    """A wrong pair, with the measure or the limit exchanged."""
    return lambda rates, die_mm2, rule: (tpp(rates), limit(die_mm2, rule))


EXPORT_LIMIT = Exercise(
    "export_limit",
    _export_limit,
    numbers("tpp", "limit"),
    # One product in either result; comparisons are exact.
    roundings(2),
    [
        Mistake(
            "the rate is not multiplied by the bits of its format",
            _wrong_limit(tpp=lambda rates: max(rates.values())),
        ),
        Mistake(
            "the formats are added; the TPP of a chip is the largest over its formats",
            _wrong_limit(tpp=lambda rates: sum(b * r for b, r in rates.items())),
        ),
        Mistake(
            "the bits of one format meet the rate of another; multiply first, then take the most",
            _wrong_limit(tpp=lambda rates: max(rates) * max(rates.values())),
        ),
        Mistake(
            "the format with the highest rate is taken; the largest product of rate and bits may "
            "be that of another",
            _wrong_limit(
                tpp=lambda rates: max((rate, rate * bits) for bits, rate in rates.items())[1]
            ),
        ),
        Mistake(
            "the format with the most bits is taken; the largest product of rate and bits may be "
            "that of another",
            _wrong_limit(tpp=lambda rates: max(rates) * rates[max(rates)]),
        ),
        Mistake(
            "the two numbers are exchanged; return the TPP of the chip first",
            lambda rates, die_mm2, rule: (_limit(die_mm2, rule), _tpp(rates)),
        ),
        Mistake(
            "the density is left out; a pair catches a chip that reaches both of its numbers",
            _wrong_limit(limit=lambda die, rule: min(t for t, _ in rule)),
        ),
        Mistake(
            "only the pair without a density counts; the others catch smaller chips",
            _wrong_limit(limit=lambda die, rule: next(t for t, d in rule if d == 0)),
        ),
        Mistake(
            "one number of a pair is enough for you; a pair catches a chip that reaches both",
            _wrong_limit(limit=lambda die, rule: min(min(t, d * die) for t, d in rule)),
        ),
        Mistake(
            "all pairs must be reached for you; one pair is enough to be caught",
            _wrong_limit(limit=lambda die, rule: max(max(t, d * die) for t, d in rule)),
        ),
    ],
)


NAMES = ("rates", "die_mm2", "rule")
SIMPLE = [(5000.0, 0.0), (2000.0, 2.5)]


def _rule_2023() -> list[tuple[float, float]]:
    return [
        (facts.value("rule.2023.performance"), 0.0),
        (facts.value("rule.2023.performance_with_density"), facts.value("rule.2023.density")),
        (facts.value("rule.2023.b.performance"), facts.value("rule.2023.b.density")),
    ]


def _usual(rng: np.random.Generator) -> Sequence[Case]:
    h20 = {16: facts.value("chip.h20.bf16") / 1e12, 8: facts.value("chip.h20.fp8") / 1e12}
    cases = [
        named(NAMES, {16: 100.0, 8: 220.0}, 1000.0, SIMPLE),
        named(NAMES, {16: 100.0, 8: 150.0, 4: 500.0}, 100.0, SIMPLE),
        named(NAMES, h20, facts.value("chip.h100.die"), _rule_2023()),
        named(NAMES, h20, 3200.0, _rule_2023()),
    ]
    return cases + [_drawn(rng, area) for area in (50, 400, 900, 1800)]


def _drawn(rng: np.random.Generator, area: int = 400, **given: object) -> dict[str, object]:
    """A chip and a rule that is that of 2023 on another scale."""
    scale = int(rng.integers(8, 24)) / 8
    scaled = [(scale * tpp, density) for tpp, density in _rule_2023()]
    die = float(area + int(rng.integers(0, 100)))
    rates = {16: float(rng.integers(100, 900)), 8: float(rng.integers(100, 1900))}
    return {**named(NAMES, rates, die, scaled), **given}


def _other_orders(rng: np.random.Generator) -> Sequence[Case]:
    return [
        _drawn(rng, area, rule=list(order))
        for area, order in zip((50, 900, 1800, 400), permutations(_rule_2023()), strict=False)
    ]


DOMAIN = Domain(
    "`rates` has one format or more and `rule` one pair or more, in any order. Rates and areas "
    "are above zero, and the numbers of a pair are zero or more. There may be no pair with a "
    "density of zero, or several.",
    _usual,
    {
        "the pairs are in another order": _other_orders,
        "no pair has a density of zero": lambda rng: [
            _drawn(rng, area, rule=[(1600.0, 5.92), (2400.0, 1.6)]) for area in (100, 900)
        ],
        "there is one pair": lambda rng: [
            _drawn(rng, rule=[(4800.0, 0.0)]),
            _drawn(rng, rule=[(1000.0, 4.0)]),
        ],
        "several pairs have a density of zero": lambda rng: [
            _drawn(rng, rule=[(4800.0, 0.0), (3000.0, 0.0), (2500.0, 9.0)])
        ],
        "the TPP of a pair is zero": lambda rng: [_drawn(rng, rule=[(0.0, 3.0), (4800.0, 0.0)])],
        "the formats are in another order": lambda rng: [
            _drawn(rng, rates={4: 300.0, 16: 210.0, 8: 320.0}),
            _drawn(rng, rates={8: 100.0, 4: 900.0, 32: 60.0}),
        ],
        "a format with fewer bits has the lower rate": lambda rng: [
            _drawn(rng, rates={16: 300.0, 8: 200.0})
        ],
        "there is one format": lambda rng: [_drawn(rng, rates={8: 250.0})],
        "all arguments are integers": lambda rng: [
            named(NAMES, {16: 148, 8: 296}, 814, [(4800, 0), (1600, 6), (2400, 2)])
        ],
    },
)


def check_export_limit(function: Learner, *, seed: int = 0) -> str:
    """Check ``export_limit(rates, die_mm2, rule)``: a chip's TPP, and the least that is caught.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. The rule is that of 2023-10-17, see
    ``slingshot.rules.rule_2023``.
    """
    return DOMAIN.check(EXPORT_LIMIT, function, seed)
