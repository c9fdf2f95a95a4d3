"""The check of ``utilization``."""

from collections.abc import Callable, Mapping

import numpy as np

from slingshot import costs, facts
from slingshot_exercises.checking import Case, Exercise, Learner, Mistake, number, roundings
from slingshot_exercises.claim.common import named, three_digits
from slingshot_exercises.domain import Domain


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
        Mistake(
            "only the slowest part of the work is counted; the formats run one after another, so "
            "their times add up",
            lambda flops, hours, peaks, shares: (
                flops * max(shares[n] / peaks[n] for n in shares) / (hours * 3600)
            ),
        ),
    ],
    lesson="To the prediction: no. Times add up, and not rates. Half of the work takes half as "
    "long, so all of it takes three quarters of the time, and the fair peak is 4/3 of that of "
    "BF16, not 3/2.",
)


def _usual(rng: np.random.Generator) -> list[Case]:
    peaks = {"bf16": facts.value("chip.h800.bf16"), "fp8": facts.value("chip.h800.fp8")}
    flops = costs.training_flops(facts.value("v3.parameters.active"), facts.value("v3.tokens"))
    hours = facts.value("v3.gpu_hours.pretraining")
    return [
        _case(3.6e15, 2, {"bf16": 1e12}, {"bf16": 1.0}),
        _case(flops, hours, peaks, {"bf16": 0.25, "fp8": 0.75}),
        *(_case(*_drawn(rng)) for _ in range(4)),
    ]


def _drawn(
    rng: np.random.Generator, equal: bool = False
) -> tuple[float, float, dict[str, float], dict[str, float]]:
    slow = three_digits(rng, 1e14, 1e15, 1)[0]
    share = int(rng.integers(5, 30)) / 100
    shares = [1 / 3] * 3 if equal else [share, 0.25, 0.75 - share]
    return (
        three_digits(rng, 1e23, 4e23, 1)[0],
        1e6,
        {"bf16": slow, "fp8": 2 * slow, "fp4": 3.5 * slow},
        dict(zip(("bf16", "fp8", "fp4"), shares, strict=True)),
    )


def _case(
    flops: float, gpu_hours: float, peaks: dict[str, float], shares: dict[str, float]
) -> Case:
    return named(("flops", "gpu_hours", "peaks", "shares"), flops, gpu_hours, peaks, shares)


def _in_another_order(rng: np.random.Generator) -> list[Case]:
    """One of the dictionaries turned about."""
    flops, hours, peaks, shares = _drawn(rng)
    back = dict(reversed(shares.items()))
    fast_first = dict(sorted(peaks.items(), key=lambda item: -item[1]))
    return [_case(flops, hours, peaks, back), _case(flops, hours, fast_first, shares)]


def _with_names(rng: np.random.Generator) -> list[Case]:
    flops, hours, peaks, shares = _drawn(rng)
    new = dict(zip(peaks, ("fp16", "int8", "tf32"), strict=True))
    both = ({new[name]: value for name, value in each.items()} for each in (peaks, shares))
    return [_case(flops, hours, *both)]


def _with_nothing(rng: np.random.Generator) -> list[Case]:
    flops, hours, peaks, _ = _drawn(rng)
    return [
        _case(flops, hours, peaks, {"bf16": 0.0, "fp8": 0.625, "fp4": 0.375}),
        _case(flops, hours, peaks, {"bf16": 0.0, "fp8": 0.0, "fp4": 1.0}),
    ]


DOMAIN = Domain(
    "The two dictionaries have the same keys, one or more, in any order. Peaks and hours are above "
    "zero. Shares are zero or more and sum to 1.",
    _usual,
    {
        "the dictionaries are in different orders": _in_another_order,
        "the formats have other names": _with_names,
        "all shares are equal": lambda rng: [_case(*_drawn(rng, equal=True))],
        "a share is zero": _with_nothing,
        "all peaks are equal": lambda rng: [
            _case(1e23, 1e6, {"bf16": 1e15, "fp8": 1e15}, {"bf16": 0.25, "fp8": 0.75})
        ],
        "the hours are few": lambda rng: [
            _case(1e15, 0.5, {"a": 1e12, "b": 3e12}, {"a": 0.5, "b": 0.5})
        ],
    },
)


def check_utilization(function: Learner, *, seed: int = 0) -> str:
    """Check ``utilization(flops, gpu_hours, peaks, shares)`` of a run in several formats.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`.
    """
    return DOMAIN.check(UTILIZATION, function, seed)
