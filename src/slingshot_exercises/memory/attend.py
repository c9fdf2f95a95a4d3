"""The check of ``attend``."""

from collections.abc import Callable
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
from slingshot_exercises.memory.common import normal


def _hidden(n_new: int, n_tokens: int, later: int = 1) -> Tensor:
    """What a new token must not see: what stands ``later`` places after it, or more."""
    return torch.ones(n_new, n_tokens, dtype=torch.bool).triu(n_tokens - n_new + later)


def _behind_cache(query: Tensor, key: Tensor) -> Tensor:
    return _hidden(len(query), len(key))


def _attend_with(
    hide: Callable[[Tensor, Tensor], Tensor] = _behind_cache,
    *,
    scale: Callable[[Tensor, Tensor], float] = lambda key, value: key.shape[1] ** -0.5,
    fill: float = -torch.inf,
    weigh: Callable[[Tensor], Tensor] = lambda scores: scores.softmax(dim=1),
    afterwards: bool = False,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention of the last tokens, with one step of it exchanged."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = query @ key.T * scale(key, value)
        hidden = hide(query, key)
        if afterwards:
            return weigh(scores).masked_fill(hidden, 0.0) @ value
        return weigh(scores.masked_fill(hidden, fill)) @ value

    return attend


def _part(
    of: Callable[[int, int], slice],
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention that reads a part of the cache alone: ``of(n_new, n_tokens)``."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        hidden, part = _behind_cache(query, key), of(len(query), len(key))
        scores = (query @ key.T * key.shape[1] ** -0.5).masked_fill(hidden, -torch.inf)
        found: Tensor = scores[:, part].softmax(dim=1) @ value[part]
        return found

    return attend


def _bound(case: Case, expected: Answer) -> float:
    """How far roundings can move a result.

    A score of d products is off by at most e = (d + 8) u Σ|q k| / √d. A weight is a quotient of
    exponentials and so off by a share of 2 e, and of n + 8 roundings for the sum and for ``exp``,
    whose argument is rounded once more. A result is a mean of values, of n more terms.
    """
    width, n_tokens = case["key"].shape[1], len(case["key"])
    sizes = case["query"].abs() @ case["key"].abs().T * width**-0.5
    score = (width + 8) * UNIT_ROUNDOFF * sizes.max().item()
    relative = 2 * score + (2 * n_tokens + 16) * UNIT_ROUNDOFF
    return float(2 * relative * case["value"].abs().max())


ATTEND = Exercise(
    "attend",
    _attend_with(),
    tensor,
    Tolerance(_bound, "the roundings of scores, weights and their mean, in each of two formulas"),
    [
        Mistake(
            "the mask is made for a square, from its upper left corner: the first new token sees "
            "one token of the cache, and the last ones are never seen. New tokens stand at the end",
            _attend_with(lambda q, k: torch.ones(len(q), len(k), dtype=torch.bool).triu(1)),
        ),
        Mistake(
            "there is no mask; a new token must not see the new ones after it",
            _attend_with(lambda q, k: torch.zeros(len(q), len(k), dtype=torch.bool)),
        ),
        Mistake(
            "the mask is one too short; a token sees itself",
            _attend_with(lambda q, k: _hidden(len(q), len(k), 0)),
        ),
        Mistake(
            "the mask is one too long; a token does not see the one after it",
            _attend_with(lambda q, k: _hidden(len(q), len(k), 2)),
        ),
        Mistake(
            "the mask is turned about; it hides what stands before and shows what comes after",
            _attend_with(lambda q, k: ~_behind_cache(q, k)),
        ),
        Mistake(
            "the cache is not read; a new token sees all tokens before it, cached ones included",
            _part(lambda n_new, n_tokens: slice(n_tokens - n_new, None)),
        ),
        Mistake(
            "a new token sees the cache alone; it also sees itself and the new ones before it",
            _part(lambda n_new, n_tokens: slice(n_tokens - n_new)),
        ),
        Mistake(
            "the scores are not scaled; divide them by the root of the channels of a key",
            _attend_with(scale=lambda key, value: 1.0),
        ),
        Mistake(
            "the scores are divided by the channels of a key; take the root of them",
            _attend_with(scale=lambda key, value: 1 / key.shape[1]),
        ),
        Mistake(
            "the scale is that of the values; take the root of the channels of a key",
            _attend_with(scale=lambda key, value: value.shape[1] ** -0.5),
        ),
        Mistake(
            "hidden scores are set to 0, and the exponential of 0 is 1; set them to minus infinity",
            _attend_with(fill=0.0),
        ),
        *(
            Mistake(
                "hidden scores are set to a number that is not low enough; others may be lower. "
                "Set them to minus infinity",
                _attend_with(fill=fill),
            )
            for fill in (-100.0, -1e3, -1e4, -1e6, -1e9)
        ),
        Mistake(
            "hidden weights are set to 0 after the softmax; what is left does not sum to 1",
            _attend_with(afterwards=True),
        ),
        Mistake(
            "the softmax goes over the new tokens; it goes over those that one of them sees",
            _attend_with(weigh=lambda scores: scores.softmax(dim=0)),
        ),
        Mistake(
            "large scores overflow in the exponential; subtract the largest of a row first, as "
            "`softmax` does",
            _attend_with(weigh=lambda scores: scores.exp() / scores.exp().sum(1, keepdim=True)),
        ),
    ],
)


def _case(query: Any, key: Any, value: Any) -> Case:  # noqa: ANN401 lists or tensors
    texts = {"query": query, "key": key, "value": value}
    return {name: torch.as_tensor(each, dtype=torch.float64) for name, each in texts.items()}


def _drawn(
    rng: np.random.Generator, n_new: int, n_cached: int, width: int = 4, out: int = 3
) -> Case:
    n_tokens = n_new + n_cached
    return _case(
        normal(rng, n_new, width), normal(rng, n_tokens, width), normal(rng, n_tokens, out)
    )


def _usual(rng: np.random.Generator) -> list[Case]:
    simple = _case([[0.0, 0.0]] * 2, [[1.0, 0.0]] * 4, [[1.0], [2.0], [3.0], [4.0]])
    sizes = ((2, 3, 2, 3), (3, 2, 4, 2), (3, 9, 8, 5), (5, 11, 6, 4))
    return [simple, *(_drawn(rng, *size) for size in sizes)]


def _with_scores(rng: np.random.Generator, level: float, width: float = 1.0) -> list[Case]:
    """Queries of one channel that is 2, so that all scores lie about ``level``."""
    found: list[Case] = []
    for n_new, n_cached in ((2, 3), (3, 0)):
        case = dict(_drawn(rng, n_new, n_cached))
        case["query"] = torch.tensor([[2.0, 0.0, 0.0, 0.0]] * n_new, dtype=torch.float64)
        case["key"][:, 0] = level + width * case["key"][:, 0]
        found.append(case)
    return found


DOMAIN = Domain(
    "There is at least one new token, and the cache may be empty. Keys and values may be of "
    "different width. Numbers are finite, and scores may be billions above or below zero.",
    _usual,
    {
        "nothing is cached": lambda rng: [_drawn(rng, 4, 0), _drawn(rng, 2, 0, 3, 5)],
        "there is one new token": lambda rng: [_drawn(rng, 1, 5), _drawn(rng, 1, 1)],
        "there is one token in all": lambda rng: [_drawn(rng, 1, 0)],
        "one token is cached": lambda rng: [_drawn(rng, 4, 1)],
        "more tokens are new than cached": lambda rng: [_drawn(rng, 6, 2)],
        "keys and values are of one width": lambda rng: [_drawn(rng, 2, 3, 4, 4)],
        "keys have one channel": lambda rng: [_drawn(rng, 3, 2, 1, 2)],
        "all scores are far below 0": lambda rng: [
            case for level in (-200.0, -4e3, -2e5, -2e7, -2e10) for case in _with_scores(rng, level)
        ],
        "all scores are far above 0": lambda rng: [
            case for level in (800.0, 2e4, 2e10) for case in _with_scores(rng, level)
        ],
        "scores lie far apart": lambda rng: _with_scores(rng, 0.0, 2e3),
        "all values are 0": lambda rng: [_case(torch.ones(2, 2), torch.ones(4, 2), [[0.0]] * 4)],
    },
)


def check_attend(function: Learner, *, seed: int = 0) -> str:
    """Check ``attend(query, key, value)``: several new tokens behind a cache, ``[n_new, out]``.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 1706.03762, §3.2.1.
    """
    return DOMAIN.check(ATTEND, function, seed)
