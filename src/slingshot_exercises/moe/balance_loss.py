"""The check of ``balance_loss``."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from slingshot import moe
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
from slingshot_exercises.moe.common import normal


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
        scores = torch.sigmoid(2 * normal(rng, n_tokens, n_experts))
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
