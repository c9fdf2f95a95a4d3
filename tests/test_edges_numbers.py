"""Formats, costs, statistics, facts and sliders at the edges of the numbers that they take.

References are Python's fractions. A refusal is a ``ValueError`` that names the value, and is
accepted only where no float holds the answer.
"""

import datetime
import inspect
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from edges import default_dtype, tried
from slingshot import (
    costs,
    facts,
    formats,
    pretrained,
    rules,
    serving,
    sizes,
    stats,
)
from slingshot.formats import BF16, E2M1, E4M3, E5M2, E8M0, FP16, FP32, FloatFormat, Mode
from slingshot.pages import figures, sliders
from slingshot.sizes import ExpertConfig, LatentAttention, ModelConfig, MultiHeadAttention

EDGES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
ULP = 2.0**-52
FORMATS = [E4M3, E5M2, E2M1, FP16, BF16, FP32]
NARROW = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
DEFAULTS = [torch.float32, torch.float64, torch.bfloat16]


# --- formats -----------------------------------------------------------------------------------


def rounded_exactly(value: Fraction, fmt: FloatFormat, mode: Mode) -> float:
    """By the definition: the step of the binade, a whole number of steps, the maximum."""
    size = abs(value)
    binade = size.numerator.bit_length() - size.denominator.bit_length()
    binade -= size < Fraction(2) ** binade
    binade = max(binade, int(math.log2(fmt.min_normal)))
    step = Fraction(2) ** (binade - fmt.mantissa_bits)
    count = size / step
    whole = round(count) if mode == "nearest_even" else math.floor(count)  # round: ties to even
    return (-1.0 if value < 0 else 1.0) * float(min(whole * step, Fraction(fmt.max)))


whole_numbers = st.integers(-(2**63), 2**64 - 1) | st.builds(
    lambda e, d, s: s * (2**e + d),
    st.integers(24, 62), st.integers(-3, 3), st.sampled_from([1, -1]),
) | st.builds(  # a tie in some format, and a little more
    lambda e, m, d: 2**e + 2 ** max(e - m - 1, 0) + d,
    st.integers(54, 62), st.integers(1, 23), st.integers(-1, 1),
)  # fmt: skip


@EDGES
@given(whole_numbers, st.sampled_from(FORMATS), st.sampled_from(["nearest_even", "toward_zero"]))
def test_whole_numbers_of_64_bits_are_rounded_once(
    number: int, fmt: FloatFormat, mode: Mode
) -> None:
    dtype = np.uint64 if number >= 2**63 else np.int64
    result = fmt.round(np.array([number], dtype), mode, saturate=True)
    assert result.dtype == np.float64
    assert result[0] == rounded_exactly(Fraction(number), fmt, mode)


@EDGES
@given(
    st.sampled_from(NARROW),
    st.sampled_from(FORMATS),
    st.sampled_from(["<", ">"]),
    st.lists(st.integers(0, 2**64 - 1), min_size=0, max_size=5),
)
def test_integers_of_any_width_and_byte_order(
    dtype: type, fmt: FloatFormat, order: str, raw: list[int]
) -> None:
    narrow = np.array(raw, np.uint64).astype(dtype).astype(f"{order}{np.dtype(dtype).str[1:]}")
    expected = [rounded_exactly(Fraction(int(n)), fmt, "nearest_even") for n in narrow]
    np.testing.assert_array_equal(fmt.round(narrow, saturate=True), expected)


