"""Jobs handed to examiners: one process for each that may run at once, started again when lost."""

import contextlib
import json
import os
import pickle
import queue
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from slingshot_grader.files import remove
from slingshot_grader.processes import kill_below
from slingshot_grader.sandbox import SOURCE

LONGEST_REPLY = 12_000_000
PATIENCE = 600.0
"""Seconds on the clock beyond those of the learner's code. Computing is bounded in the examiner."""

PATIENCE_AT_THE_END = 60.0
"""Seconds for an examiner to end what it does, and to take away every file."""

T = TypeVar("T")


class LostError(Exception):
    """An examiner that has not answered, and why."""


@dataclass(frozen=True)
class Job:
    """What an examiner is asked, and how many seconds on the clock it may take."""

    name: str
    arguments: dict[str, Any]
    clock: float = PATIENCE


class Examiner:
    """A process that does one job after another, seen from outside."""

    def __init__(self, scratch: Path, stop: threading.Event) -> None:
        """Use ``scratch`` for files; nothing is started yet."""
        self.scratch = scratch
        self.stop = stop
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, job: Job) -> dict[str, Any]:
        """Return the answer; raise ``LostError`` when there is none. The process may be lost."""
        try:
            if self.process is None:
                self.process = self.start()
            assert self.process.stdin is not None
            data = pickle.dumps((job.name, job.arguments))
            self.process.stdin.write(len(data).to_bytes(8, "big") + data)
            self.process.stdin.flush()
            answer = self.answer(time.monotonic() + job.clock)
        except (OSError, LostError, ValueError, RecursionError) as error:
            if not self.stop.is_set():  # otherwise it is let go, and ends what it does
                self.end()
            raise LostError(str(error) or "the examiner has ended") from error
        if isinstance(failed := answer.get("failed"), str):
            raise LostError(failed[:300])
        return answer

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the process, which ends itself when this one does."""
        paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "slingshot_grader.examiner", str(self.scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the grader, which then says what to do
            env={**os.environ, **own},
        )

    def answer(self, deadline: float) -> dict[str, Any]:
        """Read one answer of bounded length; raise ``LostError``."""
        length = int.from_bytes(self.read(8, deadline), "big")
        if length > LONGEST_REPLY:
            raise LostError("its answer is too long")
        answer = json.loads(self.read(length, deadline))
        if not isinstance(answer, dict):
            raise LostError("its answer is none")
        return answer

    def read(self, count: int, deadline: float) -> bytes:
        """Read so many bytes, unless it takes too long or grading stops."""
        assert self.process is not None
        assert self.process.stdout is not None
        stream, data = self.process.stdout.fileno(), b""
        while len(data) < count:
            if self.stop.is_set():
                raise LostError("grading was interrupted")
            if time.monotonic() > deadline:
                raise LostError("it did not end in time")
            if select.select([stream], [], [], 0.1)[0]:
                part = os.read(stream, min(count - len(data), 1 << 20))
                if not part:
                    raise LostError("the examiner has ended")
                data += part
        return data

    def let_go(self) -> None:
        """Let the process end all below it, take away every file, and end."""
        if self.process is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self.process.stdin.close()  # type: ignore[union-attr]
                self.process.wait(timeout=PATIENCE_AT_THE_END)
        self.end()

    def end(self) -> None:
        """End the process and all below it."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            kill_below(process.pid)  # first, while it still adopts what loses its parent
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]


class Pool:
    """Several examiners, and one folder for all that they write."""

    def __init__(self, size: int) -> None:
        """Start nothing yet."""
        self.stop = threading.Event()
        self.scratch = Path(tempfile.mkdtemp(prefix="slingshot-grader-"))
        self.idle: queue.Queue[Examiner] = queue.Queue()
        self.all = [Examiner(self.scratch, self.stop) for _ in range(max(1, size))]
        for each in self.all:
            self.idle.put(each)

    def ask(self, job: Job) -> dict[str, Any]:
        """Let an idle examiner do a job; raise ``LostError``."""
        examiner = self.idle.get()
        try:
            if self.stop.is_set():
                raise LostError("grading was interrupted")
            return examiner.ask(job)
        finally:
            self.idle.put(examiner)

    def do(self, task: Callable[[T], object], items: Iterable[T], at_once: int = 0) -> Iterator[T]:
        """Do something with each item, several at once; yield each when it is done."""
        threads = ThreadPoolExecutor(max_workers=at_once or len(self.all))
        futures: dict[Future[object], T] = {threads.submit(task, item): item for item in items}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BaseException:
            self.stop.set()
            threads.shutdown(wait=True, cancel_futures=True)
            raise
        threads.shutdown()

    def close(self) -> None:
        """End every process, and take away every file.

        The examiners take them away: they go on if this process is killed meanwhile.
        """
        self.stop.set()
        for each in self.all:
            each.let_go()
        remove(self.scratch)  # where none was left
