"""Latent, sparse and cached attention: against transformers, against each other, against bugs."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
)

from slingshot import sizes
from slingshot.attention import (
    Attention,
    LatentAttention,
    LatentCache,
    LightningIndexer,
    attend_to_all,
    indexer_loss,
    rotations,
    sparse_attention,
    yarn_speeds,
)
from slingshot.lm import DecoderLM, LMConfig, generate

SIZES: dict[str, Any] = {
    "kv_lora_rank": 24,
    "q_lora_rank": 20,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
LATENT = sizes.LatentAttention(4, **SIZES)
LENGTH = 200
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 40.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
# Between forms of our own. Outputs are below 4, made of sums over 200 tokens, 24 channels and two
# norms; a rounding of each of some 300 terms, were they all to one side, is 300 of these.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def draw(module: nn.Module, seed: int = 0) -> None:
    """Give every weight a number that matters, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            std = parameter.shape[-1] ** -0.5
            numbers = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(numbers * std + (parameter.ndim == 1))


def latent(dtype: torch.dtype = torch.float64, **changes: int | None) -> LatentAttention:
    attention = LatentAttention(32, 4, **{**SIZES, **changes}).to(dtype)
    draw(attention)
    return attention.requires_grad_(False)


def vectors(length: int = LENGTH, dtype: torch.dtype = torch.float64, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, length, width, generator=generator, dtype=torch.float64).to(dtype)


def piece_by_piece(read: Callable[[Tensor, int], Tensor], x: Tensor, *pieces: int) -> Tensor:
    """What is read in pieces of these lengths, the last as often as it takes."""
    found, start = [], 0
    lengths = iter(pieces)
    length = 0
    while start < x.shape[1]:
        length = next(lengths, length)
        found.append(read(x[:, start : start + length], start))
        start += length
    return torch.cat(found, dim=1)