@EDGES
@given(
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.sampled_from(FORMATS),
    st.sampled_from(["plain", "transposed", "sliced", "flipped", "expanded", "big-endian", "0-d"]),
    st.integers(0, 2**32),
)
def test_all_bits_of_a_dtype_in_any_layout(
    dtype: type, fmt: FloatFormat, layout: str, seed: int
) -> None:
    """Random bits: subnormals, both zeros, infinities and NaNs among them."""
    rng = np.random.default_rng(seed)
    raw = rng.bytes(6 * 8 * np.dtype(dtype).itemsize)
    x: Any = np.frombuffer(raw, dtype).reshape(6, 8).copy()
    x[0, :5] = [0.0, -0.0, np.inf, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal]
    if fmt.specials == "none":
        x = np.where(np.isnan(x), dtype(1), x)
    y: Any = {
        "transposed": np.ascontiguousarray(x.T).T,
        "sliced": np.repeat(x, 2, 1)[:, ::2],
        "flipped": x[::-1, ::-1],
        "expanded": np.broadcast_to(x[:1], x.shape),
        "big-endian": x.astype(np.dtype(dtype).newbyteorder(">")),
        "0-d": x[0, 3],
    }.get(layout, x)
    result = np.asarray(fmt.round(y, saturate=True))
    assert result.shape == np.shape(y)
    assert result.dtype == (np.float64 if dtype is np.float64 else np.float32)
    for got, number in zip(result.ravel(), np.asarray(y).ravel().tolist(), strict=True):
        if math.isnan(number):
            assert math.isnan(got)
        elif math.isinf(number):
            assert got == math.copysign(fmt.max, number)
        else:
            assert got == rounded_exactly(Fraction(number), fmt, "nearest_even")
            assert np.signbit(got) == (math.copysign(1, number) < 0)
    assert not np.asarray(fmt.encode(y[:0] if np.ndim(y) else [])).size


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("fmt", [E4M3, E2M1, FP16, FP32, E8M0], ids=lambda fmt: fmt.name)
def test_codes_and_fields_of_any_width(fmt: FloatFormat, dtype: Callable[[Any], Any]) -> None:
    codes = np.arange(min(2**fmt.bits, 2**7))
    np.testing.assert_array_equal(
        fmt.decode(np.array([dtype(code) for code in codes])), fmt.decode(codes)
    )
    exponent, mantissa, bias = map(dtype, (fmt.exponent_bits, fmt.mantissa_bits, fmt.bias))
    twin = FloatFormat(fmt.name, exponent, mantissa, bias, fmt.specials, fmt.signed)
    assert twin == fmt
    for name in ("max", "min_normal", "min_subnormal", "bits"):
        assert getattr(twin, name) == getattr(fmt, name)
    assert type(twin.bits) is int


def test_a_chance_is_used_for_whole_numbers_too() -> None:
    x = np.full(20000, 2**60 + 2**34, np.int64)  # an eighth of FP32's step
    got = FP32.round(x, "stochastic", rng=np.random.default_rng(0))
    up = float((got > 2.0**60).mean())
    assert set(np.unique(got)) == {2.0**60, 2.0**60 + 2.0**37}
    assert abs(up - 1 / 8) < 6 * math.sqrt(1 / 8 * 7 / 8 / 20000)  # six standard deviations


# --- costs -------------------------------------------------------------------------------------

DENSE = ModelConfig(64, 3, 100, 128, MultiHeadAttention(4, 16, 2))
SPARSE = ModelConfig(
    64, 3, 100, 128, LatentAttention(4, 16, None, 8, 8, 16), ExpertConfig(8, 1, 2, 32, 1, True)
)
GPU = serving.Hardware("a GPU", 1e15, 3e12, 8e10, 4)

N: Any = np  # whose numbers the signatures do not take, and the functions do

