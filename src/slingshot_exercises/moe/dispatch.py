"""The check of ``dispatch``."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from slingshot_exercises.checking import EXACT, Case, Exercise, Learner, Mistake, tensor
from slingshot_exercises.domain import Domain


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
    return torch.tensor(places, dtype=torch.int64)


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
        Mistake(
            "the tokens are served from the last to the first; the first token comes first",
            lambda experts, n_experts, capacity: _dispatch(
                experts.flip(0), n_experts, capacity
            ).flip(0),
        ),
        Mistake(
            "the last choices are served first; all first choices come before any second one",
            lambda experts, n_experts, capacity: _dispatch(
                experts.flip(1), n_experts, capacity
            ).flip(1),
        ),
    ],
)


def _case(experts: Any, n_experts: int, capacity: int) -> Case:  # noqa: ANN401 lists or an array
    return {
        "experts": torch.as_tensor(experts),
        "n_experts": n_experts,
        "capacity": capacity,
    }


def _drawn(
    rng: np.random.Generator, n_tokens: int, n_experts: int, k: int, capacity: int
) -> dict[str, Any]:
    """Choices of which the first experts get most."""
    chance = rng.random((n_tokens, n_experts)) + np.linspace(0.7, 0, n_experts)
    return dict(_case(np.argsort(-chance, axis=1)[:, :k].copy(), n_experts, capacity))


def _usual(rng: np.random.Generator) -> list[Case]:
    return [
        _case([[0], [0], [1], [0]], 2, 2),
        _case([[0, 1], [1, 0], [1, 2]], 3, 2),
        *(_drawn(rng, *s) for s in ((6, 4, 2, 2), (9, 5, 3, 4), (40, 8, 2, 12))),
    ]


DOMAIN = Domain(
    "`n_experts` and `capacity` are at least 1. The experts of a token differ. Some experts may "
    "not be chosen by any token, and there may be no token at all.",
    _usual,
    {
        "the last experts are not used": lambda rng: [{**_drawn(rng, 6, 3, 2, 3), "n_experts": 7}],
        "the first expert is not used": lambda rng: [_case([[2, 1], [1, 2], [2, 1]], 3, 2)],
        "an expert has one place": lambda rng: [_drawn(rng, 7, 4, 2, 1)],
        "there is room for all": lambda rng: [_drawn(rng, 5, 4, 2, 5), _drawn(rng, 5, 4, 2, 99)],
        "a buffer is filled to the last place": lambda rng: [_case([[0, 1], [0, 1], [2, 0]], 3, 3)],
        "every token chooses the same expert first": lambda rng: [
            _case([[1, 0], [1, 2], [1, 0], [1, 2]], 3, 2)
        ],
        "there are more choices than tokens": lambda rng: [_drawn(rng, 2, 6, 5, 1)],
        "every token chooses all experts": lambda rng: [_drawn(rng, 4, 3, 3, 2)],
        "there is one expert": lambda rng: [_case([[0], [0], [0]], 1, 2)],
        "there is one token": lambda rng: [_drawn(rng, 1, 4, 3, 1)],
        "there are many tokens": lambda rng: [_drawn(rng, 300, 6, 2, 70)],
        "there is no token": lambda rng: [_case(torch.zeros((0, 2), dtype=torch.int64), 3, 2)],
    },
)


def check_dispatch(function: Learner, *, seed: int = 0) -> str:
    """Check ``dispatch(experts, n_experts, capacity)``: places ``[T, k]``, -1 for the dropped.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2006.16668,
    algorithm 1.
    """
    return DOMAIN.check(DISPATCH, function, seed)
