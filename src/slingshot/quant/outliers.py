"""Three remedies against outliers: to leave them out, to move them into the weight, to spread them.

A number far larger than its neighbors takes the range of whatever shares its scale. LLM.int8()
multiplies the columns that have one in float32. SmoothQuant divides such columns of the input and
multiplies those of the weight. A rotation mixes columns, so that none is large.
"""

import torch
from jaxtyping import Float, Real
from torch import Tensor

from slingshot.quant.blocks import INT8, as_matrix, check_dense, check_finite, quantize
from slingshot.quant.matmul import check_columns, check_product, int8_matmul, multiply
from slingshot.require import real, whole


@torch.no_grad()
def llm_int8_matmul(
    x: Float[Tensor, "M K"], w: Float[Tensor, "N K"], threshold: float = 6.0
) -> Float[Tensor, "M N"]:
    """Return ``x [M, K] @ w [N, K].T`` in INT8 but for the columns in which ``x`` has an outlier.

    A column with any ``|x| >= threshold`` is multiplied in float32 (in the paper FP16), the others
    in INT8 with a scale for each row of x and of w. So an outlier widens no other element's step.

    Source: Dettmers et al., arXiv 2208.07339, eq. 8. Raises ``ValueError`` as `quantize`, for
    columns that differ, for a ``threshold`` that is not above 0, and for a product beyond float32.
    """
    check_columns(x, w)
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}; give a number above 0, in the paper 6.0")
    check_finite(x)
    check_finite(w)
    x = as_matrix(x)  # so that the threshold is not rounded to float16
    is_outlier = (x.abs() >= float(threshold)).any(0)
    result = multiply(x[:, is_outlier].float(), w[:, is_outlier].float())
    if not bool(is_outlier.all()):
        few = quantize(x[:, ~is_outlier], INT8, (1, None))
        other = quantize(w[:, ~is_outlier], INT8, (1, None))
        sums = int8_matmul(few.values, other.values)
        if float(few.scale.max()) * x.shape[1] * 128**2 > torch.finfo(torch.float32).max:
            sums = sums.double()  # what one scale makes infinite, the other brings back
        result.add_(sums * few.scale * other.scale.T)
    return check_product(result)


@torch.no_grad()
def smooth(
    x: Float[Tensor, "M K"], w: Float[Tensor, "N K"], alpha: float = 0.5
) -> tuple[Float[Tensor, "M K"], Float[Tensor, "N K"], Float[Tensor, "K"]]:
    """Return ``x / s``, ``w * s`` and ``s [K]``: outliers of ``x`` are moved into ``w``.

    For each column j of ``x [M, K]`` and ``w [N, K]``, s_j = max|X_j|^α / max|W_j|^(1-α). The
    product x @ w.T stays what it was. Where a column is all zeros, s_j is 1. All three are float32,
    or float64 if ``x`` or ``w`` is that: what is moved may be beyond float16.

    Source: Xiao et al., arXiv 2211.10438, eq. 4. Raises ``ValueError`` for an ``alpha`` outside 0
    to 1, columns that differ, inf or NaN, and a column that leaves the range of normal numbers.
    """
    check_columns(x, w)
    alpha = real("alpha", alpha)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; give 0 (all in x) to 1 (all in w), usually 0.5")
    for matrix in (x, w):
        check_finite(matrix)
    dtype = torch.promote_types(as_matrix(x).dtype, as_matrix(w).dtype)
    x, w = x.detach().to(dtype), w.detach().to(dtype)
    x_max, w_max = x.abs().amax(0), w.abs().amax(0)
    s = x_max**alpha / w_max ** (1 - alpha)
    moves = (x_max > 0) & (w_max > 0)
    s = torch.where(moves, s, 1.0)
    limits = torch.finfo(dtype)
    for made in (s, x_max / s, w_max * s):
        left = moves & ((made < limits.tiny) | (made > limits.max))
        if bool(left.any()):
            column = int(torch.nonzero(left)[0])
            raise ValueError(
                f"column {column} has up to {x_max[column].item():.3g} in x and "
                f"{w_max[column].item():.3g} in w, and with alpha {alpha} a factor of "
                f"{s[column].item():.3g} leaves {dtype}; multiply both by a number first"
            )
    return x / s, w * s, s


@torch.no_grad()
def rotate(
    x: Float[Tensor, "*M K"], block: int = 64, signs: Real[Tensor, "K"] | None = None
) -> Float[Tensor, "*M K"]:
    """Return ``x [..., K]`` with every ``block`` columns mixed by a Hadamard matrix.

    Its entries are ±1/√block and its rows are perpendicular, so it turns a vector and changes no
    length. Products stay: ``rotate(x) @ rotate(w).T`` is ``x @ w.T`` but for rounding. A number a
    that stands alone in its block becomes ``block`` numbers of size a/√block. ``signs [K]`` of ±1
    multiply the columns first: each draw is another rotation, the same for x and w. Without
    them a second call undoes the first. The result is float32, or float64 if ``x`` is that.

    Sources: Ashkboos et al., arXiv 2404.00456, §3; in blocks, with random signs: NVIDIA, arXiv
    2509.25149, §4.2. Raises ``ValueError`` for a ``block`` that is no power of two or does not
    divide K, for ``signs`` that are not K of ±1, and for ``x`` that is not of floating point.
    """
    check_dense("x", x)
    block = whole("block", block, 1)
    if block & (block - 1) or not x.is_floating_point() or x.ndim < 1 or x.shape[-1] % block:
        raise ValueError(
            f"x has dtype {x.dtype} and shape {tuple(x.shape)}, block is {block}; pass floating "
            "point [..., K], and a power of two that divides K"
        )
    x = x.detach() if x.dtype == torch.float64 else x.detach().float()
    if signs is not None:
        if signs.shape != x.shape[-1:] or not bool((signs.abs() == 1).all()):
            raise ValueError(
                f"signs is {signs.tolist()!r:.60} with shape {tuple(signs.shape)}; pass "
                f"{x.shape[-1]} numbers that are 1 or -1"
            )
        x = x * signs
    hadamard = torch.ones(1, 1, dtype=x.dtype)
    while len(hadamard) < block:  # Sylvester's construction: twice as large in each round
        hadamard = torch.cat(
            [torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)]
        )
    parts = multiply(x.reshape(-1, block), hadamard / block**0.5)
    return parts.reshape(x.shape)
