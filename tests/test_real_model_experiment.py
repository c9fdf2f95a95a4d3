"""The experiment on a real model: what each arm learns from, and what is counted, in small."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import real_model
import reasoning
import torch
from _runner import Run
from torch import nn

from slingshot.corpus import Document
from slingshot.distill import distill_on_policy, encode_traces
from slingshot.finetune import fine_tune
from slingshot.grpo import GRPOConfig, train_grpo
from slingshot.lm import DecoderLM, LMConfig
from slingshot.pretrained import Pretrained
from slingshot.tasks import Trace
from slingshot.train import History
from test_sentences import byte_tokenizer

TINY = LMConfig(257, 8, 3, 2, 12, n_kv_heads=1, tied_embedding=True)
CACHES = (
    real_model.pretrained,
    real_model.game,
    real_model.tests,
    real_model.windows,
    real_model.numpy_windows,
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model of few weights that reads bytes, few problems, and nothing left behind."""
    torch.manual_seed(0)
    model = DecoderLM(TINY).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    for cached in CACHES:
        cached.cache_clear()
    monkeypatch.setattr(real_model, "load_smollm2", lambda: Pretrained(model, byte_tokenizer()))
    monkeypatch.setattr(real_model, "numpy_documentation", lambda: "add numbers " * 90)
    code = [Document("a.py", "x = 1\n" * 100)]
    monkeypatch.setattr(real_model, "standard_library", lambda: code)
    for name, value in {
        "N_TESTS": 2,
        "SHOT_TESTS": 2,
        "N_CHANGED": 2,
        "SWAPS": (2,),
        "SHOT_SWAPS": (2,),
        "WINDOWS": 2,
        "LENGTH": 16,
    }.items():
        monkeypatch.setattr(real_model, name, value)
    yield
    for cached in CACHES:
        cached.cache_clear()


def small_arm(name: str) -> real_model.Arm:
    arm = real_model.arms()[name]
    steps_of = arm.steps_of and 1000
    return replace(arm, problems=4, batch_tokens=2000, layers=2, steps_of=steps_of)


