"""Linear layers in few bits: one runs in INT8, one shows what a scheme loses, one trains in FP8."""

import copy
import math
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any, ClassVar, Final, Generic, NamedTuple, Self, TypeVar

import torch
from jaxtyping import Float, Float32, Int8, UInt8
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from slingshot import require
from slingshot.formats import E4M3
from slingshot.quant.blocks import (
    INT8,
    Block,
    Format,
    Scale,
    Setting,
    check_dense,
    check_finite,
    quantize,
    rounded,
)
from slingshot.quant.matmul import check_product, int8_matmul, int8_sums, multiply
from slingshot.quant.packed import PackedProduct, PackedRow, fewest_rows
from slingshot.quant.rounding import SMALLEST_SCALE

M = TypeVar("M", bound=nn.Module)
Recipe = TypeVar("Recipe")

# Elements of activations that are quantized at a time, half a MiB, so that they stay in the cache.
_CHUNK: Final = 1 << 17

# Added to a float32 of at most 127, it leaves no bits for a fraction: the sum is rounded, to
# nearest and even, and its last byte is the whole number plus 128.
_TO_BYTE: Final = 1.5 * 2.0**23 + 128


class Int8Linear(nn.Module):
    """A linear layer whose product is one of integers: INT8 weights, INT8 activations, int32 sums.

    ``weight [N, K]`` int8 and ``scale [N]``, one for each output, are made once; a scale for each
    row of the input is found as it comes. For inference: no gradient passes. Called on
    ``x [..., K]`` of any floating-point dtype, it computes in float32 and returns ``[..., N]`` in
    the dtype of x. The scale stays float32 when a model is made half. What is changed in place
    counts in the next call, but through ``.data``.

    **The error.** An element of x is off by at most s/2 with s = amax / 127 of its row, and one of
    w by t/2 with the t of its output. So an output is off by at most
    ``t/2 Σ|x| + s/2 Σ|w| + K s t / 4``, sums over the K inputs, and float32's own rounding.

    Source: Dettmers et al., arXiv 2208.07339, eq. 7, vector-wise quantization.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Int8[Tensor, "N K"],
        scale: Float[Tensor, "N"],
        bias: Float[Tensor, "N"] | None = None,
    ) -> None:
        """Take ``weight [N, K]`` int8, ``scale [N]`` and ``bias [N]``; see `from_linear`.

        Raises ``ValueError`` when they do not fit, and for scales with which a sum of K products
        could leave float32.
        """
        super().__init__()
        if weight.dtype != torch.int8 or weight.ndim != 2 or scale.shape != weight.shape[:1]:
            raise ValueError(
                f"weight has dtype {weight.dtype} and shape {tuple(weight.shape)}, scale "
                f"{tuple(scale.shape)}; pass int8 [N, K] and [N]"
            )
        check_bias(weight, bias)
        scale = scale.detach().float()
        if not weight.numel() or not bool((scale > 0).all()) or not _sums_fit(weight, scale):
            raise ValueError(
                f"weight has shape {tuple(weight.shape)} and scales from {scale.min().item():.3g} "
                f"to {scale.max().item():.3g}; pass at least one element, and scales above 0 "
                "with which a sum of K products is within float32"
            )
        for name, tensor in (("weight", weight), ("scale", scale), ("bias", bias)):
            self.register_buffer(name, counted(None if tensor is None else tensor.detach()))
        # Each keeps a copy of the weight when it is first called. All three are less than float32.
        self._packed, self._packed_row = PackedProduct(), PackedRow()

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> "Int8Linear":
        """Quantize the weight of ``linear``, absmax by output; ``ValueError`` for inf or NaN."""
        weight = quantize(linear.weight, INT8, (1, None))
        bias = None if linear.bias is None else linear.bias.detach().float().clone()
        return cls(weight.values, weight.scale[:, 0], bias)

    def forward(self, x: Float[Tensor, "*M K"]) -> Float[Tensor, "*M N"]:
        """Return the product with ``x [..., K]``.

        Raises ``ValueError`` when K is another, for inf or NaN, for what float32 cannot hold, and
        for integers.
        """
        if torch.is_grad_enabled():  # to switch off what is off takes as long as a small product
            with torch.no_grad():
                return self.forward(x)
        check_features(x, self.weight.shape[1])
        if x.dtype == torch.float32:
            return self._forward_float32(x)
        output = self._forward_float32(float32_rows(x))
        return output.reshape(*x.shape[:-1], output.shape[-1]).to(x.dtype)

    def _forward_float32(self, x: Float32[Tensor, "*M K"]) -> Float32[Tensor, "*M N"]:
        """Do as `forward` with what has been checked.

        What it takes to multiply one row is to read the weight, and the calls, so there are few.
        """
        weight, scale, bias = self.weight, self.scale, self.bias  # nn.Module searches for each
        alone = x.numel() == weight.shape[1]
        found = self._packed_row(x, weight, scale, bias) if alone else None
        output, largest = found or self._multiply_by_sums(x)
        if not math.isfinite(largest):
            quantize(x.reshape(-1, x.shape[-1]), INT8)  # names the element
        if largest > 1:  # otherwise it is no larger than the sums, which fit
            check_product(output.reshape(-1, len(scale)))
        return output

    def _multiply_by_sums(
        self, x: Float32[Tensor, "*M K"]
    ) -> tuple[Float32[Tensor, "*M N"], float]:
        """Return the output, and the largest scale of a row."""
        rows = x.reshape(-1, x.shape[-1])
        alone = len(rows) == 1 and fewest_rows() > 1
        output, largest = self._multiply_row(rows) if alone else self._multiply_rows(rows)
        if self.bias is not None:
            output.add_(self.bias)
        return output.reshape(*x.shape[:-1], len(self.scale)), largest

    def _multiply_row(self, row: Float32[Tensor, "1 K"]) -> tuple[Float32[Tensor, "1 N"], float]:
        """Do as `_multiply_rows` with the same integers, in fewer calls of torch."""
        scale = torch.linalg.vector_norm(row, math.inf).div_(127).clamp_min_(SMALLEST_SCALE)
        values = torch.mul(row, scale.reciprocal()).round_().to(torch.int8)
        return (int8_sums(values, self.weight) * self.scale).mul_(scale), scale.item()

    def _multiply_rows(self, rows: Float32[Tensor, "M K"]) -> tuple[Float32[Tensor, "M N"], float]:
        """Return the product with quantized ``rows``, and the largest of their scales."""
        values, scale = _quantize_rows(rows)
        product = self._multiply(values).mul_(scale)
        return product, float(scale.max()) if len(scale) else 0.0

    def _multiply(self, values: UInt8[Tensor, "M K"]) -> Float32[Tensor, "M N"]:
        """Return the sums for ``values``, bytes of 128 more, times the weight's scale."""
        product = self._packed(values, self.weight, self.scale)
        if product is not None:
            return product
        sums = int8_matmul(values.view(torch.int8) ^ -128, self.weight)
        # Each sum becomes a float where it lies: no second matrix to find room for.
        return sums.view(torch.float32).copy_(sums).mul_(self.scale)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Int8Linear":
        """Move as torch does, but leave the scale float32: in float16 the small ones are 0."""
        scale = self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.scale.dtype != torch.float32:
            self.scale = scale.to(self.scale.device)
        return self

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401 as torch's
        """Load as torch does, but no state of an ``nn.Linear``."""
        check_state(state, prefix)
        super()._load_from_state_dict(state, prefix, *args)

    def extra_repr(self) -> str:
        """Return the sizes, for ``print(linear)``."""
        n, k = self.weight.shape
        return f"in_features={k}, out_features={n}, bias={self.bias is not None}"


