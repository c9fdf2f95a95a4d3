"""The check of ``gate``."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from slingshot import moe
from slingshot_exercises.checking import EXACT, Case, Exercise, Learner, Mistake, roundings, tensor
from slingshot_exercises.moe.common import spread


def _gate(scores: Tensor, k: int) -> Tensor:
    experts = scores.topk(k, dim=1).indices
    return spread(moe.gate_weights(scores, experts), experts, scores.shape[1])


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
