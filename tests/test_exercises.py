"""The checks of the exercises: the stub fails, the solution passes, and mistakes are named."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import nbformat
import numpy as np
import pytest

from exercise_counts_plugin import (
    ROOT,
    SOURCE,
    WRONG,
    WrongAnswer,
    assignments,
    cells,
    checks,
    domain,
    exercises,
    namespace_of,
    parts,
    table,
    wrong_answers,
)
from right_answers import RIGHT_ANSWERS
from slingshot_exercises import CheckFailed
from slingshot_exercises.checking import (
    NOT_WRITTEN,
    Exercise,
    Mistake,
    NoAnswerError,
    close,
    number,
    roundings,
    same,
)

RELEASE = ROOT / "notebooks" / "assignments" / "release"
EXERCISES = exercises()
ANSWERS = wrong_answers()
LEAST_WRONG_ANSWERS = 3
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS\n(.*?)### END HIDDEN TESTS", re.S)

every_exercise = pytest.mark.parametrize(("assignment", "exercise"), EXERCISES)


def visible(assignment: str, exercise: str) -> str:
    """What the learner can run."""
    return cells("release", assignment)[f"{assignment}-{exercise}-test"]


def hidden(assignment: str, exercise: str) -> str:
    """The hidden tests alone."""
    found = HIDDEN.search(cells("source", assignment)[f"{assignment}-{exercise}-test"])
    assert found is not None, "no hidden tests"
    return found[1]


def solution(edition: str, assignment: str, exercise: str) -> str:
    """The learner's cell, as solution or as stub."""
    return cells(edition, assignment)[f"{assignment}-{exercise}"]


TESTS = pytest.mark.parametrize("test", [visible, hidden])
Test = Callable[[str, str], str]


# --- the proof for every exercise ----------------------------------------------------------------


def test_there_is_something_to_prove() -> None:
    assert assignments()
    for assignment in assignments():
        assert 4 <= len(checks(assignment)) <= 6
    counts = dict.fromkeys(EXERCISES, 0)
    for answer in ANSWERS:
        assert (answer.assignment, answer.exercise) in counts, answer.path
        counts[answer.assignment, answer.exercise] += 1
    assert {pair: n for pair, n in counts.items() if n < LEAST_WRONG_ANSWERS} == {}
    assert len(table()) == len(EXERCISES)
    assert {path.name for path in WRONG.iterdir()} == set(assignments())


def test_every_check_has_its_cells() -> None:
    for assignment in assignments():
        graded = {name for name in cells("source", assignment) if name.endswith("-test")}
        assert graded == {f"{assignment}-{name}-test" for name in checks(assignment)}
        assert {path.stem for path in SOURCE.glob("*")} == {path.stem for path in RELEASE.glob("*")}


@every_exercise
@TESTS
def test_the_stub_fails(assignment: str, exercise: str, test: Test) -> None:
    with pytest.raises(CheckFailed, match=re.escape(f"{exercise}: {NOT_WRITTEN}")):
        namespace_of(
            assignment, solution("release", assignment, exercise), test(assignment, exercise)
        )


@every_exercise
@TESTS
def test_the_solution_passes(assignment: str, exercise: str, test: Test) -> None:
    earlier = [
        solution("source", assignment, name)
        for name in list(checks(assignment))[: list(checks(assignment)).index(exercise) + 1]
    ]
    namespace_of(assignment, *earlier, test(assignment, exercise))


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
@TESTS
def test_a_wrong_answer_is_refused(answer: WrongAnswer, test: Test) -> None:
    """Each file is all that one learner wrote, so what several have in common stands in each."""
    code = answer.path.read_text("utf-8")
    message = namespace_of(answer.assignment, code)["MESSAGE"]
    with pytest.raises(CheckFailed) as caught:
        namespace_of(answer.assignment, code, test(answer.assignment, answer.exercise))
    assert message in str(caught.value)
    assert caught.value.exercise == answer.exercise
    assert caught.value.case, "the failure shows no input"


