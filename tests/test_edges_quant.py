"""Quantization at the edges: every dtype, range, shape, layout and mode, or a refusal that names.

What is drawn is checked against float64, within the bound that the docstrings derive. A refusal is
accepted only where the reference says that no float32 holds the answer.
"""

import copy
import inspect
import io
import math
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edges import default_dtype, tried
from slingshot.formats import BF16, E2M1, E4M3, E5M2, E8M0, FP16, FP32, FloatFormat
from slingshot.quant import (
    amx,
    blocks,
    few_rows,
    fp4,
    linear,
    matmul,
    outliers,
    packed,
    rounding,
    weight_only,
)
from slingshot.quant.blocks import (
    INT4,
    INT8,
    MXFP4,
    MXFP8,
    NVFP4,
    Block,
    Format,
    IntFormat,
    Quantized,
    Rule,
    Scale,
    Setting,
    quantize,
    quantize_unsigned_zero,
    rounded,
)
from slingshot.quant.fp4 import FP4Linear, FP4Recipe
from slingshot.quant.linear import (
    FP8Linear,
    Int8Linear,
    QuantizedLinear,
    replace_linears,
)
from slingshot.quant.matmul import accumulate, block_scaled_matmul, int8_matmul
from slingshot.quant.outliers import llm_int8_matmul, rotate, smooth
from slingshot.quant.weight_only import Int4WeightOnlyLinear, Int8WeightOnlyLinear

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
RANGES = ["ordinary", "largest", "smallest", "zeros", "wide"]
LAYOUTS = ["plain", "transposed", "sliced", "flipped", "expanded"]
FORMATS: list[Format] = [E4M3, E5M2, E2M1, FP16, BF16, FP32, INT8, INT4]
MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "with gradients": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}
LARGEST = torch.finfo(torch.float32).max
HALF_ULP = 2.0**-24
SUBNORMAL = 2.0**-149  # the spacing at the lower end of float32

EDGES = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def numbers(shape: tuple[int, ...], dtype: torch.dtype, span: str, seed: int) -> Tensor:
    """Random numbers of a dtype at one place of its range."""
    info = torch.finfo(dtype)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    chance = torch.rand(shape, generator=generator, dtype=torch.float64)
    if span == "largest":
        x = torch.where(chance < 0.5, x.sign() * info.max, x * info.max / 8)
    elif span == "smallest":
        x = x * info.smallest_normal * torch.where(chance < 0.5, 1.0, info.eps)
    elif span == "zeros":
        x = torch.where(chance < 0.7, x.sign() * 0.0, x)
    elif span == "wide":  # as many binades up as down, up to half of what the dtype has
        x = x * 2.0 ** ((chance - 0.5) * math.log2(info.max))
    return x.clamp(info.min, info.max).to(dtype)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same kind of matrix, ``[R, C]``, otherwise in memory."""
    if layout == "transposed":
        return x.T.contiguous().T
    if layout == "sliced":
        return torch.cat([x, x], 1)[:, : x.shape[1]].repeat_interleave(2, 0)[::2]
    if layout == "flipped":
        return x.flip(1)
    if layout == "expanded":
        return x[:1].expand(x.shape)
    return x


def double_scale(q: Quantized) -> Tensor:
    rows, columns = q.values.shape
    i, j = torch.arange(rows)[:, None] // q.block[0], torch.arange(columns) // q.block[1]
    return q.scale.double()[i, j]


def exact(q: Quantized) -> Tensor:
    return q.values.double() * double_scale(q)


def amax_by_block(x: Tensor, block: tuple[int, int]) -> Tensor:
    """By the definition: cut, then the largest."""
    rows = [x.double().abs()[i : i + block[0]] for i in range(0, x.shape[0], block[0])]
    cut = [[r[:, j : j + block[1]].max() for j in range(0, x.shape[1], block[1])] for r in rows]
    return torch.stack([torch.stack(row) for row in cut])


matrices = st.tuples(
    st.tuples(st.integers(1, 9), st.integers(1, 40)),
    st.sampled_from(DTYPES),
    st.sampled_from(RANGES),
    st.integers(0, 99),
)
defaults = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])
layouts, modes = st.sampled_from(LAYOUTS), st.sampled_from(list(MODES))


# --- blocks ------------------------------------------------------------------------------------


def scale_needed(x: Tensor, fmt: Format, scale: Scale, rule: Rule) -> float:
    """The largest scale that the formulas of the papers ask for."""
    largest = float(x.detach().double().abs().max())
    if scale == "none":
        return 1.0
    if scale == "e8m0":
        # Exact: frexp of Python's floats, and 0 has the smallest.
        mantissa, exponent = math.frexp(largest)
        top, e_max = math.frexp(fmt.max)
        return 2.0 ** (exponent - e_max + (rule == "ceil" and mantissa > top)) if largest else 0.0
    return largest / fmt.max / (448 if scale == "e4m3" else 1)


@EDGES
@given(
    matrices,
    layouts,
    modes,
    defaults,
    st.sampled_from(FORMATS),
    st.sampled_from(
        [(None, None), (1, None), (None, 1), (1, 16), (3, 7), (np.int32(2), np.int8(5))]
    ),
    st.sampled_from(["fp32", "e8m0", "e4m3", "none"]),
    st.sampled_from(["ceil", "floor"]),
    st.booleans(),
)
def test_a_block_is_off_by_its_bound_or_its_scale_is_named(
    drawn: tuple[tuple[int, int], torch.dtype, str, int],
    layout: str,
    mode: str,
    default: torch.dtype,
    fmt: Format,
    block: Block,
    scale: Scale,
    rule: Rule,
    grad: bool,
) -> None:
    x = laid_out(numbers(*drawn), layout).requires_grad_(grad)
    limit = 2.0**127 if scale == "e8m0" else LARGEST
    fits = scale_needed(x, fmt, scale, rule) <= limit
    with default_dtype(default), MODES[mode]():
        if not fits:
            with pytest.raises(ValueError, match=r"which in .* needs a scale of .*; divide x"):
                quantize(x, fmt, block, scale, rule)
            return
        q = quantize(x, fmt, block, scale, rule)
        back, bound = q.dequantize(), q.error_bound(x)
    x = x.detach()
    assert back.dtype == q.scale.dtype == (x.dtype if x.dtype == torch.float64 else torch.float32)
    assert q.scale.isfinite().all()
    assert (q.scale > 0).all()
    if isinstance(fmt, FloatFormat):
        np.testing.assert_array_equal(fmt.round(q.values.numpy()), q.values.numpy())
    # The bound, written again: half a step of the format at x / s, and float32's own rounding.
    size, s = x.double().abs(), double_scale(q)
    assert (
        ((back.double() - exact(q)).abs() <= HALF_ULP * exact(q).abs() + SUBNORMAL)
        .logical_or(exact(q).abs() > torch.finfo(back.dtype).max)
        .all()
    )
    u = 2.0 ** -(fmt.mantissa_bits + 1) if isinstance(fmt, FloatFormat) else 0.0
    step = fmt.min_subnormal if isinstance(fmt, FloatFormat) else 1.0
    own = torch.maximum(u / (1 + u) * size, step / 2 * s) + 4 * HALF_ULP * size + SUBNORMAL
    assert (bound <= own).all()
    saturates = size > s * fmt.max
    if scale == "fp32" or (scale == "e8m0" and rule == "ceil"):
        assert not (saturates & (size > s * fmt.max * (1 + 2 * HALF_ULP))).any()
    error = (back.double() - x.double()).abs()
    assert (error[~saturates] <= bound[~saturates]).all()
    assert (back.double().abs()[saturates] >= (s * fmt.max)[saturates] * (1 - HALF_ULP)).all()
    assert (q.values.double()[size == 0] == 0).all()
    # Half precision is computed with in float32, and the memory's order does not matter.
    plain = quantize(x.float() if x.dtype.itemsize == 2 else x.clone(), fmt, block, scale, rule)
    assert torch.equal(plain.values, q.values)
    assert torch.equal(plain.scale, q.scale)
    with default_dtype(default), MODES[mode]():
        assert torch.equal(
            rounded(x, fmt, block, scale), quantize(x, fmt, block, scale).dequantize()
        )
        other = quantize_unsigned_zero(x, fmt, block, scale)
    assert other.values.dtype == plain.values.dtype
    if rule == "ceil":
        assert torch.equal(other.dequantize(), plain.dequantize())


@pytest.mark.parametrize("span", RANGES)
def test_wide_formats_keep_float32_as_their_own_rounding_does(span: str) -> None:
    """FP32 has all of float32's digits, BF16 its whole range: no larger number can be added."""
    x = numbers((9, 40), torch.float32, span, 0)
    digits = [FloatFormat("digits", 5, bits, 15, "none") for bits in (21, 22, 23)]
    low = FloatFormat("low", 4, 2, 147, "none")  # its first binade is among float32's subnormals
    for fmt in (FP32, BF16, FP16, low, *digits):
        for call in (quantize, quantize_unsigned_zero):
            made = call(x, fmt, (1, 8), "none").values.numpy()
            np.testing.assert_array_equal(made, fmt.round(x.numpy(), saturate=True))
    assert torch.equal(rounded(x, FP32, (1, 8), "none"), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_what_rounds_up_beyond_float32_is_its_largest(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    x = torch.tensor([[info.max, info.min, info.max / 1.03, 0.0] * 4], dtype=dtype)
    for fmt in (E4M3, E5M2, E2M1, INT8, INT4):
        for scale in ("fp32", "e8m0", "e4m3"):
            q = quantize(x, fmt, (1, 8), scale)
            assert ((q.dequantize().double() - x.double()).abs() <= q.error_bound(x)).all()
            assert rounded(x, fmt, (1, 8), scale).isfinite().all()


def test_what_is_kept_follows_its_values_and_scales() -> None:
    q = quantize(torch.ones(4, 8), E4M3, (1, 4))
    assert (q.dequantized == 1).all()
    assert q.dequantized is q.dequantized
    assert q.by_column.shape == (2, 4, 4)
    q.scale.mul_(2)
    assert (q.dequantized == 2).all()
    q.values.zero_()
    assert (q.dequantized == 0).all()
    assert (q.by_column == 0).all()
    with pytest.raises(ValueError, match="8 columns are no multiple of the block's 3"):
        _ = quantize(torch.ones(4, 8), E4M3, (1, 3)).by_column
    with pytest.raises(ValueError, match=r"x has shape \(1, 8\); pass what was quantized"):
        q.error_bound(torch.ones(1, 8))


@pytest.mark.parametrize("bits", [np.int8(8), np.uint8(8), np.int32(8), 8])
def test_the_bits_of_integers_are_pythons(bits: int) -> None:
    assert IntFormat("A", bits).max == 127
    with pytest.raises(ValueError, match=r"A's bits is 7.5; give a whole number"):
        IntFormat("A", 7.5)  # type: ignore[arg-type]


def test_a_format_whose_numbers_are_small_names_the_scale() -> None:
    tiny = FloatFormat("tiny", 2, 1, 100, "none")
    for call in (quantize, rounded, quantize_unsigned_zero):
        with pytest.raises(ValueError, match=r"magnitude of x is 3e\+38, which in tiny needs"):
            call(torch.full((2, 2), 3e38), tiny, (1, 2), "fp32")


# --- products ----------------------------------------------------------------------------------

shapes = st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 7))
pairs = st.tuples(
    shapes,
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
    st.sampled_from(RANGES),
    st.sampled_from(RANGES),
    st.integers(0, 99),
)


