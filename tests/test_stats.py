"""Intervals against Student's table and by simulation; information against tables by hand."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from slingshot.stats import (
    Interval,
    entropy,
    majority_vote,
    mean_interval,
    mutual_information,
    pass_at_1,
    shuffle_within,
    wilson_interval,
)

labels = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30)


def from_table(table: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Labels of which ``table[a][b]`` pairs are ``(a, b)``."""
    pairs = [(a, b) for a, row in enumerate(table) for b, n in enumerate(row) for _ in range(n)]
    first, second = torch.tensor(pairs).T
    return first, second


# --- intervals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "confidence", "mean", "reach"),
    [
        ([1.0, 2.0, 3.0], 0.95, 2.0, 4.302653 / math.sqrt(3)),
        ([1.0, 2.0, 3.0], 0.90, 2.0, 2.919986 / math.sqrt(3)),
        ([0.0, 1.0], 0.95, 0.5, 12.706205 / 2),
        ([2.0, 4.0, 4.0, 4.0, 6.0], 0.95, 4.0, 2.776445 * math.sqrt(2 / 5)),
        ([7.0, 7.0, 7.0], 0.95, 7.0, 0.0),
    ],
)
def test_the_interval_is_students(
    values: list[float], confidence: float, mean: float, reach: float
) -> None:
    interval = mean_interval(values, confidence)
    assert interval == pytest.approx((mean, mean - reach, mean + reach), rel=1e-6)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    repetitions = 3000
    draws = torch.randn(repetitions, 3, generator=torch.Generator().manual_seed(0)).tolist()
    intervals = [mean_interval(values) for values in draws]
    covered = sum(low <= 0 <= high for _, low, high in intervals) / repetitions
    # The count is binomial: four of its standard deviations are 0.016.
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / repetitions))


def test_an_interval_can_be_read() -> None:
    assert Interval(0.0753, 0.06149, 0.0891).format() == "0.075 (0.061 to 0.089)"
    assert Interval(12.0, -1.0, 25.0).format(".0f") == "12 (-1 to 25)"


