"""A real language model in fewer bits: what each scheme costs, and what its one outlier is for.

SmolLM2-135M-Instruct reads 12 windows of NumPy's documentation. Each run rounds the weights and
inputs of all linear layers within its blocks in one way, and stores the loss of each window, so
that two ways are compared window by window. The notebook quantize_real_llm reads the results.
"""

import math
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Final

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot.attention import Attention
from slingshot.corpus import numpy_documentation
from slingshot.formats import E4M3, E5M2
from slingshot.lm import DecoderLM, generate
from slingshot.pretrained import Pretrained, chat_prompt, load_smollm2
from slingshot.quant import (
    INT4,
    INT8,
    MXFP4,
    MXFP8,
    NVFP4,
    Block,
    QuantizedLinear,
    Setting,
    llm_int8_matmul,
    quantize,
    replace_linears,
    smooth,
)

WINDOWS, LENGTH = 12, 256  # 3,072 tokens that are predicted
CALIBRATION = 4  # windows between those, to see which columns are large (SmoothQuant)
QUESTION: Final = "Explain in two sentences why the sky is blue."
NEW_TOKENS = 28
OUTLIER_LAYER = 11  # whose feed-forward network has the largest value
OUTLIER_CHANNELS = (1229, 1487)
FIRST_TOKENS = 2  # of a window: the first has the outlier, and in other text the second, too
SINK_QUERIES = 16  # tokens from here on are asked what they attend to

TENSOR: Final[Block] = (None, None)
ROW: Final[Block] = (1, None)
G32: Final[Block] = (1, 32)
G128: Final[Block] = (1, 128)
Change = Callable[[DecoderLM], nn.Module]

# By name: how the weight and how each input is rounded.
SCHEMES: Final[dict[str, tuple[Setting | None, Setting | None]]] = {
    "float32": (None, None),
    "INT8 tensor": (Setting(INT8), Setting(INT8)),
    "INT8 row, tensor": (Setting(INT8, ROW), Setting(INT8)),
    "INT8 row, token": (Setting(INT8, ROW), Setting(INT8, ROW)),
    "INT8 groups of 128": (Setting(INT8, G128), Setting(INT8, G128)),
    "FP8 no scale": (Setting(E4M3, TENSOR, "none"), Setting(E4M3, TENSOR, "none")),
    "FP8 tensor": (Setting(E4M3), Setting(E4M3)),
    "FP8 row, token": (Setting(E4M3, ROW), Setting(E4M3, ROW)),
    "FP8 blocks": (Setting(E4M3, (128, 128)), Setting(E4M3, G128)),
    "FP8 blocks, powers of two": (
        Setting(E4M3, (128, 128), "e8m0"),
        Setting(E4M3, G128, "e8m0"),
    ),
    "FP8 E5M2 tensor": (Setting(E5M2), Setting(E5M2)),
    "MXFP8": (MXFP8, MXFP8),
    "MXFP8, ceil": (MXFP8._replace(rule="ceil"), MXFP8._replace(rule="ceil")),
    "NVFP4": (NVFP4, NVFP4),
    "MXFP4": (MXFP4, MXFP4),
    "INT4 groups of 32": (Setting(INT4, G32), Setting(INT4, G32)),
    "inputs INT8 tensor": (None, Setting(INT8)),
    "inputs INT8 token": (None, Setting(INT8, ROW)),
    "inputs FP8 tensor": (None, Setting(E4M3)),
    "weights INT8 tensor": (Setting(INT8), None),
    "weights INT8 row": (Setting(INT8, ROW), None),
    "weights INT4 row": (Setting(INT4, ROW), None),
    "weights INT4 groups of 32": (Setting(INT4, G32), None),
    "weights NVFP4": (NVFP4, None),
}
# Also run with all weights of the layers moved by what means nothing, to see what is luck.
MOVED: Final = ("float32", "INT8 tensor", "INT8 row, token", "FP8 tensor", "FP8 blocks")
MOVED_BY, MOVED_SEEDS = 1e-7, range(3)
WITH_TEXT = ("float32", "INT8 tensor", "INT8 row, token", "FP8 tensor", "NVFP4", "MXFP4")


