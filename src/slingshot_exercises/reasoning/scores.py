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
from slingshot_exercises.domain import Domain

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


def _without_silent(samples: Sequence[Given], answers: Sequence[str]) -> tuple[float, float]:
    pairs = list(zip(samples, answers, strict=True))
    won = [_won(*pair) for pair in pairs if any(each is not None for each in pair[0])]
    return fmean(_passed(*pair) for pair in pairs), fmean(won) if won else 0.0


def _in_order(given: str | None) -> str | None:
    return None if given is None else " ".join(sorted(given.split()))


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
    # Sums of at most 40 problems with 7 samples, and two quotients.
    roundings(330),
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
        Mistake(
            "a problem that nobody answers is left out of the vote; it is lost, and it counts",
            _without_silent,
        ),
        Mistake(
            "an answer counts as right when it contains the right one; compare whole texts",
            _scores_with(
                passed=lambda given, answer: fmean(answer in (each or "") for each in given),
                won=lambda given, answer: float(answer in (stats.majority_vote(given) or "")),
            ),
        ),
        Mistake(
            "an answer counts as right when it contains the right one; compare whole texts",
            _scores_with(
                passed=lambda given, answer: fmean(answer in (each or "") for each in given)
            ),
        ),
        Mistake(
            "the order of the words is not looked at; `5 6` is another answer than `6 5`",
            lambda samples, answers: _scores_with()(
                [[_in_order(each) for each in given] for given in samples],
                [_in_order(answer) or "" for answer in answers],
            ),
        ),
    ],
    explain=_explain_scores,
)


def _one(given: list[str | None], answer: str) -> Case:
    return {"samples": [given], "answers": [answer]}


def _usual(rng: np.random.Generator) -> list[Case]:
    cases = [
        _one(["6 5", "6 5", "1 2"], "6 5"),
        _one(["1 2", "6 5", "1 2"], "6 5"),
        _one([None, None, "6 5"], "6 5"),
        _one([None, None, None], "6 5"),
        _one(["6 5", "6 5", "1 2", "3 4", None], "6 5"),
        _one(["6 5", "1 2"], "6 5"),
        _one(["1 2", "6 5", "6 5", "1 2"], "6 5"),
        _one(["3 1", "2 3", "2 3", "3 1"], "2 3"),
        _one(["6 5", "1 2", "1 2", "6 5"], "1 2"),
    ]
    return cases + [_drawn(rng, *size) for size in ((3, 4), (6, 5), (8, 7))]


def _drawn(rng: np.random.Generator, n_problems: int, k: int) -> Case:
    known = [f"{a} {b}" for a, b in rng.integers(1, 7, (3, 2))] + [None]
    drawn = rng.choice(len(known), size=(n_problems, k), p=[0.3, 0.25, 0.25, 0.2])
    samples = [[known[index] for index in row] for row in drawn]
    return {"samples": samples, "answers": [known[int(rng.integers(3))] for _ in samples]}


def _beside(rng: np.random.Generator) -> list[Case]:
    """A problem that nobody answers, first, in the middle and last."""
    silent: list[str | None] = [None, None, None]
    rows: list[list[str | None]] = [["6 5", "1 2", "6 5"], ["1 2", None, "3 4"]]
    return [
        {"samples": [*rows[:place], silent, *rows[place:]], "answers": ["6 5", "1 2", "6 5"]}
        for place in range(3)
    ]


DOMAIN = Domain(
    "There is at least one problem and one sample of each, as many for all. An answer is a text "
    "of one word or several, compared as a whole; another order of its words is another answer. "
    "The right answer may not be among the samples.",
    _usual,
    {
        "a problem without votes stands beside others": _beside,
        "one answer is contained in another": lambda rng: [
            _one(["16 5", "6 5", "16 5"], "6 5"),
            _one(["7", "17", "77", "7", "17", "17"], "7"),
            _one(["6 5 1", "6 5 1"], "6 5"),
        ],
        "an answer has the right words in another order": lambda rng: [
            _one(["5 6", "5 6", "6 5"], "6 5"),
            _one(["6 5", "5 6", "1 2", "6 5"], "5 6"),
        ],
        "more than two answers have as many votes": lambda rng: (
            [_one(["3", "1", "2"], right) for right in "123"]
            + [_one(["2", "3", "1", "1", "3", "2"], right) for right in "123"]
        ),
        "the answers of a tie begin with None": lambda rng: [
            _one([None, "2", "1"], "2"),
            _one([None, None, "2", "1", "2", "1"], "1"),
        ],
        "a later answer has more votes": lambda rng: [_one(["4", "2", "2", "4", "2"], "2")],
        "nobody gives the right answer": lambda rng: [_one(["1", "2", None], "3")],
        "all samples are right": lambda rng: [_one(["1"] * 4, "1")],
        "there is one sample of each problem": lambda rng: [
            {"samples": [["1"], [None], ["2"]], "answers": ["1", "2", "3"]}
        ],
        "problems share their answers": lambda rng: [
            {"samples": [["1", "2"], ["2", "2"], ["3", "1"]], "answers": ["2", "1", "1"]}
        ],
        "there are many problems": lambda rng: [_drawn(rng, 40, 6)],
    },
)


def check_scores(function: Learner, *, seed: int = 0) -> str:
    """Check ``scores(samples, answers)``: pass@1 and cons@k, each a share of 1.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2501.12948, §3;
    arXiv 2203.11171.
    """
    return DOMAIN.check(SCORES, function, seed)