# Each function with the arguments of an ordinary call; every number is then replaced.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "expected_experts": (sizes.expected_experts, {"n_routed": 64, "top_k": 4, "n_tokens": 10}),
    "training_flops": (costs.training_flops, {"n_active": 37, "n_tokens": 14}),
    "attention_flops": (
        costs.attention_flops, {"config": DENSE, "n_tokens": 100, "sequence_length": 9},
    ),
    "training_flops_with_attention": (
        costs.training_flops_with_attention,
        {"config": SPARSE, "n_tokens": 100, "sequence_length": 9},
    ),
    "gpu_hours": (costs.gpu_hours, {"flops": 64, "peak_flops": 16, "mfu": 0.5}),
    "utilization": (costs.utilization, {"flops": 64, "gpu_hours": 2, "peak_flops": 16}),
    "training_cost": (costs.training_cost, {"hours": 60, "dollars_per_hour": 2}),
    "days": (costs.days, {"gpu_hours": 48, "n_gpus": 2}),
    "kv_cache_bytes_per_token": (
        sizes.kv_cache_bytes_per_token, {"config": SPARSE, "bytes_per_element": 2},
    ),
    "weight_bytes": (sizes.weight_bytes, {"n_parameters": 100, "bits": 8}),
    "linear_layer_cost": (
        serving.linear_layer_cost, {"m": 100, "k": 100, "n": 100, "bytes_per_element": 2},
    ),
    "arithmetic_intensity": (serving.arithmetic_intensity, {"flops": 60, "bytes_moved": 30}),
    "roofline_seconds": (
        serving.roofline_seconds,
        {"flops": 60, "bytes_moved": 30, "peak_flops": 16, "bandwidth": 4},
    ),
    "decode_step": (
        serving.decode_step,
        {"config": SPARSE, "hardware": GPU, "batch_size": 8, "context_length": 16,
         "weight_bits": 8, "cache_bytes_per_element": 2},
    ),
    "exchange_seconds": (
        serving.exchange_seconds,
        {"n_tokens": 64, "copies": 0.5, "d_model": 8, "n_layers": 2, "bandwidth": 4},
    ),
    "dollars_per_million_tokens": (
        costs.dollars_per_million_tokens, {"dollars_per_hour": 2, "tokens_per_second": 100},
    ),
    "blended_price": (
        costs.blended_price,
        {"input_price": 1, "output_price": 2, "cached_price": 1, "output_share": 0.5,
         "cache_share": 0.25},
    ),
    "markup": (costs.markup, {"revenue": 6, "cost": 1}),
    "gross_margin": (costs.gross_margin, {"revenue": 6, "cost": 1}),
    "total_processing_performance": (
        rules.total_processing_performance, {"tops": 100, "bits": 16},
    ),
    "performance_density": (rules.performance_density, {"tpp": 100, "die_mm2": 50}),
    "rule_2022": (rules.rule_2022, {"tpp": 100, "interconnect_gb_per_s": 50}),
    "rule_2023": (rules.rule_2023, {"tpp": 100, "performance_density": 3}),
    "count_parameters": (sizes.count_parameters, {"config": SPARSE}),
}  # fmt: skip


def is_number(value: object) -> bool:
    return isinstance(value, int | float)


def numbers_of(result: Any) -> list[Any]:  # noqa: ANN401
    if isinstance(result, tuple):
        return list(result)
    return list(vars(result).values()) if hasattr(result, "__dict__") else [result]


