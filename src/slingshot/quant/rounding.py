"""A fast path: to round by adding, and to do it to blocks while they are in the cache.

`round_blocks` returns the result, or ``None`` where it cannot; `slingshot.quant.blocks` then does
the same in plain steps, which this room is tested against.
"""

import math
from functools import cache
from typing import Final

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from slingshot.formats import FloatFormat

SMALLEST_SCALE: Final = 2.0**-126
"""A normal number of float32: an all-zero block has it, and nothing divides by 0."""

# Elements that are taken at a time, half a MiB, which stays in the processor's cache.
_CHUNK: Final = 1 << 17


def round_blocks(
    x: Float[Tensor, "R C"], fmt: object, block: tuple[int, int], scale: str, *, dequantize: bool
) -> tuple[Float32[Tensor, "R C"], Float32[Tensor, "rows columns"]] | None:
    """Return values of ``x``, times their scales if ``dequantize``, and the scales.

    It is what `quantize` does, but 0 for -0, and several times as fast: all steps are done to a few
    rows before the next are read, so that they stay in the cache, and in the same memory. ``None``
    if it cannot: for other scales than float32, for integers, float64, blocks of unequal sizes,
    inf and NaN, and formats that `round_float32_` cannot round to.
    """
    ragged = any(size % part for size, part in zip(x.shape, block, strict=True))
    if not isinstance(fmt, FloatFormat) or not rounds_by_adding(fmt):
        return None
    if x.dtype == torch.float64 or scale != "fp32" or ragged:
        return None
    sizes = (x.shape[0] // block[0], 1, x.shape[1] // block[1], 1)
    result, scales = (torch.empty(size, dtype=torch.float32) for size in (x.shape, sizes))
    shape = (sizes[0], block[0], sizes[2], block[1])
    tiles = (x.reshape(shape), result.view(shape), scales)
    n_blocks = max(1, _CHUNK // (block[0] * x.shape[1]))
    scratch = [torch.empty_like(tiles[1][:n_blocks]) for _ in range(2)]
    for source, out, by in zip(*(torch.split(m, n_blocks) for m in tiles), strict=True):
        if len(source) < len(scratch[0]):
            scratch = [memory[: len(source)] for memory in scratch]
        piece = scratch[0] if dequantize else out
        torch.amax(torch.abs(source, out=piece), (1, 3), keepdim=True, out=by)
        by.div_(fmt.max).clamp_min_(SMALLEST_SCALE)
        # Nothing is beyond the maximum by more than float32's rounding.
        round_float32_(torch.div(source, by, out=piece), fmt, scratch[1])
        if dequantize:
            torch.mul(piece, by, out=out)
    if not math.isfinite(float(scales.amax())):
        return None
    return result, scales[:, 0, :, 0]


@cache
def rounds_by_adding(fmt: FloatFormat) -> bool:
    """Whether `round_float32_` rounds to ``fmt``, whose maximum at most is there to be rounded."""
    if fmt.mantissa_bits > 21 or fmt.min_normal < 2.0**-126:
        return False  # the sum would be in the next binade, or the first binade is not seen
    return fmt.max * 2.0 ** (25 - fmt.mantissa_bits) <= torch.finfo(torch.float32).max


def round_float32_(
    x: Float32[Tensor, "*shape"],
    fmt: FloatFormat,
    scratch: Float32[Tensor, "*shape"] | None = None,
) -> Float32[Tensor, "*shape"]:
    """Round float32 ``x`` in place as if ``fmt`` had no maximum, -0 becoming 0; return ``x``.

    The addition of the processor rounds. In a binade of ``fmt`` from 2^e the step is 2^(e-m). That
    is float32's own step at 1.5 · 2^(23-m+e). Add that number to x and subtract it again: what is
    finer than the step is rounded away, to nearest and even, for 1.5 · 2^23 is even. Among the
    subnormals e is that of the first binade. Up to the maximum equal to ``fmt.round``, which a test
    checks, and several times as fast. ``scratch``, as large as ``x``, saves finding memory.

    At the edge of float32 it cannot: the number that is added must be finite, and so must x. Of
    the formats here FP32 and BF16 are beyond it: ask `rounds_by_adding` first.
    """
    binade = torch.empty_like(x) if scratch is None else scratch  # 2^e
    bits = [m.view(torch.int32) for m in (x, binade)]
    torch.bitwise_and(bits[0], 0x7F800000, out=bits[1])
    binade.clamp_min_(fmt.min_normal)
    steps = 1.5 * 2.0 ** (23 - fmt.mantissa_bits)
    return x.add_(binade, alpha=steps).sub_(binade, alpha=steps)
