"""Checks of the assignment on low precision: spacing, rounding, scales, and two matrix products.

Single numbers are Python floats, so that a failure shows all their digits; many of them lie at an
edge on purpose. Matrices are NumPy arrays of few digits. Whatever is rounded by a learner to E4M3
is drawn so that no quotient lies close to a tie: an error of float64 cannot move it to another
value.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from slingshot import formats
from slingshot.formats import E4M3, E8M0, FloatFormat
from slingshot_exercises.checking import (
    EXACT,
    UNIT_ROUNDOFF,
    Answer,
    Case,
    Exercise,
    Mistake,
    Tolerance,
    UnusableError,
    describe_kind,
    number,
    roundings,
    tensor,
)

Learner = Callable[..., Any]
Array = NDArray[Any]

CLOSEST: Final = 1e-6
"""The least relative distance of a quotient to a tie; float32 would be off by a tenth of that."""

MX_FORMATS: Final = (formats.E4M3, formats.E5M2, formats.E3M2, formats.E2M3, formats.E2M1)
FORMATS: Final = (*MX_FORMATS, formats.FP16, formats.BF16)


def _draw_formats(
    rng: np.random.Generator, seed: int, choice: tuple[FloatFormat, ...] = FORMATS
) -> list[FloatFormat]:
    """Two formats; for seed 0, which the learner sees, E4M3 and another one."""
    others = [choice[1 + i] for i in rng.permutation(len(choice) - 1)]
    return [E4M3, others[0]] if seed == 0 else others[:2]


@dataclass(frozen=True)
class OnlyOneMistake(Exercise):
    """An exercise whose first part was passed, so that what fails has one likely reason."""

    reason: str = ""

    def diagnose(self, *arguments: Any) -> str:  # noqa: ANN401 as in Exercise
        """Return that reason, whatever was computed."""
        return self.reason


# --- spacing ---------------------------------------------------------------------------------


def _spacing(x: float, mantissa_bits: int, bias: int) -> float:
    # frexp is exact: |x| = mantissa · 2^exponent, 1/2 <= mantissa < 1.
    exponent = math.frexp(max(abs(x), 2.0 ** (1 - bias)))[1]
    return math.ldexp(1.0, exponent - 1 - mantissa_bits)


def _wrong_spacing(
    exponent: Callable[[float, int], float],
) -> Callable[[float, int, int], float]:
    """A spacing of ``2^(exponent(x, bias) - M)``."""
    return lambda x, mantissa_bits, bias: 2.0 ** (exponent(x, bias) - mantissa_bits)


def _binade(x: float) -> int:
    """The exponent e of ``2^e <= |x| < 2^(e+1)``; of 0 that of the smallest float64."""
    return math.frexp(abs(x) or 2.0**-1074)[1] - 1


SPACING = Exercise(
    "spacing",
    _spacing,
    number,
    EXACT,
    [
        Mistake(
            "below the smallest normal number the spacing goes on shrinking; it stays what it is "
            "in the first binade, from 2^(1-bias)",
            _wrong_spacing(lambda x, bias: _binade(x)),
        ),
        Mistake(
            "the first binade begins at 2^-bias here; exponent 0 has the spacing of exponent 1, "
            "so it begins at 2^(1-bias)",
            _wrong_spacing(lambda x, bias: max(_binade(x), -bias)),
        ),
        Mistake(
            "a negative x gets the smallest spacing; take its magnitude first",
            _wrong_spacing(lambda x, bias: _binade(max(x, 2.0 ** (1 - bias)))),
        ),
        Mistake(
            "the exponent is rounded up; the binade of x begins at the power of two below it",
            _wrong_spacing(lambda x, bias: math.ceil(math.log2(max(abs(x), 2.0 ** (1 - bias))))),
        ),
        Mistake(
            "every result is twice the right one; math.frexp returns a mantissa from 1/2 to 1, so "
            "its exponent is one more than that of the binade",
            _wrong_spacing(lambda x, bias: max(_binade(x), 1 - bias) + 1),
        ),
        Mistake(
            "every result is half the right one; a binade has 2^M steps, as the leading 1 takes no "
            "bit",
            _wrong_spacing(lambda x, bias: max(_binade(x), 1 - bias) - 1),
        ),
        Mistake(
            "the spacing at 1 is returned for every x; it doubles from one binade to the next",
            _wrong_spacing(lambda x, bias: 0),
        ),
        Mistake(
            "the spacing grows with every x; within a binade it is the same for all",
            lambda x, mantissa_bits, bias: max(abs(x), 2.0 ** (1 - bias)) * 2.0**-mantissa_bits,
        ),
    ],
)


SPACING_BELOW_A_POWER = Exercise(
    "spacing",
    _spacing,
    number,
    EXACT,
    [
        Mistake(
            "the logarithm is rounded: just below a power of two it comes out as that power, and "
            "the spacing is twice too large. math.frexp takes the exponent without rounding",
            _wrong_spacing(lambda x, bias: math.floor(math.log2(max(abs(x), 2.0 ** (1 - bias))))),
        ),
    ],
)


def check_spacing(function: Learner, *, seed: int = 0) -> None:
    """Check ``spacing(x, mantissa_bits, bias)``: the distance between neighbors around x.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2209.05433, table 1.
    """
    rng = np.random.default_rng([seed, 31])
    cases: list[Case] = []
    for fmt in _draw_formats(rng, seed):
        small = fmt.min_normal
        power = 2.0 ** rng.integers(1, 3)
        xs = [
            power * round(rng.uniform(1.1, 1.9), 3),
            power,
            -power * round(rng.uniform(1.1, 1.9), 3),
            small,
            small * round(rng.uniform(0.6, 0.9), 3),
            -small * round(rng.uniform(0.02, 0.2), 3),
            0.0,
        ]
        cases += [{"x": x, "mantissa_bits": fmt.mantissa_bits, "bias": fmt.bias} for x in xs]
    SPACING.check(function, cases)
    below = [math.nextafter(2.0 ** int(power), 0) for power in rng.integers(5, 12, 2)]
    rest = {"mantissa_bits": 10, "bias": 15}  # of FP16, which reaches beyond all of them
    SPACING_BELOW_A_POWER.check(function, [{"x": x, **rest} for x in below])


# --- rounding --------------------------------------------------------------------------------


def _round_to(x: float, mantissa_bits: int, bias: int, largest: float) -> float:
    (fmt,) = (f for f in FORMATS if (f.mantissa_bits, f.bias) == (mantissa_bits, bias))
    return math.nan if math.isnan(x) else float(fmt.round(x, saturate=True))


def _saturate(value: float, largest: float) -> float:
    return math.copysign(largest, value) if abs(value) > largest else value


def _wrong_round(
    *,
    whole: Callable[[float], float] = np.rint,
    step: Callable[[float, int, int], float] = _spacing,
    beyond: Callable[[float, float], float] = _saturate,
) -> Callable[[float, int, int, float], float]:
    """A rounding with one step exchanged; ``beyond`` gets what was rounded, and the maximum."""

    def wrong(x: float, mantissa_bits: int, bias: int, largest: float) -> float:
        spacing = step(x, mantissa_bits, bias) if x else 1.0
        return beyond(float(whole(x / spacing)) * spacing, largest)

    return wrong


def _overflow(value: float) -> Callable[[float, float], float]:
    return lambda rounded, largest: (
        math.copysign(value, rounded) if abs(rounded) > largest else rounded
    )


def _without_subnormals(x: float, mantissa_bits: int, bias: int, largest: float) -> float:
    rounded = _wrong_round()(x, mantissa_bits, bias, largest)
    return 0.0 if abs(rounded) < 2.0 ** (1 - bias) else rounded


ROUND_TO = Exercise(
    "round_to",
    _round_to,
    number,
    EXACT,
    [
        Mistake(
            "a tie goes away from zero; from the middle the even one of the two is taken",
            _wrong_round(whole=lambda steps: math.copysign(math.floor(abs(steps) + 0.5), steps)),
        ),
        Mistake(
            "a tie goes up; from the middle the even one of the two is taken",
            _wrong_round(whole=lambda steps: math.floor(steps + 0.5)),
        ),
        Mistake(
            "the rest is cut off, toward zero; round to the nearest",
            _wrong_round(whole=math.trunc),
        ),
        Mistake("it rounds down always; round to the nearest", _wrong_round(whole=math.floor)),
        Mistake(
            "subnormal numbers become 0; below the smallest normal number there are 2^M - 1 more",
            _without_subnormals,
        ),
        Mistake(
            "tiny numbers are kept; below the smallest normal number the spacing does not shrink "
            "any more",
            _wrong_round(step=lambda x, mantissa_bits, bias: 2.0 ** (_binade(x) - mantissa_bits)),
        ),
        Mistake(
            "beyond the largest number it goes on; what would round beyond it becomes the largest",
            _wrong_round(beyond=lambda rounded, largest: rounded),
        ),
        Mistake(
            "an overflow becomes infinity; here it saturates, at the largest number",
            _wrong_round(beyond=_overflow(math.inf)),
        ),
        Mistake(
            "an overflow becomes nan; here it saturates, at the largest number",
            _wrong_round(beyond=_overflow(math.nan)),
        ),
        Mistake(
            "it saturates on one side only; what is below -largest becomes -largest",
            _wrong_round(beyond=min),
        ),
    ],
)

ROUND_TO_INFINITY = Exercise(
    "round_to",
    _round_to,
    number,
    EXACT,
    [
        Mistake(
            "infinity stays infinity; here it saturates like any other overflow",
            lambda x, mantissa_bits, bias, largest: x,
        ),
        Mistake(
            "infinity becomes nan, from infinity / infinity or 0 times infinity; deal with it "
            "before anything is divided",
            lambda x, mantissa_bits, bias, largest: math.nan,
        ),
    ],
)

ROUND_TO_NAN = OnlyOneMistake(
    "round_to",
    _round_to,
    number,
    EXACT,
    reason="nan becomes a number, which hides that something went wrong before; it stays nan",
)

ROUND_TO_ONCE = Exercise(
    "round_to",
    _round_to,
    number,
    EXACT,
    [
        Mistake(
            "it is rounded twice: in float32 a number just above a middle becomes the middle, and "
            "goes to the even side",
            lambda x, *rest: _wrong_round()(float(np.float32(x)), *rest),
        ),
    ],
)


def check_round_to(function: Learner, *, seed: int = 0) -> None:
    """Check ``round_to(x, mantissa_bits, bias, largest)``: to nearest and even, and saturating.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: IEEE 754-2019, §4.3.1; arXiv
    2209.05433, §3.
    """
    rng = np.random.default_rng([seed, 32])
    for exercise, draw in (
        (ROUND_TO, _ordinary_numbers),
        (ROUND_TO_INFINITY, lambda rng, fmt: [-math.inf, math.inf]),
        (ROUND_TO_NAN, lambda rng, fmt: [math.nan]),
        (ROUND_TO_ONCE, _nearly_a_tie),
    ):
        cases: list[Case] = []
        for fmt in _draw_formats(np.random.default_rng([seed, 32]), seed):
            rest = {"mantissa_bits": fmt.mantissa_bits, "bias": fmt.bias, "largest": fmt.max}
            cases += [{"x": x, **rest} for x in draw(rng, fmt)]
        exercise.check(function, cases)


def _ordinary_numbers(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    """Numbers within the format, ties, subnormals, and what is too large."""
    step, tiny = 2.0**-fmt.mantissa_bits, fmt.min_subnormal
    top = _spacing(fmt.max, fmt.mantissa_bits, fmt.bias)
    power = 2.0 ** int(rng.integers(0, 2))
    return [
        *(power * round(x, 3) for x in rng.uniform(1, 2, 2)),
        -power * round(rng.uniform(1, 2), 3),
        power * (1 + step / 2),
        -power * (1 + step / 2),
        -power * (1 + 1.5 * step),
        power * (1 + 1.5 * step),
        tiny * round(rng.uniform(0.6, 0.9), 3),
        -tiny / 2,
        tiny * round(rng.uniform(0.1, 0.4), 3),
        fmt.max + top / 4,
        fmt.max + round(rng.uniform(0.6, 0.9), 3) * top,
        -3 * fmt.max,
        0.0,
    ]


def _nearly_a_tie(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    """A number above a middle whose lower neighbor is even, by less than float32 can tell."""
    power = 2.0 ** int(rng.integers(0, 2))
    return [power * (1 + 2.0 ** -(fmt.mantissa_bits + 1)) * (1 + 2.0**-40)]


# --- quantize --------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartOf(Exercise):
    """One of several arrays that a function returns; where no mistake is known, it is named."""

    part: str = ""

    def diagnose(self, *arguments: Any) -> str:  # noqa: ANN401 as in Exercise
        """Return the message of a known mistake, or say in which part the answer differs."""
        message = super().diagnose(*arguments)
        known = any(message == mistake.message for mistake in self.mistakes)
        return message if known else f"{self.part}: {message}"


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


# A maximum is exact; it is divided once, and x is divided by that. Values that were rounded lie
# further apart than any rounding to float64 could take them.
TWO_DIVISIONS: Final = roundings(2)

QUANTIZE_SCALES = PartOf(
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
    ],
    part="scales",
)

QUANTIZE_VALUES = PartOf(
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
    ],
    part="values",
)


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


QUANTIZE_ZEROS = PartOf(
    "quantize",
    _quantize,
    _pair(0),
    TWO_DIVISIONS,
    [
        Mistake(
            "the values of a block of zeros are nan, from 0 / 0; they are 0",
            _zero_over_zero,
        ),
    ],
    part="values of a block of zeros",
)

QUANTIZE_ZERO_SCALES = PartOf(
    "quantize",
    _quantize,
    _pair(1),
    TWO_DIVISIONS,
    [
        Mistake("a block of zeros has the scale 0; here it has 1", _zero_scales(0.0)),
        Mistake(
            "a block of zeros has the smallest scale there is, as in the library; here it has 1",
            _zero_scales(2.0**-126),
        ),
    ],
    part="scales of a block of zeros",
)


def check_quantize(function: Learner, *, seed: int = 0) -> None:
    """Check ``quantize(x, block)``: values of E4M3 ``[R, C]`` and a scale for each block.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: DeepSeek-V3, arXiv
    2412.19437, §3.3.2.
    """
    rng = np.random.default_rng([seed, 33])
    shapes = [((2, 4), (1, 2)), ((4, 4), (2, 2)), ((3, 7), (2, 3)), ((5, 12), (1, 8))]
    cases = [_draw_matrix(rng, *shape) for shape in shapes]
    tiny = _draw_matrix(rng, (2, 4), (1, 4))
    cases.append({**tiny, "x": tiny["x"] * 1e-7})
    for exercise in (QUANTIZE_SCALES, QUANTIZE_VALUES):
        exercise.check(function, cases)
    zeros = _draw_matrix(rng, (2, 4), (1, 2))
    zeros["x"][int(rng.integers(2)), 2:] = 0
    for exercise in (QUANTIZE_ZEROS, QUANTIZE_ZERO_SCALES):
        exercise.check(function, [zeros])


def _draw_matrix(
    rng: np.random.Generator, shape: tuple[int, int], block: tuple[int, int]
) -> dict[str, Any]:
    """Draw a matrix whose blocks differ, until no quotient in it is close to a tie."""
    while True:
        size = rng.choice([0.1, 1.0, 10.0, 100.0], shape[0])
        x = (rng.standard_normal(shape) * size[:, None]).round(3)
        x[-1] = -np.abs(x[-1])  # so that the largest number is not the largest magnitude
        if not x.all():
            continue
        quotient = x / _spread_scales(_scales(x, block), block, shape)
        if (E4M3.round(quotient * (1 - CLOSEST)) == E4M3.round(quotient * (1 + CLOSEST))).all():
            return {"x": x, "block": block}


# --- scale_exponent --------------------------------------------------------------------------


def _scale_exponent(amax: float, largest: float, rule: Any) -> int:  # noqa: ANN401 a text
    import torch  # late: who answers with NumPy does not wait for torch

    from slingshot import quant

    (fmt,) = (f for f in MX_FORMATS if f.max == largest)
    # quantize refuses what no scale of E8M0 reaches; the exercise ends at the largest one.
    reached = min(amax, largest * 2.0**E8M0.bias)
    x = torch.tensor([[reached]], dtype=torch.float64)
    scale = quant.quantize(x, fmt, scale="e8m0", rule=rule).scale.item()
    return math.frexp(scale)[1] - 1


def _within_e8m0(exponent: int) -> int:
    return max(-E8M0.bias, min(exponent, E8M0.bias))


Rule = Callable[[float, float], float]


def _floor(amax: float, largest: float) -> int:
    return _binade(amax) - _binade(largest)


def _ceil(amax: float, largest: float) -> int:
    return _floor(amax, largest) + (math.frexp(amax)[0] > math.frexp(largest)[0])


def _log_floor(amax: float, largest: float) -> int:
    return math.floor(math.log2(amax)) - math.floor(math.log2(largest))


def _log_ceil(amax: float, largest: float) -> int:
    return math.ceil(math.log2(amax / largest))


def _wrong_exponent(
    floor: Rule = _floor,
    ceil: Rule = _ceil,
    *,
    limit: Callable[[int], int] = _within_e8m0,
    zero: float = -E8M0.bias,
    result: Callable[[int], float] = float,
) -> Callable[[float, float, str], float]:
    """An exponent with one rule exchanged, or what is done to both."""

    def wrong(amax: float, largest: float, rule: str) -> float:
        if amax == 0:
            return result(int(zero)) if zero == -E8M0.bias else zero
        return result(limit(int((ceil if rule == "ceil" else floor)(amax, largest))))

    return wrong


SCALE_EXPONENT = Exercise(
    "scale_exponent",
    _scale_exponent,
    number,
    EXACT,
    [
        Mistake(
            'rule has no effect, "floor" is done always; with "ceil" nothing saturates',
            _wrong_exponent(ceil=_floor),
        ),
        Mistake(
            'rule has no effect, "ceil" is done always; "floor" leaves the largest numbers of some '
            "blocks beyond the format",
            _wrong_exponent(floor=_ceil),
        ),
        Mistake("the two rules are exchanged", _wrong_exponent(_ceil, _floor)),
        Mistake(
            '"floor" rounds the logarithm of amax / largest down; MX takes the floor of both '
            "logarithms, each for itself",
            _wrong_exponent(
                floor=lambda amax, largest: (
                    _floor(amax, largest) - (math.frexp(amax)[0] < math.frexp(largest)[0])
                )
            ),
        ),
        Mistake(
            '"ceil" rounds the logarithm of amax up and that of largest down; in most blocks '
            "the scale is then twice as large as it need be",
            _wrong_exponent(
                ceil=lambda amax, largest: (
                    _binade(amax) + (math.frexp(amax)[0] > 0.5) - _binade(largest)
                )
            ),
        ),
        Mistake(
            '"ceil" adds one to "floor"; a block that fits already needs no larger scale',
            _wrong_exponent(ceil=lambda amax, largest: _floor(amax, largest) + 1),
        ),
        Mistake(
            "the logarithm is rounded to the nearest; then some numbers saturate, and with the "
            "rules nothing changes",
            _wrong_exponent(*[lambda amax, largest: round(math.log2(amax / largest))] * 2),
        ),
        Mistake(
            "it does not end at -127 and 127; E8M0 has no other exponents",
            _wrong_exponent(limit=lambda exponent: exponent),
        ),
        Mistake(
            "amax 0 gets the exponent 0; it gets the smallest, -127, so that nothing else changes",
            _wrong_exponent(zero=0),
        ),
        Mistake(
            "the code is returned, which has 127 added; return the exponent",
            _wrong_exponent(result=lambda exponent: exponent + E8M0.bias),
        ),
        Mistake(
            "the scale is returned, a power of two; return its exponent",
            _wrong_exponent(result=lambda exponent: 2.0**exponent),
        ),
    ],
)


SCALE_EXPONENT_AT_EDGES = Exercise(
    "scale_exponent",
    _scale_exponent,
    number,
    EXACT,
    [
        *(
            Mistake(
                "a logarithm is rounded: next to a power of two it comes out as that power, and "
                "the exponent is one off. math.frexp rounds nothing",
                _wrong_exponent(*rules),
            )
            for rules in ((_log_floor, _log_ceil), (_floor, _log_ceil), (_log_floor, _ceil))
        ),
    ],
)


def check_scale_exponent(function: Learner, *, seed: int = 0) -> None:
    """Check ``scale_exponent(amax, largest, rule)``: the exponent of a block's scale in E8M0.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: Rouhani et al., arXiv
    2310.10537, algorithm 1, for ``"floor"``; DeepSeek's DeepGEMM for ``"ceil"``.
    """
    rng = np.random.default_rng([seed, 34])
    drawn = _draw_formats(rng, seed, MX_FORMATS)
    for exercise, draw in ((SCALE_EXPONENT, _amaxes), (SCALE_EXPONENT_AT_EDGES, _amaxes_at_edges)):
        cases = [
            {"amax": amax, "largest": fmt.max, "rule": rule}
            for fmt in drawn
            for amax in draw(rng, fmt)
            for rule in ("floor", "ceil")
        ]
        exercise.check(function, cases)


def _amaxes(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    """Magnitudes in a low and a high part of a binade, some that fit exactly, and extremes."""
    power = 2.0 ** int(rng.integers(5, 12))
    return [
        round(rng.uniform(1.01, 1.2) * power, 3),
        round(rng.uniform(1.9, 1.99) / power, 6),
        fmt.max,
        fmt.max * power,
        power,
        2.0 ** int(rng.integers(-1000, -300)),
        2.0 ** int(rng.integers(300, 1000)),
        0.0,
    ]


def _amaxes_at_edges(rng: np.random.Generator, fmt: FloatFormat) -> list[float]:
    """What fits no more by a last digit, and what is a power of two but for one."""
    power = 2.0 ** int(rng.integers(5, 12))
    return [math.nextafter(fmt.max * power, math.inf), math.nextafter(power, 0)]


# --- int8_product ----------------------------------------------------------------------------


def _int8_product(q: Array, x_scale: Array, x_zero: Array, r: Array, w_scale: Array) -> Array:
    sums = (q.astype(np.int64) - x_zero.astype(np.int64)[:, None]) @ r.astype(np.int64).T
    product: Array = sums * np.outer(x_scale, w_scale)
    return product


def _wrong_sums(
    sums: Callable[[Array, Array, Array], Array],
) -> Callable[..., Array]:
    """A product whose integer sums are ``sums(q, z, r)``, of the stored codes."""
    return lambda q, x_scale, x_zero, r, w_scale: sums(q, x_zero, r) * np.outer(x_scale, w_scale)


def _wrong_correction(
    correction: Callable[[Array, Array, Array], Array],
) -> Callable[..., Array]:
    """A product from which ``correction(q, z, r)`` is subtracted, of 64-bit integers."""

    def sums(*codes: Array) -> Array:
        q, z, r = (code.astype(np.int64) for code in codes)
        return q @ r.T - correction(q, z, r)

    return _wrong_sums(sums)


def _wrong_product_scale(scale: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """A product with right sums and ``scale(x_scale, w_scale)``."""

    def wrong(q: Array, x_scale: Array, x_zero: Array, r: Array, w_scale: Array) -> Array:
        return _int8_product(q, 1.0 + 0 * x_scale, x_zero, r, 1.0 + 0 * w_scale) * scale(
            x_scale, w_scale
        )

    return wrong


def _correction_without_scale(
    q: Array, x_scale: Array, x_zero: Array, r: Array, w_scale: Array
) -> Array:
    q, z, r = (code.astype(np.int64) for code in (q, x_zero, r))
    product: Array = (q @ r.T) * np.outer(x_scale, w_scale) - z[:, None] * r.sum(1)
    return product


def _sums_of(dtype: type) -> Callable[..., Array]:
    """A product whose sums are kept in a narrow integer, which wraps."""

    def sums(*codes: Array) -> Array:
        q, z, r = (code.astype(np.int64) for code in codes)
        return ((q - z[:, None]) @ r.T).astype(dtype)

    return _wrong_sums(sums)


def _product_bound(case: Case, expected: Answer) -> Array:
    """Derived for factors that are scaled first: K products of two roundings, and K - 1 sums."""
    q, z, r = (case[name].astype(float) for name in ("q", "x_zero", "r"))
    size = (q + z[:, None]) @ np.abs(r).T * np.outer(case["x_scale"], case["w_scale"])
    return np.asarray(2 * (q.shape[1] + 4) * UNIT_ROUNDOFF * size)


INT8_PRODUCT = Exercise(
    "int8_product",
    _int8_product,
    tensor,
    Tolerance(
        _product_bound,
        "K + 4 roundings to float64 of the sum of all magnitudes, in each of two formulas",
    ),
    [
        Mistake(
            "the products are summed in 16 bits, which is what NumPy makes of uint8 @ int8, and "
            "wrap beyond 32,767; give both a wider type first",
            _wrong_sums(
                lambda q, z, r: (q @ r.T).astype(np.int64) - z[:, None] * r.sum(1, dtype=np.int64)
            ),
        ),
        Mistake(
            "code minus zero point is computed in uint8, which has no negative numbers and wraps; "
            "give both a wider type first",
            _wrong_sums(lambda q, z, r: (q - z[:, None]).astype(np.int64) @ r.astype(np.int64).T),
        ),
        Mistake(
            "code minus zero point is computed in uint8 and wraps, and then the products are "
            "summed in 16 bits and wrap; give all of them a wider type first",
            _wrong_sums(lambda q, z, r: (q - z[:, None]) @ r.T),
        ),
        Mistake("the sums are kept in 16 bits and wrap; 32 are enough", _sums_of(np.int16)),
        Mistake("the sums are kept in 8 bits and wrap; 32 are enough", _sums_of(np.int8)),
        Mistake(
            "the zero point is not subtracted; code z stands for 0",
            _wrong_correction(lambda q, z, r: np.zeros_like(q @ r.T)),
        ),
        Mistake(
            "the zero point is added; a code stands for (code - zero point) times scale",
            _wrong_correction(lambda q, z, r: -z[:, None] * r.sum(1)),
        ),
        Mistake(
            "the zero point is subtracted once from each sum; it is in each of the K products, "
            "multiplied by its weight",
            _wrong_correction(lambda q, z, r: z[:, None] + 0 * r.sum(1)),
        ),
        Mistake(
            "K times the zero point is subtracted; each product has it multiplied by its weight, "
            "so it is the zero point times the sum of the weights",
            _wrong_correction(lambda q, z, r: z[:, None] * q.shape[1] + 0 * r.sum(1)),
        ),
        Mistake(
            "the zero point is multiplied by the sum of the codes of x; it meets the weights, so "
            "take their sum over k",
            _wrong_correction(lambda q, z, r: (z * q.sum(1))[:, None] + 0 * r.sum(1)),
        ),
        Mistake(
            "what the zero points add is subtracted without the scales; it is a part of the sum "
            "of integers",
            _correction_without_scale,
        ),
        Mistake(
            "the scales of w are missing",
            _wrong_product_scale(lambda x_scale, w_scale: np.outer(x_scale, 0 * w_scale + 1)),
        ),
        Mistake(
            "the scales of x are missing",
            _wrong_product_scale(lambda x_scale, w_scale: np.outer(0 * x_scale + 1, w_scale)),
        ),
        Mistake(
            "there are no scales; the sum of integers is returned",
            _wrong_product_scale(
                lambda x_scale, w_scale: np.outer(0 * x_scale + 1, 0 * w_scale + 1)
            ),
        ),
    ],
)


INT8_PRODUCT_OF_INTEGERS = OnlyOneMistake(
    "int8_product",
    _int8_product,
    tensor,
    # The sum is exact. Two scales and the sum are multiplied, in whatever order.
    roundings(2),
    reason="the numbers are scaled before they are summed, and each product is rounded; where the "
    "sum nearly cancels the roundings show. Sum integers, which is exact, and scale the sum",
)


def check_int8_product(function: Learner, *, seed: int = 0) -> None:
    """Check ``int8_product(q, x_scale, x_zero, r, w_scale)``: ``[M, N]`` from sums of integers.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: Jacob et al., arXiv
    1712.05877, §2.2.
    """
    rng = np.random.default_rng([seed, 35])
    shapes = [(1, 1, 3), (2, 3, 4), (3, 2, 16), (4, 5, 64)]
    cases = [_draw_codes(rng, *shape) for shape in shapes]
    INT8_PRODUCT.check(function, cases)
    INT8_PRODUCT_OF_INTEGERS.check(function, [_draw_cancelling(rng, 5, k) for k in (5, 7, 40)])


def _draw_codes(rng: np.random.Generator, m: int, n: int, k: int) -> dict[str, Any]:
    """Codes that are large, so that a sum of products does not fit 16 bits."""
    return {
        "q": rng.integers(128, 256, (m, k)).astype(np.uint8) * (rng.random((m, k)) < 0.8),
        "x_scale": rng.uniform(0.001, 0.1, m).round(4),
        "x_zero": rng.integers(20, 100, m).astype(np.uint8),
        "r": rng.integers(90, 128, (n, k)).astype(np.int8) * _signs(rng, (n, k)),
        "w_scale": rng.uniform(0.001, 0.1, n).round(4),
    }


def _signs(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Three of four are positive, so that sums grow."""
    return np.where(rng.random(shape) < 0.75, 1, -1).astype(np.int8)


