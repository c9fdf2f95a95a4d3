"""Fast paths: products of bytes with a weight that is kept in an order the processor reads well.

`PackedProduct` takes rows, in oneDNN's order; `PackedRow` takes one row, in FBGEMM's. A row takes
as long as the weight takes to be read, and FBGEMM is nearer to that. Each call returns the product
or ``None``.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import torch
from jaxtyping import Float, Float32, Int8, Shaped, UInt8
from torch import Tensor, nn

from slingshot.quant.amx import has_amx
from slingshot.quant.blocks import Kept
from slingshot.quant.rounding import SMALLEST_SCALE

_Row = Callable[[Tensor, Tensor | None], tuple[Tensor, float]]

# Beyond it, K products of 255 and -128 no longer fit int32.
_MAX_K: Final = (2**31 - 1) // (255 * 128)


def fewest_rows() -> int:
    """From so many rows on the weight is packed: without AMX one is multiplied faster as it is."""
    return 1 if has_amx() else 2


class PackedProduct:
    """``(values [M, K] - 128) @ weight [N, K].T * scale [N]``, or ``None`` where that is no faster.

    The weight is put into the order in which the processor's integer units read it when it is first
    needed, and again when it has changed. Nothing of it is copied or stored: torch can do neither.
    """

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.packed = Kept(_pack)

    def __call__(
        self,
        values: UInt8[Tensor, "M K"],
        weight: Int8[Tensor, "N K"],
        scale: Float[Tensor, "N"],
    ) -> Float32[Tensor, "M N"] | None:
        """Return the product."""
        fits = len(values) >= fewest_rows() and weight.shape[1] <= _MAX_K
        if not fits or not _packed_is_exact():
            return None
        return _packed_matmul(values, self.packed(weight), scale)


class PackedRow:
    """One row in float32 times a weight, ``None`` where torch has no such kernel.

    The row is divided by a scale of its own and rounded, so that it is whole numbers from -127 to
    127, as `slingshot.quant.Int8Linear` does it. Like `PackedProduct` otherwise.
    """

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.packed = Kept(_pack_for_row)

    def __call__(
        self,
        row: Float32[Tensor, "*ones K"],
        weight: Int8[Tensor, "N K"],
        scale: Float32[Tensor, "N"],
        bias: Float[Tensor, "N"] | None,
    ) -> tuple[Float32[Tensor, "*ones N"], float] | None:
        """Return the product with ``bias`` added to it, and the scale of the row."""
        if weight.shape[1] > _MAX_K or not _row_is_exact():
            return None
        return self.packed(weight, scale)(row, bias)


def _pack(weight: Int8[Tensor, "N K"]) -> Shaped[Tensor, "*shape"]:
    """Return ``weight`` in oneDNN's order. Strides would be ignored."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)
    return packed


class _RowKernel(nn.Module):
    """A weight and its scale in FBGEMM's order, called on one row in float32, and on a bias.

    The kernel makes bytes of floats by itself. With a scale of 1, and 128 for zero, whole numbers
    are not rounded. TorchScript compiles it all to one call. Called from Python, torch finds out by
    an exception that ``packed`` is no tensor, and that takes as long as a small product.
    """

    def __init__(self, packed: Any) -> None:  # noqa: ANN401 an object of torch's own
        super().__init__()
        self.packed = packed
        self.smallest = SMALLEST_SCALE

    def forward(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, float]:
        row = x.reshape(1, -1)
        scale = torch.linalg.vector_norm(row, float("inf")).div_(127).item()
        if scale < self.smallest:  # NaN is not, and stays; TorchScript's max would lose it
            scale = self.smallest
        values = torch.mul(row, 1 / scale).round_()
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            values, 1.0, 128, self.packed
        ).mul_(scale)
        if bias is not None:
            product.add_(bias)
        return product.reshape(x.shape[:-1] + product.shape[1:]), scale


def _pack_for_row(weight: Int8[Tensor, "N K"], scale: Float32[Tensor, "N"]) -> _Row:
    """Return what multiplies a row by ``weight`` and by ``scale``."""
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    with warnings.catch_warnings():
        # Both are deprecated. Without them `_row_is_exact` is false, and rows take the other ways.
        for message in ("torch.quantize_per_tensor", "`torch.jit.script` is"):
            warnings.filterwarnings("ignore", message)
        quantized = torch._make_per_channel_quantized_tensor(
            weight.contiguous(), scale.double(), zeros, 0
        )
        packed = torch.ops.quantized.linear_prepack(quantized, None)
        kernel: _Row = torch.jit.script(_RowKernel(packed))
    return kernel


def _packed_matmul(
    values: UInt8[Tensor, "M K"], packed: Shaped[Tensor, "*shape"], scale: Float[Tensor, "N"]
) -> Float32[Tensor, "M N"]:
    """Return ``(values - 128) @ weight.T * scale``.

    It is what torch compiles quantized models to. On the left oneDNN is fast with unsigned bytes
    only; 128 times the sums over the weight are taken off again, in int32. ``torch._int_mm`` would
    pack the weight in each call, and leave the sums to be scaled in two more passes.
    """
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        values, 1.0, 128, packed, scale.float(), zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return product


@cache
def _packed_is_exact() -> bool:
    """Whether torch has that product, and it keeps the largest sums: VNNI or AMX do."""
    bytes_, extremes = torch.full((33, 64), 255, dtype=torch.uint8), torch.full((33, 64), -128)
    try:
        product = _packed_matmul(bytes_, _pack(extremes.to(torch.int8)), torch.ones(33))
    except (AttributeError, RuntimeError):
        return False
    return bool((product == -64 * 127 * 128).all())


@cache
def _row_is_exact() -> bool:
    """Whether torch has the kernel for one row, and it keeps the largest sums: VNNI does."""
    row, extremes = torch.full((1, 64), 127.0), torch.full((33, 64), -128)
    try:
        product, _ = _pack_for_row(extremes.to(torch.int8), torch.ones(33))(row, None)
    except Exception:  # TorchScript is not made for each Python, nor for no source
        return False
    return bool((product == -64 * 127 * 128).all())
