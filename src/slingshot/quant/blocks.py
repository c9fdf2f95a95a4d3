"""Scaled blocks: a tensor in few bits, and one scale for each block of it.

A format of 8 or 4 bits covers few powers of two. So a tensor is cut into blocks, each block is
divided by a scale that brings its largest element near the format's maximum, and what is left is
rounded. Multiplying by the scale gives the numbers back, as far as they were kept.

**The error.** Let m be the bits of the mantissa, u = 2^-(m+1), s the scale, and 2^e the format's
smallest normal. Rounding to nearest moves x / s by at most half a step. In the binade from 2^b
that is u 2^b. A number moved so far is at least (1 + u) 2^b, the first tie, so it is at most
u / (1 + u) of the number: 1/17 in E4M3. Among the subnormals it is u 2^e. So without saturation,
and but for float32's own rounding,

    ``|x - dequantized| <= max(u / (1 + u) |x|, u 2^e s)``.

For integers all steps are 1, and the bound is s / 2. `Quantized.error_bound` computes it.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar, get_args

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor
from torch.nn import functional as F

from slingshot import require
from slingshot.formats import E2M1, E4M3, E8M0, FloatFormat
from slingshot.quant.rounding import (
    SMALLEST_SCALE,
    round_blocks,
    round_float32_,
    rounds_by_adding,
)
from slingshot.require import whole

_Made = TypeVar("_Made")

Block = tuple[int | None, int | None]
"""Rows and columns of a block; ``None`` takes all there are. So ``(None, None)`` is one scale for
the tensor, ``(1, None)`` one for each row, ``(None, 1)`` one for each column."""

Scale = Literal["fp32", "e8m0", "e4m3", "none"]
"""How a scale is stored: any float32, a power of two, or E4M3 times one float32 for the whole
tensor, as NVFP4 does. With ``"none"`` all scales are 1."""

Rule = Literal["ceil", "floor"]
"""How a power of two is chosen. ``"ceil"``: the first at which nothing saturates,
2^ceil(log2(amax / max)), as DeepSeek does. ``"floor"``: 2^(floor(log2 amax) - emax), emax the
exponent of the format's maximum, as OCP's MX specification does. The latter keeps up to a bit more,
and an element between the maximum and the next power of two saturates: in E4M3, 448 to 512."""


@dataclass(frozen=True)
class IntFormat:
    """Signed integers of ``bits`` bits, as many below zero as above: INT8 is -127 to 127."""

    name: str
    bits: int

    def __post_init__(self) -> None:
        """Check the number of bits."""
        object.__setattr__(self, "bits", whole(f"{self.name}'s bits", self.bits))
        if not 2 <= self.bits <= 8:
            raise ValueError(f"{self.name} has {self.bits} bits; give 2 to 8")

    @property
    def max(self) -> float:
        """The largest value."""
        return float(2 ** (self.bits - 1) - 1)


INT8: Final = IntFormat("INT8", 8)
INT4: Final = IntFormat("INT4", 4)

Format = FloatFormat | IntFormat

Combine = Callable[[Tensor, Tensor], Tensor]


class Setting(NamedTuple):
    """What `quantize` takes after the tensor: ``quantize(x, *MXFP8)``."""

    fmt: Format
    block: Block = (None, None)
    scale: Scale = "fp32"
    rule: Rule = "ceil"


MXFP8: Final = Setting(E4M3, (1, 32), "e8m0", "floor")
MXFP4: Final = Setting(E2M1, (1, 32), "e8m0", "floor")
NVFP4: Final = Setting(E2M1, (1, 16), "e4m3", "ceil")


@dataclass(frozen=True)
class Quantized:
    """A matrix as values of a format and one scale for each block.

    ``values [R, C]`` are int8 for integers; otherwise float, each one a value of ``fmt``
    (``fmt.encode`` gives its code). ``scale [ceil(R / rows), ceil(C / columns)]`` multiplies them,
    and ``block`` is (rows, columns), of which the last in a row or column of blocks may be smaller.
    """

    values: Shaped[Tensor, "R C"]
    scale: Float[Tensor, "rows columns"]
    block: tuple[int, int]
    fmt: Format

    def dequantize(self) -> Float[Tensor, "R C"]:
        """Return values times scales, ``[R, C]``, in the dtype of the scale.

        Of a number that rounds up beyond the dtype, its largest.
        """
        values = _by_block(self.values.to(self.scale.dtype), self.scale, self.block, torch.mul)
        return _within_range_(values, float(self.scale.max()) * self.fmt.max)

    @property
    def by_column(self) -> Shaped[Tensor, "blocks R columns"]:
        """The values ``[blocks, R, columns]``: those of a column of blocks lie together; kept."""
        if self.values.shape[1] % self.block[1]:
            raise ValueError(
                f"{self.values.shape[1]} columns are no multiple of the block's {self.block[1]}; "
                "give whole blocks"
            )
        shape = (len(self.values), -1, self.block[1])
        return self._keep(
            "by_column", lambda: self.values.reshape(shape).transpose(0, 1).contiguous()
        )

    @property
    def dequantized(self) -> Float[Tensor, "R C"]:
        """The result of `dequantize`, kept until values or scales change in place."""
        return self._keep("dequantized", self.dequantize)

    def _keep(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        versions = (version_of(self.values), version_of(self.scale))
        kept: tuple[object, Tensor] | None = self.__dict__.get(f"_{name}")
        if kept is None or kept[0] != versions:
            kept = self.__dict__[f"_{name}"] = (versions, make())
        return kept[1]

    def error_bound(self, x: Float[Tensor, "R C"]) -> Float64[Tensor, "R C"]:
        """Return how far each element of ``x [R, C]`` can be from what became of it.

        The bound of this module, for elements that did not saturate. ``x`` is what was quantized.
        """
        check_finite(x)
        size = as_matrix(x).double().abs()
        if size.shape != self.values.shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; pass what was quantized, {tuple(self.values.shape)}"
            )
        step = torch.ones_like(size)
        relative, absolute = 0.0, 0.5
        if isinstance(self.fmt, FloatFormat):
            half_step = 2.0 ** -(self.fmt.mantissa_bits + 1)
            relative = half_step / (1 + half_step)
            absolute = self.fmt.min_subnormal / 2
        step = _by_block(step, self.scale.double(), self.block, torch.mul)
        # Twice float32 rounds: x / s before the format does, and value times s afterwards.
        return torch.maximum(relative * size, absolute * step) + 2.0**-22 * size


@torch.inference_mode(False)
@torch.no_grad()
def quantize(
    x: Float[Tensor, "R C"],
    fmt: Format,
    block: Block = (None, None),
    scale: Scale = "fp32",
    rule: Rule = "ceil",
    *,
    generator: torch.Generator | None = None,
) -> Quantized:
    """Divide each block of ``x [R, C]`` by its own scale and round it to ``fmt``.

    The scale is amax / ``fmt.max``, amax the largest magnitude in the block, stored as ``scale``
    says; for a power of two ``rule`` says which. It never is 0: an all-zero block has the smallest
    scale there is. Rounding is to nearest, ties to even, and saturates at ``fmt.max``. ``x`` is
    computed with in float32, or float64 if it is that. Gradients do not pass.

    With a ``generator`` rounding is stochastic: a number between two values becomes either, the
    nearer one more often, so that its mean is the number itself.

    Sources: DeepSeek-V3, arXiv 2412.19437, §3.3.2, for 1×128 and 128×128 blocks; Rouhani et al.,
    arXiv 2310.10537, for MX; NVIDIA, arXiv 2509.25149, for NVFP4; absmax: Dettmers et al., arXiv
    2208.07339, eq. 1; stochastic rounding: Gupta et al., arXiv 1502.02551, §3.

    Raises ``ValueError`` for inf or NaN in ``x``, naming the first; for ``x`` that is not a
    floating-point matrix on the CPU; for magnitudes that need a larger scale than is stored (of
    float64, or with a ``fmt`` of small numbers); and for an unknown ``fmt``, ``block``, ``scale``
    or ``rule``.
    """
    x = as_matrix(x)
    _check_format(fmt)
    sizes = block_sizes(block, x)
    require.one_of(get_args(Scale), scale=scale)
    require.one_of(get_args(Rule), rule=rule)
    scales = _scale_of(_amax(x, sizes), fmt, scale, rule)
    values = _by_block(x, scales, sizes, torch.div)
    if generator is not None:
        return Quantized(_round_by_lot(values, fmt, generator), scales, sizes, fmt)
    return Quantized(_round(values, fmt), scales, sizes, fmt)


def rounded(
    x: Float[Tensor, "R C"], fmt: Format, block: Block, scale: Scale = "fp32"
) -> Float[Tensor, "R C"]:
    """Return what ``quantize(x, fmt, block, scale).dequantize()`` returns, but 0 for -0.

    Faster where `round_blocks` does it. Raises ``ValueError`` as they do.
    """
    x = as_matrix(x)
    _check_format(fmt)
    fast = round_blocks(x, fmt, block_sizes(block, x), scale, dequantize=True)
    if fast is None:
        return quantize(x, fmt, block, scale).dequantize()
    values, scales = fast
    return _within_range_(values, float(scales.amax()) * fmt.max)


@torch.inference_mode(False)
@torch.no_grad()
def quantize_unsigned_zero(
    x: Float[Tensor, "R C"], fmt: Format, block: Block, scale: Scale
) -> Quantized:
    """Return what `quantize` does, but 0 for -0, and faster where `round_blocks` does it."""
    x = as_matrix(x)
    _check_format(fmt)
    sizes = block_sizes(block, x)
    fast = round_blocks(x, fmt, sizes, scale, dequantize=False)
    return quantize(x, fmt, block, scale) if fast is None else Quantized(*fast, sizes, fmt)


def _within_range_(values: Float[Tensor, "R C"], largest: float) -> Float[Tensor, "R C"]:
    """Take ``values`` that became infinite to the largest number, if ``largest`` is beyond it."""
    info = torch.finfo(values.dtype)
    return values.clamp_(info.min, info.max) if largest > info.max else values


def version_of(tensor: Tensor) -> object:
    """Return what differs after each change of ``tensor`` in place (but through ``.data``).

    Inference tensors do not count their changes, so theirs always differs.
    """
    try:  # to ask `is_inference` first takes as long again
        return tensor._version
    except RuntimeError:
        return object()


class Kept(Generic[_Made]):
    """What ``make`` has made of some tensors, until they are others or change in place.

    Nothing of it is copied or stored with the layer that keeps it.
    """

    def __init__(self, make: Callable[..., _Made]) -> None:
        """Keep nothing yet; ``make`` is called with the tensors."""
        self.make = make
        self.kept: tuple[tuple[Tensor, ...], list[object], _Made] | None = None

    def __call__(self, *made_of: Tensor) -> _Made:
        """Return what is made of these tensors."""
        kept, versions = self.kept, [version_of(tensor) for tensor in made_of]
        if kept is None or versions != kept[1] or any(map(operator.is_not, made_of, kept[0])):
            self.kept = kept = (made_of, versions, self.make(*made_of))
        return kept[2]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is kept."""
        return {"make": self.make, "kept": None}


