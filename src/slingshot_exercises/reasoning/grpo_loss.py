"""The check of ``grpo_loss``."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slingshot import grpo
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
    tensor,
)
from slingshot_exercises.domain import Domain, Draw


def loss(
    log_p: Tensor,
    log_old: Tensor,
    log_ref: Tensor,
    advantages: Tensor,
    mask: Tensor,
    epsilon: float,
    beta: float,
) -> Tensor:
    """The loss as DeepSeekMath prints it."""
    p, old, ref = (log.masked_fill(~mask, 0.0) for log in (log_p, log_old, log_ref))
    gain = _gain(_ratio(p, old, mask), advantages[:, None], epsilon)
    return _per_output(beta * _k3(p, ref) - gain, mask)


def _ratio(log_p: Tensor, log_old: Tensor, mask: Tensor) -> Tensor:
    return (log_p - log_old).exp()


def _gain(ratio: Tensor, worth: Tensor, epsilon: float) -> Tensor:
    return torch.minimum(ratio * worth, ratio.clamp(1 - epsilon, 1 + epsilon) * worth)


def _k3(log_p: Tensor, log_ref: Tensor) -> Tensor:
    """As `grpo.kl_estimate`, which refuses the NaN that some mistakes let through."""
    return (log_ref - log_p).expm1() - (log_ref - log_p)


def _per_output(values: Tensor, mask: Tensor) -> Tensor:
    return (values.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1)).mean()


def _wrong_loss(
    *,
    ratio: Callable[[Tensor, Tensor, Tensor], Tensor] = _ratio,
    gain: Callable[[Tensor, Tensor, float], Tensor] = _gain,
    kl: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda p, ref, old: _k3(p, ref),
    total: Callable[[Tensor, Tensor], Tensor] = _per_output,
    signs: tuple[int, int] = (-1, 1),
    clean: bool = True,
) -> Callable[..., Tensor]:
    """A loss with one part exchanged. ``clean`` says that padding is set to 0 before all else."""

    def wrong(
        log_p: Tensor,
        log_old: Tensor,
        log_ref: Tensor,
        advantages: Tensor,
        mask: Tensor,
        epsilon: float,
        beta: float,
    ) -> Tensor:
        p, old, ref = (
            log.masked_fill(~mask, 0.0) if clean else log for log in (log_p, log_old, log_ref)
        )
        gained = gain(ratio(p, old, mask), advantages[:, None], epsilon)
        return total(signs[0] * gained + signs[1] * beta * kl(p, ref, old), mask)

    return wrong


def _sequence_ratio(log_p: Tensor, log_old: Tensor, mask: Tensor) -> Tensor:
    return (log_p - log_old).sum(dim=1, keepdim=True).exp().expand_as(log_p)


def _mean_ratio(log_p: Tensor, log_old: Tensor, mask: Tensor) -> Tensor:
    mean = (log_p - log_old).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)
    return mean.exp().expand_as(log_p)


def _errors(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes of a token's gain, of its KL, and the relative error of both exponentials, in u.

    A log-ratio is off by at most u (|log p| + |log q|), so its exponential by that share, and a few
    roundings.
    """
    keep = case["mask"].numpy()
    p, old, ref = (
        np.where(keep, case[name].numpy(), 0.0) for name in ("log_p", "log_old", "log_ref")
    )
    worth = np.abs(case["advantages"].numpy())[:, None]
    relative = np.abs(p) + np.maximum(np.abs(old), np.abs(ref)) + 8
    share = keep / keep.sum(axis=1, keepdims=True) / len(keep)
    gain = (np.exp(p - old) + 1 + case["epsilon"]) * worth * share
    distance = case["beta"] * (np.exp(ref - p) + 1 + np.abs(ref - p)) * share
    return gain, distance, relative


def _loss_bound(case: Case, expected: Answer) -> float:
    gain, distance, relative = _errors(case)
    terms = case["mask"].numel()  # as many additions, at most
    return float(2 * UNIT_ROUNDOFF * ((gain + distance) * (relative + terms)).sum())


def _gradient_bound(case: Case, expected: Answer) -> np.ndarray:
    """The gradient of a token's gain is at most as large as the gain, that of k3 is 1 - e^x."""
    gain, distance, relative = _errors(case)
    return np.asarray(2 * UNIT_ROUNDOFF * (gain + distance) * (relative + 8))


