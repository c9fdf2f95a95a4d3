"""How the learner's process is shut in: bubblewrap, where it is there and works.

Inside there is no network and no other process; the file system holds Python, its packages, the
library of the course and the few files of ``INSIDE``, all read-only, and one temporary folder of
bounded size. The checks with their references, the assignments' source edition, the tests and the
other submissions are not there at all.
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]
COURSE = Path("/course")
HERE = Path("/tmp/learner")
INSIDE = ("__init__", "confine", "stand_in", "wire", "worker")
"""The modules of the grader that run beside a learner's code; none of them knows an answer."""

MEMORY = 4_000_000_000
CACHES = shutil.ignore_patterns("__pycache__")

ENVIRONMENT = {
    "HOME": "/tmp",
    "IPYTHONDIR": "/tmp/.ipython",
    "LANG": "C.UTF-8",
    "LOGNAME": "learner",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MPLCONFIGDIR": "/tmp/.matplotlib",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": str(COURSE),
    "USER": "learner",
}


@dataclass(frozen=True)
class Sandbox:
    """Whether learners' code is shut in, and if not, why not."""

    program: str
    why_not: str = ""

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self.program)


def find_sandbox(secrets: Sequence[Path] = ()) -> Sandbox:
    """Return bubblewrap if it starts a worker's Python here; else the reason why it does not."""
    program = shutil.which("bwrap")
    if program is None:
        return Sandbox("", "bubblewrap is not installed (Debian, Ubuntu: apt install bubblewrap)")
    with tempfile.TemporaryDirectory() as folder:
        command = bubblewrap(program, Path(folder), secrets)
        probe = [*command, sys.executable, "-c", "import slingshot_grader.worker"]
        try:
            run = subprocess.run(probe, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Sandbox("", f"bubblewrap does not start: {error}")
    if run.returncode != 0:
        lines = run.stderr.strip().splitlines() or ["no reason given"]
        return Sandbox("", f"bubblewrap does not work here: {lines[-1]}")
    return Sandbox(program)


@functools.cache
def readable() -> tuple[Path, ...]:
    """What the learner's process may read at its own place: the system's programs and Python.

    A folder within another one of the list is left out.
    """
    system = [Path(name) for name in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")]
    files = [Path(name) for name in ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")]
    python = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]]
    found = [path for path in [*system, *files, *python] if path.exists()]
    return tuple(
        path
        for path in dict.fromkeys(found)
        if not any(inside(path, p) for p in found if p != path)
    )


def inside(path: Path, folder: Path) -> bool:
    """Whether ``path`` lies in ``folder``, by its name."""
    return path.is_relative_to(folder)


def in_files(memory: int) -> tuple[int, int]:
    """Bytes that files in ``/tmp`` and ``/dev/shm`` may hold: they count as memory."""
    return min(256_000_000, memory // 8), min(64_000_000, memory // 32)


def bubblewrap(
    program: str, files: Path, secrets: Sequence[Path] = (), memory: int = MEMORY
) -> list[str]:
    """Return the beginning of a command that shuts in what follows.

    ``files`` is the folder of the learner's files, seen inside as ``/submission``; the library is
    in ``/course``. Each of ``secrets`` that lies within a readable folder is covered by an empty
    one, and so are the checks where the course is installed among Python's packages.
    """
    command = [program, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
    command += ["--cap-drop", "ALL", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    temporary, shared = in_files(memory)
    # First: what follows may lie in it.
    command += ["--size", str(temporary), "--tmpfs", "/tmp"]
    for path in readable():
        if path.is_symlink() and len(path.parts) == 2:  # /bin is a link to usr/bin
            command += ["--symlink", os.readlink(path), str(path)]
        else:
            command += ["--ro-bind", str(path), str(path)]
    own = [SOURCE / name for name in ("slingshot_exercises", "slingshot_grader")]
    for secret in [*secrets, *own]:
        if any(inside(secret.resolve(), path.resolve()) for path in readable()):
            command += ["--size", "4096", "--tmpfs", str(secret.resolve())]
    for path, name in course():
        command += ["--ro-bind", str(path), str(COURSE / name)]
    command += ["--ro-bind", str(files), "/submission", "--proc", "/proc", "--dev", "/dev"]
    command += ["--size", str(shared), "--tmpfs", "/dev/shm"]
    command += ["--dev-bind", "/dev/null", "/dev/zero"]  # to map it is to have memory of nobody
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]


def course() -> list[tuple[Path, str]]:
    """What of the course a learner's process sees, and under which name."""
    grader = [f"slingshot_grader/{name}.py" for name in INSIDE]
    return [(SOURCE / name, name) for name in ["slingshot", *grader]]


def command(
    sandbox: Sandbox, files: Path, here: Path, secrets: Sequence[Path], memory: int = MEMORY
) -> list[str]:
    """Return the command of a worker, without its limits.

    ``files`` holds the learner's files; ``here`` is where they go when there is no sandbox.
    """
    python = [sys.executable, "-P", "-m", "slingshot_grader.worker"]
    if sandbox:
        shut_in = bubblewrap(sandbox.program, files, secrets, memory)
        return [*shut_in, *python, "--files", "/submission", "--here", str(HERE)]
    return [*python, "--files", str(files), "--here", str(here), "--open"]


def environment(sandbox: Sandbox, here: Path) -> dict[str, str]:
    """Return the environment of a worker: nothing of the instructor's but the way to programs.

    Without a sandbox the library is read from a folder beside ``here`` (:func:`lay_out`).
    """
    if sandbox:
        return {}
    names = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    folders = ("HOME", "IPYTHONDIR", "MPLCONFIGDIR", "TMPDIR", "USERPROFILE", "TEMP", "TMP")
    private = {name: str(here) for name in folders}  # the last three are Windows' names
    return {**ENVIRONMENT, **inherited, **private, "PYTHONPATH": str(beside(here))}


def beside(here: Path) -> Path:
    """Where a worker without a sandbox finds the library."""
    return here.with_name("course")


def lay_out(here: Path) -> None:
    """Copy the library to a folder of its own: where it lies, the checks could be imported."""
    for path, name in course():
        target = beside(here) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True, ignore=CACHES)
        else:
            shutil.copyfile(path, target)
