"""The check of ``quantize``."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from slingshot.formats import E4M3
from slingshot_exercises.checking import (
    Case,
    Exercise,
    Learner,
    Mistake,
    UnusableError,
    describe_kind,
    roundings,
    tensor,
)
from slingshot_exercises.domain import Domain, Draw
from slingshot_exercises.low_precision.common import Array

CLOSEST: Final = 1e-6
"""The least relative distance of a quotient to a tie; float32 would be off by a tenth of that."""


def _pair(index: int) -> Callable[[object], Array]:
    """Return a reader of one array of ``(values, scales)``."""
    wanted = "two arrays of float64, (values, scales)"

    def read(answer: object) -> Array:
        if not isinstance(answer, list | tuple) or len(answer) != 2:
            raise UnusableError(f"it returns {describe_kind(answer)}; return {wanted}")
        part, name = answer[index], ("values", "scales")[index]
        kind = str(getattr(part, "dtype", ""))
        if "float8" in kind:  # NumPy has no such type
            raise UnusableError(f"{name}: it returns a tensor of {kind}; return {wanted}")
        try:
            return tensor(part)
        except UnusableError as error:
            raise UnusableError(f"{name}: {error}; {wanted}") from None

    return read


def _tiles(x: Array, block: tuple[int, int], missing: bool = True) -> Array:
    """View ``x [R, C]`` as ``[blocks, rows, blocks, columns]``, a rest filled up or left out."""
    height, width = block
    if missing:
        x = np.pad(x, ((0, -len(x) % height), (0, -x.shape[1] % width)))
    rows, columns = len(x) // height, x.shape[1] // width
    return x[: rows * height, : columns * width].reshape(rows, height, columns, width)


def _amax(x: Array, block: tuple[int, int]) -> Array:
    amax: Array = np.abs(_tiles(x, block)).max((1, 3))
    return amax


def _spread_scales(scales: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:
    """Repeat the scale of each block for its elements: ``[R, C]``."""
    return scales.repeat(block[0], 0).repeat(block[1], 1)[: shape[0], : shape[1]]


def _scales(x: Array, block: tuple[int, int]) -> Array:
    amax = _amax(x, block)
    return np.where(amax > 0, amax / E4M3.max, 1.0)


def _quantize(x: Array, block: tuple[int, int]) -> tuple[Array, Array]:
    scales = _scales(x, block)
    values = E4M3.round(x / _spread_scales(scales, block, x.shape), saturate=True)
    return values, scales


def _wrong_scales(scales: Callable[[Array, tuple[int, int]], Array]) -> Callable[..., Any]:
    """A quantization of which only the scales are imitated."""
    return lambda x, block: (x, scales(x, block))


def _wrong_values(values: Callable[[Array, Array], Array]) -> Callable[..., Any]:
    """A quantization with right scales, of whose elements ``values(x, s)`` is made."""

    def wrong(x: Array, block: tuple[int, int]) -> tuple[Array, Array]:
        scales = _scales(x, block)
        return values(x, _spread_scales(scales, block, x.shape)), scales

    return wrong


def _with_rest_filled(x: Array, block: tuple[int, int]) -> tuple[Array, Array]:
    rows, height, columns, width = _tiles(x, block).shape
    padded = np.zeros((rows * height, columns * width))
    padded[: len(x), : x.shape[1]] = _quantize(x, block)[0]
    return padded, _scales(x, block)


def _zero_scales(scale: float) -> Callable[..., Any]:
    """A quantization in which a block of zeros has this scale."""

    def wrong(x: Array, block: tuple[int, int]) -> tuple[Array, Array]:
        amax = _amax(x, block)
        return x, np.where(amax > 0, amax / E4M3.max, scale)

    return wrong


def _zero_over_zero(x: Array, block: tuple[int, int]) -> tuple[Array, Array]:
    scales = _amax(x, block) / E4M3.max
    with np.errstate(invalid="ignore"):
        return E4M3.round(x / _spread_scales(scales, block, x.shape)), _scales(x, block)


def _all_in(x: Array, block: tuple[int, int]) -> Array:
    """Whether a block has no zero."""
    padded = np.ones(-(-np.array(x.shape) // block) * block)
    padded[: len(x), : x.shape[1]] = x != 0
    full: Array = _tiles(padded, block).min((1, 3)) > 0
    return full


def _with_floor(floor: float) -> list[Callable[..., Any]]:
    """Quantizations of which a floor, or a small addend, spoils the scales of small blocks."""

    def scales(change: Callable[[Array], Array]) -> Callable[..., Any]:
        return _wrong_scales(
            lambda x, block: (
                np.where(_amax(x, block) > 0, change(_amax(x, block)), E4M3.max) / E4M3.max
            )
        )

    return [
        scales(lambda amax: np.maximum(amax, floor)),
        scales(lambda amax: np.maximum(amax, floor * E4M3.max)),
        scales(lambda amax: amax + floor),
        _wrong_scales(lambda x, block: np.maximum(_amax(x, block), floor) / E4M3.max),
        _wrong_scales(lambda x, block: np.maximum(_amax(x, block) / E4M3.max, floor)),
        _wrong_scales(lambda x, block: (_amax(x, block) + floor) / E4M3.max),
    ]


# A maximum is exact; it is divided once, and x is divided by that. Values that were rounded lie
# further apart than any rounding to float64 could take them.
TWO_DIVISIONS: Final = roundings(2)


QUANTIZE_SCALES = Exercise(
    "quantize",
    _quantize,
    _pair(1),
    TWO_DIVISIONS,
    [
        Mistake(
            "the scale is the largest magnitude itself; divided by E4M3.max it brings that number "
            "to 448 and not to 1",
            _wrong_scales(_amax),
        ),
        Mistake(
            "the scale is turned over; x is divided by it, so it is amax / 448",
            _wrong_scales(lambda x, block: E4M3.max / _amax(x, block)),
        ),
        Mistake(
            "the scale is the largest number of a block, not the largest magnitude; a block whose "
            "negative numbers are larger saturates",
            _wrong_scales(lambda x, block: _tiles(x, block).max((1, 3)) / E4M3.max),
        ),
        Mistake(
            "the largest number of E4M3 is taken to be 480; that code is NaN, and the largest is "
            "448",
            _wrong_scales(lambda x, block: _amax(x, block) / 480),
        ),
        Mistake(
            "there is one scale for the whole matrix; each block has its own",
            _wrong_scales(lambda x, block: np.abs(x).max(keepdims=True) / E4M3.max),
        ),
        Mistake(
            "rows and columns of a block are exchanged; block is (rows, columns)",
            _wrong_scales(lambda x, block: _amax(x, block[::-1]) / E4M3.max),
        ),
        Mistake(
            "the rest of a row or column that fills no block is left out; it has a scale, too",
            _wrong_scales(lambda x, block: np.abs(_tiles(x, block, False)).max((1, 3)) / E4M3.max),
        ),
        Mistake(
            "amax has a floor of 1e-4; a block of smaller numbers then uses a few codes of E4M3 "
            "only",
            _wrong_scales(lambda x, block: np.maximum(_amax(x, block), 1e-4) / E4M3.max),
        ),
        Mistake(
            "the scales are rounded up to powers of two; here any number is a scale",
            _wrong_scales(lambda x, block: 2.0 ** np.ceil(np.log2(_amax(x, block) / E4M3.max))),
        ),
        Mistake("a block of zeros has the scale 0; here it has 1", _zero_scales(0.0)),
        Mistake(
            "a block of zeros has the smallest scale there is, as in the library; here it has 1",
            _zero_scales(2.0**-126),
        ),
        Mistake(
            "a block with some zeros has the scale 1; only a block of nothing but zeros has",
            _wrong_scales(
                lambda x, block: np.where(_all_in(x, block), _amax(x, block) / E4M3.max, 1.0)
            ),
        ),
        Mistake(
            "a block that begins with zero has the scale 1; look at all of its numbers",
            _wrong_scales(
                lambda x, block: np.where(
                    x[:: block[0], :: block[1]] != 0, _amax(x, block) / E4M3.max, 1.0
                )
            ),
        ),
        *(
            Mistake(
                f"the largest magnitude, or the scale, is at least {floor:.0e}, or that is added; "
                "numbers may be smaller than that. Ask whether a block is all zeros",
                wrong,
            )
            for floor in (1e-6, 1e-8, 1e-12, 1e-20, 1e-30)
            for wrong in _with_floor(floor)
        ),
    ],
    part="scales",
)


QUANTIZE_VALUES = Exercise(
    "quantize",
    _quantize,
    _pair(0),
    TWO_DIVISIONS,
    [
        Mistake(
            "the values are not rounded; E4M3.round does it",
            _wrong_values(lambda x, s: x / s),
        ),
        Mistake(
            "the values are multiplied by their scales again; return what E4M3 holds",
            _wrong_values(lambda x, s: E4M3.round(x / s) * s),
        ),
        Mistake(
            "the values are rounded before they are divided; E4M3 must round what it is to hold",
            _wrong_values(lambda x, s: E4M3.round(x, saturate=True) / s),
        ),
        Mistake(
            "x is multiplied by the scales; dividing brings the largest number to 448",
            _wrong_values(lambda x, s: E4M3.round(x * s, saturate=True)),
        ),
        Mistake(
            "the values are rounded to whole numbers, as for INT8; E4M3 has finer ones below 8 and "
            "coarser ones above 16",
            _wrong_values(lambda x, s: np.rint(x / s)),
        ),
        Mistake(
            "the codes are returned; E4M3.round returns the values",
            _wrong_values(lambda x, s: E4M3.encode(x / s)),
        ),
        Mistake(
            "the rest is cut off, toward zero; E4M3.round by itself goes to the nearest",
            _wrong_values(lambda x, s: E4M3.round(x / s, "toward_zero")),
        ),
        Mistake(
            "the zeros that filled up a rest are returned, too; the values have the shape of x",
            _with_rest_filled,
        ),
        Mistake(
            "the values of a block of zeros are nan, from 0 / 0; they are 0",
            _zero_over_zero,
        ),
    ],
    part="values",
)


def _case(x: Any, block: tuple[int, int]) -> Case:  # noqa: ANN401 lists or an array
    return {"x": np.asarray(x, dtype=float), "block": block}


def _draw_matrix(
    rng: np.random.Generator,
    shape: tuple[int, int],
    block: tuple[int, int],
    change: Callable[[Array], Array] = lambda x: x,
) -> Case:
    """Draw a matrix whose blocks differ, until no quotient in it is close to a tie."""
    while True:
        size = rng.choice([0.1, 1.0, 10.0, 100.0], shape[0])
        x = (rng.standard_normal(shape) * size[:, None]).round(3)
        x[-1] = -np.abs(x[-1])  # so that the largest number is not the largest magnitude
        if not x.all():
            continue
        x = change(x)
        quotient = x / _spread_scales(_scales(x, block), block, shape)
        if (E4M3.round(quotient * (1 - CLOSEST)) == E4M3.round(quotient * (1 + CLOSEST))).all():
            return _case(x, block)


def _usual(rng: np.random.Generator) -> list[Case]:
    shapes = [((2, 4), (1, 2)), ((4, 4), (2, 2)), ((3, 7), (2, 3)), ((5, 12), (1, 8))]
    return [_draw_matrix(rng, *shape) for shape in shapes]


def _scaled(factor: float) -> Draw:
    return lambda rng: [_draw_matrix(rng, (3, 4), (1, 4), lambda x: x * factor)]


def _with_zeros(places: tuple[Any, ...]) -> Callable[[Array], Array]:
    def change(x: Array) -> Array:
        x[places] = 0
        return x

    return change


def _saturated(x: Array) -> Array:
    """Numbers that are all their block's largest, of either sign."""
    x[:] = np.where(x > 0, 3.0, -3.0)
    return x


