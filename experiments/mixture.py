"""Small language models on real text: dense against mixture, and four ways to balance a mixture.

All models have two layers of width 64 and read the same batches in the same order, seed by seed.
What differs is the feed-forward network, how the load of its experts is balanced, and the budget.
The notebooks sparse_vs_dense and moe_balancing read the results.
"""

import json
import sys
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from torch import Tensor

from slingshot import costs, sizes
from slingshot.corpus import Corpus, load_corpus
from slingshot.lm import DecoderLM, LMConfig
from slingshot.moe import expert_load, max_violation
from slingshot.stats import entropy, mutual_information, shuffle_within
from slingshot.train import Balancing, History, TrainConfig, token_losses, train_language_model

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SEEDS = range(5)
SWEEP_SEEDS = range(3)  # of the runs that only vary a rate
STEPS = 976  # of 2,048 tokens: two million, less than the text has, so nothing is read twice
SIXTEEN = sizes.ExpertConfig(n_routed=16, n_shared=1, top_k=2, d_expert=48)
# Three experts of 48 work on a token, 144 channels; five more do what the router does in FLOPs.
DENSE = LMConfig(vocab_size=512, d_model=64, n_layers=2, n_heads=2, d_ffn=149, rope_base=1000.0)
MIXTURE = replace(DENSE, experts=SIXTEEN)
BIAS = Balancing("bias", 0.01)

CURVE_STEPS = 16  # training curves are stored as means over as many steps
CAPACITY_FACTORS = (1.0, 1.25, 1.5, 2.0)


def multiplied(config: LMConfig) -> int:
    """Parameters that are multiplied with each token: FLOPs are six times these per token."""
    return sizes.count_parameters(config.sizes()).active_without_embedding


def with_total_of(mixture: LMConfig) -> LMConfig:
    """The dense model with as many parameters as the mixture holds."""
    excess = (
        sizes.count_parameters(mixture.sizes()).total - sizes.count_parameters(DENSE.sizes()).total
    )
    per_channel = 3 * DENSE.d_model * DENSE.n_layers
    return replace(DENSE, d_ffn=DENSE.d_ffn + round(excess / per_channel))


def steps_for_flops(config: LMConfig) -> int:
    """The steps of ``config`` that take as many FLOPs as the mixture's ``STEPS``."""
    return round(STEPS * multiplied(MIXTURE) / multiplied(config))


