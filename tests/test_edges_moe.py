"""slingshot.moe at the edges: types of numbers, zero rows, strides, the largest and smallest."""

import copy
import inspect
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
    MAGNITUDES,
    REFUSED,
    Cover,
    assert_near,
    computed,
    default_dtype,
    exact,
    floats,
    integers,
    laid_out,
    layouts,
    least,
    mode,
    modes,
    numbers,
    outcome,
    seeds,
    specials,
    unit,
    with_special,
)
from slingshot import moe
from slingshot.moe import MoE, TopKRouter

covers = Cover()
edges = settings(derandomize=True, deadline=None, max_examples=8)
rows = st.sampled_from([0, 1, 3])
EXPERTS = 4


def softmax(logits: Any) -> Any:  # noqa: ANN401 arrays of NumPy's widest float
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def softmax_bound(logits: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Each exponent is off by a rounding of itself, then come E sums and a division.

    An exponential that is subnormal is 0 on some processors.
    """
    c, spread = computed(dtype), logits.max(axis=-1, keepdims=True) - logits
    shares = softmax(logits)
    relative = unit(c) * (2 * spread.astype(np.longdouble) + logits.shape[-1] + 8) + unit(dtype)
    return np.minimum(relative, 1) * shares + torch.finfo(dtype).smallest_normal


def finite_gradient(result: Tensor, *leaves: Tensor) -> None:
    """Differentiate, and fail unless each gradient is finite, of the type and shape of its leaf."""
    for leaf, grad in zip(leaves, torch.autograd.grad(result, leaves), strict=True):
        assert grad.dtype == leaf.dtype
        assert grad.shape == leaf.shape
        assert bool(grad.isfinite().all())


# --- routing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(other=floats, n=rows, how=layouts, bad=specials, seed=seeds)
@covers("router_logits")
def test_router_logits(
    dtype: torch.dtype,
    other: torch.dtype,
    n: int,
    size: str,
    how: str,
    bad: float | None,
    seed: int,
) -> None:
    x = laid_out(with_special(numbers((n, 5), dtype, size, seed), bad), how)
    weight = laid_out(numbers((EXPERTS, 5), other, seed=seed + 1), how)
    logits = outcome(lambda: moe.router_logits(x, weight))
    c = torch.promote_types(torch.promote_types(dtype, other), torch.float32)
    terms = np.abs(exact(x)) @ np.abs(exact(weight)).T
    if bad is not None and n:
        assert logits is REFUSED
    elif logits is REFUSED:
        assert terms.max() > torch.finfo(c).max / 2
    else:
        assert logits.dtype == c
        assert_near(logits, exact(x) @ exact(weight).T, 6 * unit(c) * terms + 5 * least(c))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(score=st.sampled_from(["sigmoid", "softmax"]), n=rows, how=layouts, bad=specials, seed=seeds)
@covers("expert_scores", "Score")
def test_expert_scores(
    dtype: torch.dtype, score: moe.Score, n: int, size: str, how: str, bad: float | None, seed: int
) -> None:
    logits = laid_out(with_special(numbers((n, EXPERTS), dtype, size, seed), bad), how)
    scores = outcome(lambda: moe.expert_scores(logits, score))
    undefined = bad is not None and n and (math.isnan(bad) or (score == "softmax" and bad > 0))
    assert (scores is REFUSED) == bool(undefined)
    if scores is REFUSED:
        return
    x = exact(logits)
    if score == "softmax":
        spread = np.maximum(x, -1e3 + x.max(axis=-1, keepdims=True)) if n else x
        assert_near(scores, softmax(x) if n else x, softmax_bound(spread, dtype) if n else 0)
        return
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(-x))
    bound = (6 * unit(computed(dtype)) + unit(dtype)) * expected
    assert_near(scores, expected, bound + torch.finfo(dtype).smallest_normal)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(n=rows, how=layouts, bad=specials, seed=seeds, grouped=st.booleans())
@covers("group_scores", "mask_groups", "select_experts")
def test_groups_and_choice(
    dtype: torch.dtype, n: int, size: str, how: str, bad: float | None, seed: int, grouped: bool
) -> None:
    biased = laid_out(with_special(numbers((n, 6), dtype, size, seed), bad), how)
    sums = outcome(lambda: moe.group_scores(biased, 3))
    masked = outcome(lambda: moe.mask_groups(biased, 3, 2))
    experts = outcome(lambda: moe.select_experts(biased, 2, *((3, 2) if grouped else (1, 1))))
    pairs = np.sort(exact(biased).reshape(n, 3, 2), axis=-1)
    if bad is not None and n:
        assert masked is REFUSED
        assert experts is REFUSED or not (grouped or math.isnan(bad))
        return
    if sums is REFUSED:
        assert np.abs(pairs.sum(axis=-1)).max() > torch.finfo(computed(dtype)).max
        assert masked is REFUSED
        return
    expected = pairs.sum(axis=-1)
    bound = unit(computed(dtype)) * np.abs(expected)
    assert_near(sums, expected, bound)
    kept = exact(masked.isfinite()).reshape(n, 3, 2).all(axis=-1)
    for row in range(n):
        worst, slack = expected[row][kept[row]].min(), 2 * bound[row].max()
        assert kept[row].sum() == 2
        assert worst >= expected[row][~kept[row]].max() - slack
        values = (masked if grouped else biased)[row]
        assert values[experts[row]].tolist() == values.sort(descending=True).values[:2].tolist()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(whole=integers, n=rows, how=layouts, bad=specials, seed=seeds, norm=st.booleans())
@covers("gate_weights")
def test_gate_weights(
    dtype: torch.dtype,
    whole: torch.dtype,
    n: int,
    size: str,
    how: str,
    bad: float | None,
    seed: int,
    norm: bool,
) -> None:
    scores = laid_out(with_special(numbers((n, EXPERTS), dtype, size, seed).abs(), bad), how)
    experts = laid_out(torch.tensor([[3, 0]] * n).view(n, 2).to(whole), how)
    weights = outcome(lambda: moe.gate_weights(scores, experts, normalize=norm, route_scale=2.5))
    c = computed(dtype)
    chosen = exact(scores)[:, [3, 0]]
    if bad is not None and n:
        assert weights is REFUSED
        return
    if weights is REFUSED:
        assert chosen.max() > torch.finfo(c).max / 2.6
        return
    divisor = chosen.sum(axis=-1, keepdims=True) + np.longdouble(1e-20) if norm else 1
    expected = 2.5 * chosen / divisor
    assert weights.dtype == c
    assert_near(weights, expected, 8 * unit(c) * expected + 3 * least(c))


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool, torch.float32])
@pytest.mark.parametrize("n_experts", [1, 4, 300])
@pytest.mark.parametrize("outside", [None, -1, 4, 127])
@pytest.mark.parametrize("n", [0, 3])
@covers("expert_load", "sort_by_expert", "Dispatch")
def test_experts_are_counted_whatever_their_type(
    dtype: torch.dtype, n_experts: int, outside: int | None, n: int
) -> None:
    rows = [[0, min(2, n_experts - 1)]] * n
    if n and outside is not None:
        rows[1] = [0, outside]
    table = torch.tensor(rows).view(n, 2)
    experts = laid_out(table.to(dtype), "transposed")
    load = outcome(lambda: moe.expert_load(experts, n_experts))
    dispatch = outcome(lambda: moe.sort_by_expert(experts, n_experts))
    if dtype not in INTEGERS or not bool(((experts >= 0) & (experts.long() < n_experts)).all()):
        assert load is REFUSED
        assert dispatch is REFUSED
        return
    assert load.tolist() == [experts.flatten().tolist().count(e) for e in range(n_experts)]
    assert experts.flatten().long()[dispatch.pairs].tolist() == sorted(experts.flatten().tolist())
    assert dispatch.bounds[-1] == 2 * n
    assert dispatch.tokens.tolist() == (dispatch.pairs // 2).tolist()
    wrong = outcome(lambda: moe.gate_weights(torch.ones(n, n_experts), experts + n_experts))
    assert wrong is REFUSED or not n or dtype in (torch.uint8, torch.int8)


# --- balance ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(how=layouts, bad=specials, seed=seeds)
@covers("max_violation", "update_expert_bias")
def test_load(dtype: torch.dtype, size: str, how: str, bad: float | None, seed: int) -> None:
    if dtype in INTEGERS:
        limit = torch.iinfo(dtype).max if size == "largest" else 9
        load, bad = torch.tensor([0, limit, 1, limit // 2], dtype=dtype), None
    else:
        load = with_special(numbers((EXPERTS,), dtype, size, seed).abs(), bad)
    load = laid_out(load, how)
    violation = outcome(lambda: moe.max_violation(load))
    router = TopKRouter(2, EXPERTS, 1)
    moved = outcome(lambda: moe.update_expert_bias(router, load, 0.25))
    counts = exact(load)
    if bad is not None:
        assert violation is REFUSED
        assert moved is REFUSED
        return
    mean = counts.mean()
    if moved is REFUSED:
        assert violation is REFUSED
        assert counts.sum() > torch.finfo(torch.float64).max / 2
        return
    # The sum of four is rounded at most three times; nearer to the mean the sign may be either.
    clear = np.abs(counts - mean) > 4 * unit(torch.float64) * mean
    off = exact(router.expert_bias) - 0.25 * np.sign(mean - counts)
    assert (off[clear] == 0).all()
    if violation is REFUSED:
        assert mean < least(torch.float64)
        return
    expected = counts.max() / mean - 1
    subnormal = least(torch.float64) / mean * (counts.max() / mean + 1)
    assert abs(violation - expected) <= 8 * unit(torch.float64) * (expected + 2) + 2 * subnormal


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("speed", [0.0, 1e-3, 3e38, 1e300])
@pytest.mark.parametrize("bias", [0.0, 3e38])
def test_a_bias_moves_or_says_why_not(dtype: torch.dtype, speed: float, bias: float) -> None:
    router = TopKRouter(2, 2, 1)
    router.expert_bias = torch.full((2,), min(bias, torch.finfo(dtype).max), dtype=dtype)
    before = router.expert_bias.clone()
    load = torch.tensor([0, 2])
    moved = outcome(lambda: moe.update_expert_bias(router, load, speed))
    limit = torch.finfo(dtype).max
    possible = torch.finfo(dtype).bits >= 32 and float(before[0]) + speed <= limit
    assert (moved is REFUSED) == (not possible)
    if moved is REFUSED:
        assert torch.equal(router.expert_bias, before)
        return
    expected = exact(before) + np.array([speed, -speed])
    assert_near(router.expert_bias, expected, 2 * unit(dtype) * (np.abs(expected) + speed))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(whole=integers, n=rows, how=layouts, bad=specials, seed=seeds, grad=modes)
@covers("load_balancing_loss", "sequence_balance_loss")
def test_balance_losses(
    dtype: torch.dtype,
    whole: torch.dtype,
    n: int,
    size: str,
    how: str,
    bad: float | None,
    seed: int,
    grad: str,
) -> None:
    drawn = laid_out(with_special(numbers((2 * n, EXPERTS), dtype, size, seed).abs(), bad), how)
    with mode(grad):
        scores = drawn.clone()
        experts = laid_out(torch.tensor([[3, 0]] * 2 * n).view(2 * n, 2).to(whole), how)
        leaf = scores.requires_grad_(grad == "grad")
        losses = [
            outcome(lambda: moe.load_balancing_loss(leaf, experts, EXPERTS)),
            outcome(lambda: moe.sequence_balance_loss(leaf.view(2, n, EXPERTS), 2)),
        ]
    c, s = computed(dtype), exact(drawn)
    if not n or bad is not None:
        assert losses == [REFUSED, REFUSED]
        return
    sums = s.sum(axis=1, keepdims=True)
    if losses[0] is REFUSED:
        assert losses[1] is REFUSED
        steep = grad == "grad" and sums.min() < 1.01 * EXPERTS / torch.finfo(dtype).max
        assert steep or sums.max() > torch.finfo(c).max / 2
        return
    shares = s / (sums + np.longdouble(1e-20))
    flat = EXPERTS * (np.array([0.5, 0, 0, 0.5]) * shares.mean(axis=0)).sum()
    top = drawn.to(c).view(2, n, EXPERTS).topk(2, dim=-1).indices
    chosen = exact(torch.zeros(2, n, EXPERTS).scatter_(-1, top, 1.0))
    by_sequence = shares.reshape(2, n, EXPERTS).mean(axis=1)
    each = (EXPERTS / 2 * chosen.mean(axis=1) * by_sequence).sum(axis=1).mean()
    # All terms are positive: E sums and a division, T sums and a division, a product, E sums.
    relative = (2 * EXPERTS + 2 * n + 12) * unit(c)
    for loss, expected in zip(losses, (flat, each), strict=True):
        assert loss.dtype == c
        assert_near(loss, expected, relative * expected + 9 * EXPERTS * least(c))
        if grad == "grad":
            finite_gradient(loss, leaf)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(n=rows, how=layouts, bad=specials, seed=seeds)
@covers("router_z_loss")
def test_router_z_loss(
    dtype: torch.dtype, n: int, size: str, how: str, bad: float | None, seed: int
) -> None:
    logits = laid_out(with_special(numbers((n, EXPERTS), dtype, size, seed), bad), how)
    leaf = logits.clone().requires_grad_()
    loss = outcome(lambda: moe.router_z_loss(leaf))
    if not n or (bad is not None and bad != -math.inf):
        assert loss is REFUSED
        return
    c, x = computed(dtype), exact(logits)
    top = x.max(axis=-1)
    lse = top + np.log(np.exp(x - top[:, None]).sum(axis=-1))
    if loss is REFUSED:
        steep = 2 * np.abs(lse).max() / n > torch.finfo(dtype).max / 2
        assert steep or (lse**2).max() > torch.finfo(c).max / (n + 1)
        return
    off = unit(c) * (2 * np.abs(top) + EXPERTS + 8)
    bound = (2 * np.abs(lse) * off + off**2).mean() + (n + 3) * unit(c) * (lse**2).mean()
    assert_near(loss, (lse**2).mean(), bound)
    finite_gradient(loss, leaf)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(n=rows, how=layouts, bad=specials, seed=seeds)
@covers("expert_choice", "ExpertChoice")
def test_expert_choice(
    dtype: torch.dtype, n: int, size: str, how: str, bad: float | None, seed: int
) -> None:
    logits = laid_out(with_special(numbers((n, EXPERTS), dtype, size, seed), bad), how)
    choice = outcome(lambda: moe.expert_choice(logits, 1))
    assert (choice is REFUSED) == (not n or bad is not None)
    if choice is REFUSED:
        return
    x = exact(logits)
    shares = softmax(x).T
    spread = np.maximum(x, x.max(axis=-1, keepdims=True) - 1e3)
    bound = softmax_bound(spread, computed(dtype)).T.max(axis=1, keepdims=True)
    assert_near(choice.weights, np.take_along_axis(shares, choice.tokens.numpy(), 1), bound)
    assert (exact(choice.weights) >= shares.max(axis=1, keepdims=True) - bound).all()


# --- layers ----------------------------------------------------------------------------------


class Near:
    """Exact numbers with a bound of how far computed ones may be off: running error analysis."""

    def __init__(self, value: Any, off: Any, dtype: torch.dtype) -> None:  # noqa: ANN401
        self.value, self.off, self.dtype = value, off, dtype

    @classmethod
    def of(cls, tensor: Tensor) -> "Near":
        return cls(exact(tensor), 0 * exact(tensor), tensor.dtype)

    def rounded(self, roundings: float = 1.0) -> "Near":
        """Stored in its type: each rounding moves it by a share, or by the smallest step."""
        size = np.abs(self.value) + self.off
        moved = roundings * (unit(self.dtype) * size + least(self.dtype))
        return Near(self.value, self.off + moved, self.dtype)

    def through(self, weight: Tensor) -> "Near":
        """Multiplied with ``weight [N, K]``, its sums of K terms in at least float32."""
        w = exact(weight)
        size = (np.abs(self.value) + self.off) @ np.abs(w).T
        terms = weight.shape[1] + 1
        off = self.off @ np.abs(w).T + terms * unit(computed(self.dtype)) * size
        return Near(self.value @ w.T, off + terms * least(self.dtype), self.dtype).rounded()

    def silu(self) -> "Near":
        """Its slope is at most 1.1; an exponential, a sum and a division take 6 roundings."""
        with np.errstate(over="ignore"):
            value = self.value / (1 + np.exp(-self.value))
        return Near(value, 1.1 * self.off, self.dtype).rounded(6)

    def times(self, other: "Near") -> "Near":
        value = self.value * other.value
        crossed = np.abs(self.value) * other.off + np.abs(other.value) * self.off
        return Near(value, crossed + self.off * other.off, self.dtype).rounded()

    def plus(self, other: "Near") -> "Near":
        return Near(self.value + other.value, self.off + other.off, self.dtype).rounded()


def swiglu(x: Near, gate_up: Tensor, down: Tensor, weight: Near | None = None) -> Near:
    hidden = x.through(gate_up)
    half = len(gate_up) // 2
    gate = Near(hidden.value[:, :half], hidden.off[:, :half], x.dtype)
    up = Near(hidden.value[:, half:], hidden.off[:, half:], x.dtype)
    narrow = gate.silu().times(up)
    return (narrow if weight is None else narrow.times(weight)).through(down)


def check_layer(output: Any, x: Tensor, expected: Near, bad: float | None) -> None:  # noqa: ANN401
    """Fail unless ``output`` is near what is expected, or refused where that is too large."""
    if bad is not None and len(x):
        assert output is REFUSED
    elif output is REFUSED:
        largest = float(torch.finfo(x.dtype).max)
        top = np.abs(exact(x)).max()
        # Between layers lie sums and a product of two, each in the type of x.
        assert top * top > largest / 1e3 or np.abs(expected.value).max() > largest / 4
    else:
        assert output.dtype == x.dtype
        assert_near(output, expected.value, expected.off)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(n=rows, how=layouts, bad=specials, seed=seeds, grad=modes)
@covers("SwiGLU")
def test_swiglu(
    dtype: torch.dtype, n: int, size: str, how: str, bad: float | None, seed: int, grad: str
) -> None:
    torch.manual_seed(seed)
    layer = moe.SwiGLU(5, 3).to(dtype)
    x = laid_out(with_special(numbers((n, 5), dtype, size, seed), bad), how)
    with mode(grad):
        output = outcome(lambda: layer(x))
    with np.errstate(invalid="ignore"):
        expected = swiglu(Near.of(x), layer.gate_up.weight, layer.down.weight)
    check_layer(output, x, expected, bad)
    if output is not REFUSED and grad == "grad" and size not in ("large", "largest"):
        finite_gradient(output.sum(), layer.gate_up.weight, layer.down.weight)
    for other in FLOATS:
        assert (outcome(lambda: layer(x.to(other))) is REFUSED) or other == dtype  # noqa: B023
    assert outcome(lambda: layer(torch.zeros(2, 4, dtype=dtype))) is REFUSED


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(whole=integers, n=rows, how=layouts, bad=specials, seed=seeds, grad=modes)
@covers("Experts")
def test_experts(
    dtype: torch.dtype,
    whole: torch.dtype,
    n: int,
    size: str,
    how: str,
    bad: float | None,
    seed: int,
    grad: str,
) -> None:
    torch.manual_seed(seed)
    layer = moe.Experts(EXPERTS, 5, 3).to(dtype)
    x = laid_out(with_special(numbers((n, 5), dtype, size, seed), bad), how)
    experts = laid_out(torch.tensor([[3, 0]] * n).view(n, 2).to(whole), how)
    weights = torch.rand(n, 2)
    with mode(grad):
        output = outcome(lambda: layer(x, experts, weights))
    answers = []
    for place, e in enumerate((3, 0)):
        weight = Near.of(weights[:, place, None])
        with np.errstate(invalid="ignore"):
            answers.append(swiglu(Near.of(x), layer.gate_up[e], layer.down[e], weight))
    expected = answers[0].plus(answers[1]) if n else Near.of(x)
    check_layer(output, x, expected, bad)
    if output is not REFUSED and grad == "grad" and size not in ("large", "largest"):
        finite_gradient(output.sum(), layer.gate_up, layer.down)
    outside = outcome(lambda: layer(x, experts.long() + 2, weights))
    assert outside is REFUSED or not n


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_product_too_large_for_half_precision_meets_its_weight_first(dtype: torch.dtype) -> None:
    # Gate and up are 300 each and their product 90,000: float16 ends at 65,504.
    layer = moe.Experts(1, 1, 1).to(dtype)
    nn.init.constant_(layer.gate_up, 300.0)
    nn.init.ones_(layer.down)
    x = torch.ones(1, 1, dtype=dtype, requires_grad=True)
    weights = torch.full((1, 1), 1e-2, requires_grad=True)
    output = layer(x, torch.zeros(1, 1, dtype=torch.int64), weights)
    assert output.item() == pytest.approx(900, rel=4 * unit(dtype))
    tiny = layer(x, torch.zeros(1, 1, dtype=torch.int64), torch.full((1, 1), 1e-9))
    bound = 8 * unit(dtype) * 9e-5 + 2 * least(dtype)
    assert abs(tiny.item() - 9e-5) < bound  # 1e-9 is 0 in float16
    finite_gradient(output.sum(), weights)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(model=floats, n=rows, how=layouts, bad=specials, seed=seeds, grad=modes)
@covers("TopKRouter", "Routing")
def test_router(
    dtype: torch.dtype,
    model: torch.dtype,
    n: int,
    size: str,
    how: str,
    bad: float | None,
    seed: int,
    grad: str,
) -> None:
    torch.manual_seed(seed)
    router = TopKRouter(5, 6, 2, n_groups=3, topk_groups=2).to(model)
    router.expert_bias.copy_(torch.rand(6) - 0.5)
    x = laid_out(with_special(numbers((n, 5), dtype, size, seed), bad), how)
    with mode(grad):
        routing = outcome(lambda: router(x))
    logits = outcome(lambda: moe.router_logits(x, router.weight))
    assert (routing is REFUSED) == (logits is REFUSED)
    if routing is REFUSED:
        return
    scores = moe.expert_scores(logits)
    biased = scores.detach() + router.expert_bias.to(scores.dtype)
    experts = moe.select_experts(biased, 2, 3, 2)
    for ours, expected in zip(
        routing, (moe.gate_weights(scores, experts), experts, scores), strict=True
    ):
        assert torch.equal(ours, expected)
    if grad == "grad" and size not in ("large", "largest"):
        finite_gradient(routing.weights[:, 0].sum() + routing.scores.sum(), router.weight)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(whole=integers, n=rows, how=layouts, bad=specials, seed=seeds, grad=modes)
@covers("HashRouter", "hash_table", "route")
def test_hash_router(
    dtype: torch.dtype,
    whole: torch.dtype,
    n: int,
    size: str,
    how: str,
    bad: float | None,
    seed: int,
    grad: str,
) -> None:
    torch.manual_seed(seed)
    counts = torch.tensor([9, 0, 4, 4, 1]).to(whole)
    table = moe.hash_table(laid_out(counts, how), EXPERTS, 2, seed=seed)
    assert torch.equal(table, moe.hash_table(counts.long(), EXPERTS, 2, seed=seed))
    router = moe.HashRouter(5, EXPERTS, table).to(dtype)
    x = laid_out(with_special(numbers((n, 5), dtype, size, seed), bad), how)
    tokens = laid_out(torch.arange(n).remainder(5).to(whole), how)
    with mode(grad):
        routing = outcome(lambda: moe.route(router, x, tokens))
    logits = outcome(lambda: moe.router_logits(x, router.weight))
    assert (routing is REFUSED) == (logits is REFUSED)
    if routing is REFUSED:
        return
    assert torch.equal(routing.experts, table[tokens.long()])
    assert torch.equal(routing.scores, moe.expert_scores(logits))
    assert torch.equal(routing.weights, moe.gate_weights(routing.scores, routing.experts))
    if grad == "grad" and size not in ("large", "largest"):
        finite_gradient(routing.weights[:, 0].sum() + routing.scores.sum(), router.weight)


@pytest.mark.parametrize("dtype", FLOATS)
@edges
@given(
    shape=st.sampled_from([(0,), (0, 3), (2, 0), (3,), (2, 2)]), how=layouts, seed=seeds, grad=modes
)
@covers("MoE", "MixtureOutput")
def test_mixture(
    dtype: torch.dtype, shape: tuple[int, ...], how: str, seed: int, grad: str
) -> None:
    torch.manual_seed(seed)
    layer: Any = MoE(TopKRouter(5, EXPERTS, 2), moe.Experts(EXPERTS, 5, 3), moe.SwiGLU(5, 3))
    layer = layer.to(dtype)
    x = laid_out(numbers((*shape, 5), dtype, "one", seed), how)
    with mode(grad):
        output, routing = layer(x)
    assert output.shape == x.shape
    assert output.dtype == dtype
    parts = layer.experts(x.reshape(-1, 5), routing.experts, routing.weights).reshape(x.shape)
    assert torch.equal(output, parts + layer.shared(x))
    if grad == "grad":
        finite_gradient(output.sum(), layer.experts.gate_up)
    for other in FLOATS:
        assert (outcome(lambda: layer(x.to(other))) is REFUSED) or other == dtype  # noqa: B023
    assert outcome(lambda: layer(torch.zeros(2, 4, dtype=dtype))) is REFUSED
    assert outcome(lambda: layer(torch.zeros((), dtype=dtype))) is REFUSED


def test_answers_that_overflow_together_are_named() -> None:
    layer: Any = MoE(TopKRouter(1, 1, 1), moe.Experts(1, 1, 1), moe.SwiGLU(1, 1)).half()
    for weight in (layer.experts.gate_up, layer.shared.gate_up.weight):
        nn.init.constant_(weight, 16.0)
    for weight in (layer.experts.down, layer.shared.down.weight):
        nn.init.constant_(weight, 160.0)
    with pytest.raises(ValueError, match=r"float16 is not finite with \|x\| up to 1: it overflows"):
        layer(torch.ones(1, 1).half())


def test_a_layer_that_is_used_twice_gets_both_gradients() -> None:
    torch.manual_seed(0)
    experts, router = moe.Experts(EXPERTS, 5, 3), TopKRouter(5, EXPERTS, 2)
    first, second = MoE(router, experts), MoE(router, experts)
    apart, others = copy.deepcopy(first), copy.deepcopy(first)
    x, y = torch.randn(3, 5), torch.randn(4, 5)
    (first(x).output.sum() + second(y).output.sum()).backward()
    (apart(x).output.sum() + others(y).output.sum()).backward()
    for name, parameter in first.named_parameters():
        one, other = apart.get_parameter(name).grad, others.get_parameter(name).grad
        assert one is not None
        assert other is not None
        assert parameter.grad is not None
        bound = 2 * unit(torch.float32) * (one.abs() + other.abs()).max().item()
        assert_near(parameter.grad, exact(one) + exact(other), bound)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_default_type_changes_nothing_else(dtype: torch.dtype) -> None:
    logits, experts = torch.randn(3, EXPERTS), torch.tensor([[0, 1]] * 3)

    def everything() -> list[Tensor]:
        scores = moe.expert_scores(logits, "softmax")
        weights = moe.gate_weights(scores, experts)
        losses = [moe.load_balancing_loss(scores, experts, EXPERTS), moe.router_z_loss(logits)]
        losses.append(moe.sequence_balance_loss(scores[None], 2))
        return [scores, weights, *losses, *moe.expert_choice(logits, 2), torch.zeros(1)[:0]]

    before = everything()[:-1]
    with default_dtype(dtype):
        after = everything()[:-1]
        layer = MoE(TopKRouter(5, EXPERTS, 2), moe.Experts(EXPERTS, 5, 3), moe.SwiGLU(5, 3))
        assert layer(torch.randn(2, 5)).output.dtype == dtype
    for ours, expected in zip(after, before, strict=True):
        assert ours.dtype == expected.dtype
        assert torch.equal(ours, expected)


def test_what_was_made_in_inference_mode_can_be_learned_from() -> None:
    layer = MoE(TopKRouter(5, EXPERTS, 2), moe.Experts(EXPERTS, 5, 3), moe.SwiGLU(5, 3))
    with torch.inference_mode():
        x = torch.randn(3, 5)
        routing = layer(x).routing
    layer(x).output.sum().backward()
    layer.experts(x, routing.experts, routing.weights).sum().backward()
    layer.router(x).scores.sum().backward()
    moe.SwiGLU(5, 3)(x).sum().backward()
    weights = moe.gate_weights(layer.router(torch.randn(3, 5)).scores, routing.experts)
    torch.autograd.backward(weights.sum())


def test_every_public_name_is_looked_at() -> None:
    covers.check([moe], {})
    signatures = {name: getattr(moe, name) for name in moe.__all__}
    assert all(thing.__doc__ for thing in signatures.values() if inspect.isclass(thing))
