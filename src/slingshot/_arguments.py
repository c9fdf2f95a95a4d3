"""What a public door makes of a plain number: Python's own, which neither overflow nor round."""

import math
from numbers import Integral, Real
from typing import TypeVar, cast

import numpy as np

T = TypeVar("T")


def plain(value: T) -> T:
    """Return Python's number for one of NumPy's, or a fraction; anything else as it is.

    NumPy's int32 overflows in silence, and its float16 rounds.
    """
    number = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, Real) and not isinstance(number, int | float) and is_finite(number):
        number = float(number)
    return cast(T, number)


def whole(name: str, value: object, least: float = 0, most: int | None = None) -> int:
    """Return ``value`` as an int; ``ValueError`` unless it is whole and within the limits."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        raise ValueError(f"{name} is {value!r}; give a whole number, {limits}")
    return int(value)  # type: ignore[call-overload,no-any-return]


def real(name: str, value: object) -> float:
    """Return ``value`` as a finite float; raise ``ValueError`` for anything else."""
    if is_finite(value):
        return float(value)  # type: ignore[arg-type]
    raise ValueError(f"{name} is {value!r}; give a finite number")


def is_finite(value: object) -> bool:
    """Whether ``value`` is a real number that a float can hold; True and False are none."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an int beyond 1.8e308
        return False
