"""The experiment with hints: what stands in a prompt, and what is counted of the answers."""

import json
from dataclasses import replace
from typing import Any

import hints
import pytest
import reasoning
import torch
from hints import HintedGame, hinted, plain
from reasoning import GAME, Trained

from slingshot.grpo import GRPOHistory, train_grpo
from slingshot.lm import DecoderLM
from slingshot.tasks import Problem, Trace

PROBLEM = Problem("2 5 (1) 2-6 (2) 1-4 (3) 2-3 ?", "6 5")
CAREFUL = "(1) 2-6 6 5 (2) 1-4 6 5 (3) 2-3 6 5 = 6 5 $"
# The first ball is followed, the second stands where a hint has it, under the same cup at the end.
COPIED = "(1) 2-6 6 6 (2) 1-4 6 6 (3) 2-3 6 6 = 6 6 $"


def test_a_hint_goes_into_the_prompt_and_out_again() -> None:
    asked = hinted(PROBLEM, "1 6")
    assert asked == Problem("2 5 (1) 2-6 (2) 1-4 (3) 2-3 = 1 6 ?", "6 5")
    assert plain(asked) == plain(PROBLEM) == PROBLEM


def test_practice_gives_the_right_answer_away() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        problem = HintedGame(swaps=(4, 12)).sample(generator)
        assert problem.prompt.endswith(f"= {problem.answer} ?")
        assert GAME.verify(plain(problem), GAME.trace(plain(problem)))
        GAME.encode(problem.prompt)  # all of its words are known


def test_a_wrong_hint_has_no_ball_where_it_ends() -> None:
    problems = reasoning.tests(10, 50)
    made = hints.wrong_hints(problems)
    assert made == hints.wrong_hints(problems)
    for problem, hint in zip(problems, made, strict=True):
        cups = hint.split()
        assert len(set(cups)) == 2
        assert all(a != b for a, b in zip(cups, problem.answer.split(), strict=True))


def test_a_thought_is_demanded_or_not_and_never_checked() -> None:
    wrong_thought = "(1) 2-6 1 1 = 6 5 $"
    assert hints.REWARDS[False](PROBLEM, "= 6 5 $")
    assert not hints.with_a_thought(PROBLEM, "= 6 5 $")
    assert hints.with_a_thought(PROBLEM, wrong_thought)
    assert not hints.with_a_thought(PROBLEM, "(1) 2-6 6 5 = 6 4 $")


def test_states_and_balls_by_hand() -> None:
    assert hints.states("(1) 2-6 6 5 (2) 1-4 6 1 ! 6 5 = 6 5 $") == [
        ["6", "5"],
        ["6", "1"],
        ["6", "5"],
    ]
    assert hints.states("= 6 5 $") == []
    answers = ["6 5", "6 1", None, "5"]
    assert hints.by_ball(answers, ["6 5", "1 1", "6 5", "5 5"]) == [2, 2]
    assert hints.by_ball(answers, ["", "", "", ""]) == [0, 0]


def test_answers_are_counted_on_their_grounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "HARD", 3)
    texts = [CAREFUL, COPIED, "= 6 6 $", "(1) 2-6 6 5 (2) 1-4"]
    problems = (hinted(PROBLEM, "1 6"),) * 4
    monkeypatch.setattr(
        hints, "sample_traces", lambda *others, **settings: list(map(Trace, problems, texts))
    )
    found = hints.answered(DecoderLM(reasoning.STUDENT), problems, ["1 6"] * 4)
    assert found.pop("example") == f"{problems[0].prompt} {CAREFUL}"
    assert found == {
        "n": 4,
        "right": 1,
        "hint": 0,
        "last_state": 2,
        "balls": {"right": [3, 1], "hint": [0, 2]},
        "impossible": 1,
        "states": [2, 1, 1],
        "styles": {"careful": 3, "direct": 1},
    }


def test_what_swaps_once_too_often_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    once_more = CAREFUL.replace(" =", " (4) 2-3 6 5 =")
    monkeypatch.setattr(
        hints,
        "sample_traces",
        lambda *others, **settings: [
            Trace(PROBLEM, CAREFUL),
            Trace(PROBLEM, once_more),
            Trace(PROBLEM, once_more.replace("= 6 5", "= 6 1")),
        ],
    )
    found = hints.at_its_end(DecoderLM(reasoning.STUDENT), 3)
    assert (found["invented"], found["right"]) == (2, 1)


@pytest.mark.parametrize("name", hints.arms())
@pytest.mark.slow
def test_each_arm_runs_and_leaves_its_start_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = DecoderLM(reasoning.STUDENT)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for start in ("teacher", "teacher_base"):
        monkeypatch.setattr(hints, start, lambda seed: Trained(model, 0.0, 0.0))
    monkeypatch.setattr(hints, "RL", replace(reasoning.RL, steps=2, n_problems=2, n_rollouts=4))
    monkeypatch.setattr(hints, "N_TRUSTED", 4)
    monkeypatch.setattr(hints, "N_TESTS", 4)

    def learn(learner: DecoderLM, *others: Any, **settings: Any) -> GRPOHistory:  # noqa: ANN401
        history = train_grpo(learner, *others, **settings)
        for parameter in learner.parameters():  # two steps may have had nothing to learn from
            parameter.data.add_(0.01)
        return history

    monkeypatch.setattr(hints, "train_grpo", learn)
    (run,) = (run for run in hints.runs() if run.key == f"{name}/1")
    assert json.loads(json.dumps(run.configuration)) == run.configuration
    result = hints.execute(run)
    assert json.loads(json.dumps(result)) == result
    assert len(result["steps"]) == 2
    assert [row["step"] for row in result["after"]["interventions"]] == [1, 5, 9, 10]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