# --- latent attention ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": None}], ids=["compressed", "direct"])
def test_absorbed_is_unpacked(dtype: torch.dtype, changes: dict[str, Any]) -> None:
    attention, x = latent(dtype, **changes), vectors(dtype=dtype)
    plain = attention(x)
    assert 0.1 < float(plain.std()) < 4
    torch.testing.assert_close(attention(x, absorbed=True), plain, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("absorbed", [True, False])
@pytest.mark.parametrize("pieces", [(1,), (7, 1), (50, 5, 3), (199, 1)])
def test_tokens_from_the_latent_cache(
    dtype: torch.dtype, absorbed: bool, pieces: tuple[int, ...]
) -> None:
    attention, x = latent(dtype), vectors(dtype=dtype)
    cache = attention.make_cache(LENGTH)
    found = piece_by_piece(lambda part, _: attention(part, cache, absorbed=absorbed), x, *pieces)
    torch.testing.assert_close(found, attention(x), rtol=0, atol=TOLERANCE[dtype])
    assert cache.length == LENGTH
    assert cache._parts[0].shape == (2, LENGTH, LATENT.cached_elements)


def test_half_precision_is_near() -> None:
    attention, x = latent(), vectors()
    exact = attention(x)
    half = copy.deepcopy(attention).to(torch.bfloat16)
    for absorbed in (False, True):
        off = (half(x.bfloat16(), absorbed=absorbed).double() - exact).abs().max()
        assert off < 16 * torch.finfo(torch.bfloat16).eps * exact.abs().max()


def test_the_parameters_are_those_that_are_counted() -> None:
    changed: list[dict[str, Any]] = [{}, {"q_lora_rank": None}]
    for changes in changed:
        attention = latent(**changes)
        counted = attention.sizes.count_parameters(32, bias=False)
        assert sum(parameter.numel() for parameter in attention.parameters()) == counted


def deepseek(
    interleaved: bool, q_lora_rank: int | None, rope: dict[str, Any] | None, length: int = LENGTH
) -> tuple[DeepseekV3Config, DeepseekV3Attention, Tensor, Tensor]:
    """An attention of transformers, its configuration, an input and the output."""
    settings: dict[str, Any] = {**SIZES, "q_lora_rank": q_lora_rank, "attn_implementation": "eager"}
    settings |= {"rope_parameters": rope} if rope else {}
    config = DeepseekV3Config(
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=4,
        rope_interleave=interleaved,
        **settings,
    )
    theirs = DeepseekV3Attention(config, 0).eval()
    draw(theirs)
    x = vectors(length, torch.float32)
    turns = DeepseekV3RotaryEmbedding(config)(x, torch.arange(length)[None])
    mask = torch.full((length, length), -math.inf).triu(1)[None, None]
    with torch.no_grad():
        return config, theirs, x, theirs(x, turns, mask)[0]


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("q_lora_rank", [20, None])
@pytest.mark.parametrize(
    "rope",
    [
        None,
        YARN,
        {**YARN, "mscale": 0.707},
        {k: v for k, v in YARN.items() if "mscale" not in k},
    ],
    ids=["plain", "yarn", "two mscales", "no mscale"],
)
def test_it_is_the_attention_of_transformers(
    interleaved: bool, q_lora_rank: int | None, rope: dict[str, Any] | None
) -> None:
    config, theirs, x, expected = deepseek(interleaved, q_lora_rank, rope)
    ours = LatentAttention.from_deepseek(theirs.state_dict(), config)
    for absorbed in (False, True):
        found = ours(x, absorbed=absorbed).detach()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_file_of_the_first_release_is_understood() -> None:
    _, theirs, x, expected = deepseek(True, 20, YARN)
    told = {
        "hidden_size": 32,
        "num_attention_heads": 4,
        **SIZES,
        "rope_theta": 10_000,
        "rope_scaling": {
            "type": "yarn",
            **{k: v for k, v in YARN.items() if not k.startswith("rope")},
        },
    }
    ours = LatentAttention.from_deepseek(theirs.state_dict(), told)
    torch.testing.assert_close(ours(x).detach(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, c: w.pop("o_proj.weight"), "6 weights do not fit"),
        (lambda w, c: w.update({"o_proj.bias": torch.zeros(32)}), "8 weights do not fit"),
        (lambda w, c: w.update({"kv_b_proj.weight": torch.zeros(3, 3)}), "do not fit"),
        (lambda w, c: c.update(attention_bias=True), "attention_bias is True; "),
        (lambda w, c: c.pop("kv_lora_rank"), "kv_lora_rank is not in the configuration; "),
        (lambda w, c: c.update(rope_parameters={"rope_type": "linear"}), "rope_type is 'linear'; "),
    ],
)
def test_what_cannot_be_taken_over_is_named(change: Callable[..., Any], message: str) -> None:
    config, theirs, *_ = deepseek(True, 20, None, 2)
    weights, told = dict(theirs.state_dict()), config.to_dict()
    change(weights, told)
    with pytest.raises(ValueError, match=message):
        LatentAttention.from_deepseek(weights, told)


# --- bugs that others had, and where they show -----------------------------------------------


def change(**settings: float | Tensor) -> Callable[[LatentAttention], None]:
    return lambda attention: vars(attention).update(settings)


def mixed_up(attention: LatentAttention, query: bool = True, key: bool = True) -> None:
    """Put the rotary rows back into the order in which DeepSeek stores them."""
    rope = attention.sizes.qk_rope_head_dim
    for linear, n_heads, wanted in (
        (attention.query, attention.n_heads, query),
        (attention.compress, 1, key),
    ):
        if wanted:
            rows = linear.weight.view(n_heads, -1, linear.in_features)[:, -rope:]
            rows.copy_(rows.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2).clone())  # type: ignore[no-untyped-call]


def values_first(attention: LatentAttention) -> None:
    """Read the unpacking matrix as values before keys."""
    weight = attention.unpack.weight.view(attention.n_heads, -1, SIZES["kv_lora_rank"])
    weight.copy_(weight.roll(SIZES["v_head_dim"], dims=1).clone())


def rounded_angles(attention: LatentAttention) -> None:
    """Compute angles in bfloat16, which has no whole numbers beyond 256 but every other one."""
    angles = (torch.arange(LENGTH)[:, None] * attention.speeds).bfloat16().double()
    cos, sin = angles.cos(), angles.sin()
    turns = torch.stack([torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)])
    vars(attention)["rotations"] = lambda length, dtype: turns[:, :length]


