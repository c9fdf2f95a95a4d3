"""The common refusals of public doors, one line each, and what a door makes of a plain number.

Numbers become Python's own, which neither overflow nor round. What cannot be meant raises
``ValueError`` with its name, its value and a remedy. `slingshot.tensors` does the same for tensors.
"""

import functools
import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import ParamSpec, TypeVar, cast

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")
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


def counts(least: int = 1, **values: int) -> None:
    """Raise ``ValueError`` unless each is a whole number, at least ``least``."""
    for name, value in values.items():
        whole(name, value, least)


def positive(**values: float) -> None:
    """Raise ``ValueError`` unless each is a finite number above 0."""
    for name, value in values.items():
        if not is_finite(value) or value <= 0:
            raise ValueError(f"{name} is {value!r}; give a finite number above 0")


def not_negative(**values: float) -> None:
    """Raise ``ValueError`` unless each is a finite number, at least 0."""
    for name, value in values.items():
        if not is_finite(value) or value < 0:
            raise ValueError(f"{name} is {value!r}; give a finite number, at least 0")


def even_for_rope(**widths: int) -> None:
    """Raise ``ValueError`` unless each width is even: rotary positions turn pairs of channels."""
    for name, width in widths.items():
        if width % 2:
            raise ValueError(f"{name} is {width}; RoPE turns pairs of channels, give an even one")


def share(**values: float) -> None:
    """Raise ``ValueError`` unless each is a number from 0 to 1."""
    for name, value in values.items():
        if not is_finite(value) or not 0 <= value <= 1:
            raise ValueError(f"{name} is {value!r}; give a share between 0 and 1, 0.4 for 40%")


def fields(
    config: object,
    *,
    at_least_1: Sequence[str] = (),
    above_0: Sequence[str] = (),
    shares: Sequence[str] = (),
) -> None:
    """Check named fields of a configuration: whole numbers, finite numbers, and shares.

    One that is ``None`` has a default, and passes.
    """
    for check, names in ((counts, at_least_1), (positive, above_0), (share, shares)):
        check(**{name: vars(config)[name] for name in names if vars(config)[name] is not None})


def one_of(choices: Sequence[str], **values: str) -> None:
    """Raise ``ValueError`` unless each is one of ``choices``."""
    for name, value in values.items():
        if value not in choices:
            *others, last = choices
            known = f"{', '.join(others)} or {last}" if others else last
            raise ValueError(f"{name} {value!r} is unknown; use {known}")


def python_numbers(*, difference: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Call with Python's numbers, and refuse a result that no float holds.

    A ``difference`` may be 0 where no argument is.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            numbers = [plain(value) for value in args]
            named = {name: plain(value) for name, value in kwargs.items()}
            given = [*numbers, *named.values()]
            has_zero = any(is_finite(value) and value == 0 for value in given)
            try:
                result = function(*numbers, **named)  # type: ignore[arg-type]
                _check_result(result, may_be_zero=difference or has_zero)
            except ArithmeticError as error:
                raise ValueError(
                    f"{function.__name__} of {given} leaves the range of a float, 2.2e-308 to "
                    "1.8e308; check the units"
                ) from error
            return result

        return call

    return decorate


def _check_result(result: object, *, may_be_zero: bool) -> None:
    """Raise ``OverflowError`` for a float, or one in a tuple or dataclass, that is not meant."""
    parts = (
        result if isinstance(result, tuple) else getattr(result, "__dict__", {0: result}).values()
    )
    for part in parts:
        if isinstance(part, float) and not (is_finite(part) and (part or may_be_zero)):
            raise OverflowError


def make_plain(config: object) -> None:
    """Make NumPy's numbers in the fields of a frozen dataclass Python's."""
    for name, value in vars(config).items():
        object.__setattr__(config, name, plain(value))
