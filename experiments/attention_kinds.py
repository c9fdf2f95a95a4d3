"""Four kinds of attention in a small language model of equal parameters, trained on equal text.

All models have two layers of width 64 and four heads, read the same batches in the same order, seed
by seed, and have as many parameters to within one channel of the feed-forward network, whose width
makes up for the attention's. The notebook kv_cache reads the results.
"""

import json
import sys
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch

from slingshot import sizes
from slingshot.corpus import Corpus, load_corpus
from slingshot.lm import DecoderLM, LMConfig
from slingshot.train import TrainConfig, token_losses, train_language_model

SEEDS = range(5)
STEPS = 488  # of 2,048 tokens: one million
MHA = LMConfig(vocab_size=512, d_model=64, n_layers=2, n_heads=4, d_ffn=149, rope_base=1000.0)
LATENT = sizes.LatentAttention(
    n_heads=4,
    kv_lora_rank=24,
    q_lora_rank=None,
    qk_nope_head_dim=16,
    qk_rope_head_dim=8,
    v_head_dim=16,
)
KINDS = {
    "MHA": MHA,
    "GQA, 2 key-value heads": replace(MHA, n_kv_heads=2),
    "MQA": replace(MHA, n_kv_heads=1),
    "MLA": replace(MHA, attention=LATENT),
}


def with_parameters_of(config: LMConfig, model: LMConfig) -> LMConfig:
    """``config`` with the width of its feed-forward network that gives it those of ``model``."""
    excess = (
        sizes.count_parameters(model.sizes()).total - sizes.count_parameters(config.sizes()).total
    )
    return replace(
        config, d_ffn=config.d_ffn + round(excess / (3 * config.d_model * config.n_layers))
    )


def runs() -> list[Run]:
    """All runs, in the order in which they are stored."""
    return [
        Run(name, seed, configuration(with_parameters_of(config, MHA), seed))
        for name, config in KINDS.items()
        for seed in SEEDS
    ]


def configuration(model: LMConfig, seed: int) -> dict[str, Any]:
    """One run in words that JSON knows; what is ``None`` is left out."""
    parts = {"model": asdict(model), "train": asdict(TrainConfig(STEPS))}
    told = json.loads(json.dumps(parts))
    kept = {
        part: {name: value for name, value in settings.items() if value is not None}
        for part, settings in told.items()
    }
    return {**kept, "seed": seed}


def execute(run: Run) -> dict[str, Any]:
    """Train one model and measure it on the held-out text."""
    model, train = build(run.configuration)
    history = train_language_model(model, corpus().train, train, seed=run.seed, progress=False)
    losses = token_losses(model, corpus().held_out)
    return {
        "parameters": sizes.count_parameters(model.config.sizes()).total,
        "cached_elements": model.config.sizes().attention.cached_elements,
        "held_out_loss": round(losses.double().mean().item(), 5),
        "seconds": round(history.seconds, 1),
    }


def build(configuration: dict[str, Any]) -> tuple[DecoderLM, TrainConfig]:
    """Turn a configuration back into a model with fresh weights, and what trains it."""
    model_sizes = dict(configuration["model"])
    if "attention" in model_sizes:
        latent = {"q_lora_rank": None, **model_sizes["attention"]}
        model_sizes["attention"] = sizes.LatentAttention(**latent)
    torch.manual_seed(configuration["seed"])
    train = {**configuration["train"], "betas": tuple(configuration["train"]["betas"])}
    return DecoderLM(LMConfig(**model_sizes)), TrainConfig(**train)


@cache
def corpus() -> Corpus:
    """The text, read once in each process."""
    return load_corpus()


if __name__ == "__main__":
    sys.exit(main("attention_kinds", runs(), execute))
