"""The processes below a process: found, counted, measured and ended, all of them."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import psutil

PROC = Path("/proc")
ADOPT, NOT_READABLE = 36, 4  # PR_SET_CHILD_SUBREAPER and PR_SET_DUMPABLE


def adopt_orphans() -> None:
    """Let every descendant of this process stay one when its parent ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(ADOPT, 1, 0, 0, 0)


def close_memory() -> None:
    """Keep other processes of the same user from this one's memory (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(NOT_READABLE, 0, 0, 0, 0)


def children(pid: int) -> list[int]:
    """The processes that a process has started or adopted."""
    try:
        tasks = os.listdir(PROC / str(pid) / "task")
        return [
            int(child)
            for task in tasks
            for child in (PROC / str(pid) / "task" / task / "children").read_text().split()
        ]
    except FileNotFoundError:
        if PROC.is_dir() and (PROC / "self" / "task" / str(os.getpid()) / "children").exists():
            return []  # it has just ended
    except (OSError, ValueError):
        return []
    with contextlib.suppress(psutil.Error):  # no such files: macOS, Windows
        return [each.pid for each in psutil.Process(pid).children()]
    return []


def family(pid: int) -> list[int]:
    """A process and all that descend from it, the process first."""
    found, waiting = [pid], [pid]
    while waiting:
        for child in children(waiting.pop()):
            if child not in found:
                found.append(child)
                waiting.append(child)
    return found


def kill_below(pid: int, seconds: float = 5.0) -> None:
    """Kill all that descend from a process, again and again until there is none."""
    deadline = time.monotonic() + seconds
    while (below := [each for each in family(pid)[1:] if alive(each)]) and (
        time.monotonic() < deadline
    ):
        for each in below:
            with contextlib.suppress(OSError):
                os.kill(each, getattr(signal, "SIGKILL", signal.SIGTERM))
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    return state(pid) not in ("", "Z", "X")


def state(pid: int) -> str:
    """The state of a process as the kernel's letter, empty where there is none."""
    try:
        return (
            (PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
        )
    except (OSError, IndexError):
        pass
    if PROC.is_dir():
        return ""
    with contextlib.suppress(psutil.Error):
        return "Z" if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE else "R"
    return ""


def memory_of(pids: list[int], limit: int) -> int:
    """Bytes that processes use together.

    What several share is counted once, which takes long and is done only near the limit.
    """
    used = sum(resident(pid) for pid in pids)
    return sum(proportional(pid) for pid in pids) if used > limit else used


def resident(pid: int) -> int:
    """Bytes of memory in use, 0 for a process that has just ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def proportional(pid: int) -> int:
    """Bytes of memory in use, of shared ones this process's part."""
    try:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return resident(pid)


def threads(pid: int) -> int:
    """How many threads a process has, 0 for one that has just ended."""
    try:
        return len(os.listdir(PROC / str(pid) / "task"))
    except OSError:
        pass
    with contextlib.suppress(psutil.Error):
        return 0 if PROC.is_dir() else int(psutil.Process(pid).num_threads())
    return 0


def computed(pid: int) -> float:
    """Seconds of computing, also of children that have ended; 0 for one that has just ended."""
    try:
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    except psutil.Error:
        return 0.0