PLAIN_SPEEDS = LatentAttention(32, 4, **SIZES).speeds
SHARPER = (0.1 * math.log(40) + 1) ** 2
# By name: what is done to it, the first position that is off by more than 1e-3, and where it was.
BUGS: dict[str, tuple[Callable[[LatentAttention], None], int]] = {
    "scale of the absorbed width (ollama 13893)": (change(scale=32**-0.5), 1),
    "scale of the plain key alone": (change(scale=16**-0.5 * SHARPER), 1),
    "scale without YaRN's factor (mobius 548)": (change(scale=24**-0.5), 1),
    "YaRN's factor once, not squared": (change(scale=24**-0.5 * SHARPER**0.5), 1),
    "cosines stretched, too (Megatron-LM 1429)": (change(stretch=SHARPER**0.5), 1),
    "YaRN's speeds forgotten": (change(speeds=PLAIN_SPEEDS), 1),
    "angles in bfloat16": (rounded_angles, 9),
    "positions turn the other way": (change(speeds=-PLAIN_SPEEDS), 1),
    "rotary rows left interleaved (vLLM 26995)": (mixed_up, 1),
    "rotary rows of the key alone left so": (lambda a: mixed_up(a, query=False), 1),
    "values unpacked before keys": (values_first, 0),
    "latent not normalized": (lambda a: setattr(a, "latent_norm", nn.Identity()), 0),
}


def differences(bug: Callable[[LatentAttention], None]) -> Tensor:
    """By position the largest difference that a bug makes."""
    right = latent()
    right.speeds = yarn_speeds(right.speeds, 10_000.0, 40.0, 64)
    right.scale *= SHARPER
    wrong = copy.deepcopy(right)
    bug(wrong)
    x = vectors()
    off: Tensor = (wrong(x) - right(x)).abs().amax(dim=(0, 2))
    return off


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_shows_from_its_position_on(name: str) -> None:
    bug, first = BUGS[name]
    off = differences(bug)
    assert int((off > 1e-3).nonzero()[0]) == first
    assert off[first:].median() > 1e-3
    if first:  # one token attends to itself, whatever the scale and the angle
        assert off[0] < 1e-12


def test_one_token_shows_two_of_the_bugs() -> None:
    seen = {name for name, (bug, _) in BUGS.items() if differences(bug)[0] > 1e-12}
    assert seen == {"values unpacked before keys", "latent not normalized"}


def test_an_error_of_the_angles_grows_with_the_position() -> None:
    off = differences(BUGS["angles in bfloat16"][0])
    assert off[1:5].max() < 3e-4
    assert off[100:].median() > 1e-3


def test_positions_that_begin_again_show_at_the_first_token_behind_a_cache() -> None:
    attention, x = latent(), vectors()
    cache = attention.make_cache(LENGTH)

    def read(part: Tensor, start: int) -> Tensor:
        rotation = attention.rotations(part.shape[1], torch.float64)  # not those from start on
        out: Tensor = attention(part, cache, rotation=rotation)
        return out

    off = (piece_by_piece(read, x, 50, 1) - attention(x)).abs().amax(dim=(0, 2))
    assert off[:50].max() < 1e-12
    assert off[50] > 1e-3


# --- several tokens behind a cache -----------------------------------------------------------


@pytest.mark.parametrize("n_kv_heads", [None, 2, 1])
@pytest.mark.parametrize("pieces", [(1,), (3, 4), (20, 1, 9), (1, 29)])
def test_tokens_in_pieces_are_those_at_once(n_kv_heads: int | None, pieces: tuple[int]) -> None:
    attention = Attention(32, 4, 8, n_kv_heads).double().requires_grad_(False)
    draw(attention)
    x, turns = vectors(30), rotations(30, 8, 1e4, torch.device("cpu"), torch.float64)
    cache = attention.make_cache(30)

    def read(part: Tensor, start: int) -> Tensor:
        out: Tensor = attention(part, turns[:, start : start + part.shape[1]], cache)
        return out

    torch.testing.assert_close(piece_by_piece(read, x, *pieces), attention(x, turns))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_new_token_does_not_see_those_after_it(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 9, 8).to(dtype)
    before = attend_to_all(query[:, :, -3:], key, value)
    key[:, :, -1], value[:, :, -1] = 50, 50
    after = attend_to_all(query[:, :, -3:], key, value)
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    assert not torch.equal(before[:, :, 2], after[:, :, 2])


