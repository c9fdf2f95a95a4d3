"""The check of ``training_flops``."""

from collections.abc import Callable

import numpy as np

from slingshot import costs, facts
from slingshot_exercises.checking import Exercise, Learner, Mistake, number, roundings
from slingshot_exercises.claim.common import three_digits


def _training_flops(n_active: float, n_tokens: float, recompute: bool) -> float:
    flops = costs.training_flops(n_active, n_tokens)
    # A third of 6ND is the forward pass, and recomputing does it once more.
    return flops * 4 / 3 if recompute else flops


def _per_pair(plain: float, recomputed: float) -> Callable[[float, float, bool], float]:
    """A wrong count of operations per parameter and token."""
    return lambda n, d, recompute: (recomputed if recompute else plain) * n * d


TRAINING_FLOPS = Exercise(
    "training_flops",
    _training_flops,
    number,
    # Three products; the reference has two more operations for the third of 6ND.
    roundings(6),
    [
        Mistake("the backward pass is missing; it takes two products a weight", _per_pair(2, 4)),
        Mistake(
            "the backward pass is counted like a forward pass; it takes twice as much, for the "
            "gradient of the weights and for that of their inputs",
            _per_pair(4, 6),
        ),
        Mistake(
            "a multiplication with an addition is counted as one operation; they are two",
            _per_pair(3, 4),
        ),
        Mistake(
            "recompute=True changes nothing; the forward pass is then done twice",
            _per_pair(6, 6),
        ),
        Mistake(
            "recompute=True repeats the whole step; only the forward pass is done again",
            _per_pair(6, 12),
        ),
        Mistake(
            "recompute=True adds one operation a weight; a forward pass takes two",
            _per_pair(6, 7),
        ),
    ],
)


def check_training_flops(function: Learner, *, seed: int = 0) -> None:
    """Check ``training_flops(n_active, n_tokens, recompute)``: 6ND, and 8ND with recomputing.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2001.08361, §2.1; for
    recomputing, arXiv 2205.05198.
    """
    rng = np.random.default_rng([seed, 1])
    sizes = [(1, 1), (facts.value("v3.parameters.active"), facts.value("v3.tokens"))]
    sizes += [
        (int(n), int(d))
        for n, d in zip(
            three_digits(rng, 1e9, 4e11, 3), three_digits(rng, 1e11, 2e13, 3), strict=True
        )
    ]
    cases = [
        {"n_active": n, "n_tokens": d, "recompute": recompute}
        for n, d in sizes
        for recompute in (False, True)
    ]
    TRAINING_FLOPS.check(function, cases)
