"""Sampling, keeping and learning: each step alone, both distillations, and all together."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from slingshot.completions import completion_batches
from slingshot.distill import (
    distill,
    distill_logits,
    encode_traces,
    hinton_loss,
    keep_verified,
    sample_traces,
)
from slingshot.lm import DecoderLM, LMConfig, generate
from slingshot.tasks import Problem, ShellGame, Trace, Walk, write_traces
from slingshot.train import TrainConfig, train_on_completions

TASK = ShellGame(cups=3, balls=1, swaps=(1, 3), longest=3)
CONFIG = LMConfig(TASK.vocabulary_size, 16, 2, 2, 32, activation="relu2", rope_base=1000.0)
SHORT = TrainConfig(3, batch_tokens=200, muon_rate=0.02, warmup=0)


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_problems(n: int, seed: int = 0) -> list[Problem]:
    generator = make_generator(seed)
    return [TASK.sample(generator) for _ in range(n)]


def make_model(seed: int = 0) -> DecoderLM:
    """A model whose layers all have a say."""
    torch.manual_seed(seed)
    model = DecoderLM(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return model


# --- sampling ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_traces_come_problem_by_problem_whatever_the_batches() -> None:
    model, problems = make_model(), make_problems(7)
    for batch_size in (1, 3, 100):
        traces = sample_traces(
            model, TASK, problems, samples=2, temperature=0.0, batch_size=batch_size
        )
        assert [trace.problem for trace in traces] == [p for p in problems for _ in range(2)]
        for problem, text in traces:
            (alone,) = generate(
                model,
                [TASK.encode(problem.prompt)],
                max_new_tokens=80,
                end=TASK.end,
                temperature=0.0,
            )
            assert text == TASK.decode(alone)


def test_texts_end_with_the_end_or_with_the_budget() -> None:
    traces = sample_traces(
        make_model(), TASK, make_problems(40), max_new_tokens=6, generator=make_generator()
    )
    lengths = [len(trace.text.split()) for trace in traces]
    ended = [trace.text.endswith("$") for trace in traces]
    assert all(length == 6 or end for length, end in zip(lengths, ended, strict=True))
    assert 0 < sum(ended) < 40
    assert not any("$" in trace.text.split()[:-1] for trace in traces)


def test_a_generator_fixes_what_is_sampled() -> None:
    model, problems = make_model(), make_problems(10)
    first, again, other = (
        sample_traces(model, TASK, problems, samples=3, generator=make_generator(seed))
        for seed in (0, 0, 1)
    )
    assert first == again != other
    assert len({trace.text for trace in first[:3]}) > 1  # samples of one problem differ


@pytest.mark.parametrize(("samples", "batch_size"), [(0, 512), (1, 0)])
def test_samples_that_cannot_be_are_named(samples: int, batch_size: int) -> None:
    message = f"samples is {samples} and batch_size {batch_size}; give at least 1"
    with pytest.raises(ValueError, match=message):
        sample_traces(make_model(), TASK, make_problems(1), samples=samples, batch_size=batch_size)


def test_no_problems_have_no_traces() -> None:
    assert sample_traces(make_model(), TASK, []) == []


# --- keeping -----------------------------------------------------------------------------------


def test_only_what_the_verifier_accepts_is_kept_in_its_order() -> None:
    problem = Problem("1 (1) 1-2 (2) 2-3 ?", "3")
    right = Trace(problem, "(1) 1-2 2 (2) 2-3 3 = 3 $")
    lucky, wrong = Trace(problem, "= 3 $"), Trace(problem, "= 2 $")
    confused = Trace(problem, "(1) 1-2 1 (2) 2-3 1 = 3 $")
    traces = [wrong, lucky, right, confused, right]
    assert keep_verified(traces, TASK.verify) == [lucky, right, confused, right]
    assert keep_verified(traces, TASK.verify_steps) == [right, right]
    assert keep_verified(iter(traces), lambda problem, text: "(1)" in text) == [
        right,
        confused,
        right,
    ]


# --- learning from texts -----------------------------------------------------------------------


def test_traces_become_prompts_and_completions() -> None:
    (trace,) = write_traces(TASK, 1, {"careful": 1.0}, generator=make_generator())
    (example,) = encode_traces(TASK, [trace])
    assert TASK.decode(example.prompt) == trace.problem.prompt
    assert TASK.decode(example.completion) == trace.text
    assert example.completion[-1] == TASK.end


def test_distillation_is_fine_tuning_on_the_texts() -> None:
    traces = write_traces(TASK, 30, {"careful": 1.0}, generator=make_generator())
    models = [make_model() for _ in range(2)]
    history = distill(models[0], TASK, traces, SHORT, seed=4, progress=False)
    examples = encode_traces(TASK, traces)
    by_hand = train_on_completions(models[1], examples, SHORT, seed=4, progress=False)
    assert history.losses == by_hand.losses
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_a_student_learns_to_reason_from_traces_and_not_from_answers() -> None:
    task = ShellGame(cups=4, balls=1, swaps=(1, 6), longest=6)
    problems = [task.sample(generator) for generator in [make_generator()] for _ in range(600)]
    config = TrainConfig(
        300,
        learning_rate=1e-2,
        warmup=10,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        muon_rate=0.02,
        batch_tokens=512,
    )
    test = [task.sample(generator) for generator in [make_generator(1)] for _ in range(200)]
    right = {}
    for style in ("direct", "careful"):
        torch.manual_seed(0)
        student = DecoderLM(
            LMConfig(task.vocabulary_size, 32, 2, 4, 128, activation="relu2", rope_base=1000.0)
        )
        traces = [Trace(problem, task.trace(problem, style)) for problem in problems]
        distill(student, task, traces, config, progress=False)
        answers = sample_traces(student, task, test, temperature=0.0)
        right[style] = sum(task.verify(*answer) for answer in answers) / len(test)
    assert right["careful"] > 0.9
    assert right["direct"] < 0.7


# --- learning from probabilities ---------------------------------------------------------------

logit_seeds = st.integers(0, 1000)


def make_logits(seed: int, n: int = 3, v: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = make_generator(seed)
    return (
        torch.randn(n, v, generator=generator, dtype=torch.float64),
        2 * torch.randn(n, v, generator=generator, dtype=torch.float64),
        torch.randint(v, (n,), generator=generator),
    )


@given(seed=logit_seeds, temperature=st.floats(0.3, 20.0), alpha=st.floats(0.0, 1.0))
@settings(max_examples=50, deadline=None)
def test_the_loss_is_hintons(seed: int, temperature: float, alpha: float) -> None:
    logits, teacher, targets = make_logits(seed)
    total = 0.0
    for z, v, target in zip(logits.tolist(), teacher.tolist(), targets.tolist(), strict=True):
        p = [math.exp(x / temperature) for x in v]
        q = [math.exp(x / temperature) for x in z]
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        hard = math.log(sum(math.exp(x) for x in z)) - z[target]
        total += (1 - alpha) * hard + alpha * temperature**2 * divergence
    loss = hinton_loss(logits, teacher, targets, temperature=temperature, alpha=alpha)
    assert loss.item() == pytest.approx(total / 3, rel=1e-9, abs=1e-12)


def test_without_a_teacher_it_is_cross_entropy_and_with_its_own_it_is_nothing() -> None:
    logits, teacher, targets = make_logits(0)
    hard = hinton_loss(logits, teacher, targets, alpha=0.0)
    assert hard.item() == pytest.approx(F.cross_entropy(logits, targets).item())
    same = hinton_loss(logits, logits + 3.0, targets, alpha=1.0)  # softmax ignores a constant
    assert same.item() == pytest.approx(0.0, abs=1e-12)


def test_at_high_temperatures_the_gradient_is_the_difference_of_centered_logits() -> None:
    logits, teacher, targets = make_logits(1, n=1)
    logits.requires_grad_()
    centered = (logits - logits.mean()) - (teacher - teacher.mean())
    for temperature in (1e3, 1e4):
        loss = hinton_loss(logits, teacher, targets, temperature=temperature, alpha=1.0)
        gradient = torch.autograd.grad(loss, logits)[0]
        # The next term of the series is smaller by about the largest logit over the temperature.
        torch.testing.assert_close(gradient, centered.detach() / 5, rtol=0, atol=30 / temperature)


def test_no_gradient_reaches_the_teacher() -> None:
    logits, teacher, targets = make_logits(2)
    logits.requires_grad_()
    teacher.requires_grad_()
    hinton_loss(logits, teacher, targets).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_logits_are_compared_where_there_is_a_completion(alpha: float) -> None:
    traces = write_traces(TASK, 30, {"careful": 1.0}, generator=make_generator())
    student, teacher = make_model(0), make_model(1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    batch = next(completion_batches(encode_traces(TASK, traces), 200, seed=4))
    places = batch.learned
    expected = hinton_loss(
        student(batch.tokens[:, :-1]).logits[places],
        teacher(batch.tokens[:, :-1]).logits[places],
        batch.tokens[:, 1:][places],
        temperature=3.0,
        alpha=alpha,
    )
    history = distill_logits(
        student, teacher, TASK, traces, SHORT, temperature=3.0, alpha=alpha, seed=4, progress=False
    )
    assert history.losses[0] == pytest.approx(expected.item())
    assert all(value.equal(before[name]) for name, value in teacher.state_dict().items())
    if not alpha:
        plain = distill(make_model(0), TASK, traces, SHORT, seed=4, progress=False)
        assert history.losses == pytest.approx(plain.losses)


def test_a_student_comes_to_believe_what_its_teacher_believes() -> None:
    traces = write_traces(TASK, 60, {"careful": 1.0}, generator=make_generator())
    student, teacher = make_model(0), make_model(1)
    config = TrainConfig(150, learning_rate=1e-2, batch_tokens=400, muon_rate=0.02, warmup=5)
    history = distill_logits(
        student, teacher, TASK, traces, config, temperature=1.0, alpha=1.0, progress=False
    )
    assert sum(history.losses[-5:]) / 5 < 0.1 * history.losses[0]


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (
            ((2, 3), (2, 4), (2,)),
            {},
            r"logits have shapes \(2, 3\) and \(2, 4\) and targets \(2,\)",
        ),
        (((2, 3), (2, 3), (3,)), {}, r"and targets \(3,\); pass \[N, V\] twice and \[N\]"),
        (((6,), (6,), ()), {}, r"logits have shapes \(6,\) and \(6,\) and targets \(\)"),
        (((2, 3), (2, 3), (2,)), {"temperature": 0.0}, r"temperature is 0\.0 and alpha 0\.5; give"),
        (((2, 3), (2, 3), (2,)), {"alpha": 1.5}, r"temperature is 2\.0 and alpha 1\.5; give a pos"),
    ],
)
def test_what_cannot_be_compared_is_named(
    shapes: tuple[tuple[int, ...], ...], options: dict[str, float], message: str
) -> None:
    logits, teacher = torch.zeros(shapes[0]), torch.zeros(shapes[1])
    with pytest.raises(ValueError, match=message):
        hinton_loss(logits, teacher, torch.zeros(shapes[2], dtype=torch.int64), **options)


def test_two_vocabularies_have_no_common_logits() -> None:
    walker = DecoderLM(LMConfig(Walk().vocabulary_size, 16, 1, 2, 16))
    message = f"the student has {TASK.vocabulary_size} tokens and the teacher "
    with pytest.raises(ValueError, match=message):
        distill_logits(make_model(), walker, TASK, [], SHORT)
