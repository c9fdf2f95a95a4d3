"""The check of ``route``."""

import math
from collections.abc import Callable

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
from slingshot_exercises.moe.common import normal, spread

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
    scores = moe.expert_scores(x @ weight.T)
    experts = moe.select_experts(scores + bias, top_k, n_groups, topk_groups)
    weights = moe.gate_weights(scores, experts, route_scale=route_scale)
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
) -> Callable[..., Tensor]:
    """A router with one step exchanged."""

    def wrong(
        x: Tensor, weight: Tensor, bias: Tensor, k: int, groups: int, kept: int, scale: float
    ) -> Tensor:
        scores = score(x @ weight.T)
        biased = steer(scores, bias)
        shape = len(x), groups, -1
        grouped = biased.reshape(shape)
        best = rank(grouped, scores.reshape(shape)).topk(kept, dim=1).indices
        keep = torch.zeros(len(x), groups, dtype=torch.bool).scatter(1, best, True)
        masked = grouped if fill is None else grouped.masked_fill(~keep[:, :, None], fill)
        candidates = masked.flatten(1)
        experts = candidates.topk(k, dim=1).indices
        chosen = source(scores, biased).gather(1, experts)
        return spread(weigh(chosen, scores, scale), experts, len(weight))

    return wrong


def _route_bound(case: Case, expected: Answer) -> float:
    """How far roundings can move a weight.

    A logit of d products is off by at most d u Σ|x w|, and a sigmoid's relative error is at most
    its logit's absolute one. A weight is a quotient of k + 1 such numbers and below the scale.
    """
    size = (case["x"].abs() @ case["weight"].abs().T).max().item()
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
    ],
)


def check_route(function: Learner, *, seed: int = 0) -> None:
    """Check ``route(x, weight, bias, top_k, n_groups, topk_groups, route_scale)``: ``[T, E]``.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2412.19437, eqs. 12-16,
    and the released ``inference/model.py``.
    """
    rng = np.random.default_rng([seed, 14])
    shapes = [
        # tokens, d_model, experts, top_k, groups, kept groups, scale, level of the bias
        (2, 2, 4, 2, 1, 1, 1.0, 0.0),
        (3, 2, 12, 3, 4, 2, 1.0, 0.0),
        (3, 2, 12, 3, 4, 2, 2.5, -2.0),
        (12, 4, 16, 4, 4, 2, 2.5, -0.5),
        (12, 6, 32, 4, 4, 1, 1.5, 0.5),
    ]
    ROUTE.check(function, [_draw_routing(rng, *shape) for shape in shapes])


def _draw_routing(
    rng: np.random.Generator,
    n_tokens: int,
    d_model: int,
    n_experts: int,
    top_k: int,
    n_groups: int,
    topk_groups: int,
    route_scale: float,
    level: float,
) -> Case:
    """Draw inputs until no choice in them is a close one."""
    while True:
        x, weight = normal(rng, n_tokens, d_model), normal(rng, n_experts, d_model)
        bias = level + 0.3 * normal(rng, n_experts)
        biased = torch.sigmoid(x @ weight.T) + bias
        groups = moe.group_scores(biased, n_groups)
        candidates = moe.mask_groups(biased, n_groups, topk_groups)
        if min(_gap(groups, topk_groups), _gap(candidates, top_k)) > CLOSEST:
            return {
                "x": x,
                "weight": weight,
                "bias": bias,
                "top_k": top_k,
                "n_groups": n_groups,
                "topk_groups": topk_groups,
                "route_scale": route_scale,
            }


def _gap(values: Tensor, k: int) -> float:
    """The least distance, over the rows, between the last that is chosen and the next one."""
    if k >= values.shape[1]:
        return math.inf
    best = values.topk(k + 1, dim=1).values
    return (best[:, k - 1] - best[:, k]).min().item()
