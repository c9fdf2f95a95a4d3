"""R1's story in miniature: what reinforcement learning and distillation do to small models.

The task is the shell game with six cups and two balls. Two base models learn from the same made-up
text, in which most answers come at once and some with a thought: a teacher of width 64 and a
student of width 32. The teacher is reinforced, and students learn from what it writes, or by
themselves. The notebooks of the part on reasoning read the results.

All models of one seed start from the same weights and, up to where they differ, see the same text
and the same problems. Test problems are the same for all seeds.
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from mixture import described

from slingshot import costs, sizes
from slingshot.distill import distill, distill_logits, encode_traces, keep_verified, sample_traces
from slingshot.grpo import GRPOConfig, GRPOStep, Reward, Rollouts, train_grpo
from slingshot.lm import DecoderLM, LMConfig, generate
from slingshot.stats import majority_vote
from slingshot.tasks import ANSWER, Problem, ShellGame, Style, Trace, write_traces
from slingshot.train import TrainConfig, train_on_completions

SEEDS = range(3)

GAME = ShellGame()  # six cups, two balls, one to twelve swaps
EASY, HARD = 4, 10  # swaps of the problems that models are compared on
PRACTICE = replace(GAME, swaps=(4, 12))  # of reinforcement learning
N_PROBLEMS = 30_000  # in the text that base models learn from
MIX: Final[tuple[tuple[Style, float], ...]] = (("direct", 0.5), ("skip", 0.15), ("careful", 0.35))
SLIPS = 0.08

TEACHER = LMConfig(
    vocab_size=GAME.vocabulary_size,
    d_model=64,
    n_layers=2,
    n_heads=4,
    d_ffn=256,
    activation="relu2",
    rope_base=1000.0,
)
STUDENT = replace(TEACHER, d_model=32, d_ffn=128)
# Chosen with one seed for the teacher's base, which must learn to follow a swap.
BASE = TrainConfig(
    1000,
    learning_rate=1e-2,
    warmup=20,
    final=0.0,
    betas=(0.9, 0.99),
    weight_decay=0.1,
    muon_rate=1e-2,
    batch_tokens=1024,
)
STUDENT_BASE = replace(BASE, steps=300)
BETTER_BASE = replace(BASE, steps=3000)
FINE_TUNING = replace(BASE, steps=1200, batch_tokens=512)
RL = GRPOConfig(70)
N_TRACES = 3000  # problems that a teacher writes about
N_WEAK_TRACES = 6000

N_TESTS = 500
VOTERS, N_VOTES = 16, 100  # answers to a problem, and problems
VOTED_STEPS = (0, 5, 15, 25, 40, 70)
TRUSTED_SWAPS = (2, 4, 10)
N_TRUSTED = 300

Kind = Literal["reinforce", "distill", "student", "trust"]


@dataclass(frozen=True)
class Arm:
    """One way to train, on top of what all share. What does not concern its ``kind`` is unused.

    ``rewards`` are given one after the other, each for the steps of ``rl``. ``learned`` names what
    a student learns from, and ``budget`` how many operations its reinforcement learning may use.
    """

    kind: Kind
    styles: tuple[tuple[Style, float], ...] = MIX
    rewards: tuple[str, ...] = ("answer",)
    rl: GRPOConfig = RL
    votes: bool = False
    writer: Literal["teacher", "base"] = "teacher"
    learned: str | None = None
    n_traces: int = N_TRACES
    fine_tuning: TrainConfig = FINE_TUNING
    student_base: TrainConfig = STUDENT_BASE
    budget: str | None = None
    model: str | None = None


def arms() -> dict[str, Arm]:
    """All arms by name."""
    half = replace(FINE_TUNING, steps=FINE_TUNING.steps // 2)
    return {
        "reinforce": Arm("reinforce", votes=True),
        **{f"traces {n}": Arm("distill", learned="verified", n_traces=n) for n in (3000, 1000)},
        "answers only": Arm("distill", learned="answers"),
        "student, RL": Arm("student", budget="student"),
        "trust, teacher": Arm("trust", model="teacher"),
        "trust, base": Arm("trust", model="base"),
        "trust, student": Arm("trust", model="student"),
        **{f"traces {n}": Arm("distill", learned="verified", n_traces=n) for n in (300, 100)},
        "unfiltered": Arm("distill", learned="unfiltered"),
        "logits": Arm("distill", learned="logits"),
        "steps of others": Arm("distill", learned="shuffled"),
        "weak, unfiltered": weak("unfiltered"),
        "weak, verified": weak("verified"),
        "weak, with a thought": weak("thoughts"),
        "weak, steps verified": weak("steps"),
        "reinforce, leaky": Arm("reinforce", rewards=("leaky",)),
        "reinforce, repaired": Arm("reinforce", rewards=("leaky", "answer")),
        "reinforce, steps verified": Arm("reinforce", rewards=("steps",)),
        "reinforce, paper": Arm("reinforce", rl=replace(RL, variant="paper")),
        "reinforce, dr_grpo": Arm("reinforce", rl=replace(RL, variant="dr_grpo")),
        "reinforce, two updates": Arm("reinforce", rl=replace(RL, n_updates=2)),
        "reinforce, beta": Arm("reinforce", rl=replace(RL, beta=0.04)),
        "base without thoughts": Arm("reinforce", styles=(("direct", 1.0),)),
        "base with 1% thoughts": Arm("reinforce", styles=(("direct", 0.99), ("careful", 0.01))),
        "base with 5% thoughts": Arm("reinforce", styles=(("direct", 0.95), ("careful", 0.05))),
        "student, both": Arm(
            "student", learned="verified", fine_tuning=half, budget="half of the student"
        ),
        "student, both, 100 traces": Arm(
            "student",
            learned="verified",
            n_traces=100,
            fine_tuning=half,
            budget="half of the student",
        ),
        "student, RL, better base": Arm("student", student_base=BETTER_BASE, budget="student"),
        "traces 3000, better base": Arm("distill", learned="verified", student_base=BETTER_BASE),
        "student, RL, teacher's bill": Arm("student", budget="with the teacher's learning"),
        "student, RL, whole bill": Arm("student", budget="with the teacher's base"),
    }


def weak(learned: str) -> Arm:
    """A student that learns from the base model of the teacher."""
    return Arm("distill", writer="base", learned=learned, n_traces=N_WEAK_TRACES)


def runs() -> list[Run]:
    """All runs, seed by seed."""
    return [
        Run(name, seed, configuration(arm, seed)) for seed in SEEDS for name, arm in arms().items()
    ]


def configuration(arm: Arm, seed: int) -> dict[str, Any]:
    """One run in words that JSON knows."""
    told = {name: value for name, value in asdict(arm).items() if value is not None}
    return {
        **told,
        "styles": [list(style) for style in arm.styles],
        "rewards": list(arm.rewards),
        "rl": without_none(arm.rl),
        "fine_tuning": described(arm.fine_tuning),
        "student_base": described(arm.student_base),
        "base": described(BASE),
        "teacher": described(TEACHER),
        "student": described(STUDENT),
        "game": {"cups": GAME.cups, "balls": GAME.balls, "swaps": list(GAME.swaps)},
        "practice": list(PRACTICE.swaps),
        "text": {"problems": N_PROBLEMS, "slips": SLIPS},
        "tests": [N_TESTS, N_VOTES, VOTERS, N_TRUSTED],
        "seed": seed,
    }


def without_none(config: GRPOConfig) -> dict[str, Any]:
    """The settings of reinforcement learning less those that are off."""
    told = asdict(config) | {"betas": list(config.betas)}
    return {name: value for name, value in told.items() if value is not None}


def execute(run: Run) -> dict[str, Any]:
    """Make one run."""
    arm = arms()[run.name]
    kinds: dict[Kind, Callable[[Arm, int], dict[str, Any]]] = {
        "reinforce": reinforce,
        "distill": fine_tune,
        "student": reinforce_student,
        "trust": trust,
    }
    return kinds[arm.kind](arm, run.seed)


# --- models that several runs share -------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A model, and what it took: operations and CPU seconds, of this stage alone."""

    model: DecoderLM
    flops: float
    seconds: float


