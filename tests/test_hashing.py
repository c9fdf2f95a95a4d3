"""The router that goes by a table, alone, in a layer and in a language model."""

from typing import Any

import pytest
import torch

from slingshot import sizes
from slingshot.lm import DecoderLM, LMConfig, generate
from slingshot.moe import (
    Experts,
    HashRouter,
    MoE,
    TopKRouter,
    expert_load,
    expert_scores,
    gate_weights,
    hash_table,
    router_logits,
)

COUNTS = torch.tensor([50, 0, 20, 20, 5, 3, 1, 1])


def make_model() -> DecoderLM:
    """A language model whose two mixtures go by the token."""
    torch.manual_seed(0)
    experts = sizes.ExpertConfig(n_routed=4, n_shared=1, top_k=2, d_expert=3)
    model = DecoderLM(LMConfig(8, d_model=6, n_layers=2, n_heads=1, d_ffn=4, experts=experts))
    for layer in model.layers:
        mixture: Any = layer.ffn
        mixture.router = HashRouter(6, 4, hash_table(COUNTS, 4, 2))
        torch.nn.init.normal_(mixture.experts.down)
    return model


def test_the_table_chooses_and_the_gate_weighs() -> None:
    torch.manual_seed(0)
    table = torch.tensor([[0, 2], [3, 1], [2, 1]])
    router = HashRouter(5, 4, table)
    x, tokens = torch.randn(6, 5, requires_grad=True), torch.tensor([2, 0, 0, 1, 2, 1])
    routing = router(x, tokens.to(torch.uint8))
    assert torch.equal(routing.experts, table[tokens])
    scores = expert_scores(router_logits(x, router.weight))
    assert torch.equal(routing.scores, scores)
    assert torch.equal(routing.weights, gate_weights(scores, table[tokens]))
    (routing.weights[:, 0].sum()).backward()
    assert router.weight.grad is not None
    assert bool(router.weight.grad.abs().sum() > 0)
    assert "n_experts=4, top_k=2, n_tokens=3" in repr(router)


def test_the_gate_starts_as_that_of_a_learned_router() -> None:
    torch.manual_seed(3)
    ours = HashRouter(32, 8, torch.zeros(1, 1, dtype=torch.int64)).weight
    torch.manual_seed(3)
    assert torch.equal(ours, TopKRouter(32, 8, 1).weight)


@pytest.mark.parametrize(("n_experts", "top_k"), [(4, 1), (4, 2), (16, 2), (3, 3)])
def test_no_expert_is_busier_than_the_next_by_more_than_one_token(
    n_experts: int, top_k: int
) -> None:
    # Whoever gets a token had the least load, so it exceeds the others by that token at most.
    counts = torch.randint(0, 100, (300,), generator=torch.Generator().manual_seed(0))
    table = hash_table(counts, n_experts, top_k, seed=1)
    assert all(len(set(row)) == top_k for row in table.tolist())
    load = expert_load(table.repeat_interleave(counts.clamp(min=1), dim=0), n_experts)
    assert load.max() - load.min() <= counts.max()
    text = counts.double() / counts.sum()
    shares = torch.zeros(n_experts, dtype=torch.float64)
    shares.index_add_(0, table.flatten(), text.repeat_interleave(top_k) / top_k)
    assert shares.max() < 1.05 / n_experts


def test_a_table_repeats_with_its_seed_and_differs_with_another() -> None:
    first, again, other = (hash_table(COUNTS, 4, 2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_model_asks_for_each_token_the_experts_of_its_table() -> None:
    model = make_model()
    tokens = torch.tensor([[1, 4, 4, 0], [7, 2, 3, 1]])
    for layer, routing in zip(model.layers, model(tokens).routings, strict=True):
        mixture: Any = layer.ffn
        assert torch.equal(routing.experts, mixture.router.table[tokens.flatten()])
    assert model.routers == []


def test_such_a_model_writes_the_same_with_and_without_a_cache() -> None:
    model = make_model()
    prompts = [torch.tensor([1, 4]), torch.tensor([2, 3, 5])]
    written = [
        generate(model, prompts, max_new_tokens=5, temperature=0, use_cache=cached)
        for cached in (True, False)
    ]
    for one, other in zip(*written, strict=True):
        assert torch.equal(one, other)


def test_a_layer_without_ids_is_refused() -> None:
    layer = MoE(HashRouter(6, 4, hash_table(COUNTS, 4, 2)), Experts(4, 6, 3))
    x = torch.randn(2, 3, 6)
    with pytest.raises(ValueError, match=r"goes by ids and got no tokens"):
        layer(x)
    with pytest.raises(ValueError, match=r"x has shape \(6, 6\) and tokens \(2,\); pass"):
        layer(x, torch.tensor([1, 2]))
    assert layer(x, torch.tensor([[1, 2, 3], [4, 5, 7]])).output.shape == x.shape
    learned = MoE(TopKRouter(6, 4, 2), Experts(4, 6, 3))
    assert torch.equal(learned(x).output, learned(x, torch.zeros(2, 3, dtype=torch.int64)).output)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (torch.tensor([[0, 4]]), "expert 4 is not within 0 to 3"),
        (torch.tensor([[0, 1], [2, 2]]), r"table\[1\] is \[2, 2\]; name each expert once"),
        (torch.tensor([0, 1]), r"table has shape \(2,\); pass \[tokens, experts\]"),
        (torch.zeros(3, 0, dtype=torch.int64), r"table has shape \(3, 0\)"),
        (torch.zeros(2, 2), "table has dtype torch.float32; pass the experts"),
    ],
)
def test_a_table_that_cannot_be_is_named(table: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HashRouter(6, 4, table)


def test_what_does_not_fit_is_named() -> None:
    router = HashRouter(6, 4, hash_table(COUNTS, 4, 2))
    with pytest.raises(ValueError, match="token 8 is not within 0 to 7; make a table of the whole"):
        router(torch.randn(1, 6), torch.tensor([8]))
    with pytest.raises(ValueError, match=r"tokens has dtype torch\.float32"):
        router(torch.randn(1, 6), torch.ones(1))
    with pytest.raises(ValueError, match="input holds NaN or infinity"):
        router(torch.full((1, 6), torch.nan), torch.tensor([1]))
    with pytest.raises(ValueError, match="d_model is 0"):
        HashRouter(0, 4, torch.tensor([[1]]))
    for counts, experts, top_k, message in [
        (COUNTS, 4, 5, "top_k is 5; give a whole number, 1 to 4"),
        (COUNTS, 4, 0, "top_k is 0; give a whole number, 1 to 4"),
        (COUNTS - 1, 4, 1, r"counts\[\d\] is -1; give how often a token occurs"),
        (COUNTS.view(2, -1), 4, 1, r"counts has shape \(2, 4\); pass \[V\]"),
        (COUNTS, 0, 1, "n_experts is 0; give a whole number"),
        (COUNTS[None], 4, 1, r"counts has shape \(1, 8\)"),
        (COUNTS / 2, 4, 1, "counts has dtype torch.float32"),
    ]:
        with pytest.raises(ValueError, match=message):
            hash_table(counts, experts, top_k)
