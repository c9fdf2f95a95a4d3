"""What the tests of edges share: tensors of every type, range and layout, and what comes of them.

Either a function gives what exact arithmetic gives, within a bound, or it raises ``ValueError``
that names the value and the remedy. Exact is taken from float64, or from what NumPy has beyond it.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
SPECIAL = (math.nan, math.inf, -math.inf)
MAGNITUDES = ("zero", "subnormal", "tiny", "one", "large", "largest")

Function = TypeVar("Function", bound=Callable[..., Any])


class Cover:
    """Which public names the tests of a file look at; a new one cannot be forgotten."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __call__(self, *names: str) -> Callable[[Function], Function]:
        """Decorate a test with the names that it looks at."""
        self.names.update(names)
        return lambda test: test

    def check(self, modules: list[ModuleType], reasons: dict[str, str]) -> None:
        """Fail unless each public name of ``modules`` is looked at, or has a reason not to be."""
        public = {name for module in modules for name in public_names(module)}
        assert public - self.names - set(reasons) == set(), "no test of edges looks at these"
        assert (self.names | set(reasons)) - public == set(), "there are no such names"
        assert self.names & set(reasons) == set(), "looked at, so no reason is needed"


def public_names(module: ModuleType) -> set[str]:
    """Functions and classes that ``module`` offers: ``__all__``, or what it defines itself."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    return {
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__ == module.__name__
    }


# --- what is drawn ---------------------------------------------------------------------------

floats = st.sampled_from(FLOATS)
integers = st.sampled_from(INTEGERS)
seeds = st.integers(0, 2**16)
layouts = st.sampled_from(["plain", "transposed", "sliced", "shifted", "flipped"])
specials = st.sampled_from([None, *SPECIAL])


def numbers(
    shape: tuple[int, ...], dtype: torch.dtype, magnitude: str = "one", seed: int = 0
) -> Tensor:
    """Return numbers of ``dtype`` up to about the ``magnitude``, of both signs."""
    limits = torch.finfo(dtype)
    factor = {
        "zero": 0.0,
        "subnormal": limits.smallest_normal * 2.0**-3,
        "tiny": limits.smallest_normal * 2.0,
        "one": 1.0,
        "large": limits.max**0.5,
        "largest": limits.max,
    }[magnitude]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(shape, dtype=torch.float64, generator=generator) * 2 - 1
    made: Tensor = (drawn * factor).to(dtype)
    return made


def with_special(tensor: Tensor, special: float | None) -> Tensor:
    """Return a copy in which one place, if there is one, holds NaN or infinity."""
    if special is None or not tensor.numel():
        return tensor
    tensor = tensor.clone()
    tensor.view(-1)[tensor.numel() // 2] = special
    return tensor


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """Return the same numbers as ``tensor``, otherwise in memory."""
    if layout == "transposed" and tensor.ndim > 1:
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "sliced" and tensor.ndim:
        wide = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.shape[-1])
        wide[..., ::2] = tensor
        return wide[..., ::2]
    if layout == "shifted":
        return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)
    if layout == "flipped" and tensor.ndim:
        return tensor.flip(0).flip(0)
    return tensor


modes = st.sampled_from(["grad", "no_grad", "inference"])


def mode(name: str) -> AbstractContextManager[object]:
    """Return what switches gradients off, or leaves them on."""
    if name == "grad":
        return nullcontext()
    return torch.no_grad() if name == "no_grad" else torch.inference_mode()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make ``dtype`` the one that torch takes where none is given."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# --- what may come of it ---------------------------------------------------------------------

REFUSED = object()


def tried(call: Callable[[], Any]) -> Any:  # noqa: ANN401 whatever the function returns
    """Return what ``call`` returns, or the ``ValueError`` that it raises."""
    try:
        return call()
    except ValueError as error:
        return error


def outcome(call: Callable[[], Any]) -> Any:  # noqa: ANN401 whatever the function returns
    """Return what ``call`` returns, or `REFUSED` for a ``ValueError`` with a value and a remedy.

    Any other error is a fault and is not caught.
    """
    try:
        return call()
    except ValueError as error:
        message = str(error)
    before, mark, remedy = message.partition("; ")
    assert mark, f"no remedy in {message}"
    assert remedy
    named = (*"0123456789", "nan", "inf", "dtype", "shape", " is ", "off")
    assert any(word in before for word in named), f"no value in {message}"
    return REFUSED


def exact(tensor: Tensor) -> Any:  # noqa: ANN401 an array of NumPy's widest float
    """Return ``tensor`` in the widest numbers that NumPy has: on most machines beyond float64."""
    wide = tensor.detach()
    return (wide.double() if wide.is_floating_point() else wide).numpy().astype(np.longdouble)


def unit(dtype: torch.dtype) -> float:
    """Half the distance of 1 to the next number: how far rounding moves a number, as a share."""
    return torch.finfo(dtype).eps / 2


def least(dtype: torch.dtype) -> float:
    """How far rounding moves a number that is subnormal."""
    return torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps


def computed(dtype: torch.dtype) -> torch.dtype:
    """The type in which halves are computed."""
    return torch.promote_types(dtype, torch.float32)


def assert_near(result: Tensor, expected: Any, bound: Any) -> None:  # noqa: ANN401 arrays
    """Fail unless ``result`` is finite and within ``bound`` of ``expected``, both arrays."""
    assert bool(result.isfinite().all()), f"{result} is not finite"
    assert tuple(result.shape) == np.shape(expected)
    off = np.abs(exact(result) - expected)
    assert np.all(off <= bound), f"off by {off.max()}, expected {expected}, got {result}"
