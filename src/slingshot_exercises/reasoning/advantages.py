"""The check of ``advantages``."""

from collections.abc import Callable

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


ADVANTAGES = Exercise(
    "advantages",
    lambda rewards: grpo.group_advantages(rewards, eps=EPS),
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
    ],
)


def check_advantages(function: Learner, *, seed: int = 0) -> None:
    """Check ``advantages(rewards)``: ``[P, G]``, in standard deviations of each group.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2402.03300, §4.1.2;
    arXiv 2501.12948, eq. 3.
    """
    rng = np.random.default_rng([seed, 31])
    rows: list[list[list[float]]] = [
        [[1, 0, 0, 0], [1, 1, 1, 1]],
        [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]],
    ]
    # Eighths: a mean of 4, 8 or 16 of them is exact, so equal rewards are 0 apart from their mean.
    for n_problems, group in ((2, 4), (3, 8), (5, 16)):
        drawn = rng.integers(0, 9, (n_problems, group)) / 8
        drawn[:, 0], drawn[:, 1] = 1, 0
        rows.append(drawn.tolist())
    ADVANTAGES.check(function, [{"rewards": torch.tensor(r, dtype=torch.float64)} for r in rows])
