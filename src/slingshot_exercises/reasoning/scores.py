"""The check of ``scores``."""

from collections.abc import Callable, Sequence
from statistics import fmean

import numpy as np

from slingshot import stats
from slingshot_exercises.checking import (
    Answer,
    Case,
    Exercise,
    Learner,
    Mistake,
    close,
    numbers,
    roundings,
)

Given = Sequence[str | None]
"""The answers to one problem, ``None`` for a text that gives none."""


def _passed(given: Given, answer: str) -> float:
    return fmean(float(each == answer) for each in given)


def _won(given: Given, answer: str) -> float:
    return float(stats.majority_vote(given) == answer)


def _most_frequent(given: Given) -> list[str]:
    """The answers with the most votes, in the order in which they were given."""
    votes = [each for each in given if each is not None]
    return [each for each in dict.fromkeys(votes) if votes.count(each) == _most_votes(votes)]


def _most_votes(votes: Sequence[str | None]) -> int:
    return max((votes.count(each) for each in votes), default=0)


def _scores_with(
    passed: Callable[[Given, str], float] = _passed, won: Callable[[Given, str], float] = _won
) -> Callable[[Sequence[Given], Sequence[str]], tuple[float, float]]:
    """The two scores, each a mean over the problems."""

    def scores(samples: Sequence[Given], answers: Sequence[str]) -> tuple[float, float]:
        pairs = list(zip(samples, answers, strict=True))
        return fmean(passed(*pair) for pair in pairs), fmean(won(*pair) for pair in pairs)

    return scores


def _passed_of_given(given: Given, answer: str) -> float:
    votes = [each for each in given if each is not None]
    return _passed(votes, answer) if votes else 0.0


def _won_if_none_votes(given: Given, answer: str) -> float:
    first = next(each for each in given if given.count(each) == _most_votes(given))
    return float(first == answer)


def _won_by_rank(rank: Callable[[list[str]], str]) -> Callable[[Given, str], float]:
    """Whether the answer wins when ``rank`` decides between those with the most votes."""
    return lambda given, answer: float(
        bool(_most_frequent(given)) and rank(_most_frequent(given)) == answer
    )


def _won_by_last(given: Given, answer: str) -> float:
    reverse = _most_frequent(list(reversed(given)))
    return float(bool(reverse) and reverse[0] == answer)


def _explain_scores(case: Case, expected: Answer, got: Answer) -> str:
    if max(got) > 1:
        return "both numbers are shares of 1; divide by how many there are"
    if not close(got[0], expected[0], 1e-9):
        return ""
    tied = any(len(_most_frequent(given)) > 1 for given in case["samples"])
    if tied:
        return "pass@1 is right; of answers with equally many votes the one given first must win"
    return "pass@1 is right, and the vote is not: most votes win, None has none"


SCORES = Exercise(
    "scores",
    _scores_with(),
    numbers("pass_at_1", "cons_at_k"),
    # Sums of at most 8 problems with 7 samples, and two quotients.
    roundings(72),
    [
        Mistake(
            "pass@1 counts a problem as solved when any sample is right; it is the mean over all "
            "samples",
            _scores_with(passed=lambda given, answer: float(answer in given)),
        ),
        Mistake(
            "pass@1 looks at the first sample alone; it is the mean over all samples",
            _scores_with(passed=lambda given, answer: float(given[0] == answer)),
        ),
        Mistake(
            "pass@1 leaves out samples without an answer; they are wrong, and they count",
            _scores_with(passed=_passed_of_given),
        ),
        Mistake(
            "None votes; a sample without an answer has no vote",
            _scores_with(won=_won_if_none_votes),
        ),
        Mistake(
            "the vote asks for more than half of the samples; the most votes are enough",
            _scores_with(won=lambda given, a: float(2 * given.count(a) > len(given))),
        ),
        Mistake(
            "a tie goes to the answer given last; the one given first wins",
            _scores_with(won=_won_by_last),
        ),
        Mistake(
            "a tie goes to the first in the alphabet; the one given first wins",
            _scores_with(won=_won_by_rank(min)),
        ),
        Mistake(
            "a tie is right when the right answer is among the best; the vote elects one, the one "
            "given first",
            _scores_with(won=lambda given, answer: float(answer in _most_frequent(given))),
        ),
        Mistake(
            "cons@k counts a problem as solved when any sample is right; the samples must vote",
            _scores_with(won=lambda given, answer: float(answer in given)),
        ),
        Mistake(
            "the two numbers are exchanged; return pass@1 first",
            lambda samples, answers: _scores_with()(samples, answers)[::-1],
        ),
    ],
    explain=_explain_scores,
)


def check_scores(function: Learner, *, seed: int = 0) -> None:
    """Check ``scores(samples, answers)``: pass@1 and cons@k, each a share of 1.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2501.12948, §3;
    arXiv 2203.11171.
    """
    rng = np.random.default_rng([seed, 32])
    one: list[tuple[list[str | None], str]] = [
        (["6 5", "6 5", "1 2"], "6 5"),
        (["1 2", "6 5", "1 2"], "6 5"),
        ([None, None, "6 5"], "6 5"),
        ([None, None, None], "6 5"),
        (["6 5", "6 5", "1 2", "3 4", None], "6 5"),
        (["6 5", "1 2"], "6 5"),
        (["1 2", "6 5", "6 5", "1 2"], "6 5"),
        (["3 1", "2 3", "2 3", "3 1"], "2 3"),
        (["6 5", "1 2", "1 2", "6 5"], "1 2"),
    ]
    cases: list[Case] = [{"samples": [given], "answers": [answer]} for given, answer in one]
    for n_problems, k in ((3, 4), (6, 5), (8, 7)):
        known = [f"{a} {b}" for a, b in rng.integers(1, 7, (3, 2))] + [None]
        drawn = rng.choice(len(known), size=(n_problems, k), p=[0.3, 0.25, 0.25, 0.2])
        samples = [[known[index] for index in row] for row in drawn]
        answers = [known[int(rng.integers(3))] for _ in samples]
        cases.append({"samples": samples, "answers": answers})
    SCORES.check(function, cases)
