"""The language between the grader and the process that runs a learner's code: JSON, never pickle.

What comes from that process was written by a stranger. Unpickling it would run the stranger's code
in the grader, so values are spelled out: numbers, texts, lists, sets, dictionaries, arrays and
tensors, each with its type: a NumPy scalar arrives as one. Anything else arrives as an
:class:`Opaque`, which has a type's name and a text and no behavior. A message is a length in
decimal, a newline and so many bytes.
"""

import base64
import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from numbers import Integral, Real
from typing import Any, BinaryIO

import numpy as np

LONGEST_MESSAGE = 16_000_000
MOST_DIMENSIONS = 16
MOST_KEYS = 1000
"""Of a set or a dictionary: keys that all collide take a time that grows with their square."""

LONGEST_FRACTION = 4000  # digits, above which Python refuses to read a number
LONGEST_RANGE = 1_000_000
ARRAY_KINDS = "biuf"
ARRAY_TYPE = re.compile(r"[<|][biuf]\d{1,2}")
TORCH_TYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")

MOST_OUTPUTS = 50  # of a cell
MOST_TEXT = 20_000
MOST_IMAGE = 1_500_000


class WireError(Exception):
    """A message that is not in this language."""


class Opaque:
    """Something that was returned and is no data: the name of its type and its text."""

    def __init__(self, text: str) -> None:
        """Keep the text; the class carries the name."""
        self.text = text

    def __repr__(self) -> str:
        """Return the text that the thing gave of itself."""
        return self.text


# --- messages --------------------------------------------------------------------------------


def send(stream: BinaryIO, message: Mapping[str, Any]) -> None:
    """Write one message."""
    data = json.dumps(message).encode("ascii")
    stream.write(b"%d\n" % len(data) + data)
    stream.flush()


def receive(stream: BinaryIO, longest: int = LONGEST_MESSAGE) -> dict[str, Any]:
    """Read one message; raise ``EOFError`` at the end and ``WireError`` for anything malformed."""
    head = stream.readline(12)
    if not head:
        raise EOFError
    if not head.endswith(b"\n") or not head[:-1].isdigit():
        raise WireError("a message does not begin with its length")
    length = int(head)
    if length > longest:
        raise WireError(f"a message of {length} bytes is longer than {longest}")
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError("a message is not JSON") from error
    if not isinstance(message, dict):
        raise WireError("a message is not an object")
    return message


# --- values ----------------------------------------------------------------------------------


def encode(value: object) -> Any:  # noqa: ANN401 whatever JSON holds
    """Return a value as JSON; what is no data becomes its type's name and its ``repr``."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _encode_tensor(value)
    if isinstance(value, np.ndarray | np.generic):
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return _encode_array(np.asarray(value), kind)
    return _encode_number(value) if isinstance(value, Real) else _encode_collection(value)


def _encode_number(value: Real) -> Any:  # noqa: ANN401
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Fraction):
        parts = [value.numerator, value.denominator]
        if max(map(abs, parts)) < 10**LONGEST_FRACTION:
            return {"fraction": parts}
    return float(value)


def _encode_collection(value: object) -> Any:  # noqa: ANN401
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [encode(part) for part in value]}
    if isinstance(value, set | frozenset):
        kind = "set" if isinstance(value, set) else "frozenset"
        return {kind: [encode(part) for part in value]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, Mapping):
        return {"dict": [[encode(name), encode(part)] for name, part in value.items()]}
    return encode_opaque(value)


def encode_opaque(value: object) -> dict[str, Any]:
    """Return the name of a value's type and its text, of which at most 500 characters."""
    try:
        text = repr(value)
    except Exception:
        text = "<no text>"
    return {"opaque": [type(value).__name__, text[:500]]}


def decode(data: Any) -> Any:  # noqa: ANN401 whatever JSON holds
    """Return the value; raise ``WireError`` for JSON that ``encode`` does not make."""
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if not isinstance(data, dict) or len(data) != 1:
        raise WireError("a value has no kind")
    kind, content = next(iter(data.items()))
    try:
        return _DECODERS[kind](content)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"a value of kind {str(kind)[:40]!r} is malformed") from error


def _encode_array(array: np.ndarray, kind: str) -> dict[str, Any]:
    if array.dtype.kind not in ARRAY_KINDS:
        return encode_opaque(array)
    little = array.dtype.newbyteorder("<")
    data = np.ascontiguousarray(array, dtype=little).tobytes()
    text = base64.b64encode(data).decode("ascii")
    return {kind: [little.str, list(array.shape), text]}