@pytest.mark.parametrize(
    ("values", "confidence", "message"),
    [
        ([], 0.95, "0 values have no spread; give at least 2 runs"),
        ([1.0], 0.95, "1 values have no spread; give at least 2 runs"),
        ([1.0, math.nan], 0.95, r"values are \[1.0, nan\]; each must be finite"),
        ([1.0, math.inf], 0.95, r"values are \[1.0, inf\]; each must be finite"),
        ([1.0, 2.0], 95, "confidence is 95; give a share between 0 and 1, such as 0.95"),
        ([1.0, 2.0], 0.0, "confidence is 0.0; give a share between 0 and 1, such as 0.95"),
    ],
)
def test_values_without_an_interval_are_named(
    values: list[float], confidence: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mean_interval(values, confidence)


# --- shares of right answers -------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (7, 10), (250, 500), (500, 500)])
def test_the_ends_of_the_interval_are_just_plausible(successes: int, n: int) -> None:
    interval = wilson_interval(successes, n)
    for end in (interval.low, interval.high):
        if end not in (0, 1):
            deviation = math.sqrt(end * (1 - end) / n)
            assert abs(successes / n - end) / deviation == pytest.approx(1.959964, rel=1e-6)


def test_even_without_a_success_there_is_an_interval() -> None:
    assert wilson_interval(0, 10).format(".2f") == "0.00 (0.00 to 0.28)"
    assert wilson_interval(10, 10).format(".2f") == "1.00 (0.72 to 1.00)"


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_counts_that_cannot_be_are_named(successes: int, n: int) -> None:
    message = f"{successes} successes of {n} cannot be; give at least 1 trial"
    with pytest.raises(ValueError, match=message):
        wilson_interval(successes, n)
    with pytest.raises(ValueError, match="confidence is 95; give a share between 0 and 1"):
        wilson_interval(1, 2, 95)


def test_one_answer_is_not_the_best_of_several() -> None:
    correct = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    interval = pass_at_1(correct)
    assert interval == mean_interval([0.25, 0.5, 0.0])
    assert interval.mean == 0.25  # two of three problems are solved at least once


def test_with_one_sample_each_problems_are_trials() -> None:
    correct = torch.tensor([[True], [False], [True]])
    assert pass_at_1(correct, 0.9) == wilson_interval(2, 3, 0.9)


def test_samples_of_one_problem_do_not_count_as_many_problems() -> None:
    # Each problem is solved always or never: a hundred samples tell no more than two.
    solved = (torch.arange(40) % 2 == 0)[:, None]
    few, many = pass_at_1(solved.expand(40, 2)), pass_at_1(solved.expand(40, 100))
    assert few == pytest.approx(many)
    assert many.high - many.low > 5 * (lambda i: i.high - i.low)(wilson_interval(2000, 4000))


@pytest.mark.parametrize(
    "correct", [torch.ones(3, dtype=torch.bool), torch.ones(3, 2), torch.ones(0, 2) > 0]
)
def test_what_is_no_table_of_answers_is_named(correct: Tensor) -> None:
    with pytest.raises(ValueError, match=r"pass bool \[problems, samples\], at least one of each"):
        pass_at_1(correct)


@pytest.mark.parametrize(
    ("answers", "vote"),
    [
        (["a", "b", "b"], "b"),
        (["a", "b", "b", "a"], "a"),  # a tie goes to the first
        ([None, None, "a"], "a"),
        ([None, "b", None, "a", "a"], "a"),
        ([None, None], None),
        (["a"], "a"),
    ],
)
def test_the_most_frequent_answer_wins(answers: list[str | None], vote: str | None) -> None:
    assert majority_vote(answers) == vote


@given(answers=st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_no_answer_has_more_votes_than_the_winner(answers: list[int | None]) -> None:
    vote = majority_vote(answers)
    given_answers = [answer for answer in answers if answer is not None]
    assert (vote is None) == (not given_answers)
    for answer in given_answers:
        assert answers.count(answer) <= answers.count(vote)


def test_a_vote_without_voters_is_named() -> None:
    with pytest.raises(ValueError, match="there are 0 answers to vote with; give at least 1"):
        majority_vote([])


# --- information -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "bits"),
    [
        ([[2, 0], [0, 2]], 1.0),
        ([[3, 1], [1, 3]], 0.75 * math.log2(1.5) - 0.25),
        ([[2, 1], [1, 0]], 2 * (2 - 0.75 * math.log2(3)) - 1.5),
        ([[1, 2, 3], [2, 4, 6]], 0.0),
        ([[5]], 0.0),
        ([[1, 0, 0], [0, 0, 1], [0, 2, 0]], 1.5),
    ],
)
def test_information_is_that_of_the_table(table: list[list[int]], bits: float) -> None:
    a, b = from_table(table)
    joint = torch.tensor(table, dtype=torch.float64) / sum(map(sum, table))
    by_hand = sum(
        p * math.log2(p / (joint[i].sum().item() * joint[:, j].sum().item()))
        for i, row in enumerate(joint.tolist())
        for j, p in enumerate(row)
        if p
    )
    assert mutual_information(a, b) == pytest.approx(by_hand, abs=1e-12)
    assert mutual_information(a, b) == pytest.approx(bits, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "bits"),
    [([4], 0.0), ([0, 1], 1.0), (list(range(8)), 3.0), ([0, 0, 0, 1], 2 - 0.75 * math.log2(3))],
)
def test_entropy_counts_questions(values: list[int], bits: float) -> None:
    assert entropy(torch.tensor(values)) == pytest.approx(bits, abs=1e-12)