def _scale_of(
    amax: Float[Tensor, "rows columns"], fmt: Format, scale: Scale, rule: Rule
) -> Float[Tensor, "rows columns"]:
    """Return the scales for ``amax``, one for each block, in its dtype."""
    if scale == "none":
        return torch.ones_like(amax)
    largest = float(amax.max())
    limit = E8M0.max if scale == "e8m0" else torch.finfo(torch.float32).max
    needed = largest / (fmt.max * (E4M3.max if scale == "e4m3" else 1))
    if scale == "e8m0":
        needed = float(_power_of_two(amax.max().double(), fmt, rule))
    if needed > limit:
        raise ValueError(
            f"the largest magnitude of x is {largest:.6g}, which in {fmt.name} needs a scale of "
            f"{needed:.3g}, and {scale} ends at {limit:.3g}; divide x by a number first"
        )
    if scale == "fp32":
        return (amax / fmt.max).float().clamp_min(SMALLEST_SCALE).to(amax.dtype)
    if scale == "e8m0":
        return _power_of_two(amax, fmt, rule).clamp(E8M0.min_normal, E8M0.max).to(amax.dtype)
    # The largest block's scale becomes E4M3's maximum, and its largest element fmt.max.
    tensor_scale = (
        (amax.amax() / (E4M3.max * fmt.max)).float().clamp_min(SMALLEST_SCALE).to(amax.dtype)
    )
    block_scale = _round(amax / fmt.max / tensor_scale, E4M3)
    return block_scale.clamp_min(E4M3.min_subnormal) * tensor_scale