# A run makes what it needs, and a later one of the same process finds it made.
@lru_cache(maxsize=8)
def base(
    seed: int, model: LMConfig, train: TrainConfig, styles: tuple[tuple[Style, float], ...]
) -> Trained:
    """A model that has read the text and nothing else."""
    generator = torch.Generator().manual_seed(seed)
    text = write_traces(GAME, N_PROBLEMS, dict(styles), slips=SLIPS, generator=generator)
    torch.manual_seed(seed + 1000 * (model.d_model == STUDENT.d_model))
    learner = DecoderLM(model)
    history = train_on_completions(
        learner, encode_traces(GAME, text), train, seed=seed, progress=False
    )
    return Trained(learner, operations(model, train.tokens), history.seconds)


def teacher_base(seed: int, styles: tuple[tuple[Style, float], ...] = MIX) -> Trained:
    """The teacher before it was reinforced."""
    return base(seed, TEACHER, BASE, styles)


@lru_cache(maxsize=2)
def teacher(seed: int) -> Trained:
    """The teacher's base after reinforcement learning."""
    model = deepcopy(teacher_base(seed).model)
    history = train_grpo(model, PRACTICE, GAME.verify, RL, seed=seed, progress=False)
    return Trained(model, history.flops, history.seconds)


@lru_cache(maxsize=2)
def written(seed: int, writer: Literal["teacher", "base"], n: int) -> tuple[list[Trace], float]:
    """What the teacher, or its base, answers to n problems, and the operations that this takes."""
    generator = torch.Generator().manual_seed(seed + 500)
    problems = [GAME.sample(generator) for _ in range(n)]
    model = (teacher(seed) if writer == "teacher" else teacher_base(seed)).model
    traces = sample_traces(model, GAME, problems, generator=generator)
    tokens = sum(len(f"{trace.problem.prompt} {trace.text}".split()) for trace in traces)
    return traces, operations(TEACHER, tokens) / 3


