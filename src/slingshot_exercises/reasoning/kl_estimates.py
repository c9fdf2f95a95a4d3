"""The check of ``kl_estimates``."""

import math
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
    UnusableError,
    describe_kind,
    tensor,
)
from slingshot_exercises.domain import Domain


def three_tensors(answer: object) -> np.ndarray:
    """Read k1, k2 and k3 as one array with three rows."""
    wanted = "return three tensors (k1, k2, k3) of the shape of log_p"
    try:
        parts = [tensor(part) for part in answer] if isinstance(answer, list | tuple) else None
        rows = tensor(answer) if parts is None else np.stack(parts)
    except (UnusableError, ValueError):
        raise UnusableError(f"it returns {describe_kind(answer)}; {wanted}") from None
    if rows.ndim < 2 or len(rows) != 3:
        raise UnusableError(f"it returns {describe_kind(answer)}; {wanted}")
    return rows


def _kl_with(
    k1: Callable[[Tensor], Tensor] = lambda x: -x,
    k2: Callable[[Tensor], Tensor] = lambda x: x.square() / 2,
    k3: Callable[[Tensor], Tensor] = lambda x: x.expm1() - x,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The three estimators as functions of the log-ratio x, ``log_ref - log_p``."""
    return lambda log_p, log_ref: torch.stack([k(log_ref - log_p) for k in (k1, k2, k3)])


def kl(log_p: Tensor, log_ref: Tensor) -> Tensor:
    """k1, k2 and k3 as one tensor with three rows."""
    return _kl_with()(log_p, log_ref)


def _kl_bound(case: Case, expected: Answer) -> np.ndarray:
    """How far roundings can move an estimate.

    Whether x is a difference of logarithms or the logarithm of a quotient of probabilities, it is
    off by at most d = 4 u (1 + |log p| + |log ref|). So k1 is off by d, k2 by |x| d, k3 by
    (e^x + 1) d, and each by a few roundings of its terms.
    """
    log_p, log_ref = case["log_p"].numpy(), case["log_ref"].numpy()
    x = log_ref - log_p
    off = 4 * UNIT_ROUNDOFF * (1 + np.abs(log_p) + np.abs(log_ref))
    last = 4 * UNIT_ROUNDOFF * (np.exp(x) + 1 + np.abs(x))
    bounds = [off, np.abs(x) * off + 4 * UNIT_ROUNDOFF * x**2, (np.exp(x) + 1) * off + last]
    return np.asarray(2 * np.stack(bounds))


def _weighted_kl(log_p: Tensor, log_ref: Tensor) -> Tensor:
    return log_p.exp() * kl(log_p, log_ref)


def _explain_kl(case: Case, expected: Answer, got: Answer) -> str:
    near = got.shape == expected.shape and np.allclose(got, expected, rtol=0, atol=1e-6)
    return "the result is close, but not as close as float64; is a step in float32?" if near else ""


KL_ESTIMATES = Exercise(
    "kl_estimates",
    kl,
    three_tensors,
    Tolerance(
        _kl_bound,
        "the roundings of the log-ratio, the exponential and the sum, in each of two formulas",
    ),
    [
        Mistake(
            "the ratio is turned over: x is log_ref - log_p, and k1 is -x. This estimates the KL "
            "of the other direction",
            lambda log_p, log_ref: kl(log_ref, log_p),
        ),
        Mistake(
            "the sign of k1 is turned; it is log_p - log_ref",
            _kl_with(k1=lambda x: x),
        ),
        Mistake(
            "the ratio in k3 is turned over; r is the reference's probability, divided by the "
            "model's",
            _kl_with(k3=lambda x: (-x).expm1() + x),
        ),
        Mistake("the half is missing in k2", _kl_with(k2=torch.square)),
        Mistake(
            "the logarithm is added in k3; it is taken away, and so is 1",
            _kl_with(k3=lambda x: x.expm1() + x),
        ),
        Mistake(
            "k3 lacks its - 1; where both models agree it must be 0",
            _kl_with(k3=lambda x: x.exp() - x),
        ),
        Mistake(
            "k1 has lost its sign; it may be negative, and its mean is right only then",
            _kl_with(k1=torch.abs),
        ),
        Mistake(
            "the estimates are weighted with the probability of the token; the tokens were sampled "
            "from the model, so likely ones come up more often already",
            _weighted_kl,
        ),
        Mistake(
            "the logarithms are turned to base 2; the results are in nats",
            lambda log_p, log_ref: _kl_with(
                k1=lambda x: -x / math.log(2),
                k2=lambda x: (x / math.log(2)).square() / 2,
                k3=lambda x: x.expm1() - x / math.log(2),
            )(log_p, log_ref),
        ),
        Mistake(
            "k3 is the one of the reversed ratio times the ratio; it is r - 1 - log r",
            _kl_with(k3=lambda x: x.exp() * x - x.expm1()),
        ),
        Mistake(
            "the three are returned in another order; k1 comes first, k3 last",
            lambda log_p, log_ref: kl(log_p, log_ref).flip(0),
        ),
    ],
    explain=_explain_kl,
)


def _case(log_p: Any, log_ref: Any) -> Case:  # noqa: ANN401 lists or arrays
    pair = {"log_p": log_p, "log_ref": log_ref}
    return {
        name: torch.tensor(np.asarray(values), dtype=torch.float64) for name, values in pair.items()
    }


def _drawn(
    rng: np.random.Generator, shape: tuple[int, int], low: float = 0.1, high: float = 3
) -> Case:
    return _case(*(-rng.uniform(low, high, shape).round(3) for _ in range(2)))


def _usual(rng: np.random.Generator) -> list[Case]:
    first = _case([[-1.0, -1.0, -1.0]], [[-1.0, -2.0, -0.5]])
    return [first, *(_drawn(rng, shape) for shape in ((2, 3), (3, 4), (4, 10)))]


DOMAIN = Domain(
    "Log-probabilities are from -100 to 0, both among them. There is at least one output of one "
    "token.",
    _usual,
    {
        "both models agree": lambda rng: [_case([[-0.5, -2.0]], [[-0.5, -2.0]])],
        "both models nearly agree": lambda rng: [
            _case([[-0.5, -2.0]], [[-0.5 + 2**-20, -2.0 - 2**-20]])
        ],
        "the reference finds a token far likelier": lambda rng: [
            _case([[-40.0, -12.0]], [[-0.125, -0.5]])
        ],
        "the reference finds a token far less likely": lambda rng: [
            _case([[-0.125, -0.5]], [[-90.0, -12.0]])
        ],
        "a log-probability is 0": lambda rng: [_case([[0.0, -1.0, 0.0]], [[-1.0, 0.0, 0.0]])],
        "log-probabilities are low": lambda rng: [_drawn(rng, (2, 4), 90, 100)],
        "there is one token": lambda rng: [_drawn(rng, (1, 1)), _drawn(rng, (4, 1))],
        "there are three outputs of three tokens": lambda rng: [_drawn(rng, (3, 3))],
    },
)


def check_kl_estimates(function: Learner, *, seed: int = 0) -> str:
    """Check ``kl_estimates(log_p, log_ref)``: k1, k2 and k3 of each token, in nats.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: Schulman, "Approximating KL
    Divergence" (2020); arXiv 2402.03300, eq. 4.
    """
    return DOMAIN.check(KL_ESTIMATES, function, seed)