def check_state(state: dict[str, Any], prefix: str) -> None:
    """Refuse the state of an ``nn.Linear``: cast to int8, most of its weights would be 0."""
    loaded = state.get(f"{prefix}weight")
    if loaded is not None and loaded.dtype != torch.int8:
        raise ValueError(
            f"{prefix}weight has dtype {loaded.dtype}; load the state of the same kind of layer, "
            "or quantize with from_linear"
        )


def check_features(x: Tensor, n_features: int) -> None:
    """Raise ``ValueError`` unless ``x`` is floating-point ``[..., n_features]``."""
    check_dense("x", x)
    if x.ndim < 1 or x.shape[-1] != n_features:
        raise ValueError(f"x has shape {tuple(x.shape)}; pass [..., {n_features}]")
    if not x.is_floating_point():
        raise ValueError(f"x has dtype {x.dtype}; pass floating-point numbers")


def float32_rows(x: Float[Tensor, "*rest K"]) -> Float32[Tensor, "M K"]:
    """Return ``x`` as a matrix of float32; ``ValueError`` for what would be infinite."""
    rows = x.reshape(-1, x.shape[-1])
    if x.dtype == torch.float64 and len(rows):
        check_finite(rows)
        if (largest := float(rows.detach().abs().max())) > torch.finfo(torch.float32).max:
            raise ValueError(
                f"x has a magnitude of {largest:.6g}, and float32 ends at 3.4e38; divide x by a "
                "number first, and multiply afterwards"
            )
    return rows.float()


