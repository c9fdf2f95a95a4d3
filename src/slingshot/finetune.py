"""Fine-tuning a real language model on a laptop: what learns, how, and what is mixed in.

Three ways to change a model: all of its weights, those of its last layers, or matrices of low rank
beside its linear layers (LoRA). One loss for all: the cross-entropy of the completions, for which
the output head, by far the widest matrix, reads only the places where something is learned.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot import require
from slingshot.completions import CompletionBatch, Example, completion_batches, learned_states
from slingshot.lm import DecoderLM
from slingshot.tensors import at_least_float32
from slingshot.train import History, TrainConfig, fit, shuffled_windows

# --- what learns ---------------------------------------------------------------------------------


def learn_layers(model: DecoderLM, last: int | None = None, *, embedding: bool = True) -> int:
    """Let the ``last`` layers of ``model`` learn, all unless given, and nothing before them.

    The norm behind the layers learns, too. The ``embedding`` and the head learn only with all
    layers, and if that is wanted. Returns how many numbers learn. Raises ``ValueError`` for more
    layers than there are, or fewer than one.
    """
    n_layers = model.config.n_layers
    last = n_layers if last is None else require.whole("last", last, 1, n_layers)
    model.requires_grad_(False)
    for module in (*model.layers[n_layers - last :], model.norm):
        module.requires_grad_(True)
    if embedding and last == n_layers:
        model.embedding.requires_grad_(True)
        model.head.requires_grad_(True)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


class LoRALinear(nn.Module):
    """A linear layer that is frozen, with two narrow matrices beside it that learn.

    The output for ``x [..., K]`` is ``W x + scale · B A x`` with ``W [N, K]`` frozen,
    ``A [rank, K]`` random and ``B [N, rank]`` zero at first: an untrained one changes nothing.

    Source: Hu et al., LoRA, arXiv 2106.09685, §4.1, where the scale is written α / r.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float = 2.0) -> None:
        """Put ``rank`` rows beside the weight of ``linear``, which is shared and not copied.

        Raises ``ValueError`` for a rank below 1, a scale that is not finite, and for a layer with a
        bias, which would be lost.
        """
        super().__init__()
        require.counts(rank=rank)
        if getattr(linear, "bias", None) is not None:  # torch types it as never None
            raise ValueError("linear has a bias; pass a layer without one")
        self.weight, self.scale = linear.weight, require.real("scale", scale)
        n_out, n_in = linear.weight.shape
        like: dict[str, Any] = {"dtype": linear.weight.dtype, "device": linear.weight.device}
        self.down = nn.Parameter(torch.randn(rank, n_in, **like) / n_in**0.5)
        self.up = nn.Parameter(torch.zeros(n_out, rank, **like))

    def forward(self, x: Float[Tensor, "*shape K"]) -> Float[Tensor, "*shape N"]:
        """Multiply, and add what the narrow matrices say."""
        beside = F.linear(F.linear(x, self.down), self.up)
        return F.linear(x, self.weight) + self.scale * beside

    def merged(self) -> nn.Linear:
        """Return one linear layer that does the same: ``W + scale · B A``."""
        n_out, n_in = self.weight.shape
        linear = nn.Linear(n_in, n_out, bias=False, device="meta")
        weight = self.weight + self.scale * self.up @ self.down
        linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
        return linear


def add_lora(model: DecoderLM, rank: int, scale: float = 2.0) -> int:
    """Freeze ``model``, put a `LoRALinear` in place of each linear layer but the head.

    Returns how many numbers learn. The model itself is changed; `merge_lora` makes it one of plain
    layers again. Raises ``ValueError`` for a rank below 1, and for a model that has LoRA already.
    """
    require.counts(rank=rank)
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        raise ValueError("model has LoRA already; call merge_lora first")
    model.requires_grad_(False)
    _exchange(model, nn.Linear, lambda linear: LoRALinear(linear, rank, scale))
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def merge_lora(model: DecoderLM) -> None:
    """Put a plain linear layer in place of each `LoRALinear` of ``model``, frozen."""
    _exchange(model, LoRALinear, LoRALinear.merged)


