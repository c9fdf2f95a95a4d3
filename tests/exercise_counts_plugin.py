"""Counts the exercises and the wrong answers that are kept for them.

``conftest.py`` takes the summary from here, so every run that tests exercises ends with the counts.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from slingshot_exercises.checking import Exercise
from slingshot_exercises.domain import Domain

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "notebooks" / "assignments" / "source"
WRONG = Path(__file__).resolve().parent / "wrong_answers"


@dataclass(frozen=True)
class WrongAnswer:
    """A file with a plausible wrong answer and the message that it must get."""

    assignment: str
    exercise: str
    path: Path

    @property
    def name(self) -> str:
        """Assignment, exercise and mistake, as a test's id."""
        return f"{self.assignment}-{self.exercise}-{self.path.stem}"


def assignments() -> list[str]:
    """The assignments, by the names of their source notebooks."""
    return sorted(path.stem for path in SOURCE.glob("*.ipynb"))


def checks(assignment: str) -> dict[str, Callable[..., str]]:
    """The checks of an assignment by exercise."""
    found: dict[str, Callable[..., str]] = importlib.import_module(
        f"slingshot_exercises.{assignment}"
    ).CHECKS
    return found


def parts(assignment: str) -> tuple[Exercise, ...]:
    """The parts of the checks of an assignment, as it declares them."""
    found: tuple[Exercise, ...] = importlib.import_module(
        f"slingshot_exercises.{assignment}"
    ).EXERCISES
    return found


def domain(assignment: str, exercise: str) -> Domain:
    """What an exercise allows as input."""
    found: Domain = importlib.import_module(f"slingshot_exercises.{assignment}.{exercise}").DOMAIN
    return found


def exercises() -> list[tuple[str, str]]:
    """Every exercise with its assignment."""
    return [(name, exercise) for name in assignments() for exercise in checks(name)]


@functools.cache
def cells(folder: str, assignment: str) -> dict[str, str]:
    """The cells of an edition that nbgrader knows, by grade id."""
    path = ROOT / "notebooks" / "assignments" / folder / f"{assignment}.ipynb"
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return {
        cell.metadata.nbgrader.grade_id: cell.source
        for cell in notebook.cells
        if "nbgrader" in cell.metadata
    }


def namespace_of(assignment: str, *sources: str) -> dict[str, Any]:
    """What is defined after the imports of an assignment and these cells."""
    names: dict[str, Any] = {"print": lambda *words: None}
    for source in (cells("source", assignment)[f"{assignment}-imports"], *sources):
        exec(compile(source, "<cell>", "exec"), names)
    return names


def wrong_answers() -> list[WrongAnswer]:
    """Every file under ``wrong_answers/``."""
    paths = sorted(WRONG.glob("*/*/*.py"))
    return [WrongAnswer(path.parts[-3], path.parts[-2], path) for path in paths]


def table() -> list[str]:
    """A line for each exercise: how many wrong answers there are."""
    answers = wrong_answers()
    return [
        f"{assignment:13} {exercise:26} "
        f"{sum((a.assignment, a.exercise) == (assignment, exercise) for a in answers):3} wrong"
        for assignment, exercise in exercises()
    ]


def pytest_terminal_summary(terminalreporter: Any) -> None:  # noqa: ANN401
    """Print how many wrong answers were really refused, with the table."""
    reports = [r for kind in terminalreporter.stats.values() for r in kind]
    refused = [
        report
        for report in reports
        if isinstance(report, pytest.TestReport)
        and "test_a_wrong_answer_is_refused" in report.nodeid
        and report.when == "call"
        and report.passed
    ]
    if not any("test_exercises.py" in str(getattr(report, "nodeid", "")) for report in reports):
        return
    for line in table():
        terminalreporter.write_line(line)
    terminalreporter.write_line(
        f"exercises: {len(exercises())} with {len(wrong_answers())} wrong answers; "
        f"{len(refused)} refused with their message, by the visible check or the hidden tests"
    )
