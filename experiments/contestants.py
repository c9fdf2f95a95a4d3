"""A third contestant, and the objectives that came after GRPO.

*A third contestant*: the student writes and the teacher grades each of its tokens. It may use as
many operations as the fine-tuning of a student does, its own writing and the teacher's reading
included. Texts of the teacher and a reward, at the same bill, are in the experiment on reasoning.
Elsewhere grading follows a first lesson from texts, so one arm spends half of the bill on each.

*The objectives after GRPO* differ only where a batch is used more than once, since all ratios are 1
before that. So each learns four times from a batch here. The teacher's base is reinforced as in the
experiment on reasoning; only the objective and the number of updates differ.

Base models, settings and test problems are those of the experiment on reasoning.
"""

import sys
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from _runner import Run, main  # first, since it explains a missing package

# isort: split
from mixture import described
from reasoning import (
    BASE,
    BETTER_BASE,
    FINE_TUNING,
    GAME,
    MIX,
    N_PROBLEMS,
    N_TESTS,
    N_TRACES,
    PRACTICE,
    RL,
    SLIPS,
    STUDENT,
    STUDENT_BASE,
    TEACHER,
    base,
    described_step,
    measure,
    operations,
    teacher,
    teacher_base,
    thinned,
    without_none,
    written,
)

from slingshot.distill import Divergence, distill, distill_on_policy, keep_verified
from slingshot.grpo import GRPOConfig, train_grpo
from slingshot.train import TrainConfig

SEEDS: Final = range(3)
N_TEXTS = 16
TOKENS_OF_A_TEXT = 46  # with its prompt, as one run showed: how long the student writes
BUDGET = operations(STUDENT, FINE_TUNING.tokens)  # of one student's fine-tuning
N_UPDATES = 4


def bill(tokens: float) -> float:
    """Operations for ``tokens`` that the student writes, the teacher reads and the student learns.

    Reading or writing takes a third of learning.
    """
    return operations(STUDENT, tokens) * 4 / 3 + operations(TEACHER, tokens) / 3


GRADED = replace(FINE_TUNING, steps=int(BUDGET / bill(N_TEXTS * TOKENS_OF_A_TEXT)))
HALF = replace(FINE_TUNING, steps=FINE_TUNING.steps // 2)
HALF_GRADED = replace(GRADED, steps=GRADED.steps // 2)


@dataclass(frozen=True)
class Arm:
    """One way to train: with a teacher's grades from a base, or with a reward and ``rl``."""

    kind: Literal["on policy", "reinforce"]
    divergence: Divergence = "reverse"
    texts_first: bool = False
    student_base: TrainConfig = STUDENT_BASE
    rl: GRPOConfig | None = None


def arms() -> dict[str, Arm]:
    """All arms by name."""
    often = replace(RL, n_updates=N_UPDATES)
    return {
        "on policy, reverse": Arm("on policy"),
        "on policy, forward": Arm("on policy", "forward"),
        "on policy, mixed": Arm("on policy", "mixed"),
        "texts, then on policy": Arm("on policy", texts_first=True),
        "on policy, better base": Arm("on policy", student_base=BETTER_BASE),
        "texts, then on policy, better base": Arm(
            "on policy", texts_first=True, student_base=BETTER_BASE
        ),
        "four updates, dapo": Arm("reinforce", rl=often),
        "four updates, gspo": Arm("reinforce", rl=later(often, "gspo")),
        "four updates, cispo": Arm("reinforce", rl=later(often, "cispo")),
    }


def later(rl: GRPOConfig, variant: Literal["gspo", "cispo"]) -> GRPOConfig:
    """The same with another objective, and the bounds of its paper."""
    return replace(rl, variant=variant, epsilon_low=None, epsilon_high=None)


def runs() -> list[Run]:
    """All runs, seed by seed."""
    return [
        Run(name, seed, configuration(arm, seed)) for seed in SEEDS for name, arm in arms().items()
    ]


def configuration(arm: Arm, seed: int) -> dict[str, Any]:
    """One run in words that JSON knows."""
    rl = arm.rl or RL
    bounds = {"epsilon_low": rl.lower_epsilon, "epsilon_high": rl.upper_epsilon}
    return {
        "kind": arm.kind,
        "divergence": arm.divergence,
        "texts_first": arm.texts_first,
        "rl": without_none(rl) | bounds,
        "graded": described(GRADED),
        "n_texts": N_TEXTS,
        "base": described(BASE),
        "teacher": described(TEACHER),
        "student": described(STUDENT),
        "student_base": described(arm.student_base),
        "game": {"cups": GAME.cups, "balls": GAME.balls, "swaps": list(GAME.swaps)},
        "practice": list(PRACTICE.swaps),
        "text": {
            "problems": N_PROBLEMS,
            "slips": SLIPS,
            "styles": [list(style) for style in MIX],
        },
        "tests": [N_TESTS],
        "seed": seed,
    }


def execute(run: Run) -> dict[str, Any]:
    """Make one run."""
    arm = arms()[run.name]
    return grade(arm, run.seed) if arm.rl is None else reinforce(arm.rl, run.seed)


def grade(arm: Arm, seed: int) -> dict[str, Any]:
    """Let the teacher grade what the student writes."""
    student = deepcopy(base(seed, STUDENT, arm.student_base, MIX).model)
    before, graded, flops = measure(student), GRADED, 0.0
    if arm.texts_first:
        traces, _ = written(seed, "teacher", N_TRACES)
        verified = keep_verified(traces, GAME.verify)
        distill(student, GAME, verified, HALF, seed=seed, progress=False)
        graded, flops = HALF_GRADED, operations(STUDENT, HALF.tokens)
    between = measure(student)
    history = distill_on_policy(
        student,
        teacher(seed).model,
        GAME,
        graded,
        n_texts=N_TEXTS,
        divergence=arm.divergence,
        seed=seed + 1,
        progress=False,
    )
    stride = -(-graded.steps // 100)
    return {
        "before": before,
        "between": between,
        "after": measure(student),
        "tokens": history.tokens,
        "flops": flops + bill(history.tokens),
        "budget": BUDGET,
        "seconds": round(history.seconds, 1),
        "losses": [round(loss, 4) for loss in history.losses[::stride]],
        "lengths": [round(length, 2) for length in history.lengths[::stride]],
    }


def reinforce(rl: GRPOConfig, seed: int) -> dict[str, Any]:
    """Reinforce the base of the teacher."""
    model = deepcopy(teacher_base(seed).model)
    steps: list[dict[str, Any]] = []
    train_grpo(
        model,
        PRACTICE,
        GAME.verify,
        rl,
        seed=seed,
        on_step=lambda step, rollouts: steps.append(described_step(step, rollouts)),
        progress=False,
    )
    return {
        "after": measure(model),
        "steps": thinned(steps),
        "seconds": round(sum(step["seconds"] for step in steps), 1),
    }


if __name__ == "__main__":
    sys.exit(main("contestants", runs(), execute))
