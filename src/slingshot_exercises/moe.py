"""Checks of the assignment on mixture of experts: gate, balance, route and dispatch.

All tensors are float64, so that a bound on roundings is far below any mistake. Where experts are
chosen the inputs are drawn so that no two scores between which a choice is made lie close together:
a rounding cannot change who is chosen.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slingshot import moe
from slingshot_exercises.checking import (
    EXACT,
    UNIT_ROUNDOFF,
    Answer,
    Case,
    CheckFailed,
    Exercise,
    Mistake,
    Tolerance,
    describe_case,
    number,
    roundings,
    tensor,
)

Learner = Callable[..., Any]

CLOSEST = 1e-6
"""The least distance between two scores of which one is chosen; roundings are below 1e-13."""


def _spread(weights: Tensor, experts: Tensor, n_experts: int) -> Tensor:
    """Put ``weights [T, k]`` in the columns of their ``experts [T, k]``: ``[T, E]``."""
    dense = torch.zeros(len(weights), n_experts, dtype=weights.dtype)
    return dense.scatter(1, experts, weights)


def _normal(rng: np.random.Generator, *shape: int) -> Tensor:
    """Normal numbers of three decimals, so that a failure shows them in full."""
    return torch.from_numpy(rng.standard_normal(shape).round(3))


# --- gate ------------------------------------------------------------------------------------


def _gate(scores: Tensor, k: int) -> Tensor:
    experts = scores.topk(k, dim=1).indices
    return _spread(moe.gate_weights(scores, experts), experts, scores.shape[1])


def _wrong_gate(weigh: Callable[[Tensor], Tensor]) -> Callable[[Tensor, int], Tensor]:
    """A gate in which ``weigh`` turns the chosen scores ``[T, k]`` into weights."""

    def wrong(scores: Tensor, k: int) -> Tensor:
        best = scores.topk(k, dim=1)
        return _spread(weigh(best.values), best.indices, scores.shape[1])

    return wrong


def _shares_of_all(scores: Tensor, k: int) -> Tensor:
    return _wrong_gate(lambda chosen: chosen)(scores / scores.sum(dim=1, keepdim=True), k)


def _softmax_of_all(scores: Tensor, k: int) -> Tensor:
    return _wrong_gate(lambda chosen: chosen)(scores.softmax(dim=1), k)


def _softmax_with_zeros(scores: Tensor, k: int) -> Tensor:
    return _wrong_gate(lambda chosen: chosen)(scores, k).softmax(dim=1)


GATE = Exercise(
    "gate",
    _gate,
    tensor,
    # A sum of at most four scores, a number that underflows beside it, a quotient.
    roundings(6),
    [
        Mistake(
            "the weights are not normalized; the chosen scores must be divided by their sum",
            _wrong_gate(lambda chosen: chosen),
        ),
        Mistake(
            "the scores are normalized over all experts before the choice; divide by the sum of "
            "the chosen ones",
            _shares_of_all,
        ),
        Mistake(
            "a softmax over all experts comes before the choice; the scores are sigmoids already, "
            "and only the chosen ones are normalized",
            _softmax_of_all,
        ),
        Mistake(
            "a softmax over the chosen scores; they are divided by their sum and nothing else",
            _wrong_gate(lambda chosen: chosen.softmax(dim=1)),
        ),
        Mistake(
            "a softmax after the others were set to 0; it gives weight to experts that were not "
            "chosen, since exp(0) is 1",
            _softmax_with_zeros,
        ),
        Mistake(
            "the sum goes over the tokens; each token is normalized by itself, over its experts",
            _wrong_gate(lambda chosen: chosen / chosen.sum(dim=0, keepdim=True)),
        ),
    ],
)


GATE_OF_NOTHING = Exercise(
    "gate",
    _gate,
    tensor,
    EXACT,
    [
        Mistake(
            "a token whose chosen scores are all 0 gets nan, from 0 / 0; its weights are 0",
            _wrong_gate(lambda chosen: chosen / chosen.sum(dim=1, keepdim=True)),
        ),
        Mistake(
            "a token whose chosen scores are all 0 gets equal weights; its weights are 0",
            _wrong_gate(lambda chosen: torch.full_like(chosen, 1 / chosen.shape[1])),
        ),
    ],
)


def check_gate(function: Learner, *, seed: int = 0) -> None:
    """Check ``gate(scores, k)``: weights ``[T, E]`` of scores ``[T, E]``, 0 where not chosen.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2412.19437, eqs. 12-13.
    """
    rng = np.random.default_rng([seed, 11])
    cases: list[Case] = [
        {"scores": torch.tensor([[0.5, 0.25, 0.75, 0.1]], dtype=torch.float64), "k": 2}
    ]
    for n_tokens, n_experts, k in ((2, 4, 1), (3, 6, 2), (6, 8, 4)):
        # A permutation keeps the scores of a row apart.
        rows = [rng.permutation(n_experts) + rng.uniform(0, 0.5) for _ in range(n_tokens)]
        scores = (np.stack(rows) + 0.5) / (n_experts + 1)
        cases.append({"scores": torch.from_numpy(scores.round(4)), "k": k})
    GATE.check(function, cases)
    GATE_OF_NOTHING.check(function, [{"scores": torch.zeros(1, 2, dtype=torch.float64), "k": 2}])


# --- bias ------------------------------------------------------------------------------------


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
                "bias": _normal(rng, n_experts),
                "load": torch.from_numpy(load.astype(float)),
                "speed": float(rng.integers(1, 9)) / 1024,  # the same in float32
            }
        )
    UPDATE_BIAS.check(function, cases)


# --- loss ------------------------------------------------------------------------------------


def _loss(scores: Tensor, experts: Tensor) -> Tensor:
    return moe.load_balancing_loss(scores, experts, scores.shape[1])


def _shares(scores: Tensor, experts: Tensor) -> tuple[Tensor, Tensor]:
    """The shares f and P of the loss, ``[E]`` each."""
    load = torch.bincount(experts.flatten(), minlength=scores.shape[1]).double()
    probability = (scores / scores.sum(dim=1, keepdim=True)).mean(dim=0)
    return load / experts.numel(), probability


def _wrong_loss(
    combine: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss of f, P, scores and experts."""
    return lambda scores, experts: combine(*_shares(scores, experts), scores, experts)


