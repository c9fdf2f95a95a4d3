"""One training loop for every model of this book.

A budget is a number of steps, so that a slow machine trains the same model as a fast one. Seconds
are measured, never spent.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot import require
from slingshot.completions import (
    CompletionBatch,
    Example,
    completion_batches,
    completion_logits,
)
from slingshot.lm import DecoderLM, in_eval_mode
from slingshot.moe import (
    Routing,
    expert_load,
    load_balancing_loss,
    sequence_balance_loss,
    update_expert_bias,
)
from slingshot.progress import progress_bar
from slingshot.tensors import (
    at_least_float32,
    check_learning,
    check_types,
    finite_number,
    whole,
)

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, on what, and how fast.

    The learning rate climbs for ``warmup`` steps, stays, and falls in a line over the last share
    ``decay`` of the steps; one step more would reach ``final`` of its peak. The optimizer is AdamW;
    matrices decay, vectors do not. With ``muon_rate`` the matrices of `hidden_matrices` are moved
    by ``torch.optim.Muon`` instead, at that rate (Jordan et al., 2024). Gradients are cut to norm
    ``clip``.

    ``batch_tokens`` is the size of a batch whose examples differ in length, in place of
    ``batch_size`` times ``sequence_length``.

    ``loss_scale`` multiplies the loss before the backward pass, and gradients are divided by it
    afterwards: what is too small for a number format on the way is not. A power of two changes
    nothing else. Source: Micikevicius et al., arXiv 1710.03740, §3.2.

    Raises ``ValueError`` for a value that cannot be meant.
    """

    steps: int
    batch_size: int = 16
    sequence_length: int = 128
    learning_rate: float = 1e-2
    warmup: int = 30
    decay: float = 0.3
    final: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    clip: float = 1.0
    loss_scale: float | None = None
    muon_rate: float | None = None
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        """Check each value."""
        require.fields(
            self,
            at_least_1=("steps", "batch_size", "sequence_length", "batch_tokens"),
            above_0=("learning_rate", "clip", "muon_rate"),
            shares=("decay", "final"),
        )
        require.counts(least=0, warmup=self.warmup)
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is {self.weight_decay}; give 0 or a small share")
        if self.loss_scale is not None and not 0 < self.loss_scale < math.inf:
            raise ValueError(
                f"loss_scale is {self.loss_scale}; give a power of two such as 2**16, or None"
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}; give two shares, each below 1")

    @property
    def tokens_per_step(self) -> int:
        """Tokens that are predicted in one step; with ``batch_tokens``, those that are read."""
        return self.batch_tokens or self.batch_size * self.sequence_length

    @property
    def tokens(self) -> int:
        """Tokens that are predicted in all."""
        return self.steps * self.tokens_per_step

    def rate(self, step: int) -> float:
        """Return the learning rate of ``step``, counted from 0, as a share of its peak."""
        rising = (step + 1) / (self.warmup + 1)
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        falling = self.final + (1 - self.final) * left
        return min(1.0, rising, falling)


@dataclass
class History:
    """What happened: ``losses`` per step, in nats per token, and the CPU ``seconds`` of all steps.

    ``loads [steps, L, E]`` int64 are the tokens that each expert of each layer got, if there are
    experts.
    """

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    loads: Int64[Tensor, "steps L E"] | None = None