def factors(drawn: tuple[Any, ...], layout: str) -> tuple[Tensor, Tensor]:
    (m, k, n), x_dtype, w_dtype, x_span, w_span, seed = drawn
    x, w = numbers((m, k), x_dtype, x_span, seed), numbers((n, k), w_dtype, w_span, seed + 100)
    return laid_out(x, layout), laid_out(w, layout)


def float32_holds(x: Tensor, w: Tensor) -> tuple[bool, bool]:
    """Whether float32 surely holds the sums of a product, and whether it surely does not."""
    sizes, sums = x.abs() @ w.abs().T, (x @ w.T).abs()
    return bool((sizes < LARGEST * 0.99).all()), not bool((sums < LARGEST * 1.01).all())


def check(
    call: Callable[[], Tensor], expected: Tensor, bound: Tensor, holds: bool, beyond: bool
) -> Tensor | None:
    """The result of ``call``, which may raise only where float32 might not hold it."""
    result = tried(call)
    if isinstance(result, ValueError):
        assert not holds, result
        assert ";" in str(result)
        return None
    assert not beyond
    assert isinstance(result, Tensor)
    assert ((result.double() - expected).abs() <= bound).all()
    return result


@EDGES
@given(pairs, layouts, modes, defaults, st.sampled_from([E4M3, E5M2, INT8]))
def test_a_block_scaled_product_is_that_of_its_factors(
    drawn: tuple[Any, ...], layout: str, mode: str, default: torch.dtype, fmt: Format
) -> None:
    x, w = factors(drawn, layout)
    try:
        a, b = quantize(x, fmt, (1, 8)), quantize(w, fmt, (4, 8))
    except ValueError:
        with pytest.raises(ValueError, match="needs a scale"):
            block_scaled_matmul(x, w, fmt, (1, 8), (4, 8))
        return
    terms = exact(a).abs() @ exact(b).abs().T
    bound = (x.shape[1] + 2) * HALF_ULP * terms + x.shape[1] * SUBNORMAL
    holds, beyond = float32_holds(exact(a), exact(b))
    if torch.float64 in (x.dtype, w.dtype):
        beyond = False
    with default_dtype(default), MODES[mode]():
        for left, right in ((x, w), (a, w), (x, b), (a, b), (a, b)):
            result = check(
                lambda le=left, r=right: block_scaled_matmul(le, r, fmt, (1, 8), (4, 8)),  # type: ignore[misc]
                exact(a) @ exact(b).T, bound, holds, beyond,
            )  # fmt: skip
            wide = torch.float64 in (x.dtype, w.dtype)
            assert result is None or result.dtype == (torch.float64 if wide else torch.float32)


