"""Multi-token prediction in a small model: does it help, and how often is its guess right?

The model of attention_kinds with ordinary heads learns together with a multi-token head, whose loss
counts 0.3 as in DeepSeek-V3, from the same batches as the model alone there. Another learns without
a head, for as many FLOPs as the two together: as many more steps as the head has matrices. The
notebook guess_and_verify reads the results.
"""

import sys
from dataclasses import replace
from typing import Any

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from attention_kinds import MHA, STEPS, build, configuration, corpus
from torch import Tensor
from torch.nn import functional as F

from slingshot import sizes
from slingshot.lm import DecoderLM
from slingshot.speculative import MultiTokenHead, speculative_generate
from slingshot.train import TrainConfig, fit, shuffled_windows, token_losses, train_language_model

SEEDS = range(5)
WEIGHT = 0.3
READ, LENGTH = 200, 128  # held-out windows on which guesses are compared
PROMPTS, PROMPT_LENGTH, NEW_TOKENS = 8, 32, 100  # of the texts that are written


def multiplied() -> tuple[int, int]:
    """Parameters that are multiplied with a token: in the model, and in the head beside it.

    The head is one layer, the matrix that joins its two inputs, and the model's output matrix.
    """
    model = sizes.count_parameters(MHA.sizes())
    one_layer = sizes.count_parameters(replace(MHA, n_layers=1).sizes())
    join = 2 * MHA.d_model**2
    return model.active_without_embedding, join + one_layer.active_without_embedding


def runs() -> list[Run]:
    """All runs, seed by seed, so that an experiment that was stopped has something of each."""
    own, extra = multiplied()
    longer = round(STEPS * (own + extra) / own)
    measured = {"read": [READ, LENGTH], "written": [PROMPTS, PROMPT_LENGTH, NEW_TOKENS]}
    made = []
    for seed in SEEDS:
        told = configuration(MHA, seed)
        more = {**told, "train": {**told["train"], "steps": longer}}
        made += [
            Run("with a head", seed, {**told, "weight": WEIGHT, **measured}),
            Run("without, equal FLOPs", seed, more),
        ]
    return made


def execute(run: Run) -> dict[str, Any]:
    """Train a model, with a head or without, and measure it on the held-out text."""
    model, train = build(run.configuration)
    if run.name != "with a head":
        history = train_language_model(model, corpus().train, train, seed=run.seed, progress=False)
        return measured(model, history.seconds)
    head = MultiTokenHead.of(model)
    seconds = train_both(model, head, train, run.seed)
    written = {str(t): own_text(model, head, t, run.seed) for t in (0.0, 1.0)}
    return {**measured(model, seconds), **agreement(model, head), "written": written}


def measured(model: DecoderLM, seconds: float) -> dict[str, float]:
    """The loss of the model itself, and how long it learned."""
    losses = token_losses(model, corpus().held_out)
    return {
        "held_out_loss": round(losses.double().mean().item(), 5),
        "seconds": round(seconds, 1),
    }


def train_both(model: DecoderLM, head: MultiTokenHead, train: TrainConfig, seed: int) -> float:
    """Train the model and the head on one loss; return the CPU seconds."""

    def loss(batch: Tensor) -> Tensor:
        hidden, _ = model.read(batch[:, :-1], model.rotations(batch.shape[1] - 1))
        logits = model.head(model.norm(hidden)).flatten(0, 1)
        own = F.cross_entropy(logits, batch[:, 1:].flatten())
        return own + WEIGHT * head.loss(model, hidden, batch)

    batches = shuffled_windows(corpus().train, train.sequence_length, train.batch_size, seed)
    both = torch.nn.ModuleDict({"model": model, "head": head})
    return fit(both, loss, batches, train, progress=False).seconds


@torch.no_grad()
def agreement(model: DecoderLM, head: MultiTokenHead) -> dict[str, float]:
    """On held-out text: how often both like the same token best, and the mean of sum(min(p, q))."""
    windows = corpus().held_out[: READ * LENGTH].view(READ, LENGTH)
    hidden, _ = model.read(windows, model.rotations(LENGTH))
    p = model.head(model.norm(hidden[:, 1:])).softmax(-1)
    q = head.logits(model, head.read(model, hidden[:, :-1], windows[:, 1:])).softmax(-1)
    likeliest = (p.argmax(-1) == q.argmax(-1)).double().mean()
    return {
        "same_likeliest": round(float(likeliest), 4),
        "shared": round(float(torch.minimum(p, q).sum(-1).mean()), 4),
    }


def own_text(
    model: DecoderLM, head: MultiTokenHead, temperature: float, seed: int
) -> dict[str, int]:
    """How many guesses were accepted and proposed, one in each of how many steps, in new texts."""
    generator = torch.Generator().manual_seed(seed)
    held_out = corpus().held_out
    total = {"accepted": 0, "proposed": 0, "steps": 0}
    for text in range(PROMPTS):
        start = text * (len(held_out) // PROMPTS)
        written = speculative_generate(
            model,
            held_out[start : start + PROMPT_LENGTH],
            head,
            max_new_tokens=NEW_TOKENS,
            n_draft=1,
            temperature=temperature,
            generator=generator,
        )
        for name in total:
            total[name] += getattr(written, name)
    return total


if __name__ == "__main__":
    sys.exit(main("drafting", runs(), execute))
