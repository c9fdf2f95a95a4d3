"""Prompts and completions: what is given, what is learned, and where each of them stands.

Fine-tuning, distillation and reinforcement learning read the same batches. A prompt and a
completion make one sequence. One mask says which tokens belong to completions, and three losses
look only at these: the cross-entropy of `slingshot.train.train_on_completions`, the divergence of
`slingshot.distill.hinton_loss`, and the objective of `slingshot.grpo.grpo_loss`.
"""

import operator
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot.lm import DecoderLM
from slingshot.tensors import at_least_float32, usable, whole

TOKENS_PER_PASS: Final = 2048
"""Tokens, with padding, that go through a model in one of the passes of `deal`."""


class Example(NamedTuple):
    """Tokens ``[P]`` that are given and tokens ``[C]`` that are to be learned: integers.

    Whoever makes one may be wrong; `completion_batches` says so, with its place.
    """

    prompt: Tensor
    completion: Tensor


class CompletionBatch(NamedTuple):
    """Sequences of prompt and completion: ``tokens [B, S]`` int64, padded at the end.

    ``learned [B, S - 1]`` bool says which of ``tokens[:, 1:]`` belong to a completion.
    """

    tokens: Int64[Tensor, "B S"]
    learned: Bool[Tensor, "B S-1"]


def completion_mask(
    n_prompt: Integer[Tensor, "B"], lengths: Integer[Tensor, "B"]
) -> Bool[Tensor, "B T"]:
    """Return which tokens but the first belong to a completion: ``[B, max(lengths) - 1]`` bool.

    Row b has ``lengths[b]`` tokens, of which ``n_prompt[b]`` are prompt; padding comes after. The
    column of a token is one less than its place: it is where the token is predicted. Raises
    ``ValueError`` for numbers that are not of an integer type.
    """
    n_prompt, lengths = whole("n_prompt", n_prompt), whole("lengths", lengths)
    place = torch.arange(1, int(lengths.max()))
    return (n_prompt[:, None] <= place) & (place < lengths[:, None])


def completion_logits(
    model: DecoderLM, batch: CompletionBatch
) -> tuple[Float[Tensor, "N V"], Int64[Tensor, "N"]]:
    """Return logits ``[N, V]`` for the N tokens of all completions, and the tokens ``[N]``.

    What stands in the prompts is read and not learned. Padding comes after all else, and attention
    looks back: it changes nothing. Logits are at least float32. Raises ``ValueError`` for tokens
    that are not of this model, and for a mask that does not fit them.
    """
    tokens, learned = checked(model, batch)
    logits = at_least_float32(model(tokens[:, :-1]).logits)
    return logits[learned], tokens[:, 1:][learned]


def learned_states(
    model: DecoderLM, batch: CompletionBatch
) -> tuple[Float[Tensor, "N d"], Int64[Tensor, "N"]]:
    """Return what the head reads at the places of the N learned tokens ``[N, d]``, and the tokens.

    A wide head takes most of the memory of a small model, and scores for places where nothing is
    learned are for nobody. Raises ``ValueError`` as `completion_logits`, but for the logits.
    """
    tokens, learned = checked(model, batch)
    x, _ = model.read(tokens[:, :-1], model.rotations(tokens.shape[1] - 1))
    return model.norm(x[learned]), tokens[:, 1:][learned]


def checked(model: DecoderLM, batch: CompletionBatch) -> CompletionBatch:
    """Return ``batch`` as ``model`` can learn from it.

    Raises ``ValueError`` for tokens that are not of this model, and for a mask that does not fit
    them.
    """
    tokens = model.check_tokens(batch.tokens)
    learned = usable(batch.learned)
    if learned.dtype != torch.bool or learned.shape != tokens[:, 1:].shape or not tokens.shape[1]:
        raise ValueError(
            f"learned has shape {tuple(learned.shape)} and dtype {learned.dtype} for tokens "
            f"{tuple(tokens.shape)}; pass bool [B, S - 1] with [B, S]"
        )
    return CompletionBatch(tokens, learned)


