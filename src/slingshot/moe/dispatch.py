"""The dispatch: the tokens of one expert brought together, and its answers brought back.

The work of a mixture is dense matrix multiplication once the tokens of one expert stand together.
So the (token, expert) pairs are sorted by expert, once, and each expert gets its rows as one block.
"""

from itertools import pairwise
from typing import NamedTuple

from jaxtyping import Int64, Integer
from torch import Tensor

from slingshot import require
from slingshot.tensors import check_shapes, check_within, whole


class Dispatch(NamedTuple):
    """The (token, choice) pairs in the order of their experts.

    ``pairs [T * k]`` int64 are indices into the flattened choices, ``tokens [T * k]`` int64 the
    rows of x that they stand for, and ``bounds`` the E + 1 places where one expert's pairs end and
    the next one's begin.
    """

    pairs: Int64[Tensor, "n_pairs"]
    tokens: Int64[Tensor, "n_pairs"]
    bounds: list[int]

    def blocks(self) -> list[tuple[int, slice]]:
        """Return the experts that have tokens, each with the slice of its pairs."""
        ends = enumerate(pairwise(self.bounds))
        return [(e, slice(start, end)) for e, (start, end) in ends if start < end]

    def groups(self, n_pairs: int) -> list[list[tuple[int, slice]]]:
        """Return `blocks` in groups of neighbors that have at most ``n_pairs`` together, or one."""
        groups: list[list[tuple[int, slice]]] = []
        for e, block in self.blocks():
            if not groups or block.stop - groups[-1][0][1].start > n_pairs:
                groups.append([])
            groups[-1].append((e, block))
        return groups

    def without_tokens(self) -> list[int]:
        """Return the experts that nobody asked."""
        ends = enumerate(pairwise(self.bounds))
        return [e for e, (start, end) in ends if start == end]

    def most(self) -> int:
        """Return how many pairs the busiest expert has."""
        return max(end - start for start, end in pairwise(self.bounds))


def sort_by_expert(experts: Integer[Tensor, "T k"], n_experts: int) -> Dispatch:
    """Sort ``experts [T, k]`` once, so that the tokens of each expert are one slice.

    Raises ``ValueError`` unless they are integers from 0 to ``n_experts - 1`` in two dimensions.
    """
    require.counts(n_experts=n_experts)
    experts = whole("experts", experts, "pass Routing.experts of the same tokens")
    check_shapes("pass [T, k]", experts=experts)
    check_within("expert", experts, n_experts, "route among the experts that there are")
    flat = experts.flatten()
    # Stable, so that an expert meets its tokens in their own order: gathers then run forward
    # through memory, and sums come out the same on every run.
    pairs = flat.argsort(stable=True)
    bounds = [0, *flat.bincount(minlength=n_experts).cumsum(0).tolist()]
    return Dispatch(pairs, pairs // max(1, experts.shape[1]), bounds)
