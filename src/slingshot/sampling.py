"""Answers that a model samples to problems: what is asked, what it writes, and both as tokens.

Distillation keeps the texts (`slingshot.distill.sample_traces`), reinforcement learning also needs
the tokens, to make them more or less likely (`slingshot.grpo.sample_rollouts`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from slingshot import require
from slingshot.lm import DecoderLM, generate
from slingshot.tasks import Problem, Task


class Answer(NamedTuple):
    """What a model wrote to a problem: ``prompt [P]`` and ``output [C]`` int64, and its text."""

    problem: Problem
    prompt: Int64[Tensor, "P"]
    output: Int64[Tensor, "C"]
    text: str


def sample_answers(
    model: DecoderLM,
    task: Task,
    problems: Sequence[Problem],
    *,
    samples: int = 1,
    max_new_tokens: int = 80,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> list[Answer]:
    """Let ``model`` answer each of ``problems`` ``samples`` times, one after another.

    An output ends with the task's end, or unfinished after ``max_new_tokens``. All are written at
    once, in their order; with a ``batch_size`` at most so many at a time, those with prompts of
    about one length together. Raises ``ValueError`` unless ``samples`` and ``batch_size`` are whole
    numbers of at least 1, and as `slingshot.lm.generate` does.
    """
    require.counts(samples=samples)
    if batch_size is not None:
        require.counts(batch_size=batch_size)
    asked = [problem for problem in problems for _ in range(samples)]
    prompts = [task.encode(problem.prompt) for problem in asked]
    order = list(range(len(asked)))
    if batch_size is not None:
        order.sort(key=lambda row: len(prompts[row]))
    outputs: list[Tensor] = [torch.empty(0, dtype=torch.int64)] * len(asked)
    size = batch_size or max(1, len(asked))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        written = generate(
            model,
            [prompts[row] for row in rows],
            max_new_tokens=max_new_tokens,
            end=task.end,
            temperature=temperature,
            generator=generator,
        )
        for row, output in zip(rows, written, strict=True):
            outputs[row] = output
    return [
        Answer(problem, prompt, output, task.decode(output))
        for problem, prompt, output in zip(asked, prompts, outputs, strict=True)
    ]
