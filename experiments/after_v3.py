"""What came after V3, in small: an optimizer, residual streams, and a memory of phrases.

Each part trains small language models on the same text and has a notebook that reads its results.
Models of one part start, with the same seed, from the same weights and read the same batches in the
same order. What differs is the one thing that the part is about.

*Optimizers*, for the notebook muon: both have two rates, one for the hidden matrices and one for
all else, and both are trained with as many pairs of them. The best pairs are compared with seeds
that did not choose them.
*Streams*, for hyper_connections: a deep and narrow model with one residual stream, or four.
*Memory*, for engram: a mixture of experts, and one in which tables take the place of some experts.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from typing import Any, Final

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from fp8_training import batch_losses, held_out_windows
from mixture import BIAS, DENSE, MIXTURE, SIXTEEN, corpus, described, in_blocks
from mixture import STEPS as MIXTURE_STEPS
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot import sizes
from slingshot.engram import Engram
from slingshot.hyper_connections import HyperConnection, Mixing, sinkhorn
from slingshot.lm import DecoderLM, LMConfig
from slingshot.moe import Routing
from slingshot.train import (
    Balancing,
    TrainConfig,
    hidden_matrices,
    shuffled_windows,
    train_language_model,
)

SEEDS = range(3)
TUNING_SEED = 3  # of the runs that vary the rates

# --- optimizers ------------------------------------------------------------------------------

STEPS = 122  # of 2,048 tokens: a quarter of a million
HIDDEN_RATES = {"AdamW": (0.005, 0.01, 0.02, 0.04), "Muon": (0.01, 0.02, 0.04, 0.08)}
OTHER_RATES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
# What did best in the grid, and the best of AdamW with one rate for all, with seeds of their own.
CHOSEN = {"AdamW": (0.01, 0.08), "Muon": (0.04, 0.08), "AdamW, one rate": (0.02, 0.02)}
CHOSEN_SEEDS = range(4, 9)
PROBED_STEP = 60
PROBED = "layers.1.ffn.gate_up.weight"


def optimizer_runs() -> list[Run]:
    """A grid of both rates, for each optimizer; what did best there, with other seeds."""
    grid = [
        Run(
            f"tuning {name}, {hidden:g} and {other:g}",
            TUNING_SEED,
            optimizer_configuration(TUNING_SEED, name, hidden, other),
        )
        for name, rates in HIDDEN_RATES.items()
        for hidden in rates
        for other in OTHER_RATES
    ]
    chosen = [
        Run(
            f"chosen {name}",
            seed,
            optimizer_configuration(seed, name.removesuffix(", one rate"), *rates),
        )
        for seed in CHOSEN_SEEDS
        for name, rates in CHOSEN.items()
    ]
    return grid + chosen


def optimizer_configuration(
    seed: int, optimizer: str, hidden: float, other: float, steps: int = STEPS
) -> dict[str, Any]:
    """One run in words that JSON knows."""
    return {
        "part": "optimizers",
        "model": described(DENSE),
        "train": described(TrainConfig(steps, learning_rate=other)),
        "optimizer": optimizer,
        "hidden_rate": hidden,
        "seed": seed,
    }


def execute_optimizer(run: Run) -> dict[str, Any]:
    """Train with one optimizer, and look at one of its updates."""
    torch.manual_seed(run.seed)
    model = DecoderLM(LMConfig(**run.configuration["model"]))
    config = train_config(run)
    made = optimizers(
        model, config, run.configuration["optimizer"], run.configuration["hidden_rate"]
    )
    spectra: dict[str, list[float]] = {}

    def look(step: int) -> None:
        if step == PROBED_STEP:
            spectra.update(spectra_of(dict(model.named_parameters())[PROBED], made))

    losses = train(model, config, made, run.seed, look)
    return {
        "held_out_loss": held_out_loss(model),
        "curve": in_blocks(torch.tensor(losses)),
        "spectra": spectra,
    }


def optimizers(
    model: DecoderLM, config: TrainConfig, name: str, hidden_rate: float
) -> list[torch.optim.Optimizer]:
    """AdamW for what is no hidden matrix, and ``name`` for the hidden ones, at their own rate."""
    hidden = hidden_matrices(model)
    taken = set(map(id, hidden))
    others = [p for p in model.parameters() if id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "AdamW":
        decay = config.weight_decay
        groups.append({"params": hidden, "weight_decay": decay, "lr": hidden_rate})
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    if name == "AdamW":
        return [adamw]
    muon = torch.optim.Muon(hidden, lr=hidden_rate, weight_decay=config.weight_decay)
    return [adamw, muon]


@torch.no_grad()
def spectra_of(weight: nn.Parameter, made: list[torch.optim.Optimizer]) -> dict[str, list[float]]:
    """Singular values of the last update of ``weight``: what was averaged, and what came of it."""
    assert weight.grad is not None
    last = made[-1]
    state = last.state[weight]
    if isinstance(last, torch.optim.Muon):
        before = weight.grad.lerp(state["momentum_buffer"], last.param_groups[0]["momentum"])
        after = newton_schulz(before)
    else:
        betas, step = last.param_groups[-1]["betas"], float(state["step"])
        before = state["exp_avg"] / (1 - betas[0] ** step)
        after = before / ((state["exp_avg_sq"] / (1 - betas[1] ** step)).sqrt() + 1e-8)
    parts = {"before": before, "after": after}
    return {
        name: [float(f"{s:.4g}") for s in torch.linalg.svdvals(matrix.double()).tolist()]
        for name, matrix in parts.items()
    }


def newton_schulz(matrix: Tensor, steps: int = 5) -> Tensor:
    """What `torch.optim.Muon` makes of an update, in float32 instead of bfloat16."""
    a, b, c = 3.4445, -4.775, 2.0315
    x: Tensor = matrix / matrix.norm()
    for _ in range(steps):
        gram = x.T @ x if x.shape[0] > x.shape[1] else x @ x.T
        mixed = b * gram + c * gram @ gram
        x = a * x + (x @ mixed if x.shape[0] > x.shape[1] else mixed @ x)
    return x


# --- streams ---------------------------------------------------------------------------------

DEEP = LMConfig(vocab_size=512, d_model=32, n_layers=12, n_heads=2, d_ffn=64, rope_base=1000.0)
N_STREAMS = 4
STREAM_RATE = 0.01
FASTER = 0.04  # for one stream alone: is what streams gain no more than larger steps?


def stream_runs() -> list[Run]:
    """One stream, and four that are mixed in three ways; one stream at a higher rate."""
    arms: dict[str, tuple[Mixing | None, float]] = {
        "one stream": (None, STREAM_RATE),
        "four, apart": ("identity", STREAM_RATE),
        "four, free": ("free", STREAM_RATE),
        "four, doubly stochastic": ("doubly stochastic", STREAM_RATE),
        "one stream, faster": (None, FASTER),
    }
    return [
        Run(name, seed, stream_configuration(seed, *arm))
        for name, arm in arms.items()
        for seed in SEEDS
    ]


def stream_configuration(seed: int, mixing: Mixing | None, rate: float) -> dict[str, Any]:
    """One run in words that JSON knows."""
    return {
        "part": "streams",
        "model": described(DEEP),
        "train": described(TrainConfig(100, 8, 64, learning_rate=rate)),
        "mixing": mixing,
        "n_streams": 1 if mixing is None else N_STREAMS,
        "seed": seed,
    }


class StreamLM(DecoderLM):
    """A `DecoderLM` with several residual streams: copies at first, and their mean at the end."""

    def __init__(self, config: LMConfig, n_streams: int, mixing: Mixing) -> None:
        """Draw the weights of a `DecoderLM`, and set those of two connections for each layer."""
        super().__init__(config)
        self.mixing = mixing
        self.connections = nn.ModuleList(
            HyperConnection(n_streams, index, mixing) for index in range(2 * config.n_layers)
        )

    def read(
        self, tokens: Tensor, rotation: Tensor, caches: object = None
    ) -> tuple[Tensor, list[Routing]]:
        """Run the layers, each of which has two blocks."""
        x, matrices = self.embedding(tokens), self.matrices()
        streams = x.unsqueeze(-2).repeat(1, 1, matrices.shape[-1], 1)
        for index, layer in enumerate(self.layers):
            attend, feed = self.connections[2 * index], self.connections[2 * index + 1]
            x = layer.attention_norm(attend.gather(streams))  # type: ignore[operator]
            found = layer.attention(x, rotation, None)  # type: ignore[operator]
            streams = attend(streams, found, matrices[2 * index])
            found = layer.ffn(layer.ffn_norm(feed.gather(streams)))  # type: ignore[operator]
            streams = feed(streams, found, matrices[2 * index + 1])
        return streams.mean(-2), []

    def matrices(self) -> Tensor:
        """The mixings of all connections, ``[blocks, n, n]``, made at once."""
        mixes = torch.stack([c.start + c.mix for c in self.connections])  # type: ignore[operator]
        return sinkhorn(mixes) if self.mixing == "doubly stochastic" else mixes

    def product(self) -> Tensor:
        """What all mixings together do to the streams, ``[n, n]``."""
        first, *rest = self.matrices().detach()
        product: Tensor = reduce(lambda product, matrix: matrix @ product, rest, first)
        return product


def execute_streams(run: Run) -> dict[str, Any]:
    """Train one model, and look at what its mixings do together."""
    torch.manual_seed(run.seed)
    config, mixing = LMConfig(**run.configuration["model"]), run.configuration["mixing"]
    model = DecoderLM(config)
    if mixing is not None:
        torch.manual_seed(run.seed)
        model = StreamLM(config, run.configuration["n_streams"], mixing)
    losses, history = train_model(model, run)
    result = {"held_out_loss": held_out_loss(model), "curve": losses, "seconds": history}
    if isinstance(model, StreamLM):
        product = model.product().double()
        result["forward_gain"] = round(product.abs().sum(1).max().item(), 4)
        result["backward_gain"] = round(product.abs().sum(0).max().item(), 4)
        result["singular_values"] = [round(s, 4) for s in torch.linalg.svdvals(product).tolist()]
    return result


# --- memory ----------------------------------------------------------------------------------

MEMORY_SEEDS = range(3)
PHRASES = {"d_slot": 8, "orders": (2, 3), "n_heads": 2}
# A row for each token of the vocabulary.
TOKENS = {"n_slots": DENSE.vocab_size, "orders": (1,), "n_heads": 1}
MEMORY_AT = 1  # the layer before which the memory is read; the paper's first is the second, too


def phrases_for(n_experts: int) -> dict[str, Any]:
    """Tables of phrases that, with their two matrices, weigh what ``n_experts`` of 16 leave."""
    width = len(PHRASES["orders"]) * PHRASES["n_heads"] * PHRASES["d_slot"]  # type: ignore[arg-type,operator]
    return {**PHRASES, "n_slots": freed_by(n_experts) // width - 2 * MIXTURE.d_model}


def tokens_for(n_experts: int) -> dict[str, Any]:
    """A table of single tokens with as many weights: wider rows, and each of them in use."""
    per_channel = DENSE.vocab_size + 2 * MIXTURE.d_model
    return {**TOKENS, "d_slot": round(freed_by(n_experts) / per_channel)}


def freed_by(n_experts: int) -> int:
    """The weights that a mixture of so many experts has less than one of 16."""
    whole, less = MIXTURE.sizes(), with_experts(n_experts).sizes()
    return sizes.count_parameters(whole).total - sizes.count_parameters(less).total


def with_experts(n_experts: int) -> LMConfig:
    """The mixture with fewer routed experts; as many of them are active."""
    return replace(MIXTURE, experts=replace(SIXTEEN, n_routed=n_experts))


def memory_runs() -> list[Run]:
    """The mixture of 16; tables for four, eight or twelve of its experts; and what explains it."""
    arms: dict[str, tuple[LMConfig, dict[str, Any] | None]] = {
        "16 experts": (MIXTURE, None),
        "12 experts and phrases": (with_experts(12), phrases_for(12)),
        "8 experts and phrases": (with_experts(8), phrases_for(8)),
        "4 experts and phrases": (with_experts(4), phrases_for(4)),
        "12 experts": (with_experts(12), None),
        "12 experts and tokens": (with_experts(12), tokens_for(12)),
        "dense": (DENSE, None),
        "dense and phrases": (DENSE, phrases_for(12)),
    }
    return [
        Run(name, seed, memory_configuration(seed, *arm))
        for seed in MEMORY_SEEDS
        for name, arm in arms.items()
    ]


def memory_configuration(
    seed: int, model: LMConfig, memory: dict[str, Any] | None
) -> dict[str, Any]:
    """One run in words that JSON knows."""
    return {
        "part": "memory",
        "model": described(model),
        "train": described(TrainConfig(MIXTURE_STEPS)),
        "balancing": described(BIAS if model.experts else Balancing()),
        "memory": memory and {**memory, "orders": list(memory["orders"])},
        "seed": seed,
    }


class EngramLM(DecoderLM):
    """A `DecoderLM` that reads a memory of phrases before one of its layers."""

    def __init__(self, config: LMConfig, memory: dict[str, Any]) -> None:
        """Draw the weights of a `DecoderLM`, then those of the memory."""
        super().__init__(config)
        self.engram = Engram(config.d_model, **memory)

    def read(
        self, tokens: Tensor, rotation: Tensor, caches: object = None
    ) -> tuple[Tensor, list[Routing]]:
        """Run the layers on whole texts; there is no cache."""
        x, routings = self.embedding(tokens), []
        for index, layer in enumerate(self.layers):
            if index == MEMORY_AT:
                x = x + self.engram(x, tokens)
            x, routing = layer(x, rotation, None, tokens)
            routings += [routing] if routing is not None else []
        return x, routings


def memory_model(run: Run) -> DecoderLM:
    """The model of a run; two with the same experts start with the same weights."""
    settings = dict(run.configuration["model"])
    if settings.get("experts"):
        settings["experts"] = sizes.ExpertConfig(**settings["experts"])
    torch.manual_seed(run.seed)
    config, memory = LMConfig(**settings), run.configuration["memory"]
    return DecoderLM(config) if memory is None else EngramLM(config, memory)


def execute_memory(run: Run) -> dict[str, Any]:
    """Train one model, and look at what its gate lets through."""
    model = memory_model(run)
    balancing = Balancing(**run.configuration["balancing"])
    history = train_language_model(
        model,
        corpus().train,
        train_config(run),
        balancing=balancing,
        seed=run.seed,
        progress=False,
    )
    result = {
        "total": sum(parameter.numel() for parameter in model.parameters()),
        "held_out_loss": held_out_loss(model),
        "curve": in_blocks(torch.tensor(history.losses)),
        "seconds": round(history.seconds, 1),
    }
    return result | (gates_of(model) if isinstance(model, EngramLM) else {})


@torch.no_grad()
def gates_of(model: EngramLM) -> dict[str, Any]:
    """How far the gate opens on held-out text, and how much is added where it does."""
    windows = held_out_windows(corpus())[:64, :-1]
    x = model.layers[0](model.embedding(windows), model.rotations(windows.shape[1]), None, windows)
    engram = model.engram
    read = engram.table(engram.slots(windows)).flatten(-2)
    gate = engram.gate(x[0], engram.key(read)).flatten().double()
    deciles = gate.quantile(torch.linspace(0, 1, 11).double())
    added = engram(x[0], windows).norm(dim=-1) / x[0].norm(dim=-1)
    return {
        "gate_deciles": [round(decile, 3) for decile in deciles.tolist()],
        "added": round(added.mean().item(), 4),
    }


MEMORY_ROUNDS, ROUND_STEPS = 9, 20


def memory_seconds_runs() -> list[Run]:
    """One run in which models with and without a memory are timed in turn."""
    timed = ("dense", "dense and phrases", "16 experts", "12 experts and phrases", "12 experts")
    models = {run.name: run.configuration for run in memory_runs() if run.seed == 0}
    settings = {"part": "memory seconds", "seed": 0, "train": described(TrainConfig(MIXTURE_STEPS))}
    return [Run("seconds", 0, {**settings, "models": {name: models[name] for name in timed}})]


def execute_memory_seconds(run: Run) -> dict[str, Any]:
    """Train each model for a few steps in turn; CPU seconds per step, by model and round."""
    models = {
        name: memory_model(Run(name, 0, settings))
        for name, settings in run.configuration["models"].items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in models}
    order = list(models)
    for _ in range(MEMORY_ROUNDS + 1):
        for name in order:
            history = train_language_model(
                models[name],
                corpus().train,
                TrainConfig(ROUND_STEPS),
                balancing=Balancing(**run.configuration["models"][name]["balancing"]),
                progress=False,
            )
            seconds[name].append(round(history.seconds / ROUND_STEPS, 5))
        order.reverse()
    return {name: each[1:] for name, each in seconds.items()}  # the first warms up


LOWER = 5.0  # counts in units of which the shorter phrase's prediction weighs


def memory_counts_runs() -> list[Run]:
    """What tables that only count would predict, with phrases of up to three tokens."""
    settings = {"part": "memory counts", "seed": 0, "train": described(TrainConfig(MIXTURE_STEPS))}
    return [Run("counts", 0, {**settings, "lower": LOWER, "orders": [0, 1, 2, 3]})]


def execute_memory_counts(run: Run) -> dict[str, Any]:
    """Held-out loss of counting, nats per token, and how many phrases there are, by order.

    After a phrase that was seen n times, a count of c for what comes next gives it the probability
    ``(c + L p) / (n + L)``, where p is what the phrase without its first token says.
    """
    train = corpus().train[: train_config(run).tokens].unsqueeze(0)
    windows = held_out_windows(corpus())
    first, length = max(run.configuration["orders"]), windows.shape[1]
    probability = torch.full(windows[:, first:].shape, 1 / DENSE.vocab_size).double()
    losses, phrases = [], []
    for order in run.configuration["orders"]:
        seen, ended = keys_of(train, order), keys_of(train, order + 1)
        starts = slice(first - order, length - order)  # of the phrases before each token
        n = count_of(seen[:, : ended.shape[1]], keys_of(windows, order)[:, starts])
        c = count_of(ended, keys_of(windows, order + 1)[:, starts])
        probability = (c + LOWER * probability) / (n + LOWER)
        losses.append(round(-probability.log().mean().item(), 4))
        phrases.append(len(seen.unique()))  # type: ignore[no-untyped-call]
    return {"held_out_loss": losses, "phrases": phrases}


def keys_of(tokens: Tensor, order: int) -> Tensor:
    """A number for each phrase of ``order`` tokens of ``tokens [B, S]``."""
    keys = torch.zeros_like(tokens[:, max(0, order - 1) :])
    for place in range(order):
        keys = keys * DENSE.vocab_size + tokens[:, place : place + keys.shape[1]]
    return keys


def count_of(all_keys: Tensor, wanted: Tensor) -> Tensor:
    """How often each of ``wanted`` occurs among ``all_keys``."""
    keys, counts = all_keys.unique(return_counts=True)  # type: ignore[no-untyped-call]
    place = torch.searchsorted(keys, wanted.contiguous()).clamp(max=len(keys) - 1)
    return torch.where(keys[place] == wanted, counts[place], 0).double()


# --- what the parts share ------------------------------------------------------------------------


def train_config(run: Run) -> TrainConfig:
    """The settings of the training of a run."""
    settings = run.configuration["train"]
    return TrainConfig(**{**settings, "betas": tuple(settings["betas"])})


def train_model(model: DecoderLM, run: Run) -> tuple[list[float], float]:
    """Train as a run says; return the losses in blocks, and the CPU seconds."""
    history = train_language_model(
        model,
        corpus().train,
        train_config(run),
        seed=run.seed,
        progress=False,
    )
    return in_blocks(torch.tensor(history.losses)), round(history.seconds, 1)


def train(
    model: DecoderLM,
    config: TrainConfig,
    made: list[torch.optim.Optimizer],
    seed: int,
    look: Callable[[int], None] = lambda step: None,
) -> list[float]:
    """Train as `slingshot.train.train_language_model`, with optimizers that are given."""
    schedules = [torch.optim.lr_scheduler.LambdaLR(each, config.rate) for each in made]
    losses = []
    for step, batch in zip(range(config.steps), batches(config, seed), strict=False):
        loss = F.cross_entropy(model(batch[:, :-1]).logits.flatten(0, 1), batch[:, 1:].flatten())
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for optimizer, schedule in zip(made, schedules, strict=True):
            optimizer.step()
            schedule.step()
        look(step)
        losses.append(loss.item())
    return losses


def batches(config: TrainConfig, seed: int) -> Iterator[Tensor]:
    """The batches of a run, without end."""
    return shuffled_windows(corpus().train, config.sequence_length, config.batch_size, seed)


@torch.no_grad()
def held_out_loss(model: DecoderLM) -> float:
    """Mean loss on windows of held-out text, in nats per token."""
    losses = list(batch_losses(model, held_out_windows(corpus()), 32))
    return round(torch.stack(losses).double().mean().item(), 6)


PARTS: Final[dict[str, Callable[[Run], dict[str, Any]]]] = {
    "optimizers": execute_optimizer,
    "streams": execute_streams,
    "memory": execute_memory,
    "memory seconds": execute_memory_seconds,
    "memory counts": execute_memory_counts,
}


def runs() -> list[Run]:
    """All runs, part by part."""
    memory = [*memory_runs(), *memory_seconds_runs(), *memory_counts_runs()]
    return [*optimizer_runs(), *stream_runs(), *memory]


def execute(run: Run) -> dict[str, Any]:
    """Make one run of one part."""
    return PARTS[run.configuration["part"]](run)


if __name__ == "__main__":
    sys.exit(main("after_v3", runs(), execute))
