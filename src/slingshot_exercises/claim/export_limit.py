"""The check of ``export_limit``."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from slingshot import facts, rules
from slingshot_exercises.checking import Exercise, Learner, Mistake, numbers, roundings
from slingshot_exercises.claim.common import named

Pairs = Sequence[tuple[float, float]]


def _export_limit(rates: Mapping[int, float], die_mm2: float, rule: Pairs) -> tuple[float, float]:
    tpp = max(rules.total_processing_performance(rate, bits) for bits, rate in rates.items())
    return tpp, _limit(die_mm2, rule)


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


def check_export_limit(function: Learner, *, seed: int = 0) -> None:
    """Check ``export_limit(rates, die_mm2, rule)``: a chip's TPP, and the least that is caught.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. The rule is that of 2023-10-17, see
    ``slingshot.rules.rule_2023``.
    """
    rng = np.random.default_rng([seed, 6])
    rule = [
        (facts.value("rule.2023.performance"), 0.0),
        (facts.value("rule.2023.performance_with_density"), facts.value("rule.2023.density")),
        (facts.value("rule.2023.b.performance"), facts.value("rule.2023.b.density")),
    ]
    h20 = {16: facts.value("chip.h20.bf16") / 1e12, 8: facts.value("chip.h20.fp8") / 1e12}
    names = ("rates", "die_mm2", "rule")
    cases = [
        named(names, {16: 100.0, 8: 220.0}, 1000.0, [(5000.0, 0.0), (2000.0, 2.5)]),
        named(names, {16: 100.0, 8: 150.0, 4: 500.0}, 100.0, [(5000.0, 0.0), (2000.0, 2.5)]),
        named(names, h20, facts.value("chip.h100.die"), rule),
        named(names, h20, 3200.0, rule),
    ]
    for area in (50, 400, 900, 1800):
        scale = int(rng.integers(8, 24)) / 8
        scaled = [(scale * tpp, density) for tpp, density in rule]
        die = float(area + int(rng.integers(0, 100)))
        rates = {16: float(rng.integers(100, 900)), 8: float(rng.integers(100, 1900))}
        cases.append(named(names, rates, die, scaled))
    EXPORT_LIMIT.check(function, cases)
