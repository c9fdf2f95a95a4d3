"""Small language models trained in FP8, and in other formats, against float32.

All models are one: two layers of width 256, two blocks of 128, on the same text. With the same seed
they start from the same weights and read the same batches in the same order. What differs is how
the factors of the three products of each linear layer within the layers are rounded; the embedding,
the head, norms and attention stay float32. The notebook fp8_training reads the results.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Final

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from mixture import corpus, described, in_blocks
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot.corpus import Corpus
from slingshot.formats import BF16, E4M3
from slingshot.lm import DecoderLM, LMConfig
from slingshot.quant import FP8Linear, replace_linears
from slingshot.quant.blocks import INT8, Block, Format, rounded
from slingshot.quant.linear import FP8Recipe
from slingshot.train import TrainConfig, shuffled_windows, train_language_model

SEEDS = range(5)
FEWER_SEEDS = range(3)  # of the runs whose gap is large, or that only accompany another
STEPS = 176  # of 2,048 tokens: a ninth of the text, so nothing is read twice
MODEL = LMConfig(vocab_size=512, d_model=256, n_layers=2, n_heads=4, d_ffn=512, rope_base=1000.0)
# The best of 0.001, 0.002, 0.005 and 0.01 for float32, one seed; no other format was asked.
TRAIN = TrainConfig(STEPS, learning_rate=2e-3)

FORMATS: Final[dict[str, Format]] = {fmt.name: fmt for fmt in (E4M3, BF16, INT8)}
TENSOR: Final[Block] = (None, None)
BLOCKS = FP8Recipe()
PER_TENSOR = FP8Recipe(E4M3, TENSOR, TENSOR, TENSOR)
UNSCALED = PER_TENSOR._replace(scale="none")

LATE_STEPS = STEPS // 4  # whose mean is the training loss at the end
PROBED_STEPS = (0, 10, 40, 100, STEPS - 1)
HELD_OUT_WINDOWS = 256  # of 128 tokens, spread evenly over the held-out text
EXPONENTS = range(-44, 13)  # of the powers of two between which gradients are counted


def arms() -> dict[str, dict[str, Any]]:
    """By name, the runs with all seeds: float32, and the formats whose gap is a fine one."""
    return {
        "float32": {},
        "float32, moved by 1e-3": {"moved": 1e-3},
        "BF16": {"recipe": UNSCALED._replace(fmt=BF16)},
        "FP8 blocks": {"recipe": BLOCKS},
        "FP8 per tensor": {"recipe": PER_TENSOR},
    }


def more_arms() -> dict[str, dict[str, Any]]:
    """By name, the runs with fewer seeds."""
    return {
        "float32, moved by 1e-6": {"moved": 1e-6},
        "FP8 blocks, gradients 128x128": {"recipe": BLOCKS._replace(grad_block=(128, 128))},
        "INT8 blocks": {"recipe": BLOCKS._replace(fmt=INT8)},
        "INT8 per tensor": {"recipe": PER_TENSOR._replace(fmt=INT8)},
        "FP8 unscaled": {"recipe": UNSCALED},
        "FP8 unscaled, 4 x steps": {"recipe": UNSCALED, "steps": 4 * STEPS},
        "FP8 unscaled, summed loss": {
            "recipe": UNSCALED,
            "loss_scale": float(TRAIN.tokens_per_step),
        },
        "FP8 unscaled, loss scale 2^16": {"recipe": UNSCALED, "loss_scale": 2.0**16},
    }


def runs() -> list[Run]:
    """All runs, seed by seed, so that an experiment that was stopped has pairs to compare."""
    return [run for seed in SEEDS for run in runs_of(seed)]


def runs_of(seed: int) -> list[Run]:
    """All runs with one seed."""
    fewer = seed in FEWER_SEEDS
    counted = {"counted": STEPS} | ({"counted, 4 x steps": 4 * STEPS} if fewer else {})
    trained = arms() | (more_arms() if fewer else {})
    return [
        *(Run(name, seed, counting(seed, steps)) for name, steps in counted.items()),
        *(Run(name, seed, configuration(seed=seed, **arm)) for name, arm in trained.items()),
    ]


def counting(seed: int, steps: int) -> dict[str, Any]:
    """A run that counts what a model reads in as many steps."""
    train = described(replace(TRAIN, steps=steps))
    return {"counted": "Witten-Bell", "train": train, "seed": seed}


def configuration(
    seed: int,
    recipe: FP8Recipe | None = None,
    moved: float = 0.0,
    loss_scale: float | None = None,
    steps: int = STEPS,
) -> dict[str, Any]:
    """One run in words that JSON knows."""
    return {
        "model": described(MODEL),
        "train": described(replace(TRAIN, steps=steps, loss_scale=loss_scale)),
        "recipe": None if recipe is None else told(recipe),
        "moved": moved,
        "seed": seed,
    }


def told(recipe: FP8Recipe) -> dict[str, Any]:
    """The recipe with the name of its format, and lists for its blocks."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in recipe._replace(fmt=recipe.fmt.name)._asdict().items()  # type: ignore[arg-type]
    }