@pytest.mark.parametrize("kind", ["heads", "latent"])
def test_tokens_that_are_taken_back_leave_nothing(kind: str) -> None:
    config = LMConfig(40, 32, 2, 4, 24, attention=LATENT if kind == "latent" else None)
    model = DecoderLM(config).double().requires_grad_(False)
    draw(model)
    tokens = torch.randint(40, (1, 20), generator=torch.Generator().manual_seed(0))
    turns, caches = model.rotations(20), model.make_caches(20)
    model.read(tokens[:, :8], turns[:, :8], caches)
    model.read((tokens[:, 8:13] + 1) % 40, turns[:, 8:13], caches)
    for cache in caches:
        cache.length = 8
    found = model.read(tokens[:, 8:], turns[:, 8:], caches)[0]
    torch.testing.assert_close(found, model.read(tokens, turns)[0][:, 8:])
    for wrong in (-1, 21):
        with pytest.raises(ValueError, match=f"length is {wrong} with 20 tokens in the cache; "):
            caches[0].length = wrong


# --- in a language model ---------------------------------------------------------------------


def test_a_model_with_latent_attention_has_its_sizes_and_writes_alike() -> None:
    config = LMConfig(40, 32, 2, 4, 24, attention=LATENT)
    model = DecoderLM(config)
    draw(model)
    assert (
        sum(p.numel() for p in model.parameters()) == sizes.count_parameters(config.sizes()).total
    )
    assert sizes.kv_cache_bytes_per_token(config.sizes(), 4) == 2 * 32 * 4
    prompts = [torch.arange(n) for n in (3, 9, 5)]
    for temperature in (0.0, 1.0):
        texts = [
            generate(
                model,
                prompts,
                max_new_tokens=30,
                end=7,
                temperature=temperature,
                generator=torch.Generator().manual_seed(0),
                use_cache=use_cache,
            )
            for use_cache in (True, False)
        ]
        for with_cache, without in zip(*texts, strict=True):
            assert torch.equal(with_cache, without)


