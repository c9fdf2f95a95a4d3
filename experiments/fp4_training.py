"""Small language models trained in four bits, with and without the two remedies, against float32.

Model, text, first weights and batches are those of the experiment fp8_training, seed by seed. What
differs is which products of the linear layers within the layers have four bits, and how gradients
are rounded. NVFP4 has them in all three products. MXFP4 has them in the backward products alone, as
in the paper that trains with it, and once in the forward product alone. Its scales are rounded up
here: rounded down, as the specification has it, the largest number of a block can saturate, and
rounding by lot is not right on average. The notebook fp4_training reads the results.
"""

import sys
from typing import Any, Final

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from fp8_training import MODEL, TRAIN, measure_loss
from mixture import corpus, described, in_blocks
from torch import nn

from slingshot.lm import DecoderLM, LMConfig
from slingshot.quant import MXFP4, NVFP4, FP4Linear, FP4Recipe, Setting, replace_linears
from slingshot.train import TrainConfig, train_language_model

SEEDS = range(3)
SETTINGS: Final[dict[str, Setting]] = {"NVFP4": NVFP4, "MXFP4": MXFP4._replace(rule="ceil")}
REMEDIES: Final = {
    "to nearest": (False, False),
    "by lot": (True, False),
    "rotated": (False, True),
    "by lot, rotated": (True, True),
}


def arms() -> dict[str, dict[str, Any] | None]:
    """By name, a recipe in words that JSON knows; ``None`` for float32."""
    table: dict[str, dict[str, Any] | None] = {"float32": None}
    for fmt, products in (("NVFP4", "all"), ("MXFP4", "backward")):
        for remedy, (by_lot, rotated) in REMEDIES.items():
            table[f"{fmt}, {products}, {remedy}"] = {
                "setting": fmt,
                "by_lot": by_lot,
                "rotated": rotated,
                "forward": products == "all",
                "backward": True,
            }
    table["NVFP4, forward"] = {
        "setting": "NVFP4",
        "by_lot": False,
        "rotated": False,
        "forward": True,
        "backward": False,
    }
    return table


def runs() -> list[Run]:
    """All runs, seed by seed, so that an experiment that was stopped has pairs to compare."""
    common = {"model": described(MODEL), "train": described(TRAIN)}
    return [
        Run(name, seed, {**common, "recipe": recipe, "seed": seed})
        for seed in SEEDS
        for name, recipe in arms().items()
    ]


def execute(run: Run) -> dict[str, Any]:
    """Train one model and measure it on held-out text."""
    text = corpus()
    torch.manual_seed(run.seed)
    model = DecoderLM(LMConfig(**run.configuration["model"]))
    if run.configuration["recipe"]:
        model = in_four_bits(model, recipe_of(run.configuration["recipe"]))
    settings = run.configuration["train"]
    train = TrainConfig(**{**settings, "betas": tuple(settings["betas"])})
    history = train_language_model(model, text.train, train, seed=run.seed, progress=False)
    return {
        "seconds": round(history.seconds, 1),
        **measure_loss(model, text),
        "curve": in_blocks(torch.tensor(history.losses)),
    }


def recipe_of(words: dict[str, Any]) -> FP4Recipe:
    """Turn words back into a recipe."""
    return FP4Recipe(**{**words, "setting": SETTINGS[words["setting"]]})


def in_four_bits(model: DecoderLM, recipe: FP4Recipe) -> DecoderLM:
    """The model with the products of its layers in four bits; its head stays float32."""

    def make(name: str, linear: nn.Linear) -> nn.Module:
        return linear if name == "head" else FP4Linear.from_linear(linear, recipe)

    return replace_linears(model, make)


if __name__ == "__main__":
    sys.exit(main("fp4_training", runs(), execute))
