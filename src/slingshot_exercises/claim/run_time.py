"""The check of ``run_time``."""

from collections.abc import Callable

import numpy as np

from slingshot import costs, facts
from slingshot_exercises.checking import Case, Exercise, Learner, Mistake, numbers, roundings
from slingshot_exercises.claim.common import named, three_digits


def _run_time(
    flops: float, n_gpus: int, peak_flops: float, mfu: float, uptime: float
) -> tuple[float, float]:
    hours = costs.gpu_hours(flops, peak_flops, mfu) / uptime
    return hours, costs.days(hours, n_gpus)


def _wrong_time(
    hours: Callable[[float, float, float, float], float],
    days: Callable[[float, float, int], float] = lambda h, _uptime, n: h / n / 24,
) -> Callable[..., tuple[float, float]]:
    """A wrong pair: hours of (flops, peak, mfu, uptime), days of (hours, uptime, n_gpus)."""

    def wrong(
        flops: float, n_gpus: int, peak_flops: float, mfu: float, uptime: float
    ) -> tuple[float, float]:
        total = hours(flops, peak_flops, mfu, uptime)
        return total, days(total, uptime, n_gpus)

    return wrong


def _right_hours(flops: float, peak: float, mfu: float, uptime: float) -> float:
    return flops / (peak * mfu * uptime) / 3600


RUN_TIME = Exercise(
    "run_time",
    _run_time,
    numbers("gpu_hours", "days"),
    # Seven products and quotients; we allow ten.
    roundings(10),
    [
        Mistake(
            "the peak is per second, and the result is called hours: divide by 3600",
            _wrong_time(lambda f, p, m, u: f / (p * m * u)),
        ),
        Mistake(
            "the utilization multiplies; a lower utilization must take longer",
            _wrong_time(lambda f, p, m, u: f / (p * u) * m / 3600),
        ),
        Mistake(
            "the uptime multiplies; chips that stand still part of the time must take longer",
            _wrong_time(lambda f, p, m, u: f / (p * m) * u / 3600),
        ),
        Mistake(
            "the uptime does nothing; the run takes longer, by 1 / uptime",
            _wrong_time(lambda f, p, m, u: f / (p * m) / 3600),
        ),
        Mistake(
            "the uptime lengthens the days and not the hours; a chip that waits is paid for",
            _wrong_time(lambda f, p, m, u: f / (p * m) / 3600, lambda h, u, n: h / u / n / 24),
        ),
        Mistake(
            "all chips work at the same time: the days are hours of one chip, divided by 24",
            _wrong_time(_right_hours, lambda h, u, n: h / 24),
        ),
        Mistake(
            "the second result is in hours; a day has 24",
            _wrong_time(_right_hours, lambda h, u, n: h / n),
        ),
        Mistake(
            "the first result is the time of the cluster; GPU hours are summed over the chips",
            lambda f, n, p, m, u: (_right_hours(f, p, m, u) / n, _right_hours(f, p, m, u) / n / 24),
        ),
    ],
)


def check_run_time(function: Learner, *, seed: int = 0) -> None:
    """Check ``run_time(flops, n_gpus, peak_flops, mfu, uptime)``: GPU hours paid, and days.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`.
    """
    rng = np.random.default_rng([seed, 2])
    cases: list[Case] = [
        named(RUN_ARGUMENTS, 7.2e15, 2, 1e12, 0.5, 1.0),
        named(
            RUN_ARGUMENTS,
            costs.training_flops(facts.value("v3.parameters.active"), facts.value("v3.tokens")),
            facts.value("v3.gpus"),
            facts.value("chip.h800.bf16"),
            0.375,
            0.9375,
        ),
    ]
    for _ in range(4):
        flops, peak = three_digits(rng, 1e22, 1e25, 1)[0], three_digits(rng, 1e14, 2e15, 1)[0]
        mfu, uptime = rng.integers(20, 60) / 100, rng.integers(50, 99) / 100
        cases.append(named(RUN_ARGUMENTS, flops, int(rng.integers(8, 4096)), peak, mfu, uptime))
    RUN_TIME.check(function, cases)


RUN_ARGUMENTS = ("flops", "n_gpus", "peak_flops", "mfu", "uptime")