def _exchange(model: DecoderLM, kind: type[Any], make: Callable[[Any], nn.Module]) -> None:
    for module in model.layers.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, kind):
                setattr(module, name, make(child))


# --- how it learns -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixture:
    """General text that is read beside the examples, so that a model forgets less.

    In each step ``windows`` windows of ``length`` of ``tokens [N]`` are read; their mean loss
    counts ``weight`` times as much as that of the completions. Raises ``ValueError`` for windows or
    a length below 1, and for a weight that is not above 0.
    """

    tokens: Tensor
    windows: int = 1
    length: int = 256
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        require.fields(self, at_least_1=("windows", "length"), above_0=("weight",))


def fine_tune(
    model: DecoderLM,
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    bfloat16: bool = False,
    mixture: Mixture | None = None,
    seed: int = 0,
    after_step: Callable[[], None] | None = None,
    progress: bool = True,
) -> History:
    """Train what learns in ``model`` to continue each prompt with its completion.

    It is `slingshot.train.train_on_completions` for a model with a wide head. With ``bfloat16`` the
    matrix products, forward and backward, read numbers of 16 bits, while weights, gradients and the
    optimizer keep 32 (mixed precision, Micikevicius et al., arXiv 1710.03740). That is faster on a
    processor with units for bfloat16, and several times slower on one without. ``History.losses``
    are per token of completion, and of general text not. Raises as `slingshot.train.fit` and
    `slingshot.completions.completion_batches` do.
    """
    batches: Iterator[CompletionBatch] = completion_batches(examples, config.tokens_per_step, seed)
    general: Iterator[Tensor] | None = None
    if mixture is not None:
        general = shuffled_windows(mixture.tokens, mixture.length, mixture.windows, seed)
    losses: list[float] = []

    def loss(batch: CompletionBatch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
            value = completion_loss(model, batch)
            losses.append(float(value.detach()))
            if general is None or mixture is None:
                return value
            window = next(general)
            everything = torch.ones(window[:, 1:].shape, dtype=torch.bool)
            other = completion_loss(model, CompletionBatch(window, everything))
        return value + mixture.weight * other

    first = next(batches)  # refuses examples that cannot be meant
    history = fit(
        model, loss, chain([first], batches), config, after_step=after_step, progress=progress
    )
    history.losses = losses
    return history


def batches_in_a_pass(examples: Sequence[Example], batch_tokens: int, seed: int = 0) -> int:
    """Return in how many batches of `completion_batches` each of ``examples`` comes once.

    Raises as that does.
    """
    seen = n_batches = 0
    batches = completion_batches(examples, batch_tokens, seed)
    while seen < len(examples) or not n_batches:
        seen += len(next(batches).tokens)
        n_batches += 1
    return n_batches


def completion_loss(model: DecoderLM, batch: CompletionBatch) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the learned tokens of ``batch``: a scalar.

    It is that of `slingshot.completions.completion_logits`. But here the head scores only the
    places that are learned, which saves the time and the memory of scores that nobody looks at.
    Raises as `learned_logits`, and where no token is learned.
    """
    logits, targets = learned_logits(model, batch)
    if not len(targets):
        raise ValueError("batch has no token to learn; give examples with a completion")
    return F.cross_entropy(logits, targets)


def learned_logits(
    model: DecoderLM, batch: CompletionBatch
) -> tuple[Float[Tensor, "N V"], Int64[Tensor, "N"]]:
    """Return logits ``[N, V]`` of the N learned tokens alone, and these tokens ``[N]``.

    Logits are at least float32. Raises ``ValueError`` for tokens that are not of this model, and
    for a mask that does not fit them.
    """
    states, targets = learned_states(model, batch)
    return at_least_float32(model.head(states)), targets
