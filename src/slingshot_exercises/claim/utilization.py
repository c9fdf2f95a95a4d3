"""The check of ``utilization``."""

from collections.abc import Callable, Mapping

import numpy as np

from slingshot import costs, facts
from slingshot_exercises.checking import Exercise, Learner, Mistake, number, roundings
from slingshot_exercises.claim.common import named, three_digits


def _utilization(
    flops: float, gpu_hours: float, peaks: Mapping[str, float], shares: Mapping[str, float]
) -> float:
    at_best = sum(flops * share / peaks[name] for name, share in shares.items())
    return at_best / (gpu_hours * 3600)


def _wrong_peak(
    peak: Callable[[Mapping[str, float], Mapping[str, float]], float],
) -> Callable[..., float]:
    """A utilization against one wrong peak for all operations."""
    return lambda flops, hours, peaks, shares: flops / (hours * 3600 * peak(peaks, shares))


UTILIZATION = Exercise(
    "utilization",
    _utilization,
    number,
    # Per format a product, a quotient and a sum, then two more.
    roundings(16),
    [
        Mistake(
            "the peaks are averaged; average the times instead, since what is slow takes longer",
            _wrong_peak(lambda peaks, shares: sum(peaks[n] * s for n, s in shares.items())),
        ),
        Mistake(
            "everything is held against the highest peak; a part of the work cannot reach it",
            _wrong_peak(lambda peaks, shares: max(peaks.values())),
        ),
        Mistake(
            "everything is held against the lowest peak; a part of the work has a higher one",
            _wrong_peak(lambda peaks, shares: min(peaks.values())),
        ),
        Mistake(
            "the shares are not used; a format that does more of the work counts for more",
            _wrong_peak(lambda peaks, shares: len(peaks) / sum(1 / p for p in peaks.values())),
        ),
        Mistake(
            "the hours are taken for seconds; an hour has 3600",
            lambda flops, hours, peaks, shares: 3600 * _utilization(flops, hours, peaks, shares),
        ),
        Mistake(
            "the ratio is upside down; at best is less than what it took, so the result is below 1",
            lambda flops, hours, peaks, shares: 1 / _utilization(flops, hours, peaks, shares),
        ),
    ],
)


def check_utilization(function: Learner, *, seed: int = 0) -> None:
    """Check ``utilization(flops, gpu_hours, peaks, shares)`` of a run in several formats.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`.
    """
    rng = np.random.default_rng([seed, 3])
    peaks = {"bf16": facts.value("chip.h800.bf16"), "fp8": facts.value("chip.h800.fp8")}
    v3 = (
        costs.training_flops(facts.value("v3.parameters.active"), facts.value("v3.tokens")),
        facts.value("v3.gpu_hours.pretraining"),
    )
    names = ("flops", "gpu_hours", "peaks", "shares")
    cases = [
        named(names, 3.6e15, 2, {"bf16": 1e12}, {"bf16": 1.0}),
        named(names, *v3, peaks, {"bf16": 0.25, "fp8": 0.75}),
    ]
    for _ in range(4):
        slow = three_digits(rng, 1e14, 1e15, 1)[0]
        share = int(rng.integers(5, 45)) / 100
        three = {"bf16": slow, "fp8": 2 * slow, "fp4": 3.5 * slow}
        split = {"bf16": share, "fp8": 0.5 * (1 - share), "fp4": 0.5 * (1 - share)}
        cases.append(named(names, three_digits(rng, 1e23, 4e23, 1)[0], 1e6, three, split))
    UTILIZATION.check(function, cases)
