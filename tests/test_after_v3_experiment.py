"""The experiment on what came after V3: what its parts compare, and what they hold equal."""

import copy
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import after_v3
import fp8_training
import pytest
import torch
from _runner import RESULTS, Run, read
from after_v3 import StreamLM
from torch import Tensor, nn

from slingshot.corpus import Corpus, Document, encode, train_tokenizer
from slingshot.hyper_connections import Mixing
from slingshot.lm import DecoderLM, LMConfig
from slingshot.train import hidden_matrices, train_language_model

TINY = LMConfig(vocab_size=23, d_model=16, n_layers=3, n_heads=2, d_ffn=32)


@pytest.fixture
def small_corpus(monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """Two short documents in place of the standard library."""
    source = Path(after_v3.__file__).read_text()
    documents = [Document("a", source[:6000]), Document("b", source[6000:12000])]
    tokenizer = train_tokenizer([source], 300)
    tokens, numbers = encode(tokenizer, documents)
    corpus = Corpus(
        tokens.repeat(20), tokens.repeat(20), numbers.repeat(20), ("a", "b"), tokenizer, 2.0
    )
    monkeypatch.setattr(after_v3, "corpus", lambda: corpus)
    monkeypatch.setattr(fp8_training, "HELD_OUT_WINDOWS", 8)
    return corpus


def run_named(name: str, seed: int = 0) -> Run:
    (run,) = (run for run in after_v3.runs() if (run.name, run.seed) == (name, seed))
    return run


def short(run: Run, **changes: Any) -> Run:  # noqa: ANN401 settings of a training
    """The run with fewer and smaller steps."""
    configuration = copy.deepcopy(run.configuration)
    configuration["train"] |= {"steps": 4, "batch_size": 2, "sequence_length": 32, **changes}
    return replace(run, configuration=configuration)


GRID = after_v3.optimizer_runs()
TUNING = [run for run in GRID if run.name.startswith("tuning")]
CHOSEN = [run for run in GRID if run.name.startswith("chosen")]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_run_has_a_name_of_its_own_and_can_be_stored() -> None:
    runs = after_v3.runs()
    assert len({run.key for run in runs}) == len(runs)
    for run in runs:
        assert json.loads(json.dumps(run.configuration)) == run.configuration
        assert run.configuration["seed"] == run.seed
        assert after_v3.train_config(run).steps >= 100
        assert run.configuration["part"] in after_v3.PARTS


@pytest.mark.parametrize("part", ["memory", "optimizers", "streams"])
def test_a_run_of_each_part_goes_through(part: str, small_corpus: Corpus) -> None:
    names = {run.name: run for run in after_v3.runs() if run.configuration["part"] == part}
    kept = [run for name, run in names.items() if not name.startswith("tuning")]
    for run in kept[:: max(1, len(kept) // 4)]:
        result = after_v3.execute(short(run))
        assert 0 < result["held_out_loss"] < 20
        assert json.loads(json.dumps(result)) == result


# --- optimizers ----------------------------------------------------------------------------------


def test_both_optimizers_have_as_many_pairs_of_rates_and_both_are_measured() -> None:
    stored = read(RESULTS / "after_v3.json")
    pairs: dict[str, list[tuple[float, float]]] = {}
    for run in TUNING:
        settings = stored[run.key]["configuration"]
        pairs.setdefault(settings["optimizer"], []).append(rates_of(settings))
    assert sorted(pairs) == ["AdamW", "Muon"]
    assert len({len(set(each)) for each in pairs.values()}) == 1


def test_the_chosen_rates_did_best_and_are_compared_with_other_seeds() -> None:
    stored = read(RESULTS / "after_v3.json")
    losses = {
        name: {
            rates_of(run.configuration): stored[run.key]["result"]["held_out_loss"]
            for run in TUNING
            if run.configuration["optimizer"] == name
        }
        for name in ("AdamW", "Muon")
    }
    same = {rates: loss for rates, loss in losses["AdamW"].items() if rates[0] == rates[1]}
    for name, grid in {**losses, "AdamW, one rate": same}.items():
        assert after_v3.CHOSEN[name] == min(grid, key=lambda rates: grid[rates])
    for run in CHOSEN:
        assert rates_of(run.configuration) == after_v3.CHOSEN[run.name.removeprefix("chosen ")]
        assert run.seed != after_v3.TUNING_SEED


def rates_of(settings: dict[str, Any]) -> tuple[float, float]:
    return settings["hidden_rate"], settings["train"]["learning_rate"]


@pytest.mark.parametrize("name", ["AdamW", "Muon"])
def test_the_loop_is_that_of_the_library(name: str, small_corpus: Corpus) -> None:
    """With one rate for all, AdamW here is AdamW there; Muon has two rates in both."""
    config = replace(after_v3.train_config(short(GRID[0])), learning_rate=0.01)
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(DecoderLM(replace(TINY, vocab_size=512)))
    made = after_v3.optimizers(models[0], config, name, 0.01)
    ours = after_v3.train(models[0], config, made, seed=1)
    muon_rate = 0.01 if name == "Muon" else None
    theirs = train_language_model(
        models[1], small_corpus.train, replace(config, muon_rate=muon_rate), seed=1, progress=False
    )
    assert ours == theirs.losses
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_hidden_rate_moves_hidden_matrices_alone(small_corpus: Corpus) -> None:
    config = replace(after_v3.train_config(short(GRID[0])), steps=1)
    for name in ("AdamW", "Muon"):
        torch.manual_seed(0)
        model = DecoderLM(replace(TINY, vocab_size=512))
        before = {name: p.clone() for name, p in model.named_parameters()}
        hidden = set(map(id, hidden_matrices(model)))
        after_v3.train(model, config, after_v3.optimizers(model, config, name, 0.0), seed=1)
        still = {key for key, p in model.named_parameters() if torch.equal(p, before[key])}
        assert {key for key, p in model.named_parameters() if id(p) in hidden} <= still
        assert not still & {"embedding.weight", "head.weight", "norm.weight"}


def test_the_spectra_are_those_of_the_update_that_was_made(small_corpus: Corpus) -> None:
    config = replace(after_v3.train_config(short(GRID[0])), steps=1)
    for name in ("AdamW", "Muon"):
        torch.manual_seed(0)
        model = DecoderLM(replace(TINY, vocab_size=512))
        for parameter in model.parameters():
            parameter.data = random(*parameter.shape, seed=parameter.numel()) / 8
        weight = dict(model.named_parameters())[after_v3.PROBED]
        before = weight.detach().clone()
        made = after_v3.optimizers(model, replace(config, weight_decay=0.0), name, 0.01)
        after_v3.train(model, replace(config, warmup=0, decay=0.0), made, seed=1)
        moved = torch.linalg.svdvals(weight.detach() - before) / 0.01
        if name == "Muon":
            moved /= max(1, weight.shape[0] / weight.shape[1]) ** 0.5
        told = torch.tensor(after_v3.spectra_of(weight, made)["after"])
        # Muon rounds to bfloat16 on the way, and a small step is lost in a large weight.
        torch.testing.assert_close(moved, told, rtol=0.05, atol=0.02)


def test_newton_schulz_is_that_of_torch() -> None:
    for shape in [(8, 8), (6, 12), (12, 6)]:
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = random(*shape)
        torch.optim.Muon([weight], lr=1.0, weight_decay=0.0).step()  # type: ignore[no-untyped-call]
        longer = max(1, shape[0] / shape[1]) ** 0.5
        ours = -longer * after_v3.newton_schulz(weight.grad)
        # bfloat16 rounds each of five rounds' products by up to 2^-9.
        assert (weight.detach() - ours).norm() < 0.05 * ours.norm()


# --- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixing", ["free", "doubly stochastic", "identity"])
def test_with_streams_a_model_starts_as_the_one_without(mixing: Mixing) -> None:
    torch.manual_seed(0)
    plain = DecoderLM(TINY)
    torch.manual_seed(0)
    streams = StreamLM(TINY, 4, mixing)
    for model in (plain, streams):
        for name, parameter in model.named_parameters():
            if name.endswith(("output.weight", "down.weight")):  # so that the layers do something
                parameter.data = random(*parameter.shape, seed=len(name)) / 8
    tokens = torch.randint(23, (2, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(streams(tokens).logits, plain(tokens).logits, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(streams.product().sum(1), torch.ones(4))


def test_the_product_is_in_the_order_of_the_blocks() -> None:
    model = StreamLM(replace(TINY, n_layers=1), 2, "free")
    first, second = torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    for connection, matrix in zip(model.connections, [first, second], strict=True):
        connection.mix.data = matrix - torch.eye(2)
    assert torch.equal(model.product(), second @ first)


# --- memory ----------------------------------------------------------------------------------

MEMORY = {run.name: run for run in after_v3.memory_runs() if run.seed == 0}


def test_models_with_a_memory_weigh_what_the_mixture_weighs() -> None:
    weights = {
        name: sum(p.numel() for p in after_v3.memory_model(run).parameters())
        for name, run in MEMORY.items()
    }
    named = [name for name in weights if " and " in name and not name.startswith("dense")]
    assert len(named) == 4
    assert {weights[name] for name in named} == {weights["16 experts"]}
    assert weights["12 experts"] < weights["16 experts"]
    extra = weights["dense and phrases"] - weights["dense"]
    assert extra == weights["16 experts"] - weights["12 experts"]


@pytest.mark.parametrize("kind", ["12 experts", "dense"])
def test_a_model_with_a_memory_starts_as_the_one_without(kind: str) -> None:
    tokens = torch.randint(512, (2, 20), generator=torch.Generator().manual_seed(0))
    alone, extended = (
        after_v3.memory_model(MEMORY[name]) for name in (kind, f"{kind} and phrases")
    )
    assert torch.equal(alone(tokens).logits, extended(tokens).logits)
    with torch.no_grad():
        extended.engram.value.weight.add_(0.1)  # type: ignore[union-attr,operator]
    assert not torch.equal(alone(tokens).logits, extended(tokens).logits)


def test_no_prediction_sees_what_it_predicts() -> None:
    model = after_v3.memory_model(MEMORY["8 experts and phrases"]).eval()
    with torch.no_grad():
        model.engram.value.weight.add_(0.1)  # type: ignore[union-attr,operator]
    tokens = torch.randint(512, (1, 20), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % 512
    before, after = model(tokens).logits, model(changed).logits
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_counting_by_hand(small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a count that walks through the text."""
    run = short(run_named("counts"), steps=8)
    n = after_v3.train_config(run).tokens
    train = small_corpus.train[:n].tolist()
    windows = fp8_training.held_out_windows(small_corpus)[:3, :12]
    monkeypatch.setattr(after_v3, "held_out_windows", lambda _: windows)
    result = after_v3.execute(run)
    assert result["phrases"][1] == len(set(train))
    assert result["phrases"][2] == len(set(itertools.pairwise(train)))
    logs: list[list[float]] = [[], [], [], []]
    for window in windows.tolist():
        for end in range(3, len(window)):
            probability = 1 / 512
            for order in range(4):
                phrase = window[end - order : end]
                follows = [
                    train[at + order]
                    for at in range(len(train) - order)
                    if train[at : at + order] == phrase
                ]
                probability = (follows.count(window[end]) + 5 * probability) / (len(follows) + 5)
                logs[order].append(-math.log(probability))
    assert result["held_out_loss"] == pytest.approx(
        [sum(each) / len(each) for each in logs], abs=1e-4
    )


def test_models_are_timed_in_turn(small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_v3, "MEMORY_ROUNDS", 2)
    monkeypatch.setattr(after_v3, "ROUND_STEPS", 1)
    (run,) = after_v3.memory_seconds_runs()
    seconds = after_v3.execute(run)
    assert set(seconds) == set(run.configuration["models"])
    assert all(len(each) == 2 and min(each) > 0 for each in seconds.values())
