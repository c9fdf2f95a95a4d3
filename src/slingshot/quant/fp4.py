"""A linear layer that trains with its products in four bits, and the two remedies for that.

Each product of a linear layer sums over one dimension, and the blocks that share a scale lie along
it. *Rounding by lot* makes what is rounded right on average, but for what a scale that was rounded
down cuts off; it is for gradients, of which many are added up. A *rotation* mixes each block, so
that no number stands out. It turns both factors of a product alike; here those of the weight
gradient, whose blocks lie along the tokens.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.autograd.function import once_differentiable

from slingshot.quant.blocks import NVFP4, Setting, as_matrix, check_finite, quantize
from slingshot.quant.linear import TrainableLinear
from slingshot.quant.matmul import check_product, multiply
from slingshot.quant.outliers import rotate


class FP4Recipe(NamedTuple):
    """What `FP4Linear` rounds, and how: the default is NVIDIA's, for the layers in four bits.

    ``setting`` has the format and blocks of so many numbers of a row; a weight has square ones,
    since two products sum over its two sides. ``by_lot`` rounds gradients by lot. ``rotated`` turns
    both factors of the weight gradient, in those blocks, with signs that are drawn once for all
    layers and steps, or with ``new_signs`` at each step. ``forward`` and ``backward`` say which
    products have four bits; the others are float32.
    """

    setting: Setting = NVFP4
    by_lot: bool = True
    rotated: bool = True
    new_signs: bool = False
    forward: bool = True
    backward: bool = True


class _ThreeProducts(torch.autograd.Function):
    """The three products of a linear layer, each of rounded factors."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 torch's own context object has no public type
        x: Float32[Tensor, "M K"],
        weight: Float32[Tensor, "N K"],
        recipe: FP4Recipe,
    ) -> Float32[Tensor, "M N"]:
        rounded_w = weight
        if recipe.forward or (recipe.backward and ctx.needs_input_grad[0]):
            width = recipe.setting.block[1]
            squares = recipe.setting._replace(block=(width, width))
            rounded_w = quantize(weight, *squares).dequantize()
        ctx.save_for_backward(x, rounded_w if recipe.backward else weight)
        ctx.recipe = recipe
        if recipe.forward:
            return check_product(multiply(quantize(x, *recipe.setting).dequantize(), rounded_w))
        check_finite(as_matrix(x))
        return check_product(multiply(x, weight))

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 as above
        grad: Float[Tensor, "M N"],
    ) -> tuple[Float[Tensor, "M K"] | None, Float[Tensor, "N K"] | None, None]:
        x, weight = ctx.saved_tensors
        recipe: FP4Recipe = ctx.recipe
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            rounded = _rounded_gradient(grad, recipe) if recipe.backward else grad
            grad_x = check_product(multiply(rounded, weight.T))
        if ctx.needs_input_grad[1]:
            by_output, by_input = grad.T, x.T
            if recipe.backward:  # the sum runs over tokens now, and so do the blocks
                if recipe.rotated:
                    by_output, by_input = _turned_alike(by_output, by_input, recipe)
                by_output = _rounded_gradient(by_output, recipe)
                by_input = quantize(by_input, *recipe.setting).dequantize()
            grad_weight = check_product(multiply(by_output, by_input))
        return grad_x, grad_weight, None


class FP4Linear(TrainableLinear[FP4Recipe]):
    """A linear layer that trains with its three products in four bits.

    Forward y = x wᵀ, input gradient g w, weight gradient gᵀ x. Lots and new signs are drawn from
    torch's own generator, as those of dropout are: ``torch.manual_seed`` repeats them. A rotation
    wants a number of rows that its blocks divide, or the backward pass raises ``ValueError``.

    Source: NVIDIA, arXiv 2509.25149, §4.2 to 4.4. Its recipe keeps some layers wider, which is up
    to who replaces layers.
    """

    three_products = _ThreeProducts

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        recipe: FP4Recipe | None = None,
    ) -> None:
        """Draw the weights as ``nn.Linear`` does; ``ValueError`` for blocks that do not fit."""
        super().__init__(in_features, out_features, bias, recipe)
        _check_recipe(self.recipe)

    def standard(self) -> FP4Recipe:
        """Return NVIDIA's recipe."""
        return FP4Recipe()


def _check_recipe(recipe: FP4Recipe) -> None:
    """Raise ``ValueError`` for blocks that are not of a row, or that a rotation cannot mix."""
    height, width = recipe.setting.block
    if height != 1 or width is None or width < 1:
        raise ValueError(f"the blocks are {recipe.setting.block}; give (1, so many of a row)")
    if recipe.backward and recipe.rotated and width & (width - 1):
        raise ValueError(f"a rotation cannot mix {width} numbers; give blocks of a power of two")


def _rounded_gradient(grad: Float[Tensor, "R C"], recipe: FP4Recipe) -> Float[Tensor, "R C"]:
    """Return a gradient in four bits, by lot or to the nearest."""
    generator = torch.default_generator if recipe.by_lot else None
    return quantize(grad, *recipe.setting, generator=generator).dequantize()


def _turned_alike(
    by_output: Float[Tensor, "N M"], by_input: Float[Tensor, "K M"], recipe: FP4Recipe
) -> tuple[Float[Tensor, "N M"], Float[Tensor, "K M"]]:
    """Return both factors turned by one rotation with random signs: their product stays."""
    width, n_tokens = recipe.setting.block[1] or 1, by_output.shape[1]
    if n_tokens % width:
        raise ValueError(
            f"a rotation of blocks of {width} meets {n_tokens} rows; give a multiple of the block, "
            "or a recipe with rotated=False"
        )
    signs = _signs(n_tokens) if recipe.new_signs else _drawn_once(width).repeat(n_tokens // width)
    return rotate(by_output, width, signs), rotate(by_input, width, signs)


def _signs(n: int, generator: torch.Generator | None = None) -> Float32[Tensor, "n"]:
    """Draw ``n`` times 1 or -1."""
    return torch.randint(2, (n,), generator=generator) * 2.0 - 1.0


@cache
def _drawn_once(width: int) -> Float32[Tensor, "width"]:
    """Return the signs of a block that all layers share, whatever torch's generator does."""
    return _signs(width, torch.Generator().manual_seed(0))
