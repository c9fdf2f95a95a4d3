"""The experiment that trains in four bits: its arms, and what they hold equal."""

import copy
import json
from dataclasses import replace

import fp4_training
import fp8_training
import pytest
import torch
from _runner import Run
from torch import Tensor, nn

from slingshot.corpus import Corpus
from slingshot.lm import DecoderLM, LMConfig
from slingshot.quant import NVFP4, FP4Linear, FP4Recipe
from test_fp8_training import small_corpus

__all__ = ["small_corpus"]  # a fixture


def run_named(name: str, seed: int = 0) -> Run:
    (run,) = (run for run in fp4_training.runs() if (run.name, run.seed) == (name, seed))
    return run


def test_runs_differ_in_their_recipe_and_float32_is_that_of_fp8() -> None:
    runs = fp4_training.runs()
    assert len({run.key for run in runs}) == len(runs)
    for run in runs:
        assert json.loads(json.dumps(run.configuration)) == run.configuration
        other = next(r for r in fp8_training.runs() if r.key == f"float32/{run.seed}")
        for key in ("model", "train", "seed"):
            assert run.configuration[key] == other.configuration[key]


def test_names_say_what_the_recipe_is_and_configurations_tell_it_whole() -> None:
    told = set()
    for name, recipe in fp4_training.RECIPES.items():
        if recipe is None:
            assert name == "float32"
            continue
        assert recipe.setting == NVFP4
        assert ("by lot" in name) == recipe.by_lot
        assert ("rotated" in name) == recipe.rotated
        assert recipe.new_signs == (recipe.rotated and "drawn once" not in name)
        assert recipe.forward
        assert recipe.backward == ("forward alone" not in name)
        told.add(json.dumps(fp4_training.told(recipe)))
        other = recipe._replace(setting=recipe.setting._replace(rule="floor"))
        assert fp4_training.told(other) != fp4_training.told(recipe)
    assert len(told) == len(fp4_training.RECIPES) - 1
    assert fp8_training.TRAIN.tokens_per_step % 16 == 0


@pytest.mark.parametrize("recipe", [r for r in fp4_training.RECIPES.values() if r], ids=str)
def test_all_layers_are_replaced_the_head_is_not_and_weights_stay(recipe: FP4Recipe) -> None:
    torch.manual_seed(0)
    model = DecoderLM(LMConfig(**fp4_training.runs()[0].configuration["model"]))
    before: dict[str, Tensor] = {k: v.clone() for k, v in model.state_dict().items()}
    twin = fp4_training.in_four_bits(model, recipe)
    linears = [m for m in twin.layers.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == 12
    assert all(isinstance(m, FP4Linear) and m.recipe == recipe for m in linears)
    assert type(twin.head) is nn.Linear
    assert all(torch.equal(value, before[k]) for k, value in twin.state_dict().items())


def small(run: Run) -> Run:
    """The run with few and small steps."""
    configuration = copy.deepcopy(run.configuration)
    configuration["train"] |= {"steps": 3, "batch_size": 2, "sequence_length": 16}
    return replace(run, configuration=configuration)


def test_float32_is_trained_as_in_the_other_experiment_and_no_two_arms_are_alike(
    small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp4_training, "corpus", lambda: small_corpus)
    losses = {
        name: fp4_training.execute(small(run_named(name)))["held_out_loss"]
        for name in fp4_training.RECIPES
    }
    other = next(r for r in fp8_training.runs() if r.key == "float32/0")
    assert losses["float32"] == fp8_training.execute(small(other))["held_out_loss"]
    assert len(set(losses.values())) == len(losses)


@pytest.mark.parametrize("name", ["to nearest", "by lot, rotated"])
def test_a_run_gives_what_json_can_store_and_the_same_again(
    name: str, small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp4_training, "corpus", lambda: small_corpus)
    result, again = (fp4_training.execute(small(run_named(name))) for _ in range(2))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert 0 < result["held_out_loss"] < 8
    for each in (result, again):
        each.pop("seconds")
    assert result == again
