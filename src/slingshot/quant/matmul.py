"""Products of scaled matrices: block-scaled FP8, exact INT8, and what a short accumulator loses."""

import math
from functools import cache
from typing import Final

import torch
from jaxtyping import Float, Float32, Float64, Int8, Int32, Shaped
from torch import Tensor

from slingshot.formats import E4M3
from slingshot.quant.amx import product_in_tiles
from slingshot.quant.blocks import (
    Block,
    Format,
    Quantized,
    Scale,
    check_dense,
    check_finite,
    rounded,
)
from slingshot.require import whole
from slingshot.tensors import check_shapes

# Beyond it, K products of -128 and -128 no longer fit int32.
_MAX_K: Final = (2**31 - 1) // 128**2

# So many products of -128 and -128 make 2^24, up to which float32 has all whole numbers.
_EXACT_K: Final = 2**24 // 128**2


@torch.no_grad()
def block_scaled_matmul(
    x: Float[Tensor, "M K"] | Quantized,
    w: Float[Tensor, "N K"] | Quantized,
    fmt: Format = E4M3,
    x_block: Block = (1, 128),
    w_block: Block = (128, 128),
    scale: Scale = "fp32",
) -> Float[Tensor, "M N"]:
    """Return ``x [M, K] @ w [N, K].T``, both rounded to ``fmt`` in scaled blocks, as ``[M, N]``.

    It emulates: values are those of the low-precision product, sums are float32, or float64 if
    ``x`` or ``w`` is that. Whatever is `Quantized` already is used as it is, and of ``w`` what was
    made from it is kept for the next call. On a processor with AMX many rows are multiplied faster,
    in another order, if no other thread of Python runs: torch's switch for it holds for all.

    **The error** against exact arithmetic on the same values and scales: each factor is rounded
    once to float32, 2^-24 of it, when it meets its scale, and a sum of K terms in any order rounds
    fewer than K times. So ``|error| <= (K + 2) 2^-24 Σ|x||w|``, first order, and about √K in
    practice.

    Source: DeepSeek-V3, arXiv 2412.19437, §3.3.2. Raises ``ValueError`` as `quantize`, when the
    columns of ``x`` and ``w`` differ, and when a product is beyond float32.
    """
    check_columns(
        x.values if isinstance(x, Quantized) else x, w.values if isinstance(w, Quantized) else w
    )
    product = product_in_tiles(x, w, fmt, x_block, w_block, scale)
    if product is None:
        rows = x.dequantize() if isinstance(x, Quantized) else rounded(x, fmt, x_block, scale)
        columns = w.dequantized if isinstance(w, Quantized) else rounded(w, fmt, w_block, scale)
        product = multiply(rows, columns)
    return check_product(product)


def multiply(x: Float[Tensor, "M K"], w: Float[Tensor, "N K"]) -> Float[Tensor, "M N"]:
    """Return ``x @ w.T`` in the wider dtype of both, where autocast would take bf16, too."""
    if x.dtype != w.dtype:
        dtype = torch.promote_types(x.dtype, w.dtype)
        x, w = x.to(dtype), w.to(dtype)
    if not torch.is_autocast_enabled("cpu"):
        return x @ w.T
    with torch.autocast("cpu", enabled=False):
        return x @ w.T


def check_product(product: Float[Tensor, "M N"]) -> Float[Tensor, "M N"]:
    """Return ``product [M, N]`` of finite factors; ``ValueError`` for inf or NaN in it."""
    if not math.isfinite(product.sum()) and not bool(product.isfinite().all()):
        row, column = (int(i) for i in torch.nonzero(~product.isfinite())[0])
        raise ValueError(
            f"the product is {product[row, column].item()} at [{row}, {column}], beyond "
            f"{product.dtype}; divide x or w by a number first, and multiply afterwards"
        )
    return product


def int8_matmul(x: Int8[Tensor, "M K"], w: Int8[Tensor, "N K"]) -> Int32[Tensor, "M N"]:
    """Return ``x [M, K] @ w [N, K].T`` of int8 matrices, exactly, as int32 ``[M, N]``.

    It is integer arithmetic: int8 products summed in int32, by the processor's VNNI or AMX units if
    it has them. Where torch cannot do that, or not exactly, float32 does, a few columns at a time.

    Raises ``ValueError`` for matrices that are not int8, whose columns differ, or are so many (over
    131,071) that a sum could leave int32.
    """
    for name, matrix in (("x", x), ("w", w)):
        if not isinstance(matrix, Tensor) or matrix.dtype != torch.int8 or matrix.ndim != 2:
            kind = type(matrix).__name__
            if isinstance(matrix, Tensor):
                kind = f"dtype {matrix.dtype} and shape {tuple(matrix.shape)}"
            raise ValueError(
                f"{name} has {kind}; pass an int8 matrix, for example the values of "
                "quantize(..., INT8)"
            )
    check_columns(x, w)
    return int8_sums(x, w)


