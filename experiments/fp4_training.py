"""Small language models trained in four bits, with and without the two remedies, against float32.

Model, text, first weights and batches are those of the experiment fp8_training, seed by seed. What
differs is how the factors of the three products of the linear layers within the layers are rounded
to NVFP4: all to the nearest, gradients by lot, with both factors of the weight gradient rotated, or
both. A rotation has new signs at each step; one arm has signs that are drawn once, as in NVIDIA's
recipe. In another only the forward product has four bits. The notebook fp4_training reads it.
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
from slingshot.quant import FP4Linear, FP4Recipe, replace_linears
from slingshot.train import TrainConfig, train_language_model

SEEDS: Final = range(5)
TO_NEAREST = FP4Recipe(by_lot=False, rotated=False)
RECIPES: Final[dict[str, FP4Recipe | None]] = {
    "float32": None,
    "to nearest": TO_NEAREST,
    "by lot": TO_NEAREST._replace(by_lot=True),
    "rotated": TO_NEAREST._replace(rotated=True, new_signs=True),
    "by lot, rotated": FP4Recipe(new_signs=True),
    "by lot, rotated, signs drawn once": FP4Recipe(),
    "to nearest, forward alone": TO_NEAREST._replace(backward=False),
}


def runs() -> list[Run]:
    """All runs, seed by seed, so that an experiment that was stopped has pairs to compare."""
    common = {"model": described(MODEL), "train": described(TRAIN)}
    return [
        Run(name, seed, {**common, "recipe": recipe and told(recipe), "seed": seed})
        for seed in SEEDS
        for name, recipe in RECIPES.items()
    ]


def told(recipe: FP4Recipe) -> dict[str, Any]:
    """A recipe in words that JSON knows, with all that a setting is."""
    setting = recipe.setting
    words = {**setting._asdict(), "fmt": setting.fmt.name, "block": list(setting.block)}
    return {**recipe._asdict(), "setting": words}


def execute(run: Run) -> dict[str, Any]:
    """Train one model and measure it on held-out text."""
    text = corpus()
    torch.manual_seed(run.seed)
    model = DecoderLM(LMConfig(**run.configuration["model"]))
    if run.configuration["recipe"]:
        recipe = RECIPES[run.name]
        assert recipe
        assert told(recipe) == run.configuration["recipe"]
        model = in_four_bits(model, recipe)
    settings = run.configuration["train"]
    train = TrainConfig(**{**settings, "betas": tuple(settings["betas"])})
    history = train_language_model(model, text.train, train, seed=run.seed, progress=False)
    return {
        "seconds": round(history.seconds, 1),
        **measure_loss(model, text),
        "curve": in_blocks(torch.tensor(history.losses)),
    }


def in_four_bits(model: DecoderLM, recipe: FP4Recipe) -> DecoderLM:
    """The model with the products of its layers in four bits; its head stays float32."""

    def make(name: str, linear: nn.Linear) -> nn.Module:
        return linear if name == "head" else FP4Linear.from_linear(linear, recipe)

    return replace_linears(model, make)


if __name__ == "__main__":
    sys.exit(main("fp4_training", runs(), execute))
