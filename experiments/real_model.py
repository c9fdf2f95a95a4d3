"""A real language model learns the shell game from sentences: from traces, or from answers alone.

SmolLM2-135M-Instruct, as its file of four bits gives it, is fine-tuned on a few hundred problems.
Then it answers new ones, at the lengths it has learned and at longer ones, and reads two texts that
have nothing to do with cups: what has it forgotten?

The arms differ in what is learned (traces of the game's own solver, traces that our reinforced
miniature wrote, or answers alone, for as many problems or for as many tokens), in what of the model
learns (all weights, the last layers, LoRA), in the rate, and in whether general text is mixed in.
A student that has learned a little goes on in three ways: with a reward, with grades of one that
has learned all, or with more thoughts to read. All is float32, which every processor multiplies.
The notebook teach_a_real_model reads the results.
"""

import contextlib
import re
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import numpy as np
import reasoning
import torch
from mixture import described
from torch import Tensor
from torch.nn import functional as F

from slingshot.completions import Example
from slingshot.corpus import numpy_documentation, standard_library
from slingshot.distill import (
    Divergence,
    distill_on_policy,
    encode_traces,
    keep_verified,
    sample_traces,
)
from slingshot.finetune import (
    Mixture,
    add_lora,
    batches_in_a_pass,
    fine_tune,
    learn_layers,
    merge_lora,
)
from slingshot.grpo import GRPOConfig, train_grpo
from slingshot.lm import DecoderLM, generate
from slingshot.pretrained import Pretrained, load_smollm2
from slingshot.sentences import SpokenGame
from slingshot.tasks import Opening, Problem, Trace, write_traces
from slingshot.train import History, TrainConfig

SEEDS: Final = range(3)
PRACTICE: Final = (1, 6)  # swaps of the problems that are learned
SWAPS: Final = (2, 4, 6, 8, 10)  # and of those that are asked
N_PROBLEMS, N_TESTS = 240, 32
BATCH_TOKENS = 384
RATE = 2e-4
SHOTS, SHOT_TESTS, SHOT_SWAPS = 4, 16, (2, 4)
CHANGED_SWAPS, CHANGED_STEPS, N_CHANGED = 6, (1, 5), 20
BITS_STEPS = 1  # of which the time is taken
WINDOWS, LENGTH = 8, 256  # of each text that is read to see what was forgotten

Teaches = Literal["traces", "answers", "miniature"]
Learns = Literal["all", "last", "LoRA"]


@dataclass(frozen=True)
class Arm:
    """What is learned, from how many problems, by which part of the model, and how fast.

    With ``as_many_tokens`` there are as many problems as have the tokens that the traces of
    ``problems`` others have. ``layers`` is for the last ones, ``rank`` and ``scale`` for LoRA. All
    are read once, or there are as many steps as with batches of ``steps_of`` tokens all would need.
    """

    teaches: Teaches = "traces"
    problems: int = N_PROBLEMS
    as_many_tokens: bool = False
    learns: Learns = "all"
    layers: int = 10
    rank: int = 8
    scale: float = 2.0
    rate: float = RATE
    mixed: bool = False
    batch_tokens: int = BATCH_TOKENS
    steps_of: int | None = None
    seeds: int = 1


HALF_TAUGHT: Final = Arm(problems=80)  # can do it sometimes, so that a reward has work to do
REWARDED: Final = (2, 6)
RL_SEEDS: Final = range(1)
RL: Final = GRPOConfig(
    24, n_problems=4, n_rollouts=6, max_new_tokens=80, learning_rate=2e-5, warmup=2
)
GRADES: Final[dict[str, Divergence]] = {
    "graded, reverse": "reverse",
    "graded, forward": "forward",
}
"""A teacher's grades for as many texts of the same student, in as many steps."""
READ_TOKENS: Final = 2400  # of a step, about as many texts as the student writes for a reward