@pytest.mark.parametrize("name", real_model.arms())
def test_each_arm_runs_and_leaves_the_model_as_it_came(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    game = real_model.game()
    monkeypatch.setattr(real_model, "by_miniature", lambda n, seed: lesson("traces", n))
    before = {k: v.clone() for k, v in real_model.pretrained().model.state_dict().items()}
    arm = small_arm(name)
    result = real_model.taught(arm, 1)
    assert json.loads(json.dumps(result)) == result
    assert len(result["losses"]) == result["steps"] > 0
    assert result["after"]["2"]["n"] == 2
    assert {len(losses) for losses in result["forgotten"].values()} == {2}
    assert ("changed" in result) == (arm.teaches != "answers")
    assert (result["right_steps"] == result["problems"]) == (arm.teaches != "answers")
    after = real_model.pretrained().model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert game.end == 256


def test_the_controls_of_lora_change_the_steps_or_their_size_and_not_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("LoRA", "LoRA, half the batch")
    controls = ("LoRA, the steps of half the batch", "LoRA, half the batch, no more steps")
    monkeypatch.setattr(real_model, "fine_tune", lambda *args, **settings: History())
    arms = real_model.arms()
    usual, half, more_steps, small_steps = (arms[name] for name in (*names, *controls))
    assert more_steps.batch_tokens == usual.batch_tokens == 2 * half.batch_tokens
    assert small_steps.batch_tokens == half.batch_tokens
    scaled = {
        arm: replace(  # bytes are more tokens than words
            arm,
            problems=12,
            batch_tokens=6 * arm.batch_tokens,
            steps_of=arm.steps_of and 6 * arm.steps_of,
        )
        for arm in (usual, half, more_steps, small_steps)
    }
    steps = [real_model.teach(arm, 0).told["steps"] for arm in scaled.values()]
    assert steps[2] == steps[1] > steps[0] == steps[3]
    others = [replace(arm, batch_tokens=1, steps_of=None) for arm in scaled]
    assert len(set(others)) == 1


def test_a_reward_moves_the_last_layers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    arm = real_model.Arm(problems=4, batch_tokens=2000, layers=1)
    monkeypatch.setattr(real_model, "HALF_TAUGHT", arm)
    rl = GRPOConfig(2, n_problems=2, n_rollouts=2, max_new_tokens=6)
    monkeypatch.setattr(real_model, "RL", rl)
    seen: list[set[str]] = []

    def train(model: DecoderLM, *others: Any, **settings: Any) -> Any:  # noqa: ANN401
        seen.append({name for name, p in model.named_parameters() if p.requires_grad})
        return train_grpo(model, *others, **settings)

    monkeypatch.setattr(real_model, "train_grpo", train)
    result = real_model.reinforced(1)
    assert json.loads(json.dumps(result)) == result
    assert len(result["rewards"]) == len(result["lengths"]) == 2
    assert set(result["before"]) == set(result["after"]) == {"2"}
    (learned,) = seen
    assert {name.split(".")[1] for name in learned if "layers" in name} == {"2"}
    assert not any("embedding" in name or "head" in name for name in learned)


@pytest.mark.parametrize("name", real_model.GRADES)
def test_a_teacher_that_has_learned_all_grades_one_that_has_learned_little(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = real_model.Arm(problems=4, batch_tokens=2000, layers=1)
    monkeypatch.setattr(real_model, "HALF_TAUGHT", arm)
    rl = GRPOConfig(2, n_problems=2, n_rollouts=2, max_new_tokens=6, warmup=1)
    monkeypatch.setattr(real_model, "RL", rl)
    taught: list[int] = []
    seen: list[tuple[set[str], bool, str]] = []
    teach = real_model.teach

    def count(arm: real_model.Arm, seed: int) -> real_model.Taught:
        taught.append(arm.problems)
        return teach(arm, seed)

    def learn(student: DecoderLM, teacher: DecoderLM, *others: Any, **settings: Any) -> Any:  # noqa: ANN401
        learned = {name for name, p in student.named_parameters() if p.requires_grad}
        frozen = not any(p.requires_grad for p in teacher.parameters())
        seen.append((learned, frozen, settings["divergence"]))
        return distill_on_policy(student, teacher, *others, **settings)

    monkeypatch.setattr(real_model, "teach", count)
    monkeypatch.setattr(real_model, "distill_on_policy", learn)
    result = real_model.execute(Run(name, 1, {}))
    assert json.loads(json.dumps(result)) == result
    assert len(result["losses"]) == len(result["lengths"]) == 2
    assert set(result["before"]) == set(result["after"]) == set(result["teacher"]) == {"2"}
    assert taught == [real_model.Arm().problems, 4]
    ((learned, frozen, divergence),) = seen
    assert frozen
    assert divergence == name.removeprefix("graded, ")
    assert {name.split(".")[1] for name in learned if "layers" in name} == {"2"}
    assert not any("embedding" in name or "head" in name for name in learned)


def test_a_student_that_reads_on_reads_as_many_thoughts_as_others_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arm = real_model.Arm(problems=4, batch_tokens=2000, layers=1)
    monkeypatch.setattr(real_model, "HALF_TAUGHT", arm)
    rl = GRPOConfig(2, n_problems=2, n_rollouts=3, max_new_tokens=6, warmup=1)
    monkeypatch.setattr(real_model, "RL", rl)
    seen: list[tuple[int, set[str]]] = []

    def learn(model: DecoderLM, examples: Any, *others: Any, **settings: Any) -> Any:  # noqa: ANN401
        learned = {name for name, p in model.named_parameters() if p.requires_grad}
        seen.append((len(examples), learned))
        return fine_tune(model, examples, *others, **settings)

    monkeypatch.setattr(real_model, "fine_tune", learn)
    result = real_model.execute(Run("reads on", 1, {}))
    assert json.loads(json.dumps(result)) == result
    assert len(result["losses"]) == 2
    first, second = seen
    assert (first[0], second[0]) == (4, 2 * 2 * 3)
    assert {name.split(".")[1] for name in second[1] if "layers" in name} == {"2"}


def test_a_step_is_timed_in_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_model, "BATCH_TOKENS", 2000)
    monkeypatch.setattr(real_model, "N_PROBLEMS", 4)
    result = real_model.bits()
    assert set(result) == {"vectors", "float32", "bfloat16"}
    assert json.loads(json.dumps(result)) == result


def lesson(teaches: Any, n: int, **others: Any) -> list[Trace]:  # noqa: ANN401
    return real_model.lessons(real_model.Arm(teaches, problems=n, **others), 1)


def test_the_same_problems_are_taught_with_and_without_a_thought() -> None:
    traces, answers = lesson("traces", 20), lesson("answers", 20)
    assert [each.problem for each in traces] == [each.problem for each in answers]
    game = real_model.game()
    assert all(game.verify_steps(*each) for each in traces)
    assert all(game.verify(*each) and not game.verify_steps(*each) for each in answers)
    assert all(game.trace(each.problem, "direct") == each.text for each in answers)


def test_as_many_tokens_are_as_many_tokens() -> None:
    traces, answers = lesson("traces", 20), lesson("answers", 20, as_many_tokens=True)
    game = real_model.game()
    budget, spent = (
        sum(len(e.prompt) + len(e.completion) for e in encode_traces(game, each))
        for each in (traces, answers)
    )
    longest = max(len(e.prompt) + len(e.completion) for e in encode_traces(game, answers))
    assert budget - longest < spent <= budget
    assert [each.problem for each in answers[:20]] == [each.problem for each in traces]
    assert len(answers) > 20


def test_practice_and_tests_share_no_problem() -> None:
    learned = {each.problem.prompt for each in lesson("traces", 200)}
    asked = {each.prompt for swaps in (4, 6) for each in real_model.tests(swaps, 32)}
    assert not learned & asked


def test_what_is_mixed_in_is_not_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    words = " ".join(str(number) for number in range(600))
    monkeypatch.setattr(real_model, "numpy_documentation", lambda: words)
    game = real_model.game()
    mixed = game.decode(real_model.text_to_mix())
    for window in real_model.windows()["NumPy"]:
        assert game.decode(window) in words
        assert game.decode(window)[4:-4] not in mixed


def test_one_run_before_and_what_it_stores() -> None:
    result = real_model.before()
    assert json.loads(json.dumps(result)) == result
    assert {"forgotten", "traces", "answers"} == set(result)
    assert result["traces"]["2"]["n"] == 2


def test_runs_are_told_apart_in_json() -> None:
    runs = real_model.runs()
    told = [json.dumps(run.configuration) for run in runs]
    assert len(set(told)) == len(told) == len({run.key for run in runs})
    assert all(json.loads(text) == run.configuration for text, run in zip(told, runs, strict=True))


def test_a_miniature_speaks_in_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(model: Any, game: Any, problems: Any, **others: Any) -> list[Trace]:  # noqa: ANN401
        made = [Trace(each, game.trace(each)) for each in problems]
        wrong = Trace(problems[0], "= 1 1 $")
        odd = Trace(problems[1], f"(2) 1-2 = {problems[1].answer} $")
        return [wrong, odd, *made[2:]]

    class Teacher:
        model = None

    monkeypatch.setattr(real_model, "sample_traces", write)
    monkeypatch.setattr(reasoning, "teacher", lambda seed: Teacher())
    written = real_model.by_miniature(5, 0)
    assert len(written) == 5
    assert all(real_model.game().verify_steps(*each) for each in written)
