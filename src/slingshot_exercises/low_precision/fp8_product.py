"""The check of ``fp8_product``."""

from collections.abc import Callable
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
