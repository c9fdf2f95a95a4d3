"""Number formats, bit by bit: which numbers a few bits can hold, and how the others are rounded.

A number is a sign, an exponent e and a mantissa of M bits. All numbers with the same exponent form
a binade, from 2^e to 2^(e+1). They are spaced evenly, 2^(e-M) apart, and from one binade to the
next the spacing doubles. Below the first binade the spacing stays: those are the subnormals.

Read as an integer, the code without its sign counts these numbers from zero upward. So encoding is
counting: all steps of the binades below, and the steps of its own binade up to the number.

Sources: IEEE 754 for FP32 and FP16; Micikevicius et al., arXiv 2209.05433, table 1, for E4M3 and
E5M2; the OCP Microscaling (MX) specification v1.0 for E3M2, E2M3, E2M1 and E8M0.
"""

import functools
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slingshot.require import one_of, whole

Specials = Literal["inf and nan", "nan", "none"]
"""What the last codes mean. With ``"inf and nan"`` the largest exponent holds both, as in IEEE 754.
With ``"nan"`` only the very last code of each sign is not a number. With ``"none"`` all are."""

Mode = Literal["nearest_even", "toward_zero", "stochastic"]
"""To the nearest and on a tie to the even code; to the one nearer to zero; to one of the two
neighbors by chance, the nearer the likelier, so that the expected result is the number itself."""

Float = NDArray[np.floating[Any]]

# So many elements are converted at a time: what is needed in between then stays in the cache.
_CHUNK: Final = 1 << 15