def check_bias(weight: Tensor, bias: Tensor | None) -> None:
    """Raise ``ValueError`` unless ``bias`` is ``None`` or a number for each row of ``weight``."""
    if bias is not None and (bias.shape != weight.shape[:1] or not bias.is_floating_point()):
        raise ValueError(
            f"bias has dtype {bias.dtype} and shape {tuple(bias.shape)}; pass floating-point "
            f"[{weight.shape[0]}], or None"
        )


def counted(tensor: Tensor | None) -> Tensor | None:
    """Return ``tensor``, or a copy that counts its changes if it was made in inference mode."""
    if tensor is None or not tensor.is_inference():
        return tensor
    with torch.inference_mode(False), torch.no_grad():
        return tensor.clone()


def _sums_fit(weight: Int8[Tensor, "N K"], scale: Float32[Tensor, "N"]) -> bool:
    """Whether K products of two bytes, times the largest ``scale``, are within float32."""
    largest = weight.shape[1] * 128.0**2 * float(scale.max())
    return largest <= torch.finfo(torch.float32).max


def _quantize_rows(
    x: Float32[Tensor, "M K"],
) -> tuple[UInt8[Tensor, "M K"], Float32[Tensor, "M 1"]]:
    """Return ``x`` as bytes, 128 for 0, and the scale of each row: absmax.

    A scale that is not finite tells of an element that is not.
    """
    height = max(1, _CHUNK // x.shape[1])
    if 0 < len(x) <= height:
        by = x.abs().amax(1, keepdim=True).div_(127).clamp_min_(SMALLEST_SCALE)
        piece = torch.mul(x, by.reciprocal()).add_(_TO_BYTE)
        return piece.view(torch.int32).to(torch.uint8), by
    values = torch.empty(x.shape, dtype=torch.uint8)
    scale = torch.empty(len(x), 1, dtype=torch.float32)
    scratch = torch.empty(min(height, len(x)), x.shape[1], dtype=torch.float32)
    for start in range(0, len(x), height):
        here = slice(start, start + height)
        rows, by = x[here], scale[here]
        piece = scratch[: len(rows)]
        torch.amax(torch.abs(rows, out=piece), 1, keepdim=True, out=by)
        by.div_(127).clamp_min_(SMALLEST_SCALE)
        torch.mul(rows, by.reciprocal(), out=piece)
        values[here] = piece.add_(_TO_BYTE).view(torch.int32)
    return values, scale


class QuantizedLinear(nn.Module):
    """A linear layer that shows what a scheme loses: rounded weight and input, float32 product.

    ``weight [N, K]`` has been rounded before; ``x_setting`` says how each input is, with scales
    from that input alone, or ``None`` leaves it. One scale for the tensor is one for all rows of a
    call, whichever sentence they belong to. Called on ``x [..., K]``; no gradient passes. It
    emulates: results are those of the scheme, speed is not.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Float[Tensor, "N K"],
        bias: Float[Tensor, "N"] | None = None,
        x_setting: Setting | None = None,
    ) -> None:
        """Take a rounded weight; see `from_linear`.

        Raises ``ValueError`` when weight and bias do not fit.
        """
        super().__init__()
        check_dense("weight", weight)
        if weight.ndim != 2 or not weight.is_floating_point():
            raise ValueError(
                f"weight has dtype {weight.dtype} and shape {tuple(weight.shape)}; pass "
                "floating-point [N, K]"
            )
        check_bias(weight, bias)
        self.register_buffer("weight", counted(weight))
        self.register_buffer("bias", counted(bias))
        self.x_setting = x_setting

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, weight: Setting | None = None, x: Setting | None = None
    ) -> "QuantizedLinear":
        """Round the weight of ``linear`` as ``weight`` says, and each input as ``x`` says.

        ``None`` leaves one as it is. Raises ``ValueError`` as `quantize`.
        """
        original = linear.weight.detach()
        rounded_weight = original if weight is None else quantize(original, *weight).dequantize()
        return cls(rounded_weight, None if linear.bias is None else linear.bias.detach(), x)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "*M K"]) -> Float[Tensor, "*M N"]:
        """Return the product with ``x [..., K]``, in the dtype of x; ``ValueError`` as `quantize`.

        It is computed in the widest dtype of what is multiplied: what was rounded is float32.
        """
        check_features(x, self.weight.shape[1])
        rows = x.reshape(-1, x.shape[-1])
        if self.x_setting is not None and len(rows):
            rows = quantize(rows, *self.x_setting).dequantize()
        dtype = torch.promote_types(rows.dtype, self.weight.dtype)
        bias = None if self.bias is None else self.bias.to(dtype)
        with torch.autocast("cpu", enabled=False):
            output = nn.functional.linear(rows.to(dtype), self.weight.to(dtype), bias)
        if self.x_setting is not None:
            check_product(output)
        return output.reshape(*x.shape[:-1], len(self.weight)).to(x.dtype)


def replace_linears(model: M, make: Callable[[str, nn.Linear], nn.Module]) -> M:
    """Return a copy of ``model`` in which ``make(name, linear)`` stands for every ``nn.Linear``.

    ``make`` returns the layer that it is given to leave it. ``model`` stays as it is, and the copy
    shares all weights that were not replaced with it: a tied one stays tied. A layer that has
    several names is made once, by the first, and has them all again; it is as ready to train as
    the one before. A copied weight that an embedding or another layer has too is replaced by the
    one they share. The output projection of ``nn.MultiheadAttention`` stays, for that reads its
    weight alone.

    Raises ``ValueError`` when ``model`` is a linear layer itself, and when ``make`` returns no
    module.
    """
    if isinstance(model, nn.Linear):
        raise ValueError(
            f"model is {model}, a linear layer itself; call make('', model), or pass a model that "
            "contains it"
        )
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    twin = copy.deepcopy(model, shared)
    owners = Counter(p for m in twin.modules() for p in m._parameters.values() if p is not None)
    made: dict[nn.Module, nn.Module] = {}
    for name, module in list(twin.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.Linear) and not isinstance(
            module, NonDynamicallyQuantizableLinear
        ):
            if module not in made:
                made[module] = _made(name, module, make)
                _tie(made[module], module, owners)
            twin.set_submodule(name, made[module])
    return twin


def _made(name: str, linear: nn.Linear, make: Callable[[str, nn.Linear], nn.Module]) -> nn.Module:
    layer = make(name, linear)
    if not isinstance(layer, nn.Module):
        raise ValueError(f"make({name!r}, ...) returned {layer!r}; return a module")
    return layer.train(linear.training)


def _tie(layer: nn.Module, linear: nn.Linear, owners: Counter[nn.Parameter]) -> None:
    """Give ``layer`` the parameters of ``linear`` that others have too, where it has copies."""
    for name, parameter in linear.named_parameters(recurse=False):
        copied = layer._parameters.get(name)
        if copied is None or owners[parameter] < 2 or copied.dtype != parameter.dtype:
            continue
        if torch.equal(copied, parameter):
            layer.register_parameter(name, parameter)


class FP8Recipe(NamedTuple):
    """How `FP8Linear` quantizes: the default is DeepSeek-V3's.

    Blocks of activations and gradients run along the dimension that is summed over. ``None`` for
    both sizes is one scale for the tensor; ``scale="none"`` leaves scales out.
    """

    fmt: Format = E4M3
    x_block: Block = (1, 128)
    w_block: Block = (128, 128)
    grad_block: Block = (1, 128)
    scale: Scale = "fp32"


class TrainableLinear(nn.Linear, Generic[Recipe]):
    """A linear layer that trains with products of rounded factors, and a float32 weight.

    What is rounded, and how, its ``three_products`` do as the ``recipe`` says. Rounding is taken to
    have slope 1 (straight-through). The weight that the optimizer changes, and the bias, are
    float32, whatever torch's default is. The output has the dtype of x. It emulates: results are
    those of few bits, speed is not.
    """

    three_products: ClassVar[type[torch.autograd.Function]]
    """Takes ``x [M, K]``, ``weight [N, K]`` and a recipe; gives ``[M, N]`` and both gradients."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, recipe: Recipe | None = None
    ) -> None:
        """Draw the weights as ``nn.Linear`` does.

        Raises ``ValueError`` for a layer of no features, and for what is no recipe of its kind.
        """
        require.counts(in_features=in_features, out_features=out_features)
        super().__init__(in_features, out_features, bias, dtype=torch.float32)
        self.recipe: Recipe = self.standard() if recipe is None else recipe
        if not isinstance(self.recipe, kind := type(self.standard())):
            raise ValueError(
                f"recipe is {recipe!r}; pass an {kind.__name__}, or None for the default"
            )

    def standard(self) -> Recipe:
        """Return the recipe that is meant where none is given."""
        raise NotImplementedError

    @classmethod
    def from_linear(cls, linear: nn.Linear, recipe: Recipe | None = None) -> Self:
        """Return a layer with copies of the weight and bias of ``linear``, frozen if they are."""
        check_dense("weight", linear.weight)
        layer = cls(linear.in_features, linear.out_features, linear.bias is not None, recipe)
        layer.load_state_dict(linear.state_dict())
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(linear.get_parameter(name).requires_grad)
        return layer

    def forward(self, x: Float[Tensor, "*M K"]) -> Float[Tensor, "*M N"]:
        """Return ``[..., N]`` for ``x [..., K]``.

        Raises ``ValueError`` for another K, inf or NaN, integers, and a product beyond float32; so
        does the backward pass.
        """
        check_features(x, self.in_features)
        rows, weight = float32_rows(x), self.weight.float()
        if len(rows):
            output: Tensor = self.three_products.apply(rows, weight, self.recipe)  # type: ignore[no-untyped-call]
        else:
            output = multiply(rows, weight)  # there are no blocks, and gradients are zeros
        if self.bias is not None:
            output = output + self.bias
        return output.reshape(*x.shape[:-1], self.out_features).to(x.dtype)