def fit(
    model: nn.Module,
    loss: Callable[[Batch], Float[Tensor, ""]],
    batches: Iterable[Batch],
    config: TrainConfig,
    *,
    after_step: Callable[[], None] | None = None,
    progress: bool = True,
) -> History:
    """Train ``model`` for ``config.steps`` steps on the ``loss`` of one batch after another.

    A batch is whatever ``loss`` takes; nothing else looks at it.
    ``after_step`` is called when the weights have moved. A bar shows the step, the loss and tokens
    per second; ``progress=False`` hides it. Ctrl-C stops between two operations, and the model
    keeps what it has learned.

    Raises ``ValueError`` when there is nothing to train, gradients are switched off, the weights
    are float16, the loss depends on no weight or the batches run out, and ``FloatingPointError``
    when the loss or a gradient is not finite; no weight has moved by it.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    check_learning(learning)
    optimizers = make_optimizers(model, config)
    schedules = [torch.optim.lr_scheduler.LambdaLR(each, config.rate) for each in optimizers]
    history = History()
    source = iter(batches)
    model.train()
    text = f"{config.steps:,} steps of {config.tokens_per_step:,} tokens"
    with progress_bar(config.tokens, "tokens", text, progress) as bar:
        for step in range(config.steps):
            batch = next(source, None)
            if batch is None:
                raise ValueError(f"batches ran out after {step} of {config.steps} steps; give more")
            started = time.process_time()
            value = loss(batch)
            _check_loss(value)
            history.losses.append(finite_number("loss", value, step))
            model.zero_grad(set_to_none=True)
            _backward(value, learning, config.loss_scale)
            norm = nn.utils.clip_grad_norm_(learning, config.clip)
            finite_number("norm of the gradient", norm, step)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            if after_step:
                after_step()
            history.seconds += time.process_time() - started
            bar.set_postfix(loss=f"{history.losses[-1]:.3f}", refresh=False)
            bar.update(config.tokens_per_step)
    return history


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Return AdamW for what learns in ``model``, or AdamW and, for its hidden matrices, Muon.

    Raises ``ValueError`` if there is a ``muon_rate`` and no hidden matrix learns, or if a weight
    that learns is float16.
    """
    check_types([p for p in model.parameters() if p.requires_grad])
    hidden = hidden_matrices(model) if config.muon_rate else []
    taken = set(map(id, hidden))
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    if not config.muon_rate:
        return [adamw]
    if not hidden:
        raise ValueError(
            f"muon_rate is {config.muon_rate} but no linear layer inside the model learns; "
            "give None, AdamW then moves all"
        )
    muon = torch.optim.Muon(hidden, lr=config.muon_rate, weight_decay=config.weight_decay)
    return [adamw, muon]


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights of linear layers that learn, but for that of an output ``head``.

    They map directions of the model's own space to each other. Embeddings and the head map them to
    tokens, and a router to experts; experts are three-dimensional tensors. AdamW moves all these,
    and whatever a linear layer shares with an embedding or the head. Each weight comes once.
    """
    ends = [getattr(model, "head", None), *model.modules()]
    taken = {
        id(module.weight)
        for place, module in enumerate(ends)
        if isinstance(module, nn.Embedding) or (isinstance(module, nn.Linear) and not place)
    }
    hidden = {
        id(parameter): parameter
        for module in model.modules()
        if isinstance(module, nn.Linear)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim == 2 and parameter.requires_grad and id(parameter) not in taken
    }
    return list(hidden.values())


# --- language models -------------------------------------------------------------------------


Method = Literal["none", "auxiliary", "sequence", "bias"]
"""The ways to balance of `Balancing`."""


@dataclass(frozen=True)
class Balancing:
    """How the load of the experts is kept even, and how strongly.

    ``"none"`` leaves it alone. ``"auxiliary"`` adds ``strength`` times `load_balancing_loss` of the
    whole batch, ``"sequence"`` that of each sequence (`sequence_balance_loss`); both are summed
    over layers. ``"bias"`` moves each router's bias by ``strength`` after each step, with the load
    of the whole batch (`update_expert_bias`).

    Raises ``ValueError`` for an unknown ``method`` or a strength that does not fit it.
    """

    method: Method = "none"
    strength: float = 0.0

    def __post_init__(self) -> None:
        """Check that there is a strength where one is needed."""
        require.one_of(get_args(Method), method=self.method)
        if self.method == "none" and self.strength:
            raise ValueError(f"strength is {self.strength} but method is none; choose a method")
        if self.method != "none" and not 0 < self.strength < math.inf:
            raise ValueError(f"strength is {self.strength}; give {self.method} a positive number")


def train_language_model(
    model: DecoderLM,
    tokens: Integer[Tensor, "N"],
    config: TrainConfig,
    *,
    balancing: Balancing | None = None,
    seed: int = 0,
    after_step: Callable[[], None] | None = None,
    progress: bool = True,
) -> History:
    """Train ``model`` to predict the next of ``tokens [N]``, and keep its experts busy.

    ``seed`` fixes the order of the batches, and nothing else. ``History.losses`` are those of the
    prediction, without what balance adds. Raises as `fit` does, and ``ValueError`` when ``tokens``
    is too short for a batch or not of this model, or there are no experts to balance.
    """
    _check_reading(tokens, config.sequence_length, config.batch_size)
    model.check_vocabulary(tokens := whole("tokens", tokens))
    balancing = balancing or Balancing()
    if balancing.method != "none" and not model.routers:
        raise ValueError(f"balancing is {balancing.method} but the model has no experts; drop it")
    routings: list[Routing] = []
    predictions: list[float] = []
    loads: list[Tensor] = []

    def loss(batch: Tensor) -> Tensor:
        output = model(batch[:, :-1])
        routings[:] = output.routings
        logits = at_least_float32(output.logits).flatten(0, 1)
        prediction = F.cross_entropy(logits, batch[:, 1:].flatten())
        predictions.append(prediction.item())
        return prediction + balance_loss(routings, balancing, batch_size=len(batch))

    def balance() -> None:
        load = [expert_load(r.experts, r.scores.shape[1]) for r in routings]
        if load:
            loads.append(torch.stack(load))
        if balancing.method == "bias":
            for router, count in zip(model.routers, load, strict=True):
                update_expert_bias(router, count, balancing.strength)
        if after_step:
            after_step()

    batches = shuffled_windows(tokens, config.sequence_length, config.batch_size, seed)
    history = fit(model, loss, batches, config, after_step=balance, progress=progress)
    history.losses = predictions
    history.loads = torch.stack(loads) if loads else None
    return history


def balance_loss(
    routings: list[Routing], balancing: Balancing, batch_size: int
) -> Float[Tensor, ""]:
    """Return what ``balancing`` adds to the loss for one batch of ``batch_size`` sequences.

    Raises ``ValueError`` when the tokens of a routing are not those of ``batch_size`` sequences.
    """
    total = torch.zeros((), dtype=torch.float32)
    for _, experts, scores in routings:
        if scores.ndim != 2 or batch_size < 1 or len(scores) % batch_size:
            raise ValueError(
                f"scores has shape {tuple(scores.shape)} and batch_size is {batch_size}; "
                "pass the routings and the sequences of one batch"
            )
        if balancing.method == "auxiliary":
            total = total + load_balancing_loss(scores, experts, scores.shape[1])
        elif balancing.method == "sequence":
            by_sequence = scores.reshape(batch_size, len(scores) // batch_size, scores.shape[1])
            total = total + sequence_balance_loss(by_sequence, experts.shape[1])
    return balancing.strength * total


def shuffled_windows(
    tokens: Integer[Tensor, "N"], length: int, batch_size: int, seed: int
) -> Iterator[Int64[Tensor, "B length_1"]]:
    """Yield batches ``[B, length + 1]`` of windows of ``tokens [N]``, in a random order, forever.

    Windows overlap by the one token that ends one and begins the next, so that no token is
    predicted twice in a pass over the text. What does not fill a window, or in the end a batch, is
    left out of the pass. Batches are int64. With the first comes a ``ValueError`` if it needs more
    tokens, or these are no integers.
    """
    _check_reading(tokens, length, batch_size)
    tokens = whole("tokens", tokens)
    n_windows = (len(tokens) - 1) // length
    if n_windows < batch_size:
        raise ValueError(
            f"{len(tokens)} tokens make {n_windows} windows of {length}, less than a batch of "
            f"{batch_size}; give more text or a smaller batch"
        )
    windows = tokens.unfold(0, length + 1, length)
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(n_windows, generator=generator)
        for rows in torch.split(order, batch_size):
            if len(rows) == batch_size:
                yield windows[rows]


# --- prompts and completions -------------------------------------------------------------------


def train_on_completions(
    model: DecoderLM,
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    seed: int = 0,
    after_step: Callable[[], None] | None = None,
    progress: bool = True,
) -> History:
    """Train ``model`` to continue each prompt with its completion: supervised fine-tuning.

    A step reads at most ``config.tokens_per_step`` tokens, with padding. ``seed`` fixes the order
    of the batches, and nothing else. ``History.losses`` are per token of completion. Raises as
    `fit` and `completion_batches` do.
    """
    batches = completion_batches(examples, config.tokens_per_step, seed)

    def loss(batch: CompletionBatch) -> Tensor:
        return F.cross_entropy(*completion_logits(model, batch))

    return fit(model, loss, batches, config, after_step=after_step, progress=progress)


# --- measuring ---------------------------------------------------------------------------------


@torch.no_grad()
def token_losses(
    model: DecoderLM, tokens: Integer[Tensor, "N"], *, length: int = 128, batch_size: int = 64
) -> Float[Tensor, "N-1"]:
    """Return the loss in nats of each token but the first of ``tokens [N]``: ``[N - 1]`` float32.

    The text is read in windows of ``length``, so a token sees at most that many before it. The mean
    is the loss, its exponential the perplexity. A float64 model has float64 losses. The model runs
    in eval mode and is not changed for that. Raises ``ValueError`` for fewer than two tokens, for
    tokens that are not of this model, and when its logits are not finite.
    """
    _check_reading(tokens, length, batch_size)
    model.check_vocabulary(tokens := whole("tokens", tokens))
    model = in_eval_mode(model)
    n_windows = (len(tokens) - 1) // length
    windows = tokens.unfold(0, length + 1, length) if n_windows else tokens.new_empty(0, 2)
    parts = [*torch.split(windows, batch_size), tokens[None, n_windows * length :]]
    losses = [
        F.cross_entropy(
            at_least_float32(model(part[:, :-1]).logits).flatten(0, 1),
            part[:, 1:].flatten(),
            reduction="none",
        )
        for part in parts
        if part.numel() and part.shape[1] > 1
    ]
    return torch.cat(losses)


# --- details -----------------------------------------------------------------------------------


def _check_reading(tokens: Tensor, length: int, batch_size: int) -> None:
    if not isinstance(tokens, Tensor) or tokens.ndim != 1 or len(tokens) < 2:
        shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"tokens has shape {shape}; pass [N] with at least 2")
    if length < 1 or batch_size < 1:
        raise ValueError(f"length is {length} and batch_size {batch_size}; give each at least 1")


def _check_loss(loss: Tensor) -> None:
    if loss.numel() != 1 or not loss.requires_grad:
        raise ValueError(
            f"the loss has shape {tuple(loss.shape)} and requires_grad {loss.requires_grad}; "
            "return one number that depends on the weights"
        )


def _backward(loss: Tensor, learning: list[nn.Parameter], scale: float | None) -> None:
    """Leave in each parameter its gradient, ``scale`` times as large on the way."""
    (loss if scale is None else loss * scale).backward()  # type: ignore[no-untyped-call]
    if scale is not None:
        for parameter in learning:
            if parameter.grad is not None:
                parameter.grad.div_(scale)
