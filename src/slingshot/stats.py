"""How sure a number is, and how much one thing tells about another."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Shaped
from scipy import stats
from torch import Tensor

from slingshot.require import is_finite, real, whole
from slingshot.tensors import is_whole

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
    numbers = _finite_floats(values)
    confidence = _check_confidence(confidence)
    n = len(numbers)
    # Powers of two change no digit, and no square is too large or too small for a float.
    exponent = math.frexp(max(abs(number) for number in numbers))[1]
    numbers = [math.ldexp(number, -exponent) for number in numbers]
    mean = math.fsum(numbers) / n
    apart = [number - mean for number in numbers]
    # The mean was rounded too; where the values differ in their last digits, that counts.
    squares = math.fsum(d**2 for d in apart) - math.fsum(apart) ** 2 / n
    deviation = math.sqrt(max(squares, 0.0) / (n - 1))
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * deviation / math.sqrt(n)
    try:
        interval = [math.ldexp(end, exponent) for end in (mean, mean - reach, mean + reach)]
    except OverflowError:
        interval = [math.inf]
    if not all(map(math.isfinite, interval)):
        raise ValueError(
            f"the interval of {list(values)} at confidence {confidence} goes beyond 1.8e308; give "
            "values in a larger unit, or a lower confidence"
        )
    return Interval(*interval)


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
    # Up to 2^53 a float has every whole number.
    n, successes = whole("n", n, 1, 2**53), whole("successes", successes)
    confidence = _check_confidence(confidence)
    low, high = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(successes / n, float(low), float(high))


def pass_at_1(correct: Bool[Tensor, "problems samples"], confidence: float = 0.95) -> Interval:
    """Return how often one answer is right, of ``correct [problems, samples]`` bool.

    It is the mean of all samples: what to expect of a single one, and *not* the share of problems
    that at least one sample solves. Samples of one problem are not independent, so with several of
    each the interval is Student's, over problems; with one it is `wilson_interval`.

    Source: DeepSeek-R1, arXiv 2501.12948, §3. Raises ``ValueError`` unless there is a sample.
    """
    _check_has_numbers(correct=correct)
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
    Raises ``ValueError`` without any sample, and for tensors, which equal none but themselves.
    """
    if isinstance(answers, Tensor) or any(isinstance(answer, Tensor) for answer in answers):
        raise ValueError(
            f"answers are {answers}; tensors are counted as unequal, pass answers.tolist()"
        )
    if len(answers) == 0:
        raise ValueError("there are 0 answers to vote with; give at least 1")
    votes = Counter(answer for answer in answers if answer is not None)
    return max(votes, key=lambda answer: votes[answer]) if votes else None


def entropy(labels: Shaped[Tensor, "N"]) -> float:
    """Return the entropy in bits of whole-number ``labels [N]``: yes-or-no questions per label.

    Source: Shannon (1948). Raises ``ValueError`` as `mutual_information` does.
    """
    return mutual_information(labels, labels)


def mutual_information(a: Shaped[Tensor, "N"], b: Shaped[Tensor, "N"]) -> float:
    """Return how many bits knowing ``a [N]`` tells about ``b [N]``, both whole numbers from 0.

    0 if they are independent; at most the smaller of the two entropies. A finite sample tells a
    little more than 0 even then, so compare with shuffled labels.

    Source: Shannon (1948). Raises ``ValueError`` unless both are integer tensors of one length with
    at least one label, none below 0.
    """
    _check_has_numbers(a=a, b=b)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(
            f"labels have shapes {tuple(a.shape)} and {tuple(b.shape)}; pass two of one length [N]"
        )
    if not (_is_whole(a) and _is_whole(b)):
        raise ValueError(f"labels have dtypes {a.dtype} and {b.dtype}; pass whole numbers")
    for labels in (a, b):
        if labels.dtype.is_signed and int(labels.min()) < 0:
            raise ValueError(f"the smallest label is {int(labels.min())}; count from 0")
    # Counted is what occurs: a table of all possible pairs may not fit in memory.
    (_, of_a, n_a), (_, of_b, n_b) = (
        torch.unique(m.long(), return_inverse=True, return_counts=True) for m in (a, b)
    )
    pairs, n_pairs = torch.unique(of_a * len(n_b) + of_b, return_counts=True)
    joint, share_a, share_b = (counts.double() / len(a) for counts in (n_pairs, n_a, n_b))
    independent = share_a[pairs // len(n_b)] * share_b[pairs % len(n_b)]
    return float((joint * (joint / independent).log2()).sum())


def shuffle_within(
    labels: Shaped[Tensor, "N"], groups: Shaped[Tensor, "N"], seed: int = 0
) -> Shaped[Tensor, "N"]:
    """Deal ``labels [N]`` anew among the places of the same group in ``groups [N]``.

    A control: what the labels tell beyond their group is destroyed, what the group tells stays.
    Raises ``ValueError`` unless both have one length.
    """
    _check_has_numbers(labels=labels, groups=groups)
    if labels.ndim != 1 or labels.shape != groups.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and groups {tuple(groups.shape)}; "
            "pass two of one length [N]"
        )
    generator = torch.Generator().manual_seed(whole("seed", seed, -(2**63), 2**63 - 1))
    # float32 whatever torch's default is: in bfloat16 most places would draw the same number.
    shuffled = torch.rand(len(labels), generator=generator, dtype=torch.float32).argsort()
    if _is_whole(groups):
        groups = groups.long()  # torch does not sort some of the narrow ones
    order = shuffled[groups[shuffled].argsort(stable=True)]
    # The place that each dealt label goes to, turned around: where each place's label comes from.
    places = torch.empty_like(order)
    places[groups.argsort(stable=True)] = order
    return labels[places]


def _finite_floats(values: Sequence[float]) -> list[float]:
    """Return ``values`` as floats: in float16 the mean of a thousand is not the mean."""
    numbers = values.tolist() if isinstance(values, Tensor) else list(values)
    if not all(is_finite(number) or isinstance(number, bool) for number in numbers):
        raise ValueError(f"values are {list(values)}; each must be finite")
    return [float(number) for number in numbers]


def _is_whole(labels: Tensor) -> bool:
    return labels.dtype == torch.bool or is_whole(labels)  # False and True are the labels 0 and 1


def _check_has_numbers(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.is_meta:
            raise ValueError(
                f"{name} is {tensor!r:.99}; pass a torch.Tensor that has numbers, on no meta device"
            )


def _check_confidence(confidence: float) -> float:
    if not 0 < real("confidence", confidence) < 1:
        raise ValueError(f"confidence is {confidence}; give a share between 0 and 1, such as 0.95")
    return float(confidence)
