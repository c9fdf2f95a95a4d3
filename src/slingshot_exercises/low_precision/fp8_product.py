"""The check of ``fp8_product``."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from slingshot.formats import E4M3
from slingshot_exercises.checking import (
    UNIT_ROUNDOFF,
    Answer,
    Case,
    Exercise,
    Learner,
    Mistake,
    Tolerance,
    tensor,
)
from slingshot_exercises.domain import Domain
from slingshot_exercises.low_precision.common import Array

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
    columns: Callable[[Array, int, int], Array] = lambda r_scale, block, n: r_scale.repeat(
        block, 0
    )[:n],
) -> Callable[..., Array]:
    """A product with one step exchanged. ``scale`` gets s ``[M]`` and t ``[N]`` of a stretch."""

    def wrong(
        q: Array, q_scale: Array, r: Array, r_scale: Array, block: int, group: int, bits: int
    ) -> Array:
        products = q[:, None, :] * r[None, :, :]
        repeated = columns(r_scale, block, len(r))
        total = np.zeros(products.shape[:2])
        for k, start in enumerate(range(0, q.shape[1], block)):
            scales = scale(q_scale[:, k], repeated[:, k])
            stretch = products[..., 0 if carry else start : start + block]
            if scaled_first:
                total = total + short(stretch * scales[..., None], group, bits)
            else:
                total = total + short(stretch, group, bits) * scales
            total = end(total, bits)
        return total

    return wrong


_fp8_product = _wrong_fp8()  # with nothing exchanged


def _nan_of_zeros(
    q: Array, q_scale: Array, r: Array, r_scale: Array, block: int, group: int, bits: int
) -> Array:
    """Wherever all products of a group are zero, and the sum so far, the result is nan."""
    right = _fp8_product(q, q_scale, r, r_scale, block, group, bits)
    products = (q[:, None, :] * r[None, :, :]).reshape(len(q), len(r), -1, block)
    return np.where((products[..., :group] == 0).all(-1).any(-1), np.nan, right)


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
        Mistake(
            "a group of zeros gives nan: its largest magnitude has no logarithm. np.frexp has an "
            "exponent for 0, too",
            _nan_of_zeros,
        ),
        Mistake(
            "a scale of r is taken for a row each, from the first on; row n lies in block "
            "n // block",
            _wrong_fp8(columns=lambda r_scale, block, n: np.tile(r_scale, (n, 1))[:n]),
        ),
    ],
)


def _usual(rng: np.random.Generator) -> list[Case]:
    shapes = [
        # rows of q, rows of r, stretches, block, group, bits
        (1, 1, 1, 4, 2, 4),
        (1, 2, 2, 4, 2, 5),
        (2, 5, 2, 4, 2, 6),
        (4, 20, 4, 16, 4, 8),
        (2, 130, 2, 128, 32, 14),
    ]
    return [_draw_product(rng, *shape) for shape in shapes]


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


def _zeros_in(rng: np.random.Generator, *places: Any) -> list[Case]:  # noqa: ANN401 slices
    cases: list[Case] = []
    for place in places:
        case = _draw_product(rng, 2, 5, 2, 4, 2, 6)
        case["q"][place] = 0
        cases.append(case)
    return cases


def _values(rng: np.random.Generator, choice: Sequence[float], bits: int) -> list[Case]:
    case = _draw_product(rng, 3, 5, 2, 4, 2, bits)
    for name in ("q", "r"):
        case[name] = rng.choice(choice, case[name].shape)
    return [case]


DOMAIN = Domain(
    "`q` and `r` hold any numbers of E4M3, zeros among them. Scales are above zero. `bits` is a "
    "whole number from 1 to 24, `group` may be 1 or the whole `block`, and there may be one "
    "stretch or many, and fewer rows of `r` than `block`, as many, or more.",
    _usual,
    {
        "a group is all zeros": lambda rng: _zeros_in(
            rng, np.s_[1], np.s_[0, :2], np.s_[:, 2:4], np.s_[:, 4:], np.s_[:]
        ),
        "some numbers are zero": lambda rng: _zeros_in(rng, np.s_[:, ::2], np.s_[:, 1::2]),
        "products are powers of two": lambda rng: [
            case for bits in (1, 3, 6) for case in _values(rng, [1, -2, 4, 0.5, -0.25, 8], bits)
        ],
        "the numbers are at the ends of E4M3": lambda rng: _values(
            rng, [448, -448, 2.0**-9, -(2.0**-9), 0.0, 1.0], 10
        ),
        "the negative numbers are larger": lambda rng: _values(rng, [-20, -18, 1, 1.125, 3], 5),
        "a group is one number": lambda rng: [_draw_product(rng, 2, 3, 2, 4, 1, 5)],
        "a group is the whole block": lambda rng: [_draw_product(rng, 2, 3, 2, 8, 8, 5)],
        "there is one stretch": lambda rng: [_draw_product(rng, 2, 9, 1, 4, 2, 5)],
        "`r` has as many rows as a block, or twice as many": lambda rng: [
            _draw_product(rng, 2, 4, 3, 4, 2, 5),
            _draw_product(rng, 2, 8, 3, 4, 2, 5),
        ],
        "`q` has more rows than `r`": lambda rng: [_draw_product(rng, 9, 2, 2, 4, 2, 5)],
        "`bits` is small or large": lambda rng: [
            *(_draw_product(rng, 2, 3, 2, 8, 4, bits) for bits in (1, 2)),
            *_values(rng, [448, -416, 2.0**-9, 3 * 2.0**-9, -(2.0**-8), 0.40625], 24),
        ],
        "scales are tiny or huge": lambda rng: [
            {
                **_draw_product(rng, 2, 5, 2, 4, 2, 5),
                "q_scale": np.array([[1e-20, 3e10], [7e5, 2e-8]]),
                "r_scale": np.array([[1e12, 1e-9], [3e-4, 5e6]]),
            }
        ],
    },
)


def check_fp8_product(function: Learner, *, seed: int = 0) -> str:
    """Check ``fp8_product(q, q_scale, r, r_scale, block, group, bits)``: ``[M, N]``.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: DeepSeek-V3, arXiv
    2412.19437, §3.3.2 and §3.5.2.
    """
    return DOMAIN.check(FP8_PRODUCT, function, seed)
