"""The child process in which a submission is read, examined and rendered, all within limits.

It imports what grading needs once, and then does each job in a fork of its own: a job that runs out
of memory or time, or that a submission has brought down, is lost alone. Requests come from the
grader and are trusted; what a job answers is JSON, and the grader believes none of it unread.
When the grader is gone, however it went, this process ends all below it and takes away its files.
"""

import contextlib
import json
import os
import pickle
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from slingshot import facts
from slingshot_grader import notebook, page, unzip
from slingshot_grader.assignment import Assignment
from slingshot_grader.confine import libraries
from slingshot_grader.examine import examine
from slingshot_grader.files import Submission, UnreadableError, remove
from slingshot_grader.notebook import Cell
from slingshot_grader.pool import LONGEST_REPLY
from slingshot_grader.processes import adopt_orphans, close_memory, kill_below
from slingshot_grader.sandbox import Sandbox
from slingshot_grader.session import Limits, Run

SPARE_MEMORY = 3_000_000_000
LARGEST_FILE = 300_000_000
SECONDS = 60
"""Of computing, for reading and rendering; the learner's own time comes on top."""

Say = Callable[[dict[str, Any]], None]

# --- the jobs ------------------------------------------------------------------------------------


def do_examine(
    say: Say,
    submission: Submission,
    assignment: Assignment,
    sandbox: Sandbox,
    limits: Limits,
    secrets: list[Path],
) -> None:
    """Grade a submission. The grade is said first: a page that cannot be made costs none."""
    report, cells = examine(submission, assignment, sandbox, limits, secrets, threading.Event())
    say({"report": report.message(), "whole": False})
    with contextlib.suppress(Exception):
        report.notebook = page.render(cells, report.cells, assignment)
        say({"report": report.message(), "whole": True})


def do_identify(say: Say, path: Path, assignments: dict[str, Assignment]) -> None:
    """Say which assignment a file belongs to, and whether anything in it was written."""
    name = notebook.guess_assignment(path, assignments)
    begun = bool(name) and notebook.is_begun(path, assignments[name])
    say({"assignment": name, "begun": begun})


def do_unpack(say: Say, archive: Path, target: Path, **bounds: int) -> None:
    """Unpack an archive."""
    try:
        say({"remarks": unzip.unpack(archive, target, **bounds)})
    except UnreadableError as error:
        say({"problem": str(error)})


JOBS: dict[str, Callable[..., None]] = {
    "examine": do_examine,
    "identify": do_identify,
    "unpack": do_unpack,
}

# --- the process ---------------------------------------------------------------------------------


def main() -> None:
    """Serve until the grader is gone."""
    scratch = Path(sys.argv[1])
    own = Path(tempfile.mkdtemp(prefix="examiner-", dir=scratch))
    tempfile.tempdir = str(own)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # the grader says when to end
    adopt_orphans()
    close_memory()
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nowhere, number)
    try:
        while (request := receive(requests)) is not None:
            reply = in_a_fork(request, requests) if hasattr(os, "fork") else alone(request)
            for left in own.iterdir():
                remove(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            if reply is None:
                break
            send(replies, reply)
    except BrokenPipeError:
        pass
    # The grader is gone, and takes nothing away any more.
    kill_below(os.getpid())
    remove(scratch)


def receive(stream: BinaryIO) -> Any:  # noqa: ANN401
    """Read a request of the grader, ``None`` at the end."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    data = stream.read(int.from_bytes(head, "big"))
    try:
        return pickle.loads(data)  # from the grader, which nothing of a learner's enters
    except EOFError:
        return None


def send(stream: BinaryIO, data: bytes) -> None:
    """Write an answer."""
    stream.write(len(data).to_bytes(8, "big") + data)
    stream.flush()


def in_a_fork(request: tuple[str, dict[str, Any]], requests: BinaryIO) -> bytes | None:
    """Do a job in a child; return the last that it said and that is not too long.

    ``None`` says that the grader is gone.
    """
    prepare(request)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        run_job(request, write_end)
    os.close(write_end)
    said, gone = b"", False
    while len(said) <= 2 * LONGEST_REPLY:
        ready, _, _ = select.select([read_end, requests.fileno()], [], [])
        if requests.fileno() in ready:  # nothing is asked meanwhile: it is the end
            gone = True
            break
        data = os.read(read_end, 1 << 20)
        if not data:
            break
        said += data
    os.close(read_end)
    kill_below(os.getpid())
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # orphans that were adopted
            pass
    whole = [line for line in said.split(b"\n")[:-1] if len(line) <= LONGEST_REPLY]
    if gone:
        return None
    return whole[-1] if whole else json.dumps({"failed": how_it_ended(status)}).encode()


def how_it_ended(status: int) -> str:
    """Why a job has said nothing."""
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return {"SIGXCPU": "it took too long", "SIGKILL": "it was ended"}.get(name, name)
    return "it ended early"


def run_job(request: tuple[str, dict[str, Any]], write_end: int) -> None:
    """Do a job in this process, which is a fork, and end."""
    status = 1
    try:
        adopt_orphans()
        limit(request[1].get("limits"))
        with os.fdopen(write_end, "wb") as stream:
            do(request, stream)
        status = 0
    finally:
        kill_below(os.getpid())
        os._exit(status)


def do(request: tuple[str, dict[str, Any]], stream: BinaryIO) -> None:
    """Do a job, and write a line of JSON for each thing that it says."""
    name, arguments = request

    def say(message: dict[str, Any]) -> None:
        stream.write(json.dumps(message).encode() + b"\n")
        stream.flush()

    try:
        JOBS[name](say, **arguments)
    except Exception as error:
        say({"failed": f"{type(error).__name__}: {error}"[:300]})


def alone(request: tuple[str, dict[str, Any]]) -> bytes:
    """Do a job where processes cannot fork, as on Windows."""
    import io

    stream = io.BytesIO()
    do(request, stream)
    return stream.getvalue().split(b"\n")[-2]


def prepare(request: tuple[str, dict[str, Any]]) -> None:
    """Do once what every fork would begin with; nothing of a submission is in it.

    The assignment's own cells import, the facts are read, and a first page loads its templates.
    """
    assignment = request[1].get("assignment")
    if isinstance(assignment, Assignment) and assignment.digest not in PREPARED:
        for source in assignment.locked.values():
            with contextlib.suppress(Exception):  # it is said where it is examined
                exec(compile(source, "<locked cell>", "exec"), {"__name__": "test"})
        with contextlib.suppress(Exception):
            facts.keys()
            cells = [Cell("a", "", None, "markdown"), Cell("1", "", None)]
            page.render(cells, [Run("1", "", 1)], assignment)
        PREPARED.add(assignment.digest)


PREPARED: set[str] = set()


def limit(limits: Limits | None) -> None:
    """Bound what a job may use: memory on top of what is there, computing, and its files."""
    import resource

    used = Path("/proc/self/statm").read_text().split() if Path("/proc").is_dir() else []
    seconds = SECONDS + int(limits.total if limits else 0)
    bounds = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_FSIZE: LARGEST_FILE}
    if used:
        # What it maps, torch among it, may be imported in this job only; see confine.libraries.
        addresses, data = (int(used[number]) * resource.getpagesize() for number in (0, 5))
        bounds[resource.RLIMIT_AS] = addresses + libraries() + SPARE_MEMORY
        bounds[resource.RLIMIT_DATA] = data + SPARE_MEMORY
    for kind, value in bounds.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))


if __name__ == "__main__":
    main()