def padded(examples: Sequence[Example]) -> CompletionBatch:
    """Return one batch of all ``examples``, each padded to the longest."""
    tokens = nn.utils.rnn.pad_sequence([torch.cat(each) for each in examples], batch_first=True)
    return CompletionBatch(tokens, completion_mask(*_lengths(examples)))


def _lengths(examples: Sequence[Example]) -> tuple[Int64[Tensor, "B"], Int64[Tensor, "B"]]:
    """Return how many tokens each prompt has, and each prompt with its completion."""
    prompts = torch.tensor([len(each.prompt) for each in examples], dtype=torch.int64)
    completions = torch.tensor([len(each.completion) for each in examples], dtype=torch.int64)
    return prompts, prompts + completions


# --- batches to learn from ---------------------------------------------------------------------


def completion_batches(
    examples: Sequence[Example], batch_tokens: int, seed: int
) -> Iterator[CompletionBatch]:
    """Yield batches of at most ``batch_tokens`` tokens with padding, in a random order, forever.

    Examples whose prompts are of about one length stand together, and a batch has the more of them
    the shorter they are. Whole examples of about one length would need less padding. But then all
    terse completions come in one batch and all long ones in another, the gradient jumps from one to
    the other, and learning takes longer. Each example is in one batch of a pass.

    With the first batch comes a ``ValueError`` if there are no examples, one has no prompt or no
    completion or is not made of two rows of integers, or one is longer than a batch.
    """
    examples = [_checked_example(example, index) for index, example in enumerate(examples)]
    prompts, lengths = _lengths(examples)
    _check_examples(prompts, lengths, batch_tokens)
    all_tokens = padded(examples).tokens
    generator = torch.Generator().manual_seed(seed)
    while True:
        chance = torch.rand(len(examples), generator=generator, dtype=torch.float32)
        order = (prompts + chance).argsort()
        batches = _cut(order, lengths[order].tolist(), batch_tokens)
        for index in torch.randperm(len(batches), generator=generator).tolist():
            rows = batches[index]
            tokens = all_tokens[rows, : int(lengths[rows].max())]
            yield CompletionBatch(tokens, completion_mask(prompts[rows], lengths[rows]))


def _checked_example(example: Example, index: int) -> Example:
    parts = []
    for part in example:
        if isinstance(part, Tensor) and part.ndim != 1:
            raise ValueError(
                f"example {index} holds tokens of shape {tuple(part.shape)}; pass two of [N]"
            )
        empty = isinstance(part, Tensor) and not len(part)  # is named later, whatever its type
        parts.append(part if empty else whole(f"example {index}", part, "pass two of int64 [N]"))
    return Example(*parts)


def _check_examples(
    prompts: Int64[Tensor, "examples"], lengths: Int64[Tensor, "examples"], batch_tokens: int
) -> None:
    if not len(lengths):
        raise ValueError("there are 0 examples to learn from; give at least 1")
    if bool((empty := (prompts < 1) | (lengths == prompts)).any()):
        index = int(empty.nonzero()[0])
        raise ValueError(
            f"example {index} has {int(prompts[index])} tokens of prompt and "
            f"{int(lengths[index] - prompts[index])} of completion; give at least 1 of each"
        )
    if int(lengths.max()) > batch_tokens:
        raise ValueError(
            f"an example has {int(lengths.max())} tokens and a batch at most {batch_tokens}; "
            "give larger batches"
        )


def _cut(
    order: Int64[Tensor, "examples"], lengths: list[int], batch_tokens: int
) -> list[Int64[Tensor, "_"]]:
    """Cut ``order`` into rows of which, at their ``lengths``, each part makes at most one batch."""
    batches, start, longest = [], 0, 0
    for end, length in enumerate(lengths):
        longest = max(longest, length)
        if longest * (end + 1 - start) > batch_tokens:
            batches.append(order[start:end])
            start, longest = end, length
    return [*batches, order[start:]]


