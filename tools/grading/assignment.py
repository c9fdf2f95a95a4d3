"""An assignment as the grader sees it: the source edition, cell by cell, by grade id."""

import ast
import builtins
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader import utils
from tools.assignments import make_student_edition


class AssignmentError(Exception):
    """A source edition that cannot be graded with, as one line."""


@dataclass(frozen=True)
class Test:
    """A graded cell: what it runs, what the student edition shows of it, and its points."""

    __test__ = False  # pytest need not look for tests in it

    grade_id: str
    source: str
    shown: str
    points: float

    @property
    def exercise(self) -> str:
        """The grade id without the assignment's name and ``-test``."""
        return self.grade_id.partition("-")[2].removesuffix("-test")


@dataclass(frozen=True)
class Assignment:
    """The graded cells and the locked cells of an assignment, each by its grade id."""

    name: str
    tests: tuple[Test, ...]
    locked: dict[str, str]
    ids: frozenset[str]
    checksums: dict[str, str]
    digest: str

    @property
    def points(self) -> float:
        """The most that can be had."""
        return sum(test.points for test in self.tests)


def read_assignments(folder: Path) -> dict[str, Assignment]:
    """Return the assignments of the source edition by name."""
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise AssignmentError(f"no notebooks in {folder}")
    return {path.stem: read_assignment(path) for path in paths}


def read_assignment(path: Path) -> Assignment:
    """Read one source notebook; raise ``AssignmentError`` when it grades nothing."""
    data = path.read_bytes()
    try:
        source: NotebookNode = nbformat.reads(data.decode("utf-8"), as_version=4)  # type: ignore[no-untyped-call]
        released = make_student_edition(nbformat.from_dict(source))  # type: ignore[no-untyped-call]
        source = nbformat.reads(data.decode("utf-8"), as_version=4)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise AssignmentError(f"{path.name} is no assignment of nbgrader: {error}") from error
    shown = dict(cells_by_id(released))
    tests, locked = [], {}
    for grade_id, cell in cells_by_id(source):
        if is_test(cell):
            points = float(cell.metadata.nbgrader.points)
            tests.append(Test(grade_id, cell.source, shown[grade_id].source, points))
        elif cell.cell_type == "code" and utils.is_locked(cell):
            locked[grade_id] = cell.source
    if not tests:
        raise AssignmentError(f"{path.name} has no graded cell")
    return Assignment(
        path.stem,
        tuple(tests),
        locked,
        frozenset(shown),
        {grade_id: cell.metadata.nbgrader.checksum for grade_id, cell in shown.items()},
        hashlib.sha256(data).hexdigest(),
    )


def is_test(cell: NotebookNode) -> bool:
    """Whether a cell is graded by being run, as opposed to being an answer."""
    return bool(cell.cell_type == "code" and utils.is_grade(cell) and not utils.is_solution(cell))


def cells_by_id(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """Each cell that nbgrader knows, with its grade id."""
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            yield cell.metadata.nbgrader.grade_id, cell


def grade_id_of(cell: Any) -> str:  # noqa: ANN401 a stranger's JSON
    """The grade id of a submitted cell, empty if it has none that is a text."""
    try:
        grade_id = cell["metadata"]["nbgrader"]["grade_id"]
    except (KeyError, TypeError):
        return ""
    return grade_id if isinstance(grade_id, str) else ""


def names_needed(source: str, known: set[str]) -> list[str]:
    """The names that a cell reads and that neither it, nor Python, nor ``known`` defines."""
    nodes = list(ast.walk(ast.parse(source)))
    loaded = [node.id for node in nodes if isinstance(node, ast.Name)]
    stored = {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    stored |= {arg.arg for arg in nodes if isinstance(arg, ast.arg)}
    stored |= {
        (alias.asname or alias.name).partition(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return [
        name
        for name in dict.fromkeys(loaded)
        if name not in stored and name not in known and not hasattr(builtins, name)
    ]
