"""The check of ``absorbed_query``."""

from collections.abc import Callable, Sequence
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


def _turn(turning: Tensor, angles: Tensor) -> Tensor:
    """Turn channel j and channel j + rope / 2 of ``[H, rope]`` by angle j."""
    first, second = turning.chunk(2, dim=1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=1)


def _turn_neighbors(turning: Tensor, angles: Tensor) -> Tensor:
    first, second = turning[:, 0::2], turning[:, 1::2]
    cos, sin = angles.cos(), angles.sin()
    pairs = [first * cos - second * sin, second * cos + first * sin]
    return torch.stack(pairs, dim=2).flatten(1)


def _fold(plain: Tensor, unpack: Tensor) -> Tensor:
    """W^T q of each head, of the rows that make keys."""
    return torch.einsum("hn,hnr->hr", plain, unpack[:, : plain.shape[1]])


def _absorbed_with(
    *,
    turn: Callable[[Tensor, Tensor], Tensor] = _turn,
    fold: Callable[[Tensor, Tensor], Tensor] = _fold,
    scaled_by: Callable[[int, int, int, int], float] = lambda nope, rope, rank, v: nope + rope,
    rope_first: bool = False,
    joined: Callable[[Tensor, Tensor], list[Tensor]] = lambda folded, turned: [folded, turned],
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """An absorbed query, with one step exchanged. ``scaled_by`` is what the root is taken of."""

    def absorbed_query(query: Tensor, angles: Tensor, unpack: Tensor) -> Tensor:
        rope = 2 * len(angles)
        nope = query.shape[1] - rope
        plain, turning = query[:, :nope], query[:, nope:]
        if rope_first:
            turning, plain = query[:, :rope], query[:, rope:]
        scale = scaled_by(nope, rope, unpack.shape[2], unpack.shape[1] - nope) ** -0.5
        parts = joined(fold(plain, unpack), turn(turning, angles))
        return torch.cat(parts, dim=1) * float(scale)

    return absorbed_query


def _fold_values(plain: Tensor, unpack: Tensor) -> Tensor:
    return torch.einsum("hn,hnr->hr", plain, unpack[:, -plain.shape[1] :])


def _fold_first_head(plain: Tensor, unpack: Tensor) -> Tensor:
    return plain @ unpack[0, : plain.shape[1]]


def _fold_turned(plain: Tensor, unpack: Tensor) -> Tensor:
    """With the matrix itself, where it is square; otherwise that cannot be computed."""
    matrix = unpack[:, : plain.shape[1]]
    if matrix.shape[1] != matrix.shape[2]:
        return _fold(plain, unpack)
    return torch.einsum("hn,hrn->hr", plain, matrix)


def _turn_all(query: Tensor, angles: Tensor, unpack: Tensor) -> Tensor:
    """Turn the rotary channels before and after the query is split."""
    rope = 2 * len(angles)
    turned = torch.cat([query[:, :-rope], _turn(query[:, -rope:], angles)], dim=1)
    return _absorbed_with()(turned, angles, unpack)


def _scale_of_folded(query: Tensor, angles: Tensor, unpack: Tensor) -> Tensor:
    result = _absorbed_with()(query, angles, unpack)
    result[:, unpack.shape[2] :] *= query.shape[1] ** 0.5
    return result


def _bound(case: Case, expected: Answer) -> np.ndarray:
    """How far roundings can move a number.

    A folded one is a sum of nope products, and a turned one of two, of which a cosine or sine is
    rounded, too. Each is then scaled, by a root and a quotient. Sums of d products are off by at
    most d u Σ|a b|; we allow eight roundings for the rest.
    """
    query, unpack, rope = case["query"].abs(), case["unpack"].abs(), 2 * len(case["angles"])
    nope = query.shape[1] - rope
    first, second = query[:, nope:].chunk(2, dim=1)
    sizes = torch.cat([_fold(query[:, :nope], unpack), first + second, first + second], dim=1)
    bound: np.ndarray = 2 * (nope + 8) * UNIT_ROUNDOFF * query.shape[1] ** -0.5 * sizes.numpy()
    return bound


def _explain(case: Case, expected: Answer, got: Answer) -> str:
    """Say whether the folded part is wrong or the rotary one."""
    answer = np.asarray(got)
    if answer.shape != np.asarray(expected).shape:
        return ""
    rank = case["unpack"].shape[2]
    off = np.abs(answer - expected) > _bound(case, expected)
    parts = off[:, :rank].any(), off[:, rank:].any()
    if parts == (True, False):
        return "the rotary channels are right, and the folded ones before them are not"
    if parts == (False, True):
        return "the folded channels are right, and the rotary ones behind them are not"
    return ""


ABSORBED_QUERY = Exercise(
    "absorbed_query",
    _absorbed_with(),
    tensor,
    Tolerance(_bound, "the roundings of the products, the turn and the scale, in each of two"),
    [
        Mistake(
            "the scale is that of the absorbed width, rank + rope; the product is the same number "
            "as the unpacked one, so it is divided by the root of nope + rope",
            _absorbed_with(scaled_by=lambda nope, rope, rank, v: rank + rope),
        ),
        Mistake(
            "the scale is that of the latent; divide by the root of nope + rope, an unpacked key",
            _absorbed_with(scaled_by=lambda nope, rope, rank, v: rank),
        ),
        Mistake(
            "the scale leaves the rotary channels out; an unpacked key has nope + rope",
            _absorbed_with(scaled_by=lambda nope, rope, rank, v: nope),
        ),
        Mistake(
            "the scale is that of the values; divide by the root of nope + rope, a key's channels",
            _absorbed_with(scaled_by=lambda nope, rope, rank, v: v),
        ),
        Mistake(
            "the scale is missing; divide by the root of nope + rope",
            _absorbed_with(scaled_by=lambda nope, rope, rank, v: 1),
        ),
        Mistake(
            "the query is divided by nope + rope; take the root of that",
            _absorbed_with(scaled_by=lambda nope, rope, rank, v: (nope + rope) ** 2),
        ),
        Mistake("the rotary channels are not scaled; all of them are", _scale_of_folded),
        Mistake(
            "neighboring channels are turned together, as they stand in DeepSeek's files; here "
            "channel j belongs to channel j + rope / 2",
            _absorbed_with(turn=_turn_neighbors),
        ),
        Mistake(
            "the rotary channels are turned backwards; both signs of the sine are exchanged",
            _absorbed_with(turn=lambda turning, angles: _turn(turning, -angles)),
        ),
        Mistake(
            "the rotary channels are not turned; the keys in the cache are",
            _absorbed_with(turn=lambda turning, angles: turning),
        ),
        Mistake("the rotary channels are turned twice", _turn_all),
        Mistake(
            "the rotary channels are taken from the front; they are the last ones of a query",
            _absorbed_with(rope_first=True),
        ),
        Mistake(
            "the rotary channels come first in the result; in the cache they stand behind the "
            "latent",
            _absorbed_with(joined=lambda folded, turned: [turned, folded]),
        ),
        Mistake(
            "the rows of the values are taken; those of the keys come first in unpack",
            _absorbed_with(fold=_fold_values),
        ),
        Mistake(
            "all heads are folded with the matrix of the first; each has its own",
            _absorbed_with(fold=_fold_first_head),
        ),
        Mistake(
            "the matrix is not transposed, which shows only where it is square: q · (W c) is "
            "(Wᵀ q) · c",
            _absorbed_with(fold=_fold_turned),
        ),
    ],
    explain=_explain,
    lesson="To the prediction: no. A prompt has as many queries as tokens, so folding each query "
    "takes as many products as unpacking each key. And then an absorbed score takes rank + rope "
    "products where an unpacked one takes nope + rope. Absorbing pays where one query meets many "
    "tokens.",
)


Sizes = tuple[int, int, int, int, int]


def _drawn(rng: np.random.Generator, sizes: Sizes, angles: Any = None) -> Case:  # noqa: ANN401
    """``sizes`` are heads, nope, rope, rank and the channels of a value."""
    heads, nope, rope, rank, v = sizes
    if angles is None:
        angles = rng.uniform(0.3, 2.8, rope // 2).round(3)
    return {
        "query": normal(rng, heads, nope + rope),
        "angles": torch.as_tensor(angles, dtype=torch.float64),
        "unpack": normal(rng, heads, nope + v, rank),
    }


def _usual(rng: np.random.Generator) -> Sequence[Case]:
    simple = _drawn(rng, (1, 1, 2, 2, 1))
    sizes = ((2, 3, 2, 4, 5), (2, 2, 4, 5, 3), (3, 6, 4, 9, 5), (4, 7, 6, 12, 8))
    return [simple, *(_drawn(rng, each) for each in sizes)]


DOMAIN = Domain(
    "There is at least one head and one angle, and all sizes are at least 1. They may be equal: a "
    "head's matrix may be square, and values as wide as keys. Angles may be zero, negative or "
    "large.",
    _usual,
    {
        "all angles are 0, at the first position": lambda rng: [
            _drawn(rng, (2, 3, 4, 5, 2), [0.0, 0.0])
        ],
        "the matrix of a head is square": lambda rng: [
            _drawn(rng, (2, 4, 2, 4, 3)),
            _drawn(rng, (3, 5, 4, 5, 5)),
        ],
        "there are as many rotary channels as others": lambda rng: [_drawn(rng, (2, 4, 4, 6, 3))],
        "there are more rotary channels than others": lambda rng: [_drawn(rng, (2, 2, 8, 3, 3))],
        "values have as many channels as keys": lambda rng: [_drawn(rng, (2, 3, 2, 5, 3))],
        "the latent is shorter than a key": lambda rng: [_drawn(rng, (2, 8, 4, 2, 6))],
        "there is one head": lambda rng: [_drawn(rng, (1, 4, 4, 6, 3))],
        "there is one channel of each kind": lambda rng: [_drawn(rng, (2, 1, 2, 1, 1))],
        "there are as many heads as channels": lambda rng: [
            _drawn(rng, (4, 4, 4, 4, 4)),
            _drawn(rng, (6, 4, 2, 6, 6)),
        ],
        "an angle is negative": lambda rng: [_drawn(rng, (2, 3, 4, 5, 2), [-1.1, 0.4])],
        "angles are large, far into a text": lambda rng: [
            _drawn(rng, (2, 3, 6, 5, 2), [131071.0, 13107.1, 1310.71])
        ],
        "a query is 0": lambda rng: [
            {**_drawn(rng, (2, 3, 2, 4, 2)), "query": torch.zeros(2, 5, dtype=torch.float64)}
        ],
    },
)


def check_absorbed_query(function: Learner, *, seed: int = 0) -> str:
    """Check ``absorbed_query(query, angles, unpack)``: what meets latents as they lie, ``[H, R]``.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2405.04434, §2.1.2-3.
    """
    return DOMAIN.check(ABSORBED_QUERY, function, seed)
