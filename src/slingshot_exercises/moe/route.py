"""The check of ``route``."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slingshot import moe
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
from slingshot_exercises.moe.common import normal, share_of_chosen, spread

CLOSEST = 1e-6
"""The least distance between two scores of which one is chosen; roundings are below 1e-13."""


def _route(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    top_k: int,
    n_groups: int,
    topk_groups: int,
    route_scale: float,
) -> Tensor:
    scores = torch.sigmoid(x @ weight.T)
    experts = moe.select_experts(scores + bias, top_k, n_groups, topk_groups)
    weights = route_scale * share_of_chosen(scores.gather(1, experts))
    return spread(weights, experts, len(weight))


def _wrong_route(
    *,
    score: Callable[[Tensor], Tensor] = torch.sigmoid,
    steer: Callable[[Tensor, Tensor], Tensor] = lambda scores, bias: scores + bias,
    rank: Callable[[Tensor, Tensor], Tensor] = lambda biased, scores: biased.topk(2, -1)[0].sum(-1),
    fill: float | None = -math.inf,
    source: Callable[[Tensor, Tensor], Tensor] = lambda scores, biased: scores,
    weigh: Callable[[Tensor, Tensor, float], Tensor] = lambda chosen, scores, scale: (
        scale * chosen / chosen.sum(-1, keepdim=True)
    ),
    last: Callable[[Tensor, Tensor], Tensor] = lambda biased, scores: biased,
) -> Callable[..., Tensor]:
    """A router with one step exchanged."""

    def wrong(
        x: Tensor, weight: Tensor, bias: Tensor, k: int, groups: int, kept: int, scale: float
    ) -> Tensor:
        scores = score(x @ weight.T)
        biased = steer(scores, bias)
        shape = len(x), groups, len(weight) // groups
        grouped = biased.reshape(shape)
        best = rank(grouped, scores.reshape(shape)).topk(kept, dim=1).indices
        keep = torch.zeros(len(x), groups, dtype=torch.bool).scatter(1, best, True)
        ranked = last(grouped, scores.reshape(shape))
        masked = ranked if fill is None else ranked.masked_fill(~keep[:, :, None], fill)
        candidates = masked.flatten(1)
        experts = candidates.topk(k, dim=1).indices
        chosen = source(scores, biased).gather(1, experts)
        return spread(weigh(chosen, scores, scale), experts, len(weight))

    return wrong


def _exact_weights(chosen: Tensor, scores: Tensor, scale: float) -> Tensor:
    return scale * share_of_chosen(chosen)


def _weights_plus(eps: float) -> Callable[[Tensor, Tensor, float], Tensor]:
    return lambda chosen, scores, scale: scale * chosen / (chosen.sum(-1, keepdim=True) + eps)


def _interleaved(
    x: Tensor, weight: Tensor, bias: Tensor, k: int, groups: int, kept: int, scale: float
) -> Tensor:
    """Route with the experts put in order of their number modulo ``groups``, and put them back."""
    order = torch.arange(len(weight)).reshape(-1, groups).T.flatten()
    found = _route(x, weight[order], bias[order], k, groups, kept, scale)
    return found[:, order.argsort()]


def _so_many_a_group(
    x: Tensor, weight: Tensor, bias: Tensor, k: int, groups: int, kept: int, scale: float
) -> Tensor:
    """Choose k / kept in each kept group, the rest in the best one."""
    scores = torch.sigmoid(x @ weight.T)
    biased = (scores + bias).reshape(len(x), groups, -1)
    best = moe.group_scores(biased.flatten(1), groups).topk(kept, dim=1).indices
    size, each = biased.shape[2], max(1, k // kept)
    inner = biased.gather(1, best[:, :, None].expand(-1, -1, size)).topk(min(each, size), dim=2)
    experts = (best[:, :, None] * size + inner.indices).flatten(1)
    return spread(scale * share_of_chosen(scores.gather(1, experts)), experts, len(weight))


def _route_bound(case: Case, expected: Answer) -> float:
    """How far roundings can move a weight.

    A logit of d products is off by at most d u Σ|x w|, and a sigmoid's relative error is at most
    its logit's absolute one. A weight is a quotient of k + 1 such numbers and below the scale.
    """
    logits = case["x"].abs() @ case["weight"].abs().T
    size = logits.max().item() if len(logits) else 0.0
    logit = case["x"].shape[1] * UNIT_ROUNDOFF * size
    relative = 2 * logit + (case["top_k"] + 8) * UNIT_ROUNDOFF
    return float(2 * case["route_scale"] * relative)


ROUTE = Exercise(
    "route",
    _route,
    tensor,
    Tolerance(
        _route_bound,
        "the roundings of the dot product, the sigmoid and the quotient, in each of two formulas",
    ),
    [
        Mistake(
            "the bias leaks into the weights; it chooses, and the weights come from the scores "
            "without it",
            _wrong_route(source=lambda scores, biased: biased),
        ),
        Mistake(
            "the masked groups are filled with 0; when all biased scores are below 0, a masked "
            "expert wins. Fill with -inf",
            _wrong_route(fill=0.0),
        ),
        Mistake(
            "a group is ranked by its best expert; V3 ranks it by the sum of its two best",
            _wrong_route(rank=lambda biased, scores: biased.amax(-1)),
        ),
        Mistake(
            "a group is ranked by the sum of all its experts; V3 takes its two best",
            _wrong_route(rank=lambda biased, scores: biased.sum(-1)),
        ),
        Mistake(
            "the groups are ranked without the bias; it takes part in that choice, too",
            _wrong_route(rank=lambda biased, scores: scores.topk(2, -1)[0].sum(-1)),
        ),
        Mistake(
            "all groups are used; a token may use only the best topk_groups",
            _wrong_route(fill=None),
        ),
        Mistake(
            "the bias is not used; it is added to the scores before the choice",
            _wrong_route(steer=lambda scores, bias: scores),
        ),
        Mistake(
            "the scores are a softmax; V3 takes the sigmoid of each logit",
            _wrong_route(score=lambda logits: logits.softmax(-1)),
        ),
        Mistake(
            "the weights are not normalized; divide the chosen scores by their sum",
            _wrong_route(weigh=lambda chosen, scores, scale: scale * chosen),
        ),
        Mistake(
            "the scores are normalized over all experts; divide by the sum of the chosen ones",
            _wrong_route(
                weigh=lambda chosen, scores, scale: scale * chosen / scores.sum(1)[:, None]
            ),
        ),
        Mistake(
            "route_scale has no effect; the weights of a token sum to it",
            _wrong_route(weigh=lambda chosen, scores, scale: chosen / chosen.sum(-1, keepdim=True)),
        ),
        Mistake(
            "the groups are interleaved; they lie one after another, the first E / n_groups "
            "experts in the first",
            _interleaved,
        ),
        Mistake(
            "each of the groups that stay gives top_k / topk_groups experts; the best of all of "
            "them together are chosen",
            _so_many_a_group,
        ),
        Mistake(
            "the last choice is without the bias; it takes part in that one, too",
            _wrong_route(last=lambda biased, scores: scores),
        ),
        *(
            Mistake(
                "the masked groups are filled with a number that is not low enough; the biases may "
                "be lower. Fill with -inf",
                _wrong_route(fill=fill, weigh=_exact_weights),
            )
            for fill in (-1.0, -4.0, -10.0, -100.0, -1e3, -1e4, -1e6, -1e9)
        ),
        Mistake(
            "a token whose chosen scores are all 0 gets nan, from 0 / 0; its weights are 0",
            _wrong_route(),
        ),
        *(
            Mistake(
                f"{eps:.0e} is added to the sum; scores may be smaller than that. Ask whether the "
                "sum is 0",
                _wrong_route(weigh=_weights_plus(eps)),
            )
            for eps in (1e-6, 1e-9, 1e-12, 1e-20)
        ),
    ],
    lesson="To the prediction: it needs biases. A bias that leaks into the weights shows only "
    "where the bias is not zero. A mask of zeros shows only where the biased scores are all below "
    "zero, and tests draw biases of zero.",
)


DRAWN = ("n_tokens", "d_model", "n_experts", "top_k", "n_groups", "topk_groups")


def _usual(rng: np.random.Generator) -> list[Case]:
    return [
        _draw_routing(rng, (2, 2, 4, 2, 1, 1)),
        _draw_routing(rng, (3, 2, 12, 3, 4, 2)),
        _draw_routing(rng, (3, 2, 12, 3, 4, 2), scale=2.5, level=-2.0),
        _draw_routing(rng, (12, 4, 16, 4, 4, 2), scale=2.5, level=-0.5),
        _draw_routing(rng, (12, 6, 32, 4, 4, 1), scale=1.5, level=0.5),
    ]


def _draw_routing(
    rng: np.random.Generator,
    sizes: tuple[int, int, int, int, int, int],
    *,
    scale: float = 1.0,
    level: float = 0.0,
    spread_of_bias: float = 0.3,
    logits: float = 0.0,
) -> dict[str, Any]:
    """Draw inputs until no choice in them is a close one.

    ``logits`` is added to the logits of the first token, by a last input that is 1 for it alone.
    """
    n_tokens, d_model, n_experts, top_k, n_groups, topk_groups = sizes
    while True:
        x, weight = normal(rng, n_tokens, d_model), normal(rng, n_experts, d_model)
        if logits:
            x[:, -1], weight[:, -1] = 0.0, logits
            x[0, -1] = 1.0
        bias = level + spread_of_bias * normal(rng, n_experts)
        biased = torch.sigmoid(x @ weight.T) + bias
        groups = moe.group_scores(biased, n_groups)
        candidates = moe.mask_groups(biased, n_groups, topk_groups)
        if min(_gap(groups, topk_groups), _gap(candidates, top_k)) > CLOSEST:
            rest = dict(zip(DRAWN[3:], sizes[3:], strict=True))
            return {"x": x, "weight": weight, "bias": bias, **rest, "route_scale": scale}


def _gap(values: Tensor, k: int) -> float:
    """The least distance, over the rows, between the last that is chosen and the next one."""
    if k >= values.shape[1] or not len(values):
        return math.inf
    best = values.topk(k + 1, dim=1).values
    return (best[:, k - 1] - best[:, k]).min().item()


USUAL_SIZES = 3, 3, 12, 3, 4, 2

DOMAIN = Domain(
    "`bias` is finite; it may be far below or above the scores. A sigmoid may underflow: if all "
    "chosen scores of a token are zero its weights are zero, as in the first exercise. `top_k` and "
    "`topk_groups` are at least 1, and the groups that stay hold at least `top_k` experts. "
    "`route_scale` is above zero, and there is at least one token.",
    _usual,
    {
        "the bias is very negative": lambda rng: [
            _draw_routing(rng, USUAL_SIZES, level=-10.0),
            _draw_routing(rng, USUAL_SIZES, level=-2e3, spread_of_bias=100.0),
            _draw_routing(rng, USUAL_SIZES, level=-1e12, spread_of_bias=1e11),
        ],
        "the bias is large": lambda rng: [
            _draw_routing(rng, USUAL_SIZES, level=50.0),
            _draw_routing(rng, USUAL_SIZES, level=0.0, spread_of_bias=1e4),
        ],
        "all scores of a token are 0": lambda rng: [_draw_routing(rng, USUAL_SIZES, logits=-900.0)],
        "the scores of a token are tiny": lambda rng: [
            _draw_routing(rng, USUAL_SIZES, logits=-60.0),
            _draw_routing(rng, USUAL_SIZES, logits=-300.0, scale=2.5),
        ],
        "the scores of a token are 1": lambda rng: [_draw_routing(rng, USUAL_SIZES, logits=60.0)],
        "there is one group": lambda rng: [_draw_routing(rng, (3, 3, 6, 2, 1, 1))],
        "all groups stay": lambda rng: [_draw_routing(rng, (3, 3, 12, 3, 4, 4))],
        "a group has two experts": lambda rng: [_draw_routing(rng, (4, 3, 8, 2, 4, 2))],
        "one expert is chosen": lambda rng: [_draw_routing(rng, (3, 3, 12, 1, 4, 2), scale=2.5)],
        "all experts of the groups that stay are chosen": lambda rng: [
            _draw_routing(rng, (3, 3, 12, 6, 4, 2))
        ],
        "`route_scale` is below 1": lambda rng: [_draw_routing(rng, USUAL_SIZES, scale=0.25)],
        "there are as many groups as experts in one": lambda rng: [
            _draw_routing(rng, (5, 3, 9, 2, 3, 2))
        ],
        "there is one token": lambda rng: [_draw_routing(rng, (1, 3, 12, 3, 4, 2))],
    },
)


def check_route(function: Learner, *, seed: int = 0) -> str:
    """Check ``route(x, weight, bias, top_k, n_groups, topk_groups, route_scale)``: ``[T, E]``.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2412.19437, eqs. 12-16,
    and the released ``inference/model.py``.
    """
    return DOMAIN.check(ROUTE, function, seed)
