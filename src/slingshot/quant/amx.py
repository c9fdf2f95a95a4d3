"""A fast path: block-scaled products in the tiles of a processor that has AMX.

`product_in_tiles` returns the product, or ``None`` where there are no tiles or they do not pay.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor

from slingshot.formats import E2M1, E2M3, E3M2, E4M3, E5M2
from slingshot.quant.blocks import (
    Block,
    Format,
    Quantized,
    Scale,
    block_sizes,
    quantize_unsigned_zero,
)

# From so many rows on, multiplying block by block in tiles pays.
_MANY_ROWS: Final = 64

# Rows and columns of a product, 1 MiB, that with its sum stays in the processor's cache.
_PANEL: Final = (256, 1024)

# bf16 has 8 bits of precision and the exponents of float32: more than all of these.
_BF16_HOLDS: Final = (E5M2, E4M3, E3M2, E2M3, E2M1)


def product_in_tiles(
    x: Shaped[Tensor, "M K"] | Quantized,
    w: Shaped[Tensor, "N K"] | Quantized,
    fmt: Format,
    x_block: Block,
    w_block: Block,
    scale: Scale,
) -> Float[Tensor, "M N"] | None:
    """Return ``x [M, K] @ w [N, K].T`` of matrices that are `Quantized`, or are quantized here.

    ``None`` for few rows, without AMX, while another thread of Python runs, and for formats,
    blocks and scales with which tiles would be slower or wrong.
    """
    n_rows = len(x.values if isinstance(x, Quantized) else x)
    if n_rows < _MANY_ROWS or not has_amx() or not _is_only_thread():
        return None
    left, right = _whole_blocks(x, fmt, x_block), _whole_blocks(w, fmt, w_block)
    if left is None or right is None or left[1] != right[1] or left[1] < 128 or right[0] < 32:
        return None
    x = x if isinstance(x, Quantized) else quantize_unsigned_zero(x, fmt, x_block, scale)
    w = w if isinstance(w, Quantized) else quantize_unsigned_zero(w, fmt, w_block, scale)
    if not math.isfinite(x.scale.max() * w.scale.max()):
        return None
    return _sum_of_blocks(x, w)


@cache
def has_amx() -> bool:
    """Whether the processor multiplies int8 and bf16 in tiles, as far as torch can say."""
    try:
        return bool(torch.cpu._is_amx_tile_supported())
    except (AttributeError, RuntimeError):
        return False


def _is_only_thread() -> bool:
    """Whether no other thread could call torch: nobody but this one could start it."""
    return len(sys._current_frames()) == 1


def _whole_blocks(m: Tensor | Quantized, fmt: Format, block: Block) -> tuple[int, int] | None:
    """The sizes of the blocks of ``m``, if bf16 holds its values and all blocks are whole."""
    if isinstance(m, Quantized):
        values, fmt, sizes = m.values, m.fmt, m.block
    elif m.numel():
        values, sizes = m, block_sizes(block, m)
    else:
        return None
    if fmt not in _BF16_HOLDS or not values.is_floating_point() or values.dtype == torch.float64:
        return None
    whole = all(size % part == 0 for size, part in zip(values.shape, sizes, strict=True))
    return sizes if whole else None


def _sum_of_blocks(x: Quantized, w: Quantized) -> Float32[Tensor, "M N"]:
    """Add up the products of blocks, each multiplied without scales and scaled as it is added.

    DeepSeek's kernel does this, and here AMX multiplies: it rounds factors to bf16, and these
    values are bf16 numbers. Products and sums are float32. So no error is added, and it is faster
    than one product in float32, for which there are no tiles.
    """
    output = torch.empty(len(x.values), len(w.values), dtype=torch.float32)
    columns = x.values.view(len(output), -1, x.block[1]).transpose(0, 1)
    x_scale = x.scale.repeat_interleave(x.block[0], 0).T.contiguous()
    w_scale = w.scale.T.contiguous()
    height = w.block[0]
    n_rows, n_blocks = _PANEL[0], max(1, _PANEL[1] // height)
    with _bf16_factors():
        for i in range(0, len(output), n_rows):
            for j in range(0, len(w.scale), n_blocks):
                rows, blocks = slice(i, i + n_rows), slice(j, j + n_blocks)
                outputs = slice(j * height, (j + n_blocks) * height)
                total, product = (torch.empty_like(output[rows, outputs]) for _ in range(2))
                sums, terms = (m.view(len(m), -1, height) for m in (total, product))
                scales = x_scale[:, rows, None, None] * w_scale[:, None, blocks, None]
                for k, (left, right) in enumerate(zip(columns, w.by_column, strict=True)):
                    torch.mm(left[rows], right[outputs].T, out=product)
                    sums.addcmul_(terms, scales[k]) if k else torch.mul(terms, scales[k], out=sums)
                output[rows, outputs] = total
    return output


@contextmanager
def _bf16_factors() -> Iterator[None]:
    """Let torch round the factors of float32 products to bf16: in all threads of this process.

    Torch multiplies bf16 into float32 in no other way on a CPU (``mm`` of bf16 rounds the result).
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