@EDGES
@given(pairs, layouts, modes, defaults, st.sampled_from([6.0, np.float16(1.5), math.inf, 1e-30]))
def test_llm_int8_is_within_the_bound_of_its_two_parts(
    drawn: tuple[Any, ...], layout: str, mode: str, default: torch.dtype, threshold: float
) -> None:
    x, w = factors(drawn, layout)
    a, b = x.double(), w.double()
    if bool((a.abs() > LARGEST * 100).any() or (b.abs() > LARGEST * 100).any()):
        return  # float64 that no scale brings into range: the next test
    few = ~(a.abs() >= float(threshold)).any(0)
    s = (a[:, few].abs().amax(1, keepdim=True) / 127).clamp_min(2.0**-126) if few.any() else 0
    t = (b[:, few].abs().amax(1) / 127).clamp_min(2.0**-126) if few.any() else 0
    # The bound of `Int8Linear`, over the columns without an outlier; and float32's rounding.
    integers = t / 2 * a[:, few].abs().sum(1, keepdim=True) + s / 2 * b[:, few].abs().sum(1)
    integers = integers + int(few.sum()) * s * t / 4
    terms = a.abs() @ b.abs().T + integers
    k = x.shape[1]
    bound = integers * (1 + 1e-5) + (k + 4) * HALF_ULP * terms + k * SUBNORMAL
    with default_dtype(default), MODES[mode]():
        check(
            lambda: llm_int8_matmul(x, w, threshold), a @ b.T, bound,
            bool((terms < LARGEST * 0.99).all()), False,
        )  # fmt: skip


@EDGES
@given(pairs, layouts, modes, defaults, st.sampled_from([0, 0.25, np.float16(0.5), 1.0]))
def test_smoothing_leaves_every_product_of_two_elements(
    drawn: tuple[Any, ...], layout: str, mode: str, default: torch.dtype, alpha: float
) -> None:
    x, w = factors(drawn, layout)
    a, b = x.double(), w.double()
    both = (a.abs().amax(0) > 0) & (b.abs().amax(0) > 0)
    logs = [m.abs().amax(0)[both].log2() for m in (a, b)]
    both_logs = logs[0] + logs[1]
    made = [alpha * logs[0] - (1 - alpha) * logs[1], (1 - alpha) * both_logs, alpha * both_logs]
    wide = torch.float64 in (x.dtype, w.dtype)
    low, high = (-1022, 1024) if wide else (-126, 128)
    fits = all(low + 0.01 < m < high - 0.01 for column in made for m in column.tolist())
    with default_dtype(default), MODES[mode]():
        smoothed = tried(lambda: smooth(x, w, alpha))
    if isinstance(smoothed, ValueError):
        assert not fits, smoothed
        assert "a factor of" in str(smoothed)
        return
    smooth_x, smooth_w, s = smoothed
    info = torch.finfo(torch.float64 if wide else torch.float32)
    assert {m.dtype for m in (smooth_x, smooth_w, s)} == {torch.float64 if wide else torch.float32}
    assert s.isfinite().all()
    # Each of the two was rounded once, and so is each product here; s cancels.
    i, j = (m.double() for m in (smooth_x[:, None], smooth_w[None]))
    made, expected, tiny = i * j, a[:, None] * b[None], info.smallest_normal * info.eps
    allowed = (info.eps + 2.0**-52) * 1.01 * made.abs() + tiny * (i.abs() + j.abs() + 4)
    holds = made.isfinite() & expected.isfinite()  # float64 here holds not all products of float64
    assert ((made - expected).abs() <= allowed)[holds].all()


@EDGES
@given(
    st.tuples(st.integers(0, 9), st.integers(0, 40), st.integers(0, 7)),
    layouts,
    modes,
    defaults,
    st.booleans(),
    st.integers(0, 99),
)
def test_integer_products_are_exact_however_they_lie(
    shape: tuple[int, int, int],
    layout: str,
    mode: str,
    default: torch.dtype,
    native: bool,
    seed: int,
) -> None:
    m, k, n = shape
    generator = torch.Generator().manual_seed(seed)
    x, w = (torch.randint(-128, 128, (r, k), generator=generator, dtype=torch.int8) for r in (m, n))
    x, w = laid_out(x, layout), laid_out(w, layout)
    with pytest.MonkeyPatch.context() as patch, default_dtype(default), MODES[mode]():
        if not native:
            patch.setattr(matmul, "_int_mm_is_exact", lambda: False)
        product = int8_matmul(x, w)
    assert product.dtype == torch.int32
    assert torch.equal(product.long(), x.long() @ w.long().T)


