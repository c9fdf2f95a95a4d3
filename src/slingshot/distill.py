"""Distillation: a small model learns from what a better one wrote.

DeepSeek-R1's recipe has four steps. *Sample*: the teacher, R1 after its reinforcement on reasoning,
solves problems. *Verify*: answers are checked, by rules or, where there are none, by a model that
judges. *Keep*: what is wrong or hard to read is thrown away. *Fine-tune*: the student learns to
write the texts that are left, token by token, as if a person had written them (arXiv 2501.12948,
§2.3.3 and §2.4). Here a program is the only judge. Nothing but text goes from teacher to student,
so the two may differ in everything but language.

The older meaning of the word is different: the student sees the teacher's probabilities of all
tokens, and imitates those (`hinton_loss`). That tells more per token, and needs the teacher at hand
and, in this form, one vocabulary for both.

A third way is between this and reinforcement (`distill_on_policy`): the student writes, and the
teacher's probabilities grade each of its tokens. So the student learns what to do where it goes
itself, its own mistakes included, and hears at every token rather than once a text.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from slingshot import require
from slingshot.completions import (
    CompletionBatch,
    Example,
    completion_batches,
    completion_logits,
    deal,
    learned_states,
    padded,
)
from slingshot.lm import DecoderLM, in_eval_mode
from slingshot.sampling import sample_answers
from slingshot.tasks import Problem, Task, Trace
from slingshot.tensors import (
    at_least_float32,
    check_finite,
    check_shapes,
    check_within,
    real,
    whole,
)
from slingshot.train import History, TrainConfig, fit, train_on_completions

# Tokens times vocabulary whose grades are computed together: 16 MiB of logits.
_PART: Final = 1 << 22

Divergence = Literal["reverse", "forward", "mixed"]
"""How far a student's probabilities are from its teacher's; see `token_divergence`."""


def sample_traces(
    model: DecoderLM,
    task: Task,
    problems: Sequence[Problem],
    *,
    samples: int = 1,
    max_new_tokens: int = 80,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    batch_size: int = 512,
) -> list[Trace]:
    """Let ``model`` solve each of ``problems`` ``samples`` times, one after another.

    A text ends with the task's end, or unfinished after ``max_new_tokens``. ``batch_size`` texts
    are written at a time, those with prompts of about one length together. Raises ``ValueError``
    as `slingshot.sampling.sample_answers` does.
    """
    answers = sample_answers(
        model,
        task,
        problems,
        samples=samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        generator=generator,
        batch_size=batch_size,
    )
    return [Trace(answer.problem, answer.text) for answer in answers]


def keep_verified(traces: Iterable[Trace], verify: Callable[[Problem, str], bool]) -> list[Trace]:
    """Return the traces that ``verify`` accepts: rejection sampling.

    ``task.verify`` checks answers, and keeps a lucky guess with a right one. ``task.verify_steps``
    checks all that was written, where a task can do that.
    """
    return [trace for trace in traces if verify(*trace)]


def encode_traces(task: Task, traces: Iterable[Trace]) -> list[Example]:
    """Return the traces as tokens: the prompt is given, the text is to be learned."""
    return [Example(task.encode(problem.prompt), task.encode(text)) for problem, text in traces]


def distill(
    student: DecoderLM,
    task: Task,
    traces: Sequence[Trace],
    config: TrainConfig,
    *,
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train ``student`` to write ``traces``, as DeepSeek-R1 was distilled.

    Source: arXiv 2501.12948, §2.4; the idea: sequence-level knowledge distillation, Kim and Rush,
    arXiv 1606.07947. Raises as `slingshot.train.train_on_completions` does.
    """
    examples = encode_traces(task, traces)
    return train_on_completions(student, examples, config, seed=seed, progress=progress)