@given(pairs=labels)
@settings(max_examples=100, deadline=None)
def test_information_is_symmetric_and_within_both_entropies(pairs: list[tuple[int, int]]) -> None:
    a, b = torch.tensor(pairs).T
    bits = mutual_information(a, b)
    assert bits == pytest.approx(mutual_information(b, a), abs=1e-9)
    assert -1e-9 <= bits <= min(entropy(a), entropy(b)) + 1e-9


@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_a_function_of_a_label_is_known_with_it(values: list[int]) -> None:
    a = torch.tensor(values)
    assert mutual_information(a, a // 3) == pytest.approx(entropy(a // 3), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_information_does_not_depend_on_the_kind_of_whole_number(dtype: torch.dtype) -> None:
    a = torch.arange(200)
    assert mutual_information(a.to(dtype), (a // 2).to(dtype)) == pytest.approx(math.log2(100))


def test_shuffled_labels_tell_what_a_finite_sample_tells_by_chance() -> None:
    n = 2000
    a = torch.randint(8, (n,), generator=torch.Generator().manual_seed(0))
    b = a // 2
    bits = mutual_information(shuffle_within(a, torch.zeros_like(a)), b)
    # 2 N ln 2 times the information has the chi-square distribution with 7 * 3 degrees of freedom,
    # of mean 21 and deviation 6.5.
    assert 0 < bits * 2 * n * math.log(2) < 21 + 5 * 6.5
    assert mutual_information(a, b) == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 2], [1], r"labels have shapes \(2,\) and \(1,\); pass two of one length \[N\]"),
        ([[1]], [[1]], r"labels have shapes \(1, 1\) and \(1, 1\); pass two of one length"),
        ([0.5], [1], "labels have dtypes torch.float32 and torch.int64; pass whole numbers"),
        ([1], [0.5], "labels have dtypes torch.int64 and torch.float32; pass whole numbers"),
        ([0, -1], [0, 1], "the smallest label is -1; count from 0"),
        ([0, 1], [0, -2], "the smallest label is -2; count from 0"),
    ],
)
def test_labels_that_cannot_be_counted_are_named(a: Any, b: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=message):
        mutual_information(torch.tensor(a), torch.tensor(b))


def test_no_labels_tell_nothing() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"labels have shapes \(0,\) and \(0,\); pass two of one"):
        entropy(none)


# --- shuffling ---------------------------------------------------------------------------------


@given(pairs=labels, seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_dealing_keeps_what_each_group_holds(pairs: list[tuple[int, int]], seed: int) -> None:
    values, groups = torch.tensor(pairs).T
    dealt = shuffle_within(values, groups, seed)
    assert sorted(zip(dealt.tolist(), groups.tolist(), strict=True)) == sorted(pairs)
    assert torch.equal(dealt, shuffle_within(values, groups, seed))


def test_dealing_destroys_what_stands_beyond_the_group() -> None:
    groups = torch.arange(4000) % 2
    place = torch.arange(4000) // 1000
    values = 4 * groups + place
    dealt = shuffle_within(values, groups)
    assert mutual_information(values, place) == pytest.approx(2)
    assert mutual_information(dealt, place) < 0.01
    assert mutual_information(dealt, groups) == mutual_information(values, groups)
    assert not torch.equal(dealt, shuffle_within(values, groups, seed=1))


def test_each_label_is_as_likely_in_each_place() -> None:
    values, groups = torch.tensor([0, 9, 1, 9, 2]), torch.tensor([5, 1, 5, 1, 5])
    dealt = torch.stack([shuffle_within(values, groups, seed) for seed in range(900)])
    for place in (0, 2, 4):
        share = dealt[:, place].bincount(minlength=3)[:3] / 900
        # Four standard deviations of a binomial share.
        torch.testing.assert_close(
            share, torch.full((3,), 1 / 3), rtol=0, atol=4 * math.sqrt(2 / 9 / 900)
        )


def test_labels_without_their_group_are_named() -> None:
    with pytest.raises(ValueError, match=r"labels have shape \(3,\) and groups \(2,\); pass"):
        shuffle_within(torch.arange(3), torch.arange(2))
