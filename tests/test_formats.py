"""Number formats against ml_dtypes, torch and NumPy, against a search by hand, and with faults.

Every check is a function of one format, so that the same check that holds for the library can be
asked about a format with a planted fault, and must then fail.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from slingshot import formats
from slingshot.formats import (
    BF16,
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E5M2,
    E8M0,
    FP16,
    FP32,
    FloatFormat,
    Mode,
)

SMALL = [BF16, FP16, E5M2, E4M3, E3M2, E2M3, E2M1, E8M0]  # of at most 16 bits
ALL = [FP32, *SMALL]
SIGNED = [fmt for fmt in SMALL if fmt.signed]
MODES: list[Mode] = ["nearest_even", "toward_zero"]
N_HARD = 100_000

NUMPY: dict[str, Any] = {
    "BF16": ml_dtypes.bfloat16,
    "FP16": np.float16,
    "E5M2": ml_dtypes.float8_e5m2,
    "E4M3": ml_dtypes.float8_e4m3fn,
    "E3M2": ml_dtypes.float6_e3m2fn,
    "E2M3": ml_dtypes.float6_e2m3fn,
    "E2M1": ml_dtypes.float4_e2m1fn,
    "E8M0": ml_dtypes.float8_e8m0fnu,
}
TORCH = {
    "BF16": torch.bfloat16,
    "FP16": torch.float16,
    "E5M2": torch.float8_e5m2,
    "E4M3": torch.float8_e4m3fn,
    "E8M0": torch.float8_e8m0fnu,
}


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    """Nothing here may warn: infinities and NaN are dealt with, not stumbled over."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


# --- references and hard numbers ---------------------------------------------------------------


