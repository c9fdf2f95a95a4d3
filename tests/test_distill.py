"""Sampling, keeping and learning: each step alone, both distillations, and all together."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from slingshot import completions
from slingshot import distill as distillation
from slingshot.completions import (
    CompletionBatch,
    Example,
    completion_batches,
    completion_logits,
    padded,
)
from slingshot.distill import (
    Divergence,
    distill,
    distill_logits,
    distill_on_policy,
    encode_traces,
    hinton_loss,
    keep_verified,
    sample_traces,
    token_divergence,
)
from slingshot.lm import DecoderLM, LMConfig, generate
from slingshot.sampling import sample_answers
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


@pytest.mark.parametrize(
    ("samples", "batch_size", "message"),
    [
        (0, 512, "samples is 0; give a whole number, at least 1"),
        (1.5, 512, r"samples is 1\.5; give a whole number, at least 1"),
        (1, 0, "batch_size is 0; give a whole number, at least 1"),
        (1, 2.5, r"batch_size is 2\.5; give a whole number, at least 1"),
    ],
)
def test_samples_that_cannot_be_are_named(samples: int, batch_size: int, message: str) -> None:
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


@pytest.mark.slow
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


# --- on policy ---------------------------------------------------------------------------------


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.01, 0.99))
def test_a_divergence_is_what_its_name_says(seed: int, share: float) -> None:
    logits, teacher, _ = make_logits(seed)
    logits, teacher = logits.double(), teacher.double()
    found = {
        kind: token_divergence(logits, teacher, kind, teacher_share=share).tolist()
        for kind in ("reverse", "forward", "mixed")
    }
    for row in range(3):
        p, q = (each[row].softmax(dim=0).tolist() for each in (logits, teacher))
        m = [share * b + (1 - share) * a for a, b in zip(p, q, strict=True)]
        # Five terms of at most 10: float64 leaves 1e-14 of them.
        assert found["reverse"][row] == pytest.approx(kl(p, q), abs=1e-13)
        assert found["forward"][row] == pytest.approx(kl(q, p), abs=1e-13)
        mixed = share * kl(q, m) + (1 - share) * kl(p, m)
        assert found["mixed"][row] == pytest.approx(mixed, abs=1e-13)


@pytest.mark.slow  # TRL takes seconds to import
@pytest.mark.parametrize(("kind", "beta"), [("forward", 0), ("reverse", 1), ("mixed", 0.3)])
def test_a_divergence_and_its_gradient_are_those_of_trl(kind: Divergence, beta: float) -> None:
    from trl.experimental.gkd import GKDTrainer

    logits, teacher, _ = make_logits(3)
    logits.requires_grad_()
    loss: Any = GKDTrainer.generalized_jsd_loss
    # Its "batchmean" divides by the first dimension: rows here.
    theirs = loss(logits, teacher, beta=beta)
    ours = token_divergence(logits, teacher, kind, teacher_share=beta % 1 or 0.5).mean()
    torch.testing.assert_close(ours, theirs)
    expected, found = (torch.autograd.grad(each, logits)[0] for each in (theirs, ours))
    torch.testing.assert_close(found, expected)
    assert expected.abs().max() > 0.01


def test_the_direction_decides_what_a_narrow_student_learns() -> None:
    # The teacher finds tokens 0 and 3 likely, the student must take one hill of neighbors.
    places = torch.arange(4.0)
    teacher = torch.tensor([[0.45, 0.05, 0.05, 0.45]]).log()
    heights: dict[str, Tensor] = {}
    for kind in ("reverse", "forward"):
        center = torch.tensor(1.0, requires_grad=True)
        optimizer = torch.optim.Adam([center], lr=0.05)
        for _ in range(300):
            logits = -2 * (places - center).square()[None]
            loss = token_divergence(logits, teacher, kind).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        heights[kind] = (-2 * (places - center.detach()).square()).softmax(dim=0)
    # Reversed, it does one of the two things; forward, it stands between both.
    assert heights["reverse"].max() > 0.8
    assert heights["reverse"].argmax() == 0
    assert heights["forward"][1:3].sum() > 0.9


def test_what_one_of_two_excludes() -> None:
    all_but_one = torch.tensor([[0.0, 1.0, -math.inf]], requires_grad=True)
    all_three = torch.tensor([[0.5, 0.0, 1.0]], requires_grad=True)
    loss = token_divergence(all_but_one, all_three, "reverse").sum()
    p, q = all_but_one.softmax(dim=1)[0], all_three.softmax(dim=1)[0]
    assert loss.item() == pytest.approx(sum((p[i] * (p[i] / q[i]).log()).item() for i in (0, 1)))
    (gradient,) = torch.autograd.grad(loss, all_but_one)
    assert gradient.isfinite().all()
    mixed = token_divergence(all_but_one, all_three, "mixed", teacher_share=0.9)
    assert 0 < mixed.item() < math.log(10)
    for logits, teacher, kind in (
        (all_three, all_but_one, "reverse"),
        (all_but_one, all_three, "forward"),
    ):
        with pytest.raises(ValueError, match=f"the {kind} divergence of row 0 is inf; give finite"):
            token_divergence(logits, teacher, kind)  # type: ignore[arg-type]


def test_no_gradient_of_a_divergence_reaches_the_teacher() -> None:
    logits, teacher, _ = make_logits(0)
    logits.requires_grad_()
    teacher.requires_grad_()
    for kind in ("reverse", "forward", "mixed"):
        (gradient,) = torch.autograd.grad(token_divergence(logits, teacher, kind).sum(), logits)
        assert gradient.any()
    assert teacher.grad is None


def on_policy(student: DecoderLM, teacher: DecoderLM, **options: Any) -> Any:  # noqa: ANN401
    config = options.pop("config", SHORT)
    options = {"n_texts": 6, "max_new_tokens": 8, "progress": False} | options
    return distill_on_policy(student, teacher, TASK, config, **options)


@pytest.mark.parametrize("kind", ["reverse", "forward", "mixed"])
def test_the_student_is_graded_on_what_it_writes_itself(kind: Divergence) -> None:
    student, teacher = make_model(0), make_model(1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    generator = make_generator(4)
    problems = [TASK.sample(generator) for _ in range(6)]
    answers = sample_answers(student, TASK, problems, max_new_tokens=8, generator=generator)
    logits, graded = [], []
    for answer in answers:  # one at a time, without padding
        batch = padded([Example(answer.prompt, answer.output)])
        logits.append(completion_logits(student, batch)[0])
        graded.append(completion_logits(teacher, batch)[0])
    expected = token_divergence(torch.cat(logits), torch.cat(graded), kind).mean()
    history = on_policy(student, teacher, divergence=kind, seed=4)
    # Some forty terms of about 1 in float32, each rounded a few times at 6e-8 of logits near 1.
    assert history.losses[0] == pytest.approx(expected.item(), rel=1e-5)
    assert len(history.losses) == len(history.lengths) == 3
    assert history.lengths[0] == sum(len(answer.output) for answer in answers) / 6
    assert history.tokens > sum(len(a.prompt) + len(a.output) for a in answers)
    assert history.seconds > 0
    assert all(value.equal(before[name]) for name, value in teacher.state_dict().items())


def test_the_first_step_is_the_gradient_by_hand() -> None:
    student, teacher = make_model(0), make_model(1)
    generator = make_generator(0)
    problems = [TASK.sample(generator) for _ in range(6)]
    answers = sample_answers(student, TASK, problems, max_new_tokens=8, generator=generator)
    batch = padded([Example(answer.prompt, answer.output) for answer in answers])
    p, q = (completion_logits(model, batch)[0].softmax(dim=1) for model in (student, teacher))
    loss = (p * (p.log() - q.detach().log())).sum() / int(batch.learned.sum())
    expected = torch.autograd.grad(loss, list(student.parameters()))
    on_policy(student, teacher, config=TrainConfig(1, clip=1e6))
    found = [parameter.grad for parameter in student.parameters()]
    torch.testing.assert_close(found, list(expected))


@pytest.mark.parametrize("kind", ["reverse", "forward", "mixed"])
def test_tokens_are_graded_in_parts_where_the_vocabulary_is_wide(
    kind: Divergence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No table has more rows than a part; the loss and its gradients are those of the whole."""
    config = TrainConfig(1, clip=1e6)
    whole = make_model(0)
    losses = on_policy(whole, make_model(1), config=config, divergence=kind).losses
    rows: list[int] = []

    def counting(logits: Tensor, *args: Any, **options: Any) -> Tensor:  # noqa: ANN401
        rows.append(len(logits))
        return token_divergence(logits, *args, **options)

    monkeypatch.setattr(distillation, "token_divergence", counting)
    monkeypatch.setattr(distillation, "_PART", 7 * whole.config.vocab_size)
    parted = make_model(0)
    again = on_policy(parted, make_model(1), config=config, divergence=kind).losses
    assert max(rows) == 7
    assert len(rows) > 6
    assert len(rows) % 2 == 0  # each part twice: once more for its gradient
    # About forty terms near 1, in another order, rounded at 6e-8.
    assert again == pytest.approx(losses, rel=1e-5)
    expected = [parameter.grad for parameter in whole.parameters()]
    torch.testing.assert_close([parameter.grad for parameter in parted.parameters()], expected)


