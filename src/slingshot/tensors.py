"""What public functions do with the tensors that they get, whatever their type, in one line each.

Integers of any width stand for themselves, numbers of half precision are summed in float32, and
what cannot be meant is refused with its name.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from torch import Tensor, nn

_looking: ContextVar[bool] = ContextVar("looking", default=True)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return numbers in float32, or in float64 if they are: halves overflow and sums of them round.

    Integers become float32 too. What is float32 is returned as it is.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def usable(tensor: Tensor) -> Tensor:
    """Return ``tensor``, or a copy if it was made in inference mode: autograd keeps only copies."""
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return tensor.clone()
    return tensor


def real(name: str, values: Tensor) -> Tensor:
    """Return floating-point ``values`` as `usable`; ``ValueError`` for another type."""
    if not isinstance(values, Tensor):
        raise ValueError(f"{name} is {type(values).__name__}; pass a tensor, with torch.tensor()")
    if not values.is_floating_point():
        raise ValueError(f"{name} has dtype {values.dtype}; pass floating point, with .float()")
    return usable(values)


def whole(name: str, values: Tensor, remedy: str = "pass int64") -> Tensor:
    """Return integers of any width as int64; ``ValueError`` for another type, bool included.

    Narrow ones must not be compared as they are: torch wraps 512 to 0 for uint8.
    """
    if not isinstance(values, Tensor):
        raise ValueError(f"{name} is {type(values).__name__}; pass a tensor, with torch.tensor()")
    if not is_whole(values):
        raise ValueError(f"{name} has dtype {values.dtype}; {remedy}")
    return usable(values).long()


def is_whole(values: Tensor) -> bool:
    """Whether the type is one of integers, of any width; bool is not."""
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def check_shapes(remedy: str, *, empty: bool = True, **tensors: Tensor | None) -> None:
    """Raise ``ValueError`` unless the shapes are those in the brackets of ``remedy``, in order.

    ``"pass [T, d] and [E, d]"`` both says and checks it. A word is a size, the same wherever it
    stands, and a number is itself; ``"[N, V] twice"`` counts for two. ``None`` has any shape. With
    ``empty=False`` each must have an element.
    """
    sizes: dict[str, int] = {}
    fits = True
    for tensor, names in zip(tensors.values(), _bracketed(remedy), strict=True):
        if tensor is None:
            continue
        fits = fits and tensor.ndim == len(names) and (empty or tensor.numel() > 0)
        for name, size in zip(names, tensor.shape, strict=False):
            fits = fits and size == (int(name) if name.isdigit() else sizes.setdefault(name, size))
    if not fits:
        shapes = [t if t is None else tuple(t.shape) for t in tensors.values()]
        told = [f"{name} {shape}" for name, shape in zip(tensors, shapes, strict=True)]
        told[0] = f"{next(iter(tensors))} has shape {shapes[0]}"
        last = f" and {told.pop()}" if len(told) > 1 else ""
        raise ValueError(f"{', '.join(told)}{last}; {remedy}")


@lru_cache
def _bracketed(remedy: str) -> list[list[str]]:
    """The sizes in each pair of brackets."""
    return [
        inside.split(", ")
        for inside, twice in re.findall(r"\[([^\]]*)\]( twice)?", remedy)
        for _ in range(2 if twice else 1)
    ]


def check_within(name: str, values: Tensor, n: int, remedy: str) -> None:
    """Raise ``ValueError`` unless all of ``values`` int64 are from 0 to n - 1."""
    outside = values[(values < 0) | (values >= n)]
    if outside.numel():
        raise ValueError(f"{name} {int(outside[0])} is not within 0 to {n - 1}; {remedy}")


def check_finite(name: str, values: Tensor, remedy: str) -> None:
    """Raise ``ValueError`` with the first of ``values`` that is NaN or infinite."""
    finite = values.isfinite()
    if not finite.all():
        raise ValueError(f"{first(name, values, ~finite)}; {remedy}")


def finite_number(name: str, value: Tensor, step: int) -> float:
    """Return ``value``, one number; ``FloatingPointError`` if it is not finite at ``step``."""
    number: float = value.item()
    if not math.isfinite(number):
        raise FloatingPointError(
            f"the {name} is {number} at step {step}; lower learning_rate or check the batches"
        )
    return number


def first(name: str, values: Tensor, where: Tensor) -> str:
    """Say which is the first of ``values`` that stands ``where`` it is true."""
    index = where.nonzero()[0].tolist()
    place = f"[{', '.join(map(str, index))}]" if index else ""
    return f"{name}{place} is {values[tuple(index)].item()}"


def check_input(x: Tensor, width: int, linear: nn.Module | None = None) -> Tensor:
    """Return ``x [..., width]`` as `usable`; ``ValueError`` if it, or its type, is another.

    ``linear`` is the first layer that it meets. One that computes in its own way casts by itself.
    """
    if x.ndim < 1 or x.shape[-1] != width:
        raise ValueError(f"x has shape {tuple(x.shape)}; pass [..., {width}]")
    if linear is not None and type(linear) is nn.Linear:
        autocast, dtype = torch.is_autocast_enabled(x.device.type), linear.weight.dtype
        if x.dtype != dtype and not autocast:
            raise ValueError(f"x has dtype {x.dtype} and the layer {dtype}; cast one with .to()")
    return usable(x)


def check_output(output: Tensor, x: Tensor) -> None:
    """Raise ``ValueError`` if what a layer has made of ``x`` is not finite."""
    if not _looking.get():
        return
    # The sum is NaN or infinite if a term is, and takes a quarter of the time of looking at each.
    if math.isfinite(output.detach().sum().item()) or output.isfinite().all():
        return
    check_finite("x", x, "check what feeds the layer")
    raise ValueError(
        f"an output in {output.dtype} is not finite with |x| up to {x.abs().max().item():.3g}: it "
        "overflows or the weights have diverged; normalize x, or load the weights again"
    )


def check_squares(x: Tensor) -> None:
    """Raise ``ValueError`` unless RMSNorm can take the mean of the squares of ``x [..., d]``.

    It would return zeros. What is not finite to begin with is for others to name.
    """
    if not _looking.get():
        return
    flat = at_least_float32(x.detach()).flatten()
    # One dot product is quick; it may overflow where the sum of no row does.
    if math.isfinite((flat @ flat).item()):
        return
    rows = flat.view(-1, x.shape[-1])
    lost = rows.isfinite().all(dim=1) & rows.square().sum(dim=1).isinf()
    if lost.any():
        raise ValueError(
            f"the sum of squares overflows in RMSNorm with |x| up to {rows[lost].abs().max():.3g}; "
            "the weights have diverged, load or train them again"
        )


@contextmanager
def looking_at_the_end() -> Iterator[None]:
    """Spare the layers within a model `check_output`, where someone looks at what comes out."""
    token = _looking.set(False)
    try:
        yield
    finally:
        _looking.reset(token)


def check_learning(parameters: list[nn.Parameter]) -> None:
    """Raise ``ValueError`` unless AdamW can move ``parameters`` here and now."""
    if not parameters:
        raise ValueError("no parameter of the model requires a gradient; unfreeze what is to learn")
    if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
        raise ValueError(
            "gradients are switched off; train outside of torch.no_grad() and inference_mode()"
        )
    if any(parameter.is_inference() for parameter in parameters):
        raise ValueError("the model was made in inference_mode(); make it outside, to train it")
    check_types(parameters)


def check_types(parameters: list[nn.Parameter]) -> None:
    """Raise ``ValueError`` for ``parameters`` of a type in which AdamW cannot keep its squares."""
    for parameter in parameters:
        if parameter.dtype == torch.float16:
            raise ValueError(
                "a parameter has dtype torch.float16, in which the squares of gradients that AdamW "
                "keeps vanish; train in float32 or bfloat16"
            )