def _draw_cancelling(rng: np.random.Generator, m: int, k: int) -> dict[str, Any]:
    """Codes with one row of weights and sums that are 0: the last product takes the others back."""
    case = _draw_codes(rng, m, 1, k)
    case["r"] = rng.integers(-9, 10, (1, k)).astype(np.int8)
    case["r"][0, -1] = 1
    for row, zero in enumerate(case["x_zero"].astype(int)):
        while True:
            codes = np.clip(zero + rng.integers(-15, 16, k), 0, 255)
            last = zero - int((codes[:-1] - zero) @ case["r"][0, :-1].astype(int))
            if 0 <= last <= 255:
                break
        case["q"][row] = [*codes[:-1], last]
    return case


# --- fp8_product -----------------------------------------------------------------------------


Sum = Callable[[Array, int], Array]
Short = Callable[[Array, int, int], Array]


def _frexp_step(largest: Array, bits: int) -> Array:
    """The step of ``bits`` bits below the first power of two that is larger than ``largest``."""
    step: Array = np.ldexp(1.0, np.frexp(largest)[1] - bits)
    return step


def _largest(terms: Array) -> Array:
    largest: Array = np.abs(terms).max(-1, keepdims=True)
    return largest


def _cut(
    largest: Callable[[Array], Array] = _largest,
    whole: Callable[[Array], Array] = np.trunc,
    more_bits: int = 0,
) -> Sum:
    """Return a sum over the last dimension of what a short accumulator keeps of each term."""

    def add(terms: Array, bits: int) -> Array:
        step = _frexp_step(largest(terms), bits + more_bits)
        total: Array = (whole(terms / step) * step).sum(-1)
        return total

    return add


