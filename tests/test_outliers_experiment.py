"""The experiments on outliers and on rounding the forward pass only, on models of a few weights."""

from inspect import signature

import fp8_forward
import outliers
import pytest
import torch
from fp8_training import BLOCKS, PER_TENSOR, UNSCALED
from outliers import SITES
from quantized_llm import WINDOWS, inputs_of, linears, window_losses
from torch import Tensor, nn

from slingshot.formats import E4M3
from slingshot.lm import DecoderLM, LMConfig
from slingshot.quant import INT8, FP8Linear, FP8Recipe, Setting, quantize

CONFIG = LMConfig(vocab_size=64, d_model=64, n_layers=2, n_heads=2, d_ffn=64)
RECIPES = {"blocks": BLOCKS, "tensor": PER_TENSOR, "unscaled": UNSCALED}


@pytest.fixture
def model() -> DecoderLM:
    torch.manual_seed(0)
    model = DecoderLM(CONFIG)
    for parameter in model.parameters():  # the matrices that write start at zero
        nn.init.normal_(parameter, std=0.1)
    return model.requires_grad_(False)


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    tokens = torch.randint(64, (4, 9), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(outliers, "windows", lambda: tokens)
    monkeypatch.setattr(outliers, "calibration", lambda: tokens[:2, :-1])
    return tokens


def test_every_site_of_every_layer_is_read_once(model: DecoderLM) -> None:
    found = list(outliers.readers(model))
    assert [(index, site) for index, site, _ in found] == [
        (index, site) for index in range(2) for site in SITES
    ]
    assert found[0][2] == "layers.0.attention.query"
    assert found[-1][2] == "layers.1.ffn.down"


def test_a_channel_and_a_massive_number_are_told_apart(model: DecoderLM, tokens: Tensor) -> None:
    before = outliers.sites(model)
    assert all(each["channels"] == 0 for each in before if each["site"] == "attention")
    with torch.no_grad():  # a norm makes one channel of all tokens large
        model.layers[1].attention_norm.weight[5] *= 100  # type: ignore[union-attr,operator,index]
    found = {(each["layer"], each["site"]): each for each in outliers.sites(model)}
    large = found[1, "attention"]
    assert large["channel"] == 5
    assert large["channels"] == 1
    assert large["ratio"] > 20
    assert large["share"] > 0.9
    assert found[0, "attention"]["channels"] == 0


def test_the_first_two_tokens_are_left_out_of_channels_but_not_of_the_largest(
    model: DecoderLM, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.ones(4, 8, 64)
    x[2, 0, 7] = 5000.0
    seen = {name: x.flatten(0, 1) for name, _ in linears(model)}
    monkeypatch.setattr(outliers, "inputs_of", lambda model, batch: seen)
    found = outliers.sites(model)[-1]
    assert found["amax"] == 5000
    assert found["amax_of_later_tokens"] == 1
    assert (found["token"], found["largest_channel"]) == (0, 7)
    assert found["ratio"] == 1


@pytest.mark.parametrize("name", ["none", "smooth", "rotate"])
def test_a_remedy_alone_changes_no_product(name: str) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(9, 64), torch.randn(8, 64)
    generator = torch.Generator().manual_seed(0)
    change, w = outliers.changed(weight, name, generator, x)
    torch.testing.assert_close(change(x) @ w.T, x @ weight.T, atol=1e-4, rtol=1e-4)
    assert (name == "none") == torch.equal(w, weight)


def test_every_layer_but_the_head_is_rotated_and_rounded(model: DecoderLM, tokens: Tensor) -> None:
    made = [outliers.rotated_model(model, Setting(INT8), seed) for seed in (0, 0, 1)]
    changed = {k for k, m in made[0].named_modules() if isinstance(m, outliers.Before)}
    assert changed == {name for name, _ in linears(model)}
    exact = model(tokens).logits
    logits = [each(tokens).logits for each in made]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])  # other signs
    assert 0 < (logits[0] - exact).norm() < 0.1 * exact.norm()


def test_each_format_has_every_draw_of_signs_and_the_first_reads_all_windows() -> None:
    read = {(r.name, r.seed): r.configuration["windows"] for r in outliers.runs()}
    for name in outliers.WHOLE_MODEL:
        windows = [read[f"{name}, rotated", seed] for seed in outliers.SEEDS]
        assert windows == [WINDOWS] + [4] * (len(outliers.SEEDS) - 1)
    # Another batch would be another scale, so what a draw reads must be whole batches.
    batch = signature(window_losses).parameters["batch_size"].default
    assert outliers.DRAWN_WINDOWS % batch == 0


def test_errors_are_those_of_a_product_without_the_first_tokens(
    model: DecoderLM, tokens: Tensor
) -> None:
    found = outliers.errors(model)[3]
    assert (found["layer"], found["site"]) == (0, "down")
    x = inputs_of(model, tokens[:, :-1])["layers.0.ffn.down"]
    weight = model.get_submodule("layers.0.ffn.down").weight
    rounded = [quantize(m, INT8).dequantize() for m in (x, weight)]  # type: ignore[arg-type]
    later = torch.arange(32) % 8 >= 2
    exact = (x @ weight.T)[later]  # type: ignore[operator]
    off = ((rounded[0] @ rounded[1].T)[later] - exact).norm() / exact.norm()
    assert found["INT8 tensor"] == pytest.approx(off.item(), rel=1e-3)
    assert found["INT8 tensor"] < found["INT4 row, token"]


# --- rounding the forward pass only --------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_once_the_errors_is_the_product_of_fp8(recipe: FP8Recipe) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(256, 128, bias=False), torch.randn(3, 40, 256)
    once = fp8_forward.RoundedForward(linear, recipe, 1.0, "nearest_even")(x)
    torch.testing.assert_close(once, FP8Linear.from_linear(linear, recipe)(x))
    none = fp8_forward.RoundedForward(linear, recipe, 0.0, "nearest_even")(x)
    torch.testing.assert_close(none, linear(x))


def test_minus_once_is_as_far_on_the_other_side() -> None:
    linear, x = nn.Linear(256, 128, bias=False), torch.randn(40, 256)
    there, back = (
        fp8_forward.RoundedForward(linear, BLOCKS, times, "nearest_even").moved(x, (1, 128))
        for times in (1.0, -1.0)
    )
    torch.testing.assert_close((there + back) / 2, x)
    assert not torch.equal(there, x)


def test_what_is_cut_is_never_larger_and_on_the_grid() -> None:
    x = torch.randn(20, 200)
    q = quantize(x, E4M3, (1, 128))
    made = fp8_forward.cut(x, q)
    assert (made.dequantize().abs() <= x.abs() * (1 + 2.0**-22)).all()
    assert (made.values == torch.from_numpy(E4M3.round(made.values.numpy()))).all()
    assert (made.values.abs() <= q.values.abs()).all()
    assert (made.values.abs() < q.values.abs()).any()


def test_the_loss_of_each_token_and_centered_logits(model: DecoderLM, tokens: Tensor) -> None:
    losses, logits = fp8_forward.token_losses(model, tokens)
    exact = model(tokens[:, :-1]).logits.flatten(0, 1)
    mean = nn.functional.cross_entropy(exact, tokens[:, 1:].flatten())
    assert losses.mean().item() == pytest.approx(mean.item())
    assert logits.mean(1).abs().max() < 1e-5
    torch.testing.assert_close(logits.softmax(1), exact.softmax(1))
