"""The experiment on a real model: its changes, and what it measures, on a model of few weights."""

import json
from collections.abc import Callable

import pytest
import quantized_llm
import torch
from quantized_llm import OUTLIER_CHANNELS, OUTLIER_LAYER, SCHEMES
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot.attention import Attention, rotate
from slingshot.formats import E4M3
from slingshot.lm import DecoderLM, LMConfig
from slingshot.quant import INT8, QuantizedLinear, llm_int8_matmul, quantize, smooth
from slingshot.train import token_losses

# As many layers as the outlier's needs, and wide enough for its channels.
TINY = LMConfig(
    vocab_size=11, d_model=8, n_layers=OUTLIER_LAYER + 1, n_heads=4, n_kv_heads=2, d_ffn=1500
)


@pytest.fixture
def model() -> DecoderLM:
    """A model whose matrices all do something."""
    torch.manual_seed(0)
    model = DecoderLM(TINY).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.2)
    return model


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(11, (6, 25), generator=torch.Generator().manual_seed(1))


def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    found: Tensor = model(tokens[:, :-1]).logits
    return found


def test_what_is_stored_can_be_said_in_json() -> None:
    runs = quantized_llm.runs()
    assert len({run.key for run in runs}) == len(runs) == len(SCHEMES) + 10 + 15
    for run in runs:
        assert json.loads(json.dumps(run.configuration)) == run.configuration
    described = [json.dumps(run.configuration) for run in runs]
    assert len(set(described)) == len(described)


def test_the_loss_of_a_window_is_that_of_its_tokens(model: DecoderLM, tokens: Tensor) -> None:
    found = quantized_llm.window_losses(model, tokens)
    expected = [float(token_losses(model, window, length=24).mean()) for window in tokens]
    assert found == pytest.approx(expected, rel=1e-5)


def test_one_scale_is_one_for_four_windows(model: DecoderLM, tokens: Tensor) -> None:
    changed = quantized_llm.rounded_model("INT8 tensor")(model)
    together = quantized_llm.window_losses(changed, tokens)
    first = F.cross_entropy(logits(changed, tokens[:4])[0], tokens[0, 1:])
    assert together[0] == pytest.approx(float(first), rel=1e-5)
    assert together[0] != pytest.approx(quantized_llm.window_losses(changed, tokens[:1])[0])


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "float32"])
def test_a_scheme_rounds_all_but_the_head(scheme: str, model: DecoderLM) -> None:
    changed = quantized_llm.rounded_model(scheme)(model)
    weight, x = SCHEMES[scheme]
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            twin = changed.get_submodule(name)
            assert isinstance(twin, nn.Linear if name == "head" else QuantizedLinear)
            if isinstance(twin, QuantizedLinear):
                rounded = quantize(module.weight, *weight).dequantize() if weight else module.weight
                assert torch.equal(twin.weight, rounded)
                assert twin.x_setting == x


def test_what_is_kept_stays(model: DecoderLM) -> None:
    keep = (".11.ffn.down",)
    changed = quantized_llm.rounded_model("INT8 tensor", keep)(model)
    linears = [name for name, module in changed.named_modules() if isinstance(module, nn.Linear)]
    assert linears == ["layers.11.ffn.down", "head"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("outlier zeroed", lambda x: x.index_fill(2, torch.tensor(OUTLIER_CHANNELS), 0.0)),
        ("outlier cut to 100", lambda x: x.clamp(-100, 100)),
        (
            "one input INT8 tensor",
            lambda x: (x / x.abs().max() * 127).round() * x.abs().max() / 127,
        ),
        ("one input zeroed but for two tokens", lambda x: torch.cat([x[:, :2], 0 * x[:, 2:]], 1)),
    ],
)
def test_a_change_of_one_input_is_what_it_says(
    name: str, expected: Callable[[Tensor], Tensor], model: DecoderLM
) -> None:
    changed = quantized_llm.special()[name][1](model)
    down = changed.get_submodule(f"layers.{OUTLIER_LAYER}.ffn.down")
    original = model.get_submodule(f"layers.{OUTLIER_LAYER}.ffn.down")
    x = 60 * torch.randn(2, 5, 1500, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(down(x), original(expected(x)), rtol=1e-4, atol=1e-3)
    other = f"layers.{OUTLIER_LAYER - 1}.ffn.down"
    assert torch.equal(changed.get_submodule(other)(x), model.get_submodule(other)(x))


def test_the_remedies_of_papers_are_the_librarys(
    model: DecoderLM, monkeypatch: pytest.MonkeyPatch, tokens: Tensor
) -> None:
    x = torch.randn(3, 8) * 5
    linear = model.get_submodule("layers.0.attention.query")
    assert isinstance(linear, nn.Linear)
    split = quantized_llm.special()["LLM.int8"][1](model)
    found = split.get_submodule("layers.0.attention.query")(x)
    assert torch.equal(found, llm_int8_matmul(x, linear.weight))

    monkeypatch.setattr(quantized_llm, "calibration", lambda: tokens[:, :-1])
    seen: list[Tensor] = []
    hook = linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(0, 1)))
    model(tokens[:, :-1])
    hook.remove()
    _, weight, factor = smooth(seen[0], linear.weight, 0.5)
    rows = quantize(x / factor, INT8, (1, None)).dequantize()
    expected = rows @ quantize(weight, INT8, (1, None)).dequantize().T
    changed = quantized_llm.special()["SmoothQuant row, token"][1](model)
    torch.testing.assert_close(changed.get_submodule("layers.0.attention.query")(x), expected)


