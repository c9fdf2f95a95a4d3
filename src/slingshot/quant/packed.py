"""A fast path: a product of bytes with a weight that is kept in the processor's own order."""

from functools import cache
from typing import Any, Final

import torch
from jaxtyping import Float, Float32, Int8, Shaped, UInt8
from torch import Tensor

from slingshot.quant.amx import has_amx
from slingshot.quant.blocks import version_of

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
        self.kept: tuple[Tensor, object, Tensor] | None = None  # of what, its version, packed

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
        version, kept = version_of(weight), self.kept
        if kept is None or kept[0] is not weight or kept[1] != version:
            self.kept = kept = (weight, version, _pack(weight))
        return _packed_matmul(values, kept[2], scale)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was packed."""
        return {"kept": None}


def _pack(weight: Int8[Tensor, "N K"]) -> Shaped[Tensor, "*shape"]:
    """Return ``weight`` in oneDNN's order. Strides would be ignored."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)
    return packed


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