# --- how likely completions are ----------------------------------------------------------------


def token_log_probs(
    model: DecoderLM, sequences: Sequence[Integer[Tensor, "_"]], n_prompt: Sequence[int]
) -> tuple[Float[Tensor, "R T"], Bool[Tensor, "R T"]]:
    """Return how likely ``model`` finds each token after the prompt, and where there is one.

    ``sequences`` are R tensors of tokens, a prompt and an output each; ``n_prompt`` says how long
    the prompts are. Both results are ``[R, T]``, T the length of the longest output: natural
    logarithms in at least float32, 0 where there is no token, and a bool mask of where there is.

    Rows of about one length go through the model together, so that little is computed for padding.
    Raises ``ValueError`` unless each sequence has a token of prompt and one of output, all of this
    model, for an ``n_prompt`` that is not whole, and when the logits are not finite.
    """
    sequences = [_checked_sequence(model, sequence) for sequence in sequences]
    try:
        n_prompt = [operator.index(number) for number in n_prompt]
    except TypeError as error:
        raise ValueError(f"n_prompt is {n_prompt}; give a whole number for each prompt") from error
    lengths = [len(sequence) for sequence in sequences]
    if len(lengths) != len(n_prompt):
        raise ValueError(f"{len(lengths)} sequences have {len(n_prompt)} prompts; give one each")
    for length, prompt in zip(lengths, n_prompt, strict=True):
        if not 1 <= prompt < length:
            raise ValueError(
                f"n_prompt is {prompt} in a sequence of {length}; give at least 1, since nothing "
                "predicts the first token, and leave at least one token of output"
            )
    passes = deal(lengths)
    order = torch.tensor([row for rows in passes for row in rows], dtype=torch.int64)
    n_output = torch.tensor(lengths, dtype=torch.int64) - torch.tensor(n_prompt, dtype=torch.int64)
    places = torch.arange(int(n_output.max()) if len(n_output) else 0)
    mask = places < n_output[:, None]
    if not passes:
        dtype = torch.promote_types(model.embedding.weight.dtype, torch.float32)
        return torch.zeros(mask.shape, dtype=dtype), mask
    scored = torch.cat([_score(model, sequences, n_prompt, rows) for rows in passes])
    sorted_rows = scored.new_zeros(mask.shape).masked_scatter(mask[order], scored)
    return sorted_rows[order.argsort()], mask


def deal(lengths: Sequence[int]) -> list[list[int]]:
    """Deal rows, long ones first, into batches of at most `TOKENS_PER_PASS` with their padding."""
    passes: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not passes or (len(passes[-1]) + 1) * lengths[passes[-1][0]] > TOKENS_PER_PASS:
            passes.append([])
        passes[-1].append(row)
    return passes


def _score(
    model: DecoderLM,
    sequences: Sequence[Int64[Tensor, "_"]],
    n_prompt: Sequence[int],
    rows: list[int],
) -> Float[Tensor, "N"]:
    """Return the log-probabilities of the outputs of ``rows``, one output after the other."""
    tokens = nn.utils.rnn.pad_sequence([sequences[row] for row in rows], batch_first=True)
    prompts = torch.tensor([n_prompt[row] for row in rows])
    lengths = torch.tensor([len(sequences[row]) for row in rows])
    batch = CompletionBatch(tokens, completion_mask(prompts, lengths))
    return -F.cross_entropy(*completion_logits(model, batch), reduction="none")


def _checked_sequence(model: DecoderLM, sequence: Tensor) -> Tensor:
    sequence = whole("a sequence", sequence, "pass int64 [N]")
    if sequence.ndim != 1:
        raise ValueError(f"a sequence has shape {tuple(sequence.shape)}; pass [N]")
    model.check_vocabulary(sequence)
    return sequence