def replaced(
    model: DecoderLM, make: Callable[[nn.Linear], nn.Module], keep: tuple[str, ...] = ()
) -> nn.Module:
    """The model with its blocks' linear layers replaced, but for names that end in ``keep``."""

    def choose(name: str, linear: nn.Linear) -> nn.Module:
        return linear if name == "head" or name.endswith(keep or ("-",)) else make(linear)

    return replace_linears(model, choose)


def rounded_model(scheme: str, keep: tuple[str, ...] = ()) -> Change:
    """How to round a model as a scheme says."""
    weight, x = SCHEMES[scheme]
    return lambda m: replaced(m, lambda li: QuantizedLinear.from_linear(li, weight, x), keep)


class SplitLinear(nn.Module):
    """LLM.int8(): columns with an outlier in float32, the others in INT8."""

    def __init__(self, linear: nn.Linear) -> None:
        """Take the weight."""
        super().__init__()
        self.weight = linear.weight

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        rows = x.reshape(-1, x.shape[-1])
        return llm_int8_matmul(rows, self.weight).reshape(*x.shape[:-1], -1)


class SmoothedLinear(nn.Module):
    """SmoothQuant: inputs divided and weights multiplied by factors found beforehand, then INT8."""

    def __init__(self, linear: nn.Linear, seen: Tensor, alpha: float, block: Block) -> None:
        """Take the weight and the inputs ``seen [T, K]`` on other text."""
        super().__init__()
        _, weight, self.factor = smooth(seen, linear.weight, alpha)
        self.block = block
        self.weight = quantize(weight, INT8, block).dequantize()

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        rows = quantize(x.reshape(-1, x.shape[-1]) / self.factor, INT8, self.block).dequantize()
        return F.linear(rows, self.weight).reshape(*x.shape[:-1], -1)


def smoothed(model: DecoderLM, block: Block) -> nn.Module:
    """SmoothQuant with α = 0.5 on every linear layer, calibrated on other windows."""
    seen = inputs_of(model, calibration())

    def make(name: str, linear: nn.Linear) -> nn.Module:
        return SmoothedLinear(linear, seen[name], 0.5, block) if name in seen else linear

    return replace_linears(model, make)


def inputs_of(model: DecoderLM, tokens: Tensor) -> dict[str, Tensor]:
    """By name, what enters each linear layer but the head, ``[tokens, K]``."""
    seen: dict[str, Tensor] = {}
    hooks = [
        linear.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.update({name: inputs[0].flatten(0, -2)})
        )
        for name, linear in linears(model)
    ]
    model(tokens)
    for hook in hooks:
        hook.remove()
    return seen


def linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers but the head, with their names."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "head":
            yield name, module


def at_outlier(change: Callable[[Tensor], Tensor]) -> Change:
    """The float32 model with the input of one layer's ``down`` changed: that with the outlier."""

    def changed(model: DecoderLM) -> nn.Module:
        twin = replace_linears(model, lambda _, linear: linear)
        down = twin.get_submodule(f"layers.{OUTLIER_LAYER}.ffn.down")
        down.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]),))
        return twin

    return changed


def without_channels(x: Tensor) -> Tensor:
    """The two channels that hold the outlier, set to zero."""
    x = x.clone()
    x[..., list(OUTLIER_CHANNELS)] = 0
    return x


def only_first_tokens(x: Tensor) -> Tensor:
    """Zero for all tokens but the first two of each window."""
    return torch.where(torch.arange(x.shape[1])[:, None] < FIRST_TOKENS, x, 0.0)


