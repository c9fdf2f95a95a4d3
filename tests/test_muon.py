"""Muon against singular values computed exactly, and against the optimizer of PyTorch."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slingshot.muon import COEFFICIENTS, Muon, orthogonalize


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def polynomial(x: Tensor) -> Tensor:
    """What five rounds do to a singular value."""
    a, b, c = COEFFICIENTS
    for _ in range(5):
        x = a * x + b * x**3 + c * x**5
    return x


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    number=st.integers(1, 3),
    seed=st.integers(0),
)
@settings(max_examples=100, deadline=None)
def test_singular_values_go_through_the_polynomial_and_vectors_stay(
    rows: int, columns: int, number: int, seed: int
) -> None:
    matrices = draw(number, rows, columns, seed=seed % 2**31).double()
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    s = s / s.norm(dim=1, keepdim=True)
    expected = u @ torch.diag_embed(polynomial(s)) @ vh
    # float64 with matrices of at most 12: rounding stays far below this.
    torch.testing.assert_close(orthogonalize(matrices), expected, rtol=0, atol=1e-8)


def test_singular_values_come_near_one() -> None:
    values = polynomial(torch.logspace(math.log10(0.002), 0, 100_000, dtype=torch.float64))
    assert values.min() > 0.68
    assert values.max() < 1.21


def test_zeros_stay_zeros() -> None:
    matrices = torch.stack([torch.zeros(3, 4), draw(3, 4)])
    result = orthogonalize(matrices)
    assert not result[0].any()
    assert result[1].isfinite().all()


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (6, 2)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_pytorch_where_it_does_not_round_to_bfloat16(
    shape: tuple[int, int], decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "bfloat16", Tensor.float)
    ours, theirs = (nn.Parameter(draw(*shape)) for _ in range(2))
    optimizers: list[torch.optim.Optimizer] = [
        Muon([ours], lr=0.02, momentum=0.95, weight_decay=decay),
        torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=decay),
    ]
    for step in range(5):
        gradient = draw(*shape, seed=step + 1)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    # float32 on both sides: five rounds and five steps enlarge 1e-7 a few times.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_matrices_of_one_shape_are_moved_as_if_each_were_alone() -> None:
    together = [nn.Parameter(draw(4, 3, seed=seed)) for seed in range(3)]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    other = nn.Parameter(draw(2, 2))
    optimizers = [Muon([*together, other]), *(Muon([p]) for p in alone)]
    for step in range(3):
        for index, pair in enumerate(zip(together, alone, strict=True)):
            for parameter in pair:
                parameter.grad = draw(4, 3, seed=10 * step + index)
        other.grad = draw(2, 2, seed=step)
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_momentum_remembers_and_what_has_no_gradient_stays() -> None:
    moving, still = (nn.Parameter(draw(3, 3)) for _ in range(2))
    optimizer = Muon([moving, still], lr=0.1, weight_decay=0.1)
    moving.grad = draw(3, 3, seed=1)
    optimizer.step()
    moving.grad = torch.zeros(3, 3)
    before = moving.detach().clone()
    optimizer.step()
    assert not moving.equal(before)
    assert still.equal(draw(3, 3))


def test_a_closure_is_called_and_its_loss_returned() -> None:
    parameter = nn.Parameter(draw(2, 2))
    optimizer = Muon([parameter])

    def closure() -> Tensor:
        loss = parameter.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    before = parameter.detach().square().sum().item()
    assert optimizer.step(closure).item() == pytest.approx(before)
    assert parameter.detach().square().sum().item() < before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, r"lr is 0\.0 and weight_decay 0\.0; give positive numbers, or no decay"),
        ({"weight_decay": -0.1}, r"lr is 0\.02 and weight_decay -0\.1; give positive numbers"),
        ({"momentum": 1.0}, r"momentum is 1\.0; give a share below 1"),
    ],
)
def test_numbers_that_cannot_be_meant_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon([nn.Parameter(draw(2, 2))], **options)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2)])
def test_what_is_no_matrix_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"a parameter has shape .*; Muon moves matrices, leave the"
    ):
        Muon([nn.Parameter(draw(*shape))])
    if len(shape) != 3:
        with pytest.raises(
            ValueError, match=r"matrices has shape \(3,\); pass \[number, rows, col"
        ):
            orthogonalize(draw(*shape))