def _encode_tensor(value: Any) -> dict[str, Any]:  # noqa: ANN401 torch may be absent
    plain = value.detach().cpu()
    name = str(value.dtype).removeprefix("torch.")
    if plain.layout is not sys.modules["torch"].strided or name not in TORCH_TYPES:
        if name != "bfloat16":
            return encode_opaque(value)
        plain = plain.float()  # exact; the type is told by its name
    content = _encode_array(plain.numpy(), "tensor")["tensor"]
    return {"tensor": [*content, name, bool(value.requires_grad)]}


def _decode_array(content: list[Any]) -> np.ndarray:
    name, shape, text = content
    if not ARRAY_TYPE.fullmatch(name):
        raise ValueError("no type of an array")
    dtype = np.dtype(name)
    sizes = [whole(size) for size in shape]
    if len(sizes) > MOST_DIMENSIONS or min(sizes, default=0) < 0:
        raise ValueError("no shape of an array")
    data = base64.b64decode(text, validate=True)
    if len(data) != math.prod(sizes) * dtype.itemsize:
        raise ValueError("an array does not have as many bytes as its shape says")
    return np.frombuffer(data, dtype).reshape(sizes).copy()


def _decode_tensor(content: list[Any]) -> object:
    import torch  # late: most processes have no tensor

    *array, name, requires_grad = content
    if name not in (*TORCH_TYPES, "bfloat16"):
        raise ValueError(f"a tensor of {name}")
    tensor = torch.from_numpy(_decode_array(array)).to(getattr(torch, name))
    return tensor.requires_grad_() if requires_grad and tensor.is_floating_point() else tensor


def _decode_opaque(content: list[str]) -> Opaque:
    name, text = content
    safe = name if isinstance(name, str) and name.isidentifier() else "object"
    value: Opaque = type(safe[:60], (Opaque,), {})(str(text)[:500])
    return value


def _decode_scalar(content: list[Any]) -> Any:  # noqa: ANN401 a scalar of NumPy
    array = _decode_array(content)
    if array.shape:
        raise ValueError("a scalar has a shape")
    scalar: Any = array[()]
    return scalar


def _decode_range(content: list[Any]) -> range:
    """A range that can be gone through: whoever reads it may make a list of it."""
    found = range(*(whole(part) for part in content))
    if len(found) > LONGEST_RANGE:
        raise ValueError(f"a range of more than {LONGEST_RANGE} numbers")
    return found


def _decode_fraction(content: list[Any]) -> Fraction:
    above, below = (whole(part) for part in content)
    return Fraction(above, below) if below else Fraction(0)


def whole(value: Any) -> int:  # noqa: ANN401
    """The whole number that a value is; raise ``TypeError`` if it is none."""
    if type(value) is not int:
        raise TypeError(f"{type(value).__name__} is no whole number")
    return value


def _decode_keys(content: list[Any]) -> list[Any]:
    if len(content) > MOST_KEYS:
        raise ValueError(f"more than {MOST_KEYS} keys")
    return [decode(part) for part in content]


def _decode_dict(content: list[Any]) -> dict[Any, Any]:
    names = _decode_keys([name for name, _ in content])
    return dict(zip(names, (decode(part) for _, part in content), strict=True))


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "list": lambda content: [decode(part) for part in content],
    "tuple": lambda content: tuple(decode(part) for part in content),
    "set": lambda content: set(_decode_keys(content)),
    "frozenset": lambda content: frozenset(_decode_keys(content)),
    "range": _decode_range,
    "fraction": _decode_fraction,
    "dict": _decode_dict,
    "scalar": _decode_scalar,
    "array": _decode_array,
    "tensor": _decode_tensor,
    "opaque": _decode_opaque,
}


# --- gradients -------------------------------------------------------------------------------


def gradient_ends(result: object) -> list[Any]:
    """The tensors of a result that gradients start from, in the order that both ends count by."""
    if isinstance(result, list | tuple):
        return [end for part in result for end in gradient_ends(part)]
    return [result] if needs_gradient(result) else []


def needs_gradient(value: object) -> bool:
    """Whether a value is a tensor that asks for a gradient."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor) and value.requires_grad