@pytest.mark.parametrize("shape", [(17, 64, 40), (64, 128, 96), (1, 64, 16)], ids=str)
def test_native_integer_products_take_repeated_rows(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    one = torch.arange(k).remainder(100).to(torch.int8)[None]
    for x, w in ((one.expand(m, k), one.expand(n, k)), (one.repeat(m, 1), one.expand(n, k))):
        assert (int8_matmul(x, w) == (one.long() ** 2).sum()).all()


@EDGES
@given(
    pairs,
    layouts,
    modes,
    defaults,
    st.sampled_from([2, np.int8(14), 52]),
    st.sampled_from([None, 4, np.int32(8)]),
)
def test_a_short_accumulator_loses_what_its_bound_says(
    drawn: tuple[Any, ...], layout: str, mode: str, default: torch.dtype, bits: int,
    every: int | None,
) -> None:  # fmt: skip
    x, w = factors(drawn, layout)
    a, b = x.double(), w.double()
    terms = a.abs() @ b.abs().T
    steps = math.ceil(x.shape[1] / 4)
    # In each step 5 terms lose less than 2^(e+1-bits), and 2^e is at most the largest term or sum;
    # each of the sums in float32 rounds once.
    lost = steps * 5 * terms * 2.0 ** (1 - int(bits)) + (steps + 1) * HALF_ULP * terms
    bound = lost * (1 + 2.0**-20) + (steps + 1) * SUBNORMAL
    with default_dtype(default), MODES[mode]():
        result = check(
            lambda: accumulate(x, w, bits, every, group=4), a @ b.T, bound,
            bool((terms < LARGEST * 0.99).all()), not bool((terms < 1e300).all()),
        )  # fmt: skip
    assert result is None or result.dtype == torch.float32


def test_products_below_all_normal_numbers_are_zeros_and_no_nan() -> None:
    for size in (5e-324, 1e-310, 1e-160, 1e-30):
        x = torch.full((2, 70), size, dtype=torch.float64)
        for bits in (2, 14, 52):
            assert (accumulate(x, x, bits) == 0).all()
            one = torch.ones(2, 70, dtype=torch.float64)
            assert ((accumulate(x, one, bits) - 70 * size).abs() <= 70 * size + SUBNORMAL).all()


# --- layers ------------------------------------------------------------------------------------


def group_of(layer: nn.Linear) -> int | None:
    """32 where that is possible: with 33 inputs a byte holds one code, and there is one group."""
    return None if layer.in_features % 32 else 32


LAYERS: dict[str, Callable[[nn.Linear], Any]] = {
    "Int8Linear": Int8Linear.from_linear,
    "QuantizedLinear": lambda m: QuantizedLinear.from_linear(m, Setting(INT8, (1, None)), MXFP8),
    "QuantizedLinear, weight alone": lambda m: QuantizedLinear.from_linear(m, MXFP4),
    "QuantizedLinear, input alone": lambda m: QuantizedLinear.from_linear(m, None, NVFP4),
    "FP8Linear": FP8Linear.from_linear,
    "FP4Linear": lambda m: FP4Linear.from_linear(m, FP4Recipe(rotated=False)),
    "Int8WeightOnlyLinear": Int8WeightOnlyLinear.from_linear,
    "Int4WeightOnlyLinear": lambda m: Int4WeightOnlyLinear.from_linear(m, group_of(m)),
}
WEIGHT_ONLY = (Int8WeightOnlyLinear, Int4WeightOnlyLinear)
LEADING: list[tuple[int, ...]] = [(), (0,), (1,), (5,), (2, 3), (2, 0, 3), (1, 2, 3)]


def product_bound(layer: nn.Module, rows: Tensor, w: Tensor) -> Tensor:
    """How far a product may be off: half a step of each factor against the other one."""
    if isinstance(layer, QuantizedLinear):
        q = None if layer.x_setting is None else quantize(rows, *layer.x_setting)
        dx = torch.zeros(1).double() if q is None else (exact(q) - rows.double()).abs()
        dw = (layer.weight.double() - w).abs()
    elif isinstance(layer, WEIGHT_ONLY):
        dx = torch.zeros(1).double()
        dw = layer.scale.double().view(len(w), -1, 1) / 2 * (1 + 1e-5)
        dw = dw.expand(-1, -1, w.shape[1] // dw.shape[1]).flatten(1)
    elif isinstance(layer, FP8Linear):
        dx = (exact(quantize(rows.float(), E4M3, (1, 128))) - rows.double()).abs()
        dw = (exact(quantize(w.float(), E4M3, (128, 128))) - w).abs()
    elif isinstance(layer, FP4Linear):
        dx = (exact(quantize(rows.float(), *NVFP4)) - rows.double()).abs()
        dw = (exact(quantize(w.float(), *NVFP4._replace(block=(16, 16)))) - w).abs()
    else:
        dx = (rows.double().abs().amax(1, keepdim=True) / 254).clamp_min(2.0**-127) * (1 + 1e-5)
        dw = (w.abs().amax(1, keepdim=True) / 254) * (1 + 1e-5)
    dx, dw = dx.expand(rows.shape), dw.expand(w.shape)
    return dx @ w.abs().T + rows.double().abs() @ dw.T + dx @ dw.T


@EDGES
@given(
    st.sampled_from(list(LAYERS)),
    st.sampled_from(LEADING),
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
    st.sampled_from(["ordinary", "smallest", "zeros", "largest"]),
    st.sampled_from(["plain", "transposed", "flipped", "expanded"]),
    modes,
    defaults,
    st.booleans(),
)
def test_a_layer_is_within_its_bound_in_the_dtype_of_its_input(
    name: str,
    leading: tuple[int, ...],
    layer_dtype: torch.dtype,
    dtype: torch.dtype,
    span: str,
    layout: str,
    mode: str,
    default: torch.dtype,
    bias: bool,
) -> None:
    k, n, m = 33, 5, math.prod(leading)
    torch.manual_seed(0)
    full = nn.Linear(k, n, bias, dtype=layer_dtype)
    rows = laid_out(numbers((m, k), dtype, span, 1), layout if m else "plain")
    x = rows.reshape(*leading, k).requires_grad_(mode == "with gradients")
    w = full.weight.detach().double()
    with default_dtype(default), MODES[mode]():
        layer = LAYERS[name](full)
        output = tried(lambda: layer(x))
    terms = rows.detach().double().abs() @ w.abs().T + 1
    if isinstance(output, ValueError):
        # Three times the terms are more than rounded factors make; a scheme's sum may be beyond.
        assert not bool((3 * terms < LARGEST).all()), output
        assert ";" in str(output)
        return
    assert output.dtype == dtype
    assert output.shape == (*leading, n)
    if not m:
        return
    expected = rows.double() @ w.T + (full.bias.detach().double() if bias else 0)
    computed = torch.finfo(torch.float32).eps * (k + 4)
    if isinstance(layer, QuantizedLinear):
        x_dtype = dtype if layer.x_setting is None else torch.float32
        used = torch.promote_types(layer.weight.dtype, x_dtype)
        computed = torch.finfo(used).eps * (k + 4)
    if isinstance(layer, WEIGHT_ONLY):
        computed += 2 * torch.finfo(dtype).eps  # rounded after the product, the scale, the bias
    info = torch.finfo(dtype)
    bound = product_bound(layer, rows.detach(), w) * 1.001 + (computed + info.eps) * terms
    result = output.detach().double().reshape(m, n)
    fits = expected.abs() + bound < info.max
    assert ((result - expected).abs() <= bound)[fits].all()
    assert not result.isnan().any()


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fp4_gradients_have_the_dtype_of_what_they_belong_to(
    leading: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    layer = FP4Linear(33, 5, recipe=FP4Recipe(by_lot=False, rotated=False))
    x = torch.randn(*leading, 33).to(dtype).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert layer.bias is not None
    assert layer.bias.grad is not None
    assert (x.grad.dtype, layer.weight.grad.dtype) == (dtype, torch.float32)
    rows = x.detach().float().reshape(-1, 33)
    assert layer.bias.grad.tolist() == [len(rows)] * 5
    if not len(rows):
        assert (layer.weight.grad == 0).all()
        return
    # The gradient of the sum is ones, which NVFP4 holds but for the rounding of its scales.
    sums = exact(quantize(rows.T, *NVFP4)).sum(1)
    torch.testing.assert_close(layer.weight.grad.double(), sums.expand(5, 33), rtol=1e-5, atol=1e-5)
    kept = exact(quantize(layer.weight, *NVFP4._replace(block=(16, 16)))).sum(0)
    loose = 4 * torch.finfo(dtype).eps + 1e-5
    torch.testing.assert_close(
        x.grad.double().reshape(-1, 33), kept.expand(len(rows), 33), rtol=loose, atol=loose
    )


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fp8_gradients_have_the_dtype_of_what_they_belong_to(
    leading: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    layer = FP8Linear(33, 5)
    x = torch.randn(*leading, 33).to(dtype).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.bias is not None
    assert layer.weight.grad is not None
    assert x.grad.dtype == dtype
    rows = x.detach().double().reshape(-1, 33)
    # The gradient of the sum is ones, which E4M3 holds; so each is one sum of rounded factors.
    column = rows.abs().sum(0)
    off = (layer.weight.grad.double() - rows.sum(0)).abs()
    assert (off <= (2 / 17 + 1 / 17**2 + torch.finfo(dtype).eps * 8) * column + 1e-6).all()
    assert layer.bias.grad is not None
    assert layer.bias.grad.tolist() == [len(rows)] * 5
    if not len(rows):
        assert (layer.weight.grad == 0).all()


@pytest.mark.parametrize("kind", [FP8Linear, FP4Linear])
def test_layers_that_train_are_frozen_where_the_layer_was(
    kind: type[FP8Linear] | type[FP4Linear],
) -> None:
    frozen = nn.Linear(8, 4).requires_grad_(False)
    layer = kind.from_linear(frozen)
    assert not any(p.requires_grad for p in layer.parameters())
    x = torch.randn(3, 8, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    with default_dtype(torch.bfloat16):
        assert kind(8, 4).weight.dtype == torch.float32


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_layer_can_be_cast_copied_stored_loaded_and_changed(
    name: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    full, x = nn.Linear(32, 6), torch.randn(9, 32)
    layer = LAYERS[name](full)
    expected = layer(x)
    stored = io.BytesIO()
    torch.save(layer.state_dict(), stored)
    stored.seek(0)
    other = LAYERS[name](nn.Linear(32, 6))
    other(x)
    other.load_state_dict(torch.load(stored))
    for twin in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        other,
        layer.eval().train(),
    ):
        assert torch.equal(twin(x), expected)
    cast = copy.deepcopy(layer).to(dtype)
    # Weight, input and output may be rounded to the dtype. Then the scheme may round to the other
    # side: both are within its bound of the exact product, so apart by twice that at most.
    off = (cast(x.to(dtype)).double() - expected.double()).abs()
    eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    half = dtype in (torch.float16, torch.bfloat16)
    scheme = 2 * product_bound(layer, x, full.weight.detach().double()) if half else 0.0
    assert (off <= (x.abs() @ full.weight.abs().T + 1).detach() * eps * 36 + scheme).all()
    # Nothing that was packed or kept of the weight may be used when it has changed.
    assert isinstance(layer.weight, Tensor)
    with torch.no_grad():
        layer.weight.zero_()
        if isinstance(layer, Int4WeightOnlyLinear):
            layer.middle.zero_()
    assert (layer(x) == layer.bias).all()
    with torch.inference_mode():
        layer.weight.add_(1)
        one = layer(x)
    assert not torch.equal(one, layer.bias.expand(9, 6))
    zeros = torch.zeros_like(layer.weight)
    layer.weight = nn.Parameter(zeros) if isinstance(layer, nn.Linear) else zeros
    assert (layer(x) == layer.bias).all()


def test_int8_scales_stay_float32_and_weights_are_no_floats() -> None:
    small = nn.Linear(8, 4, bias=False)
    with torch.no_grad():
        small.weight.mul_(1e-8)
    layer = Int8Linear.from_linear(small)
    x = torch.randn(3, 8).half()
    assert layer.half().scale.dtype == torch.float32
    assert torch.equal(layer(x.float()), Int8Linear.from_linear(small)(x.float()))
    with pytest.raises(
        ValueError, match=r"weight has dtype torch.float32; load the state of the same"
    ):
        layer.load_state_dict(small.state_dict(), strict=False)


def test_layers_made_in_inference_mode_can_be_loaded_and_changed_outside() -> None:
    full, x = nn.Linear(32, 6), torch.randn(9, 32)
    for name, make in LAYERS.items():
        if name in ("FP8Linear", "FP4Linear"):
            continue  # their parameters are made by nn.Linear, as torch makes them there
        with torch.inference_mode():
            layer = make(full)
            layer(x)
        layer.load_state_dict(make(nn.Linear(32, 6)).state_dict())
        with torch.no_grad():
            layer.get_buffer("weight").zero_()
            if isinstance(layer, Int4WeightOnlyLinear):
                layer.middle.zero_()
        assert (layer(x) == layer.bias).all()


@EDGES
@given(
    st.sampled_from(["Int8WeightOnlyLinear", "Int4WeightOnlyLinear"]),
    st.tuples(st.integers(1, 14), st.sampled_from([16, 32, 48, 64, 96]), st.integers(1, 33)),
    st.sampled_from([None, 8, 32, 64]),
    layouts,
    modes,
    st.sampled_from(RANGES),
    st.booleans(),
)
def test_few_rows_are_within_the_bound_of_their_layer(
    name: str,
    shape: tuple[int, int, int],
    group: int | None,
    layout: str,
    mode: str,
    span: str,
    native: bool,
) -> None:
    """Sizes that the kernels take and sizes that they do not, against the dequantized weight."""
    m, k, n = shape
    n = n if n % 3 else 16 * (n // 3 + 1)  # often a multiple of 16
    torch.manual_seed(k)
    full = nn.Linear(k, n)
    if name == "Int8WeightOnlyLinear":
        layer: Any = Int8WeightOnlyLinear.from_linear(full)
    else:
        layer = Int4WeightOnlyLinear.from_linear(full, group if group and k % group == 0 else None)
    x = laid_out(numbers((m, k), torch.bfloat16, span, 3), layout)
    with pytest.MonkeyPatch.context() as patch, MODES[mode]():
        if not native:
            patch.setattr(few_rows, "_int8_is_right", lambda: False)
            patch.setattr(few_rows, "_int4_is_right", lambda: False)
        result = layer(x)
    w, bias = layer.dequantize().double(), full.bias.detach().double()
    terms, y = x.double().abs() @ w.abs().T, x.double() @ w.T
    bound = 2.0**-8 * (terms + 2 * y.abs() + (y + bias).abs() + bias.abs())
    bound = (bound + (k + 4) * HALF_ULP * (terms + bias.abs())) * 1.01 + 2.0**-126
    fits = terms + bias.abs() + bound < 0.99 * LARGEST
    assert result.dtype == torch.bfloat16
    assert ((result.double() - y - bias).abs() <= bound)[fits].all()


@given(st.integers(0, 5), st.integers(0, 9), st.integers(0, 99))
def test_a_byte_keeps_two_codes(n: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-8, 8, (n, k), generator=generator).to(torch.int8)
    packed = few_rows.pack_nibbles(codes)
    assert packed.shape == (n, (k + 1) // 2)
    assert torch.equal(few_rows.unpack_nibbles(packed, k), codes)


# --- models that share ---------------------------------------------------------------------------


class Twice(nn.Module):
    """One linear layer under two names, another in a block that has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = self.a
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ModuleList([self.a]))
        self.again = nn.ModuleDict({"block": self.block})

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.block[0](self.b(self.a(x)))
        return inner


@pytest.mark.parametrize("name", LAYERS)
def test_a_shared_layer_is_made_once_and_stays_shared(name: str) -> None:
    model, asked = Twice().eval(), []

    def make(name_of: str, full: nn.Linear) -> nn.Module:
        asked.append(name_of)
        layer: nn.Module = LAYERS[name](full)
        return layer

    twin = replace_linears(model, make)
    assert asked == ["a", "block.0"]
    assert type(twin.a) is type(LAYERS[name](nn.Linear(4, 4)))
    assert twin.a is twin.b is twin.get_submodule("block.1.0")
    assert twin.again["block"] is twin.block
    left = [m for m in twin.modules() if type(m) is nn.Linear]
    assert not left
    assert not any(m.training for m in twin.modules())
    assert type(model.a) is type(model.b) is nn.Linear
    copies = [copy.deepcopy(twin), pickle.loads(pickle.dumps(twin))]
    assert all(m.a is m.b for m in copies)


def test_a_tied_weight_that_is_replaced_stays_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 5)
            self.head, self.other = nn.Linear(5, 7, bias=False), nn.Linear(5, 7)
            self.head.weight = self.other.weight = self.embedding.weight

    twin = replace_linears(Tied(), lambda _, full: FP8Linear.from_linear(full))
    assert isinstance(twin.head, FP8Linear)
    assert twin.head.weight is twin.other.weight is twin.embedding.weight
    alone = nn.Sequential(nn.Linear(5, 7))
    twin_alone = replace_linears(alone, lambda _, full: FP8Linear.from_linear(full))
    assert twin_alone[0].weight is not alone[0].weight


def test_attention_that_reads_a_weight_alone_keeps_it() -> None:
    model = nn.ModuleList([nn.MultiheadAttention(8, 2), nn.Linear(8, 8)])
    twin = replace_linears(model, lambda _, full: Int8Linear.from_linear(full))
    assert isinstance(twin[1], Int8Linear)
    x = torch.randn(3, 1, 8)
    assert torch.equal(twin[0](x, x, x)[0], model[0](x, x, x)[0])


# --- rotation ----------------------------------------------------------------------------------


@EDGES
@given(matrices, layouts, modes, defaults, st.sampled_from([1, 2, 4]))
def test_a_rotation_is_off_by_the_rounding_of_its_sums(
    drawn: tuple[tuple[int, int], torch.dtype, str, int],
    layout: str,
    mode: str,
    default: torch.dtype,
    block: int,
) -> None:
    """Each sum of ``block`` terms rounds so often at most, and each term and √block once."""
    x = laid_out(numbers(*drawn), layout)
    x = x[:, : x.shape[1] // block * block]
    if not x.numel():
        return
    with default_dtype(default), MODES[mode]():
        back = rotate(rotate(x, block), block)
    wide = x.double().reshape(len(x), -1, block)
    sums = wide.abs().sum(-1, keepdim=True).expand_as(wide).flatten(1)
    eps = 2.0**-52 if x.dtype == torch.float64 else 2.0**-23
    if bool((sums > torch.finfo(back.dtype).max / 2).any()):
        return  # a sum may be beyond the dtype, and nothing promises otherwise
    assert ((back.double() - x.double()).abs() <= 2 * (block + 2) * eps * sums + SUBNORMAL).all()


# --- threads -----------------------------------------------------------------------------------


def test_products_of_other_threads_are_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor without AMX, too: torch's switch must not be touched while others run."""
    x, w = torch.randn(256, 1024), torch.randn(512, 1024)
    switch = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before, seen, stop = switch.fp32_precision, set(), threading.Event()
    expected, wrong = x @ w.T, []

    def watch() -> None:
        while not stop.is_set():
            seen.add(switch.fp32_precision)
            wrong.extend([1] if not torch.equal(x @ w.T, expected) else [])

    monkeypatch.setattr(amx, "has_amx", lambda: True)
    other = threading.Thread(target=watch)
    other.start()
    try:
        for _ in range(6):
            block_scaled_matmul(x, w)
    finally:
        stop.set()
        other.join()
    assert seen == {before}
    assert not wrong


def test_many_threads_get_what_one_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amx, "has_amx", lambda: False)  # the order of sums is one
    x, w = torch.randn(70, 128), torch.randn(128, 128)
    layers = {name: make(nn.Linear(128, 32)) for name, make in LAYERS.items()}
    weight = quantize(w, E4M3, (128, 128))
    calls: list[Callable[[], Tensor]] = [
        lambda: quantize(x, *NVFP4).dequantize(),
        lambda: rounded(x, E4M3, (1, 128)),
        lambda: block_scaled_matmul(x, weight),
        lambda: llm_int8_matmul(x, w),
        lambda: int8_matmul(quantize(x, INT8).values, quantize(w, INT8).values),
        lambda: smooth(x, w)[1],
        lambda: accumulate(x[:2], w[:2]),
        *((lambda layer=layer: layer(x).detach()) for layer in layers.values()),
        *((lambda layer=layer: layer(x[:1]).detach()) for layer in layers.values()),
    ]
    expected = [call() for call in calls]
    for layer in layers.values():  # so that all threads pack at once
        if isinstance(layer, Int8Linear):
            layer._packed.packed.kept = layer._packed_row.packed.kept = None
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            futures = [pool.submit(call) for call in calls for _ in range(2)]
            for i, future in enumerate(futures):
                assert torch.equal(future.result(), expected[i // 2])
    assert torch.is_grad_enabled()


# --- what is refused -----------------------------------------------------------------------------

TAKE_ONE: dict[str, Callable[[Any], Any]] = {
    "quantize": lambda x: quantize(x, E4M3),
    "rounded": lambda x: rounded(x, E4M3, (1, 2)),
    "quantize_unsigned_zero": lambda x: quantize_unsigned_zero(x, E4M3, (1, 2), "fp32"),
    "check_finite": blocks.check_finite,
    "error_bound": lambda x: quantize(torch.ones(2, 4), E4M3).error_bound(x),
    "block_scaled_matmul": lambda x: block_scaled_matmul(x, torch.ones(2, 4)),
    "block_scaled_matmul, w": lambda x: block_scaled_matmul(torch.ones(2, 4), x),
    "llm_int8_matmul": lambda x: llm_int8_matmul(x, torch.ones(2, 4)),
    "llm_int8_matmul, w": lambda x: llm_int8_matmul(torch.full((2, 4), 7.0), x),
    "smooth": lambda x: smooth(x, torch.ones(2, 4)),
    "smooth, w": lambda x: smooth(torch.ones(2, 4), x),
    "accumulate": lambda x: accumulate(x, torch.ones(2, 4)),
    "accumulate, b": lambda x: accumulate(torch.ones(2, 4), x),
    **{
        name: (lambda x, make=make: make(nn.Linear(4, 3))(x))  # type: ignore[misc]
        for name, make in LAYERS.items()
    },
}
WRONG: dict[str, tuple[Any, str]] = {
    "list": ([[1.0] * 4] * 2, "is a list"),
    "array": (np.ones((2, 4)), "is a ndarray"),
    "meta": (torch.ones(2, 4, device="meta"), "device meta"),
    "sparse": (torch.ones(2, 4).to_sparse(), "layout torch.sparse_coo"),
    "complex": (torch.ones(2, 4, dtype=torch.complex64), "complex64"),
    "inf": (torch.tensor([[1.0, 1, 1, 1], [1, math.inf, 1, 1]]), r"x\[1, 1\] is inf"),
    "half nan": (torch.tensor([[1.0, math.nan, 1, 1]] * 2).half(), r"x\[0, 1\] is nan"),
    "3-d": (torch.ones(2, 2, 4), r"\(2, 2, 4\)"),
    "1-d": (torch.ones(4), r"\(4,\)"),
    "0-d": (torch.tensor(1.0), r"\(\)"),
    "int64": (torch.ones(2, 4, dtype=torch.int64), "int64"),
    "bool": (torch.ones(2, 4, dtype=torch.bool), "bool"),
    "no columns": (torch.ones(2, 0), r"\(2, 0\)"),
    "no rows": (torch.ones(0, 4), r"\(0, 4\)"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("call", TAKE_ONE)
def test_what_is_no_matrix_of_finite_numbers_is_named(call: str, what: str) -> None:
    value, message = WRONG[what]
    layer = call in LAYERS
    taken = layer and what in ("3-d", "1-d", "no rows")  # any leading dimensions
    alone = ("QuantizedLinear, weight alone", "Int8WeightOnlyLinear", "Int4WeightOnlyLinear")
    taken |= call in alone and what in ("inf", "half nan")  # as F.linear
    taken |= call.startswith("accumulate") and what in ("int64", "bool", "no rows")
    if taken:
        TAKE_ONE[call](value)
        return
    with pytest.raises(ValueError, match=message) as error:
        TAKE_ONE[call](value)
    assert ";" in str(error.value)


LOUD = FP8Linear(2, 2)
nn.init.constant_(LOUD.weight, 3e38)
TWO = torch.ones(2, 1).bfloat16()

REFUSED: dict[str, Callable[[], Any]] = {
    r"the largest magnitude of x is 1e\+42, which in E4M3 needs a scale": lambda: quantize(
        torch.tensor([[1e42, 1.0]], dtype=torch.float64), E4M3
    ),
    r"x has a magnitude of 1e\+42, and float32 ends": lambda: Int8Linear.from_linear(
        nn.Linear(2, 2)
    )(torch.tensor([[1e42, 1.0]], dtype=torch.float64)),
    "the product is -?inf at": lambda: block_scaled_matmul(
        torch.full((2, 8), 3e38), torch.full((2, 8), 3e38)
    ),
    "the product is nan at": lambda: block_scaled_matmul(
        torch.tensor([[3e38] * 2]), torch.tensor([[3e38, -3e38]])
    ),
    r"the product is inf at \[0, 0\]": lambda: LOUD(torch.full((1, 2), 3e38)),
    "fmt is E4M3; give": lambda: quantize(torch.ones(2, 2), "E4M3"),  # type: ignore[arg-type]
    r"fmt is FloatFormat\(name='E8M0'": lambda: quantize(torch.ones(2, 2), E8M0),
    r"block is 4; give \(rows, columns\)": lambda: quantize(torch.ones(2, 2), E4M3, 4),  # type: ignore[arg-type]
    r"block is \(1.0, 2\)": lambda: quantize(torch.ones(2, 2), E4M3, (1.0, 2)),  # type: ignore[arg-type]
    r"bias has dtype torch.float32 and shape \(1,\)": lambda: Int8Linear(
        torch.ones(2, 2, dtype=torch.int8), torch.ones(2), torch.ones(1)
    ),
    r"bias has dtype torch.float32 and shape \(2, 2\)": lambda: QuantizedLinear(
        torch.ones(2, 2), torch.ones(2, 2)
    ),
    r"weight has dtype torch.int8 and shape \(2, 2\); pass floating": lambda: QuantizedLinear(
        torch.ones(2, 2, dtype=torch.int8)
    ),
    "scales from 0 to 1": lambda: Int8Linear(
        torch.ones(2, 2, dtype=torch.int8), torch.tensor([0.0, 1.0])
    ),
    r"scales from 1e\+35": lambda: Int8Linear(
        torch.ones(2, 2, dtype=torch.int8), torch.full((2,), 1e35)
    ),
    r"weight has shape \(2, 0\)": lambda: Int8Linear(
        torch.ones(2, 0, dtype=torch.int8), torch.ones(2)
    ),
    r"scale torch.float32 and \(2,\); pass int8": lambda: Int8WeightOnlyLinear(
        torch.ones(2, 2, dtype=torch.int8), torch.ones(2)
    ),
    r"shape \(2, 0\), scale torch.bfloat16": lambda: Int8WeightOnlyLinear(
        torch.ones(2, 0, dtype=torch.int8), torch.ones(2).bfloat16()
    ),
    r"bias has dtype torch.float32 and shape \(3,\)": lambda: Int8WeightOnlyLinear(
        torch.ones(2, 2, dtype=torch.int8), torch.ones(2).bfloat16(), torch.ones(3)
    ),
    "scale is from 0 to 1; pass numbers above 0": lambda: Int8WeightOnlyLinear(
        torch.ones(2, 2, dtype=torch.int8), torch.tensor([0.0, 1.0]).bfloat16()
    ),
    r"scale is from 3e\+38": lambda: Int8WeightOnlyLinear(
        torch.full((2, 2), 2, dtype=torch.int8), torch.full((2,), 3e38).bfloat16()
    ),
    r"scale is from 4.05e\+37": lambda: Int4WeightOnlyLinear(
        torch.full((2, 1), 119, dtype=torch.int8), torch.full((2, 1), 4.05e37).bfloat16(),
        torch.full((2, 1), 3e38).bfloat16(), 2,
    ),
    r"in_features is 5 with weight torch.int8 and \(2, 2\)": lambda: Int4WeightOnlyLinear(
        torch.ones(2, 2, dtype=torch.int8), TWO, TWO, 5
    ),
    r"in_features is 4 with .*middle torch.bfloat16 and \(2, 3\)": lambda: Int4WeightOnlyLinear(
        torch.ones(2, 2, dtype=torch.int8), TWO.expand(2, 3), TWO.expand(2, 3), 4
    ),
    "in_features is 4.0; give a whole number": lambda: Int4WeightOnlyLinear(
        torch.ones(2, 2, dtype=torch.int8), TWO, TWO, 4.0  # type: ignore[arg-type]
    ),
    "group is 32 with 33 inputs; give a divisor": lambda: Int4WeightOnlyLinear.from_linear(
        nn.Linear(33, 2)
    ),
    "group is 0; give": lambda: Int4WeightOnlyLinear.from_linear(nn.Linear(2, 2), 0),
    "weight has dtype torch.float32; load the state of the same": lambda: (
        Int4WeightOnlyLinear.from_linear(nn.Linear(32, 2)).load_state_dict(
            nn.Linear(32, 2).state_dict(), strict=False
        )
    ),
    r"x has list": lambda: int8_matmul([[1]], [[1]]),  # type: ignore[arg-type]
    "model is Linear": lambda: replace_linears(nn.Linear(2, 2), lambda _, m: m),
    r"make\('0', ...\) returned None": lambda: replace_linears(
        nn.Sequential(nn.Linear(2, 2)), lambda _, m: None  # type: ignore[arg-type,return-value]
    ),
    "alpha is nan": lambda: smooth(torch.ones(2, 2), torch.ones(2, 2), math.nan),
    "bits is 14.0; give a whole number": lambda: accumulate(
        torch.ones(2, 2), torch.ones(2, 2), 14.0  # type: ignore[arg-type]
    ),
    r"group is 0; give a whole number, at least 1": lambda: accumulate(
        torch.ones(2, 2), torch.ones(2, 2), group=0
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_is_named(message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        REFUSED[message]()
    assert ";" in str(error.value)


# --- nothing is forgotten ------------------------------------------------------------------------

COVERED = {
    "IntFormat": test_the_bits_of_integers_are_pythons,
    "Quantized": test_what_is_kept_follows_its_values_and_scales,
    "quantize": test_a_block_is_off_by_its_bound_or_its_scale_is_named,
    "rounded": test_a_block_is_off_by_its_bound_or_its_scale_is_named,
    "quantize_unsigned_zero": test_a_block_is_off_by_its_bound_or_its_scale_is_named,
    "check_finite": test_what_is_no_matrix_of_finite_numbers_is_named,
    "check_dense": test_what_is_no_matrix_of_finite_numbers_is_named,
    "as_matrix": test_what_is_no_matrix_of_finite_numbers_is_named,
    "version_of": test_a_layer_can_be_cast_copied_stored_loaded_and_changed,
    "block_scaled_matmul": test_a_block_scaled_product_is_that_of_its_factors,
    "multiply": test_a_block_scaled_product_is_that_of_its_factors,
    "check_product": test_what_is_refused_is_named,
    "int8_matmul": test_integer_products_are_exact_however_they_lie,
    "int8_sums": test_integer_products_are_exact_however_they_lie,
    "check_columns": test_what_is_refused_is_named,
    "check_features": test_what_is_no_matrix_of_finite_numbers_is_named,
    "check_bias": test_what_is_refused_is_named,
    "check_state": test_what_is_refused_is_named,
    "counted": test_layers_made_in_inference_mode_can_be_loaded_and_changed_outside,
    "pack_nibbles": test_a_byte_keeps_two_codes,
    "unpack_nibbles": test_a_byte_keeps_two_codes,
    "int8_few_rows": test_few_rows_are_within_the_bound_of_their_layer,
    "Int4FewRows": test_few_rows_are_within_the_bound_of_their_layer,
    "Int8WeightOnlyLinear": test_a_layer_is_within_its_bound_in_the_dtype_of_its_input,
    "Int4WeightOnlyLinear": test_a_layer_is_within_its_bound_in_the_dtype_of_its_input,
    "block_sizes": test_what_is_refused_is_named,
    "llm_int8_matmul": test_llm_int8_is_within_the_bound_of_its_two_parts,
    "rotate": test_a_rotation_is_off_by_the_rounding_of_its_sums,
    "round_blocks": test_a_block_is_off_by_its_bound_or_its_scale_is_named,
    "rounds_by_adding": test_wide_formats_keep_float32_as_their_own_rounding_does,
    "product_in_tiles": test_a_block_scaled_product_is_that_of_its_factors,
    "Kept": test_a_layer_can_be_cast_copied_stored_loaded_and_changed,
    "PackedRow": test_a_layer_is_within_its_bound_in_the_dtype_of_its_input,
    "PackedProduct": test_a_layer_is_within_its_bound_in_the_dtype_of_its_input,
    "smooth": test_smoothing_leaves_every_product_of_two_elements,
    "accumulate": test_a_short_accumulator_loses_what_its_bound_says,
    "Int8Linear": test_a_layer_is_within_its_bound_in_the_dtype_of_its_input,
    "QuantizedLinear": test_a_layer_is_within_its_bound_in_the_dtype_of_its_input,
    "FP8Linear": test_fp8_gradients_have_the_dtype_of_what_they_belong_to,
    "FP4Linear": test_fp4_gradients_have_the_dtype_of_what_they_belong_to,
    "float32_rows": test_a_layer_is_within_its_bound_in_the_dtype_of_its_input,
    "replace_linears": test_a_shared_layer_is_made_once_and_stays_shared,
}
NOT_COVERED = {
    "Setting": "a tuple; quantize checks what is in it",
    "FP4Recipe": "a tuple; FP4Linear and quantize check what is in it",
    "TrainableLinear": "what FP8Linear and FP4Linear share",
    "FP8Recipe": "a tuple; quantize checks what is in it",
    "has_amx": "asks torch about the processor",
    "fewest_rows": "asks has_amx",
    "round_float32_": "the loop inside quantize: its docstring says what it leaves unchecked",
}


def public(module: ModuleType) -> set[str]:
    """Functions and classes that a module defines and does not mark as its own."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isroutine(value))
        and getattr(value, "__module__", "") == module.__name__
    }


def test_every_public_name_has_a_case_or_a_reason() -> None:
    rooms = (
        amx, blocks, few_rows, fp4, linear, matmul, outliers, packed, rounding, weight_only,
    )  # fmt: skip
    names = set[str]().union(*(public(room) for room in rooms))
    assert names == COVERED.keys() | NOT_COVERED.keys()
    assert not COVERED.keys() & NOT_COVERED.keys()