@pytest.mark.parametrize("dtype", [*NARROW, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", CALLS)
def test_numpys_numbers_are_pythons(name: str, dtype: Callable[[Any], Any]) -> None:
    """In every type that holds the arguments: the same result, in Python's types."""
    function, arguments = CALLS[name]
    counts = inspect.signature(function).parameters
    narrow = {
        key: dtype(value)
        if is_number(value)
        and (dtype(0).dtype.kind == "f") == (str(counts[key].annotation) != "<class 'int'>")
        and dtype(value) == value
        else value
        for key, value in arguments.items()
    }
    expected, result = function(**arguments), function(**narrow)
    assert result == expected
    assert not any(isinstance(part, np.generic) for part in numbers_of(result))


def test_sizes_that_overflow_numpys_integers() -> None:
    k, half = N.int32(65536), N.float16(0.5)
    cost = serving.linear_layer_cost(k, k, k, 1)
    assert cost == (2.0 * 65536**3, 3.0 * 65536**2)
    assert sizes.weight_bytes(N.int64(2**62), N.int8(16)) == 2.0**63
    assert serving.linear_layer_cost(1, 1, 1, half).bytes == 1.5
    config = ModelConfig(
        N.int32(65536), N.uint8(200), N.int32(65536), N.int32(65536),
        MultiHeadAttention(N.int16(256), N.int16(256), N.uint8(1)),
        ExpertConfig(N.uint8(200), N.int8(1), N.int8(2), N.int32(65536), N.int8(0), N.True_),
    )  # fmt: skip
    plain = ModelConfig(
        65536, 200, 65536, 65536, MultiHeadAttention(256, 256, 1),
        ExpertConfig(200, 1, 2, 65536, 0, True),
    )  # fmt: skip
    assert sizes.count_parameters(config) == sizes.count_parameters(plain)
    assert sizes.count_parameters(config).total > 2**48
    for attention in (MultiHeadAttention(256, 256), LatentAttention(256, 512, 512, 256, 64, 256)):
        narrow = attention.count_parameters(N.int16(32767), N.False_)
        assert narrow == attention.count_parameters(32767, False)
    latent = LatentAttention(*(N.int16(size) for size in (256, 512, 512, 256, 64, 256)))
    assert (
        latent.flops_per_position == LatentAttention(256, 512, 512, 256, 64, 256).flops_per_position
    )
    memory = serving.Hardware(
        "many", N.float32(1e15), N.float32(1e12), N.float32(1e11), N.int8(127)
    )
    assert type(memory.n_gpus * memory.memory_bytes) is float


odd_numbers = st.sampled_from(
    [0, -1, 5e-324, 1e-300, 2.0**-1022, 1e300, 1.7976931348623157e308, 2**63, 2**64 + 1, 10**400,
     math.inf, -math.inf, math.nan, -0.0, True, np.float16(6e4), np.float32(1e-45), np.nan,
     np.float64(1e308), Fraction(1, 3), Fraction(10**400), np.longdouble(0.5), 1 + 0j, "1", None,
     np.True_]
)  # fmt: skip


@settings(EDGES, max_examples=600)
@given(st.sampled_from(sorted(CALLS)), st.data())
def test_no_cost_is_silently_zero_or_infinite(name: str, data: st.DataObject) -> None:
    """Whatever stands for a number, the answer is a number above 0, or a refusal that names."""
    function, arguments = CALLS[name]
    given_ = {
        key: data.draw(odd_numbers | st.just(value)) if is_number(value) else value
        for key, value in arguments.items()
    }
    if "cached_price" in given_ and given_["cached_price"] is None:
        given_["cached_price"] = 1
    result = tried(lambda: function(**given_))
    if isinstance(result, ValueError):
        assert ";" in str(result)
        return
    has_zero = any(is_number(value) and value == 0 for value in given_.values())
    for part in numbers_of(result):
        if type(part) is float or isinstance(part, np.floating):
            assert math.isfinite(part)
            assert part or has_zero or name in ("markup", "gross_margin")


@EDGES
@given(
    st.integers(1, 10**30) | st.integers(1, 300), st.integers(1, 10**30) | st.integers(1, 300),
    st.integers(1, 300),
)  # fmt: skip
def test_few_of_very_many_experts_are_not_none(n: int, k: int, tokens: int) -> None:
    n, k = max(n, k), min(n, k)
    expected = n * (1 - (1 - Fraction(k, n)) ** tokens)
    got = Fraction(sizes.expected_experts(n, k, tokens))
    # Where k / n is tiny: roundings of it, log1p, times T, expm1 and times E; each moves the result
    # no more than itself. Elsewhere q = 1 - k / n and its power are rounded at 1, which is n / k of
    # the result at most, for 1 - q^T is at least T k / n q^(T-1).
    ulps = 10 if n > 4096 * k else 4 * Fraction(n, k) + 4
    assert abs(got - expected) <= ulps * Fraction(ULP) * expected


@pytest.mark.parametrize("mfu", [1, 1.0, 0.3, 1 / 3, 0.7])
def test_full_utilization_is_no_error_of_rounding(mfu: float) -> None:
    for flops in (1e3, 3.3e24, 7.1e18):
        for peak in (3.0, 989.5e12, 1.979e15):
            back = costs.utilization(flops, costs.gpu_hours(flops, peak, mfu), peak)
            assert abs(back - mfu) <= 6 * ULP
            assert back <= 1


# --- statistics --------------------------------------------------------------------------------


def exact_interval(values: list[Fraction]) -> tuple[Fraction, Fraction]:
    """The mean, and the variance of the values."""
    mean = sum(values, Fraction(0)) / len(values)
    return mean, sum(((v - mean) ** 2 for v in values), Fraction(0)) / (len(values) - 1)


spans = st.sampled_from([1.0, 1e-300, 5e-324, 1e150, 1e300])
samples = st.tuples(st.lists(st.floats(-8, 8), min_size=2, max_size=8), spans, st.floats(-1e3, 1e3))


@EDGES
@given(
    samples,
    st.sampled_from([float, np.float16, np.float32, np.float64]),
    st.sampled_from([list, tuple, np.array, torch.tensor]),
    st.sampled_from([0.95, np.float16(0.95), np.float32(0.5)]),
    st.sampled_from(DEFAULTS),
)
def test_an_interval_is_that_of_the_exact_numbers(
    drawn: tuple[list[float], float, float],
    dtype: Callable[[float], Any],
    make: Callable[[list[Any]], Any],
    confidence: float,
    default: torch.dtype,
) -> None:
    raw, span, offset = drawn
    with np.errstate(over="ignore", under="ignore"):
        typed = [dtype((value + offset) * span) for value in raw]
    with default_dtype(torch.float64):
        values = make(typed)
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        with pytest.raises(ValueError, match="each must be finite"):
            stats.mean_interval(values, confidence)
        return
    mean, variance = exact_interval([Fraction(v) for v in numbers])
    with default_dtype(default):
        interval = stats.mean_interval(values, confidence)
    n = len(numbers)
    t = float(student.ppf((1 + float(confidence)) / 2, n - 1))
    scale = max(map(abs, numbers))
    # The mean is rounded once. Its rounding is taken out of the squares, and what is left are
    # roundings of the deviation itself; the scale is a power of two, exact but for subnormals.
    assert abs(Fraction(interval.mean) - mean) <= Fraction(scale) * Fraction(ULP) + Fraction(5e-324)
    k = 1074  # 2^k makes whole numbers of all floats, so that the root is one of integers
    root = Fraction(math.isqrt(int(variance * 4 ** (k + 60))), 2 ** (k + 60))
    reach = Fraction(t) * root / Fraction(math.sqrt(n))
    for end, sign in ((interval.low, -1), (interval.high, 1)):
        allowed = reach * Fraction(ULP) * (n + 8) + (abs(mean) + reach) * Fraction(ULP) * 2
        assert abs(Fraction(end) - (mean + sign * reach)) <= allowed + 2 * Fraction(5e-324)


def test_values_that_differ_in_their_last_digits_have_their_spread() -> None:
    """The mean of the two is between two floats; its rounding is no part of the spread."""
    interval = stats.mean_interval([1e16, 1e16 + 2])
    reach = float(student.ppf(0.975, 1))  # times a deviation of √2, over √2
    assert abs(interval.high - interval.low - 2 * reach) <= 4  # each end is rounded to 2 at 1e16


@EDGES
@given(
    st.integers(0, 40), st.integers(1, 40), st.sampled_from([int, *NARROW]),
    st.sampled_from([0.95, np.float16(0.95)]),
)  # fmt: skip
def test_counts_of_any_width_make_the_same_interval(
    right: int, n: int, dtype: Callable[[int], Any], confidence: float
) -> None:
    right = min(right, n)
    told = stats.wilson_interval(dtype(right), dtype(n), confidence)
    assert told == stats.wilson_interval(right, n, float(confidence))
    assert all(type(number) is float for number in told)
    correct = torch.arange(n)[:, None] < right
    assert stats.pass_at_1(correct, confidence) == told
    both = correct.expand(n, 2)
    if n > 1:
        assert abs(stats.pass_at_1(both).mean - right / n) <= ULP


LABELS = [
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32,
    torch.uint64, torch.bool,
]  # fmt: skip


@EDGES
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40),
    st.sampled_from(LABELS),
    st.sampled_from(LABELS),
    st.integers(0, 9),
    st.sampled_from(DEFAULTS),
    st.booleans(),
)
def test_information_is_that_of_the_counts(
    pairs: list[tuple[int, int]], a_dtype: torch.dtype, b_dtype: torch.dtype, seed: int,
    default: torch.dtype, far: bool,
) -> None:  # fmt: skip
    a, b = (
        torch.tensor(m).to(d)
        for m, d in zip(zip(*pairs, strict=True), (a_dtype, b_dtype), strict=True)
    )
    raw_a, raw_b = a.tolist(), b.tolist()
    n = len(raw_a)
    shares = {
        pair: raw.count(pair) for raw in [list(zip(raw_a, raw_b, strict=True))] for pair in raw
    }
    expected = math.fsum(
        count / n * math.log2(Fraction(count * n, raw_a.count(i) * raw_b.count(j)))
        for (i, j), count in shares.items()
    )
    if far:  # the largest labels of the dtype: what counts is which are equal
        a, b = (
            m
            if m.dtype == torch.bool
            else (
                torch.iinfo(m.dtype).max - m.long() if m.dtype != torch.uint64 else m.long() + 2**62
            ).to(m.dtype)
            for m in (a, b)
        )
    with default_dtype(default):
        # Each term is at most log2 N, and rounded a few times.
        assert abs(stats.mutual_information(a, b) - expected) <= 8 * ULP * (1 + math.log2(n)) * n
        assert stats.mutual_information(a.repeat_interleave(2)[::2], b) == stats.mutual_information(
            a, b
        )
        assert stats.entropy(a) == stats.mutual_information(a, a)
        dealt = stats.shuffle_within(a, b, np.int32(seed))  # type: ignore[arg-type]
    assert dealt.dtype == a.dtype
    with default_dtype(torch.float32):
        assert stats.shuffle_within(a, b, seed).tolist() == dealt.tolist()
    for group in set(b.tolist()):
        here = [i for i, g in enumerate(b.tolist()) if g == group]
        assert sorted(a[i].item() for i in here) == sorted(dealt[i].item() for i in here)


