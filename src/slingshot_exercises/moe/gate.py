"""The check of ``gate``."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slingshot_exercises.checking import Case, Exercise, Learner, Mistake, roundings, tensor
from slingshot_exercises.domain import Domain
from slingshot_exercises.moe.common import settle_ties, share_of_chosen, spread


def _gate(scores: Tensor, k: int) -> Tensor:
    experts = scores.topk(k, dim=1).indices
    return spread(share_of_chosen(scores.gather(1, experts)), experts, scores.shape[1])


def _wrong_gate(weigh: Callable[[Tensor], Tensor]) -> Callable[[Tensor, int], Tensor]:
    """A gate in which ``weigh`` turns the chosen scores ``[T, k]`` into weights."""

    def wrong(scores: Tensor, k: int) -> Tensor:
        best = scores.topk(k, dim=1)
        return spread(weigh(best.values), best.indices, scores.shape[1])

    return wrong


def _shares_of_all(scores: Tensor, k: int) -> Tensor:
    return _wrong_gate(lambda chosen: chosen)(scores / scores.sum(dim=1, keepdim=True), k)


def _softmax_of_all(scores: Tensor, k: int) -> Tensor:
    return _wrong_gate(lambda chosen: chosen)(scores.softmax(dim=1), k)


def _softmax_with_zeros(scores: Tensor, k: int) -> Tensor:
    return _wrong_gate(lambda chosen: chosen)(scores, k).softmax(dim=1)


def _equal_for_nothing(chosen: Tensor) -> Tensor:
    total = chosen.sum(dim=1, keepdim=True)
    return torch.where(total > 0, chosen / total, 1 / chosen.shape[1])


def _all_above_the_last(scores: Tensor, k: int) -> Tensor:
    last = scores.topk(k, dim=1).values[:, -1:]
    return share_of_chosen(scores * (scores >= last))


def _plus(eps: float) -> Callable[[Tensor], Tensor]:
    return lambda chosen: chosen / (chosen.sum(dim=1, keepdim=True) + eps)


def _at_least(eps: float) -> Callable[[Tensor], Tensor]:
    return lambda chosen: chosen / chosen.sum(dim=1, keepdim=True).clamp(min=eps)


GATE = Exercise(
    "gate",
    _gate,
    tensor,
    # A sum of at most five scores, a quotient, and one more where a score was divided before.
    roundings(7),
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
        Mistake(
            "a token whose chosen scores are all 0 gets nan, from 0 / 0; its weights are 0",
            _wrong_gate(lambda chosen: chosen / chosen.sum(dim=1, keepdim=True)),
        ),
        Mistake(
            "a token whose chosen scores are all 0 gets equal weights; its weights are 0",
            _wrong_gate(_equal_for_nothing),
        ),
        Mistake(
            "all experts with the k-th score or more are chosen; of equal scores take no more "
            "than k",
            _all_above_the_last,
        ),
        *(
            Mistake(
                f"{eps:.0e} is added to the sum, or is the least it can be; scores may be smaller "
                "than that. Ask whether the sum is 0",
                _wrong_gate(change),
            )
            for eps in (1e-6, 1e-8, 1e-9, 1e-12, 1e-20)
            for change in (_plus(eps), _at_least(eps))
        ),
    ],
    settle=lambda case, answer: settle_ties(case["scores"], answer),
)


def _case(rows: Any, k: int) -> Case:  # noqa: ANN401 lists or an array
    return {"scores": torch.as_tensor(rows, dtype=torch.float64), "k": k}


def _drawn(rng: np.random.Generator, n_tokens: int, n_experts: int) -> np.ndarray:
    """Scores of four digits; a permutation keeps those of a row apart."""
    rows = [rng.permutation(n_experts) + rng.uniform(0, 0.5) for _ in range(n_tokens)]
    scores: np.ndarray = ((np.stack(rows) + 0.5) / (n_experts + 1)).round(4)
    return scores


def _usual(rng: np.random.Generator) -> list[Case]:
    sizes = ((2, 4, 1), (3, 6, 2), (6, 8, 4))
    return [
        _case([[0.5, 0.25, 0.75, 0.1]], 2),
        *(_case(_drawn(rng, n_tokens, n_experts), k) for n_tokens, n_experts, k in sizes),
    ]


def _some_zeros(rng: np.random.Generator) -> list[Case]:
    """Zeros that are not chosen, and zeros that are."""
    scores = _drawn(rng, 3, 6)
    scores[0, scores[0].argmin()] = scores[2, 0] = 0
    few = np.zeros((2, 5))
    few[0, 3], few[1, [0, 4]] = 0.25, (0.5, 0.125)
    return [_case(scores, 2), _case(few, 3)]


def _zero_rows(rng: np.random.Generator) -> list[Case]:
    scores = _drawn(rng, 4, 5)
    scores[[1, 3]] = 0
    return [_case(np.zeros((1, 2)), 2), _case(scores, 3)]


def _tied(rng: np.random.Generator) -> list[Case]:
    return [
        _case([[0.5, 0.5, 0.5, 0.25]], 2),
        _case(np.full((2, 6), 0.75), 3),
        _case([[0.25, 0.75, 0.25, 0.75], [0.5, 0.125, 0.125, 0.125]], 3),
    ]


DOMAIN = Domain(
    "Scores are from 0 to 1, zeros among them, and as small as $10^{-300}$. `k` is at least 1 and "
    "at most the number of experts. There may be no token at all. Of equal scores either may be "
    "chosen, but no more than `k`.",
    _usual,
    {
        "some scores of a token are 0": _some_zeros,
        "all chosen scores of a token are 0": _zero_rows,
        "the scores are tiny": lambda rng: [
            _case([[1e-20, 2e-20]], 2),
            *(_case(_drawn(rng, 2, 4) * size, 2) for size in (1e-9, 1e-13, 1e-40, 1e-299)),
        ],
        "one score is tiny beside another": lambda rng: [_case([[1.0, 1e-300, 0.0, 1e-30]], 3)],
        "two scores are equal": _tied,
        "scores are 1": lambda rng: [_case([[1.0, 0.5, 1.0, 0.25]], 2)],
        "all experts are chosen": lambda rng: [_case(_drawn(rng, 3, 5), 5)],
        "one expert is chosen": lambda rng: [_case(_drawn(rng, 3, 5), 1)],
        "there is one expert": lambda rng: [_case([[0.5], [0.25]], 1)],
        "there are more tokens than experts": lambda rng: [_case(_drawn(rng, 12, 3), 2)],
        "there is no token": lambda rng: [_case(np.zeros((0, 4)), 2)],
    },
)


def check_gate(function: Learner, *, seed: int = 0) -> str:
    """Check ``gate(scores, k)``: weights ``[T, E]`` of scores ``[T, E]``, 0 where not chosen.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2412.19437, eqs. 12-13.
    """
    return DOMAIN.check(GATE, function, seed)
