"""Grade a folder of submissions: one file or one folder for each learner.

Beside the folder appears another, named like it with -graded at the end: grades.csv, a page of
feedback for each learner, and a summary with the outcomes of each exercise. Each submission runs in
a process of its own, shut in and within limits. What is graded is kept at once, so the same command
continues after an interruption, and grades anew only what has changed.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from slingshot_grader import export
from slingshot_grader.assignment import AssignmentError
from slingshot_grader.batch import Batch, GradeError, Grader, Settings
from slingshot_grader.desk import DeskError
from slingshot_grader.layouts import is_zip
from slingshot_grader.local import Local
from slingshot_grader.pool import Pool
from slingshot_grader.processes import adopt_orphans, close_memory
from slingshot_grader.sandbox import SOURCE, Sandbox, find_sandbox
from slingshot_grader.session import Limits
from slingshot_grader.standing import Standing

ROOT = SOURCE.parent
EDITION = ROOT / "notebooks" / "assignments" / "source"
OFF = "it was switched off"
NO_SANDBOX = """
************************************************************************************
NO SANDBOX: {why}.
The learners' code runs with your rights. It can read your files, the checks with
their references, the hidden tests and the other submissions, write over all of them,
fill the disk, and use the network. What it writes to disk or to shared memory is not
counted as memory. Points cannot be forged from inside a notebook, but files on this
machine can. Go on only if you trust the learners, or use a machine that holds nothing
of value.
************************************************************************************
"""
LIMITED = {
    "cell": "one cell of a notebook",
    "call": "one call of a learner's function by a check",
    "total": "a whole notebook with its checks",
}
REFUSED = "nothing was graded; to grade without protection, say --no-sandbox"


def main(argv: Sequence[str] | None = None) -> int:
    """Grade, or do what the first word says.

    Return 0 when everybody has a grade, 1 when somebody has none, 130 when interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["export"]:
        return export.main(words[1:])
    args = parse_arguments(words)
    try:
        settings = read_settings(args)
    except GradeError as error:
        return say(str(error))
    if not settings.sandbox:
        print(NO_SANDBOX.format(why=settings.sandbox.why_not), file=sys.stderr, flush=True)
        if not args.no_sandbox:
            return say(REFUSED)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    adopt_orphans()
    close_memory()
    pool = Pool(settings.jobs)
    try:
        return grade(settings, pool, args.scheduler)
    except (GradeError, AssignmentError, DeskError) as error:
        return say(str(error))
    except OSError as error:
        return say(f"{error.filename or settings.output}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("interrupted; the same command writes the tables", file=sys.stderr)
        return 130
    finally:
        with uninterrupted():
            pool.close()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let neither Ctrl-C nor SIGTERM come into the block, which is short."""
    before = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def grade(settings: Settings, pool: Pool, scheduler: str) -> int:
    """Grade the folder, and write the tables whatever happens; return the exit status."""
    batch = Batch(settings, pool)
    interrupted = False
    try:
        batch.find()
        with_engine(batch, settings, pool, scheduler)
    except KeyboardInterrupt:
        interrupted = True
        pool.stop.set()
    standings = batch.write(whole=not interrupted) if batch.complete else []
    for line in batch.closing_lines(standings) if batch.complete else ():
        print(line)
    if interrupted:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    return report_missing(batch, standings)


def with_engine(batch: Batch, settings: Settings, pool: Pool, scheduler: str) -> None:
    """Run the batch on this machine, or on the cluster of the scheduler that is named."""
    grader: Grader
    if not scheduler:
        grader = Local(pool, settings.sandbox, settings.limits, settings.secrets)
        return batch.run(grader)
    from slingshot_grader.cluster import Cluster  # late: it needs dask.distributed

    with Cluster(scheduler, settings, batch.version, pool.stop) as grader:
        return batch.run(grader, grader.at_once)


def report_missing(batch: Batch, standings: Sequence[Standing]) -> int:
    """Say who has no grade; return 1 if there is anybody, or if a decision had no effect."""
    without = [each for each in standings if each.status != "missing" and not each.has_grade]
    for each in without[:20]:
        why = "; ".join(each.report.remarks)[:160]
        print(f"no grade: {each.submission.place}: {each.status}: {why}", file=sys.stderr)
    return 1 if without or batch.notes else 0


def say(text: str) -> int:
    """Say in one line what keeps grading from beginning; return the exit status."""
    print(f"grade: {text}", file=sys.stderr)
    return 1


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tools/grade.py",
        description=(__doc__ or "").split("\n")[0],
        epilog="To fill the points into what a platform has exported: tools/grade.py export --help",
    )
    add = parser.add_argument
    add("submissions", type=Path, help="a folder, or a zip: one file or folder for each learner")
    text = "grade this one alone, such as claim (default: what the grade ids in each notebook say)"
    add("--assignment", metavar="NAME", help=text)
    text = "the folder of results (default: the name of the submissions with -graded, beside them)"
    add("--output", type=Path, metavar="FOLDER", help=text)
    text = "the source edition (default: %(default)s)"
    add("--source", type=Path, metavar="FOLDER", default=EDITION, help=text)
    text = "how many are graded at once on this machine (default: its %(default)s cores)"
    add("--jobs", type=int, metavar="NUMBER", default=os.cpu_count() or 1, help=text)
    text = "grade without protection, where you trust the learners or the machine holds "
    text += "nothing of value"
    add("--no-sandbox", action="store_true", help=text)
    add("--similar", action="store_true", help="name answers that have much in common")
    text = "grade on the Dask cluster of this scheduler (default: SCHEDULER, else this machine)"
    scheduler = os.environ.get("SCHEDULER", "")
    add("--scheduler", default=scheduler, metavar="tcp://HOST:PORT", help=text)
    defaults = Limits()
    for name, what in LIMITED.items():
        value, text = getattr(defaults, name), f"of computing, for {what} (default: %(default)s)"
        add(
            f"--{name}-seconds",
            type=positive,
            metavar="SECONDS",
            dest=name,
            default=value,
            help=text,
        )
    text = "on the clock, so many times those seconds may pass (default: %(default)s)"
    add("--patience", type=positive, metavar="FACTOR", default=defaults.patience, help=text)
    text = "memory of a learner's process (default: %(default)s)"
    add("--memory", type=positive, default=defaults.memory / 1e9, metavar="GB", help=text)
    return parser.parse_args(argv)


def positive(text: str) -> float:
    """A finite number above 0; raise ``ArgumentTypeError``."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number above 0")
    return value


def read_settings(args: argparse.Namespace) -> Settings:
    """Return the settings; raise ``GradeError``."""
    folder: Path = args.submissions
    zipped = is_zip(folder) and folder.is_file()
    if not str(folder) or folder == Path() or not (folder.is_dir() or zipped):
        raise GradeError(
            f"{str(folder)!r} is no folder of submissions; give one, for example "
            "make grade SUBMISSIONS=/home/me/week3"
        )
    folder = folder.resolve()
    name = folder.stem if zipped else folder.name
    output: Path = (args.output or folder.with_name(f"{name}-graded")).resolve()
    if output.is_relative_to(folder):
        raise GradeError(f"{output} lies within the submissions; give another --output")
    course = (args.source, ROOT / "tests", ROOT / "notebooks", folder, output)
    secrets = tuple(path.resolve() for path in course if path.exists())
    limits = Limits(args.cell, args.call, args.total, int(args.memory * 1e9), args.patience)
    sandbox = Sandbox("", OFF) if args.no_sandbox else find_sandbox(secrets)
    assignment = args.assignment or ""
    return Settings(
        folder,
        output,
        args.source,
        secrets,
        sandbox,
        limits,
        assignment,
        max(1, args.jobs),
        args.similar,
    )
