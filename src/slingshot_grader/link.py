"""One worker process, from outside: started, asked, watched and ended."""

import contextlib
import math
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from slingshot_grader import wire
from slingshot_grader.processes import alive, computed, family, kill_below, memory_of, threads

GRACE = 3.0
"""Seconds that a worker has to say that a time limit was reached before it is ended."""

MOST_PROCESSES = 40
MOST_THREADS = 400
WATCH_EVERY = 0.25


class WorkerGoneError(Exception):
    """The worker ended, or was ended, and why."""


class Link:
    """A worker process and the pipe to it."""

    def __init__(
        self,
        start: Sequence[str],
        env: Mapping[str, str],
        memory: int,
        stop: threading.Event | None = None,
        in_files: int = 0,
    ) -> None:
        """Start the process, which may use ``memory`` bytes together with its children.

        ``in_files`` of them are set aside for files that are kept in memory.
        """
        self.memory = memory
        self.for_processes = memory - in_files
        self.stop = stop or threading.Event()
        self.why_ended = ""
        self.number = 0
        self.allowed = math.inf
        self.ended = threading.Event()
        self.replies: queue.Queue[dict[str, Any] | str] = queue.Queue(maxsize=2)
        self.process = subprocess.Popen(
            start,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def ask(self, seconds: float, clock: float, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        """Send a request and return its reply; raise ``WorkerGoneError`` if none comes in time.

        ``seconds`` are of computing, ``clock`` on the clock. The worker keeps to them by itself; it
        is ended if it does not.
        """
        self.number += 1
        self.allowed = seconds + GRACE
        # A worker that reads nothing blocks the write, so the clock runs for it, too.
        timer = threading.Timer(clock + GRACE, self.end, [f"did not stop after {clock:.0f} s"])
        timer.daemon = True
        timer.start()
        try:
            times = {"seconds": seconds, "clock": clock}
            self._send({**request, **times, "number": self.number})
            reply = self._next()
        finally:
            timer.cancel()
            self.allowed = math.inf
        # Looked at once more now: whoever leaves too much behind is blamed, and not the next cell.
        if isinstance(reply, str):
            self.end(reply)
        elif excess := self.excess(family(self.process.pid)):
            self.end(excess)
        elif reply.get("number") == self.number:
            return reply
        else:
            self.end("answered what was not asked")
        raise WorkerGoneError(self.why_ended)

    def end(self, why: str = "was ended") -> None:
        """End the process and all that it started."""
        self.why_ended = self.why_ended or why
        self.ended.set()
        kill_family(self.process)

    def _send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # no reply will come, and that says it
            wire.send(self.process.stdin, request)  # type: ignore[arg-type]

    def _next(self) -> dict[str, Any] | str:
        while True:
            try:
                return self.replies.get(timeout=0.2)
            except queue.Empty:
                if self.ended.is_set():
                    return self.why_ended

    def _read(self) -> None:
        """Pass the replies on. A worker that talks unasked waits here, and fills its own pipe."""
        assert self.process.stdout is not None
        reply: dict[str, Any] | str = ""
        while not isinstance(reply, str) or not reply:
            try:
                reply = wire.receive(self.process.stdout)  # type: ignore[arg-type]
            except (EOFError, OSError, ValueError):
                reply = "ended its own process"
            except wire.WireError as error:
                reply = f"sent what is no answer: {error}"
            while not self.ended.is_set():
                with contextlib.suppress(queue.Full):
                    self.replies.put(reply, timeout=0.2)
                    break
            if self.ended.is_set():
                return

    def _watch(self) -> None:
        asked, before = 0, 0.0
        while not self.ended.wait(WATCH_EVERY):
            if self.stop.is_set():
                self.end("was interrupted")
            members = family(self.process.pid)
            if self.number != asked:
                asked, before = self.number, sum(map(computed, members))
            if sum(map(computed, members)) - before > self.allowed:
                self.end(f"did not stop after {self.allowed - GRACE:.0f} s of computing")
            if excess := self.excess(members):
                self.end(excess)

    def excess(self, members: Sequence[int]) -> str:
        """What the processes use too much of, empty if they keep within the limits."""
        if memory_of(list(members), self.for_processes) > self.for_processes:
            return f"used more than {self.memory / 1e9:.1f} GB of memory"
        if sum(map(alive, members)) > MOST_PROCESSES:
            return f"started more than {MOST_PROCESSES} processes"
        if sum(map(threads, members)) > MOST_THREADS:
            return f"started more than {MOST_THREADS} threads"
        return ""


def kill_family(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and its descendants. Within bubblewrap the first of them takes all along."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            process.send_signal(signal.SIGSTOP)  # so that it starts no other meanwhile
        kill_below(process.pid)
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
