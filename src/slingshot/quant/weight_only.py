"""Linear layers whose weight alone is in few bits: a scale for each output, or for each group.

The input stays as it is. What shrinks is what must be read from memory, and a step of decoding
waits for that. Each layer is a few lines, `dequantize` and a product. For few rows in BF16 a kernel
of torch does both at once, without writing the floats down.

**The error.** A weight is off by at most half its scale s, so an output by ``Σ s/2 |x|``. Against
exact arithmetic on the dequantized weights w an output y = Σ x w is off by at most
``(K + 4) 2^-24 Σ|x||w|``, the sums in float32, and with x in BF16 by ``2^-8 (Σ|x||w| + 2 |y|)``
more: many rows meet INT4 weights rounded to BF16, and with INT8 are rounded before and after the
scale. A bias adds a rounding of the sum.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import BFloat16, Float, Float32, Int8
from torch import Tensor, nn

from slingshot.quant.blocks import INT8, as_matrix, quantize
from slingshot.quant.few_rows import Int4FewRows, int8_few_rows, pack_nibbles, unpack_nibbles
from slingshot.quant.linear import check_bias, check_features, check_state, counted
from slingshot.quant.matmul import multiply
from slingshot.quant.rounding import SMALLEST_SCALE
from slingshot.require import whole


class _WeightOnlyLinear(nn.Module):
    """What both share: the order of the steps, and scales that stay BF16 when a model is cast."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    in_features: int
    of_scales: ClassVar[tuple[str, ...]]  # the buffers in BF16

    def _register(self, bias: Tensor | None, **tensors: Tensor) -> None:
        """Keep what was passed, whose types and shapes have been checked."""
        check_bias(tensors["weight"], bias)
        for name, tensor in (*tensors.items(), ("bias", bias)):
            self.register_buffer(name, counted(None if tensor is None else tensor.detach()))
        positive = bool((self.scale > 0).all())
        if not positive or not bool(self.dequantize().isfinite().all()):
            raise ValueError(
                f"scale is from {self.scale.min().item():.3g} to {self.scale.max().item():.3g}; "
                "pass numbers above 0 with which all weights are within float32"
            )

    def dequantize(self) -> Float32[Tensor, "N K"]:
        """Return the weight ``[N, K]`` that the codes stand for."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "*M K"]) -> Float[Tensor, "*M N"]:
        """Return the product with ``x [..., K]``, in the dtype of x; ``ValueError`` for another K.

        It is computed in float32, or in float64 if x is that, and in BF16 as ``nn.Linear`` does.
        """
        check_features(x, self.in_features)
        rows = x.reshape(-1, self.in_features)
        output = self._few_rows(rows)
        if output is None:
            output = self._many_rows(rows)
        if self.bias is not None:
            output = output + self.bias
        return output.reshape(*x.shape[:-1], len(self.weight)).to(x.dtype)

    def _few_rows(self, rows: Float[Tensor, "M K"]) -> BFloat16[Tensor, "M N"] | None:
        """Return the product by a kernel that reads the codes, where that is faster."""
        raise NotImplementedError

    def _many_rows(self, rows: Float[Tensor, "M K"]) -> Float[Tensor, "M N"]:
        """Return the product with the dequantized weight."""
        weight = self.dequantize()
        if rows.dtype == torch.float16:
            rows = rows.float()  # in which torch is slow, and large sums are infinite
        return multiply(rows, weight.bfloat16() if rows.dtype == torch.bfloat16 else weight)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_WeightOnlyLinear":
        """Move as torch does, but leave the scales BF16: the kernels read no others."""
        before = {name: self.get_buffer(name) for name in self.of_scales}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, scale in before.items():
            if self.get_buffer(name).dtype != torch.bfloat16:
                setattr(self, name, scale.to(self.get_buffer(name).device))
        return self

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401 as torch's
        """Load as torch does, but no state of an ``nn.Linear``."""
        check_state(state, prefix)
        super()._load_from_state_dict(state, prefix, *args)

    def extra_repr(self) -> str:
        """Return the sizes, for ``print(linear)``."""
        n_outputs, has_bias = len(self.weight), self.bias is not None
        return f"in_features={self.in_features}, out_features={n_outputs}, bias={has_bias}"


class Int8WeightOnlyLinear(_WeightOnlyLinear):
    """A linear layer with INT8 weights and a scale for each output; inputs are not quantized.

    Called on ``x [..., K]`` of any floating-point dtype; fast in BF16. For inference: no gradient
    passes. Torchao calls it ``Int8WeightOnlyConfig``. The module says how far it may be off.
    """

    of_scales = ("scale",)

    def __init__(
        self,
        weight: Int8[Tensor, "N K"],
        scale: BFloat16[Tensor, "N"],
        bias: Float[Tensor, "N"] | None = None,
    ) -> None:
        """Take ``weight [N, K]`` int8, ``scale [N]`` and ``bias [N]``; see `from_linear`.

        Raises ``ValueError`` when they do not fit, and when a weight is beyond float32.
        """
        super().__init__()
        fits = weight.dtype == torch.int8 and weight.ndim == 2 and weight.numel() > 0
        if not fits or scale.dtype != torch.bfloat16 or scale.shape != weight.shape[:1]:
            raise ValueError(
                f"weight has dtype {weight.dtype} and shape {tuple(weight.shape)}, scale "
                f"{scale.dtype} and {tuple(scale.shape)}; pass int8 [N, K], not empty, and "
                "bfloat16 [N]"
            )
        self.in_features = weight.shape[1]
        self._register(bias, weight=weight, scale=scale)

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> "Int8WeightOnlyLinear":
        """Quantize the weight of ``linear``, absmax by output; ``ValueError`` for inf or NaN."""
        quantized = quantize(linear.weight, INT8, (1, None))
        scale = quantized.scale.bfloat16()  # the codes belong to what is stored
        codes = (as_matrix(linear.weight.detach()) / scale).round_().clamp_(-127, 127)
        return cls(codes.to(torch.int8), scale[:, 0], _copied(linear.bias))

    def dequantize(self) -> Float32[Tensor, "N K"]:
        """Return the weight ``[N, K]``: each code times the scale of its output."""
        return self.weight * self.scale[:, None].float()

    def _few_rows(self, rows: Float[Tensor, "M K"]) -> BFloat16[Tensor, "M N"] | None:
        return int8_few_rows(rows, self.weight, self.scale)

    def _many_rows(self, rows: Float[Tensor, "M K"]) -> Float[Tensor, "M N"]:
        """Multiply codes, which BF16 holds, and scale what comes out: less is to be written."""
        if rows.dtype == torch.bfloat16:
            product = multiply(rows, self.weight.bfloat16()).mul_(self.scale)
            if math.isfinite(product.sum()):
                return product
        return super()._many_rows(rows)


class Int4WeightOnlyLinear(_WeightOnlyLinear):
    """A linear layer with INT4 weights, two a byte; inputs are not quantized.

    A group of ``K / groups`` inputs of an output has a scale and a middle: code c, -8 to 7, stands
    for ``middle + c scale``. With 32 a weight has 4 + 2·16/32 = 5 bits. Called on ``x [..., K]`` of
    any floating-point dtype; fast in BF16. For inference: no gradient passes. Torchao calls it
    ``Int4WeightOnlyConfig``. The module says how far it may be off.
    """

    middle: Tensor
    of_scales = ("scale", "middle")

    def __init__(
        self,
        weight: Int8[Tensor, "N bytes"],
        scale: BFloat16[Tensor, "N groups"],
        middle: BFloat16[Tensor, "N groups"],
        in_features: int,
        bias: Float[Tensor, "N"] | None = None,
    ) -> None:
        """Take codes, the first of two in the lower half of its byte; see `from_linear`.

        Raises ``ValueError`` when sizes and types do not fit, and when a weight is beyond float32.
        """
        super().__init__()
        self.in_features = k = whole("in_features", in_features, 1)
        fits = weight.dtype == torch.int8 and weight.ndim == 2 and weight.numel() > 0
        fits = fits and weight.shape[1] == (k + 1) // 2
        for tensor in (scale, middle):
            fits = fits and tensor.dtype == torch.bfloat16 and tensor.shape == scale.shape
            fits = fits and tensor.ndim == 2 and len(tensor) == len(weight)
            fits = fits and tensor.shape[1] > 0 and k % tensor.shape[1] == 0
        if not fits:
            told = {"weight": weight, "scale": scale, "middle": middle}
            shapes = [f"{name} {t.dtype} and {tuple(t.shape)}" for name, t in told.items()]
            raise ValueError(
                f"in_features is {k} with {', '.join(shapes)}; pass int8 [N, (in_features + 1) // "
                "2], not empty, and twice bfloat16 [N, groups], groups that divide in_features"
            )
        self._register(bias, weight=weight, scale=scale, middle=middle)
        self._packed = Int4FewRows()  # keeps a second copy, and both are a quarter of float32

    @classmethod
    def from_linear(cls, linear: nn.Linear, group: int | None = 32) -> "Int4WeightOnlyLinear":
        """Quantize the weight of ``linear``, in groups of so many inputs; ``None`` for all of them.

        The sixteen steps go from the smallest to the largest weight of the group. Raises
        ``ValueError`` for a group that does not divide the inputs, and for inf or NaN.
        """
        weight = as_matrix(linear.weight.detach())
        n_inputs = weight.shape[1]
        group = n_inputs if group is None else whole("group", group, 1)
        if n_inputs % group:
            raise ValueError(f"group is {group} with {n_inputs} inputs; give a divisor, or None")
        quantize(weight, INT8)  # names what is not finite
        groups = weight.view(len(weight), -1, group)
        low, high = groups.aminmax(dim=-1, keepdim=True)
        # Both are rounded first, and the codes belong to what is stored.
        middle = (low + 8 * (high / 15 - low / 15)).bfloat16().to(low.dtype)
        reach = torch.maximum(high / 7 - middle / 7, middle / 8 - low / 8)
        scale = reach.bfloat16().clamp_min_(SMALLEST_SCALE)
        codes = ((groups - middle) / scale).round_().clamp_(-8, 7).to(torch.int8)
        sizes = scale[..., 0], middle[..., 0].bfloat16()
        return cls(pack_nibbles(codes.flatten(1)), *sizes, n_inputs, _copied(linear.bias))

    def dequantize(self) -> Float32[Tensor, "N K"]:
        """Return the weight ``[N, K]``: each code times the scale of its group, and its middle."""
        codes = unpack_nibbles(self.weight, self.in_features).float()
        groups = codes.view(*self.scale.shape, -1)
        return groups.mul_(self.scale[..., None]).add_(self.middle[..., None]).flatten(1)

    def _few_rows(self, rows: Float[Tensor, "M K"]) -> BFloat16[Tensor, "M N"] | None:
        return self._packed(rows, self.weight, self.scale, self.middle)


def _copied(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach().float().clone()