def in_int8(x: Tensor) -> Tensor:
    """INT8 with one scale for all tokens."""
    return quantize(x.flatten(0, 1), INT8).dequantize().view(x.shape)


def special() -> dict[str, tuple[dict[str, Any], Change]]:
    """By name, changes that are no rounding of everything in one way, with their settings."""
    down = f"layers.{OUTLIER_LAYER}.ffn.down"
    tensor, token = list(TENSOR), list(ROW)
    two, every = [".11.ffn.down", ".28.ffn.down"], [".ffn.down"]
    zeroed, cut = list(OUTLIER_CHANNELS), 100
    return {
        "INT8 tensor, two down kept": ({"keep": two}, rounded_model("INT8 tensor", tuple(two))),
        "INT8 tensor, all down kept": ({"keep": every}, rounded_model("INT8 tensor", tuple(every))),
        "LLM.int8": ({"threshold": 6.0}, lambda m: replaced(m, SplitLinear)),
        "SmoothQuant tensor": ({"smooth": tensor}, partial(smoothed, block=TENSOR)),
        "SmoothQuant row, token": ({"smooth": token}, partial(smoothed, block=ROW)),
        "outlier zeroed": ({"zeroed": zeroed, "of": down}, at_outlier(without_channels)),
        "outlier cut to 100": ({"cut": cut, "of": down}, at_outlier(lambda x: x.clamp(-cut, cut))),
        "one input INT8 tensor": ({"rounded": tensor, "of": down}, at_outlier(in_int8)),
        "one input zeroed but for two tokens": (
            {"kept": FIRST_TOKENS, "of": down},
            at_outlier(only_first_tokens),
        ),
    }


def runs() -> list[Run]:
    """All runs, in the order in which they are stored."""
    reading = {
        "windows": WINDOWS,
        "length": LENGTH,
        "text": f"NumPy {np.__version__}",
        "model": "SmolLM2-135M-Instruct.Q4_1",
    }
    schemes = []
    for name, (weight, x) in SCHEMES.items():
        scheme = {"weight": told(weight), "input": told(x)}
        asked = {"question": QUESTION, "new_tokens": NEW_TOKENS} if name in WITH_TEXT else {}
        schemes.append(Run(name, 0, {**reading, **scheme, **asked}))
    changes = [
        Run(name, 0, {**reading, "calibration": CALIBRATION, "change": words})
        for name, (words, _) in special().items()
    ]
    nudged = [
        Run(f"{name}, moved", seed, {**reading, "scheme": name, "moved": MOVED_BY, "seed": seed})
        for name in MOVED
        for seed in MOVED_SEEDS
    ]
    outliers = {**reading, "queries": SINK_QUERIES, "first_tokens": FIRST_TOKENS}
    return [*schemes, *changes, *nudged, Run("outliers", 0, outliers)]


def told(setting: Setting | None) -> list[Any] | None:
    """A setting in words that JSON knows."""
    if setting is None:
        return None
    return [setting.fmt.name, list(setting.block), setting.scale, setting.rule]


@torch.no_grad()
def execute(run: Run) -> dict[str, Any]:
    """Read the windows with one model, and measure."""
    model, tokenizer = pretrained()
    if run.name == "outliers":
        return {"down": largest_inputs(model), "sink": sinks(model)}
    if "moved" in run.configuration:
        model = moved(model, run.configuration["moved"], run.seed)
        changed = rounded_model(run.configuration["scheme"])(model)
        return {"losses": window_losses(changed, windows())}
    change = special()[run.name][1] if run.name in special() else rounded_model(run.name)
    changed = change(model)
    result: dict[str, Any] = {"losses": window_losses(changed, windows())}
    if run.name in WITH_TEXT:
        prompt = torch.tensor(tokenizer.encode(chat_prompt(QUESTION)).ids)
        assert isinstance(changed, DecoderLM)
        answer = generate(
            changed, [prompt], max_new_tokens=NEW_TOKENS, end=2, temperature=0, use_cache=False
        )
        result["text"] = tokenizer.decode(answer[0].tolist())
    return result