@every_exercise
def test_a_table_of_the_visible_answers_fails_the_hidden_tests(
    assignment: str, exercise: str
) -> None:
    names = namespace_of(assignment, solution("source", assignment, exercise))
    solve, known = names[exercise], {}

    def record(*arguments: object) -> object:
        known[repr(arguments)] = arguments
        return solve(*arguments)

    def remember(*arguments: object) -> object:
        return solve(*(arguments if repr(arguments) in known else next(iter(known.values()))))

    check = checks(assignment)[exercise]
    check(record)
    check(remember)
    names[exercise] = remember
    with pytest.raises(CheckFailed):
        exec(hidden(assignment, exercise), names)


def known_mistakes(assignment: str) -> dict[str, list[str]]:
    """The messages that the checks of an assignment can name, by exercise."""
    messages: dict[str, list[str]] = {}
    for each in parts(assignment):
        messages.setdefault(each.name, []).extend(mistake.message for mistake in each.mistakes)
    return messages


@pytest.mark.slow
@every_exercise
def test_every_known_mistake_is_told_from_the_others(
    assignment: str, exercise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a mistake computes, handed in as an answer, gets the message of that mistake."""
    asked: list[Asked] = []
    check = Exercise.check

    def record(self: Exercise, function: Any, cases: Any, edges: Any = None) -> str:  # noqa: ANN401
        asked.append((self, cases, edges))
        return check(self, function, cases, edges)

    monkeypatch.setattr(Exercise, "check", record)
    earlier = solution("source", assignment, exercise)
    namespace_of(assignment, earlier, visible(assignment, exercise), hidden(assignment, exercise))
    monkeypatch.undo()
    declared = [part for part in parts(assignment) if part.name == exercise]
    assert {id(part) for part, _, _ in asked} == {id(part) for part in declared}
    unheard = [
        mistake.message
        for part in declared
        for mistake in part.mistakes
        if mistake.message not in messages_for(part, mistake, asked)
    ]
    assert unheard == []


Asked = tuple[Exercise, Sequence[dict[str, Any]], Any]


def messages_for(part: Exercise, mistake: Mistake, asked: list[Asked]) -> set[str]:
    """What the part of a check to which a mistake belongs says of it."""
    heard = set()
    for exercise, cases, edges in asked:
        if exercise is part:
            with np.errstate(all="ignore"):
                try:
                    exercise.check(mistake.function, cases, edges)
                except CheckFailed as error:
                    heard.add(error.mistake)
    return heard


# --- the domain ----------------------------------------------------------------------------------


@every_exercise
def test_the_statement_says_what_the_domain_is(assignment: str, exercise: str) -> None:
    path = SOURCE / f"{assignment}.ipynb"
    (statement,) = (
        above.source
        for above, cell in pairwise(nbformat.read(path, as_version=4).cells)  # type: ignore[no-untyped-call]
        if cell.metadata.get("nbgrader", {}).get("grade_id") == f"{assignment}-{exercise}"
    )
    assert f"**Inputs.** {domain(assignment, exercise).allows}\n" in statement


@every_exercise
def test_every_edge_is_among_the_cases(assignment: str, exercise: str) -> None:
    """Whatever the seed. And a learner gets plain numbers, never NumPy's, of either check."""
    drawn = domain(assignment, exercise)
    assert len(drawn.edges) >= 5
    for seed in (0, 1, 2, 83):
        found = {"": drawn.cases(seed), **drawn.at_edges(seed)}
        assert all(found.values()), found
        values = [value for cases in found.values() for case in cases for value in case.values()]
        assert not any(isinstance(value, np.generic) for value in values)
        inner = [each for value in values if isinstance(value, dict) for each in value.values()]
        assert not any(isinstance(each, np.generic) for each in inner)


@every_exercise
def test_both_checks_draw_other_cases(assignment: str, exercise: str) -> None:
    drawn = domain(assignment, exercise)
    assert repr(drawn.cases(0)) == repr(drawn.cases(0))
    assert repr(drawn.cases(0)) != repr(drawn.cases(83))


@every_exercise
def test_a_check_that_passes_says_so(assignment: str, exercise: str) -> None:
    """And answers what its exercise lets them predict."""
    path = SOURCE / f"{assignment}.ipynb"
    cells_of = nbformat.read(path, as_version=4).cells  # type: ignore[no-untyped-call]
    (statement,) = (
        above.source
        for above, cell in pairwise(cells_of)
        if cell.metadata.get("nbgrader", {}).get("grade_id") == f"{assignment}-{exercise}"
    )
    solved = namespace_of(assignment, solution("source", assignment, exercise))[exercise]
    said = checks(assignment)[exercise](solved)
    assert said.startswith(f"{exercise}: passed")
    assert ("To the prediction: " in said) is (":class: predict" in statement)


@pytest.mark.parametrize("assignment", assignments())
def test_a_solved_notebook_runs_to_its_end(assignment: str) -> None:
    """The closing cells, too."""
    names: dict[str, Any] = {"print": lambda *words: None}
    notebook = nbformat.read(SOURCE / f"{assignment}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, "<cell>", "exec"), names)


def test_the_closing_question_on_experts_has_the_answer_that_it_gives() -> None:
    names: dict[str, Any] = {"print": lambda *words: None}
    notebook = nbformat.read(SOURCE / "moe.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        if cell.cell_type == "code" and not cell.metadata.get("nbgrader", {}).get("grade"):
            exec(compile(cell.source, "<cell>", "exec"), names)
    rounds = {speed: rounds_until_even(names, speed) for speed in (0.004, 0.01)}
    assert rounds == {0.004: 13, 0.01: None}


def rounds_until_even(names: dict[str, Any], speed: float) -> int | None:
    """How often the bias moves until no load is more than a tenth above the mean; 40 at most."""
    bias = names["bias"]
    for moves in range(40):
        weights = names["route"](names["x"], names["weight"], bias, 4, 8, 4, 1.0)
        load = (weights > 0).sum(dim=0).double()
        if load.max() <= 1.1 * load.mean():
            return moves
        bias = names["update_bias"](bias, load, speed)
    return None


@pytest.mark.parametrize("name", RIGHT_ANSWERS)
def test_right_answers_in_other_styles_pass(name: str) -> None:
    assignment, exercise, function = RIGHT_ANSWERS[name]
    for seed in (0, 1, 83):
        checks(assignment)[exercise](function, seed=seed)


# --- whatever a learner's function does, the check says something --------------------------------


class Hostile:
    """An object that answers no question."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class AlwaysEqual(float):
    def __eq__(self, other: object) -> bool:
        return True

    def __sub__(self, other: object) -> float:
        return 0.0

    def __hash__(self) -> int:
        return 0


def raises(error: BaseException) -> Callable[..., object]:
    def function(*arguments: object) -> object:
        raise error

    return function


def spoils(*arguments: Any) -> object:  # noqa: ANN401
    for argument in arguments:
        if hasattr(argument, "clear"):
            argument.clear()
    return 1.0


STRANGE: dict[str, Any] = {
    "nothing": None,
    "not a function": 3,
    "returns None": lambda *a: None,
    "returns a text": lambda *a: "3.3e24",
    "returns True": lambda *a: True,
    "returns nan": lambda *a: float("nan"),
    "returns infinity": lambda *a: float("inf"),
    "returns a complex number": lambda *a: 1j,
    "returns a huge number": lambda *a: 10**400,
    "returns an empty list": lambda *a: [],
    "returns a nested list": lambda *a: [[1.0], [2.0, 3.0]],
    "returns pairs of texts": lambda *a: ("1", "2"),
    "returns its arguments": lambda *a: a,
    "returns a class": lambda *a: Hostile,
    "returns a hostile object": lambda *a: Hostile(),
    "returns what equals everything": lambda *a: AlwaysEqual(1.0),
    "returns a generator": lambda *a: (x for x in a),
    "returns an array of objects": lambda *a: np.array([None, "a"]),
    "returns an array of another shape": lambda *a: np.zeros((3, 1, 2)),
    "takes no argument": lambda: 1.0,
    "raises": raises(ValueError("no")),
    "raises what has no text": raises(HostileError()),
    "fails to convert": lambda *a: [][0],
    "divides by zero": lambda *a: 1 / 0,
    "recurses": lambda *a: (lambda f: f(f))(lambda f: f(f)),
    "spoils its arguments": spoils,
    "was stopped": raises(NoAnswerError("it does not come back within 10 s")),
}


@every_exercise
@pytest.mark.parametrize("strange", STRANGE)
def test_a_strange_function_is_refused_in_words(
    assignment: str, exercise: str, strange: str
) -> None:
    with pytest.raises(CheckFailed) as caught:
        checks(assignment)[exercise](STRANGE[strange])
    assert str(caught.value).startswith(f"{exercise}: ")
    assert len(caught.value.mistake) > 10
    assert caught.value._render_traceback_() == [f"CheckFailed: {caught.value}"]


def test_a_raised_error_is_shown_with_its_line() -> None:
    names: dict[str, Any] = {}
    source = "def training_flops(n, d, r):\n    return n.no_such_thing * d\n"
    import linecache

    linecache.cache["<their cell>"] = (len(source), None, source.splitlines(True), "<their cell>")
    exec(compile(source, "<their cell>", "exec"), names)
    with pytest.raises(CheckFailed, match=r"in the line `return n\.no_such_thing"):
        checks("claim")["training_flops"](names["training_flops"])


# --- tolerances --------------------------------------------------------------------------------

TWICE = Exercise("twice", lambda x: 2 * x, number, roundings(3))


@pytest.mark.parametrize("x", [1.0, 3.3e24, 7e-12])
def test_a_bound_lets_roundings_through_and_nothing_else(x: float) -> None:
    # The bound is 6 u, with u = 2^-53. A product with 1 + 4 u is off by at most 5 u, and one with
    # 1 + 10 u by at least 9 u.
    TWICE.check(lambda v: 2 * v * (1 + 4 * 2.0**-53), [{"x": x}])
    with pytest.raises(CheckFailed, match="3 roundings in each of two formulas"):
        TWICE.check(lambda v: 2 * v * (1 + 10 * 2.0**-53), [{"x": x}])


def test_a_nearly_right_answer_is_called_so_and_refused() -> None:
    with pytest.raises(CheckFailed, match="close, but not as close as float64"):
        TWICE.check(lambda v: float(np.float32(2 * v)), [{"x": 0.1}, {"x": 0.7}])


def test_a_common_factor_is_named() -> None:
    with pytest.raises(CheckFailed, match=r"every result is 3\.5 times the right one"):
        TWICE.check(lambda v: 7 * v, [{"x": 1.0}, {"x": 2.0}])


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1.0, 1.0, True),
        (float("nan"), float("nan"), True),
        (float("nan"), 1.0, False),
        (float("inf"), float("inf"), True),
        (float("inf"), 1.0, False),
        (np.zeros(2), np.zeros(3), False),
        (np.zeros(2), 0.0, False),
        ("a", "a", True),
        ("a", 1.0, False),
    ],
)
def test_what_counts_as_equal(a: object, b: object, equal: bool) -> None:
    assert close(a, b, 0.0) is equal
    assert close(b, a, 0.0) is equal


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ({"x": [1, 2]}, {"x": [1, 2]}, True),
        ({"x": [1, 2]}, {"x": [2, 1]}, False),
        ({"x": 1, "y": 2}, {"y": 2, "x": 1}, False),
        ([1], (1,), False),
        (1, 1.0, False),
        (float("nan"), float("nan"), True),
        (np.array([1.0]), np.array([1.0]), True),
        (np.array([1.0]), np.array([1], dtype=np.float32), False),
        (np.array([np.nan]), np.array([np.nan]), True),
    ],
)
def test_a_changed_argument_is_noticed(a: object, b: object, equal: bool) -> None:
    assert same(a, b) is equal