def distill_logits(
    student: DecoderLM,
    teacher: DecoderLM,
    task: Task,
    traces: Sequence[Trace],
    config: TrainConfig,
    *,
    temperature: float = 2.0,
    alpha: float = 0.5,
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train ``student`` to find each token of ``traces`` as likely as ``teacher`` does.

    Batches are those of `distill` with the same ``seed``; the loss is `hinton_loss`, and so are
    ``History.losses``. Raises as `distill` does, and ``ValueError`` if the two models do not share
    a vocabulary.
    """
    _check_vocabularies(student, teacher)
    teacher = in_eval_mode(teacher)

    def loss(batch: CompletionBatch) -> Tensor:
        logits, targets = completion_logits(student, batch)
        with torch.no_grad():
            soft, _ = completion_logits(teacher, batch)
        return hinton_loss(logits, soft, targets, temperature=temperature, alpha=alpha)

    batches = completion_batches(encode_traces(task, traces), config.tokens_per_step, seed)
    return fit(student, loss, batches, config, progress=progress)


@dataclass
class OnPolicyHistory(History):
    """What happened: ``losses`` are divergences, in nats per token that the student wrote.

    ``tokens`` are those of all prompts and texts. The student has written (or read) each, the
    teacher has graded it, and the student has learned from it: 2 N operations of the student, 2 N
    of the teacher and 6 N of the student. ``seconds`` are CPU seconds of all of that. ``lengths``
    are the mean tokens of a text, by step.
    """

    tokens: int = 0
    lengths: list[float] = field(default_factory=list)


def distill_on_policy(
    student: DecoderLM,
    teacher: DecoderLM,
    task: Task,
    config: TrainConfig,
    *,
    n_texts: int = 16,
    max_new_tokens: int = 80,
    divergence: Divergence = "reverse",
    teacher_share: float = 0.5,
    seed: int = 0,
    progress: bool = True,
) -> OnPolicyHistory:
    """Let ``student`` write, and make each of its tokens as likely as ``teacher`` finds it.

    In each of ``config.steps`` steps the student answers ``n_texts`` new problems of ``task``, at
    temperature 1 and with at most ``max_new_tokens`` tokens. Both models read what it wrote, and
    the loss is the mean of `token_divergence` over its tokens. No gradient goes through the
    sampling. Nothing checks an answer: the teacher is the only judge. Sizes of batches in
    ``config`` are unused.

    Sources: GKD, Agarwal et al., arXiv 2306.13649, algorithm 1 with only texts of the student;
    reverse divergence: MiniLLM, arXiv 2306.08543. Raises as `slingshot.train.fit` does, and
    ``ValueError`` if the two models do not share a vocabulary, and for settings that cannot be
    meant.
    """
    _check_vocabularies(student, teacher)
    _check_divergence(divergence, teacher_share)
    require.counts(n_texts=n_texts, max_new_tokens=max_new_tokens)
    teacher = in_eval_mode(teacher)
    generator = torch.Generator().manual_seed(seed)
    written = OnPolicyHistory()

    def texts() -> Iterator[list[CompletionBatch]]:
        while True:
            started = time.process_time()
            problems = [task.sample(generator) for _ in range(n_texts)]
            answers = sample_answers(
                student, task, problems, max_new_tokens=max_new_tokens, generator=generator
            )
            examples = [Example(answer.prompt, answer.output) for answer in answers]
            lengths = [len(prompt) + len(completion) for prompt, completion in examples]
            written.tokens += sum(lengths)
            written.lengths.append(sum(len(each.completion) for each in examples) / n_texts)
            written.seconds += time.process_time() - started
            yield [padded([examples[row] for row in rows]) for rows in deal(lengths)]

    def loss(batches: list[CompletionBatch]) -> Tensor:
        """Long texts and short ones are read apart, so that little is computed for padding."""
        grades = [_grades(student, teacher, each, divergence, teacher_share) for each in batches]
        return torch.cat(grades).mean()

    longest = replace(config, batch_size=n_texts, sequence_length=max_new_tokens, batch_tokens=None)
    history = fit(student, loss, texts(), longest, progress=progress)
    written.losses, written.loads = history.losses, history.loads
    written.seconds += history.seconds
    return written


def _grades(
    student: DecoderLM,
    teacher: DecoderLM,
    batch: CompletionBatch,
    kind: Divergence,
    teacher_share: float,
) -> Float[Tensor, "N"]:
    """Return the `token_divergence` of each learned token.

    A divergence keeps several tables of tokens times vocabulary for its gradient. With a wide head
    they would take more memory than both models. So one part of the tokens comes after the other,
    and what a part keeps is computed once more when its gradient is due (Chen et al.,
    arXiv 1604.06174).
    """
    ours, _ = learned_states(student, batch)
    with torch.no_grad():
        theirs, _ = learned_states(teacher, batch)

    def grades(ours: Tensor, theirs: Tensor) -> Tensor:
        with torch.no_grad():
            graded = teacher.head(theirs)
        return token_divergence(student.head(ours), graded, kind, teacher_share=teacher_share)

    n_rows = max(1, _PART // student.config.vocab_size)
    if len(ours) <= n_rows:
        return grades(ours, theirs)
    parts = zip(torch.split(ours, n_rows), torch.split(theirs, n_rows), strict=True)
    return torch.cat([checkpoint(grades, *part, use_reentrant=False) for part in parts])


def token_divergence(
    logits: Float[Tensor, "N V"],
    teacher_logits: Float[Tensor, "N V"],
    kind: Divergence = "reverse",
    *,
    teacher_share: float = 0.5,
) -> Float[Tensor, "N"]:
    """Return how far ``logits`` are from the teacher's, row by row in nats.

    With p the student's probabilities and q the teacher's, ``"reverse"`` is KL(p || q), a mean over
    what the student would write: it costs to write what the teacher would not. ``"forward"`` is
    KL(q || p), a mean over what the teacher would write: it costs to leave out what the teacher
    might say. ``"mixed"`` is ``b KL(q || m) + (1 - b) KL(p || m)`` with ``m = b q + (1 - b) p``,
    where b is ``teacher_share``: the Jensen-Shannon divergence at one half, and never infinite.

    Mind the direction. Where texts call reverse what is forward here, the student learns to cover
    all of the teacher instead of what it can do well (MiniLLM, arXiv 2306.08543, §2.1).

    No gradient reaches the teacher. Results are at least float32. Source of ``"mixed"``: GKD,
    arXiv 2306.13649, eq. 1. Raises ``ValueError`` for shapes that do not fit, for an unknown
    ``kind``, a share that is not between 0 and 1, and a divergence that is not finite or overflows:
    one of the two excludes what the other finds likely.
    """
    _check_divergence(kind, teacher_share)
    logits, teacher_logits = real("logits", logits), real("teacher_logits", teacher_logits)
    check_shapes("pass [N, V] twice", logits=logits, teacher_logits=teacher_logits)
    require.counts(vocabulary=logits.shape[1])
    ours = at_least_float32(logits).log_softmax(dim=1)
    theirs = teacher_logits.detach().to(ours.dtype).log_softmax(dim=1)
    if kind == "reverse":
        divergence = _kl(ours, theirs)
    elif kind == "forward":
        divergence = _kl(theirs, ours)
    else:
        # What both exclude is left out; minus infinity twice would have no gradient.
        ours, theirs = (each.clamp(min=torch.finfo(each.dtype).min / 4) for each in (ours, theirs))
        share = torch.tensor(teacher_share, dtype=ours.dtype)
        mixture = torch.logaddexp(theirs + share.log(), ours + (1 - share).log())
        divergence = share * _kl(theirs, mixture) + (1 - share) * _kl(ours, mixture)
    # A gradient is about as large, and has the type of logits.
    fits = divergence.detach() <= torch.finfo(logits.dtype).max
    if not fits.all():
        row = int((~fits).nonzero()[0])
        raise ValueError(
            f"the {kind} divergence of row {row} is {divergence[row].item()}; give finite logits, "
            'or "mixed" where one model excludes what the other may say'
        )
    return divergence


def _kl(log_p: Float[Tensor, "N V"], log_q: Float[Tensor, "N V"]) -> Float[Tensor, "N"]:
    """Return KL(p || q) of each row of log-probabilities; what p excludes adds nothing."""
    excluded = log_p.exp() == 0
    log_p, log_q = log_p.masked_fill(excluded, 0.0), log_q.masked_fill(excluded, 0.0)
    return (log_p.exp() * (log_p - log_q)).masked_fill(excluded, 0.0).sum(dim=1)


def _check_divergence(kind: str, teacher_share: float) -> None:
    require.one_of(get_args(Divergence), divergence=kind)
    if not 0 < teacher_share < 1:
        raise ValueError(f"teacher_share is {teacher_share}; give a share above 0 and below 1")


def _check_vocabularies(student: DecoderLM, teacher: DecoderLM) -> None:
    ours, theirs = student.config.vocab_size, teacher.config.vocab_size
    if ours != theirs:
        raise ValueError(
            f"the student has {ours} tokens and the teacher {theirs}; "
            "logits need one vocabulary, distill needs only text"
        )


def hinton_loss(
    logits: Float[Tensor, "N V"],
    teacher_logits: Float[Tensor, "N V"],
    targets: Integer[Tensor, "N"],
    *,
    temperature: float = 2.0,
    alpha: float = 0.5,
) -> Float[Tensor, ""]:
    """Return how far ``logits [N, V]`` are from the teacher's and from ``targets [N]``: a scalar.

    It is ``(1 - alpha) CE + alpha T² KL(p_teacher || p_student)``, a mean over N in nats, where
    both p are softmaxes of logits divided by the temperature T, and CE is the cross-entropy with
    the targets at T = 1. Divided logits have gradients smaller by T², about T from the division and
    T from softmaxes that lie closer together; the factor T² puts them back. No gradient reaches the
    teacher. A token that the teacher excludes, with a logit of minus infinity, adds nothing to the
    KL. A part whose weight is 0 is not computed. The loss is at least float32.

    Source: Hinton, Vinyals and Dean, arXiv 1503.02531, §2. Raises ``ValueError`` for shapes that do
    not fit, no rows, targets outside 0 to V - 1, a temperature that is not positive, an ``alpha``
    outside 0 to 1, and a loss that is not finite: the student excludes what it should find likely.
    """
    logits, teacher_logits = real("logits", logits), real("teacher_logits", teacher_logits)
    targets = whole("targets", targets, "pass int64 [N]")
    if (
        logits.ndim != 2
        or logits.shape != teacher_logits.shape
        or targets.shape != logits.shape[:1]
    ):
        raise ValueError(
            f"logits have shapes {tuple(logits.shape)} and {tuple(teacher_logits.shape)} and "
            f"targets {tuple(targets.shape)}; pass [N, V] twice and [N]"
        )
    if not logits.numel():
        raise ValueError(f"logits have shape {tuple(logits.shape)}; a mean needs at least one row")
    check_within("target", targets, logits.shape[1], "give a token that has a logit")
    if not 0 < temperature < float("inf") or not 0 <= alpha <= 1:
        raise ValueError(
            f"temperature is {temperature} and alpha {alpha}; give a positive number and a share"
        )
    logits, teacher_logits = at_least_float32(logits), at_least_float32(teacher_logits.detach())
    loss = logits.new_zeros(())
    if alpha < 1:
        loss = loss + (1 - alpha) * F.cross_entropy(logits, targets)
    if alpha:
        soft = _divergence(logits / temperature, teacher_logits / temperature)
        loss = loss + alpha * (temperature * temperature) * soft
    if not loss.isfinite():
        check_finite("logits", logits.detach(), "the student must find each token possible")
        raise ValueError(
            f"the loss is {loss.item()} with logits up to {logits.abs().max().item():.3g}, a "
            f"teacher's up to {teacher_logits.max().item():.3g} and temperature {temperature}; "
            "give smaller ones, the teacher's above minus infinity for a token at least"
        )
    return loss


def _divergence(
    logits: Float[Tensor, "N V"], teacher_logits: Float[Tensor, "N V"]
) -> Float[Tensor, ""]:
    """Return the mean over rows of KL(p_teacher || p_student), both softmaxes of logits."""
    ours, theirs = logits.log_softmax(dim=1), teacher_logits.log_softmax(dim=1)
    # Where p_teacher is 0 its logarithm is minus infinity, and 0 times that is NaN, not 0.
    excluded = theirs.isneginf()
    ours, theirs = ours.masked_fill(excluded, 0.0), theirs.masked_fill(excluded, 0.0)
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
