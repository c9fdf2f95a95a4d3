"""The experiments of the part on memory: equal parameters, who chooses, what is measured."""

import json
import math
from dataclasses import replace

import attention_kinds
import drafting
import indexer
import pytest
import torch
from indexer import HEAD_DIM, Indexers
from torch import Tensor

from slingshot import sizes
from slingshot.attention import rotations
from slingshot.lm import DecoderLM, LMConfig

TINY = LMConfig(vocab_size=23, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_ffn=24)


@pytest.fixture
def model() -> DecoderLM:
    """A model whose matrices all do something."""
    torch.manual_seed(0)
    model = DecoderLM(TINY).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.3)
    return model


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(23, (6, 30), generator=torch.Generator().manual_seed(1))


def test_all_kinds_have_the_parameters_of_mha_within_half_a_channel() -> None:
    wanted = sizes.count_parameters(attention_kinds.MHA.sizes()).total
    channel = 3 * attention_kinds.MHA.d_model * attention_kinds.MHA.n_layers
    for run in attention_kinds.runs():
        model, train = attention_kinds.build(run.configuration)
        counted = sum(parameter.numel() for parameter in model.parameters())
        assert abs(counted - wanted) <= channel / 2
        assert train.steps == attention_kinds.STEPS
        assert json.loads(json.dumps(run.configuration)) == run.configuration


def test_the_latent_is_as_small_as_one_shared_head() -> None:
    mqa = attention_kinds.KINDS["MQA"].sizes().attention
    assert attention_kinds.LATENT.cached_elements == mqa.cached_elements


def test_equal_flops_count_the_head() -> None:
    own, extra = drafting.multiplied()
    model, _ = attention_kinds.build(drafting.runs()[0].configuration)
    head = drafting.MultiTokenHead.of(model)
    matrices = sum(p.numel() for p in head.parameters() if p.ndim > 1) + model.head.weight.numel()
    norms = 1e-2 * own  # a few vectors, and how they are counted
    assert abs(extra - matrices) < norms
    (longer,) = {
        run.configuration["train"]["steps"] for run in drafting.runs() if "equal" in run.name
    }
    assert abs(longer * own - attention_kinds.STEPS * (own + extra)) <= own / 2


# --- who chooses -----------------------------------------------------------------------------


def test_to_read_all_is_to_read_as_ever(model: DecoderLM, tokens: Tensor) -> None:
    expected = model(tokens).logits
    for k in (None, 30, 100):
        layers = indexer.reading(model, lambda _: indexer.by_attention, k if k != 100 else 30)
        torch.testing.assert_close(model(tokens).logits, expected)
        assert all(math.isnan(kept) for each in layers for kept in each.kept)  # none leaves any out


def test_the_true_weights_keep_more_than_any_other_choice(model: DecoderLM, tokens: Tensor) -> None:
    kept = {}
    for choose in (indexer.by_attention, indexer.by_window, indexer.by_chance):
        layers = indexer.reading(model, lambda _, c=choose: c, 6)  # type: ignore[misc]
        model(tokens[:1])
        kept[choose] = [each.kept[0] for each in layers]
    for other in (indexer.by_window, indexer.by_chance):
        assert all(best > less for best, less in zip(kept[indexer.by_attention], kept[other]))  # noqa: B905


def test_a_window_is_the_first_token_and_the_last_ones() -> None:
    x = torch.zeros(1, 10, 4)
    scores = indexer.by_window(None, x, x, x)[0]  # type: ignore[arg-type]
    seen = scores.masked_fill(indexer.future(10), -math.inf)
    assert sorted(seen[7].topk(4).indices.tolist()) == [0, 5, 6, 7]
    chance = indexer.by_chance(None, x, x, x)[0]  # type: ignore[arg-type]
    assert {0, 7} <= set(chance[7].topk(4).indices.tolist())


def test_the_wrong_layout_turns_neighbors() -> None:
    torch.manual_seed(0)
    right = Indexers(replace(TINY, n_layers=1)).requires_grad_(False)
    wrong = right.in_wrong_layout()
    one = right.each[0]
    x = torch.randn(1, 12, 16)
    query = one.query(x).unflatten(-1, (indexer.HEADS, HEAD_DIM)).transpose(1, 2)  # type: ignore[operator, union-attr]
    key = one.key_norm(one.key(x))  # type: ignore[operator, union-attr]
    turns = rotations(12, HEAD_DIM, TINY.rope_base, torch.device("cpu"))
    cos, sin = turns[0, :, : HEAD_DIM // 2], turns[1, :, HEAD_DIM // 2 :]

    def neighbors(v: Tensor) -> Tensor:
        even, odd = v[..., ::2], v[..., 1::2]
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)

    products = (neighbors(query) @ neighbors(key)[:, None].mT).relu()
    weight = one.weight(x) * (indexer.HEADS * HEAD_DIM) ** -0.5  # type: ignore[operator, union-attr]
    expected = torch.einsum("bhst,bsh->bst", products, weight)
    found = wrong.each[0](x, wrong.rotation(12))
    visible = ~indexer.future(12)
    torch.testing.assert_close(found[0][visible], expected[0][visible])
    assert not torch.allclose(found[0][visible], right.each[0](x, turns)[0][visible], atol=1e-2)


def test_indexers_learn_the_attention_of_a_frozen_model(model: DecoderLM, tokens: Tensor) -> None:
    before = [parameter.clone() for parameter in model.parameters()]
    _, losses = indexer.train(model, tokens.repeat(20, 1), seed=0)
    assert sum(losses[-6:]) < 0.5 * sum(losses[:6])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_what_is_asked_for_is_what_was_hidden() -> None:
    spread = indexer.spread(100, 4)
    assert spread == [0, 25, 50, 75]
    configurations = [json.dumps(run.configuration) for run in indexer.runs()]
    assert len(set(configurations)) == len(configurations)