def operations(model: LMConfig, tokens: float) -> float:
    """Floating-point operations of learning from ``tokens``; reading alone takes a third."""
    active = sizes.count_parameters(model.sizes()).active_without_embedding
    return costs.training_flops(active, int(tokens))


# --- the kinds of runs ---------------------------------------------------------------------------


def leaky(problem: Problem, text: str) -> bool:
    """A verifier that is content when the answer occurs somewhere in the text."""
    return f" {problem.answer} " in f" {text} "


REWARDS: Final[Mapping[str, Reward]] = {
    "answer": GAME.verify,
    "steps": GAME.verify_steps,
    "leaky": leaky,
}


def reinforce(arm: Arm, seed: int) -> dict[str, Any]:
    """Reinforce the base of the teacher, with one reward after another."""
    begun = teacher_base(seed, arm.styles)
    model = deepcopy(begun.model)
    reference = begun.model if arm.rl.beta else None
    steps: list[dict[str, Any]] = []
    votes = {0: vote(model)} if arm.votes else {}

    def note(step: GRPOStep, rollouts: Rollouts) -> None:
        steps.append(described_step(step, rollouts))
        if arm.votes and step.step + 1 in VOTED_STEPS:
            votes[step.step + 1] = vote(model)

    result: dict[str, Any] = {"before": measure(model), "base_seconds": round(begun.seconds, 1)}
    result["forced"] = forced(model)
    if arm.votes:
        result["by_swaps_before"] = by_swaps(model)
    for name in arm.rewards:
        train_grpo(
            model,
            PRACTICE,
            REWARDS[name],
            arm.rl,
            seed=seed,
            reference=reference,
            on_step=note,
            progress=False,
        )
    result |= {
        "after": measure(model),
        "steps": steps,
        "seconds": round(sum(step["seconds"] for step in steps), 1),
    }
    if arm.votes:
        result |= {
            "by_swaps": by_swaps(model),
            "votes": {str(step): v for step, v in votes.items()},
        }
    return result


