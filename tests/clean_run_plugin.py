"""Keeps a run of the tests apart from the machine, and says at its end what was not as it should.

``conftest.py`` registers this plugin. A run has temporary files, and settings of IPython and
Jupyter, of its own. It opens no connection to another machine. It fails if it leaves the working
tree of the course other than it was, and names the files. Each reason for a skipped test is printed
once. Where ``CI`` is set a skipped test fails, unless what it needs is optional.
"""

import hashlib
import ipaddress
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
OPTIONAL = "optional: "
"""How the reason begins for which a test may be skipped anywhere."""

BUILT = {
    ".git", ".venv", "_build", "build", "dist", "workspace", "__pycache__", ".ipynb_checkpoints",
    ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis",
}  # fmt: skip
OWN_SETTINGS = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")

tree = pytest.StashKey[dict[str, str]]()
changes = pytest.StashKey[list[str]]()
temporary = pytest.StashKey[Path]()


# --- the working tree ----------------------------------------------------------------------------


def files_of(root: Path) -> Iterator[Path]:
    """The files of the course: those that git has or would take, or all where there is no git."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others"]
    try:
        run = subprocess.run([*command, "--exclude-standard"], capture_output=True, check=False)
    except OSError:
        run = None
    if run is not None and run.returncode == 0:
        yield from {root / os.fsdecode(name) for name in run.stdout.split(b"\0") if name}
        return
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in BUILT]
        yield from (Path(folder, name) for name in names)


def digests(root: Path) -> dict[str, str]:
    """What the files hold, by their names below ``root``."""
    found = {}
    for path in files_of(root):
        if path.is_file():
            found[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """A line for each file that is new, gone or changed."""
    return [
        f"{'new' if name not in before else 'gone' if name not in after else 'changed'}: {name}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


# --- other machines ------------------------------------------------------------------------------

SENDS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo")


class OtherMachineError(Exception):
    """A test was about to reach another machine than this one."""


def is_here(host: object) -> bool:
    """Whether a host is this machine's loopback, or no host at all."""
    text = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    if text == "localhost":
        return True
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


def keep_here(event: str, arguments: tuple[Any, ...]) -> None:
    """Stop what would reach another machine. An audit hook: Python calls it before it sends."""
    if event not in SENDS:
        return
    target = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
    host = target[0] if isinstance(target, tuple) and target else target
    is_path = event != "socket.getaddrinfo" and not isinstance(target, tuple)
    if not is_path and not is_here(host):
        raise OtherMachineError(f"a test was about to reach {host!r}; tests stay on the loopback")


# --- the hooks -----------------------------------------------------------------------------------


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of several processes; the first of them does what is done once."""
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a temporary folder, and settings that are nobody's."""
    sys.addaudithook(keep_here)
    if is_worker(config):  # the rest it has inherited
        return
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # pytest keeps its own
    folder = Path(tempfile.mkdtemp(prefix="slingshot-"))  # a short name: sockets lie in it
    config.stash[temporary] = folder
    for name in ("TMPDIR", *OWN_SETTINGS):
        (folder / name.lower()).mkdir()
        os.environ[name] = str(folder / name.lower())
    tempfile.tempdir = None
    os.environ["HF_HUB_OFFLINE"] = "1"  # transformers is compared with, and brings nothing
    config.stash[tree] = digests(ROOT)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what was left in the temporary folder."""
    if temporary in config.stash:
        shutil.rmtree(config.stash[temporary], ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where the course is not as it was."""
    if tree not in session.config.stash:
        return
    found = differences(session.config.stash[tree], digests(ROOT))
    session.config.stash[changes] = found
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a skipped test fail in CI, where everything that is not optional is there."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and must_run(reason_of(report)):
        report.outcome = "failed"
        report.longrepr = f"CI skips no test, and this one was skipped: {reason_of(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Let a skipped file fail there, too."""
    report = yield
    if report.skipped and must_run(reason_of(report)):
        reason = reason_of(report)
        report.outcome = "failed"
        report.longrepr = f"CI skips no file, and this one was skipped: {reason}"
    return report


def must_run(reason: str) -> bool:
    """Whether a test may not be skipped for this reason here."""
    return os.environ.get("CI", "").lower() in ("1", "true") and not reason.startswith(OPTIONAL)


def reason_of(report: Any) -> str:  # noqa: ANN401 of a test or of a file
    """Why something was skipped."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: Any) -> None:  # noqa: ANN401
    """Say why tests were skipped, and which files of the course are not as they were."""
    for line in closing_lines(terminalreporter):
        terminalreporter.write_line(line)


def closing_lines(terminalreporter: Any) -> Iterator[str]:  # noqa: ANN401
    """Each reason for skipping once, then the files."""
    reasons = Counter(reason_of(report) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in sorted(reasons.items()):
        yield f"skipped {count} test{'s' * (count != 1)}: {reason or 'no reason was given'}"
    found = terminalreporter.config.stash.get(changes, [])
    if found:
        yield "the working tree of the course was changed while the tests ran:"
        yield from found
