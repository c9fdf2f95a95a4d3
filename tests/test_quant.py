"""Scaled low precision against torch's casts, formulas by hand, float64, and adversarial inputs."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slingshot.formats import BF16, E2M1, E2M3, E3M2, E4M3, E5M2, E8M0, FP16, FloatFormat
from slingshot.quant import (
    INT4,
    INT8,
    MXFP4,
    MXFP8,
    NVFP4,
    Block,
    Format,
    FP8Linear,
    FP8Recipe,
    Int4WeightOnlyLinear,
    Int8Linear,
    Int8WeightOnlyLinear,
    IntFormat,
    Quantized,
    QuantizedLinear,
    Rule,
    Scale,
    Setting,
    accumulate,
    amx,
    block_scaled_matmul,
    few_rows,
    int8_matmul,
    linear,
    llm_int8_matmul,
    matmul,
    quantize,
    replace_linears,
    rotate,
    smooth,
)
from slingshot.quant import packed as packed_room
from slingshot.quant.blocks import rounded
from slingshot.quant.rounding import round_float32_

FLOATS = [E4M3, E5M2, E3M2, E2M3, E2M1]
BLOCKS: list[Block] = [(None, None), (1, None), (None, 1), (1, 128), (128, 128), (3, 7), (64, 1)]
EPS = 2.0**-23


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def hard(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Magnitudes over 40 binades, outliers of 1e5, zeros of both signs and an all-zero corner."""
    x = normal(rows, columns, seed=seed) * 2.0 ** (40 * uniform(rows, columns, seed=seed + 1) - 30)
    x[uniform(rows, columns, seed=seed + 2) < 0.02] *= 1e5
    x[uniform(rows, columns, seed=seed + 3) < 0.05] = 0.0
    x[uniform(rows, columns, seed=seed + 4) < 0.05] = -0.0
    x[: rows // 2, : columns // 2] = 0.0
    return x


def expand(q: Quantized, by: Tensor) -> Tensor:
    """One element of ``by`` for each element, by index and not by padding, in float64."""
    rows, columns = q.values.shape
    i = torch.arange(rows)[:, None] // q.block[0]
    j = torch.arange(columns)[None, :] // q.block[1]
    return by.double()[i, j]


def exact(q: Quantized) -> Tensor:
    return q.values.double() * expand(q, q.scale)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


def precision() -> str:
    return str(torch.backends.mkldnn.matmul.fp32_precision)  # type: ignore[attr-defined]


def relative_error(result: Tensor, reference: Tensor) -> float:
    return float((result.double() - reference).abs().max() / reference.abs().max())


# --- rounding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", [*FLOATS, FP16, BF16], ids=lambda fmt: fmt.name)
def test_rounding_by_addition_is_the_formats_rounding(fmt: FloatFormat) -> None:
    """All ties, their neighbors, all subnormals: bit for bit but for the sign of zero."""
    values = fmt.values().astype(np.float64)
    points = np.concatenate([values, (values[1:] + values[:-1]) / 2]).astype(np.float32)
    if fmt.bits > 8:
        points = points[np.abs(points) < min(fmt.max, 2.0**100)]
        points = points[np.abs(points) > 2.0**-120]
    near = np.concatenate([points, np.nextafter(points, np.inf), np.nextafter(points, -np.inf)])
    near = near[np.abs(near) <= fmt.max].astype(np.float32)
    random = (hard(100, 100).numpy() % np.float32(min(fmt.max, 1e30))).ravel()
    x = np.concatenate([near, random[np.abs(random) > 0]]).astype(np.float32)
    ours = round_float32_(torch.from_numpy(x.copy()), fmt).numpy()
    np.testing.assert_array_equal(ours, fmt.round(x, saturate=True))


@pytest.mark.parametrize(
    ("fmt", "dtype"), [(E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)], ids=["E4M3", "E5M2"]
)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_codes_are_torchs_after_clamping(
    fmt: FloatFormat, dtype: torch.dtype, block: Block
) -> None:
    x = hard(130, 300)
    q = quantize(x, fmt, block)
    scaled = (x / expand(q, q.scale).float()).clamp(-fmt.max, fmt.max)
    codes = torch.from_numpy(fmt.encode(q.values.numpy()))
    assert torch.equal(codes, scaled.to(dtype).view(torch.uint8))


def test_act_quant_of_deepseek() -> None:
    """inference/kernel.py: s = max(amax, 1e-4) / 448, y = x / s; with ue8m0 s = 2^ceil(log2 s)."""
    x = normal(64, 512) * 10
    x[3] = 0
    tiles = x.view(64, 4, 128)
    s = tiles.abs().amax(-1).clamp_min(1e-4) / 448
    for scale, expected in (("fp32", s), ("e8m0", 2.0 ** torch.ceil(torch.log2(s)))):
        q = quantize(x, E4M3, (1, 128), scale)  # type: ignore[arg-type]
        ordinary = torch.arange(64) != 3
        assert torch.equal(q.scale[ordinary], expected[ordinary])
        y = (tiles / expected[..., None]).clamp(-448, 448).to(torch.float8_e4m3fn)
        codes = torch.from_numpy(E4M3.encode(q.values.numpy())).view(64, 4, 128)
        assert torch.equal(codes, y.view(torch.uint8))
        multiplied = (y.float() * expected[..., None]).view(64, 512)
        assert torch.equal(q.dequantize(), multiplied)


def test_deepgemm_cast_differs_by_its_reciprocal_only() -> None:
    """per_token_cast_to_fp8 multiplies by 1/s: a few codes in ten million differ."""
    x = normal(256, 512)
    q = quantize(x, E4M3, (1, 128))
    theirs = (x.view(256, 4, 128) * (1 / q.scale)[..., None]).to(torch.float8_e4m3fn).float()
    assert (theirs.view(256, 512) != q.values).float().mean() < 1e-4
    difference = 1 - 2 * (x * q.dequantize()).double().sum() / (x**2 + q.dequantize() ** 2).sum()
    assert difference < 1e-3  # its calc_diff


# --- blocks, scales, bounds ----------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["fp32", "e8m0"])
@pytest.mark.parametrize("fmt", [*FLOATS, INT8, INT4], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_error_is_within_the_derived_bound(
    fmt: FloatFormat | IntFormat, block: Block, scale: Scale
) -> None:
    x = hard(70, 150)
    q = quantize(x, fmt, block, scale)
    assert ((q.dequantize().double() - x.double()).abs() <= q.error_bound(x)).all()


@pytest.mark.parametrize("fmt", [E4M3, E2M1, INT8], ids=lambda fmt: fmt.name)
def test_the_bound_is_reached(fmt: FloatFormat | IntFormat) -> None:
    """A tie: half a step. So no smaller bound would hold."""
    tie = {"E4M3": 1 + 2.0**-4, "E2M1": 1.25, "INT8": 0.5}[fmt.name]
    x = torch.tensor([[fmt.max, tie]])
    q = quantize(x, fmt)
    assert q.scale.item() == 1
    error = (q.dequantize() - x)[0, 1].abs().item()
    assert error == pytest.approx(2.0**-4 if fmt is E4M3 else 0.25 if fmt is E2M1 else 0.5)
    assert error > 0.9999 * q.error_bound(x)[0, 1].item()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 11),
    st.integers(1, 11),
    st.sampled_from([*FLOATS, INT8]),
    st.sampled_from(["fp32", "e8m0"]),
    st.integers(0, 1000),
)
def test_ragged_edges_are_blocks_of_their_own(
    rows: int, columns: int, height: int, width: int, fmt: Format, scale: Scale, seed: int
) -> None:
    """Each block, cut out and quantized alone, is the same: neither padding nor a neighbor."""
    x = hard(rows, columns, seed=seed)
    q = quantize(x, fmt, (height, width), scale)
    assert q.values.shape == x.shape
    assert q.scale.shape == (math.ceil(rows / height), math.ceil(columns / width))
    for i in range(0, rows, height):
        for j in range(0, columns, width):
            piece = quantize(x[i : i + height, j : j + width], fmt, (None, None), scale)
            assert torch.equal(q.values[i : i + height, j : j + width], piece.values)
            assert q.scale[i // height, j // width] == piece.scale.item()
    assert torch.equal(q.dequantize(), exact(q).float())
    assert torch.equal(rounded(x, fmt, (height, width), scale), q.dequantize())


@pytest.mark.parametrize("block", [(1, 128), (128, 128), (2, 64), (256, 512)], ids=str)
def test_rows_at_a_time_are_all_rows(block: Block) -> None:
    x = hard(768, 512)
    assert torch.equal(rounded(x, E4M3, block), quantize(x, E4M3, block).dequantize())
    assert torch.equal(rounded(x.T, E4M3, block), quantize(x.T, E4M3, block).dequantize())


@pytest.mark.parametrize("scale", ["fp32", "e8m0", "e4m3", "none"])
@pytest.mark.parametrize("fmt", [*FLOATS, INT8], ids=lambda fmt: fmt.name)
def test_zeros_stay_zeros(fmt: FloatFormat | IntFormat, scale: Scale) -> None:
    for x in (torch.zeros(5, 40), torch.cat([torch.zeros(5, 40), torch.ones(5, 40)])):
        q = quantize(x, fmt, (1, 16), scale)
        assert (q.scale > 0).all()
        assert q.scale.isfinite().all()
        assert (q.dequantize()[:5] == 0).all()
        smallest = {"fp32": 2.0**-126, "e8m0": E8M0.min_normal}
        assert (q.scale[:5] == smallest.get(scale, q.scale[:5])).all()


@pytest.mark.parametrize("tiny", [1e-45, 1e-40, 2.0**-126])
def test_tiny_numbers_do_not_become_nan(tiny: float) -> None:
    x = torch.tensor([[tiny, 0.0]])
    for fmt in (E4M3, E2M1, INT8):
        for scale in ("fp32", "e8m0", "e4m3"):
            back = quantize(x, fmt, scale=scale).dequantize()
            assert back.isfinite().all()
            assert (back.abs() <= 2.0**-125).all()


def test_large_numbers_do_not_become_infinite() -> None:
    x = torch.tensor([[3e38, -3e38, 1.0]])
    for fmt in (E4M3, E2M1, INT8):
        assert quantize(x, fmt).dequantize().isfinite().all()


def test_float64_is_rounded_once() -> None:
    x = torch.tensor([[1.0625 + 2.0**-40, 448.0]], dtype=torch.float64)
    assert quantize(x, E4M3).dequantize()[0, 0] == 1.125
    assert quantize(x.float(), E4M3).dequantize()[0, 0] == 1.0


@pytest.mark.parametrize(
    ("amax", "fmt", "ceil", "floor"),
    [
        (448.0, E4M3, 1.0, 1.0),
        (449.0, E4M3, 2.0, 1.0),
        (511.0, E4M3, 2.0, 1.0),
        (512.0, E4M3, 2.0, 2.0),
        (256.0, E4M3, 1.0, 1.0),
        (224.0, E4M3, 0.5, 0.5),
        (225.0, E4M3, 1.0, 0.5),
        (6.0, E2M1, 1.0, 1.0),
        (7.9, E2M1, 2.0, 1.0),
        (3.0, E2M1, 0.5, 0.5),
        (4.0, E2M1, 1.0, 1.0),
    ],
)
def test_ceil_never_saturates_and_floor_is_ocps(
    amax: float, fmt: FloatFormat, ceil: float, floor: float
) -> None:
    x = torch.tensor([[amax, 1.0]])
    rules: list[tuple[Rule, float]] = [("ceil", ceil), ("floor", floor)]
    for rule, expected in rules:
        q = quantize(x, fmt, scale="e8m0", rule=rule)
        assert q.scale.item() == expected
        assert E8M0.round(q.scale.numpy()) == q.scale.numpy()
        largest = float(fmt.round(min(amax / expected, fmt.max), saturate=True))
        assert q.values[0, 0].item() == largest


def test_mx_by_hand() -> None:
    # floor(log2 7.9) - 2 = 0: 7.9 saturates at 6, 5 is a tie to 4, 2.5 a tie to 2, 0.25 to 0.
    row = torch.zeros(1, 64)
    row[0, :6] = torch.tensor([7.9, -5.0, 2.5, 0.25, 0.26, 3.4])
    row[0, 32:34] = torch.tensor([0.06, -0.02])  # floor(log2 0.06) - 2 = -7: 7.68 and -2.56
    q = quantize(row, *MXFP4)
    assert q.scale.tolist() == [[1.0, 2.0**-7]]
    assert q.values[0, :6].tolist() == [6, -4, 2, 0, 0.5, 3]
    assert q.dequantize()[0, 32:34].tolist() == [6 * 2.0**-7, -3 * 2.0**-7]
    # floor(log2 500) - 8 = 0: 500 saturates at 448, 17 is a tie to 16.
    q = quantize(torch.tensor([[500.0, 17.0, 2.0**-10, 3 * 2.0**-10]]), *MXFP8)
    assert q.scale.tolist() == [[1.0]]
    assert q.values.tolist() == [[448, 16, 0, 2.0**-8]]


def test_nvfp4_by_hand() -> None:
    # Tensor scale 2688 / (448 · 6) = 1. Blocks: 2688 / 6 = 448; 20 / 6 = 3.33 -> 3.25 in E4M3.
    row = torch.zeros(1, 32)
    row[0, 0], row[0, 16], row[0, 17], row[0, 18] = 2688, 20, -8, 1
    q = quantize(row, *NVFP4)
    assert q.scale.tolist() == [[448, 3.25]]
    assert q.values[0, [0, 16, 17, 18]].tolist() == [6, 6, -2, 0.5]  # 6.15 saturates; -2.46; 0.31
    assert q.dequantize()[0, 16].item() == 19.5


def test_unscaled_is_a_cast() -> None:
    x = torch.tensor([[1e-4, 1.0, 500.0, -0.0]])
    assert same_bits(
        quantize(x, E4M3, scale="none").dequantize(), torch.tensor([[0, 1, 448, -0.0]])
    )


def test_no_gradient_and_no_change() -> None:
    x = normal(8, 8).requires_grad_()
    before = x.detach().clone()
    for block in BLOCKS:
        assert not quantize(x, E4M3, block).dequantize().requires_grad
        rounded(x, E4M3, block)
        quantize(x, INT8, block)
    assert torch.equal(x.detach(), before)


# --- INT8 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_absmax_by_its_formula(block: Block) -> None:
    x = hard(70, 150).clamp(-1e5, 1e5)
    q = quantize(x, INT8, block)
    assert q.values.dtype == torch.int8
    assert q.values.min() >= -127
    expected = np.round((x / expand(q, q.scale).float()).numpy())
    np.testing.assert_array_equal(q.values.numpy(), expected)


def rounded8(x: Tensor) -> Tensor:
    return quantize(x, INT8).dequantize()


INT_SHAPES = [
    (1, 1, 1),
    (2, 2001, 3),
    (1, 7, 3),
    (3, 64, 5),
    (17, 33, 31),
    (33, 129, 65),
    (64, 1, 64),
    (2, 0, 3),
]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("shape", INT_SHAPES, ids=str)
def test_int8_matmul_is_exact(
    shape: tuple[int, int, int], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(matmul, "_int_mm_is_exact", lambda: False)
    m, k, n = shape
    generator = torch.Generator().manual_seed(0)
    for low, high in ((-128, 128), (-128, -127), (127, 128)):
        x = torch.randint(low, high, (m, k), generator=generator, dtype=torch.int8)
        w = torch.randint(low, high, (n, k), generator=generator, dtype=torch.int8)
        expected = x.numpy().astype(np.int64) @ w.numpy().astype(np.int64).T
        for left, right in ((x, w), (x.T.contiguous().T, w), (x, w.T.contiguous().T)):
            product = int8_matmul(left, right)
            assert product.dtype == torch.int32
            np.testing.assert_array_equal(product.numpy(), expected)


def test_int8_matmul_up_to_the_last_sum_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.full((1, 131071), -128, dtype=torch.int8)
    assert int8_matmul(x, x).item() == 131071 * 128**2
    monkeypatch.setattr(matmul, "_int_mm_is_exact", lambda: False)
    assert int8_matmul(x, x).item() == 131071 * 128**2
    more = torch.full((1, 131072), -128, dtype=torch.int8)
    with pytest.raises(ValueError, match="131072 columns"):
        int8_matmul(more, more)


def test_a_native_product_that_saturates_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As AVX2 and AVX-512 compute without VNNI: left bytes of 128 more, pairs summed in 16 bits."""

    def saturating(x: Tensor, w: Tensor) -> Tensor:
        terms = (x.double() + 128)[:, :, None] * w.double()
        pairs = (terms[:, ::2] + terms[:, 1::2]).clamp(-(2**15), 2**15 - 1)
        return (pairs.sum(1) - 128 * w.double().sum(0)).int()

    monkeypatch.setattr(matmul, "_int_mm_is_exact", matmul._int_mm_is_exact.__wrapped__)
    monkeypatch.setattr(torch, "_int_mm", saturating)
    low, high = (torch.full((3, 64), value, dtype=torch.int8) for value in (-128, 127))
    for x, w, product in ((low, low, 128**2), (high, low, -127 * 128), (high, high, 127**2)):
        assert (int8_matmul(x, w) == 64 * product).all()
    assert not matmul._int_mm_is_exact()
    monkeypatch.setattr(torch, "_int_mm", lambda x, w: (x.double() @ w.double()).int())
    assert matmul._int_mm_is_exact()
    monkeypatch.delattr(torch, "_int_mm")
    assert (int8_matmul(low, low) == 64 * 128**2).all()


def test_llm_int8_keeps_outlier_columns_whole() -> None:
    x, w = normal(20, 96), normal(30, 96, seed=1)
    x = x.clamp(-5.9, 5.9)
    x[4, 10], x[7, 50] = 600.0, -6.0  # the threshold itself counts
    outlier = torch.tensor([10, 50])
    result = llm_int8_matmul(x, w)
    ordinary = torch.ones(96, dtype=torch.bool)
    ordinary[outlier] = False
    a, b = quantize(x[:, ordinary], INT8, (1, None)), quantize(w[:, ordinary], INT8, (1, None))
    expected = exact(a) @ exact(b).T + x[:, outlier].double() @ w[:, outlier].double().T
    assert relative_error(result, expected) < 1e-6
    # On outlier columns alone it is full precision, without outliers plain INT8.
    only = torch.where(ordinary, 0.0, x)
    assert relative_error(llm_int8_matmul(only, w), only.double() @ w.double().T) < 1e-6
    loud = torch.full((4, 8), 7.0)
    assert torch.equal(llm_int8_matmul(loud, w[:, :8]), loud @ w[:, :8].T)
    exactly = x.double() @ w.double().T
    plain = exact(quantize(x, INT8, (1, None))) @ exact(quantize(w, INT8, (1, None))).T
    assert relative_error(result, exactly) < 0.3 * relative_error(plain, exactly)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.75, 1.0])
def test_smoothing_leaves_the_product(alpha: float) -> None:
    x, w = normal(20, 64).double(), normal(30, 64, seed=1).double()
    x[:, 3] *= 1000
    x[:, 5], w[:, 7] = 0, 0
    smooth_x, smooth_w, s = smooth(x, w, alpha)
    assert relative_error(smooth_x @ smooth_w.T, x @ w.T) < 1e-14
    expected = x[:, 3].abs().max() ** alpha / w[:, 3].abs().max() ** (1 - alpha)
    assert s[3] == pytest.approx(float(expected))
    assert s[5] == s[7] == 1
    if alpha == 0.5:  # both ranges meet, eq. 4's aim
        torch.testing.assert_close(smooth_x.abs().amax(0)[3], smooth_w.abs().amax(0)[3])


# --- block-scaled products and accumulation ------------------------------------------------------


PRODUCTS = [(32, 1024, 256), (5, 300, 131), (1, 128, 128), (64, 4096, 64), (100, 512, 640)]


@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize("scale", ["fp32", "e8m0"])
@pytest.mark.parametrize("shape", PRODUCTS, ids=str)
def test_block_scaled_matmul_is_the_float64_reference(
    shape: tuple[int, int, int], scale: Scale, tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepSeek's order, acc += dot(a, b) · a_s · b_s by blocks of 128, in float64."""
    monkeypatch.setattr(amx, "has_amx", lambda: tiles)
    monkeypatch.setattr(amx, "_is_only_thread", lambda: tiles)
    monkeypatch.setattr(amx, "_PANEL", (48, 256))  # 100 rows and 640 columns do not divide
    before = precision()
    m, k, n = shape
    for x, w in ((normal(m, k), normal(n, k, seed=1)), (uniform(m, k), uniform(n, k, seed=1))):
        a, b = quantize(x, E4M3, (1, 128), scale), quantize(w, E4M3, (128, 128), scale)
        expected = torch.zeros(m, n, dtype=torch.float64)
        column_scale = b.scale.double()[torch.arange(n) // b.block[0]]
        for block, start in enumerate(range(0, k, 128)):
            dot = (
                a.values.double()[:, start : start + 128]
                @ b.values.double()[:, start : start + 128].T
            )
            expected += dot * a.scale.double()[:, block, None] * column_scale[:, block]
        results = [
            block_scaled_matmul(x, w, scale=scale),
            block_scaled_matmul(x, b, scale=scale),
            block_scaled_matmul(a, b),
            block_scaled_matmul(a, b),
        ]
        for result in results:
            assert relative_error(result, expected) <= 1e-6
            bound = (k + 2) * 2.0**-24 * (exact(a).abs() @ exact(b).abs().T)
            assert ((result.double() - expected).abs() <= bound).all()
    assert precision() == before


TILED: list[tuple[Format, Block, Block, bool]] = [
    (E4M3, (1, 128), (128, 128), True),
    (E5M2, (1, None), (None, None), True),
    (E2M1, (64, 256), (32, 256), True),
    (E4M3, (1, 32), (128, 32), False),
    (E4M3, (1, 128), (128, 256), False),
    (E4M3, (1, 128), (1, 128), False),
    (E4M3, (3, 128), (128, 128), False),
    (FP16, (1, 128), (128, 128), False),
    (INT8, (1, 128), (128, 128), False),
]


@pytest.mark.parametrize(("fmt", "x_block", "w_block", "in_tiles"), TILED, ids=str)
def test_only_what_bf16_holds_goes_into_tiles(
    fmt: Format, x_block: Block, w_block: Block, in_tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    went = []

    def spy(a: Quantized, b: Quantized) -> Tensor:
        went.append((a, b))
        return sum_of_blocks(a, b)

    sum_of_blocks = amx._sum_of_blocks
    monkeypatch.setattr(amx, "has_amx", lambda: True)
    monkeypatch.setattr(amx, "_is_only_thread", lambda: True)
    monkeypatch.setattr(amx, "_sum_of_blocks", spy)
    x, w = normal(64, 512), normal(128, 512, seed=1)
    result = block_scaled_matmul(x, w, fmt, x_block, w_block)
    assert bool(went) == in_tiles
    for a, b in went:
        for values in (a.values, b.values):
            assert torch.equal(values, values.bfloat16().float())
    expected = exact(quantize(x, fmt, x_block)) @ exact(quantize(w, fmt, w_block)).T
    assert relative_error(result, expected) <= 1e-6
    went.clear()
    block_scaled_matmul(x[:63], w, fmt, x_block, w_block)
    block_scaled_matmul(x.double(), w.double(), fmt, x_block, w_block)
    assert not went


def test_scales_whose_product_is_infinite_stay_out_of_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(amx, "has_amx", lambda: True)
    monkeypatch.setattr(amx, "_is_only_thread", lambda: True)
    x, w = torch.zeros(64, 128), torch.zeros(128, 128)
    x[0, 0], w[0, 1] = 3e38, 3e38
    assert (block_scaled_matmul(x, w) == 0).all()


def test_torchs_precision_is_restored_after_an_error() -> None:
    before = precision()
    with pytest.raises(RuntimeError), amx._bf16_factors():
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert precision() == before


def accumulate_plainly(a: Tensor, b: Tensor, bits: int, promote_every: int | None) -> float:
    """One dot product with Python's integers: shift, cut, add."""
    total, partial = np.float32(0), 0.0
    for start in range(0, len(a), 32):
        here = range(start, min(start + 32, len(a)))
        terms = [partial, *(float(a[i]) * float(b[i]) for i in here)]
        largest = max(abs(term) for term in terms)
        step = 2.0 ** (math.floor(math.log2(largest)) + 1 - bits) if largest else 1.0
        partial = sum(int(term / step) for term in terms) * step  # int cuts toward zero
        if promote_every and (start + 32) % promote_every == 0:
            total, partial = np.float32(total + np.float32(partial)), 0.0
    return float(np.float32(total + np.float32(partial)))


@pytest.mark.parametrize("promote_every", [None, 32, 128])
@pytest.mark.parametrize("bits", [8, 14, 25])
def test_accumulate_is_integer_arithmetic(bits: int, promote_every: int | None) -> None:
    for make in (normal, uniform):
        a, b = quantize(make(3, 300), E4M3).values, quantize(make(2, 300, seed=1), E4M3).values
        result = accumulate(a, b, bits, promote_every)
        for i in range(3):
            for j in range(2):
                assert result[i, j].item() == accumulate_plainly(a[i], b[j], bits, promote_every)


def test_promotion_rescues_fourteen_bits() -> None:
    a, b = (uniform(8, 4096, seed=seed).to(torch.float8_e4m3fn).float() for seed in (0, 1))
    expected = a.double() @ b.double().T
    error = {every: relative_error(accumulate(a, b, 14, every), expected) for every in (None, 128)}
    # Without promotion the sum ends in [512, 2048) and its step is at least 2^(9 + 1 - 14) = 1/16;
    # from there on each product loses a 32nd on average, toward zero.
    assert 0.03 < error[None] < 0.15
    assert error[128] < 1e-3
    assert (accumulate(a, b, 14, None).double() <= expected).all()
    assert relative_error(accumulate(a, b, 52, 128), expected) < 1e-6


# --- rotation ------------------------------------------------------------------------------------


def test_a_rotation_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0]])
    halves = [0.5, 0.5, 0.5, 0.5, 5.0, -1.0, -2.0, 0.0]  # sums and differences, over √4
    assert rotate(x, 4).tolist() == [halves]
    signs = torch.tensor([-1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0])
    assert rotate(x, 4, signs).tolist() == [[-0.5, -0.5, -0.5, -0.5, -1.0, 5.0, 0.0, -2.0]]


@pytest.mark.parametrize("block", [1, 2, 16, 64])
def test_a_rotation_keeps_lengths_and_products_and_undoes_itself(block: int) -> None:
    x, w = normal(2, 5, 192).double(), normal(7, 192, seed=1).double()
    signs = 1.0 - 2.0 * torch.randint(2, (192,), generator=torch.Generator().manual_seed(0))
    for turned in (None, signs):
        a, b = rotate(x, block, turned), rotate(w, block, turned)
        assert a.shape == x.shape
        torch.testing.assert_close(a.norm(dim=-1), x.norm(dim=-1))
        torch.testing.assert_close(a @ b.T, x @ w.T)
    torch.testing.assert_close(rotate(rotate(x, block), block), x)


def test_a_rotation_spreads_one_large_number_over_its_block() -> None:
    """So INT8 with one scale keeps the others, most of which it made zero before."""
    x = normal(8, 128) / 8
    x[0, 3] = 100
    spread = rotate(x, 64)
    assert (spread[0, :64].abs() - 100 / 8).abs().max() < 1
    back = rotate(quantize(spread, INT8).dequantize(), 64)
    plain = quantize(x, INT8).dequantize()
    assert (plain - x)[1:].norm() > 0.9 * x[1:].norm()
    assert (back - x)[1:].norm() < 0.4 * x[1:].norm()


# --- rounding by lot ------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", [E4M3, E2M1, INT8], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_by_lot_a_number_becomes_one_of_its_two_neighbors(fmt: Format, dtype: torch.dtype) -> None:
    x = normal(64, 64).to(dtype)
    lot = torch.Generator().manual_seed(0)
    found = quantize(x, fmt, (1, 16), generator=lot)
    exact = x.to(found.scale.dtype) / found.scale.repeat_interleave(16, 1)
    values = found.values.to(exact.dtype)
    # The nearest values of the format, below and above: to round toward either moves by less than
    # the distance of the two, which rounding to nearest halves at most.
    nearest = quantize(x, fmt, (1, 16))
    off, least = (values - exact).abs(), (nearest.values.to(exact.dtype) - exact).abs()
    assert bool((off >= least - 1e-6).all())
    assert bool((off > least + 1e-6).any())
    if isinstance(fmt, FloatFormat):
        step = torch.maximum(exact.abs(), torch.tensor(fmt.min_normal)).log2().floor().exp2()
        assert bool((off <= step * 2.0**-fmt.mantissa_bits * (1 + 1e-6)).all())
        codes = torch.from_numpy(fmt.round(values.double().numpy()))
        assert torch.equal(codes.to(values.dtype), values)
    else:
        assert values.abs().max() <= fmt.max
        assert found.values.dtype == torch.int8


def test_by_lot_the_mean_is_the_number_and_to_nearest_it_is_not() -> None:
    row = torch.tensor([[6.0, 0.1, -0.3, 1.2, 2.9, -4.4, 0.0, 5.0]])
    lot = torch.Generator().manual_seed(0)
    n = 20_000
    drawn = quantize(row.repeat(n, 1), E2M1, (1, 8), generator=lot).dequantize().double()
    # A draw between neighbors a step apart has a deviation of half the step at most, here 1. Five
    # of its means' deviations: 5 / sqrt(n).
    assert ((drawn.mean(0) - row).abs() < 5 / math.sqrt(n)).all()
    nearest = quantize(row, E2M1, (1, 8)).dequantize()
    assert ((nearest - row).abs() > 0.09).sum() == 6  # all but 6 and 0


def test_by_lot_what_a_format_has_stays_and_nothing_is_beyond_it() -> None:
    values = torch.tensor([[0.0, 0.5, -1.0, 1.5, 2.0, -3.0, 4.0, 6.0]])
    lot = torch.Generator().manual_seed(0)
    many = quantize(values.repeat(500, 1), E2M1, (None, None), "none", generator=lot)
    assert torch.equal(many.dequantize(), values.repeat(500, 1))
    beyond = quantize(3 * values, E2M1, (None, None), "none", generator=lot).dequantize()
    assert beyond.abs().max() == 6
    zeros = quantize(torch.zeros(2, 16), E2M1, (1, 16), "e4m3", generator=lot)
    assert not zeros.dequantize().any()


def test_by_lot_the_generator_decides_and_nothing_else() -> None:
    x = normal(16, 32)

    def draw(seed: int) -> Tensor:
        return quantize(x, *NVFP4, generator=torch.Generator().manual_seed(seed)).dequantize()

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    draw(0)
    assert torch.equal(torch.get_rng_state(), before)


# --- layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 2, 15, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_int8_linear_is_within_its_bound(
    rows: int, bias: bool, tiles: bool, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = packed and packed_room._packed_is_exact()
    one = packed and packed_room._row_is_exact()
    monkeypatch.setattr(packed_room, "_packed_is_exact", lambda: many)
    monkeypatch.setattr(packed_room, "_row_is_exact", lambda: one)
    monkeypatch.setattr(packed_room, "has_amx", lambda: tiles)
    monkeypatch.setattr(linear, "_CHUNK", 257 * 12)  # the rows do not divide by 12
    torch.manual_seed(0)
    full = nn.Linear(257, 65, bias)
    layer = Int8Linear.from_linear(full)
    x = hard(rows, 257) if rows else torch.zeros(0, 257)
    result, w = layer(x).double(), full.weight.detach().double()
    assert (layer._packed_row.packed.kept is not None) == (one and rows == 1)
    few = 1 if tiles and not one else 2
    assert (layer._packed.packed.kept is not None) == (many and rows >= few)
    expected = x.double() @ w.T + (full.bias.detach().double() if bias else 0)
    s = (x.double().abs().amax(1, keepdim=True) / 127).clamp_min(2.0**-126)
    t = w.abs().amax(1) / 127
    sums = t / 2 * x.double().abs().sum(1, keepdim=True) + s / 2 * w.abs().sum(1)
    bound = (sums + 257 * s * t / 4) * (1 + 1e-5) + 4 * EPS * expected.abs()
    assert result.shape == (rows, 65)
    assert ((result - expected).abs() <= bound).all()


def test_int8_linear_is_the_integers_and_their_scales() -> None:
    torch.manual_seed(0)
    full = nn.Linear(96, 40)
    x = normal(4, 9, 96)
    layer = Int8Linear.from_linear(full)
    a, b = quantize(x.view(36, 96), INT8, (1, None)), quantize(full.weight, INT8, (1, None))
    values, scale = linear._quantize_rows(x.view(36, 96))
    values = values.double() - 128
    assert (values != a.values).float().mean() < 1e-3  # times 1 / s, not divided by s
    expected = (values * scale.double()) @ exact(b).T + full.bias.detach().double()
    assert relative_error(layer(x).view(36, 40), expected) < 1e-6
    assert same_bits(layer(x.view(36, 96).T.contiguous().T), layer(x).view(36, 40))


def test_bytes_are_rounded_once_and_ties_are_even() -> None:
    """All halves, and their neighbors: the scale is 1, so nothing else rounds."""
    halves = torch.arange(-254, 255) / 2
    x = torch.cat([halves.nextafter(torch.tensor(end)) for end in (-128.0, 0.0, 128.0)])
    x = torch.cat([halves, x[x.abs() <= 127], torch.tensor([127.0])])[None]
    values, scale = linear._quantize_rows(x)
    assert scale.item() == 1
    assert torch.equal(values.double() - 128, x.double().round())


@pytest.mark.parametrize("shape", [*INT_SHAPES[:-1], (40, 65793, 3), (40, 65794, 3)], ids=str)
def test_packed_and_plain_sums_have_the_same_bits(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the extremes too, up to the largest K that is packed, and beyond it."""
    m, k, n = shape
    generator = torch.Generator().manual_seed(0)
    for low, high in ((-127, 128), (-127, -126), (127, 128)):
        values = torch.randint(low + 128, high + 128, (m, k), generator=generator).to(torch.uint8)
        for weight in (torch.full((n, k), -128), torch.randint(-128, 128, (n, k))):
            layer = Int8Linear(weight.to(torch.int8).T.contiguous().T, uniform(n) + 1)
            result = layer._multiply(values)
            sums = (values.double() - 128) @ weight.double().T
            assert same_bits(result, sums.float() * layer.scale)
            with monkeypatch.context() as patch:
                patch.setattr(packed_room, "_packed_is_exact", lambda: False)
                assert same_bits(layer._multiply(values), result)


def test_a_packed_product_that_saturates_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def saturating(values: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
        return torch.full((len(values), len(scale)), -64 * 2.0**15 / 2 + 64 * 128**2)

    def missing(values: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
        raise AttributeError

    x = normal(20, 64)
    layer = Int8Linear.from_linear(nn.Linear(64, 32))
    expected = layer(x)
    monkeypatch.setattr(packed_room, "_packed_is_exact", packed_room._packed_is_exact.__wrapped__)
    for product in (saturating, missing):
        monkeypatch.setattr(packed_room, "_packed_matmul", product)
        assert same_bits(layer(x), expected)
    right = torch.full((33, 33), -64 * 127 * 128.0)
    monkeypatch.setattr(packed_room, "_packed_matmul", lambda values, packed, scale: right)
    assert packed_room._packed_is_exact()


def row_kernel_that_saturates(weight: Tensor, scale: Tensor) -> packed_room._Row:
    """What a processor without VNNI would give."""
    sums = torch.full((1, len(scale)), -64 * 2.0**15 / 2)
    return lambda row, bias: (sums, 1.0)


def missing(error: type[Exception]) -> Callable[[Tensor, Tensor], packed_room._Row]:
    """What a torch without the kernel does."""

    def raises(weight: Tensor, scale: Tensor) -> packed_room._Row:
        raise error

    return raises


@pytest.mark.parametrize(
    "pack",
    [row_kernel_that_saturates, *map(missing, (AttributeError, OSError, RuntimeError, TypeError))],
)
def test_a_row_kernel_that_is_missing_or_saturates_is_not_used(
    pack: Callable[[Tensor, Tensor], packed_room._Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(1, 64)
    full = nn.Linear(64, 32)
    expected = Int8Linear.from_linear(full)(x)
    monkeypatch.setattr(packed_room, "_row_is_exact", packed_room._row_is_exact.__wrapped__)
    monkeypatch.setattr(packed_room, "_pack_for_row", pack)
    assert not packed_room._row_is_exact()
    layer = Int8Linear.from_linear(full)
    assert same_bits(layer(x), expected)
    assert layer._packed_row.packed.kept is None


@pytest.mark.parametrize("rows", [1, 3])
def test_no_gradient_passes_an_int8_linear(rows: int) -> None:
    """Neither to the input nor to a bias that could learn, and gradients stay switched on."""
    made = Int8Linear.from_linear(nn.Linear(8, 4))
    layer = Int8Linear(made.weight, made.scale, nn.Parameter(torch.ones(4)))
    output = layer(normal(rows, 8).requires_grad_())
    assert not output.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", ["scale", "bias"])
def test_no_gradient_passes_to_what_was_put_into_an_int8_linear(name: str, rows: int) -> None:
    layer = Int8Linear.from_linear(nn.Linear(8, 4))
    setattr(layer, name, nn.Parameter(torch.ones(4)))
    assert not layer(normal(rows, 8)).requires_grad


@pytest.mark.parametrize("shape", [(8,), (1, 8), (1, 1, 8), (3, 8)])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("packed", [True, False])
def test_an_int8_linear_names_what_is_not_finite(
    shape: tuple[int, ...],
    value: float,
    dtype: torch.dtype,
    packed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also in a single row, in each of the forms that TorchScript compiles, and in a first call."""
    packed = packed and packed_room._row_is_exact()
    monkeypatch.setattr(packed_room, "_row_is_exact", lambda: packed)
    layer = Int8Linear.from_linear(nn.Linear(8, 4))
    bad = torch.ones(shape, dtype=dtype)
    bad[..., 5] = value
    for x in (bad, torch.ones_like(bad), bad, bad, bad):
        if x is bad:
            with pytest.raises(ValueError, match=r"\[0, 5\]"):
                layer(x)
        else:
            assert layer(x).isfinite().all()


@pytest.mark.skipif(not packed_room._row_is_exact(), reason="this processor has no such kernel")
def test_the_row_kernel_is_compiled_and_follows_weight_and_scale() -> None:
    """A change in place of either counts in the next call, though the kernel holds both."""
    layer = Int8Linear.from_linear(nn.Linear(96, 40, bias=False))
    x = normal(1, 96)
    first = layer(x)
    kept = layer._packed_row.packed.kept
    assert kept is not None
    assert isinstance(kept[2], torch.jit.ScriptModule)
    assert same_bits(layer(x), first)
    assert layer._packed_row.packed.kept is kept
    layer.scale.mul_(2)
    assert same_bits(layer(x), 2 * first)
    layer.weight.neg_()
    assert same_bits(layer(x), -2 * first)


def test_an_int8_linear_that_was_packed_can_be_copied_stored_and_loaded() -> None:
    torch.manual_seed(0)
    layer = Int8Linear.from_linear(nn.Linear(96, 40))
    for x in (normal(20, 96), normal(1, 96)):
        expected = layer(x)
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert same_bits(twin(x), expected)
        other = Int8Linear.from_linear(nn.Linear(96, 40))
        other(x)  # packs weights that are replaced
        other.load_state_dict(layer.state_dict())
        assert same_bits(other(x), expected)
    assert set(layer.state_dict()) == {"weight", "scale", "bias"}


def test_rows_of_tiny_numbers_have_the_smallest_scale() -> None:
    values, scale = linear._quantize_rows(torch.tensor([[2.0**-122], [0.0]]))
    assert values.tolist() == [[128 + 16], [128]]
    assert (scale == 2.0**-126).all()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("k", [1, 2, 64, 577])
@pytest.mark.parametrize("bias", [True, False])
def test_one_row_has_the_integers_of_many(
    k: int, bias: bool, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short ways for one row, and the way for many, to the last bit."""
    packed = packed and packed_room._row_is_exact()
    monkeypatch.setattr(packed_room, "_row_is_exact", lambda: packed)
    monkeypatch.setattr(packed_room, "has_amx", lambda: False)
    torch.manual_seed(0)
    layer = Int8Linear.from_linear(nn.Linear(k, 33, bias))
    halves = torch.arange(k)[None] / 2 - k / 4  # some lie between two steps
    ties = (torch.arange(k)[None] % 254 - 126.5) * torch.logspace(-2, 2, 40)[:, None]
    ties[:, 0] = torch.logspace(-2, 2, 40) * 127
    for row in (
        *torch.split(ties, 1),
        halves,
        hard(1, k),
        torch.zeros(1, k),
        torch.full((1, k), 1e35),
        1e-40 * halves,
    ):
        product, largest = layer._multiply_rows(row)
        quick, scale = layer._multiply_row(row)
        assert same_bits(quick, product)
        assert scale == largest
        expected = product if layer.bias is None else product + layer.bias
        if packed:
            found = layer._packed_row(row, layer.weight, layer.scale, layer.bias)
            assert found is not None
            assert same_bits(found[0], expected)
            assert found[1] == largest
        for _ in range(3):  # TorchScript compiles it again, once it has seen two
            assert same_bits(layer(row), expected)
            assert same_bits(layer(row[None, 0]), expected)
            assert same_bits(layer(row[0]), expected[0])


WEIGHT_ONLY: dict[str, Any] = {"INT8": Int8WeightOnlyLinear, "INT4": Int4WeightOnlyLinear}


@pytest.mark.parametrize("shape", [(48, 576), (16, 1536), (33, 64)], ids=str)
def test_each_weight_is_within_half_a_step(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    full = nn.Linear(shape[1], shape[0])
    with torch.no_grad():
        full.weight[0] += 100  # a middle that is far from 0
        full.weight[1] = 0
        full.weight[2] = 3e38
        full.weight[3, ::2] = -3e38
        full.weight[4] *= 1e-40
    for make in WEIGHT_ONLY.values():
        layer = make.from_linear(full)
        step = layer.scale.double().view(shape[0], -1, 1)
        off = (layer.dequantize().double() - full.weight.detach().double()).abs()
        assert (off.view(shape[0], step.shape[1], -1) <= step / 2 * (1 + 1e-6)).all()


def test_sixteen_steps_hit_the_grid_that_they_came_from() -> None:
    """As the 4 bits of the pretrained file do, whose scale and minimum are of 16 bits."""
    torch.manual_seed(0)
    codes, step, low = (
        torch.randint(16, (48, 4, 32)),
        torch.rand(48, 4, 1) + 0.5,
        -8 * torch.rand(48, 4, 1),
    )
    codes[..., 0], codes[..., 1] = 0, 15
    full = nn.Linear(128, 48, bias=False)
    full.weight = nn.Parameter((codes * step.half() + low.half()).flatten(1))
    layer = Int4WeightOnlyLinear.from_linear(full)
    again = few_rows.unpack_nibbles(layer.weight, 128).view(48, 4, 32) + 8
    assert torch.equal(again.long(), codes)


@pytest.mark.parametrize("name", WEIGHT_ONLY)
def test_the_kernels_are_used_where_they_are_right(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For few rows in BF16 alone, of sizes that they read within bounds."""
    usable = few_rows._int8_is_right() if name == "INT8" else few_rows._int4_is_right()
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert usable  # in the torch of requirements.txt
    asked: list[int] = []
    many_rows = WEIGHT_ONLY[name]._many_rows

    def asking(self: nn.Module, rows: Tensor) -> Tensor:
        asked.append(len(rows))
        product: Tensor = many_rows(self, rows)
        return product

    monkeypatch.setattr(WEIGHT_ONLY[name], "_many_rows", asking)
    torch.manual_seed(0)
    for n, k, rows, dtype, quick in (
        (32, 64, 1, torch.bfloat16, True),
        (32, 64, 12, torch.bfloat16, True),
        (32, 64, 97, torch.bfloat16, False),
        (32, 64, 0, torch.bfloat16, False),
        (32, 64, 1, torch.float32, False),
        (32, 64, 1, torch.float16, False),
        (32, 72, 1, torch.bfloat16, False),
        (40, 64, 1, torch.bfloat16, name == "INT8"),
    ):
        full = nn.Linear(k, n)
        args = () if name == "INT8" else (32 if k == 64 else 24,)
        layer = WEIGHT_ONLY[name].from_linear(full, *args)
        asked.clear()
        assert layer(torch.randn(rows, k).to(dtype)).shape == (rows, n)
        assert asked == ([] if quick and usable else [rows])


@pytest.mark.parametrize("name", WEIGHT_ONLY)
def test_a_kernel_that_is_missing_or_wrong_is_not_used(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another processor or in another torch the product is that of the dequantized weight."""

    def missing(*args: object) -> Tensor:
        raise AttributeError("'_OpNamespace' 'aten' object has no attribute")

    def refusing(*args: object) -> Tensor:
        raise RuntimeError("not implemented for this processor")

    def wrong(x: Tensor, *rest: Tensor) -> Tensor:
        return torch.ones(len(x), 32, dtype=torch.bfloat16)

    torch.manual_seed(0)
    layer, x = WEIGHT_ONLY[name].from_linear(nn.Linear(64, 32)), normal(3, 64).bfloat16()
    expected = layer._many_rows(x) + layer.bias
    kernel = {"INT8": "_weight_int8pack_mm", "INT4": "_weight_int4pack_mm_for_cpu"}[name]
    right = {"INT8": "_int8_is_right", "INT4": "_int4_is_right"}[name]
    for broken in (missing, refusing, wrong):
        monkeypatch.setattr(few_rows, right, getattr(few_rows, right).__wrapped__)
        monkeypatch.setattr(torch.ops.aten, kernel, broken)
        assert same_bits(layer(x), expected.bfloat16())
        monkeypatch.undo()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not getattr(few_rows, right).__wrapped__()  # a loop over single numbers


def test_a_sum_that_is_beyond_float32_before_its_scale_comes_out() -> None:
    full = nn.Linear(64, 32, bias=False)
    nn.init.constant_(full.weight, 1e-3)
    layer = Int8WeightOnlyLinear.from_linear(full)
    for rows in (1, 40):
        x = torch.full((rows, 64), 1e36, dtype=torch.bfloat16)
        expected = (x.double() @ layer.dequantize().double().T).expand(rows, 32)
        assert relative_error(layer(x), expected) < 2.0**-8


RECIPES = {
    "DeepSeek-V3": FP8Recipe(),
    "powers of two": FP8Recipe(scale="e8m0"),
    "tensor": FP8Recipe(E4M3, (None, None), (None, None), (None, None)),
    "unscaled": FP8Recipe(scale="none"),
    "INT8": FP8Recipe(INT8, (1, None), (1, None), (1, None)),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("sizes", [(200, 256, 128), (37, 300, 150)], ids=str)
def test_fp8_linear_has_three_rounded_products(
    sizes: tuple[int, int, int], recipe: FP8Recipe
) -> None:
    """Against the same operands in float64; none of the three may use an unrounded factor."""
    tokens, k, n = sizes
    torch.manual_seed(0)
    layer = FP8Linear(k, n, recipe=recipe)
    x = normal(tokens, k).requires_grad_()
    grad = normal(tokens, n, seed=2) * 3
    output = layer(x)
    output.backward(grad)

    def rounds(matrix: Tensor, block: Block) -> Tensor:
        return exact(quantize(matrix, recipe.fmt, block, recipe.scale))

    def along_tokens(block: Block) -> Block:
        return (block[1], block[0])

    qx, qw = rounds(x, recipe.x_block), rounds(layer.weight, recipe.w_block)
    assert relative_error(output.detach(), qx @ qw.T + layer.bias.detach().double()) < 1e-6
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert relative_error(x.grad, rounds(grad, recipe.grad_block) @ qw) < 1e-6
    columns = rounds(grad, along_tokens(recipe.grad_block))
    again = rounds(qx.float(), along_tokens(recipe.x_block))
    assert relative_error(layer.weight.grad, columns.T @ again) < 1e-6
    assert layer.bias is not None
    torch.testing.assert_close(layer.bias.grad, grad.sum(0))
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32


def test_fp8_linear_is_near_a_linear_layer_and_learns() -> None:
    torch.manual_seed(0)
    full = nn.Linear(256, 128)
    layer = FP8Linear.from_linear(full)
    x = normal(2, 100, 256)
    assert layer(x).shape == (2, 100, 128)
    # Each factor is off by 2^-4 at most, the product by 1/8, and errors of random sign are less.
    error = ((layer(x) - full(x)).norm() / full(x).norm()).item()
    assert 0.01 < error < 1 / 8
    student = FP8Linear(256, 128)
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = (student(x) - full(x).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_small_unscaled_gradients_vanish_and_scaled_ones_do_not() -> None:
    grads = {}
    for name in ("DeepSeek-V3", "unscaled"):
        torch.manual_seed(0)
        layer = FP8Linear(128, 128, recipe=RECIPES[name])
        (layer(normal(128, 128)) * 1e-4).mean().backward()
        assert layer.weight.grad is not None
        grads[name] = layer.weight.grad.abs().max().item()
    assert grads["unscaled"] == 0 < grads["DeepSeek-V3"]


# --- layers that show what a scheme loses --------------------------------------------------------


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 40, bias=False))


@pytest.mark.parametrize("weight", [None, Setting(INT8, (1, None)), MXFP4])
@pytest.mark.parametrize("x", [None, Setting(E4M3), Setting(INT8, (1, 16))])
def test_a_quantized_linear_multiplies_what_was_rounded(
    weight: Setting | None, x: Setting | None
) -> None:
    linear, rows = two_layers()[0], torch.randn(3, 5, 40)
    assert isinstance(linear, nn.Linear)
    w = linear.weight if weight is None else quantize(linear.weight, *weight).dequantize()
    flat = rows.reshape(15, 40)
    flat = flat if x is None else quantize(flat, *x).dequantize()
    expected = (flat @ w.T + linear.bias).view(3, 5, 24)
    layer = QuantizedLinear.from_linear(linear, weight, x)
    torch.testing.assert_close(layer(rows), expected)
    assert layer(rows).requires_grad is False


def test_replaced_linears_leave_the_model_as_it_was() -> None:
    model, x = two_layers(), torch.randn(4, 40)
    before = model(x)
    seen = []

    def make(name: str, linear: nn.Linear) -> nn.Module:
        seen.append(name)
        return linear if name == "2" else QuantizedLinear.from_linear(linear, Setting(INT8))

    twin = replace_linears(model, make)
    assert seen == ["0", "2"]
    assert isinstance(twin[0], QuantizedLinear)
    assert isinstance(model[0], nn.Linear)
    assert torch.equal(model(x), before)
    assert not torch.equal(twin(x), before)
    assert twin[2].weight is model[2].weight
    assert twin[2] is not model[2]


def test_a_tied_weight_stays_tied() -> None:
    model = nn.ModuleDict({"in": nn.Embedding(7, 5), "out": nn.Linear(5, 7, bias=False)})
    model["out"].weight = model["in"].weight
    twin = replace_linears(model, lambda _, linear: linear)
    assert isinstance(twin, nn.ModuleDict)
    assert twin["out"].weight is twin["in"].weight is model["in"].weight


# --- what is refused -----------------------------------------------------------------------------

BAD = torch.ones(200, 300)
BAD[150, 7] = math.inf
NAN = torch.ones(3, 3)
NAN[1, 2] = math.nan
ONES, BYTES = torch.ones(2, 2), torch.ones(2, 2, dtype=torch.int8)

REFUSED: dict[str, Callable[[], Any]] = {
    r"x\[150, 7\] is inf": lambda: quantize(BAD, E4M3, (1, 128)),
    r"x\[150, 7\] is -inf": lambda: quantize(-BAD, INT8),
    r"x\[150, 7\] is inf, and": lambda: rounded(BAD, E4M3, (1, 100)),
    "block is 3; pass floating": lambda: rotate(torch.ones(2, 6), 3),
    r"shape \(2, 6\), block is 4; pass floating": lambda: rotate(torch.ones(2, 6), 4),
    r"dtype torch.int8 and shape \(2, 4\)": lambda: rotate(torch.ones(2, 4).to(torch.int8), 4),
    r"block is 0; give a whole number": lambda: rotate(torch.ones(2, 4), 0),
    r"signs is \[.*\] with shape \(3,\); pass 4 numbers": lambda: rotate(
        torch.ones(2, 4), 4, torch.ones(3)
    ),
    r"signs is \[.*\] with shape \(4,\); pass 4 numbers": lambda: rotate(
        torch.ones(2, 4), 4, torch.zeros(4)
    ),
    r"x\[1, 2\] is nan, and no": lambda: rounded(NAN, E4M3, (3, 3)),
    r"x\[1, 2\] is nan, and no scale": lambda: block_scaled_matmul(NAN, NAN),
    r"x\[1, 2\] is nan, and no scale brings": lambda: Int8Linear.from_linear(nn.Linear(3, 3))(NAN),
    r"x\[1, 2\] is nan, and no scale brings it": lambda: FP8Linear(3, 3)(NAN),
    r"x\[1, 2\] is nan, and no scale brings it into": lambda: llm_int8_matmul(NAN, NAN),
    r"x\[1, 2\] is nan, and no scale brings it into range": lambda: smooth(NAN, NAN),
    r"x\[150, 7\] is inf, and no": lambda: llm_int8_matmul(BAD, torch.ones(2, 300)),
    r"x\[150, 7\] is inf, and no scale": lambda: smooth(torch.ones(2, 300), BAD),
    r"x has shape \(3,\); pass a matrix": lambda: quantize(torch.ones(3), E4M3),
    r"x has shape \(0, 3\); pass a matrix": lambda: quantize(torch.ones(0, 3), E4M3),
    "x has dtype torch.int64": lambda: quantize(torch.ones(2, 2, dtype=torch.int64), E4M3),
    r"block is \(0, 1\)": lambda: quantize(ONES, E4M3, (0, 1)),
    r"block is \(1,\)": lambda: quantize(ONES, E4M3, (1,)),  # type: ignore[arg-type]
    "scale 'fp16' is unknown": lambda: quantize(ONES, E4M3, scale="fp16"),  # type: ignore[arg-type]
    "rule 'up' is unknown": lambda: quantize(ONES, E4M3, rule="up"),  # type: ignore[arg-type]
    "A has 9 bits": lambda: IntFormat("A", 9),
    "w has dtype torch.float32": lambda: int8_matmul(BYTES, ONES),
    "x has dtype torch.int8 and shape": lambda: int8_matmul(BYTES[0], BYTES),
    r"x has shape \(2, 2\) and w \(2, 1\)": lambda: int8_matmul(BYTES, BYTES[:, :1]),
    r"x has shape \(3, 3\) and w \(2, 2\)": lambda: block_scaled_matmul(torch.ones(3, 3), ONES),
    r"x has shape \(2, 2\) and w \(3, 3\)": lambda: llm_int8_matmul(ONES, torch.ones(3, 3)),
    "threshold is 0": lambda: llm_int8_matmul(ONES, ONES, 0),
    "threshold is nan": lambda: llm_int8_matmul(ONES, ONES, math.nan),
    "alpha is 1.5": lambda: smooth(ONES, ONES, 1.5),
    "bits is 1;": lambda: accumulate(ONES, ONES, 1),
    "bits is 53": lambda: accumulate(ONES, ONES, 53),
    "promote_every is 100": lambda: accumulate(ONES, ONES, 14, 100),
    "promote_every is 0": lambda: accumulate(ONES, ONES, 14, 0),
    "weight has dtype torch.float32": lambda: Int8Linear(ONES, torch.ones(2)),
    r"x has shape \(2, 2\); pass \[..., 3\]": lambda: Int8Linear.from_linear(nn.Linear(3, 3))(ONES),
    r"x has shape \(2, 2\); pass \[..., 4\]": lambda: FP8Linear(4, 3)(ONES),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_is_named(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
