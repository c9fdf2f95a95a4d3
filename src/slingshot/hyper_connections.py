"""Hyper-connections: several residual streams instead of one, and a matrix that mixes them.

A residual layer adds to what came in, ``x + f(x)``, so the input reaches every depth unchanged.
With n streams a layer reads one mixture of them, writes what it found to each, and mixes the
streams: ``x' = M x + w f(r x)``. After many layers the input has been multiplied by the product of
all M. If these may be anything, the product may grow or vanish with the depth. Where the rows and
columns of each M sum to 1, so do those of the product.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slingshot import require
from slingshot.tensors import at_least_float32, check_finite, first, real

Mixing = Literal["free", "doubly stochastic", "identity"]
"""What a matrix that mixes streams may be: anything, positive with rows and columns that sum to 1,
or the identity, which does not learn."""

_APART = -7.0
"""The logit with which two streams start: each takes less than a thousandth of another."""


def sinkhorn(logits: Float[Tensor, "*B n n"], n_iterations: int = 20) -> Float[Tensor, "*B n n"]:
    """Return positive matrices whose rows and columns sum to 1, from ``logits [..., n, n]``.

    It is ``exp(logits)`` with its columns and its rows divided by their sums in turn. Rows come
    last and sum to 1 but for rounding; columns do nearly, the nearer the more iterations.
    Gradients pass through all of them.

    Sources: Sinkhorn and Knopp, Pacific J. Math. 21 (1967); for residual streams Xie et al.,
    arXiv 2512.24880, which takes 20 iterations. Raises ``ValueError`` for what is no square matrix
    of finite floating-point numbers, for numbers whose differences no float holds, and for
    ``n_iterations`` below 1.
    """
    logits = real("logits", logits)
    if logits.ndim < 2 or logits.shape[-1] != logits.shape[-2] or not logits.numel():
        raise ValueError(
            f"logits has shape {tuple(logits.shape)}; pass square matrices [..., n, n]"
        )
    n_iterations = require.whole("n_iterations", n_iterations, 1)
    check_finite("logits", logits, "a logit says how strongly two streams mix")
    exponents = at_least_float32(logits)
    too_large = exponents.abs() > torch.finfo(exponents.dtype).max / 4
    if bool(too_large.any()):
        raise ValueError(f"{first('logits', logits, too_large)}; give smaller ones")
    for _ in range(n_iterations):  # of logarithms, in which nothing overflows
        exponents = exponents - exponents.logsumexp(-2, keepdim=True)
        exponents = exponents - exponents.logsumexp(-1, keepdim=True)
    return exponents.exp().to(logits.dtype)


class HyperConnection(nn.Module):
    """What stands around one block in place of ``x + f(x)``: reads, writes and mixes n streams.

    ``read [n]`` weighs the streams for what the block gets, ``write [n]`` what it found for each
    stream, and `matrix` mixes the streams; ``mix [n, n]`` is how far that is from its start. At
    first the block ``index``, counted from 0, reads one stream, writes to all, and the streams stay
    apart, or nearly: a model that starts with n copies of its input, and ends with their mean, is
    then that with one stream. The weights do not depend on the token, as the paper's do in part.

    Sources: Zhu et al., arXiv 2409.19606, for the streams and how they start; Xie et al.,
    arXiv 2512.24880, for the mixing. Raises ``ValueError`` for a count below 1 and an unknown
    ``mixing``.
    """

    start: Tensor

    def __init__(
        self, n_streams: int, index: int = 0, mixing: Mixing = "doubly stochastic"
    ) -> None:
        """Set the weights as above; nothing is drawn."""
        super().__init__()
        require.counts(n_streams=n_streams)
        require.counts(least=0, index=index)
        require.one_of(get_args(Mixing), mixing=mixing)
        self.mixing = mixing
        start = torch.zeros(n_streams)
        start[index % n_streams] = 1.0
        self.read = nn.Parameter(start)
        self.write = nn.Parameter(torch.ones(n_streams))
        eye = torch.eye(n_streams)
        self.register_buffer("start", _APART * (1 - eye) if mixing == "doubly stochastic" else eye)
        # What is learned is the distance from the start, so that weight decay leads back there.
        mix = torch.zeros(n_streams, n_streams)
        self.mix = nn.Parameter(mix, requires_grad=mixing != "identity")

    def matrix(self) -> Float[Tensor, "n n"]:
        """Return the matrix that multiplies the streams."""
        moved = self.start + self.mix
        return sinkhorn(moved) if self.mixing == "doubly stochastic" else moved

    def gather(self, streams: Float[Tensor, "*T n d"]) -> Float[Tensor, "*T d"]:
        """Return what the block reads of ``streams [..., n, d]``.

        Raises ``ValueError`` for another number of streams.
        """
        self._check(streams)
        return torch.einsum("n,...nd->...d", self.read, streams)

    def forward(
        self,
        streams: Float[Tensor, "*T n d"],
        found: Float[Tensor, "*T d"],
        matrix: Float[Tensor, "n n"] | None = None,
    ) -> Float[Tensor, "*T n d"]:
        """Return ``streams [..., n, d]`` mixed, with what the block ``found [..., d]`` added.

        ``matrix`` is what `matrix` returns, if it is known. Raises ``ValueError`` when the two do
        not belong together.
        """
        self._check(streams)
        if found.shape != streams.shape[:-2] + streams.shape[-1:]:
            raise ValueError(
                f"streams has shape {tuple(streams.shape)} and found {tuple(found.shape)}; pass "
                "[..., n, d] and [..., d]"
            )
        matrix = self.matrix() if matrix is None else matrix
        mixed = torch.einsum("mn,...nd->...md", matrix, streams)
        return mixed + self.write[:, None] * found.unsqueeze(-2)

    def _check(self, streams: Tensor) -> None:
        n = len(self.read)
        if real("streams", streams).ndim < 2 or streams.shape[-2] != n:
            raise ValueError(f"streams has shape {tuple(streams.shape)}; pass [..., {n}, d]")

    def extra_repr(self) -> str:
        """Return the settings, for ``print(connection)``."""
        return f"n_streams={len(self.read)}, mixing={self.mixing!r}"
