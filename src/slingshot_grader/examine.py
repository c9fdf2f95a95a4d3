"""Examine one submission: run its cells in a process of their own, and its tests in this one.

The usual grader runs tests in the learner's kernel, where the learner's code can read them, replace
the functions that they call, or change what ``==`` means. Here the two are apart. The learner's
cells run in a worker (``worker.py``), shut in by ``sandbox.py``. The tests run in the grader, which
the learner's code never enters: where a test names a function of the learner it finds a
``RemoteFunction`` (``session.py``), which sends the arguments and reads the answer.

- The text of a test never leaves the grader: before, during or after the learner's cells.
- What the worker sends is data in a small language (``wire.py``), never a pickle. The worst that a
  forged message can be is a wrong answer. A message that was not asked for ends the worker.
- Tests, and all other cells that are not the learner's, come from the source edition by grade id.
  To edit, delete or copy them changes nothing.
- A cell or a call that ends the worker (``os._exit``, too much memory, an endless loop) costs what
  it was worth. The worker starts again without that cell, and the rest is graded.

All cells run first, in the order of the learner's file, and then the tests: the last definition of
a name counts, as after "Run All". What this cannot see is an answer that is right but not the
learner's own, such as a call of the library's function. Such an import is named in the remarks.
"""

import ast
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from slingshot_exercises import CheckFailed
from slingshot_exercises.checking import NOT_WRITTEN, NoAnswerError
from slingshot_grader.assignment import Assignment, Test, names_needed
from slingshot_grader.files import Cell, Submission, UnreadableError, copy_files, read_notebook
from slingshot_grader.link import Link
from slingshot_grader.sandbox import Sandbox, command, environment
from slingshot_grader.session import Limits, Run, Session, SessionOverError

ALLOWED_IMPORTS = ("slingshot.facts", "slingshot_exercises", "slingshot.pages.notebook")


@dataclass
class Grade:
    """What came of one test; ``outcome`` is passed, wrong, not written, or stopped."""

    exercise: str
    grade_id: str
    points: float
    most: float
    outcome: str
    message: str = ""

    @property
    def mistake(self) -> str:
        """The first line of the message, without the name of the exercise."""
        return self.message.split("\n")[0].removeprefix(f"{self.exercise}: ")


@dataclass
class Report:
    """What came of one submission; ``status`` is graded, stopped or unreadable."""

    status: str
    remarks: list[str] = field(default_factory=list)
    grades: list[Grade] = field(default_factory=list)
    cells: list[Run] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def points(self) -> float:
        """The sum of all points."""
        return sum(grade.points for grade in self.grades)


def examine(
    submission: Submission,
    assignment: Assignment,
    sandbox: Sandbox,
    limits: Limits,
    secrets: Sequence[Path] = (),
    stop: threading.Event | None = None,
) -> Report:
    """Grade one submission. Whatever is in it, this returns, at once when ``stop`` is set."""
    started = time.monotonic()
    try:
        cells = read_notebook(submission.path)
    except UnreadableError as error:
        grades = [refuse(test, "unreadable", str(error)) for test in assignment.tests]
        return Report("unreadable", [str(error)], grades)
    with tempfile.TemporaryDirectory(prefix="grading-") as folder:
        files, here = Path(folder, "files"), Path(folder, "here")
        files.mkdir()
        here.mkdir()
        remarks = copy_files(submission, files)

        def start() -> Link:
            limited = ["--memory", str(limits.memory), "--seconds", str(int(limits.total) + 10)]
            words = [*command(sandbox, files, here, secrets), *limited]
            return Link(words, environment(sandbox, here), limits.memory, stop)

        session = Session(start, plan(cells, assignment), limits)
        try:
            report = run(session, assignment)
        finally:
            session.close()
    report.remarks += (
        remarks + list(changes(cells, assignment)) + list(library_imports(session.cells))
    )
    report.seconds = round(time.monotonic() - started, 1)
    return report


def plan(cells: Sequence[Cell], assignment: Assignment) -> list[Run]:
    """The cells to run: the learner's, and the source's in place of those that are locked."""
    tests = {test.grade_id for test in assignment.tests}
    present = {cell.grade_id for cell in cells}
    runs = [
        Run(source, grade_id)
        for grade_id, source in assignment.locked.items()
        if grade_id not in present
    ]
    seen: set[str] = set()
    for number, cell in enumerate(cells, start=1):
        if cell.grade_id in assignment.locked:
            if cell.grade_id not in seen:
                runs.append(Run(assignment.locked[cell.grade_id], cell.grade_id, number))
            seen.add(cell.grade_id)
        elif cell.grade_id not in tests:
            runs.append(Run(cell.source, cell.grade_id, number))
    return runs