@dataclass(frozen=True)
class FloatFormat:
    """A floating-point format of at most 32 bits: sign, exponent, mantissa, from the left.

    A normal number is ±(1 + mantissa / 2^M) · 2^(exponent - ``bias``). Exponent 0 holds the
    subnormals, ±(mantissa / 2^M) · 2^(1 - ``bias``), zero among them. A format that is not
    ``signed`` is a scale as in MX: it has no sign, mantissa, zero or subnormals, and its code c is
    2^(c - ``bias``).

    **Overflow.** A number that would round beyond ``max`` becomes infinity where the format has
    one, otherwise NaN, and where there is neither, the maximum. With ``saturate=True`` it becomes
    the maximum everywhere, and so does infinity. Rounding toward zero takes a finite number to the
    maximum at most, as IEEE 754 says.

    **What has no code.** NaN in a format without it raises ``ValueError``. In a scale, zero and
    negative numbers become NaN, and whatever is positive and too small becomes the smallest power.

    Raises ``ValueError`` for fields that make no format, or one that goes beyond float32, in which
    the values are handed out.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: Specials
    signed: bool = True

    def __post_init__(self) -> None:
        """Check the fields."""
        limits = {"exponent_bits": (-31, 31), "mantissa_bits": (-31, 31), "bias": (-(2**31), 2**31)}
        for field, (least, most) in limits.items():  # NumPy's narrow integers overflow below
            value = whole(f"{self.name}'s {field}", getattr(self, field), least, most)
            object.__setattr__(self, field, value)
        one_of(get_args(Specials), specials=self.specials)
        if self.signed != (self.mantissa_bits >= 1) or self.mantissa_bits < 0:
            raise ValueError(
                f"{self.name} has {self.mantissa_bits} mantissa bits and signed={self.signed}; "
                "give a signed format at least 1, a scale 0"
            )
        if not self.signed and self.specials != "nan":
            raise ValueError(
                f"{self.name} is a scale with specials {self.specials!r}; use 'nan', which is also "
                "what zero becomes"
            )
        if self.exponent_bits < 2:
            raise ValueError(f"{self.name} has {self.exponent_bits} exponent bits; give at least 2")
        smallest = self._first_binade - self.mantissa_bits
        largest = (self._max_count >> self.mantissa_bits) - self.bias
        if self.mantissa_bits > 23 or smallest < -149 or largest > 127:
            raise ValueError(
                f"{self.name} has {self.mantissa_bits} mantissa bits and values from 2^{smallest} "
                f"to 2^{largest}; stay within float32: 23 bits, from 2^-149 to 2^127"
            )

    @property
    def bits(self) -> int:
        """Bits of a code, the sign included."""
        return self.signed + self.exponent_bits + self.mantissa_bits

    @functools.cached_property
    def max(self) -> float:
        """The largest finite value."""
        return float(self._value_of(np.array(self._max_count)))

    @property
    def min_normal(self) -> float:
        """The smallest positive value with a full mantissa."""
        return float(2.0**self._first_binade)

    @property
    def min_subnormal(self) -> float:
        """The smallest positive value; in a scale the same as ``min_normal``."""
        return float(2.0 ** (self._first_binade - self.mantissa_bits))

    def values(self) -> NDArray[np.float32]:
        """Return all distinct finite values in ascending order, zero once.

        Raises ``ValueError`` for a format of more than 16 bits.
        """
        if self.bits > 16:
            raise ValueError(
                f"{self.name} has 2^{self.bits} codes, too many to list; decode those you need"
            )
        finite = self._values[np.isfinite(self._values)]
        return np.unique(finite + np.float32(0))  # -0 + 0 is 0

    def round(
        self,
        x: ArrayLike,
        mode: Mode = "nearest_even",
        *,
        saturate: bool = False,
        rng: np.random.Generator | None = None,
    ) -> Float:
        """Return ``x``, of any shape, rounded to values of this format.

        The result is float32 for float32 and float16, otherwise float64; both hold every value of
        the format. ``rng`` is needed by ``mode="stochastic"``. Raises ``ValueError`` as `encode`.
        """
        values = _as_float(x)
        rounded: Float = self.decode(self.encode(values, mode, saturate=saturate, rng=rng))
        return rounded.astype(values.dtype, copy=False)

    def encode(
        self,
        x: ArrayLike,
        mode: Mode = "nearest_even",
        *,
        saturate: bool = False,
        rng: np.random.Generator | None = None,
    ) -> NDArray[Any]:
        """Return the codes of ``x``, of any shape, as uint8, uint16 or uint32.

        The rounding is exact for float64 and all integers too: nothing is rounded twice. Infinity
        and overflow follow ``saturate`` as the class says. NaN and zero keep their sign.

        Raises ``ValueError`` for an unknown ``mode``, for ``"stochastic"`` without a generator, for
        ``x`` that is not real, and for NaN where the format has none. PyTorch's tensors are read as
        NumPy reads them: detached, on the CPU and not bfloat16, otherwise ``ValueError``.
        """
        values = _as_float(x)
        _check_mode(mode, rng)
        if self.specials == "none":
            self._check_no_nan(values)
        has_table = values.dtype == np.float32 and mode != "stochastic" and self._fits_table
        flat = values.ravel()
        codes: NDArray[Any] = np.empty(flat.size, self._code_dtype)
        for start in range(0, flat.size, _CHUNK):
            here = slice(start, start + _CHUNK)
            if has_table:
                table = _encoding_table(self, mode, saturate)
                table.take(_leading_bits(flat[here]), out=codes[here], mode="clip")
            else:
                codes[here] = self._encode_plainly(flat[here], mode, saturate, rng)
        return codes.reshape(values.shape)

    def decode(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Return the values of integer ``codes``, of any shape: the sign is the highest bit.

        Raises ``ValueError`` for codes that are not integers or not within 0 and 2^``bits`` - 1.
        """
        codes = self._check_codes(_as_array("codes", codes))
        if self.bits > 16:
            return self._decode_plainly(codes.astype(np.int64))
        flat = codes.ravel()
        values = np.empty(flat.size, np.float32)
        for start in range(0, flat.size, _CHUNK):
            here = slice(start, start + _CHUNK)
            # Every code is within the table. "clip" saves take from checking that once more.
            self._values.take(flat[here], out=values[here], mode="clip")
        return values.reshape(codes.shape)

    # --- the definition -----------------------------------------------------------------------

    def _encode_plainly(
        self, x: Float, mode: Mode, saturate: bool, rng: np.random.Generator | None
    ) -> NDArray[np.int64]:
        """Count the values up to ``x [n]``, then see to what cannot be counted."""
        # Every step is exact in float64 but the rounding itself.
        with np.errstate(invalid="ignore"):  # some NaNs signal when they are cast
            size = np.abs(x.astype(np.float64))
        size = np.where(np.isfinite(size), size, self.max)
        binade = np.frexp(np.maximum(size, self.min_normal))[1].astype(np.int64) - 1
        steps = _round_steps(np.ldexp(size, self.mantissa_bits - binade), mode, rng)
        # The last step of a binade is the first of the next, and counting does not mind.
        count: NDArray[np.int64] = steps + ((binade - self._first_binade) << self.mantissa_bits)
        if not self.signed:  # the first binade begins with its first value, not at zero
            count = np.maximum(count - 1, 0)

        beyond = np.isinf(x) | ((count > self._max_count) & (mode != "toward_zero"))
        count = np.minimum(count, self._max_count)
        if not saturate:
            count = np.where(beyond, self._overflow_count, count)
        count = np.where(np.isnan(x), self._nan_count, count)
        if self.signed:
            count |= np.signbit(x).astype(np.int64) << (self.bits - 1)
        else:
            count = np.where(x <= 0, self._nan_count, count)
        return count

    def _decode_plainly(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Split ``codes`` into sign, exponent and mantissa, and put the value together."""
        count = codes & self._last_count
        value = self._value_of(np.minimum(count, self._max_count))
        value = np.where(count > self._max_count, np.nan, value)
        if self.specials == "inf and nan":
            value = np.where(count == self._overflow_count, np.inf, value)
        negative = (codes >> (self.bits - 1) == 1) & self.signed
        return np.where(negative, -value, value).astype(np.float32)

    def _value_of(self, count: NDArray[np.int64]) -> NDArray[np.float64]:
        exponent = count >> self.mantissa_bits
        mantissa = count & (2**self.mantissa_bits - 1)
        if self.signed:  # a subnormal has the first binade's spacing and no leading 1
            leading = np.minimum(exponent, 1)
            exponent = np.maximum(exponent, 1)
        else:
            leading = np.ones_like(exponent)
        steps = (leading << self.mantissa_bits) + mantissa
        value: NDArray[np.float64] = np.ldexp(
            steps.astype(np.float64), exponent - self.bias - self.mantissa_bits
        )
        return value

    @property
    def _first_binade(self) -> int:
        """Exponent e of the smallest normal number, 2^e."""
        return self.signed - self.bias

    @property
    def _last_count(self) -> int:
        """The code with all bits set but the sign."""
        return int(2 ** (self.exponent_bits + self.mantissa_bits)) - 1

    @property
    def _max_count(self) -> int:
        """The code of the largest finite value."""
        if self.specials == "inf and nan":
            return self._last_count - (1 << self.mantissa_bits)
        return self._last_count - (self.specials == "nan")

    @property
    def _overflow_count(self) -> int:
        """The code of what lies beyond: infinity or NaN if there is one, otherwise the maximum."""
        return self._max_count + (self.specials != "none")

    @property
    def _nan_count(self) -> int:
        """The code of NaN: the quiet one where there are several."""
        if self.specials == "inf and nan":
            return self._overflow_count + (1 << (self.mantissa_bits - 1))
        return self._last_count

    # --- tables: the definition, asked once ----------------------------------------------------

    @property
    def _code_dtype(self) -> np.dtype[Any]:
        return np.dtype(f"u{1 if self.bits <= 8 else 2 if self.bits <= 16 else 4}")

    @functools.cached_property
    def _values(self) -> NDArray[np.float32]:
        """The value of every code ``[2^bits]``."""
        return self._decode_plainly(np.arange(2**self.bits))

    @property
    def _fits_table(self) -> bool:
        """Whether the leading bits of a float32 decide its code.

        `_leading_bits` keeps 7 bits after the binary point, the last of which only says that the
        number is not on the coarser grid of 6. So the values and the midpoints between them, where
        decisions fall, must lie on that grid. With 8 bits there are at most 5 in the mantissa, and
        6 in a midpoint. Among the subnormals of float32 the grid is 2^-132.
        """
        return self.bits <= 8 and self.min_subnormal >= 2.0**-131

    def _check_codes(self, codes: NDArray[Any]) -> NDArray[Any]:
        if codes.dtype.kind not in "ui":
            raise ValueError(f"codes have dtype {codes.dtype}; pass integers, as encode returns")
        if codes.dtype.kind == "i" or np.iinfo(codes.dtype).max >= 2**self.bits:
            wrong = codes[(codes < 0) | (codes >= 2**self.bits)]
            if wrong.size:
                raise ValueError(
                    f"code {wrong[0]} is not one of {self.name}; give 0 to {2**self.bits - 1}"
                )
        return codes

    def _check_no_nan(self, x: Float) -> None:
        is_nan = np.isnan(x)
        if is_nan.any():
            index = [int(i) for i in np.argwhere(is_nan)[0]]
            place = f"x{index}" if index else "x"
            raise ValueError(
                f"{place} is nan and {self.name} has no code for it; replace it first, for "
                "example with np.nan_to_num"
            )


FP32: Final = FloatFormat("FP32", 8, 23, 127, "inf and nan")
BF16: Final = FloatFormat("BF16", 8, 7, 127, "inf and nan")
FP16: Final = FloatFormat("FP16", 5, 10, 15, "inf and nan")
E5M2: Final = FloatFormat("E5M2", 5, 2, 15, "inf and nan")
E4M3: Final = FloatFormat("E4M3", 4, 3, 7, "nan")
E3M2: Final = FloatFormat("E3M2", 3, 2, 3, "none")
E2M3: Final = FloatFormat("E2M3", 2, 3, 1, "none")
E2M1: Final = FloatFormat("E2M1", 2, 1, 1, "none")
E8M0: Final = FloatFormat("E8M0", 8, 0, 127, "nan", signed=False)


def _as_array(name: str, x: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(x)
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{name} is a {type(x).__name__} that NumPy cannot read ({error}); pass an array, "
            "or x.detach().cpu().float().numpy() of a tensor"
        ) from error


def _as_float(x: ArrayLike) -> Float:
    """Return ``x`` as float32 or float64, whichever holds it; integers become float64."""
    array = _as_array("x", x)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size <= 4:
        return array.astype(np.float32, copy=False)
    if (kind == "f" and size == 8) or (kind in "biu" and size < 8):
        return array.astype(np.float64, copy=False)
    if kind in "iu":
        # Beyond 2^53 float64 would round first, and a tie could go astray. 43 bits or more with an
        # odd last one for "something follows" are enough to round once, to 24 bits or fewer.
        odd = (array >> 11 | (array & 2047 != 0)) << 11
        large = (array > 2**53) | (array < -(2**53)) if kind == "i" else array > 2**53
        return np.where(large, odd, array).astype(np.float64)
    raise ValueError(f"x has dtype {array.dtype}; pass float16, float32, float64 or integers")


def _check_mode(mode: str, rng: object) -> None:
    one_of(get_args(Mode), mode=mode)
    if mode == "stochastic" and not isinstance(rng, np.random.Generator):
        raise ValueError(
            f"stochastic rounding with rng={rng!r}; pass rng=np.random.default_rng(seed)"
        )


def _round_steps(
    steps: NDArray[np.float64], mode: Mode, rng: np.random.Generator | None
) -> NDArray[np.int64]:
    """Round ``steps [n]``, none negative, to whole numbers."""
    if mode == "nearest_even":
        whole = np.rint(steps)
    else:
        whole = np.floor(steps)
        if mode == "stochastic" and rng is not None:
            # Adding chance to steps and rounding down would round in the sum, and may move a
            # number that needs no rounding.
            whole += rng.random(steps.shape) < steps - whole
    return whole.astype(np.int64)


def _leading_bits(x: Float) -> NDArray[np.uint32]:
    """Return the first 16 bits of float32 ``x``, the last of them set if any dropped bit is."""
    bits = x.view(np.uint32)
    leading: NDArray[np.uint32] = bits & np.uint32(0xFFFF)
    leading += 0xFFFF  # carries into bit 16 if any of the bits below is set
    leading |= bits
    leading >>= 16
    return leading


@functools.cache
def _encoding_table(fmt: FloatFormat, mode: Mode, saturate: bool) -> NDArray[Any]:
    """The code of every float32 that ends in 16 zeros ``[2^16]``, by its first 16 bits."""
    x = (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)
    return fmt._encode_plainly(x, mode, saturate, None).astype(fmt._code_dtype)