def test_labels_far_out_take_no_memory() -> None:
    a = torch.tensor([0, 10**12, 2**63 - 1, 10**12])
    assert stats.mutual_information(a, a) == pytest.approx(1.5, abs=8 * ULP)
    many = torch.arange(200_000)
    assert stats.entropy(many) == pytest.approx(math.log2(200_000), abs=1e-9)
    assert stats.shuffle_within(torch.empty(0), torch.empty(0)).shape == (0,)


# --- facts, sliders and the model's file ---------------------------------------------------------


@EDGES
@given(
    st.sampled_from([np.int8, np.uint8, np.int32, np.int64, np.float16, np.float32, np.float64]),
    st.integers(-128, 127),
    st.sampled_from(["USD", "CNY", "%", "byte", "FLOP/second", "GPU", "1", "byte/second"]),
)
def test_a_fact_reads_the_same_in_any_type(
    dtype: Callable[[Any], Any], number: int, unit: str
) -> None:
    number = abs(number) if dtype is np.uint8 else number
    plain = float(number) if isinstance(dtype(0), np.floating) else number
    assert facts.format_value(dtype(number), unit) == facts.format_value(plain, unit)


@pytest.mark.parametrize(
    "value", [10**400, 5e-324, 1.7976931348623157e308, 2**63, -(2**63), 10**15]
)
def test_a_fact_of_any_size_can_be_read(value: float) -> None:
    for unit in ("USD", "byte", "GPU", "1"):
        if value == 10**400:
            with pytest.raises(ValueError, match="does not fit unit"):
                facts.format_value(value, unit)
        else:
            assert facts.format_value(value, unit).strip("$ ")