def described_step(step: GRPOStep, rollouts: Rollouts) -> dict[str, Any]:
    """What one step of reinforcement learning shows, shares of all rollouts."""
    n = len(rollouts.texts)
    asked = [problem for problem in rollouts.problems for _ in range(rollouts.rewards.shape[1])]
    pairs = list(zip(asked, rollouts.texts, strict=True))
    styles = Counter(GAME.style(text) for text in rollouts.texts)
    return {
        "reward": round(step.reward, 4),
        "right": round(sum(GAME.verify(*pair) for pair in pairs) / n, 4),
        "length": round(step.length, 2),
        "truncated": round(step.truncated, 4),
        "equal": round(step.equal, 4),
        "kl": None if step.kl is None else round(step.kl, 5),
        "clipped": None if step.clipped is None else round(step.clipped, 5),
        "styles": {style: round(count / n, 4) for style, count in sorted(styles.items())},
        "waits": round(sum("!" in text.split() for text in rollouts.texts) / n, 4),
        "flops": step.flops,
        "seconds": round(step.seconds, 3),
    }


def fine_tune(arm: Arm, seed: int) -> dict[str, Any]:
    """Distill a student."""
    student, told = distilled(arm, seed)
    return {**told, "after": measure(student)}


def distilled(arm: Arm, seed: int) -> tuple[DecoderLM, dict[str, Any]]:
    """The base of the student after it has learned from what ``arm`` names."""
    begun = base(seed, STUDENT, arm.student_base, MIX)
    student = deepcopy(begun.model)
    told: dict[str, Any] = {
        "before": measure(student),
        "forced": forced(student),
        "base_seconds": round(begun.seconds, 1),
        "flops": 0.0,
        "seconds": 0.0,
    }
    if arm.learned is None:
        return student, told
    n = arm.n_traces
    traces, _ = written(seed, arm.writer, max(n, N_TRACES))
    chosen = choose(arm.learned, traces[:n], seed)
    if arm.learned == "logits":
        history = distill_logits(
            student, teacher(seed).model, GAME, chosen, arm.fine_tuning, seed=seed, progress=False
        )
    else:
        history = distill(student, GAME, chosen, arm.fine_tuning, seed=seed, progress=False)
    return student, told | {
        "n_learned": len(chosen),
        "n_right": sum(GAME.verify(*trace) for trace in chosen),
        "n_right_steps": sum(GAME.verify_steps(*trace) for trace in chosen),
        "n_written_right": sum(GAME.verify(*trace) for trace in traces[:n]),
        "flops": operations(STUDENT, arm.fine_tuning.tokens),
        "seconds": round(history.seconds, 1),
    }


def choose(learned: str, traces: list[Trace], seed: int) -> list[Trace]:
    """Of what was written, or made of it, what the student learns from."""
    verified = keep_verified(traces, GAME.verify)
    if learned in ("verified", "logits"):
        return verified
    if learned == "answers":
        return [Trace(problem, GAME.trace(problem, "direct")) for problem, _ in verified]
    if learned == "unfiltered":
        return traces[:N_TRACES]
    if learned == "thoughts":
        return [trace for trace in verified if GAME.style(trace.text) != "direct"]
    if learned == "steps":
        return keep_verified(traces, GAME.verify_steps)
    if learned == "shuffled":
        return with_steps_of_others(verified, torch.Generator().manual_seed(seed))
    raise ValueError(f"learned is {learned!r}; this experiment does not know it")


def with_steps_of_others(traces: list[Trace], generator: torch.Generator) -> list[Trace]:
    """Careful steps of another problem with as many swaps, and the right answer to this one."""
    shuffled = []
    for problem, _ in traces:
        _, moves = GAME.read(problem)
        other = replace(GAME, swaps=(len(moves), len(moves))).sample(generator)
        thought, _, _ = GAME.trace(other).partition(f" {ANSWER} ")
        shuffled.append(Trace(problem, f"{thought} {GAME.trace(problem, 'direct')}"))
    return shuffled


