"""The check of ``dispatch``."""

import numpy as np
import torch
from torch import Tensor

from slingshot_exercises.checking import EXACT, Case, Exercise, Learner, Mistake, tensor


def _dispatch(experts: Tensor, n_experts: int, capacity: int) -> Tensor:
    return _places(experts.T.flatten().tolist(), capacity).reshape(experts.T.shape).T


def _places(order: list[int], capacity: float, dropped: int = -1) -> Tensor:
    """Give each choice, in the order of serving, the next place of its expert."""
    taken: dict[int, int] = {}
    places = []
    for expert in order:
        place = taken.get(expert, 0)
        taken[expert] = place + 1
        places.append(place if place < capacity else dropped)
    return torch.tensor(places)


def _by_token(experts: Tensor, n_experts: int, capacity: int) -> Tensor:
    return _places(experts.flatten().tolist(), capacity).reshape(experts.shape)


def _choices_apart(experts: Tensor, n_experts: int, capacity: int) -> Tensor:
    return torch.stack([_places(column.tolist(), capacity) for column in experts.T], dim=1)


def _one_queue(experts: Tensor, n_experts: int, capacity: int) -> Tensor:
    return _places([0] * experts.numel(), capacity).reshape(experts.T.shape).T


DISPATCH = Exercise(
    "dispatch",
    _dispatch,
    tensor,
    EXACT,
    [
        Mistake(
            "the tokens are served one after another with all their choices; all first choices "
            "come before any second one",
            _by_token,
        ),
        Mistake(
            "every column of choices is counted from 0 again; two tokens get the same place",
            _choices_apart,
        ),
        Mistake(
            "the places are counted over all experts; each expert has places of its own",
            _one_queue,
        ),
        Mistake(
            "one place too many is given; the places are 0 to capacity - 1",
            lambda experts, n_experts, capacity: _dispatch(experts, n_experts, capacity + 1),
        ),
        Mistake(
            "nothing is dropped; a choice that finds its expert full gets -1",
            lambda experts, n_experts, capacity: _dispatch(experts, n_experts, experts.numel()),
        ),
        Mistake(
            "the places are counted from 1; the first is 0",
            lambda experts, n_experts, capacity: (
                _dispatch(experts, n_experts, capacity)
                + (_dispatch(experts, n_experts, capacity) >= 0)
            ),
        ),
        Mistake(
            "a dropped choice gets the last place, which is taken; it gets -1",
            lambda experts, n_experts, capacity: _dispatch(
                experts, n_experts, experts.numel()
            ).clamp(max=capacity - 1),
        ),
    ],
)


def check_dispatch(function: Learner, *, seed: int = 0) -> None:
    """Check ``dispatch(experts, n_experts, capacity)``: places ``[T, k]``, -1 for the dropped.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2006.16668,
    algorithm 1.
    """
    rng = np.random.default_rng([seed, 15])
    cases: list[Case] = [
        {"experts": torch.tensor([[0], [0], [1], [0]]), "n_experts": 2, "capacity": 2},
        {"experts": torch.tensor([[0, 1], [1, 0], [1, 2]]), "n_experts": 3, "capacity": 2},
    ]
    for n_tokens, n_experts, k, capacity in ((6, 4, 2, 2), (9, 5, 3, 4), (40, 8, 2, 12)):
        chance = rng.random((n_tokens, n_experts)) + np.linspace(0.7, 0, n_experts)
        experts = torch.from_numpy(np.argsort(-chance, axis=1)[:, :k].copy())
        cases.append({"experts": experts, "n_experts": n_experts, "capacity": capacity})
    DISPATCH.check(function, cases)