def int8_sums(x: Int8[Tensor, "M K"], w: Int8[Tensor, "N K"]) -> Int32[Tensor, "M N"]:
    """Return what `int8_matmul` does, of matrices that have been checked, but for too many columns.

    One row of input is multiplied in less time than all the checks would take.
    """
    if x.shape[1] > _MAX_K:
        raise ValueError(
            f"x and w have {x.shape[1]} columns, and int32 holds sums of {_MAX_K} products; split "
            "them and add in int64"
        )
    # With one column torch 2.13 takes the view of w for its transpose, and the product is wrong.
    if x.shape[1] == 1 or not x.numel() or not w.numel() or not _int_mm_is_exact():
        total = torch.zeros(len(x), len(w), dtype=torch.int32)
        for a, b in zip(torch.split(x, _EXACT_K, 1), torch.split(w, _EXACT_K, 1), strict=True):
            total += multiply(a.float(), b.float()).to(torch.int32)
        return total
    # One row that was expanded to many is read wrongly, too.
    x, w = (m.contiguous() if 0 in m.stride() else m for m in (x, w))
    # As a view: a row of w is a column of w.T, and lies together in memory.
    return torch._int_mm(x, w.T)


@cache
def _int_mm_is_exact() -> bool:
    """Whether torch multiplies int8 here, and keeps the largest sums.

    Processors without VNNI add pairs of products in 16 bits, which saturate. They add 128 to what
    is on the left, so 127 there is the largest number and -128 is 0.
    """
    left, right = (torch.full((33, 64), value, dtype=torch.int8) for value in (127, -128))
    try:
        product = torch._int_mm(left, right.T)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return bool((product == -64 * 127 * 128).all())


@torch.no_grad()
def accumulate(
    a: Shaped[Tensor, "M K"],
    b: Shaped[Tensor, "N K"],
    bits: int = 14,
    promote_every: int | None = 128,
    *,
    group: int = 32,
) -> Float32[Tensor, "M N"]:
    """Return ``a [M, K] @ b [N, K].T`` as an accumulator of ``bits`` bits would sum it.

    A tensor core takes ``group`` products at a time. It shifts them, and the sum so far, to the
    exponent of the largest, keeps ``bits`` bits of each, and cuts off the rest. After every
    ``promote_every`` products the sum is added to another in float32 and begins again; ``None``
    never does that. What is cut off always is toward zero, so the losses add up.

    **The bound.** With 2^e the binade of the largest, each of the ``group`` + 1 terms loses less
    than 2^(e+1-bits).

    Source: DeepSeek-V3, arXiv 2412.19437, §3.3.2 and §3.5.2: about 14 bits on the H800, N_C = 128.
    The paper does not say more; this is a model of it. Raises ``ValueError`` for ``bits`` outside 2
    to 52, columns that differ, a ``promote_every`` that is no multiple of ``group``, inf or NaN,
    and a sum beyond float32.
    """
    check_columns(a, b)
    bits, group = whole("bits", bits), whole("group", group, 1)
    if not 2 <= bits <= 52:
        raise ValueError(f"bits is {bits}; give 2 to 52, which float64 can simulate")
    if promote_every is not None:
        promote_every = whole("promote_every", promote_every, -math.inf)
        if promote_every < 1 or promote_every % group:
            raise ValueError(
                f"promote_every is {promote_every}; give None or a multiple of {group}"
            )
    for matrix in (a, b):
        if matrix.numel() and (matrix.is_floating_point() or matrix.is_complex()):
            check_finite(matrix)
    total = torch.zeros(len(a), len(b), dtype=torch.float32)
    partial = torch.zeros(len(a), len(b), dtype=torch.float64)
    for start in range(0, a.shape[1], group):
        columns = slice(start, start + group)
        products = a[:, None, columns].double() * b[None, :, columns].double()
        partial = _add_aligned(torch.cat([partial[..., None], products], -1), bits)
        if promote_every is not None and (start + group) % promote_every == 0:
            total += partial.float()
            partial.zero_()
    return check_product(total + partial.float())


def _add_aligned(terms: Float64[Tensor, "M N terms"], bits: int) -> Float64[Tensor, "M N"]:
    """Add along the last dimension, of each term only what the largest one's ``bits`` bits hold."""
    exponent = torch.frexp(terms.abs().amax(-1, keepdim=True))[1]  # the largest is below 2^exponent
    ones = torch.ones_like(terms[..., :1])
    # Not below float64's smallest normal number, which float32 has as 0.
    step = torch.ldexp(ones, (exponent - bits).clamp_min(-1022))
    return ((terms / step).trunc_() * step).sum(-1)


def check_columns(x: Tensor, w: Tensor) -> None:
    """Raise ``ValueError`` unless ``x [M, K]`` and ``w [N, K]`` have the same columns."""
    for name, matrix in (("x", x), ("w", w)):
        check_dense(name, matrix)
    check_shapes("pass [M, K] and [N, K] with the same K", x=x, w=w)
