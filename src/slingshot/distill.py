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
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional as F

from slingshot.completions import (
    CompletionBatch,
    Example,
    completion_batches,
    completion_logits,
)
from slingshot.lm import DecoderLM, in_eval_mode
from slingshot.sampling import sample_answers
from slingshot.tasks import Problem, Task, Trace
from slingshot.tensors import at_least_float32, check_finite, check_within, real, whole
from slingshot.train import History, TrainConfig, fit, train_on_completions


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
    ours, theirs = student.config.vocab_size, teacher.config.vocab_size
    if ours != theirs:
        raise ValueError(
            f"the student has {ours} tokens and the teacher {theirs}; "
            "logits need one vocabulary, distill needs only text"
        )
    teacher = in_eval_mode(teacher)

    def loss(batch: CompletionBatch) -> Tensor:
        logits, targets = completion_logits(student, batch)
        with torch.no_grad():
            soft, _ = completion_logits(teacher, batch)
        return hinton_loss(logits, soft, targets, temperature=temperature, alpha=alpha)

    batches = completion_batches(encode_traces(task, traces), config.tokens_per_step, seed)
    return fit(student, loss, batches, config, progress=progress)


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