def test_every_weight_of_latent_attention_learns() -> None:
    model = DecoderLM(LMConfig(40, 32, 1, 4, 24, attention=LATENT))
    draw(model)
    model(torch.arange(20)[None]).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 2}, "n_heads is 2 and that of attention 4; "),
        ({"n_kv_heads": 2}, "n_kv_heads is 2 and head_dim None with latent attention, "),
        ({"head_dim": 8}, "n_kv_heads is None and head_dim 8 with latent attention, "),
        ({"attention": replace(LATENT, qk_rope_head_dim=7)}, "qk_rope_head_dim is 7; "),
    ],
)
def test_sizes_that_do_not_fit_latent_attention_are_named(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(LMConfig(40, 32, 1, 4, 24, attention=LATENT), **changes)


# --- sparse attention ------------------------------------------------------------------------


def parts(n_tokens: int = 12, n_new: int = 12) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values and scores."""
    torch.manual_seed(0)
    query = torch.randn(2, 4, n_new, 8, dtype=torch.float64)
    key, value = torch.randn(2, 2, 2, n_tokens, 8, dtype=torch.float64)
    return query, key, value, torch.randn(2, n_new, n_tokens, dtype=torch.float64)


@pytest.mark.parametrize("k", [12, 100])
def test_all_tokens_chosen_is_causal_attention(k: int) -> None:
    query, key, value, scores = parts()
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(sparse_attention(query, key, value, scores, k), expected)


@pytest.mark.parametrize("n_new", [1, 5, 12])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_each_query_reads_its_best_tokens_alone(n_new: int, k: int) -> None:
    query, key, value, scores = parts(12, n_new)
    found = sparse_attention(query, key, value, scores, k)
    for batch, head, place in np.ndindex(2, 4, n_new):
        seen = 12 - n_new + place + 1  # a later token may have the best score, and is not there
        best = scores[batch, place, :seen].topk(min(k, seen)).indices
        keys, values = key[batch, head // 2, best], value[batch, head // 2, best]
        weights = (keys @ query[batch, head, place] / 8**0.5).softmax(0)
        torch.testing.assert_close(found[batch, head, place], weights @ values)


def test_latents_can_be_read_sparsely() -> None:
    query, key, value, scores = parts()
    found = sparse_attention(query, key[:, :1], value[:, :1, :, :5], scores, 12, scale=0.3)
    expected = F.scaled_dot_product_attention(
        query, key[:, :1], value[:, :1, :, :5], is_causal=True, enable_gqa=True, scale=0.3
    )
    torch.testing.assert_close(found, expected)


def test_shapes_and_counts_that_do_not_fit_are_named() -> None:
    query, key, value, scores = parts()
    with pytest.raises(ValueError, match="k is 0; "):
        sparse_attention(query, key, value, scores, 0)
    with pytest.raises(ValueError, match="scores has shape"):
        sparse_attention(query, key, value, scores[:, 1:], 3)
    for other_key, other_value in (
        (key[..., :3], value),
        (key, value[:, :, :-1]),
        (key, value[:, :, :1]),
        (key, value[:, :1]),
        (key, torch.cat([value, value], dim=2)),
        (key, value[:1].expand(3, -1, -1, -1)),
    ):
        with pytest.raises(ValueError, match=r"query has shape .* and value "):
            sparse_attention(query, other_key, other_value, scores, 3)
    with pytest.raises(ValueError, match="pass \\[B, S, T\\] and \\[B, H, S, T\\]"):
        indexer_loss(scores, scores)


@pytest.mark.parametrize("width", [1, 3, 63])
def test_an_odd_width_of_heads_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"head_dim is {width}; RoPE turns pairs"):
        Attention(16, 2, width)
    with pytest.raises(ValueError, match=f"head_dim is {width}; RoPE turns pairs"):
        rotations(4, width, 1e4, torch.device("cpu"))


@pytest.mark.parametrize(
    ("length", "width", "base", "message"),
    [
        (4, 4, 0.0, r"base is 0\.0; give a finite number above 0"),
        (4, 4, -2.0, r"base is -2\.0; give a finite number above 0"),
        (4, 4, math.nan, "base is nan; give a finite number above 0"),
        (-1, 4, 1e4, "length is -1; give a whole number, at least 0"),
        (1.5, 4, 1e4, r"length is 1\.5; give a whole number, at least 0"),
        (4, 0, 1e4, "head_dim is 0; give a whole number, at least 1"),
    ],
)
def test_rotations_that_cannot_be_are_named(
    length: int, width: int, base: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rotations(length, width, base, torch.device("cpu"))


def test_the_score_of_the_indexer_is_the_formula() -> None:
    indexer = LightningIndexer(16, 3, 4).double().requires_grad_(False)
    draw(indexer)
    turns = rotations(9, 4, 100.0, torch.device("cpu"), torch.float64)
    x = vectors(9, width=16)
    scores = indexer(x, turns)
    for t, s in np.ndindex(9, 9):
        if s > t:
            assert scores[0, t, s] == -math.inf
            continue
        rows = indexer.query(x[0, t]).view(3, 4)
        key = indexer.key_norm(indexer.key(x[0, s]))
        total = 0.0
        for j in range(3):
            turned = [turn(vector, turns, place) for vector, place in ((rows[j], t), (key, s))]
            total += indexer.weight(x[0, t])[j] * max(0.0, float(turned[0] @ turned[1]))
        assert float(scores[0, t, s]) == pytest.approx(float(total) / 12**0.5)
    cache = LatentCache(9)
    pieces = [indexer(x[:, :6], turns[:, :6], cache), indexer(x[:, 6:], turns[:, 6:], cache)]
    torch.testing.assert_close(pieces[0], scores[:, :6, :6])
    torch.testing.assert_close(pieces[1], scores[:, 6:])


def turn(vector: Tensor, turns: Tensor, place: int) -> Tensor:
    cos, sin = turns[:, place]
    turned: Tensor = vector * cos + vector.roll(2) * sin
    return turned


def test_the_loss_of_the_indexer_is_a_divergence() -> None:
    torch.manual_seed(0)
    weights = torch.randn(2, 4, 6, 6).masked_fill(torch.ones(6, 6).triu(1) > 0, -math.inf)
    weights = weights.softmax(-1).requires_grad_()
    scores = weights.detach().mean(1).log()
    assert float(indexer_loss(scores, weights)) == pytest.approx(0, abs=1e-6)
    assert float(indexer_loss(scores + 5.0, weights)) == pytest.approx(0, abs=1e-6)
    guess = torch.randn(2, 6, 6).masked_fill(scores.isinf(), -math.inf).requires_grad_()
    loss = indexer_loss(guess, weights)
    value = float(loss.detach())
    target = weights.detach().mean(1)
    by_hand = F.kl_div(guess.detach().log_softmax(-1).clamp(min=-99), target, reduction="sum") / 12
    assert value == pytest.approx(float(by_hand))
    loss.backward()  # type: ignore[no-untyped-call]
    assert weights.grad is None
    assert guess.grad is not None
    assert bool(guess.grad.isfinite().all())


# --- public doors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_few_tokens_in_half_precision_are_as_near_as_all(dtype: torch.dtype) -> None:
    """Scores of half precision were off by units: a fifteenth of the values, at sixteen tokens."""
    torch.manual_seed(0)
    query, key = (
        (8 * torch.randn(2, 2, 16, 64)).to(dtype),
        (8 * torch.randn(2, 2, 16, 64)).to(dtype),
    )
    value = torch.randn(2, 2, 16, 8).to(dtype)
    exact = attend_to_all(query.double(), key.double(), value.double())
    found = sparse_attention(query, key, value, torch.zeros(2, 16, 16), 16)
    assert found.dtype == dtype
    assert float((found.double() - exact).abs().max()) < 0.01


def test_a_score_of_minus_infinity_is_the_last_choice_and_no_later_token_is_one() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 64, 4).unbind(0)
    nothing_to_say = torch.full((1, 64, 64), -math.inf)
    found = sparse_attention(query, key, value, nothing_to_say, 3)
    assert bool(found.isfinite().all())
    scores = torch.tensor([[[1.0, -math.inf, 2.0]]])
    first, last = (
        sparse_attention(query[:, :, 2:3], key[:, :, :3], value[:, :, :3], scores, k)
        for k in (2, 3)
    )
    expected = attend_to_all(query[:, :, 2:3], key[:, :, [0, 2]], value[:, :, [0, 2]])
    torch.testing.assert_close(first, expected)
    assert not torch.equal(first, last)
    scores[0, 0, 1] = math.nan
    with pytest.raises(ValueError, match=r"^scores\[0, 0, 1\] is nan"):
        sparse_attention(query[:, :, 2:3], key[:, :, :3], value[:, :, :3], scores, 1)


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ((2, 2, 2, 4), (1, 2, 4, 4)),  # was paired with heads, in silence
        ((1, 2, 5, 4), (1, 2, 4, 4)),
        ((1, 3, 2, 4), (1, 2, 4, 4)),
        ((1, 2, 2, 4), (1, 0, 4, 4)),
        ((2, 2, 4), (1, 2, 4, 4)),
        ((1, 2, 2, 3), (1, 2, 4, 4)),
        ((1, 2, 2, 4), (1, 2, 0, 4)),
    ],
)
def test_heads_that_do_not_fit_are_named(query: tuple[int, ...], key: tuple[int, ...]) -> None:
    tensors = torch.zeros(query), torch.zeros(key), torch.zeros(key)
    with pytest.raises(ValueError, match=r"^query has shape .*; pass \[B, H, S, D\]"):
        attend_to_all(*tensors)
    with pytest.raises(ValueError, match=r"^query has shape .*; pass \[B, H, S, D\]"):
        sparse_attention(*tensors, torch.zeros(1, 2, 4), 2)


def test_heads_of_whole_numbers_are_refused_and_no_texts_are_fine() -> None:
    whole = torch.ones(1, 2, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"of torch\.int64; pass"):
        attend_to_all(whole, whole, whole)
    none = torch.zeros(0, 2, 4, 4)
    assert attend_to_all(none, none, none).shape == (0, 2, 4, 4)


@pytest.mark.parametrize(
    "wrong", [{"base": 1.0}, {"factor": 0}, {"factor": -2}, {"original": 0}, {"slow": 32}]
)
def test_stretched_positions_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    settings: dict[str, Any] = {"base": 1e4, "factor": 40.0, "original": 4096, **wrong}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        yarn_speeds(torch.ones(4), **settings)


@pytest.mark.parametrize(
    "attention",
    [torch.zeros(1, 1, 1, 2), torch.tensor([[[[2.0, -1.0]]]]), torch.tensor([[[[math.nan, 1.0]]]])],
)
def test_what_is_no_distribution_teaches_no_indexer(attention: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="no distribution"):
        indexer_loss(torch.zeros(1, 1, 2), attention)
    with pytest.raises(ValueError, match="pass"):
        indexer_loss(torch.zeros(0, 1, 2), attention[:0])
