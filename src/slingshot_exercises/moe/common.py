"""What several exercises of the assignment on mixture of experts share."""

import numpy as np
import torch
from torch import Tensor


def spread(weights: Tensor, experts: Tensor, n_experts: int) -> Tensor:
    """Put ``weights [T, k]`` in the columns of their ``experts [T, k]``: ``[T, E]``."""
    dense = torch.zeros(len(weights), n_experts, dtype=weights.dtype)
    return dense.scatter(1, experts, weights)


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    """Normal numbers of three decimals, so that a failure shows them in full."""
    return torch.from_numpy(rng.standard_normal(shape).round(3))


def share_of_chosen(chosen: Tensor) -> Tensor:
    """Divide chosen scores ``[T, k]`` by their sum, exactly; where the sum is 0, all shares are."""
    total = chosen.sum(dim=1, keepdim=True)
    return torch.where(total > 0, chosen / total.where(total > 0, 1.0), 0.0)


def settle_ties(order: Tensor, weights: np.ndarray) -> np.ndarray:
    """Sort the ``weights`` of the experts that a row of ``order`` leaves equal.

    Which of several equal experts is chosen is free, as it is for ``topk``. So their weights are
    compared as a set.
    """
    if weights.shape != tuple(order.shape):
        return weights
    settled = weights.copy()
    for row, values in enumerate(order.tolist()):
        for value in set(values):
            tied = [column for column, other in enumerate(values) if other == value]
            settled[row, tied] = np.sort(weights[row, tied])
    return settled
