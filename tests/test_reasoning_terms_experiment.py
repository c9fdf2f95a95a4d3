"""The experiment on terms: what each arm learns from, with which optimizer, on which swaps."""

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import reasoning
import reasoning_terms as terms
import torch
from reasoning import GAME

from slingshot.grpo import GRPOConfig
from slingshot.lm import DecoderLM
from slingshot.tasks import ShellGame, Trace
from slingshot.train import TrainConfig

QUICK = TrainConfig(2, learning_rate=1e-3, warmup=0, batch_tokens=512)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few problems, short trainings, and nothing made before or left behind."""
    monkeypatch.setattr(reasoning, "N_PROBLEMS", 60)
    monkeypatch.setattr(reasoning, "N_TESTS", 20)
    for name in ("STUDENT_BASE", "FINE_TUNING", "HALF"):
        monkeypatch.setattr(terms, name, QUICK)
    monkeypatch.setattr(terms, "N_FEW", 5)
    monkeypatch.setattr(terms, "BUDGET", 1.0)
    monkeypatch.setattr(terms, "RL", replace(reasoning.RL, n_problems=2, n_rollouts=4))
    forget()
    yield
    forget()


def forget() -> None:
    for made in (reasoning.base, reasoning.tests, terms.careful_student):
        made.cache_clear()


def test_what_is_stored_can_be_said_in_json_and_tells_the_arms_apart() -> None:
    runs = terms.runs()
    assert len({run.key for run in runs}) == len(runs)
    seeds = {name: {run.seed for run in runs if run.name == name} for name in terms.arms()}
    for name, arm in terms.arms().items():
        assert seeds[name] == set(arm.seeds)
    told = [json.dumps(run.configuration) for run in runs]
    assert len(set(told)) == len(told)
    assert all(json.loads(json.dumps(run.configuration)) == run.configuration for run in runs)


def test_a_curriculum_begins_with_one_swap_and_ends_with_the_range_of_the_texts() -> None:
    assert terms.CURRICULUM[0] == (1, 1)
    assert terms.CURRICULUM[-1] == terms.ALL_SWAPS == GAME.swaps
    assert [high for _, high in terms.CURRICULUM] == sorted(high for _, high in terms.CURRICULUM)


@pytest.mark.parametrize("name", terms.arms())
@pytest.mark.slow
def test_each_arm_learns_on_its_terms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = terms.arms()[name]
    asked: list[tuple[int, int]] = []
    moved_by: list[Any] = []
    budgets: list[float | None] = []
    learned: list[tuple[list[Trace], TrainConfig]] = []

    def practice(
        model: DecoderLM, game: ShellGame, reward: object, config: GRPOConfig, **settings: object
    ) -> SimpleNamespace:
        asked.append(game.swaps)
        budgets.append(config.max_flops)
        moved_by.append(settings["optimizers"])
        return SimpleNamespace(flops=config.max_flops, seconds=1.0)

    def read(
        model: DecoderLM,
        game: object,
        traces: list[Trace],
        config: TrainConfig,
        **settings: object,
    ) -> None:
        learned.append((traces, config))

    generator = torch.Generator().manual_seed(0)
    problems = [GAME.sample(generator) for _ in range(40)]
    written = [Trace(problem, GAME.trace(problem)) for problem in problems]
    monkeypatch.setattr(terms, "written", lambda *others: (written, 1.0))
    monkeypatch.setattr(terms, "train_grpo", practice)
    monkeypatch.setattr(terms, "distill", read)
    monkeypatch.setattr(terms, "thinned", list)  # of no steps
    (run,) = (run for run in terms.runs() if run.key == f"{name}/0")
    result = terms.execute(run)
    assert json.loads(json.dumps(result)) == result
    assert result["before"]["hard"]["n"] == result["after"]["hard"]["n"] == 20
    if arm.kind == "distill":
        low, high = arm.swaps
        kept = [trace for trace in written if low <= trace.text.count("(") <= high]
        assert learned == [(kept, arm.optimizer)]
    elif arm.kind == "few":
        assert all(GAME.verify_steps(*trace) for traces, _ in learned for trace in traces)
        assert [len(traces) for traces, _ in learned] == [5] * (1 if arm.reward else 2)
        assert len(asked) == arm.reward
    else:
        assert asked == list(arm.curriculum or (arm.swaps,))
        assert budgets == [pytest.approx(terms.BUDGET / len(asked))] * len(asked)
        assert result["rl_flops"] == pytest.approx(terms.BUDGET)
        for optimizers in moved_by:
            rates = {each.param_groups[0]["lr"] for each in optimizers or ()}
            wanted = arm.optimizer
            assert rates == ({wanted.learning_rate, wanted.muon_rate} if wanted else set())


@pytest.mark.slow
def test_two_runs_go_on_from_the_same_student() -> None:
    before = [p.clone() for p in terms.careful_student(0).parameters()]
    for reward in (True, False):
        terms.few(replace(terms.arms()["few, then reward"], reward=reward), 0)
    assert all(map(torch.equal, terms.careful_student(0).parameters(), before))
