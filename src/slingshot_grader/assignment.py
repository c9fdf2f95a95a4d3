"""An assignment as the grader sees it, cell by cell, by grade id.

An instructor grades with the source edition. A learner has the student edition, and needs no
nbgrader to be checked with it.
"""

import ast
import builtins
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode


class AssignmentError(Exception):
    """An edition that cannot be graded with, as one line."""


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
    """The graded cells and the locked cells of an assignment, each by its grade id.

    ``handed_out`` holds the cells of the student edition.
    """

    name: str
    tests: tuple[Test, ...]
    locked: dict[str, str]
    handed_out: dict[str, NotebookNode]
    digest: str

    @property
    def ids(self) -> frozenset[str]:
        """All grade ids."""
        return frozenset(self.handed_out)

    @property
    def points(self) -> float:
        """The most that can be had."""
        return sum(test.points for test in self.tests)


def read_assignments(folder: Path, *, student_edition: bool = False) -> dict[str, Assignment]:
    """Return the assignments of a folder by name: of the source edition, or of the student's."""
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise AssignmentError(f"no notebooks in {folder}")
    return {path.stem: read_assignment(path, student_edition) for path in paths}


def read_assignment(path: Path, student_edition: bool = False) -> Assignment:
    """Read one notebook; raise ``AssignmentError`` when it grades nothing."""
    data = path.read_bytes()
    try:
        source = dict(cells_by_id(parse(data)))
        handed_out = source if student_edition else dict(cells_by_id(make_student_edition(data)))
    except ImportError:  # nbgrader is not there, which is no fault of the notebook
        raise
    except Exception as error:
        raise AssignmentError(f"{path.name} is no assignment of nbgrader: {error}") from error
    tests, locked = [], {}
    for grade_id, cell in source.items():
        if is_test(cell):
            points = float(cell.metadata.nbgrader.points)
            tests.append(Test(grade_id, cell.source, handed_out[grade_id].source, points))
        elif is_locked(cell):
            locked[grade_id] = cell.source
    if not tests:
        raise AssignmentError(f"{path.name} has no graded cell")
    digest = hashlib.sha256(data).hexdigest()
    return Assignment(path.stem, tuple(tests), locked, handed_out, digest)


def parse(data: bytes) -> NotebookNode:
    """Return the notebook of a file."""
    notebook: NotebookNode = nbformat.reads(data.decode("utf-8"), as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def make_student_edition(data: bytes) -> NotebookNode:
    """Return what nbgrader hands out of a source edition."""
    from tools import assignments  # late: a learner has no nbgrader, and a student edition already

    return assignments.make_student_edition(parse(data))


def is_test(cell: NotebookNode) -> bool:
    """Whether a cell is graded by being run, as opposed to being an answer."""
    data = cell.metadata.nbgrader
    return bool(cell.cell_type == "code" and data.grade and not data.solution)


def is_locked(cell: NotebookNode) -> bool:
    """Whether a cell is neither a test nor an answer, such as one of imports."""
    data = cell.metadata.nbgrader
    return bool(cell.cell_type == "code" and data.locked and not data.solution and not data.grade)


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
