"""Grade a folder of submissions: one file or one folder for each learner.

Beside the folder appears another, named like it with -graded at the end: grades.csv, a page of
feedback for each learner, and a summary with the distribution of outcomes for each exercise. Each
submission runs in a process of its own, within limits and, where bubblewrap works, shut in. What is
graded is kept at once, so the same command continues after an interruption, and grades anew only
what has changed.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console  # noqa: E402

console.prepare("make setup-instructor")

from tqdm import tqdm  # noqa: E402

from slingshot_grader.assignment import AssignmentError, read_assignments  # noqa: E402
from slingshot_grader.examine import Grade, Report, examine  # noqa: E402
from slingshot_grader.files import Submission, digest, find_submissions  # noqa: E402
from slingshot_grader.report import Row, feedback, write_grades, write_summary  # noqa: E402
from slingshot_grader.sandbox import Sandbox, find_sandbox  # noqa: E402
from slingshot_grader.session import Limits, Run  # noqa: E402
from tools.common.files import write_atomically  # noqa: E402

SOURCE = ROOT / "notebooks" / "assignments" / "source"
NO_SANDBOX = """
************************************************************************************
NO SANDBOX: {why}.
The learners' code runs with your rights. It can read your files, the hidden tests
and the other submissions, write over them, and use the network. Points cannot be
forged from inside a notebook, but files on this machine can. Go on only if you
trust the learners, or use a machine that holds nothing of value.
************************************************************************************
"""


class GradeError(Exception):
    """What keeps grading from beginning, as one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Grade the folder; return 0 when every submission has its grade, 130 when interrupted."""
    args = parse_arguments(argv)
    try:
        batch = Batch(args)
    except (GradeError, AssignmentError) as error:
        print(f"grade: {error}", file=sys.stderr)
        return 1
    if not batch.sandbox:
        print(NO_SANDBOX.format(why=batch.sandbox.why_not), file=sys.stderr, flush=True)
        if args.require_sandbox:
            return 1
    interrupted = False
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        batch.run(args.jobs)
    except KeyboardInterrupt:
        interrupted = True
    batch.write_tables()
    for line in batch.closing_lines():
        print(line)
    if interrupted:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("submissions", type=Path, help="one file or one folder for each learner")
    parser.add_argument(
        "--assignment", metavar="NAME", help="default: as the grade ids in each notebook say"
    )
    parser.add_argument("--output", type=Path, help="default: the folder's name with -graded")
    parser.add_argument("--source", type=Path, default=SOURCE, help="default: %(default)s")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="at once (default: %(default)s)"
    )
    parser.add_argument(
        "--require-sandbox", action="store_true", help="grade nothing where there is no sandbox"
    )
    parser.add_argument("--no-sandbox", action="store_true", help="use none, even if there is one")
    defaults = Limits()
    for name, unit in (("cell", "seconds"), ("call", "seconds"), ("total", "seconds")):
        parser.add_argument(
            f"--{name}-{unit}",
            type=float,
            dest=name,
            default=getattr(defaults, name),
            help="of computing (default: %(default)s)",
        )
    parser.add_argument(
        "--patience",
        type=float,
        default=defaults.patience,
        help="times as much may pass on the clock (default: %(default)s)",
    )
    parser.add_argument(
        "--memory",
        type=float,
        default=defaults.memory / 1e9,
        metavar="GB",
        help="default: %(default)s",
    )
    return parser.parse_args(argv)


class Batch:
    """All submissions of a folder, and what has come of them so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Find the submissions and what an earlier run has left; raise ``GradeError``."""
        folder: Path = args.submissions
        if not str(folder) or not folder.is_dir() or folder == Path():
            raise GradeError(
                f"{str(folder)!r} is no folder of submissions; give one, for example "
                "make grade SUBMISSIONS=/home/me/week3"
            )
        self.folder = folder.resolve()
        self.output: Path = args.output or self.folder.with_name(f"{self.folder.name}-graded")
        if self.output.resolve().is_relative_to(self.folder):
            raise GradeError(f"{self.output} lies within the submissions; give another --output")
        self.assignments = read_assignments(args.source)
        if args.assignment and args.assignment not in self.assignments:
            known = ", ".join(self.assignments)
            raise GradeError(f"there is no assignment {args.assignment!r}; there are: {known}")
        memory = int(args.memory * 1e9)
        self.limits = Limits(args.cell, args.call, args.total, memory, args.patience)
        self.secrets = [
            path.resolve()
            for path in (args.source, ROOT / "tests", ROOT / "notebooks", self.folder, self.output)
            if path.exists()
        ]
        none = Sandbox("", "it was switched off")
        self.sandbox = none if args.no_sandbox else find_sandbox(self.secrets)
        self.submissions = find_submissions(self.folder, self.assignments, args.assignment)
        if not self.submissions:
            raise GradeError(f"there is nothing in {folder}")
        self.fill_in_assignments()
        self.reports: dict[Path, Report] = {}
        self.stop = threading.Event()
        self.machinery = hash_machinery()
        for name in ("results", "feedback"):
            (self.output / name).mkdir(parents=True, exist_ok=True)

    def fill_in_assignments(self) -> None:
        """What is no notebook is taken for the assignment of the others, if there is only one."""
        known = {s.assignment for s in self.submissions if s.assignment} or set(self.assignments)
        for submission in self.submissions:
            if not submission.assignment and len(known) == 1:
                submission.assignment = next(iter(known))

    def run(self, jobs: int) -> None:
        """Grade what has no valid result yet, several at once."""
        waiting = [each for each in self.submissions if not self.reuse(each)]
        bar = tqdm(
            total=len(self.submissions),
            initial=len(self.submissions) - len(waiting),
            unit="submission",
            desc="grading",
        )
        pool = ThreadPoolExecutor(max_workers=max(1, jobs))
        futures: dict[Future[None], Submission] = {
            pool.submit(self.grade, submission): submission for submission in waiting
        }
        try:
            for _ in as_completed(futures):
                bar.update()
        except BaseException:
            self.stop.set()  # what is running ends at once, and leaves no result
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            bar.close()
        pool.shutdown()

    def grade(self, submission: Submission) -> None:
        """Grade one submission and keep the result. A fault of the grader itself stops nothing."""
        try:
            report = self.examine(submission)
            if not self.stop.is_set():
                self.keep(submission, report)
        except Exception as error:
            kind = f"{type(error).__name__}: {error}"
            self.reports[submission.path] = Report("not graded", [f"the grader met {kind}"])

    def examine(self, submission: Submission) -> Report:
        """Grade one submission."""
        assignment = self.assignments.get(submission.assignment)
        if assignment is None:
            return Report("unreadable", ["no notebook of an assignment; name one: ASSIGNMENT="])
        return examine(submission, assignment, self.sandbox, self.limits, self.secrets, self.stop)

    # --- results that stay -------------------------------------------------------------------

    def result_file(self, submission: Submission) -> Path:
        """Where the result of a submission is kept."""
        place = os.fsencode(submission.path.relative_to(self.folder))
        code = hashlib.sha256(place + submission.assignment.encode()).hexdigest()[:12]
        return self.output / "results" / f"{code}.json"

    def key(self, submission: Submission) -> str:
        """Hash all that decides the result."""
        assignment = self.assignments.get(submission.assignment)
        parts = [
            digest(submission),
            assignment.digest if assignment else "",
            self.machinery,
            repr(self.limits),
            str(bool(self.sandbox)),
            submission.learner,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def keep(self, submission: Submission, report: Report) -> None:
        """Write the learner's page, then the result, each in one step."""
        assignment = self.assignments.get(submission.assignment)
        if assignment is not None:
            write_atomically(
                self.feedback_file(submission), feedback(submission, report, assignment)
            )
        record = {"key": self.key(submission), "report": asdict(report)}
        write_atomically(self.result_file(submission), json.dumps(record, indent=1))
        self.reports[submission.path] = report

    def feedback_file(self, submission: Submission) -> Path:
        """Where the page of a learner goes."""
        several = len({each.assignment for each in self.submissions}) > 1
        name = f"{submission.learner} - {submission.assignment}" if several else submission.learner
        return self.output / "feedback" / f"{name}.html"

    def reuse(self, submission: Submission) -> bool:
        """Whether an earlier run has left a result for exactly this."""
        try:
            record = json.loads(self.result_file(submission).read_text("utf-8"))
            if record["key"] != self.key(submission) or not self.has_page(submission):
                return False
            report = Report(**record["report"])
            report.grades = [Grade(**grade) for grade in record["report"]["grades"]]
            report.cells = [Run(**cell) for cell in record["report"]["cells"]]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.reports[submission.path] = report
        return True

    def has_page(self, submission: Submission) -> bool:
        """Whether the learner's page is there, if there is to be one."""
        return submission.assignment not in self.assignments or (
            self.feedback_file(submission).is_file()
        )

    # --- the end -----------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """Every submission with its report; those that have none say so."""
        missing = Report("not graded", ["grading was interrupted before this one"])
        return [(each, self.reports.get(each.path, missing)) for each in self.submissions]

    def write_tables(self) -> None:
        """Write grades.csv and the summary."""
        part = self.output / "grades.csv.part"
        write_grades(part, self.rows(), self.assignments)
        os.replace(part, self.output / "grades.csv")
        graded = [(each, report) for each, report in self.rows() if report.grades]
        write_summary(self.output, graded, self.assignments)

    def closing_lines(self) -> list[str]:
        """How many there were of each status, and where everything is."""
        statuses = [report.status for _, report in self.rows()]
        counts = ", ".join(f"{statuses.count(s)} {s}" for s in dict.fromkeys(statuses))
        return [f"{len(statuses)} submissions: {counts}", f"grades: {self.output / 'grades.csv'}"]


def hash_machinery() -> str:
    """Hash the code that grades, so that a changed check grades anew."""
    result = hashlib.sha256()
    folders = [ROOT / "tools" / "grading", ROOT / "src" / "slingshot"]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    for path in [*paths, ROOT / "src" / "slingshot" / "facts.yml"]:
        result.update(path.read_bytes())
    return result.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
