"""Multi-token prediction in a small model: does it help, and how often is its guess right?

The model of attention_kinds with ordinary heads learns together with a multi-token head, whose loss
counts 0.3 as in DeepSeek-V3; another learns without one, for as many FLOPs. The notebook
guess_and_verify reads the results.
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

SEEDS = range(3)
WEIGHT = 0.3
PROMPTS, PROMPT_LENGTH, NEW_TOKENS = 8, 32, 100


def multiplied() -> tuple[int, int]:
    """Parameters that are multiplied with a token: in the model, and in the head beside it."""
    model = sizes.count_parameters(MHA.sizes())
    one_layer = sizes.count_parameters(replace(MHA, n_layers=1).sizes())
    join = 2 * MHA.d_model**2
    return (
        model.active_without_embedding,
        join + one_layer.active_without_embedding,
    )


def runs() -> list[Run]:
    """All runs, in the order in which they are stored."""
    own, extra = multiplied()
    longer = round(STEPS * (own + extra) / own)
    made = []
    for seed in SEEDS:
        told = configuration(MHA, seed)
        more = {**told, "train": {**told["train"], "steps": longer}}
        made += [
            Run("with a head", seed, {**told, "weight": WEIGHT, "text": text_told()}),
            Run("without, equal FLOPs", seed, more),
        ]
    return sorted(made, key=lambda run: (run.name, run.seed))


def text_told() -> list[int]:
    """What is written to count how often a draft is accepted."""
    return [PROMPTS, PROMPT_LENGTH, NEW_TOKENS]


def execute(run: Run) -> dict[str, Any]:
    """Train a model, with a head or without, and measure it on the held-out text."""
    model, train = build(run.configuration)
    if run.name == "with a head":
        head = MultiTokenHead.of(model)
        seconds = train_both(model, head, train, run.seed)
    else:
        history = train_language_model(model, corpus().train, train, seed=run.seed, progress=False)
        seconds = history.seconds
    losses = token_losses(model, corpus().held_out)
    result: dict[str, Any] = {
        "held_out_loss": round(losses.double().mean().item(), 5),
        "seconds": round(seconds, 1),
    }
    if run.name == "with a head":
        result |= agreement(model, head) | {
            f"own text, temperature {t}": own_text(model, head, float(t), run.seed) for t in (0, 1)
        }
    return result


def train_both(model: DecoderLM, head: MultiTokenHead, train: TrainConfig, seed: int) -> float:
    """Train the model and the head on one loss; return the CPU seconds."""

    def loss(batch: Tensor) -> Tensor:
        length = batch.shape[1] - 1
        hidden, _ = model._read(batch[:, :-1], model._rotations(length))
        logits = model.head(model.norm(hidden)).flatten(0, 1)
        own = F.cross_entropy(logits, batch[:, 1:].flatten())
        return own + WEIGHT * head.loss(model, hidden, batch)

    batches = shuffled_windows(corpus().train, train.sequence_length, train.batch_size, seed)
    both = torch.nn.ModuleDict({"model": model, "mtp": head})
    return fit(both, loss, batches, train, progress=False).seconds


@torch.no_grad()
def agreement(model: DecoderLM, head: MultiTokenHead) -> dict[str, float]:
    """On held-out text: how often both like the same token best, and the mean of min(p, q)."""
    windows = corpus().held_out[: 200 * 128].view(200, 128)
    hidden, _ = model._read(windows, model._rotations(128))
    p = model.head(model.norm(hidden[:, 1:])).softmax(-1)
    q = head.logits(model, head.read(model, hidden[:, :-1], windows[:, 1:])).softmax(-1)
    greedy = (p.argmax(-1) == q.argmax(-1)).double().mean()
    return {
        "greedy": round(float(greedy), 4),
        "shared": round(float(torch.minimum(p, q).sum(-1).mean()), 4),
    }


def own_text(model: DecoderLM, head: MultiTokenHead, temperature: float, seed: int) -> list[int]:
    """Tokens accepted and proposed, one at a time, and steps, over texts that are written."""
    generator = torch.Generator().manual_seed(seed)
    held_out = corpus().held_out
    starts = torch.arange(PROMPTS) * (len(held_out) // PROMPTS)
    total = torch.zeros(3, dtype=torch.int64)
    for start in starts.tolist():
        written = speculative_generate(
            model,
            held_out[start : start + PROMPT_LENGTH],
            head,
            max_new_tokens=NEW_TOKENS,
            n_draft=1,
            temperature=temperature,
            generator=generator,
        )
        total += torch.tensor(written[1:])
    return total.tolist()


if __name__ == "__main__":
    sys.exit(main("drafting", runs(), execute))