def numpy_codes(fmt: FloatFormat, x: NDArray[Any]) -> NDArray[Any]:
    """The codes by ml_dtypes, or by NumPy for FP16."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cast = x.astype(NUMPY[fmt.name])
    return cast.view(np.uint16 if fmt.bits > 8 else np.uint8)


def torch_codes(fmt: FloatFormat, x: NDArray[Any]) -> NDArray[Any]:
    cast = torch.from_numpy(x).to(TORCH[fmt.name])
    return np.asarray(cast.view(torch.uint16 if fmt.bits > 8 else torch.uint8).numpy())


def all_codes(fmt: FloatFormat) -> NDArray[Any]:
    return np.arange(2**fmt.bits).astype(np.uint16 if fmt.bits > 8 else np.uint8)


def is_nan(fmt: FloatFormat, codes: NDArray[Any]) -> NDArray[np.bool_]:
    """Which codes are NaN, from the layout alone and not by the library."""
    all_ones = 2 ** (fmt.bits - fmt.signed) - 1
    last_number = {
        "none": all_ones,
        "nan": all_ones - 1,
        "inf and nan": (2**fmt.exponent_bits - 1) << fmt.mantissa_bits,
    }
    nan: NDArray[np.bool_] = (codes & all_ones) > last_number[fmt.specials]
    return nan


def assert_same_codes(fmt: FloatFormat, ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    """Equal bit for bit; NaN must be NaN, whichever of its codes."""
    nan = is_nan(fmt, ours)
    np.testing.assert_array_equal(nan, is_nan(fmt, theirs))
    np.testing.assert_array_equal(ours[~nan], theirs[~nan])


def assert_same_bits(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    """Equal bit for bit, so that -0 is not 0; NaN must be NaN."""
    nan = np.isnan(theirs)
    np.testing.assert_array_equal(np.isnan(ours), nan)
    np.testing.assert_array_equal(ours[~nan].view(np.uint32), theirs[~nan].view(np.uint32))


def magnitudes(fmt: FloatFormat) -> NDArray[np.float64]:
    """The finite values from zero on, by the formula of the standard and not by the library.

    In their order they are numbered from 0: the number is the code. One more follows, the first
    value beyond the maximum.
    """
    if not fmt.signed:
        return 2.0 ** (np.arange(0, 256.0) - fmt.bias)
    ones = 2**fmt.mantissa_bits
    last = 2**fmt.exponent_bits - (fmt.specials == "inf and nan")
    fraction = np.arange(ones) / ones
    subnormal = fraction * 2.0 ** (1 - fmt.bias)
    normal = [(1 + fraction) * 2.0 ** (e - fmt.bias) for e in range(1, last)]
    values = np.concatenate([subnormal, *normal])
    if fmt.specials == "none":
        values = np.append(values, 2 * values[-1] - values[-2])
    if fmt.specials == "inf and nan":
        values = np.append(values, 2.0 ** (last - fmt.bias))
    return values


def hard_floats(fmt: FloatFormat, seed: int = 0) -> NDArray[np.float32]:
    """At least a hundred thousand float32: what rounding gets wrong, if it gets anything wrong.

    Values of the format, ties, and both at distances from one float32 step to 2^20; overflow edges;
    all powers of two; float32's own subnormals; zeros, infinities, NaNs of any payload; the rest
    any bits. Of the formats of 16 bits, a random choice of values and ties.
    """
    rng = np.random.default_rng(seed)
    values = magnitudes(fmt)
    if fmt.bits > 8:
        edges = values[[*range(20), *range(-20, 0)]]
        values = np.sort(np.concatenate([edges, rng.choice(values, 1500, replace=False)]))
        spacing = 2.0 ** (np.frexp(np.maximum(values, fmt.min_normal))[1] - 1 - fmt.mantissa_bits)
        ties = values + spacing / 2
    else:
        ties = (values[:-1] + values[1:]) / 2
    with np.errstate(over="ignore"):  # beyond BF16 lies infinity
        points = np.concatenate([values, ties]).astype(np.float32)
    steps = np.concatenate([[0], 2 ** np.arange(21)])
    near = points.view(np.int32)[:, None].astype(np.int64) + np.concatenate([-steps, steps])
    near = near[(near >= 0) & (near < 2**31)].astype(np.uint32)
    powers = np.arange(256, dtype=np.uint32) << 23
    subnormal = rng.integers(0, 2**23, 5000, dtype=np.uint32)
    special = np.array([0, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF], np.uint32)
    chosen = np.concatenate([near, powers, subnormal, special])
    chosen = np.concatenate([chosen, chosen | np.uint32(0x80000000)])
    rest = rng.integers(0, 2**32, max(0, N_HARD - len(chosen)) + 20_000, dtype=np.uint32)
    floats = np.concatenate([chosen, rest]).view(np.float32)
    assert len(floats) >= N_HARD
    return floats


def accepted(fmt: FloatFormat, x: NDArray[Any]) -> NDArray[Any]:
    """All of ``x`` that the format takes and the references round to nearest.

    No NaN where there is none, and in a scale not what lies between 2^-127 and the next tie: see
    `test_both_round_the_first_binade_of_e8m0_up`.
    """
    refused = np.isnan(x) & (fmt.specials == "none")
    if not fmt.signed:
        refused = (x > 2.0**-127) & (x < 1.5 * 2.0**-127)
    kept: NDArray[Any] = x[~refused]
    return kept


# --- the checks ---------------------------------------------------------------------------------


def check_decoding(fmt: FloatFormat) -> None:
    """Every code means what the references say."""
    codes = all_codes(fmt)
    values = fmt.decode(codes)
    assert values.dtype == np.float32
    with np.errstate(all="ignore"):
        assert_same_bits(values, codes.view(NUMPY[fmt.name]).astype(np.float32))
    if fmt.name in TORCH:
        assert_same_bits(values, torch.from_numpy(codes).view(TORCH[fmt.name]).float().numpy())


def check_round_trip(fmt: FloatFormat) -> None:
    """A value has the code that it came from."""
    codes = all_codes(fmt)
    codes = codes[~is_nan(fmt, codes)]
    values = fmt.decode(codes)
    np.testing.assert_array_equal(fmt.encode(values), codes)
    np.testing.assert_array_equal(fmt.encode(values.astype(np.float64)), codes)


def check_numpy(fmt: FloatFormat) -> None:
    """Codes as ml_dtypes makes them: overflow shows, except where the format cannot show it."""
    x = accepted(fmt, hard_floats(fmt))
    assert_same_codes(fmt, fmt.encode(x), numpy_codes(fmt, x))


def check_torch(fmt: FloatFormat) -> None:
    """Codes as torch makes them: it saturates E4M3 and no other format."""
    x = accepted(fmt, hard_floats(fmt))
    if not fmt.signed:  # of these torch makes numbers, see below
        x = x[(x > 0) | np.isnan(x)]
    ours = fmt.encode(x, saturate=fmt.name == "E4M3")
    assert_same_codes(fmt, ours, torch_codes(fmt, x))


def check_clamped(fmt: FloatFormat) -> None:
    """Within the range all agree, whichever way overflow goes."""
    x = np.clip(accepted(fmt, hard_floats(fmt)), -fmt.max, fmt.max).astype(np.float32)
    x = x if fmt.signed else x[(x > 0) | np.isnan(x)]
    codes = fmt.encode(x)
    assert_same_codes(fmt, fmt.encode(x, saturate=True), codes)
    assert_same_codes(fmt, numpy_codes(fmt, x), codes)
    if fmt.name in TORCH:
        assert_same_codes(fmt, torch_codes(fmt, x), codes)


def check_table(fmt: FloatFormat) -> None:
    """The table, which float32 takes, says what the definition says, which float64 takes."""
    x = accepted(fmt, hard_floats(fmt))
    with np.errstate(invalid="ignore"):  # NaNs that signal
        wide = x.astype(np.float64)
    for mode in MODES:
        for saturate in [False, True]:
            np.testing.assert_array_equal(
                fmt.encode(x, mode, saturate=saturate), fmt.encode(wide, mode, saturate=saturate)
            )


def searched_codes(fmt: FloatFormat, x: NDArray[np.float64], mode: Mode) -> NDArray[np.int64]:
    """The codes of finite ``x``, none negative, found by search; one beyond the last: overflow."""
    values = magnitudes(fmt)
    if mode == "toward_zero":
        below = np.searchsorted(values, x, side="right") - 1
        return np.clip(below, 0, len(values) - 2)
    ties = (values[:-1] + values[1:]) / 2
    low = np.searchsorted(ties, x, side="left")
    high = np.searchsorted(ties, x, side="right")
    # On a tie the even code; a scale has no mantissa to be even and goes up.
    return np.where((low % 2 == 1) | (not fmt.signed), high, low)


def hard_doubles(fmt: FloatFormat) -> NDArray[np.float64]:
    """Values and ties, and float64 so near to them that float32 does not see the difference."""
    values = magnitudes(fmt)[:: 1 if fmt.bits <= 8 else 31]
    ties = (values[:-1] + values[1:]) / 2 if fmt.bits <= 8 else values * (1 + 2.0**-8)
    points = np.concatenate([values, ties, [1e-300, 1e300, 5e-324]])
    nudges = np.concatenate([1 - 2.0 ** -np.arange(24, 53), [1], 1 + 2.0 ** -np.arange(24, 53)])
    near: NDArray[np.float64] = (points[:, None] * nudges).ravel()
    return near


def check_doubles(fmt: FloatFormat) -> None:
    """Float64 is rounded once, to the right side of each tie."""
    x = hard_doubles(fmt)
    x = x if fmt.signed else x[x > 0]
    for mode in MODES:
        searched = searched_codes(fmt, x, mode)
        last = len(magnitudes(fmt)) - 2
        saturated = np.minimum(searched, last)
        beyond = saturated if fmt.specials == "none" else np.minimum(searched, last + 1)
        np.testing.assert_array_equal(fmt.encode(x, mode, saturate=True), saturated)
        np.testing.assert_array_equal(fmt.encode(x, mode), beyond)
        if fmt.signed:
            sign = 2 ** (fmt.bits - 1)
            np.testing.assert_array_equal(fmt.encode(-x, mode), beyond + sign)


def check_constants(fmt: FloatFormat) -> None:
    """Range and number of the values, by formula and by ml_dtypes."""
    values = fmt.values().astype(np.float64)
    finite = magnitudes(fmt)[:-1]
    expected = np.concatenate([-finite[:0:-1], finite]) if fmt.signed else finite
    np.testing.assert_array_equal(values, expected)
    assert not np.signbit(values[values == 0]).any()
    theirs = ml_dtypes.finfo(NUMPY[fmt.name])  # type: ignore[no-untyped-call]
    assert fmt.max == finite[-1] == float(theirs.max)
    assert fmt.min_normal == float(theirs.smallest_normal)
    assert fmt.min_subnormal == finite[finite > 0][0]
    assert fmt.bits == theirs.bits


def check_specials(fmt: FloatFormat) -> None:
    """Zeros keep their sign; infinity and what lies beyond go where the class says."""
    huge = np.array([np.inf, fmt.max * 4, -np.inf, -fmt.max * 4])
    signs = np.array([1, 1, -1, -1])
    if not fmt.signed:
        huge, signs = huge[:2], signs[:2]
        assert np.isnan(fmt.round([0.0, -0.0, -1.0, -np.inf, np.nan])).all()
        assert np.isnan(fmt.round([0.0, -1.0], saturate=True)).all()
        smallest = [fmt.min_subnormal] * 2
        np.testing.assert_array_equal(fmt.round([1e-45, 1e-300]), smallest)
        np.testing.assert_array_equal(fmt.round([1e-45, 1e-300], "toward_zero"), smallest)
    else:
        zeros = np.array([0.0, -0.0, 1e-300, -1e-300])
        rounded = fmt.round(zeros)
        assert (rounded == 0).all()
        np.testing.assert_array_equal(np.signbit(rounded), [False, True, False, True])
    if fmt.specials != "none":
        nans = fmt.round(np.array([np.nan, -np.nan], np.float32), saturate=True)
        assert np.isnan(nans).all()
    np.testing.assert_array_equal(fmt.round(huge, saturate=True), signs * fmt.max)
    lost = {"inf and nan": np.inf, "nan": np.nan, "none": fmt.max}[fmt.specials]
    np.testing.assert_array_equal(fmt.round(huge), signs * lost)
    finite = np.isfinite(huge)
    toward_zero = np.where(finite, fmt.max, lost) * signs
    np.testing.assert_array_equal(fmt.round(huge, "toward_zero"), toward_zero)


def check_stochastic(fmt: FloatFormat) -> None:
    """A number goes to a neighbor, on average to itself; a value stays; a seed repeats."""
    values = fmt.values()
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(fmt.round(values, "stochastic", rng=rng), values)
    np.testing.assert_array_equal(fmt.round(np.repeat(1.0, 10**5), "stochastic", rng=rng), 1.0)

    low, high = values[(values >= 1) & (values <= 2)][:2].astype(np.float64)
    for share in [0.03, 0.5, 0.9]:
        x = np.full(40_000, low + share * (high - low))
        rounded = fmt.round(x, "stochastic", rng=np.random.default_rng(2))
        assert set(rounded.tolist()) == {low, high}
        # Five standard deviations of a mean of so many tosses.
        bound = 5 * np.sqrt(share * (1 - share) / len(x))
        assert abs((rounded == high).mean() - share) < bound
        again = fmt.round(x, "stochastic", rng=np.random.default_rng(2))
        np.testing.assert_array_equal(rounded, again)


CHECKS: list[Callable[[FloatFormat], None]] = [
    check_decoding,
    check_round_trip,
    check_numpy,
    check_torch,
    check_clamped,
    check_table,
    check_doubles,
    check_constants,
    check_specials,
    check_stochastic,
]


@pytest.mark.parametrize(
    ("check", "fmt"),
    [
        pytest.param(check, fmt, id=f"{check.__name__}-{fmt.name}")
        for check in CHECKS
        for fmt in SMALL
        if check is not check_torch or fmt.name in TORCH
    ],
)
def test_format(check: Callable[[FloatFormat], None], fmt: FloatFormat) -> None:
    check(fmt)


# The finest mantissa and the smallest values that the table takes, and beyond.
@pytest.mark.parametrize(
    "fmt",
    [
        FloatFormat("E2M5", 2, 5, 1, "none"),
        *(FloatFormat(f"E6M1, bias {bias}", 6, 1, bias, "nan") for bias in [131, 132, 149]),
    ],
    ids=lambda fmt: fmt.name,
)
def test_formats_at_the_edge_of_the_table(fmt: FloatFormat) -> None:
    check_table(fmt)
    check_doubles(fmt)


# --- and each catches its fault -----------------------------------------------------------------


def plant(
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Callable[..., NDArray[Any]], FloatFormat, NDArray[Any]], NDArray[Any]],
) -> None:
    """Put ``change(encode, fmt, x)`` in place of the definition of encoding."""
    original = FloatFormat._encode_plainly

    def faulty(self: FloatFormat, x: NDArray[Any], *args: Any) -> NDArray[Any]:  # noqa: ANN401
        return change(lambda new: original(self, new, *args), self, x)

    monkeypatch.setattr(FloatFormat, "_encode_plainly", faulty)


def through_float32(x: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


def rounding(monkeypatch: pytest.MonkeyPatch, rule: Callable[..., NDArray[Any]]) -> None:
    """Put ``rule(steps, rng)`` in place of the rounding of steps, in every mode."""
    monkeypatch.setattr(
        formats, "_round_steps", lambda steps, _mode, rng: rule(steps, rng).astype(np.int64)
    )


def by_chance(steps: NDArray[Any], rng: np.random.Generator | None, power: float) -> NDArray[Any]:
    whole: NDArray[Any] = np.floor(steps)
    if rng:
        whole += rng.random(steps.shape) < (steps - whole) ** power
    return whole


# Name: how to plant it, the format, and the check that sees it.
FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], FloatFormat, Any]] = {
    "ties go up": (
        lambda patch: rounding(patch, lambda steps, _: np.floor(steps + 0.5)),
        E4M3,
        check_numpy,
    ),
    "ties go to the odd code": (
        lambda patch: rounding(
            patch,
            lambda s, _: np.where(s % 1 == 0.5, np.floor(s) + (np.floor(s) % 2 == 0), np.rint(s)),
        ),
        BF16,
        check_torch,
    ),
    "always down": (
        lambda patch: rounding(patch, lambda steps, _: np.floor(steps)),
        E2M1,
        check_clamped,
    ),
    "the dropped bits are forgotten": (
        lambda patch: patch.setattr(formats, "_leading_bits", lambda x: x.view(np.uint32) >> 16),
        E5M2,
        check_table,
    ),
    "float64 passes through float32": (
        lambda patch: plant(patch, lambda encode, _, x: encode(through_float32(x))),
        E4M3,
        check_doubles,
    ),
    "subnormals become zero": (
        lambda patch: plant(
            patch, lambda encode, fmt, x: encode(x * (np.abs(x) >= fmt.min_normal))
        ),
        FP16,
        check_round_trip,
    ),
    "zero loses its sign": (
        lambda patch: plant(patch, lambda encode, _, x: encode(x + 0.0)),
        E3M2,
        check_specials,
    ),
    "infinity is clamped": (
        lambda patch: plant(
            patch, lambda encode, fmt, x: encode(np.clip(x, -fmt.max * 1.5, fmt.max * 1.5))
        ),
        E5M2,
        lambda fmt: np.testing.assert_array_equal(fmt.round(np.inf, "toward_zero"), np.inf),
    ),
    "the tie beyond the maximum overflows": (
        lambda patch: plant(
            patch, lambda encode, _, x: encode(np.where(x == 464, 480, x).astype(x.dtype))
        ),
        E4M3,
        check_numpy,
    ),
    "chance moves what needs no rounding": (
        # The sum of 8 and the largest chance below 1 is 9 in float64.
        lambda patch: rounding(patch, lambda s, _: np.floor(s + (1 - 2**-53))),
        E4M3,
        check_stochastic,
    ),
    "chance leans down": (
        lambda patch: rounding(patch, lambda steps, rng: by_chance(steps, rng, 1.05)),
        BF16,
        check_stochastic,
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    damage, fmt, check = FAULTS[fault]
    formats._encoding_table.cache_clear()
    check(dataclasses.replace(fmt))
    formats._encoding_table.cache_clear()
    damage(monkeypatch)
    with pytest.raises(AssertionError):
        check(dataclasses.replace(fmt))
    formats._encoding_table.cache_clear()


WRONG = {
    "E4M3 with 480": (dataclasses.replace(E4M3, specials="none"), check_decoding),
    "E4M3 as IEEE would have it": (
        dataclasses.replace(E4M3, specials="inf and nan"),
        check_constants,
    ),
    "E5M2 without infinity": (dataclasses.replace(E5M2, specials="nan"), check_decoding),
    "E2M1 with NaN": (dataclasses.replace(E2M1, specials="nan"), check_decoding),
    "FP16 with another bias": (dataclasses.replace(FP16, bias=16), check_constants),
    "E2M3 as E3M2": (dataclasses.replace(E3M2, name="E2M3"), check_decoding),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_layout_is_seen(name: str) -> None:
    fmt, check = WRONG[name]
    with pytest.raises(AssertionError):
        check(fmt)


# --- what the references get wrong ---------------------------------------------------------------
# Each of these fails when a new version of a reference behaves otherwise; then the book's text on
# it must change too.


def test_overflow_of_e4m3_is_448_in_torch_and_nan_in_ml_dtypes() -> None:
    x = np.array(
        [448, 464, np.nextafter(np.float32(464), np.float32(500)), 1e9, np.inf], np.float32
    )
    assert torch.from_numpy(x).to(torch.float8_e4m3fn).float().tolist() == [448.0] * 5
    by_ml_dtypes = x.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    np.testing.assert_array_equal(by_ml_dtypes, [448, 448, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(E4M3.round(x), by_ml_dtypes)
    np.testing.assert_array_equal(E4M3.round(x, saturate=True), 448)


def test_overflow_of_e5m2_is_infinity_in_both() -> None:
    x = np.array([57344, 61439, 61440, np.inf], np.float32)
    expected = [57344, 57344, np.inf, np.inf]
    assert torch.from_numpy(x).to(torch.float8_e5m2).float().tolist() == expected
    assert x.astype(ml_dtypes.float8_e5m2).astype(np.float32).tolist() == expected
    assert E5M2.round(x).tolist() == expected


@pytest.mark.parametrize("fmt", [E3M2, E2M3, E2M1], ids=lambda fmt: fmt.name)
def test_ml_dtypes_makes_nan_a_negative_zero(fmt: FloatFormat) -> None:
    nan = np.array([np.nan], np.float32)
    assert numpy_codes(fmt, nan).tolist() == [2 ** (fmt.bits - 1)]
    with pytest.raises(ValueError, match=r"x\[0\] is nan and E"):
        fmt.encode(nan)


def test_torch_loses_zero_and_the_sign_in_e8m0() -> None:
    x = np.array([0.0, -1.0], np.float32)
    assert torch.from_numpy(x).to(torch.float8_e8m0fnu).float().tolist() == [2.0**-127, 1.0]
    assert np.isnan(x.astype(ml_dtypes.float8_e8m0fnu).astype(np.float32)).all()
    assert np.isnan(E8M0.round(x)).all()


def test_both_round_the_first_binade_of_e8m0_up() -> None:
    """The smallest scale is a subnormal of float32; next to it no reference looks for the tie."""
    first = np.float32(2.0**-127)
    bits = first.view(np.uint32) + np.arange(2**22, dtype=np.uint32)  # up to 2^-126
    x = bits.view(np.float32)
    np.testing.assert_array_equal(E8M0.encode(x), (x >= 1.5 * 2.0**-127).astype(np.uint8))
    for theirs in [numpy_codes(E8M0, x), torch_codes(E8M0, x)]:
        np.testing.assert_array_equal(theirs, (x > first).astype(np.uint8))


# 2^-40 above a tie, which float32 takes for the tie itself; E8M0 goes up on a tie, so from below.
TWICE = {
    "BF16": (1 + 2**-8 + 2**-40, 1 + 2**-7),
    "FP16": (1 + 2**-11 + 2**-40, 1 + 2**-10),
    "E5M2": (1.125 + 2**-40, 1.25),
    "E4M3": (1.0625 + 2**-40, 1.125),
    "E3M2": (1.125 + 2**-40, 1.25),
    "E2M3": (1.0625 + 2**-40, 1.125),
    "E2M1": (1.25 + 2**-40, 1.5),
    "E8M0": (1.5 - 2**-40, 1.0),
}


@pytest.mark.parametrize("fmt", SMALL, ids=lambda fmt: fmt.name)
def test_the_references_round_float64_twice(fmt: FloatFormat) -> None:
    number, right = TWICE[fmt.name]
    x = np.array([number])
    assert fmt.round(x).tolist() == [right]
    by_numpy = x.astype(NUMPY[fmt.name]).astype(np.float64).tolist()
    assert (by_numpy == [right]) == (fmt is FP16)  # NumPy's own cast is right
    if fmt.name in TORCH:
        assert torch.from_numpy(x).to(TORCH[fmt.name]).double().tolist() != [right]


def test_float32_by_way_of_bf16_changes_codes() -> None:
    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    changed = (E4M3.encode(x) != E4M3.encode(BF16.round(x))).mean()
    assert 0.02 < changed < 0.04


# --- FP32, other formats, properties --------------------------------------------------------------


def test_fp32_is_float32() -> None:
    x = hard_floats(BF16)
    codes = FP32.encode(x)
    assert codes.dtype == np.uint32
    nan = np.isnan(x)
    np.testing.assert_array_equal(codes[~nan], x[~nan].view(np.uint32))
    assert_same_bits(FP32.decode(x.view(np.uint32)), x)
    assert FP32.max == np.finfo(np.float32).max
    assert FP32.min_normal == np.finfo(np.float32).tiny
    assert FP32.min_subnormal == np.finfo(np.float32).smallest_subnormal


def test_fp32_from_float64_is_the_cast() -> None:
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2**64, 100_000, dtype=np.uint64)
    near = np.float64(2.0) ** rng.integers(-155, 130, 50_000) * rng.uniform(-2, 2, 50_000)
    x = np.concatenate([bits.view(np.float64), near])
    with np.errstate(all="ignore"):
        cast = x.astype(np.float32)
    assert_same_bits(FP32.round(x).astype(np.float32), cast)


def test_a_format_of_ones_own() -> None:
    """DeepSeek-V3 keeps some activations in a format of 12 bits, E5M6."""
    e5m6 = FloatFormat("E5M6", 5, 6, 15, "inf and nan")
    assert (e5m6.bits, e5m6.max) == (12, 65024.0)
    codes = np.arange(2**12, dtype=np.uint16)
    codes = codes[~np.isnan(e5m6.decode(codes))]
    np.testing.assert_array_equal(e5m6.encode(e5m6.decode(codes)), codes)
    # It is FP16 with the last four bits of the mantissa gone.
    np.testing.assert_array_equal(e5m6.decode(codes), FP16.decode(codes << 4))


@settings(max_examples=300, deadline=None)
@given(
    fmt=st.sampled_from([fmt for fmt in ALL if fmt.signed]),
    x=st.floats(allow_nan=False, allow_infinity=False),
    y=st.floats(allow_nan=False, allow_infinity=False),
    mode=st.sampled_from(MODES),
)
def test_rounding_keeps_order_and_sign_and_is_idempotent(
    fmt: FloatFormat, x: float, y: float, mode: Mode
) -> None:
    low, high, negative = fmt.round([min(x, y), max(x, y), -x], mode, saturate=True)
    assert low <= high
    once = fmt.round(x, mode, saturate=True)
    assert negative == -once
    assert fmt.round(once, mode, saturate=True) == once
    inside = min(max(x, -fmt.max), fmt.max)
    spacing = max(2.0 ** (np.frexp(inside)[1] - 1 - fmt.mantissa_bits), fmt.min_subnormal)
    assert abs(float(once) - inside) <= spacing * (0.5 if mode == "nearest_even" else 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_shapes_types_and_layouts(dtype: type) -> None:
    x: NDArray[Any] = np.random.default_rng(0).standard_normal((7, 5, 3)).astype(dtype)
    for view in [x, x.T, x[::2, ::-1], x[:, 0, 0], x[:0], x[0, 0, 0]]:
        rounded = E4M3.round(view)
        assert rounded.shape == view.shape
        assert rounded.dtype == (np.float64 if dtype is np.float64 else np.float32)
        codes = E4M3.encode(view)
        assert codes.dtype == np.uint8
        expected = E4M3.encode(np.ascontiguousarray(view, np.float64))
        np.testing.assert_array_equal(codes, expected)
        np.testing.assert_array_equal(E4M3.decode(codes), rounded)


@pytest.mark.parametrize("size", [0, 1, 2**15 - 1, 2**15, 2**15 + 1, 10**5])
def test_pieces_fit_together(size: int) -> None:
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    np.testing.assert_array_equal(E4M3.encode(x), numpy_codes(E4M3, x))
    np.testing.assert_array_equal(BF16.encode(x), numpy_codes(BF16, x))
    np.testing.assert_array_equal(E4M3.decode(E4M3.encode(x)), E4M3.round(x))
    pieces = np.random.default_rng(5)
    parts = [
        E2M1.round(part, "stochastic", rng=pieces) for part in (x[: size // 3], x[size // 3 :])
    ]
    whole = E2M1.round(x, "stochastic", rng=np.random.default_rng(5))
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_numbers_that_are_no_arrays() -> None:
    assert float(E4M3.round(0.3)) == 0.3125
    assert E4M3.round([1, 2, 449]).tolist() == [1, 2, 448]
    assert E4M3.encode(True) == 0x38
    assert E4M3.round(torch.tensor([0.3])).tolist() == [0.3125]
    np.testing.assert_array_equal(E4M3.decode([[0x7E], [0xFE]]), [[448], [-448]])


def test_the_table_is_not_the_callers_to_change() -> None:
    E4M3.decode(np.arange(256))[:] = 0
    E4M3.values()[:] = 0
    E4M3.encode(np.array([1.0], np.float32))[:] = 0
    assert E4M3.max == 448
    assert float(E4M3.decode(0x7E)) == 448
    assert E4M3.encode(np.array([1.0], np.float32)).tolist() == [0x38]


# --- what is refused ------------------------------------------------------------------------------

REFUSED: dict[str, Callable[[], object]] = {
    "mode 'up' is unknown; use nearest_even, toward_zero or": lambda: E4M3.round(1.0, "up"),  # type: ignore[arg-type]
    "stochastic rounding with rng=None": lambda: E4M3.round(1.0, "stochastic"),
    "stochastic rounding with rng=3": lambda: E4M3.round(1.0, "stochastic", rng=3),  # type: ignore[arg-type]
    "x has dtype complex128": lambda: E4M3.encode([1j]),
    "x has dtype <U1": lambda: E4M3.encode(["1"]),
    "x has dtype (longdouble|float128)": lambda: E4M3.encode(np.longdouble(1)),
    r"x\[1, 0\] is nan and E2M1 has no code": lambda: E2M1.encode([[1.0], [np.nan]]),
    r"x is nan and E3M2": lambda: E3M2.round(np.nan, "stochastic", rng=np.random.default_rng(0)),
    "codes have dtype float64": lambda: E4M3.decode([1.0]),
    "codes have dtype bool": lambda: E4M3.decode([True]),
    "code 256 is not one of E4M3; give 0 to 255": lambda: E4M3.decode([3, 256]),
    "code -1 is not one of BF16": lambda: BF16.decode([-1]),
    "code 16 is not one of E2M1; give 0 to 15": lambda: E2M1.decode(np.array([16], np.uint8)),
    r"FP32 has 2\^32 codes, too many": lambda: FP32.values(),
    "specials 'inf' is unknown": lambda: FloatFormat("A", 4, 3, 7, "inf"),  # type: ignore[arg-type]
    "A has 0 mantissa bits and signed=True": lambda: FloatFormat("A", 4, 0, 7, "nan"),
    "A has 3 mantissa bits and signed=False": lambda: FloatFormat("A", 4, 3, 7, "nan", False),
    "A has -1 mantissa bits": lambda: FloatFormat("A", 4, -1, 7, "nan", False),
    "A is a scale with specials 'inf and nan'": lambda: FloatFormat(
        "A", 8, 0, 127, "inf and nan", False
    ),
    "A is a scale with specials 'none'": lambda: FloatFormat("A", 7, 0, 63, "none", False),
    "A has 1 exponent bits": lambda: FloatFormat("A", 1, 3, 1, "none"),
    r"A has 3 mantissa bits and values from 2\^-153": lambda: FloatFormat("A", 8, 3, 151, "nan"),
    r"A has 1 mantissa bits and values from 2\^-150": lambda: FloatFormat("A", 6, 1, 150, "nan"),
    r"to 2\^128; stay within float32": lambda: FloatFormat("A", 8, 3, 127, "nan"),
    "A has 24 mantissa bits": lambda: FloatFormat("A", 5, 24, 15, "nan"),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_is_named(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
