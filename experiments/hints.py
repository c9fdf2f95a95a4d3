"""Hints in the prompt: what becomes of a thought when the answer can be had without it?

The prompts of these runs give the answer away before they ask: ``2 5 (1) 2-6 ... (3) 2-3 = 6 5 ?``.
The base of the teacher, or the teacher itself, is reinforced on such prompts. In some runs any
right answer is rewarded, in others only one with a thought before it. Then models are asked with no
hint, with right ones and with wrong ones. The notebook on traces reads the results.

Base models, teachers, settings and test problems are those of the experiment on reasoning.
"""

import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from mixture import described
from reasoning import (
    BASE,
    EASY,
    GAME,
    HARD,
    MIX,
    N_PROBLEMS,
    N_TESTS,
    N_TRUSTED,
    PRACTICE,
    RL,
    SEEDS,
    SLIPS,
    TEACHER,
    intervene,
    teacher,
    teacher_base,
    tests,
    without_none,
)

from slingshot.distill import sample_traces
from slingshot.grpo import GRPOStep, Reward, Rollouts, train_grpo
from slingshot.lm import DecoderLM
from slingshot.tasks import ANSWER, ASK, Problem, ShellGame, Trace

Start = Literal["base", "teacher"]
Kind = Literal["none", "right", "wrong"]
Ask = Callable[[Problem], Problem]


@dataclass(frozen=True)
class Arm:
    """Where reinforcement learning starts, and whether an answer needs a thought to be rewarded."""

    start: Start
    thought: bool


def arms() -> dict[str, Arm]:
    """All arms by name."""
    return {
        "base, any answer": Arm("base", thought=False),
        "base, with a thought": Arm("base", thought=True),
        "teacher, any answer": Arm("teacher", thought=False),
    }


def runs() -> list[Run]:
    """All runs, seed by seed."""
    return [
        Run(name, seed, configuration(arm, seed)) for seed in SEEDS for name, arm in arms().items()
    ]


def configuration(arm: Arm, seed: int) -> dict[str, Any]:
    """One run in words that JSON knows."""
    return {
        "start": arm.start,
        "thought": arm.thought,
        "base": described(BASE),
        "teacher": described(TEACHER),
        "rl": without_none(RL),
        "game": {"cups": GAME.cups, "balls": GAME.balls, "swaps": list(GAME.swaps)},
        "practice": list(PRACTICE.swaps),
        "text": {
            "problems": N_PROBLEMS,
            "slips": SLIPS,
            "styles": [list(style) for style in MIX],
        },
        "tests": [HARD, N_TRUSTED],
        "seed": seed,
    }


# --- hints ---------------------------------------------------------------------------------------


def hinted(problem: Problem, hint: str) -> Problem:
    """The same problem with an answer in its prompt."""
    return replace(problem, prompt=f"{problem.prompt.removesuffix(ASK)}{ANSWER} {hint} {ASK}")


def plain(problem: Problem) -> Problem:
    """The same problem without the answer in its prompt, if there is one."""
    before, hint, _ = problem.prompt.partition(f" {ANSWER} ")
    return replace(problem, prompt=f"{before} {ASK}") if hint else problem


class HintedGame(ShellGame):
    """A shell game whose prompts all give the right answer away."""

    def sample(self, generator: torch.Generator) -> Problem:
        """Draw a problem, and put its answer into the prompt."""
        problem = super().sample(generator)
        return hinted(problem, problem.answer)


def wrong_hints(problems: tuple[Problem, ...]) -> list[str]:
    """For each problem a state in which no ball is where it ends."""
    generator = torch.Generator().manual_seed(11)
    hints = []
    for problem in problems:
        hint = problem.answer
        while any(a == b for a, b in zip(hint.split(), problem.answer.split(), strict=True)):
            hint = " ".join(map(str, GAME.start(generator)))
        hints.append(hint)
    return hints


def with_a_thought(problem: Problem, text: str) -> bool:
    """Reward a right answer that does not come at once, whatever stands before it."""
    return GAME.verify(problem, text) and GAME.style(text) != "direct"


REWARDS: Final[dict[bool, Reward]] = {False: GAME.verify, True: with_a_thought}


# --- runs ----------------------------------------------------------------------------------------


def execute(run: Run) -> dict[str, Any]:
    """Make one run."""
    arm = arms()[run.name]
    model = deepcopy((teacher if arm.start == "teacher" else teacher_base)(run.seed).model)
    short = {str(swaps): at_its_end(model, swaps) for swaps in (2, EASY)}
    game = HintedGame(swaps=PRACTICE.swaps)
    before = measure(model)
    steps: list[dict[str, Any]] = []

    def note(step: GRPOStep, rollouts: Rollouts) -> None:
        steps.append(noted(step, rollouts))

    history = train_grpo(
        model, game, REWARDS[arm.thought], RL, seed=run.seed, on_step=note, progress=False
    )
    return {
        "short": short,
        "before": before,
        "after": measure(model),
        "steps": steps,
        "seconds": round(history.seconds, 1),
    }