def execute(run: Run) -> dict[str, Any]:
    """Train one model, or count, and measure on held-out text."""
    text = corpus()
    if "counted" in run.configuration:
        return count(text, read_by(run, text))
    model, train, recipe = build(run.configuration)
    probe = GradientProbe(model, recipe, PROBED_STEPS)
    history = train_language_model(
        model, text.train, train, seed=run.seed, after_step=probe.next, progress=False
    )
    losses = torch.tensor(history.losses, dtype=torch.float64)
    return {
        "seconds": round(history.seconds, 1),
        **measure_loss(model, text),
        "late_loss": round(losses[-LATE_STEPS:].mean().item(), 6),
        "curve": in_blocks(losses),
        "gradients": probe.found,
        # These are long, and one seed of a format shows where its gradients lie.
        "histograms": probe.histograms if run.key in ("float32/0", "FP8 unscaled/0") else {},
    }


def build(configuration: dict[str, Any]) -> tuple[DecoderLM, TrainConfig, FP8Recipe | None]:
    """Turn a configuration back into a model with fresh weights, and what trains it."""
    torch.manual_seed(configuration["seed"])
    model = DecoderLM(LMConfig(**configuration["model"]))
    if configuration["moved"]:
        move(model, configuration["moved"])
    settings = {**configuration["train"], "betas": tuple(configuration["train"]["betas"])}
    train = TrainConfig(**settings)
    if configuration["recipe"] is None:
        return model, train, None
    words = configuration["recipe"]
    blocks = {key: tuple(words[key]) for key in ("x_block", "w_block", "grad_block")}
    recipe = FP8Recipe(fmt=FORMATS[words["fmt"]], scale=words["scale"], **blocks)
    return quantized(model, recipe), train, recipe


def quantized(model: DecoderLM, recipe: FP8Recipe) -> DecoderLM:
    """The model with the products of its layers rounded; its head stays float32."""

    def make(name: str, linear: nn.Linear) -> nn.Module:
        return linear if name == "head" else FP8Linear.from_linear(linear, recipe)

    return replace_linears(model, make)


@torch.no_grad()
def move(model: DecoderLM, size: float) -> None:
    """Multiply each weight by 1 plus ``size`` times a normal number: a start as good as before."""
    for parameter in model.parameters():
        parameter.mul_(1 + size * torch.randn_like(parameter))


# --- what is measured --------------------------------------------------------------------------


def held_out_windows(text: Corpus) -> Tensor:
    """Windows of held-out text ``[256, 129]``, each token of which but the first is predicted."""
    windows = text.held_out.unfold(0, TRAIN.sequence_length + 1, TRAIN.sequence_length)
    return windows[torch.linspace(0, len(windows) - 1, HELD_OUT_WINDOWS).long()]


@torch.no_grad()
def measure_loss(model: DecoderLM, text: Corpus) -> dict[str, float]:
    """Losses on held-out text in nats per token: in its place, and seeing one token at a time.

    The model computes as it was trained, also in batches as large: one scale for a tensor is one
    for all tokens of a batch.
    """
    windows = held_out_windows(text)
    alone = torch.stack([windows[:, :-1], windows[:, 1:]], dim=-1).reshape(-1, 2)
    parts = {"held_out_loss": (windows, TRAIN.batch_size), "alone": (alone, TRAIN.tokens_per_step)}
    return {
        name: round(torch.stack(list(batch_losses(model, *part))).double().mean().item(), 6)
        for name, part in parts.items()
    }


def batch_losses(model: DecoderLM, windows: Tensor, batch_size: int) -> Iterator[Tensor]:
    """The mean loss of one batch of ``windows [N, S + 1]`` after another."""
    for batch in torch.split(windows, batch_size):
        yield F.cross_entropy(model(batch[:, :-1]).logits.flatten(0, 1), batch[:, 1:].flatten())