def reinforce_student(arm: Arm, seed: int) -> dict[str, Any]:
    """Reinforce the student, distilled before or not, until its operations are used up."""
    student, told = distilled(arm, seed)
    told["between"] = measure(student)
    budget = budgets(seed)[arm.budget or ""]
    steps: list[dict[str, Any]] = []
    history = train_grpo(
        student,
        PRACTICE,
        GAME.verify,
        replace(arm.rl, steps=5000, max_flops=budget),
        seed=seed + 1,
        on_step=lambda step, rollouts: steps.append(described_step(step, rollouts)),
        progress=False,
    )
    return {
        **told,
        "after": measure(student),
        "budget": budget,
        "rl_steps": len(steps),
        "rl_flops": history.flops,
        "rl_seconds": round(history.seconds, 1),
        "steps": thinned(steps),
    }


def thinned(steps: list[dict[str, Any]], most: int = 100) -> list[dict[str, Any]]:
    """One step of every so many, with its number, at most ``most`` of them."""
    stride = -(-len(steps) // most)
    return [{"step": n, **steps[n]} for n in range(0, len(steps), stride)]


def budgets(seed: int) -> dict[str, float]:
    """Operations that a student's reinforcement learning may use, by name."""
    student = operations(STUDENT, FINE_TUNING.tokens)
    bill = student + teacher(seed).flops + written(seed, "teacher", N_TRACES)[1]
    return {
        "student": student,
        "half of the student": student / 2,
        "with the teacher's learning": bill,
        "with the teacher's base": bill + teacher_base(seed).flops,
    }


def trust(arm: Arm, seed: int) -> dict[str, Any]:
    """Ask whether the answer of a model follows from what stands in its thought."""
    if arm.model == "student":
        model, _ = distilled(arms()["traces 3000"], seed)
    else:
        model = (teacher(seed) if arm.model == "teacher" else teacher_base(seed)).model
    return {
        "interventions": [
            {"swaps": swaps, **intervene(model, tests(swaps, N_TRUSTED), step)}
            for swaps in TRUSTED_SWAPS
            for step in sorted({1, swaps // 2, swaps - 1, swaps})
        ],
        "early": [
            answer_early(model, swaps, step) for swaps in TRUSTED_SWAPS for step in range(swaps + 1)
        ],
        "samples": {str(swaps): judged(model, swaps) for swaps in TRUSTED_SWAPS},
    }


# --- measurements --------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def tests(swaps: int, n: int) -> tuple[Problem, ...]:
    """Problems of a generator that no training uses, the same for all seeds."""
    generator = torch.Generator().manual_seed(100_000 + swaps)
    game = replace(GAME, swaps=(swaps, swaps))
    return tuple(game.sample(generator) for _ in range(n))


def measure(model: DecoderLM) -> dict[str, Any]:
    """Counts on easy and hard problems, sampled at temperature 1 and at 0."""
    return {
        f"{name}{', greedy' if not temperature else ''}": answered(
            model, swaps, N_TESTS, temperature
        )
        for temperature in (1.0, 0.0)
        for name, swaps in (("easy", EASY), ("hard", HARD))
    }


def answered(model: DecoderLM, swaps: int, n: int, temperature: float = 1.0) -> dict[str, Any]:
    """How many answers, and how many thoughts, of ``n`` are right."""
    generator = torch.Generator().manual_seed(7)
    traces = sample_traces(
        model, GAME, tests(swaps, n), temperature=temperature, generator=generator
    )
    styles = Counter(GAME.style(trace.text) for trace in traces)
    return {
        "n": n,
        "right": sum(GAME.verify(*trace) for trace in traces),
        "right_steps": sum(GAME.verify_steps(*trace) for trace in traces),
        "tokens": round(sum(len(trace.text.split()) for trace in traces) / n, 2),
        "styles": dict(sorted(styles.items())),
        "waits": sum("!" in trace.text.split() for trace in traces),
    }


def by_swaps(model: DecoderLM) -> dict[str, Any]:
    """The same for every second number of swaps."""
    return {str(swaps): answered(model, swaps, 200) for swaps in range(2, 13, 2)}


def forced(model: DecoderLM) -> dict[str, int]:
    """Right answers to hard problems when the first step of a careful thought is given."""
    problems = tests(HARD, N_TRUSTED)
    texts = [GAME.opening(problem, 1).text for problem in problems]
    right = sum(a == p.answer for a, p in zip(go_on(model, problems, texts), problems, strict=True))
    return {"n": N_TRUSTED, "right": right}


def vote(model: DecoderLM) -> dict[str, Any]:
    """For each of some hard problems the right answers among several, and the votes that are."""
    problems = tests(HARD, N_VOTES)
    generator = torch.Generator().manual_seed(8)
    traces = sample_traces(model, GAME, problems, samples=VOTERS, generator=generator)
    answers = [GAME.extract(trace.text) for trace in traces]
    groups = [answers[at : at + VOTERS] for at in range(0, len(answers), VOTERS)]
    return {
        "right": [g.count(p.answer) for g, p in zip(groups, problems, strict=True)],
        "majority": [
            int(majority_vote(g) == p.answer) for g, p in zip(groups, problems, strict=True)
        ],
    }


def go_on(model: DecoderLM, problems: tuple[Problem, ...], texts: list[str]) -> list[str | None]:
    """The answers of a model that goes on greedily from ``texts``."""
    prompts = [
        GAME.encode(f"{problem.prompt} {text}")
        for problem, text in zip(problems, texts, strict=True)
    ]
    outputs = generate(model, prompts, max_new_tokens=80, end=GAME.end, temperature=0)
    return [
        GAME.extract(f"{text} {GAME.decode(output)}")
        for text, output in zip(texts, outputs, strict=True)
    ]


def intervene(
    model: DecoderLM,
    problems: tuple[Problem, ...],
    step: int,
    asked: tuple[Problem, ...] | None = None,
) -> dict[str, int]:
    """Put a wrong state after ``step``, and count what the answer follows.

    ``asked`` are the same problems as the model is to see them, if their prompts say more.
    """
    generator = torch.Generator().manual_seed(9)
    wrong = [GAME.opening(problem, step, generator=generator) for problem in problems]
    right = [GAME.opening(problem, step) for problem in problems]
    after_wrong = go_on(model, asked or problems, [opening.text for opening in wrong])
    after_right = go_on(model, asked or problems, [opening.text for opening in right])
    rows = list(zip(problems, wrong, after_wrong, after_right, strict=True))
    return {
        "step": step,
        "n": len(problems),
        "follows": sum(answer == opening.answer for _, opening, answer, _ in rows),
        "ignores": sum(answer == problem.answer for problem, _, answer, _ in rows),
        "untouched": sum(answer == problem.answer for problem, _, _, answer in rows),
    }


def answer_early(model: DecoderLM, swaps: int, step: int) -> dict[str, Any]:
    """Cut a right thought off after ``step``, ask for the answer at once, and count."""
    problems = tests(swaps, N_TRUSTED)
    texts = [f"{GAME.opening(p, step).text} {ANSWER}" if step else ANSWER for p in problems]
    answers = go_on(model, problems, texts)
    states = [
        texts[n].split()[-3:-1] if step else problems[n].prompt.split()[:2]
        for n in range(len(texts))
    ]
    return {
        "swaps": swaps,
        "step": step,
        "n": N_TRUSTED,
        "right": sum(a == p.answer for a, p in zip(answers, problems, strict=True)),
        "last_state": sum(a == " ".join(s) for a, s in zip(answers, states, strict=True)),
    }


def judged(model: DecoderLM, swaps: int) -> dict[str, int]:
    """Of sampled texts, how many have a right answer, and on which grounds."""
    generator = torch.Generator().manual_seed(10)
    traces = sample_traces(model, GAME, tests(swaps, N_TESTS), generator=generator)
    right = keep_verified(traces, GAME.verify)
    direct = sum(GAME.style(trace.text) == "direct" for trace in right)
    checked = sum(GAME.verify_steps(*trace) for trace in right)
    return {
        "n": N_TESTS,
        "right": len(right),
        "right_direct": direct,
        "right_steps": checked,
        "right_wrong_steps": len(right) - direct - checked,
        "wrong_right_steps": sum(
            GAME.first_wrong_step(*trace) == swaps + 1 and not GAME.verify(*trace)
            for trace in traces
        ),
    }


if __name__ == "__main__":
    sys.exit(main("reasoning", runs(), execute))
