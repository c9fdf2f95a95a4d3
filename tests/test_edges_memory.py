"""Attention, its caches and speculative decoding at the edges: types, ranges, zero rows."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edges import (
    FLOATS,
    INTEGERS,
    REFUSED,
    Cover,
    assert_near,
    computed,
    exact,
    laid_out,
    layouts,
    mode,
    modes,
    numbers,
    outcome,
    seeds,
    specials,
    unit,
    with_special,
)
from slingshot import attention, speculative
from slingshot.attention import LatentAttention, LightningIndexer
from slingshot.lm import DecoderLM, LMConfig
from slingshot.speculative import MultiTokenHead, PromptLookup

covers = Cover()
edges = settings(derandomize=True, deadline=None, max_examples=8)
SMALL = LMConfig(11, 8, 1, 2, 8)
LATENT: dict[str, Any] = {
    "kv_lora_rank": 4,
    "q_lora_rank": 3,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 2,
    "v_head_dim": 4,
}


def drawn(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with weights that all matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            std = parameter.shape[-1] ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
            parameter.add_(float(parameter.ndim == 1))
    return module.to(dtype)


# --- heads and caches ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@edges
@given(size=st.sampled_from(["one", "large"]), how=layouts, seed=seeds)
@covers("attend_to_all")
def test_attention_to_all(dtype: torch.dtype, size: str, how: str, seed: int) -> None:
    query = laid_out(numbers((2, 4, 1, 2), dtype, "one", seed) * 64, how)
    key = laid_out(numbers((2, 2, 9, 2), dtype, "one", seed + 1) * 16, how)
    value = laid_out(numbers((2, 2, 9, 2), dtype, size, seed + 2), how)
    found = attention.attend_to_all(query, key, value)
    q, k, v = exact(query), exact(key).repeat(2, axis=1), exact(value).repeat(2, axis=1)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(np.longdouble(2))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    # A score up to 64 * 16 * 2 is off by 6 roundings, and each weight by twice as large a share.
    share = unit(computed(dtype)) * (2 * 6 * 64 * 16 * 2 + 32) + 2 * unit(dtype)
    assert_near(found, weights @ v, share * np.abs(v).max())


@pytest.mark.parametrize("dtype", FLOATS)
@covers("rotations", "rotate")
def test_rotation(dtype: torch.dtype) -> None:
    rotation = attention.rotations(50, 4, 10_000.0, torch.device("cpu"), computed(dtype))
    x = laid_out(numbers((2, 50, 4), dtype), "transposed")
    turned = attention.rotate(x, rotation)
    angle = np.arange(50)[:, None] * np.longdouble(10_000.0) ** (-np.arange(0, 4, 2) / 4)
    first, second = exact(x)[..., :2], exact(x)[..., 2:]
    cos, sin = np.cos(angle), np.sin(angle)
    expected = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    # The angle itself is a float64 up to 50; cosines, two products and a sum round to the type.
    assert_near(turned, expected, 12 * unit(dtype) + 100 * unit(torch.float64))
    assert attention.rotate(torch.zeros(0, 50, 4, dtype=dtype), rotation).shape == (0, 50, 4)
    assert outcome(lambda: attention.rotate(x, rotation[:, 1:])) is REFUSED
    assert attention.rotations(0, 4, 10.0, torch.device("cpu")).shape == (2, 0, 4)


@pytest.mark.parametrize("dtype", FLOATS)
@covers("KVCache")
def test_cache(dtype: torch.dtype) -> None:
    cache = attention.KVCache(3)
    key = laid_out(numbers((2, 1, 2, 4), dtype), "transposed")
    cache.append(key, key + 1)
    keys, values = cache.append(key[:, :, :1], key[:, :, :1])
    assert keys.dtype == dtype
    assert torch.equal(keys, torch.cat([key, key[:, :, :1]], dim=2))
    assert torch.equal(values[:, :, :2], key + 1)
    for wrong in (key[:, :, :1], key[:1, :, :0], key[0]):  # no room, other rows, other dimensions
        assert outcome(lambda: cache.append(wrong, wrong)) is REFUSED  # noqa: B023
    for other in set(FLOATS) - {dtype}:
        assert outcome(lambda: cache.append(*[key[:, :, :0].to(other)] * 2)) is REFUSED  # noqa: B023
    none = torch.zeros(0, dtype=torch.int64)
    assert outcome(lambda: cache.keep(3, none, none)) is REFUSED
    assert outcome(lambda: cache.keep(1, torch.tensor([0]), torch.tensor([2]))) is REFUSED
    cache.keep(1, torch.tensor([0], dtype=torch.int32), torch.tensor([1], dtype=torch.int16))
    assert torch.equal(cache._parts[0][:, :, :2], key[1:])
    assert outcome(lambda: attention.KVCache(0)) is REFUSED


@pytest.mark.parametrize("dtype", FLOATS)
@covers("LatentCache", "TokenCache", "move_rows")
def test_cache_of_latents(dtype: torch.dtype) -> None:
    cache = attention.LatentCache(4)
    latent = laid_out(numbers((2, 3, 5), dtype), "transposed")
    cache.append(latent)
    assert torch.equal(cache.append(latent[:, :1]), torch.cat([latent, latent[:, :1]], dim=1))
    for wrong in (latent[:, :1], latent[:1, :0], latent[:, :0, :4], latent[0]):
        assert outcome(lambda: cache.append(wrong)) is REFUSED  # noqa: B023
    for other in set(FLOATS) - {dtype}:
        assert outcome(lambda: cache.append(latent[:, :0].to(other))) is REFUSED  # noqa: B023
    for length in (-1, 5):
        assert outcome(lambda: setattr(cache, "length", length)) is REFUSED  # noqa: B023
    cache.length = 2
    assert torch.equal(cache.append(latent[:, :0]), latent[:, :2])
    cache.keep(1, torch.tensor([0]), torch.tensor([1]))
    assert torch.equal(cache.append(latent[1:, :0]), latent[1:, :2])
    cache.length = 0
    assert cache.append(latent[:, :0]).shape == (2, 0, 5)
    rows = torch.arange(4)
    assert attention.move_rows(rows, 2, torch.tensor([0]), torch.tensor([3])).tolist() == [3, 1]


@pytest.mark.parametrize("dtype", FLOATS)
@edges
@given(n=st.sampled_from([1, 3, 7]), how=layouts, bad=specials, seed=seeds, grad=modes)
@covers("Attention", "LatentAttention")
def test_layers_of_attention(
    dtype: torch.dtype, n: int, how: str, bad: float | None, seed: int, grad: str
) -> None:
    x = laid_out(with_special(numbers((2, n, 8), dtype, seed=seed), bad), how)
    heads: Any = drawn(attention.Attention(8, 2, 4, 1), dtype)
    latent: Any = drawn(LatentAttention(8, 2, **LATENT), dtype)
    rotation = attention.rotations(n, 4, 100.0, torch.device("cpu"), computed(dtype))
    with mode(grad):
        for found in (
            outcome(lambda: heads(x, rotation)),
            outcome(lambda: latent(x)),
            outcome(lambda: latent(x, absorbed=True)),
        ):
            if bad is not None:
                assert found is REFUSED
            else:
                assert found.shape == x.shape
                assert found.dtype == dtype
                assert bool(found.isfinite().all())
    for wrong in (x[..., :-1], x[0], *(x.to(other) for other in FLOATS if other != dtype)):
        assert outcome(lambda: heads(wrong, rotation)) is REFUSED  # noqa: B023
        assert outcome(lambda: latent(wrong)) is REFUSED  # noqa: B023
    assert outcome(lambda: latent(x, rotation=rotation)) is REFUSED
    assert latent(x[:, :0]).shape == (2, 0, 8)


@pytest.mark.parametrize(
    "change",
    [
        {"kv_lora_rank": 0},
        {"q_lora_rank": 0},
        {"qk_rope_head_dim": 3},
        {"v_head_dim": 1.5},
        {"rope_base": 0.0},
        {"rope_base": math.nan},
    ],
)
def test_sizes_that_cannot_be(change: dict[str, Any]) -> None:
    assert outcome(lambda: LatentAttention(8, 2, **{**LATENT, **change})) is REFUSED
    assert outcome(lambda: LatentAttention(8, 0, **LATENT)) is REFUSED
    assert outcome(lambda: attention.Attention(8, 3, 4, 2)) is REFUSED
    for sizes in ((0, 1, 2), (8, 0, 2), (8, 1, 3), (8, 1, 0)):
        assert outcome(lambda: LightningIndexer(*sizes)) is REFUSED  # noqa: B023


@covers("yarn_speeds")
def test_speeds_of_yarn() -> None:
    speeds = attention.LatentAttention(8, 1, **{**LATENT, "qk_rope_head_dim": 64}).speeds
    slowed = attention.yarn_speeds(speeds, 10_000.0, 40.0, 4096)
    turns = 4096 * speeds / (2 * math.pi)
    assert torch.equal(slowed[turns > 40], speeds[turns > 40])
    torch.testing.assert_close(slowed[turns < 0.7], speeds[turns < 0.7] / 40)
    assert bool((slowed.diff() < 0).all())


# --- sparse attention ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@edges
@given(n=st.sampled_from([1, 3, 9]), k=st.sampled_from([1, 4, 20]), how=layouts, seed=seeds)
@covers("sparse_attention")
def test_sparse(dtype: torch.dtype, n: int, k: int, how: str, seed: int) -> None:
    query = laid_out(numbers((2, 4, n, 2), dtype, seed=seed) * 8, how)
    key = laid_out(numbers((2, 2, 9, 2), dtype, seed=seed + 1), how)
    value = laid_out(numbers((2, 2, 9, 2), dtype, seed=seed + 2), how)
    scores = laid_out(numbers((2, n, 9), torch.float64, seed=seed + 3), how)
    found = attention.sparse_attention(query, key, value, scores, k)
    q, each, v = exact(query), exact(key).repeat(2, axis=1), exact(value).repeat(2, axis=1)
    products = q @ each.swapaxes(-1, -2) / np.sqrt(np.longdouble(2))
    places = np.where(np.triu(np.ones((n, 9)), 9 - n + 1), -np.inf, scores.numpy())
    read = np.argsort(np.argsort(-places)) < k
    products = np.where(read[:, None] & np.isfinite(places[:, None]), products, -np.inf)
    weights = np.exp(products - products.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    assert found.dtype == dtype
    # A score up to 8 * 2 is off by 6 roundings of its type, and each weight by twice that share.
    assert_near(found, weights @ v, unit(dtype) * (2 * 6 * 8 * 2 + 32) * np.abs(v).max())
    for wrong in (0, -1, 1.5):
        call = lambda: attention.sparse_attention(query, key, value, scores, wrong)  # type: ignore[arg-type] # noqa: B023, E731
        assert outcome(call) is REFUSED


@pytest.mark.parametrize("dtype", FLOATS)
@edges
@given(n=st.sampled_from([0, 1, 5]), how=layouts, seed=seeds)
@covers("LightningIndexer", "indexer_loss")
def test_indexer(dtype: torch.dtype, n: int, how: str, seed: int) -> None:
    indexer: Any = drawn(LightningIndexer(8, 2, 4), dtype)
    x = laid_out(numbers((2, n, 8), dtype, seed=seed), how)
    rotation = attention.rotations(n, 4, 100.0, torch.device("cpu"), computed(dtype))
    scores = indexer(x, rotation)
    assert scores.dtype == dtype
    assert bool((scores.isinf() == torch.ones(n, n).triu(1).bool()).all())
    for wrong in (x[..., :-1], x[0], *(x.to(other) for other in FLOATS if other != dtype)):
        assert outcome(lambda: indexer(wrong, rotation)) is REFUSED  # noqa: B023
    if not n:
        return
    even = torch.ones(2, 3, n, n).tril()
    loss = attention.indexer_loss(scores, (even / even.sum(-1, keepdim=True)).to(dtype))
    assert loss.dtype == computed(dtype)
    loss.backward()  # type: ignore[no-untyped-call]
    assert bool(indexer.query.weight.grad.isfinite().all())
    assert outcome(lambda: attention.indexer_loss(scores[:1], even)) is REFUSED
    assert outcome(lambda: attention.indexer_loss(scores, even.long())) is REFUSED


# --- guess and verify ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@edges
@given(n=st.sampled_from([0, 1, 5]), how=layouts, bad=specials, seed=seeds)
@covers("accept", "Accepted")
def test_acceptance(dtype: torch.dtype, n: int, how: str, bad: float | None, seed: int) -> None:
    p = laid_out(with_special(numbers((n, 4), dtype, seed=seed).abs() + 0.01, bad), how)
    q = laid_out(numbers((n, 4), dtype, seed=seed + 1).abs() + 0.01, how)
    uniform = numbers((n,), dtype, seed=seed + 2).abs().clamp(max=0.99)
    for whole in INTEGERS:
        drafted = (torch.arange(n) % 4).to(whole)
        found = outcome(lambda: speculative.accept(p, q, drafted, uniform))  # noqa: B023
        if bad is not None and n:
            assert found is REFUSED
            continue
        assert found.tokens.dtype == torch.int64
        assert bool(((found.tokens >= 0) & (found.tokens < 4)).all())
        assert torch.equal(found.tokens == drafted, found.kept)
    for u, kept in ((0.0, True), (1 - 2.0**-24, False)):
        rows = torch.tensor([[0.2, 0.8]]), torch.tensor([[0.8, 0.2]])
        answer = speculative.accept(*rows, torch.tensor([0]), torch.tensor([u]))
        assert (answer.tokens.item(), answer.kept.item()) == (0 if kept else 1, kept)
    same = torch.tensor([[0.1, 0.2, 0.7]]).to(dtype)
    assert speculative.accept(same, same, torch.tensor([2]), torch.tensor([1 - 2.0**-24])).kept


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1.0, 1e30])
@covers("speculative_generate", "Speculated", "verify", "Draft", "PromptLookup", "MultiTokenHead")
def test_writing_of_any_type(dtype: torch.dtype, temperature: float) -> None:
    model: Any = drawn(DecoderLM(SMALL), dtype)
    for drafter in (PromptLookup(1, 1), MultiTokenHead.of(model)):
        for whole in INTEGERS:
            for n_draft in (0, 1, 5):
                written = speculative.speculative_generate(
                    model,
                    torch.tensor([1, 2, 1], dtype=whole),
                    drafter,
                    max_new_tokens=4,
                    n_draft=n_draft,
                    temperature=temperature,
                    generator=torch.Generator().manual_seed(0),
                )
                assert written.tokens.dtype == torch.int64
                assert len(written.tokens) == 4
                assert not written.tokens.is_inference()


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": torch.tensor([], dtype=torch.int64)},
        {"prompt": torch.tensor([11])},
        {"prompt": torch.tensor([1.0])},
        {"max_new_tokens": 0},
        {"n_draft": -1},
        {"n_draft": 1.5},
        {"temperature": math.nan},
        {"end": 11},
    ],
)
def test_what_cannot_be_written(change: dict[str, Any]) -> None:
    model = DecoderLM(SMALL)
    given_: dict[str, Any] = {"prompt": torch.tensor([1]), "max_new_tokens": 2, "n_draft": 1}
    settings_ = {**given_, **change}
    prompt: Tensor = settings_.pop("prompt")
    call = lambda: speculative.speculative_generate(model, prompt, PromptLookup(), **settings_)  # noqa: E731
    assert outcome(call) is REFUSED


def test_every_public_name_is_looked_at() -> None:
    covers.check(
        [attention, speculative],
        {
            "Drafter": "a protocol without code",
            "pairs_apart": "puts rows in another order; torch refuses what does not divide",
        },
    )
