"""The check of ``run_time``."""

from collections.abc import Callable

import numpy as np

from slingshot import costs, facts
from slingshot_exercises.checking import Case, Exercise, Learner, Mistake, numbers, roundings
from slingshot_exercises.claim.common import named, three_digits
from slingshot_exercises.domain import Domain


def _run_time(
    flops: float, n_gpus: int, peak_flops: float, mfu: float, uptime: float = 1.0
) -> tuple[float, float]:
    hours = flops / (peak_flops * mfu * uptime) / 3600
    return hours, hours / n_gpus / 24


def _wrong_time(
    hours: Callable[[float, float, float, float], float],
    days: Callable[[float, float, int], float] = lambda h, _uptime, n: h / n / 24,
    *,
    times_chips: bool = False,
) -> Callable[..., tuple[float, float]]:
    """A wrong pair: hours of (flops, peak, mfu, uptime), days of (hours, uptime, n_gpus)."""

    def wrong(
        flops: float, n_gpus: int, peak_flops: float, mfu: float, uptime: float
    ) -> tuple[float, float]:
        total = hours(flops, peak_flops, mfu, uptime)
        return total * (n_gpus if times_chips else 1), days(total, uptime, n_gpus)

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
        Mistake(
            "the GPU hours are multiplied by the number of chips; the operations are those of all "
            "chips together",
            _wrong_time(_right_hours, times_chips=True),
        ),
        Mistake(
            "the two numbers are exchanged; return the GPU hours first",
            lambda f, n, p, m, u: _run_time(f, n, p, m, u)[::-1],
        ),
    ],
)


def _usual(rng: np.random.Generator) -> list[Case]:
    flops = costs.training_flops(facts.value("v3.parameters.active"), facts.value("v3.tokens"))
    chips, peak = facts.value("v3.gpus"), facts.value("chip.h800.bf16")
    cases = [_case(7.2e15, 2, 1e12, 0.5, 1.0), _case(flops, chips, peak, 0.375, 0.9375)]
    return cases + [_drawn(rng) for _ in range(4)]


def _drawn(rng: np.random.Generator, **given: float) -> Case:
    """A run; what is given replaces what is drawn."""
    flops, peak = three_digits(rng, 1e22, 1e25, 1)[0], three_digits(rng, 1e14, 2e15, 1)[0]
    mfu, uptime = int(rng.integers(20, 60)) / 100, int(rng.integers(50, 99)) / 100
    return {**_case(flops, int(rng.integers(8, 4096)), peak, mfu, uptime), **given}


def _case(*values: float) -> Case:
    return named(("flops", "n_gpus", "peak_flops", "mfu", "uptime")[: len(values)], *values)


DOMAIN = Domain(
    "`flops` is zero or more, `n_gpus` a whole number from 1 and `peak_flops` above zero. `mfu` "
    "and `uptime` are above zero and at most 1. `uptime` may be left out.",
    _usual,
    {
        "`uptime` is not given": lambda rng: [_case(7.2e15, 2, 1e12, 0.5)],
        "there is one chip": lambda rng: [_drawn(rng, n_gpus=1)],
        "`mfu` is 1": lambda rng: [_drawn(rng, mfu=1.0)],
        "`uptime` is 1": lambda rng: [_drawn(rng, uptime=1.0)],
        "`mfu` or `uptime` is small": lambda rng: [_drawn(rng, mfu=0.01), _drawn(rng, uptime=0.02)],
        "the run takes less than an hour": lambda rng: [_drawn(rng, flops=1e12, peak_flops=1e12)],
        "there are no operations": lambda rng: [_drawn(rng, flops=0.0)],
        "arguments are integers": lambda rng: [_case(10**24, 1000, 10**15, 1, 1)],
    },
)


def check_run_time(function: Learner, *, seed: int = 0) -> str:
    """Check ``run_time(flops, n_gpus, peak_flops, mfu, uptime)``: GPU hours paid, and days.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`.
    """
    return DOMAIN.check(RUN_TIME, function, seed)
