"""Two kinds of outliers in a real language model, and which remedy mends which.

SmolLM2-135M-Instruct reads the 12 windows of quantized_llm. Channels that are large in all tokens
are counted site by site and layer by layer, and so is the largest number of all. Each layer's
product is rounded alone, in six formats and with each remedy. Then the whole model is rotated and
rounded in four formats; quantized_llm has it without a rotation. One draw of the rotation's signs
reads all windows; other draws read the first four, and tell what the luck of a draw is. The
notebook quantize_real_llm reads the results.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import numpy as np
import torch
from quantized_llm import (
    CALIBRATION,
    FIRST_TOKENS,
    G32,
    LENGTH,
    MOVED_BY,
    ROW,
    WINDOWS,
    calibration,
    inputs_of,
    linears,
    moved,
    pretrained,
    told,
    window_losses,
    windows,
)
from torch import Tensor, nn

from slingshot.lm import DecoderLM
from slingshot.quant import (
    INT4,
    INT8,
    MXFP4,
    NVFP4,
    QuantizedLinear,
    Setting,
    llm_int8_matmul,
    quantize,
    replace_linears,
    rotate,
    smooth,
)

SEEDS = range(5)  # of the signs
DRAWN_WINDOWS = 4  # that every draw but the first reads: those that share a scale for a tensor
FORMATS: Final[dict[str, Setting]] = {
    "INT8 tensor": Setting(INT8),
    "INT8 row, token": Setting(INT8, ROW),
    "INT4 row, token": Setting(INT4, ROW),
    "INT4 groups of 32": Setting(INT4, G32),
    "MXFP4": MXFP4,
    "NVFP4": NVFP4,
}
WHOLE_MODEL: Final = ("INT8 tensor", "INT4 groups of 32", "MXFP4", "NVFP4")
BLOCK = 64  # the largest power of two that divides the model's 576 channels
ALPHA = 0.5
LARGE = 6.0  # times the median: what counts as an outlier
SITES: Final[dict[str, tuple[str, ...]]] = {  # the layers that read it
    "attention": ("query", "key", "value"),
    "output": ("output",),
    "gate and up": ("gate_up",),
    "down": ("down",),
}
Change = Callable[[Tensor], Tensor]


def runs() -> list[Run]:
    """All runs, seed by seed, so that an experiment that was stopped has something of each."""
    reading = {
        "windows": WINDOWS,
        "length": LENGTH,
        "text": f"NumPy {np.__version__}",
        "model": "SmolLM2-135M-Instruct.Q4_1",
    }
    looking = {**reading, "first_tokens": FIRST_TOKENS, "large": LARGE}
    measuring = {"calibration": CALIBRATION, "alpha": ALPHA, "block": BLOCK}
    first = [
        Run("sites", 0, looking),
        Run("errors", 0, {**looking, **measuring}),
        Run("float32", 0, reading),
    ]
    rotated = [
        Run(
            f"{name}, rotated",
            seed,
            {**reading, "windows": n_windows(seed), **rotation(name), "seed": seed},
        )
        for seed in SEEDS
        for name in WHOLE_MODEL
    ]
    return [*first, *rotated]


def n_windows(seed: int) -> int:
    """How many windows a draw of signs reads."""
    return DRAWN_WINDOWS if seed else WINDOWS


def rotation(name: str) -> dict[str, Any]:
    """How a whole model is rotated and rounded."""
    return {"format": told(FORMATS[name]), "block": BLOCK, "moved": MOVED_BY}


@torch.no_grad()
def execute(run: Run) -> dict[str, Any]:
    """Read the windows with one model, and measure."""
    model = pretrained().model
    if run.name == "sites":
        return {"sites": sites(model)}
    if run.name == "errors":
        return {"errors": errors(model)}
    if run.name == "float32":
        return {"losses": window_losses(model, windows())}
    model = moved(model, MOVED_BY, run.seed)
    fmt = FORMATS[run.name.removesuffix(", rotated")]
    read = windows()[: n_windows(run.seed)]
    return {"losses": window_losses(rotated_model(model, fmt, run.seed), read)}


# --- the remedies ------------------------------------------------------------------------------


class Before(nn.Module):
    """A linear layer with something done to its input first."""

    def __init__(self, change: Change, linear: nn.Module) -> None:
        """Take both."""
        super().__init__()
        self.change, self.linear = change, linear

    def forward(self, x: Tensor) -> Tensor:
        """Change, then multiply."""
        result: Tensor = self.linear(self.change(x))
        return result


def rotated_model(model: DecoderLM, fmt: Setting, seed: int) -> nn.Module:
    """The model with its linear layers rotated, each with signs of its own, and rounded."""
    generator = torch.Generator().manual_seed(seed)

    def make(name: str, linear: nn.Linear) -> nn.Module:
        if name == "head":
            return linear
        change, weight = changed(linear.weight, "rotate", generator)
        return Before(change, QuantizedLinear.from_linear(with_weight(linear, weight), fmt, fmt))

    return replace_linears(model, make)


def changed(
    weight: Tensor, remedy: str, generator: torch.Generator, seen: Tensor | None = None
) -> tuple[Change, Tensor]:
    """What a remedy does to inputs, and the weight ``[N, K]`` to which the same was done.

    To "smooth" it must have ``seen`` inputs ``[T, K]``; to "rotate" draws signs; "none" is none.
    """
    if remedy == "smooth" and seen is not None:
        _, weight, factor = smooth(seen, weight, ALPHA)
        return lambda x: x / factor, weight
    if remedy == "rotate":
        signs = 1.0 - 2.0 * torch.randint(2, weight.shape[1:], generator=generator)
        return lambda x: rotate(x, BLOCK, signs), rotate(weight, BLOCK, signs)
    return lambda x: x, weight


def with_weight(linear: nn.Linear, weight: Tensor) -> nn.Linear:
    """A layer without a bias, as all of this model are."""
    assert linear.bias is None
    layer = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


# --- what is measured --------------------------------------------------------------------------


def readers(model: DecoderLM) -> Iterator[tuple[int, str, str]]:
    """For each layer and site: its index, the site, and the name of a layer that reads it."""
    names = [name for name, _ in linears(model)]
    for index in range(model.config.n_layers):
        for site, (last, *_) in SITES.items():
            (name,) = (
                n for n in names if n.startswith(f"layers.{index}.") and n.endswith(f".{last}")
            )
            yield index, site, name


def sites(model: DecoderLM) -> list[dict[str, Any]]:
    """For each layer and site the channels that are large in all tokens, and the largest number."""
    tokens = windows()[:, :-1]
    parts = [inputs_of(model, batch) for batch in torch.split(tokens, 4)]
    found = []
    for index, site, name in readers(model):
        x = torch.cat([part[name] for part in parts]).view(*tokens.shape, -1)
        later = x[:, FIRST_TOKENS:].flatten(0, 1)
        size = later.square().mean(0).sqrt()  # of each channel, over all tokens but the first two
        median = size.median()
        channel = int(size.argmax())
        above = later.abs() > LARGE * later.abs().median(1, keepdim=True).values
        place = int(x.abs().argmax())
        numbers = {
            "ratio": size[channel] / median,
            "share": above[:, channel].double().mean(),
            "amax": x.abs().max(),
            "amax_of_later_tokens": later.abs().max(),
            "median": x.abs().flatten()[::7].median(),
        }
        found.append(
            {
                "layer": index,
                "site": site,
                "channel": channel,
                "channels": int((size > LARGE * median).sum()),
                "width": x.shape[-1],
                "token": place // x.shape[2] % x.shape[1],
                "largest_channel": place % x.shape[2],
                **{key: float(f"{float(value):.6g}") for key, value in numbers.items()},
            }
        )
    return found


def errors(model: DecoderLM) -> list[dict[str, Any]]:
    """For each layer and site, how far its product is from that in float32, by format and remedy.

    It is the size of the error over that of the product, in all tokens but the first two of each
    of four windows, whose inputs come from the float32 model: so one layer's error is its own.
    """
    tokens = windows()[:4, :-1]
    seen, calibrated = inputs_of(model, tokens), inputs_of(model, calibration())
    weights = {name: linear.weight for name, linear in linears(model)}
    generator = torch.Generator().manual_seed(0)
    is_later = (torch.arange(tokens.shape[1]) >= FIRST_TOKENS).repeat(len(tokens))
    found = []
    for index, site, name in readers(model):
        x, weight = seen[name], weights[name]
        exact = (x @ weight.T)[is_later]
        result: dict[str, Any] = {"layer": index, "site": site}

        def off(product: Tensor, exact: Tensor = exact) -> float:
            return float(f"{float((product[is_later] - exact).norm() / exact.norm()):.4g}")

        for fmt, setting in FORMATS.items():
            for words in ("none", "smooth", "rotate"):
                change, w = changed(weight, words, generator, calibrated[name])
                left, right = (quantize(m, *setting).dequantize() for m in (change(x), w))
                result[fmt if words == "none" else f"{fmt}, {words}"] = off(left @ right.T)
        result["LLM.int8"] = off(llm_int8_matmul(x, weight))
        found.append(result)
    return found


if __name__ == "__main__":
    sys.exit(main("outliers", runs(), execute))