def test_long_texts_and_short_ones_are_graded_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """In passes of few tokens with padding; the loss and its gradients are those of one pass."""
    config = TrainConfig(1, clip=1e6)
    whole, dealt = make_model(0), make_model(0)
    losses = on_policy(whole, make_model(1), config=config, n_texts=8).losses
    shapes: list[torch.Size] = []
    states = completions.learned_states

    def counting(model: DecoderLM, batch: CompletionBatch) -> tuple[Tensor, Tensor]:
        shapes.append(batch.tokens.shape)
        return states(model, batch)

    monkeypatch.setattr(distillation, "learned_states", counting)
    monkeypatch.setattr(completions, "TOKENS_PER_PASS", 40)
    again = on_policy(dealt, make_model(1), config=config, n_texts=8).losses
    by_student = shapes[::2]
    assert sum(shape[0] for shape in by_student) == 8
    assert len(by_student) > 1
    assert max(shape.numel() for shape in by_student) <= 40
    widths = [shape[1] for shape in by_student]
    assert widths == sorted(widths, reverse=True)
    # Some fifty terms near 1, in another order, rounded at 6e-8.
    assert again == pytest.approx(losses, rel=1e-5)
    expected = [parameter.grad for parameter in whole.parameters()]
    torch.testing.assert_close([parameter.grad for parameter in dealt.parameters()], expected)


