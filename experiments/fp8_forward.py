"""Why the loss stays close when a model's products are rounded: with no training in FP8 at all.

The float32 models of fp8_training are trained again. Then their factors are rounded in the forward
pass only, and the held-out loss is compared token by token. The rounding errors are also multiplied
by a number before they are added, -1 among others: what turns its sign with that is of first order
in the errors, and what does not is of second. The control rounds toward zero: its errors all point
one way and are about twice as large, so it stands beside twice the errors. The notebook
fp8_training reads the results.
"""

import sys
from typing import Any, Final

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from fp8_training import (
    BLOCKS,
    HELD_OUT_WINDOWS,
    PER_TENSOR,
    TRAIN,
    UNSCALED,
    build,
    configuration,
    held_out_windows,
    told,
)
from mixture import corpus
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot.formats import FloatFormat
from slingshot.lm import DecoderLM
from slingshot.quant import FP8Recipe, Quantized, quantize, replace_linears
from slingshot.quant.blocks import Block
from slingshot.train import train_language_model

RECIPES: Final = {"FP8 blocks": BLOCKS, "FP8 per tensor": PER_TENSOR, "FP8 unscaled": UNSCALED}
SEEDS = range(5)
TIMES: Final = (-2.0, -1.0, 2.0)  # of the rounding errors in blocks


def runs() -> list[Run]:
    """One run for each seed."""
    recipes = {name: told(recipe) for name, recipe in RECIPES.items()}
    read = {"windows": HELD_OUT_WINDOWS, "recipes": recipes, "times": list(TIMES)}
    return [Run("float32", seed, {**configuration(seed=seed), **read}) for seed in SEEDS]


def execute(run: Run) -> dict[str, Any]:
    """Train one model in float32, and read with it in other ways."""
    text = corpus()
    words = {key: run.configuration[key] for key in ("model", "train", "recipe", "moved", "seed")}
    model, train, _ = build(words)
    train_language_model(model, text.train, train, seed=run.seed, progress=False)
    windows = held_out_windows(text)
    exact, hidden = token_losses(model, windows)
    result: dict[str, Any] = {"held_out_loss": round(exact.mean().item(), 6)}

    def compared(change: nn.Module) -> dict[str, float]:
        losses, other = token_losses(change, windows)
        change_of_each = losses - exact
        return {
            "mean": round(change_of_each.mean().item(), 7),
            "standard_deviation": round(change_of_each.std().item(), 6),
            "logits": round(((other - hidden).norm() / hidden.norm()).item(), 5),
        }

    result["forward"] = {
        name: compared(rounded_forward(model, recipe)) for name, recipe in RECIPES.items()
    }
    result["times"] = {
        f"{times:g}": compared(rounded_forward(model, BLOCKS, times)) for times in TIMES
    }
    result["toward zero"] = compared(rounded_forward(model, BLOCKS, mode="toward_zero"))
    result["product"] = product_errors(model, windows)
    return result


@torch.no_grad()
def token_losses(model: nn.Module, windows: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each predicted token ``[N * S]``, and the logits of the first batch, centered."""
    losses, first = [], None
    for batch in torch.split(windows, TRAIN.batch_size):
        logits = model(batch[:, :-1]).logits.flatten(0, 1)
        losses.append(F.cross_entropy(logits, batch[:, 1:].flatten(), reduction="none").double())
        first = logits - logits.mean(1, keepdim=True) if first is None else first
    assert first is not None
    return torch.cat(losses), first


class RoundedForward(nn.Module):
    """A linear layer whose two factors are moved by a multiple of their rounding errors."""

    def __init__(self, linear: nn.Linear, recipe: FP8Recipe, times: float, mode: str) -> None:
        """Take the weight."""
        super().__init__()
        self.recipe, self.times, self.mode = recipe, times, mode
        self.weight = self.moved(linear.weight.detach(), recipe.w_block)

    def moved(self, x: Tensor, block: Block) -> Tensor:
        """``x [R, C]`` plus so many times what rounding adds to it."""
        back = quantize(x, self.recipe.fmt, block, self.recipe.scale)
        if self.mode == "toward_zero":
            back = cut(x, back)
        return x + self.times * (back.dequantize() - x)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        rows = self.moved(x.reshape(-1, x.shape[-1]), self.recipe.x_block)
        return F.linear(rows, self.weight).reshape(*x.shape[:-1], -1)


def cut(x: Tensor, nearest: Quantized) -> Quantized:
    """The same scales, but each number rounded toward zero."""
    assert isinstance(nearest.fmt, FloatFormat)
    rows, columns = nearest.block
    scale = nearest.scale.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    quotient = (x / scale[: len(x), : x.shape[1]]).numpy()
    values = torch.from_numpy(nearest.fmt.round(quotient, "toward_zero", saturate=True))
    return Quantized(values, nearest.scale, nearest.block, nearest.fmt)


def rounded_forward(
    model: DecoderLM, recipe: FP8Recipe, times: float = 1.0, mode: str = "nearest_even"
) -> nn.Module:
    """The model with the products of its layers rounded; its head stays float32."""

    def make(name: str, linear: nn.Linear) -> nn.Module:
        return linear if name == "head" else RoundedForward(linear, recipe, times, mode)

    return replace_linears(model, make)


@torch.no_grad()
def product_errors(model: DecoderLM, windows: Tensor) -> dict[str, float]:
    """For one product, by layer: its error over its size, and that of the factors' elements."""
    found: dict[str, float] = {}
    batch = windows[: TRAIN.batch_size, :-1]
    for name, linear in model.layers.named_modules():
        if not isinstance(linear, nn.Linear):
            continue

        def look(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            assert isinstance(module, nn.Linear)
            x, w = inputs[0].flatten(0, -2), module.weight.detach()
            q = RoundedForward(module, BLOCKS, 1.0, "nearest_even")
            exact, off = x @ w.T, q.moved(x, BLOCKS.x_block) @ q.weight.T
            found[name] = round(((off - exact).norm() / exact.norm()).item(), 5)

        handle = linear.register_forward_pre_hook(look)
        model(batch)
        handle.remove()
    return found


if __name__ == "__main__":
    sys.exit(main("fp8_forward", runs(), execute))
