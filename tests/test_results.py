"""What is asked of stored results: the seeds in order, the settings, and whether one is near."""

from dataclasses import dataclass
from typing import Any

import pytest
from scipy.stats import binom

from slingshot.results import Count, StoredResults, UnknownRunError, is_near, stored_results


@dataclass(frozen=True)
class Config:
    rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    head_dim: int | None = None


def made_up(**changes: object) -> StoredResults:
    configuration = {"rl": {"rate": 0.1, "betas": [0.9, 0.99]}, "text": "a"} | changes
    return StoredResults(
        "made-up",
        {
            f"{name}/{seed}": {
                "configuration": configuration,
                "result": {"seed": seed, "after": {"hard": {"right": seed, "n": 20}}},
            }
            for name in ("rl", "rl, hard")
            for seed in (10, 2, 0)
        },
    )


def test_seeds_are_in_the_order_of_numbers() -> None:
    assert [result["seed"] for result in made_up().of("rl")] == [0, 2, 10]
    assert made_up().counts("rl") == [(0, 20), (2, 20), (10, 20)]


def test_a_run_is_read_by_its_key() -> None:
    stored = made_up()
    assert stored["rl, hard/2"]["result"]["seed"] == 2
    assert len(stored) == len(list(stored)) == 6
    assert "rl/10" in stored
    assert "rl/1" not in stored
    assert stored.get("rl/1") is None


@pytest.mark.parametrize("name", ["rl/2", "r", "", "hard", "rl, hard/0"])
def test_an_unknown_run_is_named_with_those_that_are_known(name: str) -> None:
    stored = made_up()
    for ask in (stored.of, stored.counts, stored.configuration, stored.check):
        with pytest.raises(UnknownRunError, match="no stored run of made-up; its runs are rl, "):
            ask(name)
    with pytest.raises(ValueError, match=r"^'rl' is no stored run of made-up"):
        made_up()["rl"]


def test_an_experiment_without_runs_says_so() -> None:
    stored = StoredResults("made-up", {})
    assert stored.get("rl/0") is None
    for ask in (stored.of, stored.counts, stored.configuration, stored.check, stored.__getitem__):
        with pytest.raises(UnknownRunError, match="no stored run of made-up; it has no runs, make"):
            ask("rl")


@pytest.mark.parametrize(
    ("which", "when", "there"),
    [
        ("easy", "after", r"\['hard'\]"),
        ("hard", "before", r"\['after', 'seed'\]"),
        ("hard", "seed", "0"),
    ],
)
def test_what_was_not_measured_is_named(which: str, when: str, there: str) -> None:
    with pytest.raises(ValueError, match=f"rl has no '{which}' '{when}' with .*; there is {there}"):
        made_up().counts("rl", which, when)


@pytest.mark.parametrize("after", [None, [1], "hard", {"hard": 3}, {"hard": {"right": 1}}])
def test_what_are_no_counts_is_named(after: object) -> None:
    run = {"configuration": {}, "result": {"after": after}}
    with pytest.raises(ValueError, match="rl has no 'hard' 'after' with 'right' and 'n'; there is"):
        StoredResults("made-up", {"rl/0": run}).counts("rl")


def test_settings_as_stored_pass() -> None:
    made_up().check("rl", rl=Config(), text="a")
    made_up().check("rl", rl={"rate": 0.1, "betas": (0.9, 0.99)})
    made_up(mixing=None).check("rl", mixing=None)


def test_a_field_that_is_none_need_not_be_stored_wherever_it_stands() -> None:
    stored = made_up(models=[{"rate": 0.1, "betas": [0.9, 0.99]}], tries=[1, None])
    stored.check("rl", models=[Config()], tries=(1, None))
    with pytest.raises(ValueError, match=r"tries \[1, None\], not \[1\]"):
        stored.check("rl", tries=[1])  # an element is no field


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rl": Config(rate=0.2)}, r"rl/0 was made with rl rate=0.1 \(not 0.2\)"),
        ({"rl": Config(head_dim=4)}, r"head_dim=None \(not 4\)"),
        ({"rl": {"rate": 0.1}}, r"betas=\[0.9, 0.99\] \(not None\)"),
        ({"text": "b"}, "'a', not 'b'"),
        ({"nothing": 1}, "rl/0 was made without a setting nothing; its settings are rl, text"),
        ({"nothing": None}, "rl/0 was made without a setting nothing; its settings are rl, text"),
        ({"text": {"a"}}, r"text is \{'a'\}; give a dataclass, or what JSON can hold"),
        ({"rl": Config}, r"rl is <class .*; give a dataclass, or what JSON can hold"),
    ],
)
def test_another_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made_up().check("rl", **settings)


def test_a_single_seed_with_another_setting_is_found() -> None:
    stored = dict(made_up())
    stored["rl/10"] = made_up(text="b")["rl/10"]
    with pytest.raises(ValueError, match="rl/10 was made with text 'b', not 'a'"):
        StoredResults("made-up", stored).check("rl", text="a")


def test_a_count_is_told_with_its_interval() -> None:
    assert Count(97, 100).percent() == "97 (92-99)"
    assert Count(1, 4).share == 0.25


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.03, 0.5, 0.9, 0.99])
def test_chance_alone_is_near(share: float) -> None:
    """Over all pairs of counts, less than the docstring's one in 10,000.

    A count that comes up once in a million times is not asked: its pairs are taken to be far.
    """
    n = 100
    chance = binom.pmf(range(n + 1), n, share)
    likely = [k for k in range(n + 1) if chance[k] > 1e-6]
    far = [(a, b) for a in likely for b in likely if not is_near(a, n, [Count(b, n)])]
    unasked = 1 - sum(chance[k] for k in likely) ** 2
    assert sum(chance[a] * chance[b] for a, b in far) + unasked < 1e-4
    assert not is_near(0, n, [Count(n, n)])  # or nothing would ever be far


def test_more_than_chance_is_not_near() -> None:
    seeds = [Count(250, 500), Count(300, 500)]
    assert is_near(275, 500, seeds)
    assert is_near(320, 500, seeds)
    assert not is_near(370, 500, seeds)
    assert not is_near(180, 500, seeds)
    assert not is_near(85, 100, seeds)


@pytest.mark.parametrize(("right", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_counts_that_cannot_be_are_named(right: int, n: int) -> None:
    with pytest.raises(ValueError, match=r"^(right|n) is "):
        is_near(right, n, [Count(1, 2)])
    with pytest.raises(ValueError, match="counts is empty"):
        is_near(1, 2, [])


def test_the_stored_experiments_can_be_asked() -> None:
    stored = stored_results("reasoning")
    assert stored.seeds("reinforce") == [0, 1, 2]
    assert all(count.n == 500 for count in stored.counts("traces 3000"))


@pytest.mark.parametrize(
    ("right", "n", "counts"),
    [
        (3, 3, [Count(0, 3), Count(5, 3)]),
        (1, 2, [Count(0, 0)]),
        (1, 2, [Count(-1, 3)]),
        (0.5, 1, [Count(1, 2)]),
        (3, 2, [Count(1, 2)]),
    ],
)
def test_counts_that_cannot_be_are_near_nothing(right: float, n: int, counts: list[Count]) -> None:
    with pytest.raises(ValueError, match=r"^(right|n) is "):
        is_near(right, n, counts)  # type: ignore[arg-type]
