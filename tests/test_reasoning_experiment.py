"""The experiment on reasoning: what it trains on, what it counts, and when it stops."""

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import reasoning
import torch
from reasoning import GAME, Arm
from torch import Tensor

from slingshot.lm import DecoderLM
from slingshot.tasks import Problem, ShellGame, Trace
from slingshot.train import TrainConfig

PROBLEM = Problem("2 5 (1) 2-6 (2) 1-4 (3) 2-3 ?", "6 5")
CAREFUL = "(1) 2-6 6 5 (2) 1-4 6 5 (3) 2-3 6 5 = 6 5 $"
BELIEVED = "(1) 2-6 6 5 (2) 1-4 6 1 (3) 2-3 6 5 = 6 5 $"  # a wrong state, and a right answer
DIRECT = "= 6 5 $"
WRONG = "(1) 2-6 6 5 (2) 1-4 6 1 (3) 2-3 6 1 = 6 1 $"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few problems, short trainings, and nothing made before or left behind."""
    for name, value in {
        "N_PROBLEMS": 60,
        "N_TESTS": 20,
        "N_VOTES": 5,
        "N_TRUSTED": 10,
        "VOTERS": 4,
        "N_TRACES": 30,
        "BASE": TrainConfig(2, learning_rate=1e-3, warmup=0, batch_tokens=512),
        "FINE_TUNING": TrainConfig(2, learning_rate=1e-3, warmup=0, batch_tokens=512),
        "RL": replace(reasoning.RL, steps=2, n_problems=2, n_rollouts=4),
        "TRUSTED_SWAPS": (2,),
        "VOTED_STEPS": (0, 2),
    }.items():
        monkeypatch.setattr(reasoning, name, value)
    forget()
    yield
    forget()


MADE = (reasoning.base, reasoning.teacher, reasoning.written, reasoning.tests)


def forget() -> None:
    for made in MADE:
        made.cache_clear()


def short(arm: Arm) -> Arm:
    """The arm with the settings of this module."""
    quick = reasoning.BASE
    return replace(
        arm,
        rl=reasoning.RL,
        student_base=quick,
        fine_tuning=quick,
        n_traces=min(arm.n_traces, 30),
    )


# --- runs --------------------------------------------------------------------------------------


def test_what_is_stored_can_be_said_in_json_and_tells_the_arms_apart() -> None:
    runs = reasoning.runs()
    assert len({run.key for run in runs}) == len(runs) == len(reasoning.SEEDS) * 33
    for run in runs:
        assert json.loads(json.dumps(run.configuration)) == run.configuration
    told = [json.dumps(run.configuration) for run in runs]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("name", reasoning.arms())
@pytest.mark.slow
def test_each_arm_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = {key: short(arm) for key, arm in reasoning.arms().items()}
    monkeypatch.setattr(reasoning, "arms", lambda: arms)
    (run,) = (run for run in reasoning.runs() if run.key == f"{name}/1")
    monkeypatch.setattr(
        reasoning, "choose", lambda learned, traces, seed: [Trace(PROBLEM, CAREFUL)] * 4
    )
    result = reasoning.execute(run)
    assert json.loads(json.dumps(result)) == result
    if arms[name].kind == "trust":
        assert len(result["interventions"]) == 2
        assert len(result["early"]) == 3
    else:
        assert result["after"]["hard"]["n"] == 20
    if arms[name].kind == "reinforce":
        assert len(result["steps"]) == 2 * len(arms[name].rewards)


@pytest.mark.slow
def test_a_run_does_not_change_the_models_that_others_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def learn(model: DecoderLM, *others: object, **settings: object) -> SimpleNamespace:
        for parameter in model.parameters():
            parameter.data.add_(1.0)
        return SimpleNamespace(flops=1.0, seconds=1.0)

    monkeypatch.setattr(reasoning, "train_grpo", learn)
    monkeypatch.setattr(reasoning, "distill", learn)
    monkeypatch.setattr(reasoning, "choose", lambda *others: [Trace(PROBLEM, CAREFUL)])
    made = [reasoning.teacher_base(1).model, reasoning.teacher(1).model]
    made.append(reasoning.base(1, reasoning.STUDENT, reasoning.BASE, reasoning.MIX).model)
    before = [[p.clone() for p in model.parameters()] for model in made]
    assert torch.equal(before[0][-1] + 1, before[1][-1])
    arms = {name: short(arm) for name, arm in reasoning.arms().items()}
    monkeypatch.setattr(reasoning, "arms", lambda: arms)
    monkeypatch.setattr(reasoning, "thinned", list)
    reasoning.reinforce(arms["reinforce, paper"], 1)
    reasoning.trust(arms["trust, student"], 1)
    reasoning.reinforce_student(arms["student, both"], 1)
    for model, weights in zip(made, before, strict=True):
        assert all(map(torch.equal, model.parameters(), weights))


# --- what is learned -----------------------------------------------------------------------------


def test_the_leaky_verifier_is_content_with_the_answer_anywhere() -> None:
    assert reasoning.leaky(PROBLEM, "1 2 6 5 = 3 4 $")
    assert reasoning.leaky(PROBLEM, "6 5")
    assert not reasoning.leaky(PROBLEM, "6 4 5 = 5 6 $")
    assert not reasoning.leaky(Problem("", "6"), "16 61 $")


@pytest.mark.parametrize(
    ("learned", "expected"),
    [
        ("verified", [CAREFUL, BELIEVED, DIRECT]),
        ("logits", [CAREFUL, BELIEVED, DIRECT]),
        ("unfiltered", [CAREFUL, BELIEVED, DIRECT, WRONG]),
        ("answers", [DIRECT, DIRECT, DIRECT]),
        ("thoughts", [CAREFUL, BELIEVED]),
        ("steps", [CAREFUL]),
    ],
)
def test_what_a_student_learns_from(learned: str, expected: list[str]) -> None:
    traces = [Trace(PROBLEM, text) for text in (CAREFUL, BELIEVED, DIRECT, WRONG)]
    assert [trace.text for trace in reasoning.choose(learned, traces, 0)] == expected


def test_what_nobody_learns_from_is_named() -> None:
    with pytest.raises(ValueError, match=r"^learned is 'all'; this experiment does not know it$"):
        reasoning.choose("all", [], 0)


def test_steps_of_others_have_a_right_answer_and_wrong_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    problems = [replace(GAME, swaps=(8, 8)).sample(generator) for _ in range(20)]
    traces = [Trace(problem, GAME.trace(problem)) for problem in problems]
    for problem, text in reasoning.with_steps_of_others(traces, generator):
        assert GAME.verify(problem, text)
        assert GAME.first_wrong_step(problem, text) in (1, 2)
        assert len(text.split()) == len(GAME.trace(problem).split())
        assert GAME.style(text) == "careful"


# --- what is counted -----------------------------------------------------------------------------


def write(monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> None:
    """Let every model write ``texts`` one after the other."""
    monkeypatch.setattr(reasoning, "tests", lambda swaps, n: (PROBLEM,) * n)
    monkeypatch.setattr(
        reasoning,
        "sample_traces",
        lambda model, task, problems, samples=1, **settings: [
            Trace(problem, texts[n % len(texts)])
            for n, problem in enumerate(p for p in problems for _ in range(samples))
        ],
    )


MODEL = SimpleNamespace()


def test_answers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    write(monkeypatch, [CAREFUL, BELIEVED, DIRECT, WRONG, "(1) 2-6 6 1 ! 6 5"])
    found = reasoning.answered(MODEL, 3, 5)  # type: ignore[arg-type]
    lengths = [len(text.split()) for text in (CAREFUL, BELIEVED, DIRECT, WRONG)]
    assert found == {
        "n": 5,
        "right": 3,
        "right_steps": 1,
        "tokens": (sum(lengths) + 7) / 5,
        "styles": {"careful": 4, "direct": 1},
        "waits": 1,
    }


def test_the_grounds_of_right_answers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ends_wrong = CAREFUL.replace("= 6 5", "= 5 6")
    write(monkeypatch, [CAREFUL, BELIEVED, DIRECT, WRONG, ends_wrong])
    monkeypatch.setattr(reasoning, "N_TESTS", 10)
    found = reasoning.judged(MODEL, 3)  # type: ignore[arg-type]
    assert found == {
        "n": 10,
        "right": 6,
        "right_direct": 2,
        "right_steps": 2,
        "right_wrong_steps": 2,
        "wrong_right_steps": 2,
    }


def test_votes_are_counted_by_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    # Four answers to each problem: two votes against one, and one against two.
    write(monkeypatch, [CAREFUL, DIRECT, WRONG, "6", WRONG, "", WRONG, DIRECT])
    found = reasoning.vote(MODEL)  # type: ignore[arg-type]
    assert found == {"right": [2, 1, 2, 1, 2], "majority": [1, 0, 1, 0, 1]}


def go_on(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """A writer that goes on from the last state, ignores it, or says always the same."""
    game = ShellGame()

    def continue_(model: object, prompts: list[Tensor], **settings: object) -> list[Tensor]:
        return [game.encode(finish(game.decode(prompt))) for prompt in prompts]

    def finish(text: str) -> str:
        prompt, _, thought = text.partition("?")
        start, moves = game.read(Problem(f"{prompt.strip()} ?", ""))
        words = thought.split()
        done = sum(word.startswith("(") for word in words)
        states = [word for word in words if word.isdigit()]
        state = tuple(int(word) for word in states[-2:]) if states else start
        if rule == "ignores":
            state, done = start, 0
        if words[-1] != "=":
            for move in moves[done:]:
                state = game.apply(state, move)
        if rule == "same":
            state = (1, 2)
        ending = f"{state[0]} {state[1]} $"
        return ending if words[-1] == "=" else f"= {ending}"

    monkeypatch.setattr(reasoning, "generate", continue_)


@pytest.mark.parametrize(
    ("rule", "follows", "ignores", "untouched"),
    [("follows", 10, 0, 10), ("ignores", 0, 10, 10)],
)
@pytest.mark.parametrize("step", [1, 2, 4])
def test_what_an_answer_follows_is_counted(
    monkeypatch: pytest.MonkeyPatch,
    rule: str,
    follows: int,
    ignores: int,
    untouched: int,
    step: int,
) -> None:
    go_on(monkeypatch, rule)
    found = reasoning.intervene(MODEL, reasoning.tests(4, 10), step)  # type: ignore[arg-type]
    assert found["n"] == 10
    assert (found["follows"], found["ignores"], found["untouched"]) == (follows, ignores, untouched)


def test_early_answers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on(monkeypatch, "follows")
    for step in range(5):
        found = reasoning.answer_early(MODEL, 4, step)  # type: ignore[arg-type]
        assert found["last_state"] == 10
        assert found["right"] == 10 if step == 4 else found["right"] < 10


def test_a_first_step_that_is_given_is_gone_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on(monkeypatch, "follows")
    assert reasoning.forced(MODEL) == {"n": 10, "right": 10}  # type: ignore[arg-type]
    go_on(monkeypatch, "same")
    assert reasoning.forced(MODEL)["right"] < 10  # type: ignore[arg-type]


# --- operations ----------------------------------------------------------------------------------


def test_operations_are_six_for_each_weight_and_token() -> None:
    model = DecoderLM(reasoning.STUDENT)
    weights = sum(p.numel() for p in model.parameters()) - model.embedding.weight.numel()
    assert reasoning.operations(reasoning.STUDENT, 1000) == 6 * weights * 1000


def test_a_bill_contains_the_smaller_ones() -> None:
    budgets = reasoning.budgets(1)
    assert budgets["half of the student"] * 2 == budgets["student"]
    assert budgets["student"] < budgets["with the teacher's learning"]
    assert budgets["with the teacher's base"] - budgets["with the teacher's learning"] == (
        pytest.approx(reasoning.operations(reasoning.TEACHER, reasoning.BASE.tokens))
    )


@pytest.mark.slow
def test_reinforcement_stops_after_the_step_that_uses_the_budget_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reasoning, "budgets", lambda seed: {"student": 2e8})
    found = reasoning.reinforce_student(short(reasoning.arms()["student, RL"]), 1)
    assert found["budget"] == 2e8 <= found["rl_flops"]
    assert found["rl_flops"] - found["steps"][-1]["flops"] < 2e8
    assert found["rl_steps"] == len(found["steps"]) > 1


def test_no_more_than_a_hundred_steps_are_kept() -> None:
    steps = [{"reward": n} for n in range(250)]
    kept = reasoning.thinned(steps)
    assert [step["step"] for step in kept] == list(range(0, 250, 3))
    assert all(step["step"] == step["reward"] for step in kept)
    assert len(reasoning.thinned(steps[:100])) == 100
