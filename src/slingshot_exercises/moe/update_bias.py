"""The check of ``update_bias``."""

import numpy as np
import torch
from torch import Tensor

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
from slingshot_exercises.moe.common import normal


def _updated_bias(bias: Tensor, load: Tensor, speed: float) -> Tensor:
    return bias + speed * torch.sign(load.mean() - load)


def _bias_bound(case: Case, expected: Answer) -> np.ndarray:
    bound: np.ndarray = 2 * 2 * UNIT_ROUNDOFF * (np.abs(case["bias"].numpy()) + case["speed"])
    return bound


UPDATE_BIAS = Exercise(
    "update_bias",
    _updated_bias,
    tensor,
    # Signs are exact, and so is a mean over a power of two of experts.
    Tolerance(_bias_bound, "two roundings of bias plus speed, in each of two formulas"),
    [
        Mistake(
            "the sign is turned: a busy expert's bias must fall, so that fewer tokens choose it",
            lambda bias, load, speed: bias - speed * torch.sign(load.mean() - load),
        ),
        Mistake(
            "the step grows with the distance from the mean; the rule takes its sign alone",
            lambda bias, load, speed: bias + speed * (load.mean() - load),
        ),
        Mistake(
            "the step grows with the relative distance from the mean; the rule takes its sign "
            "alone",
            lambda bias, load, speed: bias + speed * (load.mean() - load) / load.mean(),
        ),
        Mistake(
            "an expert with exactly the mean load is moved up; its bias stays",
            lambda bias, load, speed: bias + speed * (1 - 2 * (load > load.mean()).double()),
        ),
        Mistake(
            "an expert with exactly the mean load is moved down; its bias stays",
            lambda bias, load, speed: bias + speed * (2 * (load < load.mean()).double() - 1),
        ),
        Mistake(
            "the loads are compared with their median; the rule compares with their mean",
            lambda bias, load, speed: bias + speed * torch.sign(load.quantile(0.5) - load),
        ),
        Mistake(
            "only the bias of busy experts is moved; that of idle ones rises by as much",
            lambda bias, load, speed: bias - speed * (load > load.mean()).double(),
        ),
        Mistake(
            "the step is returned; return the new bias",
            lambda bias, load, speed: speed * torch.sign(load.mean() - load),
        ),
    ],
)


def check_update_bias(function: Learner, *, seed: int = 0) -> None:
    """Check ``update_bias(bias, load, speed)``: the new bias ``[E]``; the old one stays.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2412.19437, §2.1.2;
    arXiv 2408.15664, algorithm 1.
    """
    rng = np.random.default_rng([seed, 12])
    cases: list[Case] = [
        {
            "bias": torch.zeros(4, dtype=torch.float64),
            "load": torch.tensor([10.0, 0.0, 5.0, 5.0], dtype=torch.float64),
            "speed": 0.25,
        }
    ]
    for n_experts in (4, 8, 16):
        load = rng.integers(0, 200, n_experts)
        load[0] += 2000  # skewed, so that mean and median differ
        load[-1] = 0
        cases.append(
            {
                "bias": normal(rng, n_experts),
                "load": torch.from_numpy(load.astype(float)),
                "speed": float(rng.integers(1, 9)) / 1024,  # the same in float32
            }
        )
    UPDATE_BIAS.check(function, cases)