_aligned = _cut()


def _short_sum(products: Array, group: int, bits: int) -> Array:
    """Sum ``products [M, N, K]`` a group at a time in ``bits`` bits: ``[M, N]``."""
    return _grouped(_aligned)(products, group, bits)


def _grouped(add: Sum) -> Short:
    """A short sum that adds a group and the sum so far with ``add``, the sum first."""

    def short(products: Array, group: int, bits: int) -> Array:
        total = np.zeros(products.shape[:2])
        for start in range(0, products.shape[2], group):
            terms = products[..., start : start + group]
            total = add(np.concatenate([total[..., None], terms], -1), bits)
        return total

    return short


def _wrong_fp8(
    *,
    short: Short = _short_sum,
    scale: Callable[[Array, Array], Array] = lambda s, t: s[:, None] * t[None, :],
    carry: bool = False,
    scaled_first: bool = False,
    end: Callable[[Array, int], Array] = lambda total, bits: total,
) -> Callable[..., Array]:
    """A product with one step exchanged. ``scale`` gets s ``[M]`` and t ``[N]`` of a stretch."""

    def wrong(
        q: Array, q_scale: Array, r: Array, r_scale: Array, block: int, group: int, bits: int
    ) -> Array:
        products = q[:, None, :] * r[None, :, :]
        columns = r_scale.repeat(block, 0)[: len(r)]
        total = np.zeros(products.shape[:2])
        for k, start in enumerate(range(0, q.shape[1], block)):
            scales = scale(q_scale[:, k], columns[:, k])
            stretch = products[..., 0 if carry else start : start + block]
            if scaled_first:
                total = total + short(stretch * scales[..., None], group, bits)
            else:
                total = total + short(stretch, group, bits) * scales
            total = end(total, bits)
        return total

    return wrong