def test_the_largest_input_is_found(
    model: DecoderLM, monkeypatch: pytest.MonkeyPatch, tokens: Tensor
) -> None:
    monkeypatch.setattr(quantized_llm, "windows", lambda: tokens)
    found = quantized_llm.largest_inputs(model)
    inputs: list[Tensor] = []
    for layer in range(TINY.n_layers):
        down = model.get_submodule(f"layers.{layer}.ffn.down")
        down.register_forward_pre_hook(lambda _, x: inputs.append(x[0].abs()))
    model(tokens[:4, :-1])
    assert len(found) == len(inputs) == TINY.n_layers
    for size, numbers in zip(inputs, found, strict=True):
        _, token, channel = torch.unravel_index(size.argmax(), size.shape)
        assert numbers["amax"] == float(size.max())
        assert (numbers["token"], numbers["channel"]) == (int(token), int(channel))
        assert numbers["amax_of_later_tokens"] == float(size[:, 2:].max())


def test_the_share_of_the_first_token_is_that_of_attention(
    model: DecoderLM, monkeypatch: pytest.MonkeyPatch, tokens: Tensor
) -> None:
    monkeypatch.setattr(quantized_llm, "windows", lambda: tokens)
    shares = quantized_llm.first_token_shares(model)
    # With a value of 1 for the first token and 0 for the others, attention returns its weight.
    weights: list[Tensor] = []

    def look(module: Attention, inputs: tuple[Tensor, Tensor, None]) -> None:
        x, rotation, _ = inputs
        heads = (module._heads(module.query(x), 4), module._heads(module.key(x), 2))
        query, key = (rotate(each, rotation) for each in heads)
        value = torch.zeros_like(key)
        value[:, :, 0] = 1
        found = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        weights.append(found[:, :, 16:, 0].mean())

    attention = model.get_submodule("layers.5.attention")
    attention.register_forward_pre_hook(look)
    model(tokens[:4, :128])
    assert shares[5] == pytest.approx(float(weights[0]), rel=1e-5)
    assert all(0 < share < 1 for share in shares)


def test_weights_are_moved_in_a_copy_but_for_the_head(model: DecoderLM) -> None:
    before = {name: p.clone() for name, p in model.named_parameters()}
    twin, again = (quantized_llm.moved(model, 1e-3, seed=1) for _ in range(2))
    other = quantized_llm.moved(model, 1e-3, seed=2)
    for name, parameter in twin.named_parameters():
        assert torch.equal(model.get_parameter(name), before[name])
        assert torch.equal(parameter, again.get_parameter(name))
        if ".ffn." in name or ".attention." in name:
            relative = (parameter - before[name]) / before[name]
            assert relative.std() == pytest.approx(1e-3, rel=0.5)
            assert not torch.equal(parameter, other.get_parameter(name))
        else:
            assert torch.equal(parameter, before[name])


def test_fp8_without_a_scale_saturates() -> None:
    weight, x = SCHEMES["FP8 no scale"]
    assert weight == x
    assert weight is not None
    assert float(quantize(torch.full((1, 1), 1000.0), *weight).dequantize()) == E4M3.max
