"""A fast path: few rows in BF16 times a weight in 8 or 4 bits, one call of a kernel of torch.

A row or a few take as long as the weight takes to be read. These kernels read it in few bits and
make floats of it in the processor's registers. Sums are float32, what comes out is rounded to BF16.
Each call here returns the product or ``None``.
"""

from functools import cache
from typing import Final

import torch
from jaxtyping import BFloat16, Int8, Shaped
from torch import Tensor
from torch.nn import functional as F

from slingshot.quant.blocks import Kept

# With more rows it takes less time to make BF16 of the weight and to multiply that.
_FEW: Final = {8: 12, 4: 96}

# The sizes of groups, and the multiples of outputs and inputs, that the kernels read right. Others
# the first refuses and the second reads beyond the end of the weight.
_GROUPS: Final = (32, 64, 128, 256)
_MULTIPLE: Final = 16


def int8_few_rows(
    x: Shaped[Tensor, "M K"], weight: Int8[Tensor, "N K"], scale: BFloat16[Tensor, "N"]
) -> BFloat16[Tensor, "M N"] | None:
    """Return ``x [M, K] @ weight [N, K].T * scale``."""
    if not _fits(x, 8) or x.shape[1] % _MULTIPLE or not _int8_is_right():
        return None
    product: Tensor = torch.ops.aten._weight_int8pack_mm(x.contiguous(), weight.contiguous(), scale)
    return product


class Int4FewRows:
    """``x [M, K] @ ((codes - 8) * scale + middle).T``, with codes of 4 bits, or ``None``.

    The codes are put into the kernel's order when they are first needed, and again when something
    has changed. Nothing of it is copied or stored.
    """

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.packed = Kept(_pack_int4)

    def __call__(
        self,
        x: Shaped[Tensor, "M K"],
        weight: Int8[Tensor, "N bytes"],
        scale: BFloat16[Tensor, "N groups"],
        middle: BFloat16[Tensor, "N groups"],
    ) -> BFloat16[Tensor, "M N"] | None:
        """Return the product; ``weight`` has two codes a byte, as `pack_nibbles` leaves them."""
        group, rest = divmod(x.shape[1], scale.shape[1])
        fits = _fits(x, 4) and not rest and group in _GROUPS and not len(weight) % _MULTIPLE
        if not fits or not _int4_is_right():
            return None
        packed, scale_and_middle = self.packed(weight, scale, middle)
        return _int4_matmul(x.contiguous(), packed, group, scale_and_middle)


def pack_nibbles(codes: Int8[Tensor, "N K"]) -> Int8[Tensor, "N bytes"]:
    """Return whole numbers from -8 to 7 two a byte, the first in the lower half."""
    if codes.shape[1] % 2:
        codes = F.pad(codes, (0, 1))
    return codes[:, ::2] & 15 | codes[:, 1::2] << 4


def unpack_nibbles(weight: Int8[Tensor, "N bytes"], n_codes: int) -> Int8[Tensor, "N K"]:
    """Return the first ``n_codes`` of each row; shifting a signed byte right keeps its sign."""
    return torch.stack([weight << 4 >> 4, weight >> 4], -1).flatten(1)[:, :n_codes]


def _fits(x: Tensor, bits: int) -> bool:
    """Whether a kernel takes ``x``; in float32 or float16 it would run for seconds."""
    return x.dtype == torch.bfloat16 and 0 < len(x) <= _FEW[bits]


def _pack_int4(
    weight: Int8[Tensor, "N bytes"],
    scale: BFloat16[Tensor, "N groups"],
    middle: BFloat16[Tensor, "N groups"],
) -> tuple[Shaped[Tensor, "*packed"], BFloat16[Tensor, "groups N 2"]]:
    """Return codes, and scales with middles, in the kernel's order; its codes are 0 to 15."""
    codes = unpack_nibbles(weight, 2 * weight.shape[1]).int() + 8
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    return packed, torch.stack([scale.T, middle.T], -1)


def _int4_matmul(
    x: BFloat16[Tensor, "M K"],
    packed: Shaped[Tensor, "*packed"],
    group: int,
    scale_and_middle: BFloat16[Tensor, "groups N 2"],
) -> BFloat16[Tensor, "M N"]:
    product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group, scale_and_middle)
    return product


@cache
def _int8_is_right() -> bool:
    """Whether torch has the kernel for this processor, and it multiplies what it should."""
    x, codes = _sample()
    scale = torch.full((len(codes),), 0.125, dtype=torch.bfloat16)
    large, eights = torch.full_like(x, 2.0**120), torch.full_like(codes, 8)
    try:
        product = torch.ops.aten._weight_int8pack_mm(x, codes, scale)
        # Codes meet their scale before they are added up, or this would be beyond float32.
        sums = torch.ops.aten._weight_int8pack_mm(large, eights, scale)
    except (AttributeError, RuntimeError):
        return False
    right = torch.equal(product.float(), x.float() @ codes.float().T / 8)
    return _is_vectorized() and right and bool((sums == 2.0**126).all())


@cache
def _int4_is_right() -> bool:
    """Whether torch has the kernel for this processor, and it multiplies what it should."""
    x, codes = _sample()
    codes = codes.clamp(-8, 7)
    scale, middle = (torch.full((len(codes), 2), v, dtype=torch.bfloat16) for v in (0.5, 2.0))
    try:
        packed, both = _pack_int4(pack_nibbles(codes), scale, middle)
        product = _int4_matmul(x, packed, 32, both)
    except (AttributeError, RuntimeError):
        return False
    return _is_vectorized() and torch.equal(product.float(), x.float() @ (codes.float() / 2 + 2).T)


def _sample() -> tuple[BFloat16[Tensor, "2 64"], Int8[Tensor, "32 64"]]:
    """Rows with a few ones, so that BF16 holds each sum, and codes that all differ by place."""
    x = torch.zeros(2, 64, dtype=torch.bfloat16)
    x[0, 5], x[1, 40] = 1, -1
    codes = (torch.arange(32 * 64).view(32, 64) * 7 % 17 - 8).to(torch.int8)
    return x, codes


def _is_vectorized() -> bool:
    """Elsewhere these kernels are loops over single numbers."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX")
