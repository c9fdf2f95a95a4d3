"""The experiment on many tries: what is counted, by hand."""

import json
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import many_tries
import pytest
import reasoning
import torch
from reasoning import GAME
from torch import nn

from slingshot.lm import DecoderLM, LMConfig
from slingshot.tasks import Problem, Trace


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two problems, four tries, and a model that has learned nothing."""
    for name, value in {"N": 2, "TRIES": 4, "VOTERS": (1, 2, 4), "SWAPS": (2,)}.items():
        monkeypatch.setattr(many_tries, name, value)
    model = SimpleNamespace(model=untaught())
    for name in ("base", "teacher"):
        monkeypatch.setattr(many_tries, name, lambda seed: model)
    reasoning.tests.cache_clear()
    yield
    reasoning.tests.cache_clear()


def untaught() -> DecoderLM:
    """A model for which all tokens are equally likely."""
    model = DecoderLM(LMConfig(GAME.vocabulary_size, 8, 1, 2, 8, rope_base=1000.0))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model.eval()


def test_right_answers_and_votes_are_counted_in_the_order_of_the_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = reasoning.tests(2, 2)

    def tried(problem: Problem, *right: bool) -> list[Trace]:
        wrong = "= 1 1 $"
        return [Trace(problem, f"= {problem.answer} $" if each else wrong) for each in right]

    written = tried(one, True, False, False, False) + tried(two, False, True, True, True)
    monkeypatch.setattr(many_tries, "sample_traces", lambda *others, **settings: written)
    found = many_tries.answered(untaught(), 2)
    assert found["right"] == [1, 3]
    # Of one: right alone, a tie that the first wins, outvoted. Of two: wrong, a tie, right.
    assert found["voted"] == {"1": 1, "2": 1, "4": 1}
    assert found["tokens"] == 4


def test_a_model_that_knows_nothing_is_as_uncertain_as_can_be() -> None:
    traces = [Trace(problem, GAME.trace(problem)) for problem in reasoning.tests(2, 2)]
    expected = math.log(GAME.vocabulary_size)
    assert many_tries.uncertainty(untaught(), traces) == pytest.approx(expected, rel=1e-6)


def test_a_run_is_what_json_knows_and_stores_what_its_configuration_says() -> None:
    run = many_tries.runs()[1]
    assert json.loads(json.dumps(run.configuration)) == run.configuration
    result: dict[str, Any] = many_tries.execute(run)
    assert json.loads(json.dumps(result)) == result
    assert {when: list(found) for when, found in result.items()} == {
        "before": ["2"],
        "after": ["2"],
    }
    assert torch.tensor(result["before"]["2"]["right"]).shape == (2,)