def _fp8_product(
    q: Array, q_scale: Array, r: Array, r_scale: Array, block: int, group: int, bits: int
) -> Array:
    import torch  # late, as above

    from slingshot import quant

    total = np.zeros((len(q), len(r)))
    for k, start in enumerate(range(0, q.shape[1], block)):
        here = slice(start, start + block)
        x, w = (torch.from_numpy(values[:, here]) for values in (q, r))
        # accumulate returns float32, which holds a sum of at most 14 + 6 bits.
        short = quant.accumulate(x, w, bits, None, group=group).numpy()
        total += short * np.outer(q_scale[:, k], r_scale[:, k].repeat(block)[: len(r)])
    return total


def _fp8_bound(case: Case, expected: Answer) -> Array:
    """How far roundings to float64 can move a result.

    Short sums have none: all their steps are powers of two. Two scales and the total round two
    times and once for each stretch. K + 4 roundings of all magnitudes are more than that, and what
    a product of scaled factors takes, so that it is recognized.
    """
    every_product = _wrong_fp8(short=lambda products, group, bits: np.abs(products).sum(-1))
    size = every_product(*case.values())
    return np.asarray(2 * (case["q"].shape[1] + 4) * UNIT_ROUNDOFF * size)


def _sum_apart(terms: Array, bits: int) -> Array:
    return terms[..., 0] + _aligned(terms[..., 1:], bits)