def arms() -> dict[str, dict[str, Any]]:
    """By name, what is trained: model, steps, balancing, and whether the router learns."""
    wide, narrow = with_total_of(MIXTURE), replace(DENSE, d_ffn=48)
    more = replace(MIXTURE, experts=replace(SIXTEEN, n_routed=32))
    half = STEPS // 2
    return {
        "dense": {"model": DENSE},
        "mixture 16": {"model": MIXTURE, "balancing": BIAS},
        "mixture 32": {"model": more, "balancing": BIAS},
        "dense wide": {"model": wide},
        "dense wide, equal FLOPs": {"model": wide, "steps": steps_for_flops(wide)},
        "dense narrow, equal FLOPs": {"model": narrow, "steps": steps_for_flops(narrow)},
        "dense, 1.25 x tokens": {"model": DENSE, "steps": STEPS * 5 // 4},
        "dense, 1.5 x tokens": {"model": DENSE, "steps": STEPS * 3 // 2},
        "dense, half the tokens": {"model": DENSE, "steps": half},
        "mixture 16, half the tokens": {"model": MIXTURE, "balancing": BIAS, "steps": half},
        "none": {"model": MIXTURE},
        "auxiliary": {"model": MIXTURE, "balancing": Balancing("auxiliary", 0.01)},
        "sequence": {"model": MIXTURE, "balancing": Balancing("sequence", 0.01)},
        "frozen router": {"model": MIXTURE, "balancing": BIAS, "frozen": True},
        "untrained": {"model": MIXTURE, "steps": 0},
    }


def sweeps() -> dict[str, dict[str, Any]]:
    """By name, half-length runs with another learning rate, or another speed of the bias."""
    half = STEPS // 2
    rates = {
        f"{name}, half the tokens, rate {rate:g}": {**arm, "steps": half, "rate": rate}
        for name, arm in (
            ("dense", {"model": DENSE}),
            ("mixture 16", {"model": MIXTURE, "balancing": BIAS}),
        )
        for rate in (5e-3, 2e-2)
    }
    speeds = {
        f"mixture 16, half the tokens, speed {speed:g}": {
            "model": MIXTURE,
            "balancing": Balancing("bias", speed),
            "steps": half,
        }
        for speed in (1e-3, 1e-1)
    }
    return rates | speeds


def runs() -> list[Run]:
    """All runs, in the order in which they are stored."""
    parts = ((arms(), SEEDS), (sweeps(), SWEEP_SEEDS))
    return [
        Run(name, seed, configuration(seed=seed, **arm))
        for part, seeds in parts
        for name, arm in part.items()
        for seed in seeds
    ]


def configuration(
    model: LMConfig,
    seed: int,
    steps: int = STEPS,
    rate: float = 1e-2,
    balancing: Balancing | None = None,
    frozen: bool = False,
) -> dict[str, Any]:
    """One run in words that JSON knows."""
    train = TrainConfig(max(1, steps), learning_rate=rate)
    return {
        "model": described(model),
        "train": described(train) | {"steps": steps},
        "balancing": described(balancing or Balancing()),
        "frozen_router": frozen,
        "seed": seed,
    }


def described(settings: "DataclassInstance") -> dict[str, Any]:
    """The settings less those that are ``None``: an option that is off, or does not exist yet."""
    told: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return {name: value for name, value in told.items() if value is not None}


def execute(run: Run) -> dict[str, Any]:
    """Train one model and measure it on the held-out text."""
    text = corpus()
    model, train, balancing = build(run.configuration)
    history = History()
    if train:
        history = train_language_model(
            model, text.train, train, balancing=balancing, seed=run.seed, progress=False
        )
    count = sizes.count_parameters(model.config.sizes())
    tokens = train.tokens if train else 0
    return {
        "total": count.total,
        "active": count.active_without_embedding,
        "tokens": tokens,
        "flops": costs.training_flops(count.active_without_embedding, tokens) if train else 0,
        "seconds": round(history.seconds, 1),
        **measure_loss(model, text),
        "curve": in_blocks(torch.tensor(history.losses)) if train else [],
        "layers": measure_layers(model, text, history, run.seed),
    }


def build(configuration: dict[str, Any]) -> tuple[DecoderLM, TrainConfig | None, Balancing]:
    """Turn a configuration back into a model with fresh weights, and what trains it."""
    model_sizes = dict(configuration["model"])
    if "experts" in model_sizes:
        model_sizes["experts"] = sizes.ExpertConfig(**model_sizes["experts"])
    torch.manual_seed(configuration["seed"])
    model = DecoderLM(LMConfig(**model_sizes))
    for router in model.routers:
        router.weight.requires_grad_(not configuration["frozen_router"])
    settings = {**configuration["train"], "betas": tuple(configuration["train"]["betas"])}
    train = TrainConfig(**settings) if settings["steps"] else None
    return model, train, Balancing(**configuration["balancing"])


@cache
def corpus() -> Corpus:
    """The text, read once in each process."""
    return load_corpus()


def measure_loss(model: DecoderLM, text: Corpus) -> dict[str, Any]:
    """Loss on the whole held-out text in nats per token, and by document."""
    losses = token_losses(model, text.held_out)
    documents = text.held_out_documents[1:]
    count = documents.bincount()
    by_document = torch.bincount(documents, weights=losses.double()) / count
    return {
        "held_out_loss": round(losses.double().mean().item(), 5),
        "loss_by_document": [round(value, 4) for value in by_document.tolist()],
        "tokens_by_document": count.tolist(),
        "bytes_per_token": round(text.bytes_per_token, 4),
    }


def measure_layers(
    model: DecoderLM, text: Corpus, history: History, seed: int
) -> list[dict[str, Any]]:
    """For each layer with experts: its load over training, and what its choices depend on.

    The share of each expert over training, which is long, is kept for the first seed.
    """
    choices = held_out_choices(model, text.held_out)
    layers = []
    for layer, experts in enumerate(choices):
        load = expert_load(experts, model.routers[layer].n_experts)
        measured: dict[str, Any] = {
            "held_out_load": load.tolist(),
            "held_out_max_violation": round(max_violation(load), 3),
            "information": information(experts[:, 0], text),
        }
        if history.loads is not None:
            loads = history.loads[:, layer].double()
            shares = [in_blocks(share) for share in (loads / loads.sum(1, True)).T]
            late = loads[int(0.7 * len(loads)) :]
            measured |= {
                "max_violation": in_blocks(loads.amax(1) / loads.mean(1) - 1),
                "late_max_violation": round((late.amax(1) / late.mean(1) - 1).mean().item(), 3),
                "load_shares": shares if seed == SEEDS[0] else [],
                "late_dropped": [round(dropped(late, c), 4) for c in CAPACITY_FACTORS],
            }
        layers.append(measured)
    return layers


def in_blocks(values: Tensor) -> list[float]:
    """Means over `CURVE_STEPS` steps; what remains at the end makes a shorter block."""
    return [round(block.mean().item(), 4) for block in torch.split(values, CURVE_STEPS)]


def dropped(loads: Tensor, capacity_factor: float) -> float:
    """The share of (token, expert) pairs beyond the experts' capacity, of ``loads [steps, E]``."""
    capacity = capacity_factor * loads.mean(1, keepdim=True)
    return ((loads - capacity).clamp(min=0).sum() / loads.sum()).item()


@torch.no_grad()
def held_out_choices(model: DecoderLM, tokens: Tensor, length: int = 128) -> list[Tensor]:
    """The experts ``[N, k]`` that each layer chose for the held-out tokens, whole windows only."""
    windows = tokens[: len(tokens) // length * length].view(-1, length)
    chosen: list[list[Tensor]] = [[] for _ in model.routers]
    for part in torch.split(windows, 64):
        for layer, routing in enumerate(model(part).routings):
            chosen[layer].append(routing.experts)
    return [torch.cat(parts) for parts in chosen]


def information(expert: Tensor, text: Corpus, length: int = 128) -> dict[str, float]:
    """Bits that a token's first expert tells about the token, its neighbors, place and document."""
    token, document = text.held_out[: len(expert)], text.held_out_documents[: len(expert)]
    dealt = shuffle_within(expert, token)
    shuffled = shuffle_within(expert, torch.zeros_like(token))
    bits = {
        "entropy": entropy(expert),
        "token": mutual_information(expert, token),
        "previous": mutual_information(expert[1:], token[:-1]),
        "next": mutual_information(expert[:-1], token[1:]),
        "position": mutual_information(expert, torch.arange(len(expert)) % length),
        "document": mutual_information(expert, document),
        "document, token's part": mutual_information(dealt, document),
        "token, shuffled": mutual_information(shuffled, token),
        "document, shuffled": mutual_information(shuffled, document),
        "entropy of document": entropy(document),
        "entropy of token": entropy(token),
    }
    return {name: round(value, 3) for name, value in bits.items()}


if __name__ == "__main__":
    sys.exit(main("mixture", runs(), execute))
