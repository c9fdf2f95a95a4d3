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
from slingshot.quant import FP4Linear
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


def test_names_say_what_the_recipe_is() -> None:
    for name, words in fp4_training.arms().items():
        if words is None:
            assert name == "float32"
            continue
        recipe = fp4_training.recipe_of(words)
        assert name.startswith(words["setting"])
        assert recipe.setting.rule == "ceil"
        assert (", all" in name or ", forward" in name) == recipe.forward
        assert (", all" in name or ", backward" in name) == recipe.backward
        assert ("by lot" in name) == recipe.by_lot
        assert ("rotated" in name) == recipe.rotated
    tokens = fp8_training.TRAIN.tokens_per_step
    assert all(tokens % (s.block[1] or 1) == 0 for s in fp4_training.SETTINGS.values())


@pytest.mark.parametrize("name", [name for name, words in fp4_training.arms().items() if words])
def test_all_layers_are_replaced_the_head_is_not_and_weights_stay(name: str) -> None:
    words = run_named(name).configuration["recipe"]
    torch.manual_seed(0)
    model = DecoderLM(LMConfig(**run_named(name).configuration["model"]))
    before: dict[str, Tensor] = {k: v.clone() for k, v in model.state_dict().items()}
    twin = fp4_training.in_four_bits(model, fp4_training.recipe_of(words))
    linears = [m for m in twin.layers.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == 12
    assert all(isinstance(m, FP4Linear) for m in linears)
    assert type(twin.head) is nn.Linear
    assert all(torch.equal(value, before[k]) for k, value in twin.state_dict().items())


@pytest.mark.parametrize("name", list(fp4_training.arms()))
def test_a_run_gives_what_json_can_store_and_the_same_again(
    name: str, small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp4_training, "corpus", lambda: small_corpus)
    run = run_named(name)
    configuration = copy.deepcopy(run.configuration)
    configuration["train"] |= {"steps": 3, "batch_size": 2, "sequence_length": 16}
    small = replace(run, configuration=configuration)
    result, again = fp4_training.execute(small), fp4_training.execute(small)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert 0 < result["held_out_loss"] < 8
    for each in (result, again):
        each.pop("seconds")
    assert result == again