def _nan_to_num_first(
    log_p: Tensor, log_old: Tensor, log_ref: Tensor, advantages: Tensor, mask: Tensor, *rest: float
) -> Tensor:
    logs = (log.nan_to_num() for log in (log_p, log_old, log_ref))
    times_mask = _wrong_loss(
        total=lambda v, mask: ((v * mask).sum(dim=1) / mask.sum(dim=1)).mean(), clean=False
    )
    return times_mask(*logs, advantages, mask, *rest)


GRPO_LOSS = Exercise(
    "grpo_loss",
    loss,
    number,
    Tolerance(_loss_bound, "the roundings of ratios, products and sums, in each of two formulas"),
    [
        Mistake(
            "the sign is turned: a loss is made smaller, so it is the objective times -1",
            _wrong_loss(signs=(1, -1)),
        ),
        Mistake(
            "the KL term has the wrong sign; being far from the reference must cost",
            _wrong_loss(signs=(-1, -1)),
        ),
        Mistake(
            "the gain has the wrong sign; a higher advantage must make the loss smaller",
            _wrong_loss(signs=(1, 1)),
        ),
        Mistake(
            "the mean goes over all tokens of the batch, as in DAPO; first take the mean of each "
            "output, then the mean of those",
            _wrong_loss(total=lambda v, mask: v[mask].mean()),
        ),
        Mistake(
            "the tokens of an output are added up; take their mean, so divide by its length",
            _wrong_loss(total=lambda v, m: v.masked_fill(~m, 0.0).sum(dim=1).mean()),
        ),
        Mistake(
            "padding counts in the length of an output; divide by the tokens that the mask lets "
            "through",
            _wrong_loss(total=lambda v, mask: v.masked_fill(~mask, 0.0).mean()),
        ),
        Mistake(
            "the mask has no effect; what stands behind it must not count",
            _wrong_loss(total=lambda v, mask: v.mean(), clean=False),
        ),
        Mistake(
            "padding comes through as nan: nan or infinity times 0 is nan. Set values "
            "behind the mask to 0 instead of multiplying them",
            _wrong_loss(
                total=lambda v, mask: ((v * mask).sum(dim=1) / mask.sum(dim=1)).mean(), clean=False
            ),
        ),
        Mistake(
            "nan_to_num makes numbers of nan and infinity, and large ones; their exponential is "
            "infinite, and times 0 nan again. Set values behind the mask to 0 before the "
            "exponential",
            _nan_to_num_first,
        ),
        Mistake(
            "the minimum is missing: the clipped gain alone forgives a ratio that moved the wrong "
            "way",
            _wrong_loss(gain=lambda r, w, e: r.clamp(1 - e, 1 + e) * w),
        ),
        Mistake(
            "the larger of both gains is taken; the objective takes the smaller",
            _wrong_loss(gain=lambda r, w, e: torch.maximum(r * w, r.clamp(1 - e, 1 + e) * w)),
        ),
        Mistake(
            "nothing is clipped; a gain ends where the ratio leaves 1 - epsilon to 1 + epsilon",
            _wrong_loss(gain=lambda r, w, e: r * w),
        ),
        Mistake(
            "the minimum is taken before the advantage is multiplied; with a negative one that is "
            "the larger gain",
            _wrong_loss(gain=lambda r, w, e: torch.minimum(r, r.clamp(1 - e, 1 + e)) * w),
        ),
        Mistake(
            "the ratio is upside down; it is the probability now, divided by that of the sampling",
            _wrong_loss(ratio=lambda p, old, mask: (old - p).exp()),
        ),
        Mistake(
            "the ratio lacks its exponential; a difference of logarithms is the logarithm of it",
            _wrong_loss(ratio=lambda p, old, mask: p - old),
        ),
        Mistake(
            "one ratio is taken for a whole output; each token has its own",
            _wrong_loss(ratio=_sequence_ratio),
        ),
        Mistake(
            "one ratio is taken for a whole output, a geometric mean; each token has its own",
            _wrong_loss(ratio=_mean_ratio),
        ),
        Mistake(
            "the ratio is always 1; log_old is what log_p was when the tokens were sampled",
            _wrong_loss(ratio=lambda p, old, mask: (p - p.detach()).exp()),
        ),
        Mistake(
            "the ratio in k3 is turned over; x is log_ref - log_p",
            _wrong_loss(kl=lambda p, ref, old: grpo.kl_estimate(ref, p)),
        ),
        Mistake(
            "the KL is taken to the old model; it is taken to the reference",
            _wrong_loss(kl=lambda p, ref, old: grpo.kl_estimate(p, old)),
        ),
        Mistake(
            "the KL is estimated with k1, whose gradient is 0 on average; take k3",
            _wrong_loss(kl=lambda p, ref, old: grpo.kl_estimate(p, ref, "k1")),
        ),
        Mistake(
            "beta has no effect; the loss grows by beta times k3 of each token",
            _wrong_loss(kl=lambda p, ref, old: torch.zeros_like(p)),
        ),
    ],
)


