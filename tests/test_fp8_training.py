"""The experiment that trains in FP8: its arms, what it measures, and what it counts."""

import copy
import json
import math
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import fp8_training
import pytest
import torch
from _runner import Run
from fp8_training import BLOCKS, PER_TENSOR, UNSCALED, GradientProbe
from torch import Tensor, nn

from slingshot.corpus import Corpus, Document, encode, train_tokenizer
from slingshot.formats import E4M3
from slingshot.lm import DecoderLM, LMConfig
from slingshot.quant import FP8Linear
from slingshot.quant.blocks import INT8, quantize
from slingshot.quant.linear import FP8Recipe
from slingshot.train import train_language_model

TINY = LMConfig(vocab_size=32, d_model=16, n_layers=1, n_heads=2, d_ffn=16)


def run_named(name: str, seed: int = 0) -> Run:
    (run,) = (run for run in fp8_training.runs() if (run.name, run.seed) == (name, seed))
    return run


def short(name: str, seed: int = 0, steps: int = 3) -> Run:
    """A run of the experiment, with fewer and smaller steps."""
    run = run_named(name, seed)
    configuration = copy.deepcopy(run.configuration)
    configuration["train"] |= {"steps": steps, "batch_size": 2, "sequence_length": 16}
    return replace(run, configuration=configuration)