DOMAIN = Domain(
    "Matrices have one row and one column or more. A block may be of any size, larger than the "
    "matrix among them. Numbers are of either sign, zeros among them, with magnitudes from "
    "$10^{-290}$ to $10^{290}$.",
    _usual,
    {
        "a block is all zeros": lambda rng: [
            _draw_matrix(rng, (2, 4), (1, 2), _with_zeros(np.s_[0, 2:])),
            _draw_matrix(rng, (3, 5), (2, 2), _with_zeros(np.s_[2:, 4:])),
            _case(np.zeros((2, 3)), (1, 2)),
        ],
        "a block has zeros beside other numbers": lambda rng: [
            _draw_matrix(rng, (4, 4), (2, 2), _with_zeros(np.s_[0, 1:3])),
            _draw_matrix(rng, (2, 6), (1, 3), _with_zeros(np.s_[:, 5])),
        ],
        "a block begins with zero": lambda rng: [
            _draw_matrix(rng, (4, 6), (2, 3), _with_zeros(np.s_[::2, ::3]))
        ],
        "the numbers are tiny": lambda rng: [
            case for size in (1e-7, 1e-15, 1e-45, 1e-285) for case in _scaled(size)(rng)
        ],
        "the numbers are huge": lambda rng: [
            case for size in (1e30, 1e285) for case in _scaled(size)(rng)
        ],
        "all numbers are negative": lambda rng: [
            _draw_matrix(rng, (3, 4), (2, 2), lambda x: -np.abs(x))
        ],
        "all numbers are positive": lambda rng: [_draw_matrix(rng, (3, 4), (2, 2), np.abs)],
        "all magnitudes of a block are equal": lambda rng: [
            _draw_matrix(rng, (2, 6), (1, 3), _saturated)
        ],
        "a block is one number": lambda rng: [_draw_matrix(rng, (2, 3), (1, 1))],
        "a block is larger than the matrix": lambda rng: [
            _draw_matrix(rng, (2, 3), (4, 8)),
            _draw_matrix(rng, (1, 1), (2, 2)),
        ],
        "a block is a column": lambda rng: [_draw_matrix(rng, (6, 3), (4, 1))],
        "a block is wider than it is high, and rows are left over": lambda rng: [
            _draw_matrix(rng, (5, 9), (2, 4))
        ],
    },
)


def check_quantize(function: Learner, *, seed: int = 0) -> str:
    """Check ``quantize(x, block)``: values of E4M3 ``[R, C]`` and a scale for each block.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: DeepSeek-V3, arXiv
    2412.19437, §3.3.2.
    """
    for exercise in (QUANTIZE_SCALES, QUANTIZE_VALUES):
        passed = DOMAIN.check(exercise, function, seed)
    return passed
