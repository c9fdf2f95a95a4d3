"""How sure a number is, and how much one thing tells about another."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeVar

import torch
from scipy import stats
from torch import Tensor

Answer = TypeVar("Answer", bound=Hashable)


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
    _check_confidence(confidence)
    n = len(values)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, mean - reach, mean + reach)


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the share of ``successes`` among ``n`` independent trials, with Wilson's interval.

    It holds the shares p from which the observed one is at most z standard deviations away,
    ``sqrt(p (1 - p) / n)`` each, where z = 1.96 at 95%. So it stays between 0 and 1 and keeps a
    width when all trials end alike: after 0 successes of 10 it goes up to 0.28.

    Source: Wilson, JASA 22 (1927). Raises ``ValueError`` for counts that cannot be, or a confidence
    outside 0 to 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} cannot be; give at least 1 trial")
    _check_confidence(confidence)
    low, high = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(successes / n, float(low), float(high))


def pass_at_1(correct: Tensor, confidence: float = 0.95) -> Interval:
    """Return how often one answer is right, of ``correct [problems, samples]`` bool.

    It is the mean of all samples: what to expect of a single one, and *not* the share of problems
    that at least one sample solves. Samples of one problem are not independent, so with several of
    each the interval is Student's, over problems; with one it is `wilson_interval`.

    Source: DeepSeek-R1, arXiv 2501.12948, §3. Raises ``ValueError`` unless there is a sample.
    """
    if correct.ndim != 2 or correct.dtype != torch.bool or not correct.numel():
        raise ValueError(
            f"correct has shape {tuple(correct.shape)} and dtype {correct.dtype}; "
            "pass bool [problems, samples], at least one of each"
        )
    if correct.shape[1] == 1:
        return wilson_interval(int(correct.sum()), len(correct), confidence)
    return mean_interval(correct.double().mean(dim=1).tolist(), confidence)


def majority_vote(answers: Sequence[Answer | None]) -> Answer | None:
    """Return the answer that most samples of one problem give; ``None`` if none gives any.

    ``None`` is a sample without an answer, and has no vote. Of answers with equally many votes the
    one that was given first wins. The share of problems whose vote is right is what R1 calls
    cons@64, with 64 samples.

    Source: self-consistency, Wang et al., arXiv 2203.11171; DeepSeek-R1, arXiv 2501.12948, §3.
    Raises ``ValueError`` without any sample.
    """
    if not answers:
        raise ValueError("there are 0 answers to vote with; give at least 1")
    votes = Counter(answer for answer in answers if answer is not None)
    return max(votes, key=lambda answer: votes[answer]) if votes else None


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


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; give a share between 0 and 1, such as 0.95")