BALANCE_LOSS = Exercise(
    "balance_loss",
    _loss,
    number,
    # At most 12 tokens and 8 experts: sums of 96, 8 and 12 terms, and a few quotients.
    roundings(128),
    [
        Mistake(
            "the tokens are counted instead of the choices: at balance the loss is k, not 1. "
            "Divide the load by T times k",
            _wrong_loss(lambda f, p, s, e: len(p) * e.shape[1] * (f * p).sum()),
        ),
        Mistake(
            "the factor E is missing; at balance the loss is 1 / E, not 1",
            _wrong_loss(lambda f, p, s, e: (f * p).sum()),
        ),
        Mistake(
            "the scores are not normalized; sigmoids do not sum to 1, so divide each row by its "
            "sum before the mean",
            _wrong_loss(lambda f, p, s, e: len(p) * (f * s.mean(dim=0)).sum()),
        ),
        Mistake(
            "the mean of the scores is normalized, and not each token's scores; a token with "
            "large scores then counts for more",
            _wrong_loss(lambda f, p, s, e: len(p) * (f * s.mean(dim=0)).sum() / s.mean(0).sum()),
        ),
        Mistake(
            "a softmax of the scores; they are sigmoids already, so divide each row by its sum",
            _wrong_loss(lambda f, p, s, e: len(p) * (f * s.softmax(dim=1).mean(dim=0)).sum()),
        ),
        Mistake(
            "the load is not divided by the number of choices; f is a share",
            _wrong_loss(lambda f, p, s, e: len(p) * e.numel() * (f * p).sum()),
        ),
        Mistake(
            "the loss is built from f alone; a count has no gradient, P has one",
            _wrong_loss(lambda f, p, s, e: len(f) * (f * f).sum()),
        ),
        Mistake(
            "the loss is built from P alone; f tells how busy an expert was",
            _wrong_loss(lambda f, p, s, e: len(p) * (p * p).sum()),
        ),
    ],
)


def _loss_gradient(scores: Tensor, experts: Tensor) -> Tensor:
    asked = scores.clone().requires_grad_()
    return torch.autograd.grad(_loss(asked, experts), asked)[0]


def _gradient_bound(case: Case, expected: Answer) -> np.ndarray:
    """Derived from dL / ds_ti = E / T (f_i / S_t - sum_j f_j s_tj / S_t^2): both terms add up."""
    scores, experts = case["scores"], case["experts"]
    share, _ = _shares(scores, experts)
    total = scores.sum(dim=1, keepdim=True)
    terms = share / total + (scores @ share)[:, None] / total**2
    bound = 2 * 128 * UNIT_ROUNDOFF * scores.shape[1] / len(scores) * terms
    return np.asarray(bound.numpy())


BALANCE_LOSS_GRADIENT = Exercise(
    "balance_loss",
    _loss_gradient,
    tensor,
    Tolerance(_gradient_bound, "128 roundings of the terms of the gradient, in each of two"),
)


def check_balance_loss(function: Learner, *, seed: int = 0) -> None:
    """Check ``balance_loss(scores, experts)``: E Σ f P, 1 at balance, with a gradient through P.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2401.06066, eqs. 12-14.
    """
    rng = np.random.default_rng([seed, 13])
    even = torch.tensor([[0, 1], [2, 3]])
    half = torch.full((2, 4), 0.5, dtype=torch.float64)
    cases: list[Case] = [{"scores": half, "experts": even}]
    for n_tokens, n_experts, k in ((3, 4, 1), (4, 4, 2), (12, 8, 3)):
        scores = torch.sigmoid(2 * _normal(rng, n_tokens, n_experts))
        cases.append({"scores": scores, "experts": scores.topk(k, dim=1).indices})
    BALANCE_LOSS.check(function, cases)

    def gradient(scores: Tensor, experts: Tensor) -> Tensor:
        asked = scores.clone().requires_grad_()
        loss = function(asked, experts)
        found = None
        if getattr(loss, "requires_grad", False):
            (found,) = torch.autograd.grad(loss, [asked], allow_unused=True)
        if found is None:
            raise CheckFailed(
                "balance_loss",
                "no gradient reaches the scores; .detach(), .item(), .numpy() or torch.tensor() "
                "cuts it off",
                case=describe_case({"scores": scores, "experts": experts}),
            )
        return found

    BALANCE_LOSS_GRADIENT.check(gradient, cases)


# --- route -----------------------------------------------------------------------------------


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
    return _spread(weights, experts, len(weight))


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
        return _spread(weigh(chosen, scores, scale), experts, len(weight))

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
        x, weight = _normal(rng, n_tokens, d_model), _normal(rng, n_experts, d_model)
        bias = level + 0.3 * _normal(rng, n_experts)
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


# --- dispatch --------------------------------------------------------------------------------


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


CHECKS: dict[str, Callable[..., None]] = {
    "gate": check_gate,
    "update_bias": check_update_bias,
    "balance_loss": check_balance_loss,
    "route": check_route,
    "dispatch": check_dispatch,
}
"""The exercises of the assignment in their order, each with its check."""
