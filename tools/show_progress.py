"""Show which exercises pass, by running the checks on the learner's own notebooks.

What a notebook says of itself, such as a stored output, is not believed. Each notebook in the
workspace's folder of assignments runs from top to bottom as a grader would run it, in a process of
its own and within limits, and the checks that the student edition shows are asked about it.
"""

import argparse
import os
import shutil
import sys
import textwrap
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console  # noqa: E402

console.prepare("make setup")

from tqdm import tqdm  # noqa: E402

from slingshot_exercises.checking import NOT_WRITTEN  # noqa: E402
from slingshot_grader.assignment import Assignment, AssignmentError, read_assignments  # noqa: E402
from slingshot_grader.examine import examine  # noqa: E402
from slingshot_grader.files import Submission  # noqa: E402
from slingshot_grader.notebook import guess_assignment  # noqa: E402
from slingshot_grader.outcome import Grade, Report  # noqa: E402
from slingshot_grader.sandbox import find_sandbox  # noqa: E402
from slingshot_grader.session import Limits  # noqa: E402

RELEASE = ROOT / "notebooks" / "assignments" / "release"
FOLDER = "assignments"
LIMITS = Limits()
MORE = "These are the checks that you see. A grader may try further inputs."


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 0 whatever passes, 1 when there is nothing to check."""
    args = parse_arguments(argv)
    try:
        editions = read_assignments(args.release, student_edition=True)
        notebooks = find_notebooks(args.workspace, editions)
        if not notebooks:
            folder = args.workspace / FOLDER
            print(
                f"there is no assignment in {folder}; `make lab` puts them there", file=sys.stderr
            )
            return 1
        reports = check(notebooks, editions, threading.Event())
    except (AssignmentError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was changed", file=sys.stderr)
        return 130
    print("\n".join(table(notebooks, reports, editions)))
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--workspace",
        type=Path,
        default=ROOT / "workspace",
        help="where the learner's notebooks are (default: %(default)s)",
    )
    parser.add_argument(
        "--release", type=Path, default=RELEASE, help="the student edition (default: %(default)s)"
    )
    return parser.parse_args(argv)


def find_notebooks(workspace: Path, editions: dict[str, Assignment]) -> list[Submission]:
    """The notebooks that the learner has of the assignments, under whatever name."""
    found = []
    for path in sorted((workspace / FOLDER).glob("*.ipynb")):
        if name := guess_assignment(path, editions):
            found.append(Submission(path.stem, path, name, [], in_folder=True))
    return found


def check(
    notebooks: Sequence[Submission],
    editions: dict[str, Assignment],
    stop: threading.Event,
    limits: Limits = LIMITS,
) -> list[Report]:
    """Run the notebooks, several at once; when ``stop`` is set, the rest is left out."""
    sandbox = find_sandbox()
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    futures = [
        pool.submit(examine, each, editions[each.assignment], sandbox, limits, (), stop)
        for each in notebooks
    ]
    try:
        # A bar for a person at a terminal, gone when it is full.
        options = {"unit": "notebook", "desc": "checking", "leave": False, "disable": None}
        for _ in tqdm(as_completed(futures), total=len(futures), **options):
            pass
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return [future.result()[0] for future in futures]


def standing(
    workspace: Path, worked_in: set[Path], release: Path, seconds: float
) -> dict[str, str] | None:
    """How many exercises of each notebook in ``worked_in`` pass; None after so many seconds."""
    editions = read_assignments(release, student_edition=True)
    notebooks = [n for n in find_notebooks(workspace, editions) if n.path in worked_in]
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    try:
        reports = check(notebooks, editions, stop)
    finally:
        timer.cancel()
    if stop.is_set():
        return None
    return dict(head(n, r) for n, r in zip(notebooks, reports, strict=True))


def in_short(standing: dict[str, str] | None, seconds: float) -> list[str]:
    """A line for each notebook that was checked, or a way to get them."""
    if standing is None:
        return [f"the checks take more than {seconds:.0f} s; `make progress` waits for them"]
    if not standing:
        return ["`make progress` shows which exercises pass, once you have begun"]
    heads = [f"{name}: {passed}" for name, passed in standing.items()]
    return [*heads, "`make progress` shows which, and what the checks say of the others"]


# --- telling ---------------------------------------------------------------------------------


def table(
    notebooks: Sequence[Submission], reports: Sequence[Report], editions: dict[str, Assignment]
) -> list[str]:
    """A line for each exercise, a head for each notebook, and the count."""
    lines, passed, exercises = [], 0, 0
    width = shutil.get_terminal_size((100, 24)).columns
    for notebook, report in zip(notebooks, reports, strict=True):
        edition = editions[notebook.assignment]
        passed, exercises = passed + count_passed(report), exercises + len(report.grades)
        lines.append(": ".join(head(notebook, report)))
        column = max(len(grade.exercise) for grade in report.grades)
        for grade in report.grades:
            state, why = describe(grade, report, edition)
            line = f"  {grade.exercise:{column}}  {state:9}  "
            lines.append((line + shorten(why, max(width - len(line), 30))).rstrip())
        lines += [f"  {remark}" for remark in report.remarks]
    return [*lines, f"{passed} of {exercises} exercises pass. {MORE}"]


def head(notebook: Submission, report: Report) -> tuple[str, str]:
    """The name of a notebook, and how many of its exercises pass."""
    passed = f"{count_passed(report)} of {len(report.grades)} pass"
    return f"{FOLDER}/{notebook.path.name}", passed


def count_passed(report: Report) -> int:
    """How many exercises pass."""
    return sum(grade.outcome == "passed" for grade in report.grades)


def describe(grade: Grade, report: Report, edition: Assignment) -> tuple[str, str]:
    """How an exercise stands, in one of three ways, and what the first failure says."""
    if grade.outcome == "passed":
        return "passes", ""
    name = f"{edition.name}-{grade.exercise}"
    cell = next((cell for cell in report.cells if cell.grade_id == name), None)
    if cell and cell.source == edition.handed_out[name].source and NOT_WRITTEN in grade.message:
        return "not begun", ""
    errors = [output["error"] for output in cell.outputs if "error" in output] if cell else []
    if errors and grade.outcome == "not written":  # why there is no function to be checked
        return "not yet", f"its cell raises {errors[0][0]}: {errors[0][1]}"
    return "not yet", grade.mistake


def shorten(text: str, width: int) -> str:
    """The text on one line, cut between words."""
    return textwrap.shorten(text, width, placeholder=" …")


if __name__ == "__main__":
    sys.exit(main())