@pytest.fixture
def small_corpus(monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """Two short documents in place of the standard library."""
    source = Path(fp8_training.__file__).read_text()
    documents = [Document("a", source[:4000]), Document("b", source[4000:6000])]
    tokenizer = train_tokenizer([source], 300)
    tokens, numbers = encode(tokenizer, documents)
    corpus = Corpus(tokens, tokens, numbers, ("a", "b"), tokenizer, bytes_per_token=2.0)
    monkeypatch.setattr(fp8_training, "corpus", lambda: corpus)
    monkeypatch.setattr(fp8_training, "HELD_OUT_WINDOWS", 8)
    return corpus


# --- the arms ----------------------------------------------------------------------------------


def trained_runs() -> list[Run]:
    return [run for run in fp8_training.runs() if not run.name.startswith("counted")]


def test_every_configuration_can_be_built() -> None:
    runs = trained_runs()
    assert len({run.key for run in runs}) == len(runs)
    arms = fp8_training.arms() | fp8_training.more_arms()
    for run in runs:
        model, train, recipe = fp8_training.build(run.configuration)
        arm = arms[run.name]
        assert json.loads(json.dumps(run.configuration)) == run.configuration
        assert run.configuration["seed"] == run.seed
        assert recipe == arm.get("recipe")
        changes = {"steps": arm.get("steps", fp8_training.STEPS)}
        assert train == replace(fp8_training.TRAIN, loss_scale=arm.get("loss_scale"), **changes)
        assert model.config == fp8_training.MODEL


def test_the_default_blocks_are_those_of_v3_and_a_row_has_several() -> None:
    v3 = FP8Recipe(E4M3, (1, 128), (128, 128), (1, 128), "fp32")
    assert v3 == BLOCKS
    model = DecoderLM(fp8_training.MODEL)
    linears = [m for m in model.layers.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == 12
    for linear in linears:
        for width in (linear.in_features, linear.out_features):
            assert width % 128 == 0
            assert width >= 256
    assert fp8_training.TRAIN.tokens_per_step % 128 == 0


@pytest.mark.parametrize("name", ["BF16", "FP8 blocks", "INT8 per tensor", "FP8 unscaled"])
def test_all_layers_are_replaced_and_the_head_is_not(name: str) -> None:
    model, _, recipe = fp8_training.build(run_named(name).configuration)
    linears = [m for m in model.layers.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == 12
    assert all(isinstance(m, FP8Linear) and m.recipe == recipe for m in linears)
    assert type(model.head) is nn.Linear


def weights(run: Run) -> dict[str, Tensor]:
    return dict(fp8_training.build(run.configuration)[0].state_dict())


def test_arms_with_one_seed_start_from_the_same_weights() -> None:
    start = weights(run_named("float32"))
    other_seed = weights(run_named("float32", 1))
    for run in trained_runs():
        if run.seed == 0 and "moved" not in run.name:
            assert all(torch.equal(value, start[name]) for name, value in weights(run).items())
    assert not torch.equal(other_seed["embedding.weight"], start["embedding.weight"])


@pytest.mark.parametrize("size", [1e-3, 1e-6])
def test_a_moved_start_differs_by_what_its_name_says(size: float) -> None:
    name = f"float32, moved by 1e-{round(-math.log10(size))}"
    start, moved = weights(run_named("float32")), weights(run_named(name))
    ratio = moved["embedding.weight"].double() / start["embedding.weight"].double() - 1
    # 131,072 normal numbers: their deviation is within 1% of its mean, by five times its own.
    # float32 rounds the product, by up to 2^-24 of it: 6e-8.
    assert ratio.std().item() == pytest.approx(size, rel=0.01, abs=6e-8)
    zeros = moved["layers.0.attention.output.weight"]
    assert not zeros.any()


# --- what is measured --------------------------------------------------------------------------


def test_the_edges_are_where_e4m3_loses_and_saturates() -> None:
    edges = fp8_training.edges().tolist()
    assert E4M3.min_subnormal / 2 in edges  # a tie, which rounds to 0
    assert E4M3.max in edges
    assert edges == sorted(edges)


def test_a_histogram_by_hand() -> None:
    edges = fp8_training.edges()
    values = torch.tensor([0.0, -0.0, 2.0**-60, edges[3].item(), -edges[3].item() * 1.001, 1e9])
    counts = fp8_training.histogram(values)
    assert len(counts) == len(edges) + 2
    assert counts[0] == 2  # zeros
    assert counts[1] == 1  # below all edges
    assert counts[1 + 3] == 1  # as large as an edge counts below it
    assert counts[1 + 4] == 1
    assert counts[-1] == 1
    assert sum(counts) == 6


def test_shares_from_a_histogram_are_those_of_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(64, 64, generator=generator) * 2.0 ** torch.arange(-32, 32)[:, None]
    gradient[0, 0] = 2.0**-10
    counts = fp8_training.histogram(gradient)
    edges = fp8_training.edges().tolist()
    lost = sum(counts[1 : 2 + edges.index(2.0**-10)])
    kept = quantize(gradient, E4M3, (None, None), "none").dequantize()
    assert lost == ((kept == 0) & (gradient != 0)).sum().item()
    saturated = sum(counts[2 + edges.index(448.0) :])
    assert saturated == (gradient.abs() > 448).sum().item()


class Passes(nn.Module):
    """A model with one linear layer, whose output gradient is what a test makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 4, bias=False)])

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers[0](x)
        return output


def probed(recipe: FP8Recipe | None, gradient: Tensor, steps: tuple[int, ...]) -> GradientProbe:
    model = Passes()
    probe = GradientProbe(model, recipe, steps)  # type: ignore[arg-type]
    for _ in range(3):
        model(torch.ones(len(gradient), 2)).backward(gradient)
        probe.next()
    return probe


def test_the_probe_by_hand() -> None:
    gradient = torch.tensor([[0.0, 2.0**-10, 2.0**-9, 1.0], [3.0, 4.0, 448.0, 1000.0]])
    found = probed(UNSCALED, gradient, (1,)).found
    # One entry is 0, and one becomes it. 1000 saturates at 448.
    error = math.hypot(2.0**-10, 552) / gradient.double().norm().item()
    assert found == {"1": {"0": [0.125, 0.125, round(error, 4)]}}
    scaled = probed(PER_TENSOR._replace(fmt=INT8), gradient, (0, 2)).found
    # A step is 1000 / 127, so what is below half of that is lost, 3.9: four, and 4 is not.
    assert list(scaled) == ["0", "2"]
    assert scaled["0"]["0"][:2] == [0.125, 0.5]
    by_row = PER_TENSOR._replace(fmt=INT8, grad_block=(1, None))
    assert probed(by_row, gradient, (0,)).found["0"]["0"][:2] == [0.125, 0.375]
    assert probed(None, gradient, (0,)).found["0"]["0"] == [0.125, 0.0, 0.0]


def test_the_probe_sees_what_the_loss_scale_sends(small_corpus: Corpus) -> None:
    def lost(name: str) -> list[float]:
        run = short(name)
        model, train, recipe = fp8_training.build(run.configuration)
        probe = GradientProbe(model, recipe, (0,))
        train_language_model(model, small_corpus.train, train, progress=False)
        return [numbers[1] for layer, numbers in probe.found["0"].items() if "output" in layer]

    # A mean over 32 tokens leaves gradients larger than one over 2,048.
    assert min(lost("FP8 unscaled")) > 0.1
    assert max(lost("FP8 unscaled, loss scale 2^16")) < 0.01


def test_a_new_model_needs_one_token_only(small_corpus: Corpus) -> None:
    model, _, _ = fp8_training.build(run_named("float32").configuration)
    new = fp8_training.measure_loss(model, small_corpus)
    assert new["alone"] == pytest.approx(new["held_out_loss"], abs=1e-5)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("output.weight"):
            nn.init.normal_(parameter, std=0.5)
    other = fp8_training.measure_loss(model, small_corpus)
    assert abs(other["alone"] - other["held_out_loss"]) > 1e-3


def test_held_out_windows_are_spread_over_the_text(small_corpus: Corpus) -> None:
    windows = fp8_training.held_out_windows(small_corpus)
    assert windows.shape == (8, 129)
    assert torch.equal(windows[0], small_corpus.held_out[:129])
    last = (len(small_corpus.held_out) - 1) // 128 * 128
    assert torch.equal(windows[-1], small_corpus.held_out[last - 128 : last + 1])


@pytest.mark.parametrize("name", ["float32", "FP8 blocks", "INT8 blocks", "FP8 unscaled"])
@pytest.mark.slow
def test_a_run_gives_what_json_can_store_and_repeats(name: str, small_corpus: Corpus) -> None:
    first, again, other = (fp8_training.execute(short(name, seed)) for seed in (0, 0, 1))
    for result in (first, again, other):
        assert result.pop("seconds") >= 0
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    assert first == again
    assert first["held_out_loss"] != other["held_out_loss"]
    assert len(first["curve"]) == 1
    assert len(first["gradients"]["0"]) == 12
    assert bool(first["histograms"]) == (name in ("float32", "FP8 unscaled"))
    assert other["histograms"] == {}


# --- references that count ---------------------------------------------------------------------


def test_counted_losses_against_dictionaries(small_corpus: Corpus) -> None:
    run = short("counted", steps=4)
    read = small_corpus.train.unfold(0, 129, 128)[:3]
    result = fp8_training.count(small_corpus, read)
    size = small_corpus.tokenizer.get_vocab_size()
    follows: dict[int, Counter[int]] = defaultdict(Counter)
    for window in read.tolist():
        for a, b in pairwise(window):
            follows[a][b] += 1
    total = sum(follows.values(), Counter())

    def unigram(b: int) -> float:
        return (total[b] + 1) / (total.total() + size)

    def bigram(a: int, b: int) -> float:
        n, kinds = follows[a].total(), max(1, len(follows[a]))
        return (follows[a][b] + kinds * unigram(b)) / (n + kinds)

    for a in (0, read[0, 0].item()):  # one never read, and one read
        assert sum(bigram(int(a), b) for b in range(size)) == pytest.approx(1)
    pairs = [
        pair
        for window in fp8_training.held_out_windows(small_corpus).tolist()
        for pair in pairwise(window)
    ]
    expected = {
        "unigram": -sum(math.log(unigram(b)) for _, b in pairs) / len(pairs),
        "bigram": -sum(math.log(bigram(a, b)) for a, b in pairs) / len(pairs),
    }
    assert result == pytest.approx(expected, abs=1e-6)
    assert fp8_training.execute(run)["bigram"] < fp8_training.execute(run)["unigram"]


def test_who_counts_reads_what_a_model_reads(
    small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = short("float32", seed=1)
    _, train, _ = fp8_training.build(run.configuration)
    monkeypatch.setattr(fp8_training, "TRAIN", train)
    read = fp8_training.read_by(run, small_corpus)
    torch.manual_seed(0)
    model, seen = DecoderLM(replace(TINY, vocab_size=300)), list[Tensor]()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    train_language_model(model, small_corpus.train, train, seed=1, progress=False)
    assert torch.equal(read[:, :-1], torch.cat(seen))
