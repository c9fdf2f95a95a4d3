"""Many tries: does a reward add what the base model cannot do, or make likely what it can?

Each of a hundred problems is answered sixty-four times, by a base model and by its reinforced copy:
problems of ten swaps, which practice had, and of two, which practice left out. Counted are the
right answers to each problem, the votes of the first 1, 2, 4, ... 64, and the tokens that were
written. Beside them stands how uncertain the model is of its next token. The notebook on
reinforcement learning reads the results.

Base models, teachers and test problems are those of the experiment on reasoning.
"""

import sys
from typing import Any, Final

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from mixture import described
from reasoning import BASE, GAME, HARD, MIX, N_PROBLEMS, PRACTICE, RL, TEACHER, teacher, tests
from reasoning import teacher_base as base

from slingshot.completions import completion_logits, padded
from slingshot.distill import encode_traces, sample_traces
from slingshot.lm import DecoderLM
from slingshot.stats import majority_vote
from slingshot.tasks import Trace

SEEDS: Final = range(3)
SWAPS: Final = (2, HARD)
N, TRIES = 100, 64
VOTERS: Final = tuple(2**power for power in range(7))


def runs() -> list[Run]:
    """One run for each seed: its base and its teacher are measured."""
    return [Run("tries", seed, configuration(seed)) for seed in SEEDS]


def configuration(seed: int) -> dict[str, Any]:
    """One run in words that JSON knows."""
    return {
        "model": described(TEACHER),
        "base": described(BASE),
        "text": {"problems": N_PROBLEMS, "styles": [list(style) for style in MIX]},
        "rl": described(RL),
        "practice": list(PRACTICE.swaps),
        "swaps": list(SWAPS),
        "n": N,
        "tries": TRIES,
        "seed": seed,
    }


def execute(run: Run) -> dict[str, Any]:
    """Measure a base model and its reinforced copy."""
    models = {"before": base(run.seed).model, "after": teacher(run.seed).model}
    return {
        when: {str(swaps): answered(model, swaps) for swaps in SWAPS}
        for when, model in models.items()
    }


def answered(model: DecoderLM, swaps: int) -> dict[str, Any]:
    """Let ``model`` try each problem, and count."""
    problems = tests(swaps, N)
    generator = torch.Generator().manual_seed(9)
    traces = sample_traces(model, GAME, problems, samples=TRIES, generator=generator)
    answers = [GAME.extract(trace.text) for trace in traces]
    groups = [answers[at : at + TRIES] for at in range(0, len(answers), TRIES)]
    pairs = list(zip(groups, [problem.answer for problem in problems], strict=True))
    return {
        "right": [group.count(answer) for group, answer in pairs],
        "voted": {
            str(n): sum(majority_vote(group[:n]) == answer for group, answer in pairs)
            for n in VOTERS
        },
        "tokens": round(sum(len(trace.text.split()) for trace in traces) / len(traces), 3),
        "entropy": round(uncertainty(model, traces[::TRIES]), 4),
    }


@torch.no_grad()
def uncertainty(model: DecoderLM, traces: list[Trace]) -> float:
    """The entropy of the next token in nats, the mean over the tokens of ``traces``."""
    logits, _ = completion_logits(model, padded(encode_traces(GAME, traces)))
    log_p = logits.log_softmax(dim=1)
    return -float((log_p.exp() * log_p).sum(dim=1).mean())


if __name__ == "__main__":
    sys.exit(main("many_tries", runs(), execute))
