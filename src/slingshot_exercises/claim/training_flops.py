"""The check of ``training_flops``."""

from collections.abc import Callable

import numpy as np

from slingshot import facts
from slingshot_exercises.checking import Case, Exercise, Learner, Mistake, number, roundings
from slingshot_exercises.claim.common import three_digits
from slingshot_exercises.domain import Domain


def _training_flops(n_active: float, n_tokens: float, recompute: bool = False) -> float:
    # A third of 6ND is the forward pass, and recomputing does it once more.
    return (8 if recompute else 6) * n_active * n_tokens


def _per_pair(plain: float, recomputed: float) -> Callable[[float, float, bool], float]:
    """A wrong count of operations per parameter and token."""
    return lambda n, d, recompute: (recomputed if recompute else plain) * n * d


TRAINING_FLOPS = Exercise(
    "training_flops",
    _training_flops,
    number,
    # At most six products and sums, as in 2ND + 4ND + 2ND.
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
        Mistake(
            "recompute=True adds half of the step; the forward pass is a third of it",
            _per_pair(6, 9),
        ),
        Mistake(
            "recompute=True repeats the backward pass; only the forward pass is done again",
            _per_pair(6, 10),
        ),
    ],
)


def _usual(rng: np.random.Generator) -> list[Case]:
    sizes: list[tuple[float, float]] = [
        (1, 1),
        (3, 5),
        (facts.value("v3.parameters.active"), facts.value("v3.tokens")),
    ]
    drawn = three_digits(rng, 1e9, 4e11, 3), three_digits(rng, 1e11, 2e13, 3)
    sizes += [(int(n), int(d)) for n, d in zip(*drawn, strict=True)]
    return [_case(n, d, recompute) for n, d in sizes for recompute in (False, True)]


def _case(n_active: float, n_tokens: float, recompute: bool) -> Case:
    return {"n_active": n_active, "n_tokens": n_tokens, "recompute": recompute}


DOMAIN = Domain(
    "`n_active` and `n_tokens` are integers or floats, zero or more. `recompute` may be left out.",
    _usual,
    {
        "`recompute` is not given": lambda rng: [
            {"n_active": 3, "n_tokens": 5},
            {"n_active": int(rng.integers(10, 99)) * 10**9, "n_tokens": 10**12},
        ],
        "a count is a float": lambda rng: [
            _case(three_digits(rng, 1e9, 1e11, 1)[0], 1.5e13, again) for again in (False, True)
        ],
        "a count is below 1": lambda rng: [_case(0.25, 0.5, again) for again in (False, True)],
        "a count is zero": lambda rng: [
            _case(n, d, again) for n, d in ((0, 7), (7, 0)) for again in (False, True)
        ],
        "there are more parameters than tokens": lambda rng: [
            _case(10**11, int(rng.integers(2, 99)), again) for again in (False, True)
        ],
    },
)


def check_training_flops(function: Learner, *, seed: int = 0) -> str:
    """Check ``training_flops(n_active, n_tokens, recompute)``: 6ND, and 8ND with recomputing.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2001.08361, §2.1; for
    recomputing, arXiv 2205.05198.
    """
    return DOMAIN.check(TRAINING_FLOPS, function, seed)