def run(session: Session, assignment: Assignment) -> Report:
    """Run the cells, then the tests."""
    report = Report("graded", cells=list(session.cells))
    over = ""
    try:
        session.run_all()
    except SessionOverError as error:
        over = str(error)
    for test in assignment.tests:
        if over:
            report.grades.append(refuse(test, "stopped", over))
            continue
        try:
            report.grades.append(run_test(test, assignment, session))
        except SessionOverError as error:
            over = str(error)
            report.grades.append(refuse(test, "stopped", over))
    for cell in session.cells:
        if cell.stopped:
            report.remarks.append(f"code cell {cell.number} {cell.stopped}")
    raised = sum(any("error" in out for out in cell.outputs) for cell in session.cells)
    if raised:
        report.remarks.append(f"{raised} {'cells raise' if raised > 1 else 'cell raises'}")
    if over:
        report.remarks.append(over)
    if over or any(cell.stopped for cell in session.cells):
        report.status = "stopped"
    return report


def run_test(test: Test, assignment: Assignment, session: Session) -> Grade:
    """Run a test of the source edition here, with the learner's functions called over there."""
    namespace: dict[str, Any] = {"__name__": "test", "print": lambda *words, **options: None}
    for source in assignment.locked.values():
        exec(compile(source, "<locked cell>", "exec"), namespace)
    try:
        for name in names_needed(test.source, set(namespace)):
            namespace[name] = session.look_up(name)
        exec(compile(test.source, f"<{test.grade_id}>", "exec"), namespace)
    except SessionOverError:
        raise
    except KeyError as error:
        return refuse(test, "not written", f"{test.exercise}: {error.args[0]} is not defined")
    except CheckFailed as error:
        outcome = "not written" if error.mistake == NOT_WRITTEN else "wrong"
        return refuse(test, outcome, str(error))
    except (NoAnswerError, AssertionError) as error:
        return refuse(test, "wrong", f"{test.exercise}: {error or 'a hidden test fails'}")
    except NotImplementedError:
        return refuse(test, "not written", f"{test.exercise}: {NOT_WRITTEN}")
    except Exception as error:
        kind = type(error).__name__
        return refuse(test, "wrong", f"{test.exercise}: a hidden test meets {kind}: {error}")
    return Grade(test.exercise, test.grade_id, test.points, test.points, "passed")


def refuse(test: Test, outcome: str, message: str) -> Grade:
    """A grade without points."""
    return Grade(test.exercise, test.grade_id, 0.0, test.points, outcome, message)


# --- remarks ---------------------------------------------------------------------------------


def changes(cells: Sequence[Cell], assignment: Assignment) -> Iterator[str]:
    """What the learner has done to cells that are not the learner's; none of it had an effect."""
    fixed = {test.grade_id for test in assignment.tests} | set(assignment.locked)
    count = dict.fromkeys(sorted(fixed), 0)
    edited = []
    for cell in cells:
        if cell.grade_id in count:
            count[cell.grade_id] += 1
            if not unchanged(cell, assignment.handed_out[cell.grade_id]):
                edited.append(cell.grade_id)
    for word, ids in {
        "edited": sorted(set(edited)),
        "missing": [grade_id for grade_id, number in count.items() if number == 0],
        "copied": [grade_id for grade_id, number in count.items() if number > 1],
    }.items():
        if ids:
            yield f"{word}, without effect: {', '.join(ids)}"


def unchanged(cell: Cell, handed_out: NotebookNode) -> bool:
    """Whether a cell has the text and the points that it has in the student edition."""
    points = cell.raw["metadata"]["nbgrader"].get("points")
    due = handed_out.metadata.nbgrader.get("points")
    return bool(cell.source == handed_out.source and points == due)


def library_imports(cells: Sequence[Run]) -> Iterator[str]:
    """The modules of the library from which a learner may have taken an answer."""
    found: set[str] = set()
    for cell in cells:
        try:
            nodes = list(ast.walk(ast.parse(cell.source)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module == "slingshot":
                found |= {f"slingshot.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    used = [
        name
        for name in sorted(found)
        if name.startswith("slingshot.") and not name.startswith(ALLOWED_IMPORTS)
    ]
    if used:
        yield f"imports {', '.join(used)}: look whether the answer is its own"