def _cut_at_the_end(total: Array, bits: int) -> Array:
    return _aligned(total[..., None], bits)


def _one_by_one(products: Array, group: int, bits: int) -> Array:
    return _short_sum(products, 1, bits)


FP8_PRODUCT = Exercise(
    "fp8_product",
    _fp8_product,
    tensor,
    Tolerance(
        _fp8_bound,
        "K + 4 roundings to float64 of the sum of all magnitudes, in each of two formulas",
    ),
    [
        Mistake(
            "nothing is cut off; that is a product with exact sums",
            _wrong_fp8(short=lambda products, group, bits: products.sum(-1)),
        ),
        Mistake(
            "the short sum is not begun anew after each stretch; products are counted again",
            _wrong_fp8(carry=True),
        ),
        Mistake(
            "the terms are rounded to the nearest step; the chip cuts off what is below it",
            _wrong_fp8(short=_grouped(_cut(whole=np.rint))),
        ),
        Mistake(
            "negative terms are cut away from zero, by floor; cut off toward zero, by trunc",
            _wrong_fp8(short=_grouped(_cut(whole=np.floor))),
        ),
        Mistake(
            "the sum so far is added after the cut; it is one of the terms that are cut",
            _wrong_fp8(short=_grouped(_sum_apart)),
        ),
        Mistake(
            "the step comes from the products of the group alone; the sum so far may be the "
            "largest term",
            _wrong_fp8(short=_grouped(_cut(lambda terms: _largest(terms[..., 1:])))),
        ),
        Mistake(
            "the step comes from the largest term; it is the largest magnitude that counts",
            _wrong_fp8(short=_grouped(_cut(lambda terms: terms.max(-1, keepdims=True)))),
        ),
        Mistake(
            "one step serves all results; each result has a largest term of its own",
            _wrong_fp8(short=_grouped(_cut(lambda terms: np.abs(terms).max(keepdims=True)))),
        ),
        Mistake(
            "there is one bit too many: the step is 2^(e - bits) with the largest magnitude below "
            "2^e, not from 2^e on",
            _wrong_fp8(short=_grouped(_cut(more_bits=1))),
        ),
        Mistake(
            "there is one bit too few: the step is 2^(e - bits), where 2^e is the first power of "
            "two above the largest magnitude",
            _wrong_fp8(short=_grouped(_cut(more_bits=-1))),
        ),
        Mistake(
            "a stretch is aligned as a whole; only a group of products is, with the sum so far",
            _wrong_fp8(
                short=lambda products, group, bits: _short_sum(products, len(products[0, 0]), bits)
            ),
        ),
        Mistake(
            "the products are added one by one; a group of them is aligned together",
            _wrong_fp8(short=_one_by_one),
        ),
        Mistake(
            "the numbers are multiplied by their scales before the short sum; the chip multiplies "
            "what is stored, and the sum is scaled",
            _wrong_fp8(scaled_first=True),
        ),
        Mistake(
            "the scales of r are missing",
            _wrong_fp8(scale=lambda s, t: s[:, None] * np.ones(len(t))),
        ),
        Mistake(
            "the scales of q are missing",
            _wrong_fp8(scale=lambda s, t: np.ones(len(s))[:, None] * t),
        ),
        Mistake(
            "the total is cut to so many bits, too; it is kept in full",
            _wrong_fp8(end=_cut_at_the_end),
        ),
    ],
)