def _power_of_two(
    amax: Float[Tensor, "*blocks"], fmt: Format, rule: Rule
) -> Float64[Tensor, "*blocks"]:
    """Return the power of two for ``amax``, however large; the smallest for 0."""
    # frexp is exact: amax = mantissa · 2^exponent, 1/2 <= mantissa < 1. So is the comparison, and
    # a logarithm would be neither.
    mantissa, exponent = torch.frexp(amax)
    max_mantissa, max_exponent = math.frexp(fmt.max)
    exponent = exponent - max_exponent
    if rule == "ceil":
        exponent = exponent + (mantissa > max_mantissa).to(exponent.dtype)
    exponent = torch.where(amax > 0, exponent, -E8M0.bias)
    return torch.ldexp(torch.ones_like(amax, dtype=torch.float64), exponent)


def _round(x: Float[Tensor, "R C"], fmt: Format) -> Shaped[Tensor, "R C"]:
    """Round ``x``, which may be overwritten, to values of ``fmt``, ties to even, and saturate."""
    if isinstance(fmt, IntFormat):
        return x.round_().clamp_(-fmt.max, fmt.max).to(torch.int8)
    if x.dtype == torch.float64 or not rounds_by_adding(fmt):
        return torch.from_numpy(fmt.round(x.numpy(), saturate=True))
    return torch.copysign(round_float32_(x.clamp(-fmt.max, fmt.max), fmt), x)