def _gradient_of(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def gradient(log_p: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401 tensors and numbers
        asked = log_p.clone().requires_grad_()
        return torch.autograd.grad(loss(asked, *rest), asked)[0]

    return gradient


def _late_mask(*arguments: Any) -> Tensor:  # noqa: ANN401
    return _wrong_loss(clean=False)(*arguments)


def _straight_through(ratio: Tensor, worth: Tensor, epsilon: float) -> Tensor:
    return ratio * worth + (_gain(ratio, worth, epsilon) - ratio * worth).detach()


GRPO_LOSS_GRADIENT = Exercise(
    "grpo_loss",
    _gradient_of(loss),
    tensor,
    Tolerance(_gradient_bound, "the roundings of a gradient's terms, in each of two formulas"),
    [
        Mistake(
            "the loss is right, and its gradient is nan behind the mask: 0 times nan. Set padding "
            "to 0 before the exponential, and not after it",
            _gradient_of(_late_mask),
        ),
        Mistake(
            "the loss is right, and the KL term has no gradient; only log_ref is a constant",
            _gradient_of(_wrong_loss(kl=lambda p, ref, old: grpo.kl_estimate(p.detach(), ref))),
        ),
        Mistake(
            "the loss is right, and clipped tokens have a gradient; the clip takes it away",
            _gradient_of(_wrong_loss(gain=_straight_through)),
        ),
    ],
    part="the loss is right, and its gradient by log_p is not",
)


def draw_batch(
    rng: np.random.Generator,
    lengths: Sequence[int],
    epsilon: float,
    beta: float,
    padding: Sequence[float] = (),
    *,
    anywhere: bool = False,
    corners: bool = True,
    reach: float = 0.8,
    worth: Sequence[float] = (1.0, -1.0),
) -> dict[str, Any]:
    """Draw a batch in which both clips bite and both do not, none of them closely.

    ``padding`` fills what the mask hides, other numbers in each of the logarithms, and
    ``anywhere`` puts it before and between the tokens. Logarithms of ratios are below ``reach``.
    Without ``corners`` a clip need not bite.
    """
    shape = len(lengths), max(lengths)
    mask = np.arange(shape[1]) < np.asarray(lengths)[:, None]
    if anywhere:
        mask = rng.permuted(mask, axis=1)
        mask[0] = mask[0, ::-1] if mask[0, 0] and not mask[0, -1] else mask[0]
    signs = np.resize(worth, len(lengths))[:, None]
    advantages = signs * rng.uniform(0.3, 2, (shape[0], 1))
    while True:
        log_old, log_ref = (-rng.uniform(1, 3, shape).round(3) for _ in range(2))
        log_p = (log_old + rng.uniform(-reach, reach, shape)).round(3)
        ratio = np.exp(log_p - log_old)
        edges = [ratio < 1 - epsilon, ratio > 1 + epsilon]
        far = np.abs(np.abs(ratio - 1) - epsilon) > 1e-3
        seen = [(edge & (sign * advantages > 0) & mask).any() for edge in edges for sign in (1, -1)]
        if far.all() and (all(seen) or not corners):
            break
    logs = {"log_p": log_p, "log_old": log_old, "log_ref": log_ref}
    fillers = (np.resize(np.roll(padding or [0.0], shift), shape) for shift in range(3))
    return {
        **{
            name: torch.from_numpy(np.where(mask, values, filler))
            for (name, values), filler in zip(logs.items(), fillers, strict=True)
        },
        "advantages": torch.from_numpy(advantages[:, 0].round(3)),
        "mask": torch.from_numpy(mask),
        "epsilon": epsilon,
        "beta": beta,
    }


def _usual(rng: np.random.Generator) -> list[Case]:
    logs = {"log_p": [[-1.0, -0.5]], "log_old": [[-1.0, -1.0]], "log_ref": [[-1.0, -1.0]]}
    first = {**logs, "advantages": [1.0]}
    return [
        {
            **{name: torch.tensor(value, dtype=torch.float64) for name, value in first.items()},
            "mask": torch.tensor([[True, True]]),
            "epsilon": 0.2,
            "beta": 0.0,
        },
        draw_batch(rng, [1, 4, 3], 0.2, 0.0, [-0.25]),
        draw_batch(rng, [4, 2, 3], 0.2, 0.5, [-0.25]),
        draw_batch(rng, [2, 4, 3], 0.2, 0.5, [math.nan, -math.inf]),
        draw_batch(rng, [8, 3, 1, 6, 5], 0.1, 0.04, [-math.inf, 0.0, math.nan]),
    ]


def _padded_with(*padding: float, anywhere: bool = False) -> Draw:
    return lambda rng: [
        draw_batch(rng, [3, 6, 1, 4], 0.2, 0.3, padding, anywhere=anywhere, worth=worth)
        for worth in ((1.0, -1.0), (-1.0, 1.0))
    ]


def _not_moved(rng: np.random.Generator) -> list[Case]:
    case = draw_batch(rng, [2, 3, 4], 0.2, 0.5)
    return [{**case, "log_old": case["log_p"].clone()}]


def _drawn(lengths: Sequence[int], epsilon: float, beta: float, **options: Any) -> Draw:  # noqa: ANN401
    return lambda rng: [draw_batch(rng, lengths, epsilon, beta, corners=False, **options)]


DOMAIN = Domain(
    "Where `mask` is true all numbers are finite; where it is false, at the end, at the beginning "
    "or between the tokens, the three logarithms may be anything, and not the same. Advantages "
    "are of either sign or zero. `epsilon` is above 0 and below 1, and `beta` is zero or more.",
    _usual,
    {
        "padding is a large number": _padded_with(1e4, -1e4, 3e3, 800.0, -20.0),
        "padding is a number above 0": _padded_with(30.0, 2.0, 0.5),
        "padding is infinite or nan": _padded_with(math.inf, -math.inf, math.nan, 0.0),
        "padding stands before the tokens or between them": _padded_with(
            math.nan, 1e4, -0.25, anywhere=True
        ),
        "there is no padding": _drawn([4, 4, 4], 0.2, 0.3),
        "there are as many outputs as tokens": _drawn([3, 1, 2], 0.2, 0.3),
        "there is one output": _drawn([5], 0.2, 0.3),
        "every output has one token": _drawn([1, 1, 1], 0.2, 0.3),
        "an advantage is 0": _drawn([3, 2, 4], 0.2, 0.3, worth=(1.0, 0.0, -1.0)),
        "all advantages are negative": _drawn([3, 2, 4], 0.2, 0.3, worth=(-1.0,)),
        "all advantages are positive": _drawn([3, 2, 4], 0.2, 0.3, worth=(1.0,)),
        "the model has not moved since the tokens were sampled": _not_moved,
        "`beta` is 0": _drawn([3, 2, 4], 0.2, 0.0),
        "`beta` is above 1": _drawn([3, 2, 4], 0.2, 3.0),
        "`epsilon` is large": _drawn([3, 2, 6], 0.75, 0.1, reach=3.0),
        "`epsilon` is small": _drawn([3, 2, 6], 0.01, 0.1),
        "a ratio is far from 1": _drawn([6, 6, 5, 6], 0.2, 0.1, reach=8.0),
    },
)


def check_grpo_loss(function: Learner, *, seed: int = 0) -> str:
    """Check ``grpo_loss(log_p, log_old, log_ref, advantages, mask, epsilon, beta)``, a scalar.

    The gradient by ``log_p`` is checked, too. Raises
    :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2402.03300, eqs. 3-4.
    """
    passed = DOMAIN.check(GRPO_LOSS, function, seed)

    def gradient(log_p: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401 tensors and numbers
        asked = log_p.clone().requires_grad_()
        loss = function(asked, *rest)
        found = None
        if getattr(loss, "requires_grad", False):
            (found,) = torch.autograd.grad(loss, [asked], allow_unused=True)
        if found is None:
            raise CheckFailed(
                "grpo_loss",
                "no gradient reaches log_p; .detach(), .item(), .numpy() or torch.tensor() cuts "
                "it off",
                case=describe_case(DOMAIN.cases(seed)[0]),
            )
        return found

    DOMAIN.check(GRPO_LOSS_GRADIENT, gradient, seed)
    return passed
