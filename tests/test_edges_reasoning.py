"""Models, training and its losses at the edges: types, ranges, zero rows, threads, modes."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
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
from slingshot import completions, corpus, distill, grpo, layers, lm, sampling, sizes, tasks, train
from slingshot.completions import Example
from slingshot.lm import DecoderLM, LMConfig, generate
from slingshot.tasks import ShellGame
from slingshot.train import TrainConfig

covers = Cover()
edges = settings(derandomize=True, deadline=None, max_examples=8)
rows = st.sampled_from([0, 1, 3])
TASK = ShellGame(swaps=(1, 2), longest=2)
SMALL = LMConfig(TASK.vocabulary_size, 8, 2, 2, 8, n_kv_heads=1)
MIXTURE = LMConfig(
    TASK.vocabulary_size,
    8,
    2,
    2,
    8,
    experts=sizes.ExpertConfig(n_routed=4, n_shared=1, top_k=2, d_expert=4),
    tied_embedding=True,
)
ONE_STEP = TrainConfig(1, batch_size=2, sequence_length=4, warmup=0)


def make_model(config: LMConfig = SMALL, dtype: torch.dtype = torch.float32) -> DecoderLM:
    torch.manual_seed(0)
    model = DecoderLM(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model.to(dtype)


def make_trace_config() -> grpo.GRPOConfig:
    return grpo.GRPOConfig(1, n_problems=2, n_rollouts=2, max_new_tokens=3)


# --- the objective of GRPO -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, torch.bool])
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(
    n=rows,
    how=layouts,
    bad=specials,
    seed=seeds,
    scale=st.sampled_from(["group", "none"]),
    eps=st.sampled_from([0.0, 1e-4]),
)
@covers("group_advantages", "all_equal")
def test_advantages(
    dtype: torch.dtype,
    n: int,
    size: str,
    how: str,
    bad: float | None,
    seed: int,
    scale: grpo.Scale,
    eps: float,
) -> None:
    if dtype in FLOATS:
        drawn = with_special(numbers((n, 3), dtype, size, seed), bad)
    else:
        bad = None
        drawn = (numbers((n, 3), torch.float64, "one", seed) * 4).abs().to(dtype)
    rewards = laid_out(drawn, how)
    advantages = outcome(lambda: grpo.group_advantages(rewards, scale=scale, eps=eps))
    equal = outcome(lambda: grpo.all_equal(rewards))
    if bad is not None and n:
        assert advantages is REFUSED
        assert (equal is REFUSED) == math.isnan(bad)
        return
    assert equal.tolist() == [len(set(row)) == 1 for row in rewards.tolist()]
    c = torch.promote_types(dtype, torch.float32)
    r = exact(rewards)
    off = r - r.mean(axis=1, keepdims=True)
    if advantages is REFUSED:
        assert scale == "none"
        assert np.abs(off).max() > torch.finfo(c).max / 2
        return
    assert advantages.dtype == c
    # The mean is off by 4 roundings of the largest, and so is a difference from it.
    moved = 8 * unit(c) * np.abs(r).max(axis=1, keepdims=True)
    if scale == "none":
        assert_near(advantages, np.where(exact(equal)[:, None], 0, off), moved + least(c))
        return
    deviation = np.sqrt((off**2).sum(axis=1, keepdims=True) / 2) + eps
    spread = np.where(deviation > 0, deviation, 1)
    expected = np.where(exact(equal)[:, None], 0, off / spread)
    # |off / deviation| is at most 2; both numerator and denominator move.
    bound = 4 * (moved + 2 * least(c)) / spread + 16 * unit(c) * np.abs(expected)
    assert_near(advantages, expected, np.where(exact(equal)[:, None], 0, bound + least(c)))


def test_integers_that_float32_does_not_hold_are_named() -> None:
    rewards = torch.tensor([[2**24, 2**24 + 1]])
    with pytest.raises(ValueError, match=r"16777217; float32 .* with .double\(\)"):
        grpo.group_advantages(rewards)
    assert grpo.group_advantages(rewards.double(), scale="none").tolist() == [[-0.5, 0.5]]


DIFFERENCES = (0.0, 0.1, -0.1, 0.5, -3.0, 88.0, -88.0, 100.0, 1e4, -1e4)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("apart", DIFFERENCES)
@edges
@given(other=floats, n=rows, how=layouts, bad=specials, kind=st.sampled_from(["k1", "k2", "k3"]))
@covers("kl_estimate")
def test_kl_estimate(
    dtype: torch.dtype,
    other: torch.dtype,
    n: int,
    apart: float,
    how: str,
    bad: float | None,
    kind: grpo.KL,
) -> None:
    log_p = laid_out(with_special(numbers((n, 3), dtype), bad), how).requires_grad_()
    log_ref = laid_out((log_p.detach() + apart).to(other), how)
    estimate = outcome(lambda: grpo.kl_estimate(log_p, log_ref, kind))
    if bad is not None and n:
        assert estimate is REFUSED
        return
    c = torch.promote_types(torch.promote_types(dtype, other), torch.float32)
    x = exact(log_ref) - exact(log_p)
    if estimate is REFUSED:
        largest = {"k1": np.abs(x), "k2": x**2 / 2, "k3": np.exp(np.minimum(x, 1e3))}[kind].max()
        assert largest > min(float(torch.finfo(t).max) for t in (dtype, c)) / 2
        return
    slope = unit(c) * np.abs(x)  # how far x itself is off
    if kind == "k3":
        expected = np.expm1(x) - x
        bound = slope * (np.exp(x) + 1) + 4 * unit(c) * (np.abs(np.expm1(x)) + np.abs(x))
    else:
        expected = -x if kind == "k1" else x**2 / 2
        bound = 4 * unit(c) * (np.abs(x) if kind == "k1" else x**2)
    assert estimate.dtype == c
    assert_near(estimate, expected, bound)
    (gradient,) = torch.autograd.grad(estimate.sum(), log_p)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
@edges
@given(other=floats, n=rows, bad=specials, how=layouts, seed=seeds)
@covers("clipped")
def test_clipped(
    dtype: torch.dtype, other: torch.dtype, n: int, bad: float | None, how: str, seed: int
) -> None:
    ratio = numbers((n, 3), torch.float64, "one", seed).abs() * 2
    ratio = ratio.to(dtype) if dtype in INTEGERS else with_special(ratio.to(dtype), bad)
    ratio = laid_out(ratio, how)
    advantages = numbers((n, 1), other, "one", seed + 1)
    cut = outcome(lambda: grpo.clipped(ratio, advantages))
    assert (cut is REFUSED) == bool(ratio.isnan().any())
    if cut is not REFUSED:
        # Ends in float32 are those that torch compares with, 0.8 and 1.2 rounded.
        r, a = exact(ratio), exact(advantages)
        low, high = (np.longdouble(np.float32(x)) for x in (0.8, 1.2))
        if ratio.dtype == torch.float64:
            low, high = np.longdouble(1 - 0.2), np.longdouble(1.2)
        assert (cut.numpy() == (((r > high) & (a > 0)) | ((r < low) & (a < 0)))).all()
    for wrong in (torch.ones(2, 2), torch.ones(4), torch.ones(1, 1, 1)):
        assert outcome(lambda: grpo.clipped(torch.ones(2, 3), wrong)) is REFUSED  # noqa: B023


variants = st.sampled_from(["paper", "dapo", "dr_grpo"])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(n=rows, how=layouts, bad=specials, seed=seeds, variant=variants, all_=st.booleans())
@covers("aggregate")
def test_aggregate(
    dtype: torch.dtype,
    n: int,
    size: str,
    how: str,
    bad: float | None,
    seed: int,
    variant: grpo.Variant,
    all_: bool,
) -> None:
    values = laid_out(with_special(numbers((n, 3), dtype, size, seed), bad), how)
    mask = torch.rand(n, 3) < (2.0 if all_ else 0.5)
    leaf = values.clone().requires_grad_()
    total = outcome(lambda: grpo.aggregate(leaf, mask, variant, 5))
    c, m = computed(dtype), exact(mask)
    v = np.where(m > 0, exact(values), 0)
    if not np.isfinite(v).all():
        assert total is REFUSED
        return
    counts = np.maximum(1, m.sum(axis=1))
    if total is REFUSED:
        assert np.abs(v).sum() > torch.finfo(c).max / 2
        return
    n_rows = max(1, n)
    divisor = {"paper": n_rows * counts[:, None], "dapo": max(1, m.sum()), "dr_grpo": n_rows * 5}
    terms = v / divisor[variant]
    bound = (3 * n + 6) * unit(c) * np.abs(terms).sum() + 9 * least(c)
    assert total.dtype == c
    assert_near(total, terms.sum(), bound)
    (gradient,) = torch.autograd.grad(total, leaf)
    assert bool((gradient[~mask] == 0).all())
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_long_sums_do_not_round_at_every_step(dtype: torch.dtype) -> None:
    # 70,000 ones are more than float16 holds, and 256 is the last that bfloat16 counts to.
    values = torch.ones(1, 70_000, dtype=dtype)
    mask = torch.ones_like(values, dtype=torch.bool)
    for variant in ("paper", "dapo"):
        assert grpo.aggregate(values, mask, variant) == 1
    assert grpo.aggregate(values, mask, "dr_grpo", 1) == 70_000
    logits = torch.zeros(70_000, 2, dtype=dtype)
    targets = torch.zeros(70_000, dtype=torch.int64)
    loss = distill.hinton_loss(logits, logits, targets, alpha=0.0)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)


advantages_of_a_row = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("apart", DIFFERENCES)
@edges
@given(
    other=floats,
    worth=advantages_of_a_row,
    how=layouts,
    variant=variants,
    seen=st.booleans(),
    grad=modes,
)
@covers("grpo_loss")
def test_grpo_loss_at_any_ratio(
    dtype: torch.dtype,
    other: torch.dtype,
    apart: float,
    worth: float,
    how: str,
    variant: grpo.Variant,
    seen: bool,
    grad: str,
) -> None:
    first = numbers((2, 3), dtype)
    with mode(grad):
        leaf = laid_out(first, how).clone().requires_grad_(grad == "grad")
        log_old = laid_out((first - apart).to(other), how)
        advantages = torch.tensor([worth, 1.0]).to(other)
        mask = torch.tensor([[seen, True, False], [True, True, True]])
        loss = outcome(
            lambda: grpo.grpo_loss(
                leaf, advantages, mask, log_old=log_old, variant=variant, max_length=4
            )
        )
    c = torch.promote_types(torch.promote_types(dtype, other), torch.float32)
    moved = exact(first) - exact(log_old)
    a, m = exact(advantages)[:, None], exact(mask)
    with np.errstate(over="ignore"):
        ratio = np.exp(moved)
    gain = np.minimum(np.where(a == 0, 0, ratio) * a, np.clip(ratio, 0.8, 1.2) * a)
    gain = np.where(m > 0, gain, 0)
    if loss is REFUSED:
        assert np.abs(gain).max() > min(float(torch.finfo(t).max) for t in (dtype, c)) / 4
        return
    divisor = {"paper": 2 * m.sum(axis=1, keepdims=True), "dapo": m.sum(), "dr_grpo": 8}[variant]
    # exp turns a rounding of its argument into a share of its value.
    share = unit(c) * (np.abs(moved) + 12) + 2 * unit(c)
    bound = (np.abs(gain) * share / divisor).sum() + 9 * least(c)
    assert_near(loss, -(gain / divisor).sum(), bound)
    if grad != "grad":
        return
    (gradient,) = torch.autograd.grad(loss, leaf)
    free = np.where(a >= 0, ratio <= 1.2, ratio >= 0.8) & (a != 0) & (m > 0)
    near_end = (np.abs(ratio - 1.2) < 1e-3) | (np.abs(ratio - 0.8) < 1e-3)
    expected = np.where(free, -a * ratio / divisor, 0)
    clear = ~near_end
    assert bool(gradient.isfinite().all())
    off = np.abs(exact(gradient) - expected)
    allowed = np.abs(expected) * (share + unit(dtype)) + least(dtype)
    assert (off <= allowed)[clear].all()


@pytest.mark.parametrize("worth", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("old", [-100.0, -1e4, -math.inf])
def test_a_ratio_that_overflows(worth: float, old: float) -> None:
    log_p = torch.tensor([[-0.5]], requires_grad=True)

    def loss(mask: bool = True) -> Tensor:
        masks, olds = torch.tensor([[mask]]), torch.tensor([[old]])
        return grpo.grpo_loss(log_p, torch.tensor([worth]), masks, log_old=olds)

    if worth < 0:
        told = (
            r"token \[0, 0\] overflows: its log_p is -0.5, log_old (-inf|-100|-1e\+04), and its adv"
        )
        with pytest.raises(ValueError, match=told):
            loss()
    else:
        torch.autograd.backward(loss())
        assert loss().item() == pytest.approx(-1.2 * worth)
        assert log_p.grad is not None
        assert log_p.grad.item() == 0
    assert loss(mask=False).item() == 0


def test_an_advantage_that_overflows_is_named_whatever_its_sign() -> None:
    log_p, mask = torch.zeros(3, 2), torch.ones(3, 2, dtype=torch.bool)
    log_old = log_p.clone()
    log_old[2, 1] = -0.1
    for worth in (3.4e38, -3.4e38):
        advantages = torch.tensor([1.0, -1.0, worth])
        with pytest.raises(ValueError, match=r"token \[2, 1\] .* advantage -?3.4e\+38; make"):
            grpo.grpo_loss(log_p, advantages, mask, log_old=log_old)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0), (2, 3)])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("variant", ["paper", "dapo", "dr_grpo"])
def test_no_answers_and_no_tokens_give_no_loss(
    shape: tuple[int, int], dtype: torch.dtype, variant: grpo.Variant
) -> None:
    log_p = torch.zeros(shape, dtype=dtype, requires_grad=True)
    mask = torch.zeros(shape, dtype=torch.bool)
    loss = grpo.grpo_loss(
        log_p, torch.ones(shape[0]), mask, variant=variant, max_length=3, beta=0.1, log_ref=log_p
    )
    (gradient,) = torch.autograd.grad(loss, log_p)
    assert loss.item() == 0
    assert gradient.shape == shape
    assert not gradient.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["advantages", "log_p", "log_old", "log_ref"])
def test_what_is_no_number_is_named_unless_it_is_masked(bad: float, where: str) -> None:
    values: dict[str, Any] = {name: torch.zeros(2, 2) for name in ("log_p", "log_old", "log_ref")}
    values["advantages"] = torch.tensor([-1.0, 1.0])
    mask = torch.ones(2, 2, dtype=torch.bool)
    values[where].view(-1)[0] = bad

    def loss() -> Tensor:
        return grpo.grpo_loss(mask=mask, beta=0.1, **values)

    assert outcome(loss) is REFUSED or (where == "log_old" and bad == math.inf)  # a ratio of 0
    if where != "advantages":
        mask[0, 0] = False
        assert loss().isfinite()


# --- distillation ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(
    other=floats,
    whole=st.sampled_from([*INTEGERS, torch.bool, torch.float32]),
    n=rows,
    how=layouts,
    bad=specials,
    seed=seeds,
    alpha=st.sampled_from([0.0, 0.5, 1.0]),
)
@covers("hinton_loss")
def test_hinton_loss(
    dtype: torch.dtype,
    other: torch.dtype,
    whole: torch.dtype,
    n: int,
    size: str,
    how: str,
    bad: float | None,
    seed: int,
    alpha: float,
) -> None:
    logits = laid_out(numbers((n, 4), dtype, size, seed), how).clone().requires_grad_()
    soft = laid_out(with_special(numbers((n, 4), other, size, seed + 1), bad), how)
    targets = laid_out(torch.tensor([3, 0, 3])[:n].to(whole), how)
    loss = outcome(lambda: distill.hinton_loss(logits, soft, targets, temperature=2.0, alpha=alpha))
    if not n or whole not in INTEGERS:
        assert loss is REFUSED
        return
    if bad is not None and bad != -math.inf and alpha:
        assert loss is REFUSED
        return
    # Each side is computed in its own type, at least float32: the narrower one rounds more.
    c = max(computed(dtype), computed(other), key=unit)

    def log_softmax(x: Any) -> Any:  # noqa: ANN401
        x = x - x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    x, t = exact(logits), exact(soft)
    hard = -np.take_along_axis(log_softmax(x), targets.long().numpy()[:, None], 1).mean()
    ours, theirs = log_softmax(x / 2), log_softmax(t / 2) if alpha else log_softmax(x / 2)
    p = np.exp(theirs)
    with np.errstate(invalid="ignore"):
        kl = np.where(p == 0, 0, p * (theirs - ours)).sum(axis=1).mean()
    expected = (1 - alpha) * hard + 4 * alpha * kl
    if loss is REFUSED:
        assert max(np.abs(x).max(), np.abs(t[np.isfinite(t)]).max()) > torch.finfo(c).max / 64
        return
    # Logits are off by roundings of themselves; p, at most 1, by as many shares of itself.
    size_of = np.abs(x).max() + np.abs(np.where(np.isfinite(t), t, 0)).max() + 8
    gap = np.abs(np.where(p == 0, 0, theirs - ours)).max()
    wide = unit(c) * size_of * 8
    assert_near(
        loss, expected, 4 * (wide + np.minimum(wide, 1) * gap) + 16 * unit(c) * abs(expected)
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@pytest.mark.parametrize("kind", get_args(distill.Divergence))
@edges
@given(other=floats, n=rows, how=layouts, bad=specials, seed=seeds)
@covers("token_divergence")
def test_token_divergence(
    dtype: torch.dtype,
    other: torch.dtype,
    kind: distill.Divergence,
    n: int,
    size: str,
    how: str,
    bad: float | None,
    seed: int,
) -> None:
    logits = laid_out(numbers((n, 4), dtype, size, seed), how).clone().requires_grad_()
    soft = laid_out(with_special(numbers((n, 4), other, size, seed + 1), bad), how)
    found = outcome(lambda: distill.token_divergence(logits, soft, kind))
    c = computed(dtype)

    def log_softmax(x: Any) -> Any:  # noqa: ANN401
        x = x - x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    def kl(p: Any, q: Any) -> Any:  # noqa: ANN401
        with np.errstate(invalid="ignore"):
            return np.where(np.exp(p) == 0, 0, np.exp(p) * (p - q)).sum(axis=1)

    x, t = exact(logits), exact(soft)
    with np.errstate(all="ignore"):
        p, q = log_softmax(x), log_softmax(t)
        m = np.logaddexp(p, q) - np.log(2)
        expected = {
            "reverse": kl(p, q),
            "forward": kl(q, p),
            "mixed": (kl(p, m) + kl(q, m)) / 2,
        }[kind]
    if found is REFUSED:
        wide = np.abs(x).max(initial=0) > torch.finfo(c).max / 64
        wide |= np.abs(t[np.isfinite(t)]).max(initial=0) > torch.finfo(c).max / 64
        wide |= np.nan_to_num(expected, nan=np.inf).max(initial=0) > torch.finfo(dtype).max / 2
        assert (bad is not None and n) or wide
        return
    assert found.shape == (n,)
    if not n:
        return
    # Logits are off by roundings of themselves; p, at most 1, by as many shares of itself.
    size_of = np.abs(x).max() + np.abs(np.where(np.isfinite(t), t, 0)).max() + 8
    gap = np.abs(np.where(np.isfinite(p - q), p - q, 0)).max()
    off = unit(c) * size_of * 8
    bound = 4 * (off + np.minimum(off, 1) * gap) + 16 * unit(c) * np.abs(expected)
    assert_near(found, expected, bound)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("target", [-100, -1, 3, 100])
def test_a_target_that_is_no_token_is_named(dtype: torch.dtype, target: int) -> None:
    if dtype == torch.uint8 and target < 0:
        target += 256
    with pytest.raises(ValueError, match=rf"target {target} is not within 0 to 2; give a token"):
        distill.hinton_loss(
            torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([target], dtype=dtype)
        )


def test_a_token_that_the_teacher_excludes_adds_nothing() -> None:
    logits = torch.randn(1, 3, requires_grad=True)
    teacher = torch.tensor([[0.0, -math.inf, 1.0]])
    loss = distill.hinton_loss(logits, teacher, torch.tensor([0]), temperature=1.0, alpha=1.0)
    p, q = teacher.softmax(dim=1)[0], logits.softmax(dim=1)[0]
    expected = sum(p[i] * (p[i] / q[i]).log() for i in (0, 2))
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient[0], q - p)
    excluded = torch.tensor([[0.0, 1.0, -math.inf]])
    for alpha in (0.5, 1.0):
        with pytest.raises(ValueError, match=r"logits\[0, 2\] is -inf; the student must find each"):
            distill.hinton_loss(excluded, teacher, torch.tensor([0]), alpha=alpha)
    assert distill.hinton_loss(excluded, teacher, torch.tensor([0]), alpha=0.0).isfinite()


# --- the model -------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, MIXTURE], ids=["dense", "mixture"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (1, 1), (2, 3)])
@covers("DecoderLM", "LMOutput", "LMConfig", "feed_forward")
def test_model_of_any_type(config: LMConfig, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    model = make_model(config, dtype)
    tokens = laid_out(torch.arange(shape[0] * shape[1]).view(shape), "transposed")
    logits = model(tokens).logits
    assert logits.dtype == dtype
    for whole in INTEGERS:
        assert torch.equal(model(tokens.to(whole)).logits, logits)
    logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    if dtype != torch.float64:
        # Each of some thirty operations on numbers up to 8 rounds once; their slopes are below 8.
        reference = make_model(config).to(dtype).double()(tokens).logits
        assert_near(logits, exact(reference), 30 * 8 * 8 * unit(dtype)) if config is SMALL else None
    for wrong in (tokens.bool(), tokens.float(), tokens.flatten(), tokens - 1, tokens + 99):
        assert outcome(lambda: model(wrong)) is REFUSED or (0 in shape and wrong.ndim == 2)  # noqa: B023


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e20, 3e38])
def test_weights_that_have_diverged_are_named(value: float) -> None:
    model = make_model()
    with torch.no_grad():
        model.embedding.weight[3] = value
    for call in (
        lambda: model(torch.tensor([[1, 3]])),
        lambda: generate(model, [torch.tensor([1, 3])], max_new_tokens=2),
        lambda: train.token_losses(model, torch.tensor([1, 3, 1])),
        lambda: completions.token_log_probs(model, [torch.tensor([1, 3, 1])], [1]),
    ):
        with pytest.raises(ValueError, match="diverged"):
            call()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", MAGNITUDES)
@edges
@given(n=rows, how=layouts, bad=specials, seed=seeds)
@covers("SquaredReLU", "Layer")
def test_layers(
    dtype: torch.dtype, n: int, size: str, how: str, bad: float | None, seed: int
) -> None:
    model = make_model(SMALL, dtype)
    layer: Any = model.layers[0]
    network = layers.SquaredReLU(8, 3).to(dtype)
    x = laid_out(with_special(numbers((2, n, 8), dtype, size, seed), bad), how)
    rotation = model.rotations(n)
    for call in (
        lambda: network(x),
        lambda: layer.attention(x, rotation),
        lambda: layer(x, rotation)[0],
    ):
        output = outcome(call)
        if output is REFUSED:
            assert n
            assert bad is not None or np.abs(exact(x)).max() > torch.finfo(dtype).max ** 0.5 / 1e3
        else:
            assert output.shape == x.shape
            assert output.dtype == dtype
            assert bool(output.isfinite().all())
            assert bad is None or not n
    looked_at = outcome(lambda: layer(x, rotation)[0])
    if looked_at is not REFUSED:  # RMSNorm would make zeros of what has too large squares
        squares = (exact(looked_at) ** 2).sum(axis=-1)
        assert (squares <= torch.finfo(computed(dtype)).max).all()
    for wrong in (x[..., :-1], x[0, 0] if n else x[0], *(x.to(o) for o in FLOATS if o != dtype)):
        assert outcome(lambda: layer(wrong, rotation)) is REFUSED  # noqa: B023
        assert outcome(lambda: layer.attention(wrong, rotation)) is REFUSED  # noqa: B023
        if wrong.shape[-1] != 8 or wrong.dtype != dtype:
            assert outcome(lambda: network(wrong)) is REFUSED  # noqa: B023


# --- generation ------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, MIXTURE], ids=["dense", "mixture"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1.0, 1e30])
@covers("generate")
def test_generation_of_any_type(config: LMConfig, dtype: torch.dtype, temperature: float) -> None:
    model = make_model(config, dtype)
    prompts = [torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])]

    def write(prompts: Sequence[Tensor] | Tensor, use_cache: bool = True) -> list[list[int]]:
        numbers_ = torch.Generator().manual_seed(3)
        outputs = generate(
            model,
            prompts,
            max_new_tokens=4,
            temperature=temperature,
            generator=numbers_,
            use_cache=use_cache,
        )
        assert all(output.dtype == torch.int64 for output in outputs)
        return [output.tolist() for output in outputs]

    first = write(prompts)
    for whole in INTEGERS:
        assert write([prompt.to(whole) for prompt in prompts]) == first
    assert write(torch.stack(prompts)) == first
    assert write(laid_out(torch.stack(prompts), "transposed")) == first
    assert write(tuple(laid_out(prompt, "sliced") for prompt in prompts)) == first
    if torch.finfo(dtype).bits >= 32 and temperature >= 1:  # less ties in half precision
        assert write(prompts, use_cache=False) == first
    with torch.no_grad():
        assert write(prompts) == first
    with torch.inference_mode():
        assert write([prompt.clone() for prompt in prompts]) == first


@pytest.mark.parametrize(
    "prompts",
    [
        [[1, 2]],
        [(1, 2)],
        [np.array([1, 2])],
        [[]],
        [1, 2],
        "12",
        torch.tensor([1, 2]),
        torch.tensor(1),
        torch.zeros(2, 0, dtype=torch.int64),
        torch.zeros(1, 1, 1, dtype=torch.int64),
        [torch.tensor([])],
        [torch.tensor([True])],
        [torch.tensor([1.0])],
        [torch.tensor([-1])],
        [torch.tensor([10**12])],
        [torch.tensor([255], dtype=torch.uint8)],
    ],
    ids=repr,
)
def test_prompts_that_cannot_be_read_are_named(prompts: Any) -> None:  # noqa: ANN401
    assert outcome(lambda: generate(make_model(), prompts, max_new_tokens=2)) is REFUSED
    assert generate(make_model(), torch.zeros(0, 3), max_new_tokens=2) == []


def test_a_batch_of_large_half_precision_logits_is_no_overflow() -> None:
    # Their sum is beyond float16, and none of them is.
    model = make_model(dtype=torch.float16)
    with torch.no_grad():
        model.head.weight.mul_(0).add_(3000.0)
        model.norm.weight.fill_(1.0)
        model.embedding.weight.fill_(1.0)
        for layer in model.layers:
            layer.attention.output.weight.zero_()  # type: ignore[operator, union-attr]
            layer.ffn.down.weight.zero_()  # type: ignore[operator, union-attr]
    outputs = generate(model, [torch.tensor([1])] * 8, max_new_tokens=2, temperature=1.0)
    assert [len(output) for output in outputs] == [2] * 8


class Dropping(nn.Module):
    """A head that drops half of everything while it trains, and may stop."""

    def __init__(self, head: nn.Module, stop: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.head, self.drop, self.stop = head, nn.Dropout(0.5), stop
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.stop()
        self.modes.append(self.training)
        answer: Tensor = self.drop(self.head(x))
        return answer


def state_of(model: nn.Module) -> list[Any]:
    return [
        (id(module), module.training, sorted(vars(module)), list(map(id, module.parameters())))
        for module in model.modules()
    ]


@pytest.mark.parametrize("measure", ["generate", "token_losses"])
@covers("in_eval_mode")
def test_threads_share_a_model_that_nobody_changes(measure: str) -> None:
    model = make_model()
    model.head = Dropping(model.head)  # type: ignore[assignment]
    model.train()
    model.layers[1].eval()
    before, wrong, results = state_of(model), [], []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if state_of(model) != before:
                wrong.append(1)

    def use() -> None:
        tokens = torch.arange(12)
        if measure == "generate":
            numbers_ = torch.Generator().manual_seed(1)
            (output,) = generate(model, [tokens], max_new_tokens=12, generator=numbers_)
            results.append(output.tolist())
        else:
            results.append(train.token_losses(model, tokens).tolist())
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()

    state = torch.get_rng_state()
    threads = [threading.Thread(target=use) for _ in range(4)]
    watcher = threading.Thread(target=watch)
    watcher.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert len(results) == 4
    assert all(result == results[0] for result in results)
    assert not wrong
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert set(model.head.modes) == {False}  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_model_that_was_interrupted_is_as_it_was(error: type[BaseException]) -> None:
    model = make_model()

    def stop() -> None:
        raise error

    model.head = Dropping(model.head, stop)  # type: ignore[assignment]
    model.train()
    model.layers[0].eval()
    before = state_of(model)
    for call in (
        lambda: generate(model, [torch.tensor([1])], max_new_tokens=2),
        lambda: train.token_losses(model, torch.tensor([1, 2])),
        lambda: grpo.train_grpo(model, TASK, TASK.verify, make_trace_config(), progress=False),
    ):
        with pytest.raises(error):
            call()
        assert state_of(model) == before
        assert torch.is_grad_enabled()


def test_a_module_that_two_names_share_stays_one() -> None:
    model = make_model().train()
    model.layers[1] = model.layers[0]
    twin = lm.in_eval_mode(model)
    assert twin is not model
    assert twin.layers[0] is twin.layers[1]
    assert not any(module.training for module in twin.modules())
    assert [id(p) for p in twin.parameters()] == [id(p) for p in model.parameters()]
    assert lm.in_eval_mode(model.eval()) is model


# --- training --------------------------------------------------------------------------------


def examples(whole: torch.dtype = torch.int64) -> list[Example]:
    return [Example(torch.tensor([1, 2], dtype=whole), torch.tensor([3, 0], dtype=whole))] * 2


TRAINING: dict[str, Callable[[DecoderLM], Any]] = {
    "fit": lambda model: train.fit(
        model,
        lambda batch: model(batch).logits.square().mean(),
        [torch.tensor([[1, 2]])],
        ONE_STEP,
        progress=False,
    ),
    "train_language_model": lambda model: train.train_language_model(
        model, torch.arange(20), ONE_STEP, progress=False
    ),
    "train_on_completions": lambda model: train.train_on_completions(
        model, examples(), ONE_STEP, progress=False
    ),
    "distill": lambda model: distill.distill(
        model,
        TASK,
        tasks.write_traces(TASK, 3, {"careful": 1.0}, generator=torch.Generator()),
        TrainConfig(1, batch_tokens=99),
        progress=False,
    ),
    "distill_logits": lambda model: distill.distill_logits(
        model,
        make_model(),
        TASK,
        tasks.write_traces(TASK, 3, {"careful": 1.0}, generator=torch.Generator()),
        TrainConfig(1, batch_tokens=99),
        progress=False,
    ),
    "distill_on_policy": lambda model: distill.distill_on_policy(
        model, make_model(), TASK, ONE_STEP, n_texts=2, max_new_tokens=3, progress=False
    ),
    "train_grpo": lambda model: grpo.train_grpo(
        model,
        TASK,
        lambda problem, text: float(len(text) % 7),
        make_trace_config(),
        reference=make_model(),
        progress=False,
    ),
}


@pytest.mark.parametrize("name", list(TRAINING))
@pytest.mark.parametrize("default", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("dtype", FLOATS)
@covers(
    *TRAINING, "History", "OnPolicyHistory", "GRPOHistory", "GRPOStep", "GRPOConfig", "TrainConfig"
)
def test_training_moves_weights_or_says_why_not(
    name: str, default: torch.dtype, dtype: torch.dtype
) -> None:
    with default_dtype(default):
        model = make_model(SMALL, dtype)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        history = outcome(lambda: TRAINING[name](model))
    after = list(model.parameters())
    assert all(parameter.dtype == dtype for parameter in after)
    assert (history is REFUSED) == (dtype == torch.float16)
    assert all(bool(parameter.isfinite().all()) for parameter in after)
    same = all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert same == (history is REFUSED)


@pytest.mark.parametrize("name", list(TRAINING))
@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_training_without_gradients_is_refused(name: str, off: Callable[[], Any]) -> None:
    model = make_model()
    before = model.head.weight.detach().clone()
    with off(), pytest.raises(ValueError, match="gradients are switched off; train outside of"):
        TRAINING[name](model)
    assert torch.equal(model.head.weight, before)
    with torch.inference_mode():
        unlearned = make_model()
    with pytest.raises(ValueError, match=r"made in inference_mode\(\); make it outside"):
        TRAINING[name](unlearned)


@pytest.mark.parametrize("whole", [*INTEGERS, torch.bool, torch.float32])
@covers("shuffled_windows", "token_losses", "Balancing", "balance_loss")
def test_text_of_any_type(whole: torch.dtype) -> None:
    tokens = torch.arange(20).to(whole)
    strided = laid_out(tokens, "sliced")
    model = make_model(MIXTURE)
    windows = outcome(lambda: next(train.shuffled_windows(strided, 4, 2, 0)))
    losses = outcome(lambda: train.token_losses(model, strided, length=4))
    balancing = train.Balancing("auxiliary", 0.1)
    trained = outcome(
        lambda: train.train_language_model(
            model, strided, ONE_STEP, balancing=balancing, progress=False
        )
    )
    refused = whole not in INTEGERS
    assert (windows is REFUSED) == (losses is REFUSED) == (trained is REFUSED) == refused
    if refused:
        return
    assert windows.dtype == torch.int64
    fresh = make_model(MIXTURE)
    assert torch.equal(losses, train.token_losses(fresh, torch.arange(20), length=4))
    # The last token is never read, only predicted.
    for outside in (-100, 99):
        spoiled = torch.tensor([1, 2, outside])
        assert outcome(lambda: train.token_losses(model, spoiled)) is REFUSED  # noqa: B023
        longer = torch.cat([torch.arange(8), spoiled[2:]])
        assert (
            outcome(
                lambda: train.train_language_model(model, longer, ONE_STEP, progress=False)  # noqa: B023
            )
            is REFUSED
        )


@pytest.mark.parametrize("dtype", FLOATS)
def test_losses_of_half_precision_are_float32(dtype: torch.dtype) -> None:
    model = make_model(SMALL, dtype)
    tokens = torch.arange(20)
    losses = train.token_losses(model, tokens)
    scored, _ = completions.token_log_probs(model, [tokens], [1])
    logits = model(tokens[None, :-1]).logits[0]
    assert losses.dtype == scored.dtype == computed(dtype)
    x = exact(logits)
    x = x - x.max(axis=1, keepdims=True)
    expected = np.log(np.exp(x).sum(axis=1)) - x[np.arange(19), tokens[1:].numpy()]
    bound = unit(computed(dtype)) * (4 * np.abs(x).max() + len(x) + 8)
    assert_near(losses, expected, bound)
    assert_near(scored[0], -expected, bound)


@pytest.mark.parametrize("method", ["auxiliary", "sequence"])
@pytest.mark.parametrize("default", FLOATS)
def test_balance_of_strided_scores(
    method: Literal["auxiliary", "sequence"], default: torch.dtype
) -> None:
    routings = make_model(MIXTURE)(torch.arange(12).view(2, 6)).routings
    balancing = train.Balancing(method, 1.0)
    expected = train.balance_loss(routings, balancing, 2)
    strided = [r._replace(scores=laid_out(r.scores, "transposed")) for r in routings]
    with default_dtype(default):
        loss = train.balance_loss(strided, balancing, 2)
        assert train.balance_loss([], balancing, 2).item() == 0
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    assert outcome(lambda: train.balance_loss(routings, balancing, 5)) is REFUSED
    empty = [r._replace(scores=r.scores[:0], experts=r.experts[:0]) for r in routings]
    assert outcome(lambda: train.balance_loss(empty, balancing, 2)) is REFUSED


@pytest.mark.parametrize("whole", [*INTEGERS, torch.bool, torch.float32])
@covers("completion_batches", "completion_logits", "completion_mask", "Example", "CompletionBatch")
@covers("checked", "learned_states")
def test_completions_of_any_type(whole: torch.dtype) -> None:
    batch = outcome(lambda: next(completions.completion_batches(examples(whole), 8, 0)))
    assert (batch is REFUSED) == (whole not in INTEGERS)
    if batch is REFUSED:
        return
    assert batch.tokens.dtype == torch.int64
    model = make_model(SMALL, torch.bfloat16)
    logits, targets = completions.completion_logits(model, batch)
    assert logits.dtype == torch.float32
    assert targets.tolist() == [3, 0, 3, 0]
    narrow = batch._replace(tokens=batch.tokens.to(whole))
    assert torch.equal(completions.completion_logits(model, narrow)[0], logits)
    states, same = completions.learned_states(model, narrow)
    assert torch.equal(same, targets)
    torch.testing.assert_close(model.head(states).float(), logits)
    for left, right in zip(completions.checked(model, narrow), batch, strict=True):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    nothing = batch._replace(learned=torch.zeros_like(batch.learned))
    assert completions.completion_logits(model, nothing)[0].shape == (0, TASK.vocabulary_size)
    for wrong in (
        batch._replace(learned=batch.learned.int()),
        batch._replace(learned=batch.learned[:, 1:]),
        batch._replace(tokens=batch.tokens + 99),
        batch._replace(tokens=torch.cat([batch.tokens[:, :-1], batch.tokens[:, -1:] - 100], dim=1)),
    ):
        assert outcome(lambda: completions.completion_logits(model, wrong)) is REFUSED  # noqa: B023
        assert outcome(lambda: completions.checked(model, wrong)) is REFUSED  # noqa: B023
        assert outcome(lambda: completions.learned_states(model, wrong)) is REFUSED  # noqa: B023


@pytest.mark.parametrize("default", FLOATS)
def test_the_order_of_examples_is_that_of_any_default_type(default: torch.dtype) -> None:
    many = [
        Example(torch.ones(300 + n % 7, dtype=torch.int64), torch.full((1,), n)) for n in range(60)
    ]

    def order() -> list[int]:
        source: Iterator[Any] = completions.completion_batches(many, 1000, 0)
        return [token for _ in range(20) for token in next(source).tokens[:, -1].tolist()]

    expected = order()
    with default_dtype(default):
        assert order() == expected


@covers("make_optimizers", "hidden_matrices")
def test_tied_matrices_are_moved_once() -> None:
    model = make_model(MIXTURE)
    assert not any(p is model.embedding.weight for p in train.hidden_matrices(model))
    both: Any = nn.Module()
    both.embedding, both.first, both.second = nn.Embedding(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    both.reader, both.out = nn.Linear(4, 4), nn.Linear(4, 4)
    both.second.weight = both.first.weight
    both.reader.weight = both.embedding.weight
    both.head = both.out
    assert [id(p) for p in train.hidden_matrices(both)] == [id(both.first.weight)]
    optimizers = train.make_optimizers(both, TrainConfig(1, muon_rate=0.1))
    moved = [id(p) for each in optimizers for group in each.param_groups for p in group["params"]]
    assert sorted(moved) == sorted(id(p) for p in both.parameters())
    with pytest.raises(ValueError, match=r"dtype torch.float16.*; train in float32 or bfloat16"):
        train.make_optimizers(both.half(), TrainConfig(1))


@pytest.mark.parametrize(
    "loss", [lambda model: torch.zeros(2, requires_grad=True), lambda model: torch.zeros(())]
)
def test_a_loss_that_teaches_nothing_is_named(loss: Callable[[nn.Module], Tensor]) -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"the loss has shape .*; return one number that depends"):
        train.fit(model, lambda batch: loss(model), [0], ONE_STEP, progress=False)


# --- the policy ------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [*INTEGERS, torch.bool, torch.float32])
@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16])
@covers("token_log_probs")
def test_log_probs_of_any_type(whole: torch.dtype, default: torch.dtype) -> None:
    model = make_model()
    sequences = [
        torch.tensor([1, 2, 3]).to(whole),
        laid_out(torch.tensor([4, 5]), "sliced").to(whole),
    ]
    with default_dtype(default):
        scored = outcome(lambda: completions.token_log_probs(model, sequences, [1, 1]))
        nothing, mask = completions.token_log_probs(model, [], [])
    assert nothing.dtype == torch.float32
    assert nothing.shape == mask.shape == (0, 0)
    assert (scored is REFUSED) == (whole not in INTEGERS)
    if scored is REFUSED:
        return
    longs, prompts = [s.long() for s in sequences], torch.tensor([1, 1])
    expected = completions.token_log_probs(model, longs, prompts)  # type: ignore[arg-type]
    assert torch.equal(scored[0], expected[0])
    # torch ignores a target of -100: it would be certain.
    for outside in (-100, 99):
        spoiled = [torch.tensor([1, outside])]
        assert outcome(lambda: completions.token_log_probs(model, spoiled, [1])) is REFUSED  # noqa: B023
    for wrong in ([[1, 2]], [torch.ones(1, 2).long()]):
        assert outcome(lambda: completions.token_log_probs(model, wrong, [1])) is REFUSED  # type: ignore[arg-type]  # noqa: B023


@pytest.mark.parametrize("default", FLOATS)
@covers("sample_rollouts", "Rollouts", "worth_learning", "sample_traces", "write_traces")
@covers("sample_answers", "Answer")
def test_what_is_drawn_is_that_of_any_default_type(default: torch.dtype) -> None:
    def draw() -> list[Any]:
        model = make_model().float()
        model.load_state_dict(weights)
        numbers_ = torch.Generator().manual_seed(0)
        state = torch.get_rng_state()
        rollouts = grpo.sample_rollouts(
            model, TASK, lambda problem, text: len(text) + 0.001, make_trace_config(), numbers_
        )
        kept, advantages = grpo.worth_learning(rollouts, make_trace_config())
        problems = [TASK.sample(numbers_) for _ in range(3)]
        traces = distill.sample_traces(model, TASK, problems, max_new_tokens=4, generator=numbers_)
        styles: Any = {"careful": 0.5, "skip": 5e-324}
        written = tasks.write_traces(TASK, 9, styles, slips=0.3, generator=numbers_)
        assert torch.equal(torch.get_rng_state(), state)
        assert rollouts.rewards.dtype == torch.float32
        return [
            rollouts.texts,
            rollouts.rewards.tolist(),
            kept,
            advantages.tolist(),
            traces,
            written,
        ]

    weights = make_model().state_dict()
    expected = draw()
    with default_dtype(default):
        assert draw() == expected


def test_what_was_made_in_inference_mode_can_be_learned_from() -> None:
    model = make_model()
    with torch.inference_mode():
        tokens = torch.arange(6)
        rewards = torch.tensor([[1.0, 2.0]])
        advantages = grpo.group_advantages(rewards)[0]
        log_old, mask = completions.token_log_probs(model, [tokens, tokens[1:]], [1, 2])
        teacher = model(tokens[None]).logits[0]
    model(tokens[None]).logits.sum().backward()
    log_p, _ = completions.token_log_probs(model, [tokens, tokens[1:]], [1, 2])
    loss = grpo.grpo_loss(
        log_p, advantages, mask, log_old=log_old, log_ref=log_old, beta=0.1, variant="dapo"
    )
    torch.autograd.backward(loss)
    logits = model(tokens[None]).logits[0]
    torch.autograd.backward(distill.hinton_loss(logits, teacher, tokens))
    logits = model(tokens[None]).logits[0]
    torch.autograd.backward(distill.token_divergence(logits, teacher).mean())
    distance = grpo.kl_estimate(model(tokens[None]).logits[0], teacher)
    torch.autograd.backward(distance.sum())
    longer = TrainConfig(1, batch_tokens=20)
    train.train_on_completions(model, [Example(tokens, tokens)], longer, progress=False)
    train.train_language_model(model, tokens.repeat(4), ONE_STEP, progress=False)


# --- tasks and text --------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [*INTEGERS, torch.bool, torch.float32])
@covers("StateTask", "ShellGame", "Walk", "encode_traces")
def test_tokens_of_any_type_are_decoded(whole: torch.dtype) -> None:
    for task in (ShellGame(), tasks.Walk()):
        tokens = task.encode(f"{task.words[2]} {task.words[5]} $")
        assert tokens.dtype == torch.int64
        text = outcome(lambda: task.decode(laid_out(tokens, "sliced").to(whole)))  # noqa: B023
        assert text == (f"= {task.words[5]} $" if whole in INTEGERS else REFUSED)
        for wrong in (torch.tensor([-1]), torch.tensor([120]), tokens[None], torch.tensor(1), [1]):
            assert outcome(lambda: task.decode(wrong)) is REFUSED  # type: ignore[arg-type]  # noqa: B023
        assert task.decode(task.encode("")) == ""
        with default_dtype(torch.float16):
            assert task.encode("").dtype == torch.int64
        assert distill.encode_traces(task, []) == []


@covers("ReasoningGym")
def test_bytes_are_decoded_or_named() -> None:
    gym = object.__new__(tasks.ReasoningGym)
    for whole in INTEGERS:
        assert gym.decode(torch.tensor([72, 105]).to(whole)) == "Hi"
    for wrong in ([256], [-1], [1.5], [[1]]):
        assert outcome(lambda: gym.decode(torch.tensor(wrong))) is REFUSED  # noqa: B023


@covers("encode", "train_tokenizer", "split_documents")
def test_text_becomes_int64_whatever_the_default_type() -> None:
    documents = [corpus.Document(str(n), "ab " * n) for n in range(60)]
    split = corpus.split_documents(documents)
    with default_dtype(torch.float16):
        tokenizer = corpus.train_tokenizer((d.text for d in documents), 260)
        tokens, numbers_ = corpus.encode(tokenizer, split.train[:1])
        assert corpus.encode(tokenizer, [corpus.Document("empty", "")])[0].tolist() == [0]
    assert tokens.dtype == numbers_.dtype == torch.int64
    tokenizer.add_special_tokens([])
    other = Tokenizer(models.BPE())
    with pytest.raises(ValueError, match=r"no token <\|endoftext\|>; take one of train_tokenizer"):
        corpus.encode(other, documents)


def test_negative_numbers_of_traces_are_named() -> None:
    with pytest.raises(ValueError, match="n is -1; give 0 or more traces"):
        tasks.write_traces(TASK, -1, {"careful": 1.0}, generator=torch.Generator())


def test_every_public_name_is_looked_at() -> None:
    covers.check(
        [layers, lm, completions, train, sampling, grpo, distill, tasks, corpus],
        {
            "SwiGLU": "test_edges_moe.py looks at it",
            "undrawn_linear": "takes sizes that its callers have checked",
            "draw": "fills weights that its callers have made",
            "deal": "takes lengths that its callers have counted",
            "padded": "distill_on_policy calls it with what it has sampled",
            "keep_verified": "takes and gives traces, which are text",
            "Problem": "holds text",
            "Trace": "holds text",
            "Opening": "holds text",
            "choose_tokens": "takes logits; generate and speculative_generate call it",
            "check_prompts": "generate and speculative_generate call it",
            "check_generation": "generate and speculative_generate call it",
            "attention_of": "takes sizes; the layers that it makes are looked at in edges_memory",
            "Task": "a protocol without code",
            "Document": "holds text",
            "Split": "holds text",
            "Corpus": "holds what encode gives",
            "load_corpus": "takes a size of vocabulary; encode makes its tensors",
            "standard_library": "gives text",
            "numpy_documentation": "gives text",
            "repeated_share": "takes text",
        },
    )