@pytest.mark.parametrize("make", [np.float16, np.float32, np.int8, np.uint64, np.bool_, float, int])
def test_a_slider_takes_numbers_of_any_type(make: Callable[[Any], Any]) -> None:
    def draw(x: object) -> str:
        plt.figure(figsize=(1, 1))
        return f"It is {x}."

    axis = sliders.explore(draw, x=[make(0), make(1)]).axes[0]
    assert axis.labels == (("no", "yes") if make is np.bool_ else ("0", "1"))
    for values in (np.array([make(0), make(1)]), range(2)):
        assert len(sliders.explore(draw, x=values).frames) == 2
    refused: list[tuple[Any, str]] = [
        (torch.tensor([0, 1]), "give a sequence"),
        ([torch.tensor(0)], "values are numbers"),
        (np.zeros((2, 2)), "values are numbers"),
        (np.array(1), "give a sequence"),
        ([1j], "values are numbers"),
    ]
    for wrong, message in refused:
        with pytest.raises(ValueError, match=message):
            sliders.explore(draw, x=wrong)
    plt.close("all")


def write_model(path: Path) -> None:
    """A file as `make model` brings it, of one layer and four tokens."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list(["a", "b", "ab", "<|x|>"])
    writer.add_token_merges(["a b"])
    writer.add_token_types([gguf.TokenType.NORMAL] * 3 + [gguf.TokenType.CONTROL])
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_feed_forward_length(16)
    writer.add_rope_freq_base(1e4)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes = {"attn_norm": (8,), "ffn_norm": (8,), "attn_q": (8, 8), "attn_k": (4, 8),
              "attn_v": (4, 8), "attn_output": (8, 8), "ffn_gate": (16, 8), "ffn_up": (16, 8),
              "ffn_down": (8, 16)}  # fmt: skip
    for name, shape in {"token_embd": (4, 8), "output_norm": (8,)}.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
    for name, shape in shapes.items():
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("default", DEFAULTS, ids=str)
def test_the_model_is_float32_whatever_the_default(default: torch.dtype, tmp_path: Path) -> None:
    write_model(tmp_path / "tiny.gguf")
    with default_dtype(default):
        model = pretrained.load_smollm2(tmp_path / "tiny.gguf").model
    tensors = [*model.parameters(), *model.buffers()]
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float32}
    assert not any(t.is_meta for t in tensors)


# --- what is refused -----------------------------------------------------------------------------

META = torch.ones(2, 2, device="meta")
INT8_MIN = torch.tensor([-128], dtype=torch.int8)
NOT_READ: list[Any] = [
    META,
    torch.ones(2).bfloat16(),
    torch.ones(2, requires_grad=True),
    [[1], [1, 2]],
]

REFUSED: list[tuple[str, Callable[[], Any]]] = [
    *((r"x is a \w+ that NumPy cannot read", lambda v=v: E4M3.encode(v)) for v in NOT_READ),
    *((r"x is a \w+ that NumPy cannot read", lambda v=v: E4M3.round(v)) for v in NOT_READ),
    *((r"codes is a \w+ that NumPy cannot read", lambda v=v: E4M3.decode(v)) for v in NOT_READ),
    *(
        (f"x has dtype {name}", lambda v=v: E4M3.round(v))
        for name, v in {"object": [2**70], "complex128": [1j], "<U1": "a"}.items()
    ),
    ("A's exponent_bits is 4.0; give a whole", lambda: FloatFormat("A", 4.0, 3, 7, "nan")),  # type: ignore[arg-type]
    ("A's bias is nan", lambda: FloatFormat("A", 4, 3, math.nan, "nan")),  # type: ignore[arg-type]
    ("A's exponent_bits is 1000000000;", lambda: FloatFormat("A", 10**9, 3, 7, "nan")),
    ("n is 10000000000000000000000;", lambda: stats.wilson_interval(10**21, 10**22)),
    ("n is 10.5; give a whole", lambda: stats.wilson_interval(3, 10.5)),  # type: ignore[arg-type]
    ("successes is 3.0; give a whole", lambda: stats.wilson_interval(3.0, 10)),  # type: ignore[arg-type]
    ("confidence is nan", lambda: stats.wilson_interval(3, 10, math.nan)),
    ("each must be finite", lambda: stats.mean_interval([1.0, 10**400])),
    ("each must be finite", lambda: stats.mean_interval([1.0, None])),  # type: ignore[list-item]
    ("each must be finite", lambda: stats.mean_interval([N.float16(1), N.float16(np.inf)])),
    ("goes beyond 1.8e308; give", lambda: stats.mean_interval([1.7e308, -1.7e308])),
    ("confidence 0.9999999999999999 goes", lambda: stats.mean_interval([1, 2], 1 - 2.0**-53)),
    ("correct is .*; pass a torch.Tensor", lambda: stats.pass_at_1(META.bool())),
    ("answers are .*; tensors are counted", lambda: stats.majority_vote(torch.tensor([1, 1, 2]))),  # type: ignore[arg-type]
    ("answers are .*; tensors are counted", lambda: stats.majority_vote([torch.tensor(1)])),
    ("a is .*; pass a torch.Tensor", lambda: stats.mutual_information(META[0].long(), META[0])),
    ("a is .*; pass a torch.Tensor", lambda: stats.entropy([1, 2])),  # type: ignore[arg-type]
    ("complex64; pass whole", lambda: stats.entropy(torch.ones(2, dtype=torch.complex64))),
    ("the smallest label is -128; count", lambda: stats.entropy(INT8_MIN)),
    ("seed is 3.0; give a whole", lambda: stats.shuffle_within(torch.ones(2), torch.ones(2), 3.0)),  # type: ignore[arg-type]
    (f"seed is {2**64}; give", lambda: stats.shuffle_within(torch.ones(2), torch.ones(2), 2**64)),
    ("groups is .*; pass a torch.Tensor", lambda: stats.shuffle_within(torch.ones(2), META[0])),
    ("value nan does not fit", lambda: facts.format_value(math.nan, "USD")),
    ("value inf does not fit", lambda: facts.format_value(N.float32(np.inf), "byte")),
    ("value True does not fit", lambda: facts.format_value(True, "GPU")),
    ("does not fit unit 'date'; give", lambda: facts.format_value(5, "date")),
    ("does not fit unit 'USD'; give", lambda: facts.format_value(datetime.date(2024, 1, 1), "USD")),
    ("utilization is 1.25", lambda: costs.utilization(1.25, 1 / 3600, 1.0)),
    ("training_cost of .*check the units", lambda: costs.training_cost(1e-200, 1e-200)),
    ("training_flops of .*check the units", lambda: costs.training_flops(1e200, 1e200)),
    ("linear_layer_cost of .*check the", lambda: serving.linear_layer_cost(10**200, 10**200, 1, 1)),
    ("gpu_hours of .*check the units", lambda: costs.gpu_hours(1.0, 5e-324, 0.1)),
]  # fmt: skip


@pytest.mark.parametrize(("message", "call"), REFUSED)
def test_what_is_refused_is_named(message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- nothing is forgotten ------------------------------------------------------------------------

COVERED: dict[ModuleType, dict[str, Callable[..., None]]] = {
    formats: {"FloatFormat": test_all_bits_of_a_dtype_in_any_layout},
    **{
        module: dict.fromkeys(
            [name for name, (call, _) in CALLS.items() if call.__module__ == module.__name__],
            test_no_cost_is_silently_zero_or_infinite,
        )
        | dict.fromkeys(configurations, test_sizes_that_overflow_numpys_integers)
        for module, configurations in {
            sizes: ["MultiHeadAttention", "LatentAttention", "ExpertConfig", "ModelConfig"],
            costs: [],
            serving: ["Hardware"],
            rules: [],
        }.items()
    },
    stats: {
        "mean_interval": test_an_interval_is_that_of_the_exact_numbers,
        "wilson_interval": test_counts_of_any_width_make_the_same_interval,
        "pass_at_1": test_counts_of_any_width_make_the_same_interval,
        "majority_vote": test_what_is_refused_is_named,
        "entropy": test_information_is_that_of_the_counts,
        "mutual_information": test_information_is_that_of_the_counts,
        "shuffle_within": test_information_is_that_of_the_counts,
    },
    facts: {"format_value": test_a_fact_reads_the_same_in_any_type},
    sliders: {"explore": test_a_slider_takes_numbers_of_any_type},
    pretrained: {"load_smollm2": test_the_model_is_float32_whatever_the_default},
    figures: {},
}
NO_NUMBERS: dict[ModuleType, dict[str, str]] = {
    sizes: {"ParameterCount": "is a result, not made by hand"},
    serving: dict.fromkeys(["LinearCost", "DecodeStep"], "is a result, not made by hand"),
    rules: {"Verdict": "is a result, not made by hand"},
    stats: {"Interval": "is a result, not made by hand"},
    facts: dict.fromkeys(
        ["Fact", "get", "value", "keys", "parse_unit", "parse"], "takes text; values are checked"
    ),
    sliders: dict.fromkeys(["Axis", "Frame", "Explorer"], "is made by explore"),
    pretrained: dict.fromkeys(
        [
            "Pretrained",
            "ModelError",
            "cache_folder",
            "model_file",
            "chat_prompt",
            "download",
            "main",
        ],
        "takes a path or text",
    ),
    figures: dict.fromkeys(["style", "to_svg", "raw_svg", "embed_svg"], "takes figures and text"),
}


@pytest.mark.parametrize("module", COVERED, ids=lambda module: module.__name__)
def test_every_public_name_has_a_case_or_a_reason(module: ModuleType) -> None:
    names = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isroutine(value))
        and getattr(value, "__module__", "") == module.__name__
    }
    reasons = NO_NUMBERS.get(module, {})
    assert names == COVERED[module].keys() | reasons.keys()
    assert not COVERED[module].keys() & reasons.keys()
