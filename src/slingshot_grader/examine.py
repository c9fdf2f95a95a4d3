"""Examine one submission: run its cells in a process of their own, and its tests in this one.

The usual grader runs tests in the learner's kernel, where the learner's code can read them, replace
the functions that they call, or change what ``==`` means. Here the two are apart. The learner's
cells run in a worker (``worker.py``), shut in by ``sandbox.py``. The tests run in this process,
which the learner's code never enters: where a test names a function of the learner it finds a
``RemoteFunction`` (``session.py``), which sends the arguments and reads the answer.

- The text of a test, a check and its reference never leave this process. What the learner's cells
  import under the checks' name is a stand-in (``stand_in.py``).
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
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from slingshot_exercises import CheckFailed
from slingshot_exercises.checking import NOT_WRITTEN, NoAnswerError
from slingshot_grader.assignment import Assignment, Test, names_needed
from slingshot_grader.files import (
    Submission,
    UnreadableError,
    copy,
    open_regular,
    temporary_folder,
)
from slingshot_grader.link import Link
from slingshot_grader.notebook import Cell, read_cells
from slingshot_grader.outcome import Grade, Report
from slingshot_grader.sandbox import Sandbox, command, environment, in_files, lay_out
from slingshot_grader.session import Limits, Run, Session, SessionOverError
from slingshot_grader.similar import fingerprint

LONGEST_MODULE = 100
ALLOWED_IMPORTS = ("slingshot.facts", "slingshot.pages", "slingshot.require")


def examine(
    submission: Submission,
    assignment: Assignment,
    sandbox: Sandbox,
    limits: Limits,
    secrets: Sequence[Path] = (),
    stop: threading.Event | None = None,
) -> tuple[Report, list[Cell]]:
    """Grade one submission; return the report, and the cells as they were handed in.

    Whatever is in it, this returns, at once when ``stop`` is set.
    """
    started = time.monotonic()
    with temporary_folder("grading-") as folder:
        files, here, alone = (folder / name for name in ("files", "here", "alone"))
        for each in (files, here, alone):
            each.mkdir()
        # A notebook that came without a folder finds no file beside it, not even itself.
        target = files if submission.in_folder else alone
        digest, remarks = copy(submission, target)
        try:
            cells = read_copy(submission, target)
        except UnreadableError as error:
            grades = [refuse(test, "unreadable", str(error)) for test in assignment.tests]
            return Report("unreadable", [str(error)], grades, digest=digest), []
        session = Session(
            starter(sandbox, limits, files, here, secrets, stop), plan(cells, assignment), limits
        )
        try:
            report = run(session, assignment)
        finally:
            session.close()
    report.remarks += remarks
    report.remarks += changes(cells, assignment)
    report.remarks += library_imports(session.cells, session.library)
    report.digest = digest
    report.answers = {
        cell.grade_id: marks
        for cell in cells
        if cell.grade_id in assignment.answers and (marks := fingerprint(cell.source))
    }
    report.seconds = round(time.monotonic() - started, 1)
    return report, cells


def read_copy(submission: Submission, folder: Path) -> list[Cell]:
    """Return the cells of what was copied; raise ``UnreadableError``, with the reason."""
    if submission.problem:
        raise UnreadableError(submission.problem)
    path = folder / submission.path.name
    if not path.is_file():
        open_regular(submission.path).close()  # says why it was not copied
        raise UnreadableError("it was taken away while it was read")
    return read_cells(path)


def starter(
    sandbox: Sandbox,
    limits: Limits,
    files: Path,
    here: Path,
    secrets: Sequence[Path],
    stop: threading.Event | None = None,
) -> Callable[[], Link]:
    """Return what starts a learner's process."""
    words = command(sandbox, files, here, secrets, limits.memory)
    words += ["--memory", str(limits.memory), "--seconds", str(int(limits.total) + 10)]
    if not sandbox:
        lay_out(here)
    kept = sum(in_files(limits.memory)) if sandbox else 0
    return lambda: Link(words, environment(sandbox, here), limits.memory, stop, kept)


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
    code = [cell for cell in cells if cell.kind == "code"]
    for number, cell in enumerate(code, start=1):
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
    """What has become of cells that are not the learner's; none of it had an effect.

    A cell of an earlier edition is not called edited: an instructor may have mended it since.
    """
    found: dict[str, list[str]] = {grade_id: [] for grade_id in sorted(assignment.fixed)}
    for cell in cells:
        if cell.grade_id in found:
            found[cell.grade_id].append(state(cell, assignment.handed_out[cell.grade_id]))
    texts = {
        "edited, without effect": [name for name, states in found.items() if "edited" in states],
        "of another edition, graded by this one": [
            name for name, states in found.items() if "earlier" in states
        ],
        "not in the notebook, without effect": [name for name, all_ in found.items() if not all_],
        "copied, without effect": [name for name, states in found.items() if len(states) > 1],
    }
    for text, names in texts.items():
        if names:
            yield f"{text}: {', '.join(names)}"


def state(cell: Cell, handed_out: NotebookNode) -> str:
    """Whether a cell is as handed out now, as it was handed out earlier, or edited.

    nbgrader has written a checksum into each cell that it handed out.
    """
    data = cell.raw["metadata"]["nbgrader"]
    out = handed_out.metadata.nbgrader
    if cell.source == handed_out.source and data.get("points") == out.get("points"):
        return "same"
    try:
        from nbgrader.utils import compute_checksum  # late: a learner has no nbgrader

        copy_of = nbformat.from_dict({**cell.raw, "source": cell.source})  # type: ignore[no-untyped-call]
        return "earlier" if data.get("checksum") == compute_checksum(copy_of) else "edited"
    except Exception:  # no nbgrader, or no cell that it would have made
        return "edited"


def library_imports(cells: Sequence[Run], loaded: Sequence[str]) -> Iterator[str]:
    """The modules of the library from which a learner may have taken an answer.

    ``loaded`` are those that the learner's process has named; it need not have named all.
    """
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
    if not any(name.startswith("slingshot") for name in found):
        found |= set(loaded)  # imported in another way
    used = [
        name[:LONGEST_MODULE]
        for name in sorted(found)
        if name.startswith("slingshot.") and not name.startswith(ALLOWED_IMPORTS)
    ]
    if used:
        yield f"imports {', '.join(used[:10])}: look whether the answer is its own"
