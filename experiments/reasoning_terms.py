"""On which terms the experiment on reasoning compares, and what changes with others.

Two of its sentences depend on settings. *Reward chooses among what the base could do*: here a
student learns careful thoughts, and nothing else, from so few of them that it follows a swap only
sometimes; then it is reinforced. Its style cannot change, so whatever grows is accuracy. Beside it
stands the same student with as many more operations of fine-tuning on the same few thoughts.

*At equal operations distillation wins*: there the two differ in optimizer and in the number of
swaps that they see. Here each also has the optimizer of the other and the same range of swaps.

Base models, settings and test problems are those of the experiment on reasoning.
"""

import sys
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from mixture import described
from reasoning import (
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
    base,
    described_step,
    measure,
    operations,
    thinned,
    without_none,
    written,
)

from slingshot.distill import distill, keep_verified
from slingshot.grpo import train_grpo
from slingshot.lm import DecoderLM
from slingshot.tasks import Trace
from slingshot.train import TrainConfig, make_optimizers

N_FEW = 150  # careful thoughts that a program writes
HALF = replace(FINE_TUNING, steps=FINE_TUNING.steps // 2)
BUDGET = operations(STUDENT, FINE_TUNING.tokens)  # of one student's fine-tuning
# The optimizer and the schedule of reinforcement learning, for fine-tuning.
ADAMW = replace(
    FINE_TUNING,
    learning_rate=RL.learning_rate,
    warmup=RL.warmup,
    decay=1.0,
    final=RL.final,
    betas=RL.betas,
    weight_decay=0.0,
    muon_rate=None,
)
# The optimizer of fine-tuning, for reinforcement learning; its schedule stays.
MUON = FINE_TUNING
# The same, as slow as the AdamW of reinforcement learning.
SLOW_MUON = replace(MUON, learning_rate=RL.learning_rate, muon_rate=RL.learning_rate)
Swaps = tuple[int, int]
ALL_SWAPS: Swaps = (1, 12)
CURRICULUM: Final[tuple[Swaps, ...]] = ((1, 1), (1, 2), (1, 4), ALL_SWAPS)
SEEDS: Final = range(3)
FEW_SEEDS: Final = range(5)
"""Of the arms with few thoughts: they are nearer to each other."""


@dataclass(frozen=True)
class Arm:
    """One way to train a student, from its base.

    ``"few"`` fine-tunes on few thoughts and then goes on: with a reward, or with the thoughts.
    ``"distill"`` fine-tunes on the teacher's verified traces with ``optimizer``, those of problems
    within the range of ``swaps``. ``"reinforce"`` practises on this range with the operations of a
    student's fine-tuning, with ``optimizer``, or with AdamW as `RL` says if there is none. With a
    ``curriculum`` it practises on one range after another, and each gets as many operations.
    """

    kind: Literal["few", "distill", "reinforce"]
    optimizer: TrainConfig | None = None
    swaps: Swaps = PRACTICE.swaps
    reward: bool = True
    curriculum: tuple[Swaps, ...] = ()
    seeds: range = SEEDS


def arms() -> dict[str, Arm]:
    """All arms by name."""
    return {
        "few, then reward": Arm("few", seeds=FEW_SEEDS),
        "few, then the same again": Arm("few", reward=False, seeds=FEW_SEEDS),
        "traces, AdamW": Arm("distill", optimizer=ADAMW, swaps=ALL_SWAPS),
        "traces, 4 to 12 swaps": Arm("distill", optimizer=FINE_TUNING),
        "RL, 1 to 12 swaps": Arm("reinforce", swaps=ALL_SWAPS),
        "RL, Muon": Arm("reinforce", optimizer=MUON),
        "RL, Muon, 1 to 12 swaps": Arm("reinforce", optimizer=MUON, swaps=ALL_SWAPS),
        "RL, slow Muon": Arm("reinforce", optimizer=SLOW_MUON),
        "RL, curriculum": Arm("reinforce", swaps=ALL_SWAPS, curriculum=CURRICULUM),
    }


def runs() -> list[Run]:
    """All runs, seed by seed."""
    return [
        Run(name, seed, configuration(arm, seed))
        for seed in FEW_SEEDS
        for name, arm in arms().items()
        if seed in arm.seeds
    ]


def configuration(arm: Arm, seed: int) -> dict[str, Any]:
    """One run in words that JSON knows."""
    curriculum = {"curriculum": [list(each) for each in arm.curriculum]} if arm.curriculum else {}
    return {
        **curriculum,
        "kind": arm.kind,
        "reward": arm.reward,
        "swaps": list(arm.swaps),
        "optimizer": None if arm.optimizer is None else described(arm.optimizer),
        "traces": N_FEW if arm.kind == "few" else N_TRACES,
        "fine_tuning": described(HALF if arm.kind == "few" else FINE_TUNING),
        "rl": without_none(RL),
        "student": described(STUDENT),
        "student_base": described(STUDENT_BASE),
        "game": {"cups": GAME.cups, "balls": GAME.balls, "swaps": list(GAME.swaps)},
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
    if arm.kind == "few":
        return few(arm, run.seed)
    student = deepcopy(base(run.seed, STUDENT, STUDENT_BASE, MIX).model)
    before = measure(student)
    if arm.kind == "distill":
        told = fine_tune(student, arm, run.seed)
    else:
        told = reinforce(student, arm.curriculum or (arm.swaps,), BUDGET, run.seed, arm.optimizer)
    return {"before": before, **told, "after": measure(student)}


# --- the kinds of runs ---------------------------------------------------------------------------


def thoughts(seed: int) -> list[Trace]:
    """Few careful thoughts without a slip, as the program writes them."""
    generator = torch.Generator().manual_seed(seed + 700)
    problems = [GAME.sample(generator) for _ in range(N_FEW)]
    return [Trace(problem, GAME.trace(problem)) for problem in problems]


# Two runs of a seed go on from the same student.
@lru_cache(maxsize=1)
def careful_student(seed: int) -> DecoderLM:
    """The base of the student after it has learned from few thoughts."""
    student = deepcopy(base(seed, STUDENT, STUDENT_BASE, MIX).model)
    distill(student, GAME, thoughts(seed), HALF, seed=seed, progress=False)
    return student


def few(arm: Arm, seed: int) -> dict[str, Any]:
    """Go on with a student that writes careful thoughts and follows a swap only sometimes."""
    student = deepcopy(careful_student(seed))
    before = measure(student)
    told: dict[str, Any] = {}
    if arm.reward:
        told = reinforce(student, (arm.swaps,), BUDGET / 2, seed)
    else:
        distill(student, GAME, thoughts(seed), HALF, seed=seed + 1, progress=False)
    return {"before": before, **told, "after": measure(student)}


def fine_tune(student: DecoderLM, arm: Arm, seed: int) -> dict[str, Any]:
    """Distill a student with the optimizer and the range of swaps of ``arm``."""
    low, high = arm.swaps
    traces, _ = written(seed, "teacher", N_TRACES)
    verified = keep_verified(traces, GAME.verify)
    chosen = [each for each in verified if low <= len(GAME.read(each.problem)[1]) <= high]
    distill(student, GAME, chosen, arm.optimizer or FINE_TUNING, seed=seed, progress=False)
    return {"n_learned": len(chosen), "flops": BUDGET}


def reinforce(
    student: DecoderLM,
    ranges: tuple[Swaps, ...],
    budget: float,
    seed: int,
    optimizer: TrainConfig | None = None,
) -> dict[str, Any]:
    """Reinforce a student on problems of each range of swaps, with equal parts of a ``budget``."""
    steps: list[dict[str, Any]] = []
    parts, flops, seconds = [], 0.0, 0.0
    for at, swaps in enumerate(ranges):
        history = train_grpo(
            student,
            replace(GAME, swaps=swaps),
            GAME.verify,
            replace(RL, steps=5000, max_flops=budget / len(ranges)),
            seed=seed + 1 + 1000 * at,
            optimizers=None if optimizer is None else make_optimizers(student, optimizer),
            on_step=lambda step, rollouts: steps.append(described_step(step, rollouts)),
            progress=False,
        )
        flops, seconds = flops + history.flops, seconds + history.seconds
        parts.append(len(steps))
    told = {"ends": parts} if len(ranges) > 1 else {}
    return {
        **told,
        "rl_steps": len(steps),
        "rl_flops": flops,
        "rl_seconds": round(seconds, 1),
        "steps": thinned(steps),
    }


if __name__ == "__main__":
    sys.exit(main("reasoning_terms", runs(), execute))