def arms() -> dict[str, Arm]:
    """All arms by name: the main comparison, then what else can be changed, one at a time."""
    lora = Arm(learns="LoRA", rate=1e-3)
    return {
        "traces": Arm(seeds=len(SEEDS)),
        "answers, as many problems": Arm("answers", seeds=len(SEEDS)),
        "answers, as many tokens": Arm("answers", as_many_tokens=True, seeds=len(SEEDS)),
        "miniature's traces": Arm("miniature"),
        "with general text": Arm(mixed=True),
        "a quarter of the rate": Arm(rate=RATE / 4),
        "last 10 layers": Arm(learns="last"),
        "LoRA": lora,
        "LoRA, five times the rate": replace(lora, rate=5 * lora.rate),
        "LoRA, half the batch": replace(lora, batch_tokens=BATCH_TOKENS // 2),
        "LoRA, twice the batch": replace(lora, batch_tokens=2 * BATCH_TOKENS),
        # Which of the two helps, more steps or smaller ones? Here only one of them changes.
        "LoRA, the steps of half the batch": replace(lora, steps_of=BATCH_TOKENS // 2),
        "LoRA, half the batch, no more steps": replace(
            lora, batch_tokens=BATCH_TOKENS // 2, steps_of=BATCH_TOKENS
        ),
    }


def runs() -> list[Run]:
    """All runs: those of the first seed, then the main comparison's others."""
    learned = [
        Run(name, seed, configuration(arm, seed))
        for seed in SEEDS
        for name, arm in arms().items()
        if seed < arm.seeds
    ]
    asked = {"shots": SHOTS, "tests": SHOT_TESTS, "swaps": list(SHOT_SWAPS), **reading()}
    rewarded = [Run("reinforced", seed, rewarded_configuration(seed)) for seed in RL_SEEDS]
    others = [
        Run(name, seed, going_on_configuration(name, seed))
        for seed in RL_SEEDS
        for name in (*GRADES, "reads on")
    ]
    timed = Run("bits", 0, {"model": asked["model"], "steps": BITS_STEPS, "tokens": BATCH_TOKENS})
    return [Run("before", 0, asked), *learned, *rewarded, *others, timed]


def reading() -> dict[str, Any]:
    """What all runs read."""
    return {
        "model": "SmolLM2-135M-Instruct.Q4_1",
        "practice": list(PRACTICE),
        "texts": {"windows": WINDOWS, "length": LENGTH, "numpy": np.__version__},
    }


def configuration(arm: Arm, seed: int) -> dict[str, Any]:
    """One run in words that JSON knows."""
    told = {key: value for key, value in asdict(arm).items() if key != "seeds"}
    if arm.learns != "last":
        del told["layers"]
    if arm.learns != "LoRA":
        del told["rank"], told["scale"]
    if arm.steps_of is None:
        del told["steps_of"]
    return {
        **told,
        **reading(),
        "train": described(train_config(arm, 1)),
        "tests": {"swaps": list(SWAPS), "n": N_TESTS},
        "changed": {"swaps": CHANGED_SWAPS, "steps": list(CHANGED_STEPS), "n": N_CHANGED},
        "seed": seed,
    }


def rewarded_configuration(seed: int) -> dict[str, Any]:
    """The run of a reward in words that JSON knows."""
    told = configuration(HALF_TAUGHT, seed)
    del told["changed"]
    rl = described(RL)
    return {**told, "rl": rl, "rl_layers": HALF_TAUGHT.layers, "rewarded": list(REWARDED)}


def going_on_configuration(name: str, seed: int) -> dict[str, Any]:
    """A run with grades, or with more thoughts to read, in words that JSON knows."""
    told = configuration(HALF_TAUGHT, seed)
    del told["changed"]
    config = graded_config()
    if name in GRADES:
        room = RL.max_new_tokens
        what = {"teacher": Arm().problems, "divergence": GRADES[name], "max_new_tokens": room}
    else:
        config = replace(config, batch_tokens=READ_TOKENS)
        what = {}
    return {
        **told,
        **what,
        "going_on": described(config),
        "layers_going_on": HALF_TAUGHT.layers,
        "swaps_going_on": list(REWARDED),
        "n_texts": RL.n_problems * RL.n_rollouts,
    }


def graded_config() -> TrainConfig:
    """How a student learns from grades: as from texts, in as many steps as with a reward."""
    return replace(train_config(HALF_TAUGHT, RL.steps), warmup=RL.warmup)


def train_config(arm: Arm, steps: int) -> TrainConfig:
    """How an arm is trained, for so many steps."""
    return TrainConfig(
        steps,
        learning_rate=arm.rate,
        warmup=5,
        decay=0.4,
        final=0.0,
        betas=(0.9, 0.98),
        weight_decay=0.0,
        batch_tokens=arm.batch_tokens,
    )


def execute(run: Run) -> dict[str, Any]:
    """Make one run."""
    if run.name == "before":
        return before()
    if run.name == "reinforced":
        return reinforced(run.seed)
    if run.name in GRADES:
        return graded(GRADES[run.name], run.seed)
    if run.name == "reads on":
        return reads_on(run.seed)
    if run.name == "bits":
        return bits()
    return taught(arms()[run.name], run.seed)


# --- what is taught ------------------------------------------------------------------------------


@cache
def pretrained() -> Pretrained:
    """The model as it comes, loaded once in each process; nobody trains this one."""
    return load_smollm2()


@cache
def game() -> SpokenGame:
    """The game in sentences."""
    return SpokenGame(pretrained().tokenizer)


def lessons(arm: Arm, seed: int) -> list[Trace]:
    """The problems of an arm, solved as it says."""
    practice = game().with_swaps(*PRACTICE)
    generator = torch.Generator().manual_seed(seed)
    if arm.teaches == "miniature":
        return by_miniature(arm.problems, seed)
    traces = write_traces(practice, arm.problems, {"careful": 1.0}, generator=generator)
    if arm.teaches == "traces":
        return traces
    if arm.as_many_tokens:
        budget = n_tokens(encode_traces(practice, traces))
        more = write_traces(practice, 4 * arm.problems, {"careful": 1.0}, generator=generator)
        traces = within(budget, [answer_only(trace) for trace in [*traces, *more]])
    return [answer_only(trace) for trace in traces]


def answer_only(trace: Trace) -> Trace:
    """The same problem with its answer and nothing else."""
    return Trace(trace.problem, game().trace(trace.problem, "direct"))


def within(budget: int, traces: list[Trace]) -> list[Trace]:
    """The first of ``traces``, as many as have at most ``budget`` tokens."""
    sizes = np.cumsum([n_tokens([each]) for each in encode_traces(game(), traces)])
    return traces[: int((sizes <= budget).sum())]


def by_miniature(n: int, seed: int) -> list[Trace]:
    """What the reinforced miniature wrote with a right answer, in sentences."""
    plain = replace(reasoning.GAME, swaps=PRACTICE)
    generator = torch.Generator().manual_seed(seed)
    problems = [plain.sample(generator) for _ in range(2 * n)]
    teacher = reasoning.teacher(seed).model
    written = sample_traces(teacher, plain, problems, generator=generator)
    said = []
    for problem, text in keep_verified(written, plain.verify):
        try:
            said.append(Trace(game().say(problem), game().say_text(text)))
        except ValueError:  # a right answer under what is no thought
            continue
    return said[:n]


def n_tokens(examples: list[Example]) -> int:
    """Tokens of prompts and completions."""
    return sum(len(each.prompt) + len(each.completion) for each in examples)


class Taught(NamedTuple):
    """A model after its lessons, and what they were."""

    model: DecoderLM
    told: dict[str, Any]


def teach(arm: Arm, seed: int) -> Taught:
    """Teach a copy of the model what an arm teaches."""
    traces = lessons(arm, seed)
    examples = encode_traces(game(), traces)
    forget_peak()
    model = deepcopy(pretrained().model)
    torch.manual_seed(seed)
    if arm.learns == "LoRA":
        n_learning = add_lora(model, arm.rank, arm.scale)
    else:
        n_learning = learn_layers(model, arm.layers if arm.learns == "last" else None)
    steps = batches_in_a_pass(examples, arm.steps_of or arm.batch_tokens, seed)
    mixture = Mixture(text_to_mix()) if arm.mixed else None
    history = fine_tune(
        model, examples, train_config(arm, steps), mixture=mixture, seed=seed, progress=False
    )
    told = {
        "problems": len(traces),
        "right_steps": sum(game().verify_steps(*trace) for trace in traces),
        "tokens": n_tokens(examples),
        "tokens_learned": sum(len(each.completion) for each in examples),
        "mixed_tokens": steps * mixture.length * mixture.windows if mixture else 0,
        "steps": steps,
        "learning": n_learning,
        "losses": [round(loss, 4) for loss in history.losses],
        "seconds": round(history.seconds, 1),
        "peak_gb": peak_gb(),
    }
    if arm.learns == "LoRA":
        merge_lora(model)
    return Taught(model.requires_grad_(False).eval(), told)


def taught(arm: Arm, seed: int) -> dict[str, Any]:
    """Teach the model, and measure."""
    model, told = teach(arm, seed)
    return {
        **told,
        "after": by_swaps(model),
        "forgotten": text_losses(model),
        **({"changed": changed(model)} if arm.teaches != "answers" else {}),
    }


def reinforced(seed: int) -> dict[str, Any]:
    """Teach the model a little, reward right answers, and measure before and after."""
    model, told = teach(HALF_TAUGHT, seed)
    before = by_swaps(model)
    learn_layers(model, HALF_TAUGHT.layers)
    practice = game().with_swaps(*REWARDED)
    forget_peak()
    history = train_grpo(model, practice, game().verify, RL, seed=seed, progress=False)
    return {
        "taught": told,
        "peak_gb": peak_gb(),
        "seconds": round(sum(step.seconds for step in history.steps), 1),
        "rewards": [round(step.reward, 4) for step in history.steps],
        "lengths": [round(step.length, 2) for step in history.steps],
        "before": before,
        "after": by_swaps(model),
        "forgotten": text_losses(model),
    }


def graded(divergence: Divergence, seed: int) -> dict[str, Any]:
    """Teach the model a little, let one that has learned all grade its texts, and measure."""
    teacher, _ = teach(Arm(), seed)
    student, told = teach(HALF_TAUGHT, seed)
    before = by_swaps(student)
    learn_layers(student, HALF_TAUGHT.layers)
    forget_peak()
    history = distill_on_policy(
        student,
        teacher,
        game().with_swaps(*REWARDED),
        graded_config(),
        n_texts=RL.n_problems * RL.n_rollouts,
        max_new_tokens=RL.max_new_tokens,
        divergence=divergence,
        seed=seed,
        progress=False,
    )
    return {
        "taught": told,
        "tokens": history.tokens,
        "lengths": [round(length, 2) for length in history.lengths],
        "teacher": by_swaps(teacher),
        "before": before,
        **went_on(student, history),
    }


def reads_on(seed: int) -> dict[str, Any]:
    """Teach the model a little, then more thoughts, as many as others write, and measure."""
    student, told = teach(HALF_TAUGHT, seed)
    before = by_swaps(student)
    learn_layers(student, HALF_TAUGHT.layers)
    generator = torch.Generator().manual_seed(seed + 1)
    practice, n = game().with_swaps(*REWARDED), RL.steps * RL.n_problems * RL.n_rollouts
    examples = encode_traces(
        game(), write_traces(practice, n, {"careful": 1.0}, generator=generator)
    )
    config = replace(graded_config(), batch_tokens=READ_TOKENS)
    forget_peak()
    history = fine_tune(student, examples, config, seed=seed, progress=False)
    tokens = n_tokens(examples)
    return {"taught": told, "tokens": tokens, "before": before, **went_on(student, history)}


def went_on(student: DecoderLM, history: History) -> dict[str, Any]:
    """What going on took, and what the student can do after it."""
    took = {"peak_gb": peak_gb(), "seconds": round(history.seconds, 1)}
    student.requires_grad_(False).eval()
    return {
        **took,
        "losses": [round(loss, 4) for loss in history.losses],
        "after": by_swaps(student),
        "forgotten": text_losses(student),
    }


def bits() -> dict[str, Any]:
    """The seconds that a step takes in float32, and with products of bfloat16."""
    arm = Arm()
    examples = encode_traces(game(), lessons(arm, 0))
    found: dict[str, Any] = {"vectors": torch.backends.cpu.get_cpu_capability()}
    for bfloat16 in (False, True):
        model = deepcopy(pretrained().model)
        learn_layers(model)
        config = train_config(arm, BITS_STEPS)
        history = fine_tune(model, examples, config, bfloat16=bfloat16, progress=False)
        name = "bfloat16" if bfloat16 else "float32"
        found[name] = round(history.seconds / BITS_STEPS, 2)
    return found


def forget_peak() -> None:
    """Count the most memory from here on, where the system can: Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_gb() -> float:
    """The most memory that this process has had since `forget_peak`, in GB."""
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text("ascii"))
        return round(int(peak) * 1024 / 1e9, 2)
    import resource  # here, since Windows has none

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others KB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)


# --- what is measured ----------------------------------------------------------------------------


@cache
def tests(swaps: int, n: int) -> tuple[Problem, ...]:
    """Problems of a generator that no training uses, the same for all arms and seeds."""
    generator = torch.Generator().manual_seed(100_000 + swaps)
    asked = game().with_swaps(swaps, swaps)
    return tuple(asked.sample(generator) for _ in range(n))


def by_swaps(model: DecoderLM) -> dict[str, Any]:
    """Right answers and right thoughts by number of swaps, the likeliest token each time."""
    found = {}
    for swaps in SWAPS:
        traces = sample_traces(
            model,
            game(),
            tests(swaps, N_TESTS),
            temperature=0,
            max_new_tokens=10 * swaps + 30,
        )
        found[str(swaps)] = {
            "n": N_TESTS,
            "right": sum(game().verify(*trace) for trace in traces),
            "right_steps": sum(game().verify_steps(*trace) for trace in traces),
            "example": traces[0].text,
        }
    return found


def before() -> dict[str, Any]:
    """What the model can do as it comes: some solved problems in its prompt, then a new one."""
    model = pretrained().model
    practice = game().with_swaps(*PRACTICE)
    generator = torch.Generator().manual_seed(0)
    shown = write_traces(practice, SHOTS, {"careful": 1.0}, generator=generator)
    found: dict[str, Any] = {"forgotten": text_losses(model)}
    for kind, shots in (("traces", shown), ("answers", [answer_only(trace) for trace in shown])):
        text = "".join(f"{shot.problem.prompt}{shot.text}\n" for shot in shots)
        found[kind] = {}
        for swaps in SHOT_SWAPS:
            problems = tests(swaps, SHOT_TESTS)
            prompts = [game().encode(text + problem.prompt) for problem in problems]
            room = 10 * swaps + 30
            outputs = generate(model, prompts, max_new_tokens=room, end=game().end, temperature=0)
            texts = [game().decode(output) for output in outputs]
            found[kind][str(swaps)] = {
                "n": SHOT_TESTS,
                "right": sum(map(game().verify, problems, texts)),
                "right_steps": sum(map(game().verify_steps, problems, texts)),
                "example": texts[0],
            }
    return found


def changed(model: DecoderLM) -> list[dict[str, int]]:
    """Put a wrong state after a step, and count what the answer follows."""
    problems = tests(CHANGED_SWAPS, N_CHANGED)
    answers = [problem.answer for problem in problems]
    rows = []
    for step in CHANGED_STEPS:
        generator = torch.Generator().manual_seed(9)
        wrong = [game().opening(each, step, generator=generator) for each in problems]
        right = [game().opening(each, step) for each in problems]
        after_wrong = go_on(model, problems, wrong)
        rows.append(
            {
                "step": step,
                "n": N_CHANGED,
                "follows": equal(after_wrong, [opening.answer for opening in wrong]),
                "ignores": equal(after_wrong, answers),
                "untouched": equal(go_on(model, problems, right), answers),
            }
        )
    return rows


def equal(given: Sequence[str | None], wanted: Sequence[str]) -> int:
    """How many are the same."""
    return sum(a == b for a, b in zip(given, wanted, strict=True))


def go_on(
    model: DecoderLM, problems: Sequence[Problem], openings: Sequence[Opening]
) -> list[str | None]:
    """The answers of a model that goes on from what is there; ``None`` where it gives none."""
    pairs = zip(problems, openings, strict=True)
    prompts = [game().encode(problem.prompt + opening.text) for problem, opening in pairs]
    room = 10 * CHANGED_SWAPS + 30
    outputs = generate(model, prompts, max_new_tokens=room, end=game().end, temperature=0)
    return [game().extract(game().decode(output)) for output in outputs]


@cache
def numpy_windows() -> Tensor:
    """Windows spread evenly over NumPy's documentation, ``[2 · WINDOWS, LENGTH + 1]``."""
    return spread(numpy_documentation(), 2 * WINDOWS)


def text_to_mix() -> Tensor:
    """NumPy's documentation without what is measured, nor a window's length behind that."""
    tokens = torch.tensor(pretrained().tokenizer.encode(numpy_documentation()).ids)
    apart = len(tokens) // (2 * WINDOWS)
    kept = [tokens[n * apart + 2 * LENGTH : (n + 1) * apart] for n in range(2 * WINDOWS)]
    return torch.cat(kept)


def spread(text: str, n: int) -> Tensor:
    """``n`` windows of a text, as far from each other as it allows."""
    tokens = torch.tensor(pretrained().tokenizer.encode(text).ids)
    places = torch.arange(n) * (len(tokens) // n)
    return torch.stack([tokens[start : start + LENGTH + 1] for start in places.tolist()])


@cache
def windows() -> dict[str, Tensor]:
    """By name, the windows of each text."""
    code = "\n".join(document.text for document in standard_library()[::20])
    return {"NumPy": numpy_windows()[::2], "Python": spread(code, WINDOWS)}


@torch.no_grad()
def text_losses(model: DecoderLM) -> dict[str, list[float]]:
    """The mean loss of each window of each text, in nats a token."""
    found = {}
    for name, tokens in windows().items():
        losses = []
        for window in tokens:
            logits = model(window[None, :-1]).logits[0].float()
            losses.append(round(float(F.cross_entropy(logits, window[1:])), 4))
        found[name] = losses
    return found


if __name__ == "__main__":
    sys.exit(main("real_model", runs(), execute))
