"""What came after V3, in small: an optimizer, and residual streams.

Each part trains small language models on the same text and has a notebook that reads its results.
Models of one part start, with the same seed, from the same weights and read the same batches in the
same order. What differs is the one thing that the part is about.

*Optimizers*, for the notebook muon: both have two rates, one for the hidden matrices and one for
all else, and both are trained with as many pairs of them.
*Streams*, for hyper_connections: a deep and narrow model with one residual stream, or four.
"""

import sys
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any, Final

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from fp8_training import batch_losses, held_out_windows
from mixture import DENSE, corpus, described, in_blocks
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot.hyper_connections import HyperConnection, Mixing, sinkhorn
from slingshot.lm import DecoderLM, LMConfig
from slingshot.moe import Routing
from slingshot.train import (
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
OTHER_RATES = (0.005, 0.01, 0.02, 0.04)
PROBED_STEP = 60
PROBED = "layers.1.ffn.gate_up.weight"


def optimizer_runs() -> list[Run]:
    """A grid of both rates, for each optimizer."""
    return [
        Run(
            f"tuning {name}, {hidden:g} and {other:g}",
            TUNING_SEED,
            optimizer_configuration(TUNING_SEED, name, hidden, other),
        )
        for name, rates in HIDDEN_RATES.items()
        for hidden in rates
        for other in OTHER_RATES
    ]


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
}


def runs() -> list[Run]:
    """All runs, part by part."""
    return [*optimizer_runs(), *stream_runs()]


def execute(run: Run) -> dict[str, Any]:
    """Make one run of one part."""
    return PARTS[run.configuration["part"]](run)


if __name__ == "__main__":
    sys.exit(main("after_v3", runs(), execute))