@cache
def pretrained() -> Pretrained:
    """The model, loaded once in each process."""
    return load_smollm2()


@cache
def text_windows() -> Tensor:
    """Windows spread evenly over the text: those that are read, then those to calibrate on."""
    tokens = torch.tensor(pretrained().tokenizer.encode(numpy_documentation()).ids)
    places = torch.arange(2 * WINDOWS) * (len(tokens) // (2 * WINDOWS))
    return torch.stack([tokens[start : start + LENGTH + 1] for start in places.tolist()])


def windows() -> Tensor:
    """The windows that are read, ``[WINDOWS, LENGTH + 1]``."""
    return text_windows()[::2]


def calibration() -> Tensor:
    """Other windows, ``[CALIBRATION, LENGTH]``."""
    return text_windows()[1::2][:CALIBRATION, :LENGTH]


def window_losses(model: nn.Module, tokens: Tensor, batch_size: int = 4) -> list[float]:
    """The mean loss of each window in nats; one scale for a tensor is one for four windows."""
    losses = []
    for batch in torch.split(tokens, batch_size):
        logits = model(batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
        losses += loss.view(len(batch), -1).mean(1).tolist()
    return losses


def moved(model: DecoderLM, size: float, seed: int) -> DecoderLM:
    """A copy whose layers' weights are multiplied by 1 plus ``size`` times normal numbers."""
    generator = torch.Generator().manual_seed(seed)

    def make(name: str, linear: nn.Linear) -> nn.Linear:
        if name == "head":
            return linear
        noise = torch.randn(linear.weight.shape, generator=generator)
        linear.weight = nn.Parameter(linear.weight * (1 + size * noise), requires_grad=False)
        return linear

    return replace_linears(model, make)


def largest_inputs(model: DecoderLM) -> list[dict[str, Any]]:
    """For the ``down`` of each layer the largest and the median magnitude that enter, and where."""
    tokens = windows()[:4, :-1]
    seen = inputs_of(model, tokens)
    found = []
    for index in range(model.config.n_layers):
        size = seen[f"layers.{index}.ffn.down"].view(*tokens.shape, -1).abs()
        place = int(size.argmax())
        later = size[:, FIRST_TOKENS:].max()
        found.append(
            {
                "amax": float(size.max()),
                "median": float(size.flatten()[::7].median()),
                "amax_of_later_tokens": float(later),
                "token": place // size.shape[2] % size.shape[1],
                "channel": place % size.shape[2],
            }
        )

    return found


def sinks(model: DecoderLM) -> dict[str, list[float]]:
    """By change, for each layer the share of attention that goes to the first token."""
    changes = {
        "float32": lambda m: replace_linears(m, lambda _, linear: linear),
        "outlier zeroed": at_outlier(without_channels),
        "INT8 tensor": rounded_model("INT8 tensor"),
    }
    return {name: first_token_shares(change(model)) for name, change in changes.items()}


def first_token_shares(model: nn.Module) -> list[float]:
    """For each layer the mean weight of the first token, over heads and tokens that come later."""
    shares: list[float] = []

    def look(module: Attention, inputs: tuple[Any, ...]) -> None:
        query, key, _ = module.project(inputs[0], inputs[1])
        key = key.repeat_interleave(module.n_heads // module.n_kv_heads, 1)
        scores = query @ key.transpose(2, 3) / math.sqrt(module.head_dim)
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, -math.inf).softmax(-1)
        shares.append(float(weights[:, :, SINK_QUERIES:, 0].mean()))

    for module in model.modules():
        if isinstance(module, Attention):
            module.register_forward_pre_hook(look)
    model(windows()[:4, :128])
    return shares


if __name__ == "__main__":
    sys.exit(main("quantized_llm", runs(), execute))
