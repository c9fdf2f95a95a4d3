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