class _ThreeProducts(torch.autograd.Function):
    """The three products of a linear layer, each of rounded factors."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 torch's own context object has no public type
        x: Float32[Tensor, "M K"],
        weight: Float32[Tensor, "N K"],
        recipe: FP8Recipe,
    ) -> Float32[Tensor, "M N"]:
        rounded_x = rounded(x, recipe.fmt, recipe.x_block, recipe.scale)
        rounded_w = rounded(weight, recipe.fmt, recipe.w_block, recipe.scale)
        ctx.save_for_backward(rounded_x, rounded_w)
        ctx.recipe = recipe
        return check_product(multiply(rounded_x, rounded_w))

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 as above
        grad: Float[Tensor, "M N"],
    ) -> tuple[Float[Tensor, "M K"] | None, Float[Tensor, "N K"] | None, None]:
        x, weight = ctx.saved_tensors
        recipe: FP8Recipe = ctx.recipe
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            rounded_grad = rounded(grad, recipe.fmt, recipe.grad_block, recipe.scale)
            grad_x = check_product(multiply(rounded_grad, weight.T))
        if ctx.needs_input_grad[1]:
            # The sum runs over tokens now, and so do the blocks.
            grad_by_output = rounded(grad.T, recipe.fmt, recipe.grad_block, recipe.scale)
            by_input = rounded(x.T, recipe.fmt, recipe.x_block, recipe.scale)
            grad_weight = check_product(multiply(grad_by_output, by_input))
        return grad_x, grad_weight, None


class FP8Linear(TrainableLinear[FP8Recipe]):
    """A linear layer that trains with all three of its products in FP8.

    Forward y = x wᵀ, input gradient g w, weight gradient gᵀ x: each factor is rounded to E4M3 in
    blocks with scales from the data at hand, sums are float32.

    Source: DeepSeek-V3, arXiv 2412.19437, §3.3 and figure 6; for the weight gradient the FP8
    activations are dequantized and quantized again along the tokens, as §3.5.2 describes.
    """

    three_products = _ThreeProducts

    def standard(self) -> FP8Recipe:
        """Return DeepSeek-V3's recipe."""
        return FP8Recipe()
