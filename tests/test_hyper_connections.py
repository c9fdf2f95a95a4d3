"""Residual streams: what is mixed, what survives, and what is refused."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from edges import public_names
from slingshot import hyper_connections
from slingshot.hyper_connections import HyperConnection, Mixing, sinkhorn

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
MIXINGS: list[Mixing] = ["free", "doubly stochastic", "identity"]
# What is lost when a matrix is stored: half a step of its type, at a number of at most 1.
EPS = {dtype: torch.finfo(dtype).eps for dtype in DTYPES}


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- doubly stochastic ---------------------------------------------------------------------------


def test_two_streams_by_hand() -> None:
    # exp gives [[3, 1], [1, 3]]: its rows and columns sum to 4 already.
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
    torch.testing.assert_close(sinkhorn(logits, 1), torch.tensor([[0.75, 0.25], [0.25, 0.75]]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (4, 4), (3, 5, 4, 4), (0, 4, 4)], ids=str)
def test_rows_and_columns_sum_to_one(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if not math.prod(shape):
        with pytest.raises(ValueError, match="pass square matrices"):
            sinkhorn(torch.zeros(shape, dtype=dtype))
        return
    matrix = sinkhorn(random(*shape).to(dtype), 200)
    assert matrix.dtype == dtype
    assert matrix.shape == shape
    assert bool((matrix >= 0).all())
    for dim in (-1, -2):
        assert bool(((matrix.double().sum(dim) - 1).abs() <= 4 * shape[-1] * EPS[dtype]).all())


def test_the_rows_come_last_and_the_columns_come_near() -> None:
    logits = random(4, 4, scale=3)
    off = []
    for rounds in (1, 2, 5, 20, 100):
        matrix = sinkhorn(logits.double(), rounds)
        assert (matrix.sum(1) - 1).abs().max() < 1e-12
        off.append(float((matrix.sum(0) - 1).abs().max()))
    assert off == sorted(off, reverse=True)
    assert off[0] > 0.01 > off[-1]


@pytest.mark.parametrize("size", [1e-30, 1.0, 88.0, 1e4, 1e30])
def test_large_logits_do_not_overflow(size: float) -> None:
    matrix = sinkhorn(torch.tensor([[size, 0.0], [0.0, size]]))
    assert bool(matrix.isfinite().all())
    torch.testing.assert_close(matrix.sum(1), torch.ones(2))
    if size > 80:
        torch.testing.assert_close(matrix, torch.eye(2))


def test_a_number_added_to_a_row_or_a_column_changes_nothing() -> None:
    logits = random(4, 4).double()
    moved = logits + random(4, 1, seed=1).double() + random(1, 4, seed=2).double()
    torch.testing.assert_close(sinkhorn(logits, 500), sinkhorn(moved, 500))


def test_the_gradient_is_that_of_differences() -> None:
    logits = random(3, 3).double().requires_grad_()
    weights = random(3, 3, seed=1).double()
    assert torch.autograd.gradcheck(lambda x: (sinkhorn(x, 5) * weights).sum(), (logits,))


def test_a_product_of_them_is_one_and_keeps_the_mean() -> None:
    """The point of it: what the streams have in common passes any depth unchanged."""
    product = torch.eye(4, dtype=torch.float64)
    for depth in range(100):
        product = sinkhorn(random(4, 4, seed=depth).double(), 200) @ product
    torch.testing.assert_close(product.sum(0), torch.ones(4).double())
    torch.testing.assert_close(product.sum(1), torch.ones(4).double())
    streams = random(4, 8).double()
    torch.testing.assert_close((product @ streams).mean(0), streams.mean(0))


# --- connections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("n", [1, 4])
def test_at_first_it_is_a_residual_connection(mixing: Mixing, n: int) -> None:
    x, found = random(2, 3, 8), random(2, 3, 8, seed=1)
    for index in range(6):
        connection = HyperConnection(n, index, mixing)
        streams = x.unsqueeze(-2).repeat(1, 1, n, 1)
        torch.testing.assert_close(connection.gather(streams), x)
        mixed = connection(streams, found)
        assert mixed.shape == (2, 3, n, 8)
        torch.testing.assert_close(mixed.mean(-2), x + found)


def test_each_block_reads_a_stream_of_its_own_at_first() -> None:
    streams = random(4, 8)
    for index in range(8):
        read = HyperConnection(4, index).gather(streams)
        assert torch.equal(read, streams[index % 4])


def test_mixing_by_hand() -> None:
    connection = HyperConnection(2, 0, "free")
    with torch.no_grad():
        connection.mix.copy_(torch.tensor([[0.0, 2.0], [0.0, -2.0]]))  # on top of the identity
        connection.read.copy_(torch.tensor([1.0, 10.0]))
        connection.write.copy_(torch.tensor([1.0, 0.5]))
    streams = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert connection.gather(streams).tolist() == [31.0, 42.0]
    expected = [[1 + 6 + 10, 2 + 8 + 20], [-3 + 5, -4 + 10]]
    assert connection(streams, torch.tensor([10.0, 20.0])).tolist() == expected
    given = connection(streams, torch.zeros(2), torch.eye(2))
    assert torch.equal(given, streams)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_what_learns(mixing: Mixing) -> None:
    connection = HyperConnection(4, 1, mixing)
    streams = random(5, 4, 8)
    target = random(5, 4, 8, seed=1)
    out = connection(streams, connection.gather(streams))
    (out * target).sum().backward()
    moves = {
        name for name, p in connection.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert moves == {"read", "write"} | (set() if mixing == "identity" else {"mix"})


ONES = torch.ones(2, 2)
REFUSED: dict[str, Callable[[], object]] = {
    r"logits has shape \(2, 3\); pass square": lambda: sinkhorn(torch.ones(2, 3)),
    r"logits has shape \(4,\); pass square": lambda: sinkhorn(torch.ones(4)),
    r"logits has shape \(0, 0\); pass square": lambda: sinkhorn(torch.ones(0, 0)),
    "logits has dtype torch.int64; pass floating": lambda: sinkhorn(ONES.long()),
    "logits is list; pass a tensor": lambda: sinkhorn([[0.0]]),  # type: ignore[arg-type]
    r"logits\[0, 1\] is nan": lambda: sinkhorn(torch.tensor([[0.0, math.nan], [0.0, 0.0]])),
    r"logits\[1, 0\] is inf": lambda: sinkhorn(torch.tensor([[0.0, 0.0], [math.inf, 0.0]])),
    "n_iterations is 0; give a whole number": lambda: sinkhorn(ONES, 0),
    "n_iterations is 1.5; give a whole number": lambda: sinkhorn(ONES, 1.5),  # type: ignore[arg-type]
    "n_streams is 0; give": lambda: HyperConnection(0),
    "index is -1; give": lambda: HyperConnection(2, -1),
    "mixing 'any' is unknown; use": lambda: HyperConnection(2, 0, "any"),  # type: ignore[arg-type]
    r"streams has shape \(2, 2\); pass \[..., 4, d\]": lambda: HyperConnection(4).gather(ONES),
    r"streams has shape \(2,\); pass": lambda: HyperConnection(2).gather(ONES[0]),
    r"streams has shape \(2, 2\) and found \(2, 2\); pass": lambda: HyperConnection(2)(ONES, ONES),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_meant_is_refused_by_name(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_every_public_name_is_looked_at() -> None:
    assert public_names(hyper_connections) == {"HyperConnection", "sinkhorn"}


def test_logits_whose_differences_overflow_are_named() -> None:
    with pytest.raises(ValueError, match=r"^logits\[0, 0\] is 3\."):
        sinkhorn(torch.tensor([[3e38, 3e38], [-3e38, -3e38]]))