def _round_by_lot(
    x: Float[Tensor, "R C"], fmt: Format, generator: torch.Generator
) -> Shaped[Tensor, "R C"]:
    """Round ``x`` to the value of ``fmt`` below or above, by lot, and saturate.

    It goes up with the share of the step that lies below it. So a value of ``fmt`` stays.
    """
    x = x.clamp(-fmt.max, fmt.max)
    step = _step_at(x, fmt) if isinstance(fmt, FloatFormat) else torch.ones_like(x)
    steps = x.div_(step)
    below = steps.floor()
    drawn = torch.rand(x.shape, generator=generator, dtype=x.dtype)
    values = below.add_(drawn < steps.sub_(below)).mul_(step)
    return values.to(torch.int8) if isinstance(fmt, IntFormat) else values


def _step_at(x: Float[Tensor, "R C"], fmt: FloatFormat) -> Float[Tensor, "R C"]:
    """Return how far apart the values of ``fmt`` lie around each element of ``x``."""
    least, floats = fmt.min_normal, torch.finfo(torch.float32)
    if x.dtype == torch.float32 and least * 2.0**-fmt.mantissa_bits >= floats.tiny:
        # The bits of the exponent alone are the power of two where the binade of x begins.
        smallest = int(torch.tensor(least).view(torch.int32))
        binade = (x.view(torch.int32) & 0x7F800000).clamp_min_(smallest)
        return binade.sub_(fmt.mantissa_bits << 23).view(torch.float32)
    # frexp is exact: 2^(exponent - 1) is where it begins.
    exponent = torch.frexp(x)[1] - 1
    least_exponent = math.frexp(least)[1] - 1
    exponent = exponent.clamp_min(least_exponent) - fmt.mantissa_bits
    return torch.ldexp(torch.ones_like(x), exponent)