def noted(step: GRPOStep, rollouts: Rollouts) -> dict[str, Any]:
    """What one step of reinforcement learning shows, shares of all rollouts."""
    n = len(rollouts.texts)
    asked = [problem for problem in rollouts.problems for _ in range(rollouts.rewards.shape[1])]
    traces = [Trace(plain(p), text) for p, text in zip(asked, rollouts.texts, strict=True)]
    return {
        "reward": round(step.reward, 4),
        "length": round(step.length, 2),
        "right": round(sum(GAME.verify(*trace) for trace in traces) / n, 4),
        "right_steps": round(sum(GAME.verify_steps(*trace) for trace in traces) / n, 4),
        "direct": round(sum(GAME.style(trace.text) == "direct" for trace in traces) / n, 4),
    }


def measure(model: DecoderLM) -> dict[str, Any]:
    """What a model does with hard problems: with no hint, with right ones and with wrong ones."""
    problems = tests(HARD, N_TRUSTED)
    right = tuple(hinted(problem, problem.answer) for problem in problems)
    return {
        "none": answered(model, problems, [""] * len(problems)),
        "right": answered(model, right, [problem.answer for problem in problems]),
        "wrong": answered(
            model,
            tuple(map(hinted, problems, hints := wrong_hints(problems))),
            hints,
        ),
        "interventions": [
            intervene(model, problems, step, asked=right) for step in (1, HARD // 2, HARD - 1, HARD)
        ],
    }


def at_its_end(model: DecoderLM, swaps: int) -> dict[str, int]:
    """Of texts sampled as in the experiment on reasoning, how many swap once too often.

    ``right`` counts those of them whose answer is right all the same.
    """
    generator = torch.Generator().manual_seed(10)
    traces = sample_traces(model, GAME, tests(swaps, N_TESTS), generator=generator)
    invented = [trace for trace in traces if f"({swaps + 1})" in trace.text.split()]
    right = sum(GAME.verify(*trace) for trace in invented)
    return {"n": N_TESTS, "invented": len(invented), "right": right}


def answered(model: DecoderLM, problems: tuple[Problem, ...], hints: list[str]) -> dict[str, Any]:
    """Of the likeliest texts, how many end right, end as the hint says, and have right steps.

    ``last_state`` counts answers that are the last state of their thought, ``impossible`` thoughts
    that have both balls under one cup somewhere. ``states`` counts, for each swap, the thoughts in
    which it and those before it are followed rightly. ``balls`` counts the same as ``right`` and
    ``hint``, for each ball alone.
    """
    traces = sample_traces(model, GAME, problems, temperature=0)
    answers = [GAME.extract(trace.text) for trace in traces]
    styles = Counter(GAME.style(trace.text) for trace in traces)
    first = [
        wrong if (wrong := GAME.first_wrong_step(plain(p), text)) is not None else HARD + 1
        for p, text in traces
    ]
    return {
        "n": len(problems),
        "right": sum(a == p.answer for a, p in zip(answers, problems, strict=True)),
        "hint": sum(a == hint for a, hint in zip(answers, hints, strict=True)),
        "last_state": sum(
            a is not None and a == " ".join(trace.text.partition(f" {ANSWER} ")[0].split()[-2:])
            for a, trace in zip(answers, traces, strict=True)
        ),
        "balls": {
            "right": by_ball(answers, [problem.answer for problem in problems]),
            "hint": by_ball(answers, hints),
        },
        "impossible": sum(any(len({*s}) < len(s) for s in states(text)) for _, text in traces),
        "states": [sum(f > step for f in first) for step in range(1, HARD + 1)],
        "styles": dict(sorted(styles.items())),
        "example": f"{traces[0].problem.prompt} {traces[0].text}",
    }


def by_ball(answers: list[str | None], others: list[str]) -> list[int]:
    """For each ball, how many answers have it where the other list has it."""
    pairs = [(a.split(), b.split()) for a, b in zip(answers, others, strict=True) if a and b]
    return [
        sum(a[ball : ball + 1] == b[ball : ball + 1] for a, b in pairs)
        for ball in range(GAME.balls)
    ]


def states(text: str) -> list[list[str]]:
    """All states that a thought writes: as many cups in a row as there are balls."""
    cups = set(map(str, GAME.states()))
    words = text.partition(ANSWER)[0].split()
    windows = [words[at : at + GAME.balls] for at in range(len(words) - GAME.balls + 1)]
    return [window for window in windows if cups.issuperset(window)]


if __name__ == "__main__":
    sys.exit(main("hints", runs(), execute))
