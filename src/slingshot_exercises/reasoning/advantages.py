"""The check of ``advantages``."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slingshot import grpo
from slingshot_exercises.checking import (
    UNIT_ROUNDOFF,
    Answer,
    Case,
    Exercise,
    Learner,
    Mistake,
    Tolerance,
    tensor,
)
from slingshot_exercises.domain import Domain

EPS = 1e-4
"""What is added to the standard deviation of a group, as TRL does."""


def _wrong_advantages(
    scale: Callable[[Tensor], Tensor],
    center: Callable[[Tensor], Tensor] = lambda r: r - r.mean(dim=1, keepdim=True),
) -> Callable[[Tensor], Tensor]:
    """Advantages in which the centered rewards are divided by ``scale`` of the rewards."""
    return lambda rewards: center(rewards) / scale(rewards)


def _deviation(rewards: Tensor, correction: int = 1) -> Tensor:
    return rewards.std(dim=1, keepdim=True, correction=correction)


def _with_eps(eps: float) -> Callable[[Tensor], Tensor]:
    return _wrong_advantages(lambda rewards: _deviation(rewards) + eps)


def _advantages_bound(case: Case, expected: Answer) -> np.ndarray:
    """How far roundings can move an advantage.

    A mean of G rewards of size M is off by at most G u M, so a centered reward and the standard
    deviation s are off by (G + 2) u M each, and a quotient A by that, divided by s + eps, times
    1 + |A|.
    """
    rewards = case["rewards"].numpy()
    spread = rewards.std(axis=1, ddof=1, keepdims=True) + EPS
    error = (rewards.shape[1] + 4) * UNIT_ROUNDOFF * np.abs(rewards).max(axis=1, keepdims=True)
    return np.asarray(2 * 2 * error / spread * (1 + np.abs(expected)))


def _advantages(rewards: Tensor) -> Tensor:
    return _wrong_advantages(lambda r: _deviation(r) + EPS)(rewards)


def _from_0_to_1(rewards: Tensor) -> Tensor:
    low, high = rewards.amin(1, keepdim=True), rewards.amax(1, keepdim=True)
    return (rewards - low) / torch.where(high > low, high - low, 1.0)


def _zero_where_near(least: float) -> Callable[[Tensor], Tensor]:
    return lambda rewards: torch.where(_deviation(rewards) < least, 0.0, _advantages(rewards))


ADVANTAGES = Exercise(
    "advantages",
    _advantages,
    tensor,
    Tolerance(
        _advantages_bound,
        "the roundings of a mean, a standard deviation and a quotient, in each of two formulas",
    ),
    [
        Mistake(
            "the standard deviation divides by G; it is taken over a sample, so divide by G - 1",
            _wrong_advantages(lambda r: _deviation(r, 0) + EPS),
        ),
        Mistake(
            "a group of equal rewards gets nan, from 0 / 0; add eps to the standard deviation",
            _wrong_advantages(_deviation),
        ),
        Mistake(
            "eps is not added to the standard deviation; it is, in every group",
            _wrong_advantages(
                lambda r: _deviation(r).masked_fill(grpo.all_equal(r)[:, None], 1.0),
                lambda r: grpo.group_advantages(r, scale="none"),
            ),
        ),
        *(Mistake("eps is smaller than 1e-4", _with_eps(eps)) for eps in (1e-5, 1e-6, 1e-8)),
        Mistake(
            "eps stands under the root; add it to the standard deviation",
            _wrong_advantages(lambda r: (_deviation(r).square() + EPS).sqrt()),
        ),
        Mistake(
            "the rewards are divided by their variance; take its root",
            _wrong_advantages(lambda r: _deviation(r).square() + EPS),
        ),
        Mistake(
            "nothing is divided by the standard deviation; Dr. GRPO does that, and this exercise "
            "does not",
            _wrong_advantages(lambda r: torch.ones(len(r), 1)),
        ),
        Mistake(
            "the mean goes over all groups; an output is compared with its own group",
            _wrong_advantages(lambda r: _deviation(r) + EPS, lambda r: r - r.mean()),
        ),
        Mistake(
            "the standard deviation goes over all groups; each group has its own",
            _wrong_advantages(lambda r: r.std() + EPS),
        ),
        Mistake(
            "mean and standard deviation go over all groups; each group has its own",
            _wrong_advantages(lambda r: r.std() + EPS, lambda r: r - r.mean()),
        ),
        Mistake(
            "the mean and the standard deviation go down the columns; a group is a row",
            lambda rewards: (rewards - rewards.mean(dim=0)) / (rewards.std(dim=0) + EPS),
        ),
        Mistake(
            "the sign is turned: what is better than its group has a positive advantage",
            _wrong_advantages(lambda r: -(_deviation(r) + EPS)),
        ),
        Mistake(
            "the mean is not taken away; an advantage says how far a reward is above it",
            _wrong_advantages(lambda r: _deviation(r) + EPS, lambda r: r),
        ),
        Mistake(
            "the rewards are brought to 0 to 1 first; take them as they are",
            lambda rewards: _advantages(_from_0_to_1(rewards)),
        ),
        Mistake(
            "rewards below 0 or above 1 are cut off; take them as they are",
            lambda rewards: _advantages(rewards.clamp(0, 1)),
        ),
        *(
            Mistake(
                "a group whose rewards are nearly equal gets zeros; only one whose rewards are "
                "all equal does, by the formula itself",
                _zero_where_near(least),
            )
            for least in (0.1, 0.01, 1e-3, 1e-4, 1e-6)
        ),
    ],
)


def _case(rows: Any) -> Case:  # noqa: ANN401 lists or an array
    return {"rewards": torch.as_tensor(rows, dtype=torch.float64)}


def _usual(rng: np.random.Generator) -> list[Case]:
    cases = [
        _case([[1, 0, 0, 0], [1, 1, 1, 1]]),
        _case([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]),
    ]
    # Eighths: a mean of 4, 8 or 16 of them is exact, so equal rewards are 0 apart from their mean.
    for n_problems, group in ((2, 4), (3, 8), (5, 16)):
        drawn = rng.integers(0, 9, (n_problems, group)) / 8
        drawn[:, 0], drawn[:, 1] = 1, 0
        cases.append(_case(drawn))
    return cases


def _drawn(rng: np.random.Generator, low: float, high: float, shape: tuple[int, int]) -> Case:
    return _case(rng.uniform(low, high, shape).round(3))


DOMAIN = Domain(
    "There is at least one group, and a group has at least two rewards. Rewards are any numbers, "
    "negative and large ones among them, and may lie very near to each other.",
    _usual,
    {
        "rewards are other than 0 and 1": lambda rng: [
            _drawn(rng, 0, 5, (3, 4)),
            _case([[2.0, 5.0, 3.0, 3.5], [0.5, 7.0, 1.0, 1.0]]),
        ],
        "rewards are negative": lambda rng: [
            _drawn(rng, -3, -1, (2, 5)),
            _drawn(rng, -2, 2, (3, 6)),
        ],
        "rewards are large": lambda rng: [_case(rng.integers(-(10**6), 10**6, (3, 4)))],
        "the rewards of a group are nearly equal": lambda rng: [
            _case(1 + rng.integers(0, 99, (2, 6)) / 2**10),
            _case(rng.integers(0, 99, (2, 4)) / 2**20),
            _case([[0.5, 0.5, 0.5, 0.5 + 2**-30]]),
        ],
        "groups differ in size of their rewards": lambda rng: [
            _case([[1, 0, 0, 1], [100, 300, 200, 50], [0.125, 0.25, 0.125, 0.5]])
        ],
        "all rewards of a group are equal": lambda rng: [
            _case([[0.0] * 3]),
            _case([[2.5] * 4, [1, 0, 1, 0], [-3.0] * 4]),
        ],
        "a group has two rewards": lambda rng: [_case([[1, 0]]), _drawn(rng, -1, 1, (4, 2))],
        "there is one group": lambda rng: [_drawn(rng, -1, 1, (1, 7))],
        "there are as many groups as rewards in one": lambda rng: [_drawn(rng, 0, 1, (4, 4))],
    },
)


def check_advantages(function: Learner, *, seed: int = 0) -> str:
    """Check ``advantages(rewards)``: ``[P, G]``, in standard deviations of each group.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2402.03300, §4.1.2;
    arXiv 2501.12948, eq. 3.
    """
    return DOMAIN.check(ADVANTAGES, function, seed)