class GradientProbe:
    """Looks at gradients where they enter the linear layers, at a few steps.

    ``found`` has, for each such step and layer, the shares of entries that are 0 as they come, and
    that the recipe rounds to 0; and how far what is left is from the gradient, relative to it.
    ``histograms`` count magnitudes between powers of two.
    """

    def __init__(
        self, model: DecoderLM, recipe: FP8Recipe | None, steps: tuple[int, ...] = PROBED_STEPS
    ) -> None:
        """Watch each linear layer of ``model`` but its head."""
        self.recipe, self.steps, self.step = recipe, steps, 0
        self.found: dict[str, dict[str, list[float]]] = {}
        self.histograms: dict[str, dict[str, list[int]]] = {}
        for name, linear in model.layers.named_modules():
            if isinstance(linear, nn.Linear):
                linear.register_forward_hook(partial(self._watch, name))

    def next(self) -> None:
        """A step is done."""
        self.step += 1

    def _watch(self, name: str, module: nn.Module, inputs: object, output: Tensor) -> None:
        if self.step in self.steps and output.requires_grad:
            output.register_hook(partial(self._measure, name))  # type: ignore[no-untyped-call]

    def _measure(self, name: str, gradient: Tensor) -> None:
        rows = gradient.reshape(-1, gradient.shape[-1])
        kept = rows
        if self.recipe:
            kept = rounded(rows, self.recipe.fmt, self.recipe.grad_block, self.recipe.scale)
        size = rows.double().norm().item()
        zero, zero_kept = ((each == 0).double().mean().item() for each in (rows, kept))
        error = (kept.double() - rows.double()).norm().item() / size if size else 0.0
        numbers = [round(zero, 4), round(zero_kept - zero, 4), round(error, 4)]
        self.found.setdefault(str(self.step), {})[name] = numbers
        self.histograms.setdefault(str(self.step), {})[name] = histogram(rows)


def edges() -> Tensor:
    """Powers of two, and after each 1.75 times it: 448, the maximum of E4M3, is 1.75 times 2^8."""
    powers = torch.tensor([2.0**exponent for exponent in EXPONENTS])
    return torch.stack([powers, 1.75 * powers], dim=1).flatten()


def histogram(gradient: Tensor) -> list[int]:
    """Count zeros, and then magnitudes below, between and above `edges`.

    An entry that is as large as an edge counts below it.
    """
    magnitude = gradient.abs().flatten()
    magnitude = magnitude[magnitude > 0]
    counts = torch.bucketize(magnitude, edges()).bincount(minlength=len(edges()) + 1)
    return [gradient.numel() - len(magnitude), *counts.tolist()]


# --- references that count ---------------------------------------------------------------------


def read_by(run: Run, text: Corpus) -> Tensor:
    """The windows ``[N, S + 1]`` that a model reads in all steps of a run with this seed."""
    batches = shuffled_windows(text.train, TRAIN.sequence_length, TRAIN.batch_size, run.seed)
    return torch.cat(list(islice(batches, run.configuration["train"]["steps"])))


def count(text: Corpus, read: Tensor) -> dict[str, float]:
    """Held-out losses of who only counts: how often each token comes, and each after which other.

    ``bigram`` mixes the counts after a token with those of all tokens, as often as something new
    came after it; nothing is tuned. Source: Witten and Bell, IEEE Trans. Inf. Theory 37 (1991).
    """
    size = text.tokenizer.get_vocab_size()
    before, after = read[:, :-1].flatten(), read[:, 1:].flatten()
    counts = (before * size + after).bincount(minlength=size * size).view(size, size).double()
    unigram = (counts.sum(0) + 1) / (counts.sum() + size)
    kinds = (counts > 0).sum(1, keepdim=True).clamp(min=1)
    bigram = (counts + kinds * unigram) / (counts.sum(1, keepdim=True) + kinds)
    windows = held_out_windows(text)
    first, second = windows[:, :-1].flatten(), windows[:, 1:].flatten()
    return {
        "unigram": round(-unigram[second].log().mean().item(), 6),
        "bigram": round(-bigram[first, second].log().mean().item(), 6),
    }


if __name__ == "__main__":
    sys.exit(main("fp8_training", runs(), execute))
