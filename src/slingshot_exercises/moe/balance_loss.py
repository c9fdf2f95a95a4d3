"""The check of ``balance_loss``."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slingshot_exercises.checking import (
    UNIT_ROUNDOFF,
    Answer,
    Case,
    CheckFailed,
    Exercise,
    Learner,
    Mistake,
    Tolerance,
    describe_case,
    number,
    roundings,
    tensor,
)
from slingshot_exercises.domain import Domain
from slingshot_exercises.moe.common import normal


def _loss(scores: Tensor, experts: Tensor) -> Tensor:
    f, p = _shares(scores, experts)
    return len(p) * (f * p).sum()


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
            "a step is in float32, such as whole numbers divided by whole numbers; give the counts "
            "the dtype of the scores before you divide",
            _wrong_loss(lambda f, p, s, e: len(p) * (f.float().double() * p).sum()),
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
    part="the loss is right, and its gradient by the scores is not",
)


def _case(scores: Tensor, experts: Any) -> Case:  # noqa: ANN401 lists or a tensor
    return {"scores": scores, "experts": torch.as_tensor(experts)}


def _drawn(rng: np.random.Generator, n_tokens: int, n_experts: int, k: int) -> dict[str, Tensor]:
    scores = torch.sigmoid(2 * normal(rng, n_tokens, n_experts))
    return {"scores": scores, "experts": scores.topk(k, dim=1).indices}


def _usual(rng: np.random.Generator) -> list[Case]:
    half = torch.full((2, 4), 0.5, dtype=torch.float64)
    sizes = ((3, 4, 1), (4, 4, 2), (12, 8, 3))
    return [_case(half, [[0, 1], [2, 3]]), *(_drawn(rng, *size) for size in sizes)]


def _unused(rng: np.random.Generator) -> list[Case]:
    """Experts that nobody chooses, the last ones or the first."""
    last, first = _drawn(rng, 5, 6, 2), _drawn(rng, 5, 6, 2)
    last["experts"] = last["scores"][:, :4].topk(2, dim=1).indices
    first["experts"] = first["scores"][:, 2:].topk(2, dim=1).indices + 2
    return [last, first]


def _chosen_by_a_bias(rng: np.random.Generator) -> list[Case]:
    """Choices that the scores alone would not have made, in any order."""
    case = _drawn(rng, 6, 5, 3)
    case["experts"] = torch.from_numpy(np.stack([rng.permutation(5)[:3] for _ in range(6)]))
    return [case]


def _uneven(rng: np.random.Generator, *sizes: float) -> list[Case]:
    case = _drawn(rng, len(sizes), 4, 2)
    case["scores"] = case["scores"] * torch.tensor(sizes, dtype=torch.float64)[:, None]
    return [case]


def _with_zeros(rng: np.random.Generator) -> list[Case]:
    case = _drawn(rng, 4, 5, 2)
    case["scores"][0, :3] = case["scores"][2, 4] = 0.0
    return [case]


DOMAIN = Domain(
    "There is at least one token. Scores are from 0 to 1; some may be zero or tiny, but not all "
    "of a token. The experts of a token differ and stand in any order. A bias may have chosen "
    "them, so they need not have the highest scores. Some experts may not be chosen by any token.",
    _usual,
    {
        "some experts are not used": _unused,
        "the experts chosen are not those with the highest scores": _chosen_by_a_bias,
        "there is one token": lambda rng: [_drawn(rng, 1, 4, 2), _drawn(rng, 1, 3, 1)],
        "every token chooses all experts": lambda rng: [_drawn(rng, 3, 4, 4)],
        "all tokens choose the same expert": lambda rng: [
            _case(torch.sigmoid(normal(rng, 4, 3)), [[1]] * 4)
        ],
        "the scores of one token are much smaller": lambda rng: _uneven(rng, 1.0, 1e-3, 1e-6, 1.0),
        "all scores are tiny": lambda rng: _uneven(rng, 1e-12, 1e-18, 1e-25),
        "a score is 0": _with_zeros,
    },
)


def check_balance_loss(function: Learner, *, seed: int = 0) -> str:
    """Check ``balance_loss(scores, experts)``: E Σ f P, 1 at balance, with a gradient through P.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2401.06066, eqs. 12-14.
    """
    passed = DOMAIN.check(BALANCE_LOSS, function, seed)

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

    DOMAIN.check(BALANCE_LOSS_GRADIENT, gradient, seed)
    return passed