FP8_PRODUCT_OF_ZEROS = Exercise(
    "fp8_product",
    _fp8_product,
    tensor,
    Tolerance(_fp8_bound, FP8_PRODUCT.tolerance.reason),
    [
        Mistake(
            "a group of zeros gives nan: its largest magnitude has no logarithm. np.frexp has an "
            "exponent for 0, too",
            lambda q, *rest: np.where(q.any(1)[:, None], _fp8_product(q, *rest), np.nan),
        ),
    ],
)


def check_fp8_product(function: Learner, *, seed: int = 0) -> None:
    """Check ``fp8_product(q, q_scale, r, r_scale, block, group, bits)``: ``[M, N]``.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: DeepSeek-V3, arXiv
    2412.19437, §3.3.2 and §3.5.2.
    """
    rng = np.random.default_rng([seed, 36])
    shapes = [
        # rows of q, rows of r, stretches, block, group, bits
        (1, 1, 1, 4, 2, 4),
        (1, 2, 2, 4, 2, 5),
        (2, 5, 2, 4, 2, 6),
        (4, 20, 4, 16, 4, 8),
        (2, 130, 2, 128, 32, 14),
    ]
    FP8_PRODUCT.check(function, [_draw_product(rng, *shape) for shape in shapes])
    zeros = _draw_product(rng, 2, 2, 1, 4, 2, 6)
    zeros["q"][1] = 0
    FP8_PRODUCT_OF_ZEROS.check(function, [zeros])


def _draw_product(
    rng: np.random.Generator, m: int, n: int, stretches: int, block: int, group: int, bits: int
) -> dict[str, Any]:
    """Values of E4M3 and scales of three digits."""

    def values(rows: int) -> Array:
        return E4M3.round(rng.standard_normal((rows, stretches * block)) * 8)

    return {
        "q": values(m),
        "q_scale": rng.uniform(0.01, 0.1, (m, stretches)).round(3),
        "r": values(n),
        "r_scale": rng.uniform(0.01, 0.1, (-(-n // block), stretches)).round(3),
        "block": block,
        "group": group,
        "bits": bits,
    }


CHECKS: dict[str, Callable[..., None]] = {
    "spacing": check_spacing,
    "round_to": check_round_to,
    "quantize": check_quantize,
    "scale_exponent": check_scale_exponent,
    "int8_product": check_int8_product,
    "fp8_product": check_fp8_product,
}
"""The exercises of the assignment in their order, each with its check."""
