"""A linear layer in four bits: which factors are rounded, along what, and the two remedies."""

import itertools
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from slingshot.quant import (
    INT8,
    MXFP4,
    NVFP4,
    FP4Linear,
    FP4Recipe,
    FP8Linear,
    FP8Recipe,
    Setting,
    quantize,
    replace_linears,
)

PLAIN = FP4Recipe(by_lot=False, rotated=False)
SETTINGS = {"NVFP4": NVFP4, "MXFP4, rounded up": MXFP4._replace(rule="ceil")}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.detach().double() - theirs).norm() / theirs.norm())


def passes(layer: FP4Linear, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, gradient of the input and gradient of the weight."""
    leaf = x.clone().requires_grad_()
    layer.zero_grad()
    output = layer(leaf)
    output.backward(grad)
    assert leaf.grad is not None
    assert layer.weight.grad is not None
    return output.detach(), leaf.grad, layer.weight.grad


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("sizes", [(64, 96, 32), (37, 50, 21)], ids=str)
@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("backward", [True, False])
def test_each_factor_is_rounded_along_its_sum_and_no_other_is(
    setting: Setting, sizes: tuple[int, int, int], forward: bool, backward: bool
) -> None:
    tokens, k, n = sizes
    torch.manual_seed(0)
    recipe = PLAIN._replace(setting=setting, forward=forward, backward=backward)
    layer = FP4Linear(k, n, recipe=recipe)
    x, grad = normal(tokens, k, seed=1), 3 * normal(tokens, n, seed=2)
    output, grad_x, grad_weight = passes(layer, x, grad)
    width = setting.block[1]

    def four(matrix: Tensor, block: tuple[int | None, int | None] = (1, width)) -> Tensor:
        return quantize(matrix, *setting._replace(block=block)).dequantize().double()

    def kept(matrix: Tensor) -> Tensor:
        return matrix.detach().double()

    w = layer.weight
    square = four(w, (width, width))
    bias = kept(layer.bias)
    expected = four(x) @ square.T if forward else kept(x) @ kept(w).T
    assert relative_error(output, expected + bias) < 1e-6
    expected = four(grad) @ square if backward else kept(grad) @ kept(w)
    assert relative_error(grad_x, expected) < 1e-6
    along_tokens = four(grad.T) @ four(x.T).T if backward else kept(grad).T @ kept(x)
    assert relative_error(grad_weight, along_tokens) < 1e-6
    torch.testing.assert_close(layer.bias.grad, grad.sum(0))


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_by_lot_gradients_are_right_on_average_but_for_what_saturates(
    setting: Setting,
) -> None:
    torch.manual_seed(0)
    x, grad = normal(32, 32, seed=1), normal(32, 32, seed=2)
    layers = [
        FP4Linear(32, 32, recipe=PLAIN._replace(setting=setting, by_lot=by_lot))
        for by_lot in (True, False)
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    draws = 600
    drawn = torch.stack([passes(layers[0], x, grad)[1].double() for _ in range(draws)])
    nearest = passes(layers[1], x, grad)[1]
    width = setting.block[1] or 0
    square = setting._replace(block=(width, width))
    # A scale is rounded too, in NVFP4 to the nearest: where it is too small, the largest saturates.
    scale = quantize(grad, *setting).scale.repeat_interleave(width, 1).double()
    within = (grad.double() / scale).clamp(-6, 6) * scale
    exact = within @ quantize(layers[0].weight, *square).dequantize().double()
    assert torch.equal(within, grad.double()) == (setting.scale == "e8m0")
    off = (drawn.mean(0) - exact) / (drawn.std(0) / draws**0.5).clamp_min(1e-12)
    # 1,024 means in units of their own standard error.
    assert float(off.square().mean()) == pytest.approx(1, abs=0.3)
    assert relative_error(nearest, exact) > 5 * relative_error(drawn.mean(0), exact)


@pytest.mark.parametrize("new_signs", [True, False])
def test_both_factors_are_turned_alike(new_signs: bool) -> None:
    """In a format that loses little, so that what is left is the rotation."""
    torch.manual_seed(0)
    fine = Setting(INT8, (1, 16))
    turned = FP4Linear(48, 32, recipe=FP4Recipe(fine, by_lot=False, new_signs=new_signs))
    plain = FP4Linear.from_linear(turned, FP4Recipe(fine, by_lot=False, rotated=False))
    x, grad = normal(64, 48, seed=1), normal(64, 32, seed=2)
    exact = grad.double().T @ x.double()
    first, second = (passes(turned, x, grad)[2] for _ in range(2))
    assert relative_error(first, exact) < 0.02
    assert torch.equal(first, second) != new_signs
    # Signs that are drawn once are so for all layers, whatever torch's generator does.
    torch.manual_seed(5)
    twin = FP4Linear.from_linear(turned, turned.recipe)
    assert torch.equal(first, passes(twin, x, grad)[2]) != new_signs
    # What sums over outputs or inputs is not turned.
    for ours, theirs in zip(passes(turned, x, grad)[:2], passes(plain, x, grad)[:2], strict=True):
        assert torch.equal(ours, theirs)


def test_a_rotation_helps_where_one_token_stands_out_and_the_scale_is_coarse() -> None:
    torch.manual_seed(0)
    x, grad = normal(64, 32, seed=1), normal(64, 32, seed=2)
    grad[5] *= 30
    exact = grad.double().T @ x.double()
    errors = {}
    for rotated in (False, True):
        recipe = FP4Recipe(MXFP4, by_lot=False, rotated=rotated, new_signs=True)
        found = [passes(FP4Linear(32, 32, recipe=recipe), x, grad)[2] for _ in range(20)]
        errors[rotated] = sum(relative_error(each, exact) for each in found) / 20
    assert errors[True] < errors[False]


def test_the_same_seed_draws_the_same_lots() -> None:
    torch.manual_seed(0)
    recipe = FP4Recipe(new_signs=True)
    layer, x, grad = FP4Linear(32, 16, recipe=recipe), normal(32, 32), normal(32, 16, seed=1)
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append(passes(layer, x, grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("kind", [FP4Linear, FP8Linear])
@pytest.mark.parametrize(("sizes", "message"), [((0, 4), "in_features is 0"), ((4, -1), "out_fe")])
def test_a_layer_of_no_features_is_refused(
    kind: type[FP4Linear | FP8Linear], sizes: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(*sizes)


@pytest.mark.parametrize(
    ("kind", "recipe"), [(FP8Linear, FP4Recipe()), (FP4Linear, FP8Recipe()), (FP8Linear, ())]
)
def test_a_recipe_of_another_kind_is_refused(
    kind: type[FP4Linear | FP8Linear],
    recipe: Any,  # noqa: ANN401
) -> None:
    message = f"pass an {kind.__name__[:3]}Recipe, or None for the default"
    with pytest.raises(ValueError, match=message):
        kind(16, 16, recipe=recipe)
    with pytest.raises(ValueError, match=message):
        kind.from_linear(nn.Linear(16, 16), recipe)


def test_rows_that_a_rotation_cannot_cut_are_named() -> None:
    layer = FP4Linear(16, 8)
    output = layer(normal(10, 16)).sum()
    with pytest.raises(ValueError, match=r"blocks of 16 meets 10 rows; give a multiple"):
        output.backward()
    assert layer(normal(0, 16)).shape == (0, 8)
    without = FP4Linear.from_linear(layer, FP4Recipe(rotated=False))
    without(normal(10, 16)).sum().backward()


@pytest.mark.slow
def test_a_model_learns_in_four_bits() -> None:
    torch.manual_seed(0)
    full = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))
    student: Any = replace_linears(full, lambda _, linear: FP4Linear(*linear.weight.T.shape))
    x = normal(128, 64)
    target = full(x).detach()
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    losses = []
    for _ in range(80):
        loss = (student(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert all(p.dtype == torch.float32 for p in student.parameters())


@pytest.mark.parametrize(
    ("by_lot", "rotated"), list(itertools.product([True, False], repeat=2)), ids=str
)
def test_a_frozen_weight_and_an_input_without_gradient_cost_nothing(
    by_lot: bool, rotated: bool
) -> None:
    layer = FP4Linear(16, 8, recipe=FP4Recipe(by_lot=by_lot, rotated=rotated))
    layer.weight.requires_grad_(False)
    x = normal(10, 16).requires_grad_()  # no rotation is asked for without a weight's gradient
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    with torch.no_grad():
        assert not layer(x).requires_grad


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (cast("FP4Recipe", NVFP4), r"recipe is Setting\(.* pass an FP4Recipe"),
        (FP4Recipe(NVFP4._replace(block=(1, None))), r"blocks are \(1, None\); give \(1, so many"),
        (FP4Recipe(NVFP4._replace(block=(16, 16))), r"blocks are \(16, 16\); give \(1, so many"),
        (
            FP4Recipe(NVFP4._replace(block=(1, 12))),
            r"cannot mix 12 numbers; give blocks of a power",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_is_named_at_once(recipe: FP4Recipe, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FP4Linear(32, 8, recipe=recipe)
    twelve = FP4Recipe(NVFP4._replace(block=(1, 12)), rotated=False)
    assert FP4Linear(24, 8, recipe=twelve)(normal(5, 24)).shape == (5, 8)


def test_nan_is_named_whether_or_not_the_input_is_rounded() -> None:
    x = normal(16, 32)
    x[3, 4] = torch.nan
    for forward in (True, False):
        with pytest.raises(ValueError, match=r"x\[3, 4\] is nan"):
            FP4Linear(32, 8, recipe=FP4Recipe(forward=forward))(x)