def test_with_itself_as_teacher_a_student_has_nothing_to_learn() -> None:
    history = on_policy(make_model(0), make_model(0))
    assert history.losses[0] == pytest.approx(0, abs=1e-6)


def test_a_seed_fixes_what_the_student_writes() -> None:
    first, again, other = (on_policy(make_model(0), make_model(1), seed=seed) for seed in (0, 0, 1))
    assert first.losses == again.losses != other.losses


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reverse", "forward", "mixed"])
def test_a_student_comes_to_write_what_its_teacher_writes(kind: Divergence) -> None:
    student, teacher = make_model(0), make_model(1)
    config = TrainConfig(150, learning_rate=1e-2, muon_rate=0.02, warmup=5)
    history = on_policy(student, teacher, config=config, n_texts=16, divergence=kind)
    assert sum(history.losses[-5:]) / 5 < 0.2 * history.losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_texts": 0}, "n_texts is 0; give a whole number, at least 1"),
        (
            {"divergence": "backward"},
            "divergence 'backward' is unknown; use reverse, forward or mix",
        ),
        ({"teacher_share": 1.0}, r"teacher_share is 1\.0; give a share above 0 and below 1"),
        ({"teacher_share": math.nan}, "teacher_share is nan; give a share above 0 and below 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; give a whole number, at least 1"),
    ],
)
def test_settings_of_grading_that_cannot_be_meant_are_named(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        on_policy(make_model(0), make_model(1), **options)


def test_a_grade_needs_one_vocabulary_and_one_shape() -> None:
    walker = DecoderLM(LMConfig(Walk().vocabulary_size, 16, 1, 2, 16))
    with pytest.raises(ValueError, match=f"the student has {TASK.vocabulary_size} tokens and the"):
        on_policy(make_model(), walker)
    for shapes in (((2, 3), (2, 4)), ((3,), (3,))):
        with pytest.raises(ValueError, match=r"pass \[N, V\] twice"):
            token_divergence(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
    with pytest.raises(ValueError, match="vocabulary is 0; give a whole number, at least 1"):
        token_divergence(torch.zeros(2, 0), torch.zeros(2, 0))
    assert token_divergence(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
