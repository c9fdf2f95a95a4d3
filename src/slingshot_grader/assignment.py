"""An assignment as the grader sees it, cell by cell, by grade id.

An instructor grades with the source edition. A learner has the student edition, and needs no
nbgrader to be checked with it.
"""

import ast
import builtins
import hashlib
import logging
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

    ``handed_out`` holds the cells of the student edition, ``texts`` all that it says between them;
    ``by_hand`` are the points of cells that only a person can grade.
    """

    name: str
    tests: tuple[Test, ...]
    locked: dict[str, str]
    handed_out: dict[str, NotebookNode]
    digest: str
    texts: frozenset[str] = frozenset()
    by_hand: tuple[tuple[str, float], ...] = ()

    @property
    def answers(self) -> frozenset[str]:
        """The grade ids of the cells that a learner writes."""
        return self.ids - self.fixed

    @property
    def fixed(self) -> frozenset[str]:
        """The grade ids of the cells that are run as the source edition has them."""
        return frozenset(self.locked).union(test.grade_id for test in self.tests)

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
        notebook = parse(data)
        out = notebook if student_edition else make_student_edition(parse(data))
        source, handed_out = dict(cells_by_id(notebook)), dict(cells_by_id(out))
    except ImportError:  # nbgrader is not there, which is no fault of the notebook
        raise
    except Exception as error:
        raise AssignmentError(f"{path.name} is no assignment of nbgrader: {error}") from error
    tests, locked, by_hand = [], {}, []
    for grade_id, cell in source.items():
        if is_test(cell):
            points = float(cell.metadata.nbgrader.points)
            tests.append(Test(grade_id, cell.source, handed_out[grade_id].source, points))
        elif is_locked(cell):
            locked[grade_id] = cell.source
        elif is_by_hand(cell):
            by_hand.append((grade_id, float(cell.metadata.nbgrader.points)))
    if not tests:
        raise AssignmentError(f"{path.name} has no graded cell")
    digest = hashlib.sha256(data).hexdigest()
    texts = frozenset(cell.source for cell in out.cells if cell.cell_type != "code")
    return Assignment(path.stem, tuple(tests), locked, handed_out, digest, texts, tuple(by_hand))


def parse(data: bytes) -> NotebookNode:
    """Return the notebook of a file."""
    notebook: NotebookNode = nbformat.reads(data.decode("utf-8"), as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def make_student_edition(notebook: NotebookNode) -> NotebookNode:
    """Return what nbgrader hands out of a source edition, made by its own steps in its order."""
    from nbgrader.converters import GenerateAssignment  # late: a learner has no nbgrader
    from nbgrader.preprocessors import SaveCells

    resources: dict[str, object] = {}
    log = logging.getLogger("nbgrader.student_edition")
    log.addHandler(logging.NullHandler())
    log.propagate = False  # what goes wrong is raised, too
    for step in GenerateAssignment.preprocessors.default():
        if step is SaveCells:  # writes to the database, which only nbgrader's own grader reads
            continue
        notebook, resources = step(log=log).preprocess(notebook, resources)
    return notebook


def is_test(cell: NotebookNode) -> bool:
    """Whether a cell is graded by being run, as opposed to being an answer."""
    data = cell.metadata.nbgrader
    return bool(cell.cell_type == "code" and data.grade and not data.solution)


def is_by_hand(cell: NotebookNode) -> bool:
    """Whether a person grades a cell: an answer or a task that has points."""
    data = cell.metadata.nbgrader
    return bool((data.grade and data.solution) or data.get("task"))


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
