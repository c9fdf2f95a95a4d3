"""The check of ``int8_product``."""

from collections.abc import Callable
from typing import Any

import numpy as np

from slingshot_exercises.checking import (
    UNIT_ROUNDOFF,
    Answer,
    Case,
    Exercise,
    Learner,
    Mistake,
    Tolerance,
    roundings,
    tensor,
)
from slingshot_exercises.domain import Domain, Draw
from slingshot_exercises.low_precision.common import Array


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
        Mistake(
            "a zero point is taken for a number from -128 to 127; it is one from 0 to 255",
            _wrong_correction(
                lambda q, z, r: z.astype(np.int8).astype(np.int64)[:, None] * r.sum(1)
            ),
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


INT8_PRODUCT_OF_INTEGERS = Exercise(
    "int8_product",
    _int8_product,
    tensor,
    # The sum is exact. Two scales and the sum are multiplied, in whatever order.
    roundings(2),
    reason="the numbers are scaled before they are summed, and each product is rounded; where the "
    "sum nearly cancels the roundings show. Sum integers, which is exact, and scale the sum",
)


def _usual(rng: np.random.Generator) -> list[Case]:
    return [_draw_codes(rng, *shape) for shape in [(1, 1, 3), (2, 3, 4), (3, 2, 16), (4, 5, 64)]]


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


def _with_zero_points(*points: int) -> Draw:
    def draw(rng: np.random.Generator) -> list[Case]:
        case = _draw_codes(rng, len(points), 3, 6)
        case["q"] = rng.integers(0, 256, (len(points), 6)).astype(np.uint8)
        return [{**case, "x_zero": np.array(points, dtype=np.uint8)}]

    return draw


def _filled(code: int, zero: int, weight: int) -> Case:
    """One row and one column of the same numbers."""
    return {
        "q": np.full((2, 5), code, dtype=np.uint8),
        "x_scale": np.array([0.5, 0.03]),
        "x_zero": np.full(2, zero, dtype=np.uint8),
        "r": np.full((3, 5), weight, dtype=np.int8),
        "w_scale": np.array([0.25, 0.01, 1.7]),
    }


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


DOMAIN = Domain(
    "Codes and zero points are from 0 to 255, weights from -128 to 127, and scales above zero. "
    "All dimensions are at least 1, and K is at most 4096.",
    _usual,
    {
        "a zero point is above 127": _with_zero_points(128, 200, 255),
        "a zero point is 0": _with_zero_points(0, 7, 0),
        "all zero points are 0": _with_zero_points(0, 0),
        "codes and weights are at their ends": lambda rng: [
            _filled(*ends)
            for ends in ((255, 0, 127), (255, 0, -128), (0, 255, 127), (0, 255, -128), (9, 9, 5))
        ],
        "weights are 0": lambda rng: [_filled(200, 100, 0)],
        "K is 1": lambda rng: [_draw_codes(rng, 3, 2, 1)],
        "M, N and K are equal": lambda rng: [_draw_codes(rng, 4, 4, 4)],
        "K is large": lambda rng: [
            {**_draw_codes(rng, 2, 3, 4096), "x_zero": np.array([0, 255], dtype=np.uint8)}
        ],
        "scales are tiny or huge": lambda rng: [
            {
                **_draw_codes(rng, 2, 2, 5),
                "x_scale": np.array([1e-30, 3e20]),
                "w_scale": np.array([7e25, 1e-12]),
            }
        ],
    },
)
CANCELLING = Domain(
    "The check has sums in which nearly everything cancels",
    lambda rng: [_draw_cancelling(rng, 5, k) for k in (5, 7, 40)],
    {},
)


def check_int8_product(function: Learner, *, seed: int = 0) -> str:
    """Check ``int8_product(q, x_scale, x_zero, r, w_scale)``: ``[M, N]`` from sums of integers.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: Jacob et al., arXiv
    1712.05877, §2.2.
    """
    passed = DOMAIN.check(INT8_PRODUCT, function, seed)
    CANCELLING.check(INT8_PRODUCT_OF_INTEGERS, function, seed)
    return passed
