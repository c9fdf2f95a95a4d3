"""The check of ``update_bias``."""

from typing import Any

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
from slingshot_exercises.domain import Domain
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
    # Signs are exact: a mean of whole numbers that is one of them is not rounded.
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
            "the loads are compared with the middle between the largest and the smallest; the rule "
            "compares with their mean",
            lambda bias, load, speed: (
                bias + speed * torch.sign((load.max() + load.min()) / 2 - load)
            ),
        ),
        Mistake(
            "the loads are compared with half of the largest; the rule compares with their mean",
            lambda bias, load, speed: bias + speed * torch.sign(load.max() / 2 - load),
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


def _case(bias: Any, load: Any, speed: float) -> Case:  # noqa: ANN401 lists or arrays
    bias, load = (torch.as_tensor(each, dtype=torch.float64) for each in (bias, load))
    return {"bias": bias, "load": load, "speed": speed}


def _speed(rng: np.random.Generator) -> float:
    return float(rng.integers(1, 9)) / 1024  # the same in float32


def _usual(rng: np.random.Generator) -> list[Case]:
    cases = [_case([0.0] * 4, [10, 0, 5, 5], 0.25)]
    for n_experts in (4, 8, 16):
        load = rng.integers(0, 200, n_experts)
        load[0] += 2000  # skewed, so that mean and median differ
        load[-1] = 0
        cases.append(_case(normal(rng, n_experts), load, _speed(rng)))
    return cases


def _around_the_mean(rng: np.random.Generator) -> list[Case]:
    """Loads on either side of the mean, of half of the largest, and of half of all extremes."""
    loads = (
        [40, 30, 8, 2],
        [90, 80, 70, 0, 5, 55],
        [1, 1, 1, 9, 3],
        [100, 99, 98, 97, 0],
        [60, 40, 35, 30, 28],
    )
    return [_case(normal(rng, len(load)), rng.permutation(load), _speed(rng)) for load in loads]


DOMAIN = Domain(
    "`bias` and `load` are float64. Loads are whole numbers, zero or more, and there is at least "
    "one expert. `speed` is above zero.",
    _usual,
    {
        "the loads lie on all sides of the mean": _around_the_mean,
        "the load of an expert is the mean": lambda rng: [
            _case(normal(rng, 3), [4, 7, 1], _speed(rng)),
            _case(normal(rng, 7), [3, 3, 3, 0, 6, 1, 5], _speed(rng)),
        ],
        "a load is next to the mean": lambda rng: [
            _case(normal(rng, 3), [100, 101, 102], _speed(rng)),
            _case(normal(rng, 3), [1000, 1000, 1001], _speed(rng)),
        ],
        "all loads are equal": lambda rng: [_case(normal(rng, 6), [7] * 6, _speed(rng))],
        "all loads are zero": lambda rng: [_case(normal(rng, 4), [0] * 4, _speed(rng))],
        "the loads are large": lambda rng: [
            _case(normal(rng, 3), [2**30 + 1, 2**30, 2**30 - 1], _speed(rng))
        ],
        "there is one expert": lambda rng: [_case([0.5], [12], _speed(rng))],
        "`speed` is large": lambda rng: [_case([-0.5, 0.25, 1.0], [9, 1, 2], 3.0)],
        "the bias is large": lambda rng: [_case([-40.0, 25.0, 8.0], [1, 9, 2], _speed(rng))],
    },
)


def check_update_bias(function: Learner, *, seed: int = 0) -> str:
    """Check ``update_bias(bias, load, speed)``: the new bias ``[E]``; the old one stays.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2412.19437, §2.1.2;
    arXiv 2408.15664, algorithm 1.
    """
    return DOMAIN.check(UPDATE_BIAS, function, seed)