def _amax(x: Float[Tensor, "R C"], block: tuple[int, int]) -> Float[Tensor, "rows columns"]:
    """Return the largest magnitude in each block, and refuse what is not finite."""
    # aminmax in one pass would be several times slower than abs and amax in two.
    amax = _tiles(x.abs(), block).amax((1, 3))
    if not bool(amax.isfinite().all()):
        row, column = (int(i) for i in torch.nonzero(~x.isfinite())[0])
        raise ValueError(
            f"x[{row}, {column}] is {x[row, column].item()}, and no scale brings it into range; "
            "replace it first, for example with torch.nan_to_num"
        )
    return amax


def check_finite(x: Tensor) -> None:
    """Raise ``ValueError`` as `quantize` does: for inf and NaN, and what is no matrix of floats."""
    _amax(as_matrix(x), (x.shape[0], x.shape[1]))


def _by_block(
    x: Float[Tensor, "R C"],
    by: Float[Tensor, "rows columns"],
    block: tuple[int, int],
    combine: Combine,
) -> Float[Tensor, "R C"]:
    """Combine each element of ``x`` with the element of ``by`` that its block has."""
    rows, columns = x.shape
    combined = combine(_tiles(x, block), by[:, None, :, None])
    a, b, c, d = combined.shape
    return combined.reshape(a * b, c * d)[:rows, :columns]


def _tiles(
    x: Float[Tensor, "R C"], block: tuple[int, int]
) -> Float[Tensor, "rows height columns width"]:
    """View ``x`` as rows and columns of blocks, zeros added where the last ones are ragged."""
    (rows, columns), (height, width) = x.shape, block
    missing = (-columns % width, -rows % height)
    if any(missing):
        x = F.pad(x, (0, missing[0], 0, missing[1]))
    return x.reshape(x.shape[0] // height, height, x.shape[1] // width, width)


def check_dense(name: str, x: Tensor) -> None:
    """Raise ``ValueError`` for what is no tensor, has no numbers in this memory, or only some."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} is a {type(x).__name__}; pass a torch.Tensor")
    if x.device.type != "cpu" or x.layout != torch.strided:
        raise ValueError(
            f"{name} is on the device {x.device.type} with layout {x.layout}; pass a dense tensor "
            "on the CPU"
        )


def as_matrix(x: Float[Tensor, "R C"]) -> Float[Tensor, "R C"]:
    """Return ``x [R, C]`` in float32, or float64 if it is that; ``ValueError`` for what is none."""
    check_dense("x", x)
    if x.ndim != 2 or not x.numel():
        raise ValueError(f"x has shape {tuple(x.shape)}; pass a matrix of at least one element")
    if not x.is_floating_point():
        raise ValueError(f"x has dtype {x.dtype}; pass floating-point numbers")
    return x.detach() if x.dtype == torch.float64 else x.detach().float()


def _check_format(fmt: Format) -> None:
    if not isinstance(fmt, FloatFormat | IntFormat) or (
        isinstance(fmt, FloatFormat) and not fmt.signed
    ):
        raise ValueError(f"fmt is {fmt}; give a signed FloatFormat such as E4M3, or an IntFormat")


def block_sizes(block: Block, x: Tensor) -> tuple[int, int]:
    """Return the rows and columns of a block, at most those of ``x``."""
    try:
        rows, columns = (
            size if part is None else whole("", part, 1)
            for part, size in zip(block, x.shape, strict=True)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"block is {block}; give (rows, columns), each at least 1 or None for all"
        ) from error
    return min(rows, x.shape[0]), min(columns, x.shape[1])
