"""The same grading on a Dask cluster that the user has: submissions go out, reports come back.

A worker of the cluster is a machine with the same version of the course. It starts examiners as
this machine would, with the same sandbox and the same limits; what it answers is read with the same
suspicion. A submission whose worker dies is given to another. Each result comes back once and is
kept once, by the grader alone: the workers keep nothing.
"""

import atexit
import base64
import contextlib
import functools
import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slingshot_grader.assignment import Assignment
from slingshot_grader.files import (
    Submission,
    UnreadableError,
    open_regular,
    parts,
    temporary_folder,
)
from slingshot_grader.local import Local
from slingshot_grader.outcome import Report, report_on
from slingshot_grader.pool import LostError, Pool
from slingshot_grader.sandbox import SOURCE, Sandbox, find_sandbox

if TYPE_CHECKING:
    from slingshot_grader.batch import Settings

LARGEST_ON_THE_WAY = 50_000_000
CONNECT_SECONDS = 30.0
RETRIES = 5


class Cluster:
    """Grades with the workers of a scheduler."""

    def __init__(
        self, address: str, settings: "Settings", version: str, stop: threading.Event
    ) -> None:
        """Use the scheduler at ``address``; it is not asked yet."""
        self.address = address
        self.settings = settings
        self.version = version
        self.stop = stop
        self.client: Any = None

    def __enter__(self) -> "Cluster":
        """Connect; raise ``GradeError`` where nobody answers, or where no worker is."""
        from slingshot_grader.batch import GradeError

        try:
            from distributed import Client
        except ImportError:
            raise GradeError("a scheduler needs `pip install distributed`") from None
        try:
            self.client = Client(self.address, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise GradeError(f"no scheduler answers at {self.address}: {error}") from error
        if not self.threads():
            self.client.close()
            raise GradeError(f"the scheduler at {self.address} has no workers")
        return self

    def __exit__(self, *problem: object) -> None:
        """Leave the cluster as it was."""
        self.client.close()

    def threads(self) -> int:
        """How many submissions the cluster can grade at once."""
        return int(sum(self.client.nthreads().values()))

    @property
    def at_once(self) -> int:
        """How many are handed out: some more than run, so that no worker waits."""
        return min(256, 2 * self.threads())

    def __call__(self, submission: Submission, assignment: Assignment) -> Report:
        """Return the report; raise ``LostError``, for a worker of another version too."""
        packed, problem = pack(submission)
        future = self.client.submit(
            grade_here,
            replace(submission, problem=submission.problem or problem),
            packed,
            assignment,
            self.settings.limits,
            bool(self.settings.sandbox),
            self.version,
            pure=False,
            retries=RETRIES,
        )
        try:
            answer = self.wait(future)
        except Exception as error:
            if isinstance(error, LostError):
                raise
            raise LostError(f"the cluster says: {type(error).__name__}: {error}"[:300]) from error
        finally:
            with contextlib.suppress(Exception):
                future.release()
        if answer.get("version") != self.version:
            raise LostError("a worker of the cluster has another version of the course")
        if lost := answer.get("lost"):
            raise LostError(str(lost)[:300])
        try:
            return report_on(assignment, answer.get("report"))
        except ValueError as error:
            raise LostError(f"a worker answered what is no report: {error}") from error

    def wait(self, future: Any) -> dict[str, Any]:  # noqa: ANN401
        """The answer, unless grading stops before it comes."""
        from distributed import TimeoutError as NotYet

        while not self.stop.is_set():
            try:
                answer: dict[str, Any] = future.result(timeout=0.5)
                return answer
            except NotYet:
                continue
        future.cancel()
        raise LostError("grading was interrupted")


def pack(submission: Submission) -> tuple[dict[str, str | None], str]:
    """The files of a submission as text, for the way, and why its notebook is none if it is none.

    ``None`` stands for what is no regular file.
    """
    found: dict[str, str | None] = {}
    left, problem = LARGEST_ON_THE_WAY, ""
    for name, path in parts(submission):
        try:
            with open_regular(path) as file:
                data = file.read(left + 1)
        except UnreadableError as error:
            found[name] = None
            problem = str(error) if path == submission.path else problem
            continue
        left -= len(data)
        if left < 0:
            raise LostError(f"more than {LARGEST_ON_THE_WAY / 1e6:.0f} MB; grade it on one machine")
        found[name] = base64.b64encode(data).decode("ascii")
    return found, problem


# --- on a worker of the cluster ------------------------------------------------------------------


def grade_here(
    submission: Submission,
    packed: dict[str, str | None],
    assignment: Assignment,
    limits: Any,  # noqa: ANN401
    shut_in: bool,
    wanted: str,
) -> dict[str, Any]:
    """Grade a submission on this worker; return its report, and which version made it."""
    from slingshot_grader.batch import version

    answer: dict[str, Any] = {"version": version()}
    if answer["version"] != wanted:
        return answer
    sandbox = sandbox_here() if shut_in else Sandbox("", "it was switched off")
    if shut_in and not sandbox:
        return {**answer, "lost": f"a worker has no sandbox: {sandbox.why_not}"}
    course = (SOURCE.parent / name for name in ("tests", "notebooks"))
    secrets = [path for path in course if path.exists()]
    with unpacked(submission, packed) as here, an_examiner() as pool:
        try:
            report = Local(pool, sandbox, limits, secrets)(here, assignment)
        except LostError as error:
            return {**answer, "lost": str(error)}
    return {**answer, "report": report.message()}


@contextlib.contextmanager
def unpacked(submission: Submission, packed: dict[str, str | None]) -> Iterator[Submission]:
    """The submission as it lies on this worker."""
    with temporary_folder("slingshot-unit-") as folder:
        for name, text in packed.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(base64.b64decode(text))
        yield replace(submission, path=Path(folder, submission.path.name))


@functools.cache
def sandbox_here() -> Sandbox:
    """The sandbox of this worker, tried out once."""
    return find_sandbox()


IDLE: "queue.SimpleQueue[Pool]" = queue.SimpleQueue()


@contextlib.contextmanager
def an_examiner() -> Iterator[Pool]:
    """An examiner of this worker that is idle, or a new one.

    To start one costs as much as to grade with it, so they stay. When the worker ends, however
    it ends, they notice, and end themselves.
    """
    try:
        pool = IDLE.get_nowait()
    except queue.Empty:
        pool = Pool(1)
    try:
        yield pool
    finally:
        IDLE.put(pool)


@atexit.register
def close_idle() -> None:
    """End the examiners of this worker."""
    with contextlib.suppress(queue.Empty):
        while True:
            IDLE.get_nowait().close()
