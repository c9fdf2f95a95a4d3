"""The experiment on contestants: what each arm learns from, and that bills are equal."""

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import contestants
import pytest
import reasoning
import torch
from reasoning import GAME, operations

from slingshot import sizes
from slingshot.distill import OnPolicyHistory
from slingshot.lm import DecoderLM
from slingshot.results import stored_results
from slingshot.tasks import Trace

GRADED = [name for name, arm in contestants.arms().items() if arm.rl is None]
REWARDED = [name for name in contestants.arms() if name not in GRADED]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models that have learned nothing, few tests, and no model made before or left behind."""
    untaught = DecoderLM(reasoning.STUDENT)
    model = SimpleNamespace(model=untaught)
    monkeypatch.setattr(reasoning, "N_TESTS", 4)
    for name in ("base", "teacher", "teacher_base"):
        monkeypatch.setattr(contestants, name, lambda *others: model)
    problem = GAME.sample(torch.Generator().manual_seed(0))
    told = [Trace(problem, GAME.trace(problem)), Trace(problem, "= 1 1 $")]
    monkeypatch.setattr(contestants, "written", lambda *others: (told, 1.0))
    reasoning.tests.cache_clear()
    yield
    reasoning.tests.cache_clear()


def active(config: Any) -> int:  # noqa: ANN401
    return sizes.count_parameters(config.sizes()).active_without_embedding


def test_a_graded_token_costs_what_three_readings_and_a_lesson_cost() -> None:
    student, teacher = active(reasoning.STUDENT), active(reasoning.TEACHER)
    # Written and learned by the student, read by the teacher.
    assert contestants.bill(300) == pytest.approx(300 * (2 * student + 6 * student + 2 * teacher))
    assert 6 * student * reasoning.FINE_TUNING.tokens == contestants.BUDGET


def test_what_is_stored_spent_the_budget() -> None:
    stored = stored_results("contestants")
    shares = [run["flops"] / run["budget"] for name in GRADED for run in stored.of(name)]
    # Texts are as long as they become, and steps were counted beforehand.
    assert 0.97 < min(shares) <= max(shares) < 1.03
    assert {run["budget"] for name in GRADED for run in stored.of(name)} == {contestants.BUDGET}


@pytest.mark.parametrize("name", GRADED)
def test_a_graded_arm_is_graded_as_it_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = contestants.arms()[name]
    lessons: list[Any] = []
    graded: list[dict[str, Any]] = []

    def read(student: Any, game: Any, traces: Any, config: Any, **others: Any) -> None:  # noqa: ANN401
        lessons.append((traces, config))

    def grade(student: Any, teacher: Any, game: Any, config: Any, **others: Any) -> Any:  # noqa: ANN401
        graded.append({"config": config, **others})
        return OnPolicyHistory(losses=[1.0, 0.5], tokens=300, lengths=[4.0, 5.0])

    monkeypatch.setattr(contestants, "distill", read)
    monkeypatch.setattr(contestants, "distill_on_policy", grade)
    (run,) = (run for run in contestants.runs() if run.key == f"{name}/1")
    result = contestants.execute(run)
    assert json.loads(json.dumps(result)) == result
    (settings,) = graded
    assert (settings["divergence"], settings["seed"]) == (arm.divergence, 2)
    first = operations(reasoning.STUDENT, contestants.HALF.tokens)
    if arm.texts_first:
        ((traces, config),) = lessons
        assert all(GAME.verify(*trace) for trace in traces)
        assert len(traces) == 1
        assert (config, settings["config"]) == (contestants.HALF, contestants.HALF_GRADED)
        assert result["flops"] == first + contestants.bill(300)
    else:
        assert (lessons, settings["config"]) == ([], contestants.GRADED)
        assert result["flops"] == contestants.bill(300)


@pytest.mark.parametrize("name", REWARDED)
def test_an_arm_with_a_reward_differs_in_its_objective_alone(name: str) -> None:
    rl = contestants.arms()[name].rl
    assert rl is not None
    assert (rl.n_updates, rl.variant) == (4, name.rpartition(" ")[2])
    same = replace(rl, variant="dapo", n_updates=1, epsilon_low=None, epsilon_high=None)
    assert same == reasoning.RL


def test_runs_are_told_apart_in_json() -> None:
    told = [json.dumps(run.configuration) for run in contestants.runs()]
    assert len(set(told)) == len(told) == 3 * len(contestants.arms())
    assert 2 * contestants.HALF_GRADED.steps <= contestants.GRADED.steps
