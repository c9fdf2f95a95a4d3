"""How the learner's process is shut in: bubblewrap, where it is there and works.

Inside there is no network and no other process; the file system holds Python, its packages and the
library of the course, all read-only, and one temporary folder of bounded size. The assignments'
source edition, the tests and the other submissions are not there at all.
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
INSIDE = Path("/tmp/learner")
TEMPORARY_BYTES = 256_000_000

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
    "PYTHONPATH": str(SOURCE),
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
    """What the learner's process may read: the system's programs, Python, its packages, slingshot.

    A folder within another one of the list is left out.
    """
    system = [Path(name) for name in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")]
    files = [Path(name) for name in ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")]
    python = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]]
    course = [SOURCE / name for name in ("slingshot", "slingshot_exercises", "slingshot_grader")]
    found = [path for path in [*system, *files, *python, *course] if path.exists()]
    return tuple(
        path
        for path in dict.fromkeys(found)
        if not any(inside(path, p) for p in found if p != path)
    )


def inside(path: Path, folder: Path) -> bool:
    """Whether ``path`` lies in ``folder``, by its name."""
    return path.is_relative_to(folder)


def bubblewrap(program: str, files: Path, secrets: Sequence[Path] = ()) -> list[str]:
    """Return the beginning of a command that shuts in what follows.

    ``files`` is the folder of the learner's files, seen inside as ``/submission``. Each of
    ``secrets`` that lies within a readable folder is covered by an empty one.
    """
    command = [program, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
    command += ["--cap-drop", "ALL", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    size = ["--size", str(TEMPORARY_BYTES), "--tmpfs"]
    command += [*size, "/tmp"]  # first: the course may lie in it
    for path in readable():
        if path.is_symlink() and len(path.parts) == 2:  # /bin is a link to usr/bin
            command += ["--symlink", os.readlink(path), str(path)]
        else:
            command += ["--ro-bind", str(path), str(path)]
    for secret in secrets:
        if any(inside(secret.resolve(), path.resolve()) for path in readable()):
            command += ["--size", "4096", "--tmpfs", str(secret.resolve())]
    command += ["--ro-bind", str(files), "/submission", "--proc", "/proc", "--dev", "/dev"]
    command += [*size, "/dev/shm"]
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]


def command(sandbox: Sandbox, files: Path, here: Path, secrets: Sequence[Path]) -> list[str]:
    """Return the command of a worker, without its limits.

    ``files`` holds the learner's files; ``here`` is where they go when there is no sandbox.
    """
    python = [sys.executable, "-P", "-m", "slingshot_grader.worker"]
    if sandbox:
        shut_in = bubblewrap(sandbox.program, files, secrets)
        return [*shut_in, *python, "--files", "/submission", "--here", str(INSIDE)]
    return [*python, "--files", str(files), "--here", str(here)]


def environment(sandbox: Sandbox, here: Path) -> dict[str, str]:
    """Return the environment of a worker: nothing of the instructor's but the way to programs."""
    if sandbox:
        return {}
    names = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    folders = ("HOME", "IPYTHONDIR", "MPLCONFIGDIR", "TMPDIR", "USERPROFILE", "TEMP", "TMP")
    private = {name: str(here) for name in folders}  # the last three are Windows' names
    return {**ENVIRONMENT, **inherited, **private}
