"""How sure a number is, and how much one thing tells about another."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor


class Interval(NamedTuple):
    """A mean with the interval that covers the true mean with the confidence asked for."""

    mean: float
    low: float
    high: float

    def format(self, spec: str = ".3f") -> str:
        """Return ``0.075 (0.061 to 0.089)``, each number in the format ``spec``."""
        return f"{self.mean:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean of a few independent runs with Student's t interval.

    Three runs give a wide one, 2.5 standard deviations to either side at 95%; five give 1.2. For
    two ways of doing the same thing with the same seeds, pass the differences: what a seed does to
    both cancels.

    Source: Student, Biometrika 6 (1908). Raises ``ValueError`` for fewer than two values, one that
    is not finite, or a confidence outside 0 to 1.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no spread; give at least 2 runs")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"values are {list(values)}; each must be finite")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; give a share between 0 and 1, such as 0.95")
    n = len(values)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, mean - reach, mean + reach)


def entropy(labels: Tensor) -> float:
    """Return the entropy in bits of whole-number ``labels [N]``: yes-or-no questions per label.

    Source: Shannon (1948). Raises ``ValueError`` as `mutual_information` does.
    """
    return mutual_information(labels, labels)


def mutual_information(a: Tensor, b: Tensor) -> float:
    """Return how many bits knowing ``a [N]`` tells about ``b [N]``, both whole numbers from 0.

    0 if they are independent; at most the smaller of the two entropies. A finite sample tells a
    little more than 0 even then, so compare with shuffled labels.

    Source: Shannon (1948). Raises ``ValueError`` unless both are integer tensors of one length with
    at least one label, none below 0.
    """
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(
            f"labels have shapes {tuple(a.shape)} and {tuple(b.shape)}; pass two of one length [N]"
        )
    if a.is_floating_point() or b.is_floating_point():
        raise ValueError(f"labels have dtypes {a.dtype} and {b.dtype}; pass whole numbers")
    if min(int(a.min()), int(b.min())) < 0:
        raise ValueError(f"the smallest label is {min(int(a.min()), int(b.min()))}; count from 0")
    width = int(b.max()) + 1
    joint = (a.long() * width + b).bincount(minlength=(int(a.max()) + 1) * width).view(-1, width)
    joint = joint.double() / len(a)
    independent = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
    seen = joint > 0
    return float((joint[seen] * (joint[seen] / independent[seen]).log2()).sum())


def shuffle_within(labels: Tensor, groups: Tensor, seed: int = 0) -> Tensor:
    """Deal ``labels [N]`` anew among the places of the same group in ``groups [N]``.

    A control: what the labels tell beyond their group is destroyed, what the group tells stays.
    Raises ``ValueError`` unless both have one length.
    """
    if labels.ndim != 1 or labels.shape != groups.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and groups {tuple(groups.shape)}; "
            "pass two of one length [N]"
        )
    chance = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed))
    shuffled = chance.argsort()
    order = shuffled[groups[shuffled].argsort(stable=True)]
    dealt = torch.empty_like(labels)
    dealt[groups.argsort(stable=True)] = labels[order]
    return dealt
