"""Create .venv and install the pinned requirements; a second call installs nothing.

Standard library only, and no syntax newer than Python 3.6, so that a Python that is too old can
still read this file and say so: annotations that it could not evaluate are in quotes.
"""

import argparse
import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINIMUM = (3, 11)

# Where PyTorch publishes the builds without CUDA. SLINGSHOT_TORCH_INDEX names another index;
# set to nothing, it leaves the choice of the build to pip.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_INDEX_SECONDS = 3.0

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLAYWRIGHTS_OWN = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""

# What pip and urllib3 print when an index cannot be reached, in the versions in use since 2023.
NO_NETWORK = re.compile(
    "NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError"
    "|SSLError|Max retries exceeded|Failed to establish a new connection|Connection refused"
    "|Temporary failure in name resolution|Name or service not known|Network is unreachable"
    "|Connection aborted|getaddrinfo failed"
)


class SetupError(Exception):
    """What went wrong and what to do about it, in one line."""


def main(argv: "list[str] | None" = None) -> int:
    """Run the set-up; return 0, or 1 after one line on standard error that says what to do."""
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    if sys.version_info < MINIMUM:
        return run_with_older_python(args.venv, sys.argv[1:] if argv is None else argv)
    try:
        with one_at_a_time(ROOT / "requirements.txt"):
            set_up(args)
    except SetupError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; the same command continues where it stopped")
        return 130
    except OSError as error:
        return fail(describe_os_error(error))
    return 0


def parse_arguments(argv: "list[str]") -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument(
        "--venv", type=Path, default=ROOT / ".venv", help="the environment (default: %(default)s)"
    )
    parser.add_argument(
        "--requirements",
        metavar="FILE",
        default="requirements.txt",
        help="what to install, relative to the project (default: %(default)s)",
    )
    parser.add_argument(
        "--dev",
        action="store_true",
        help="install requirements-dev.txt instead, and Chromium for the browser tests when absent",
    )
    args = parser.parse_args(argv)
    args.venv = Path(os.path.abspath(str(args.venv)))
    return args


def fail(message: str) -> int:
    """Print the one line that explains a failure."""
    print("set-up: " + message, file=sys.stderr)
    return 1


def say(message: str) -> None:
    """Print a line of progress."""
    print("set-up: " + message, flush=True)


def set_up(args: argparse.Namespace) -> None:
    """Bring the environment to the wanted state, doing only what is missing."""
    requirements = "requirements-dev.txt" if args.dev else args.requirements
    creating = args.venv / ".creating"
    if not args.venv.exists() or creating.exists():
        create_venv(args.venv, creating)
    reason = why_broken(args.venv)
    if reason:
        raise SetupError(
            f"{args.venv} is broken ({reason}): run `make distclean`, or delete that folder, then "
            "the same command again"
        )
    if not is_installed(args.venv, requirements):
        install(args.venv, requirements)
    if args.dev and not has_browser(args.venv):
        install_browser(args.venv)


# --- Pythons -------------------------------------------------------------------------------------


def run_with_older_python(venv: Path, argv: "list[str]") -> int:
    """Hand over to the environment's own Python if there is one; else say what is too old."""
    own = str(venv_python(venv))
    test = f"import sys; sys.exit(sys.version_info < {MINIMUM})"
    with contextlib.suppress(OSError):
        if sys.prefix != str(venv) and subprocess.call([own, "-c", test]) == 0:
            return subprocess.call([own, str(Path(__file__).resolve()), *argv])
    return fail(too_old(".".join(str(part) for part in sys.version_info[:3]), newer_pythons()))


def newer_pythons() -> "list[str]":
    """Return the commands on PATH that are recent enough, by their names."""
    names = [f"python3.{minor}" for minor in range(MINIMUM[1], 20)]
    return [name for name in names if shutil.which(name)]


def too_old(version: str, newer: "list[str]") -> str:
    """Say what was found and what to run instead."""
    found = "this is Python {}, and Slingshot needs {}.{} or newer".format(version, *MINIMUM)
    if newer:
        return found + f": {newer[0]} is installed, so run `make book PYTHON={newer[0]}`"
    return found + ": install one, then run, for example, `make book PYTHON=python3.12`"


def venv_python(venv: Path) -> Path:
    """Return the path of the environment's interpreter."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def create_venv(venv: Path, creating: Path) -> None:
    """Create the environment; ``creating`` exists while it is unfinished."""
    for module in ("venv", "ensurepip"):
        if not has_module(module):
            raise SetupError(
                "this Python has no module {}: on Debian or Ubuntu run "
                "`apt install python{}.{}-venv` as root, elsewhere install Python from "
                "python.org".format(module, *sys.version_info[:2])
            )
    say(f"creating {venv.name} with Python {platform.python_version()}")
    venv.mkdir(parents=True, exist_ok=True)
    creating.touch()
    for path in venv.iterdir():
        if path != creating:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    log = venv / "setup.log"
    must_run([sys.executable, "-m", "venv", str(venv)], log)
    creating.unlink()


def has_module(name: str) -> bool:
    """Whether this Python can import ``name``."""
    return importlib.util.find_spec(name) is not None


def why_broken(venv: Path) -> str:
    """Return what is wrong with an existing environment in a few words; nothing if it is sound."""
    python = venv_python(venv)
    if not python.exists():
        if python.is_symlink():
            return f"the Python that it was made with, {os.path.realpath(str(python))}, is gone"
        return "it has no python"
    probe = "import sys, pip; print(*sys.version_info[:2])"
    try:
        run = subprocess.run(
            [str(python), "-c", probe], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "its python does not run"
    if "No module named 'pip'" in run.stderr:
        return "pip is missing in it"
    if run.returncode != 0:
        return f"its python ends with exit code {run.returncode}"
    version = tuple(int(part) for part in run.stdout.split())
    if version < MINIMUM:
        return "its Python is {}.{}, and {}.{} is needed".format(*version, *MINIMUM)
    return "" if belongs_here(venv) else "it was made in another folder"


def belongs_here(venv: Path) -> bool:
    """Whether pip's script starts this environment's Python, and not that of a copied one."""
    script = venv_python(venv).with_name("pip")
    if os.name == "nt" or not script.exists():
        return True
    head = script.read_bytes()[:1000].decode("utf-8", "replace")
    # A path that is too long for #! or holds a space stands in the second line, after exec.
    match = re.match(r"#!/bin/sh\n'''exec' \"?(.+?)\"? \"\$0\"", head) or re.match(r"#!(.+)", head)
    if match is None:
        return True
    return os.path.realpath(os.path.dirname(match.group(1))) == os.path.realpath(
        str(venv_python(venv).parent)
    )


# --- Packages ------------------------------------------------------------------------------------


def requirement_files(name: str) -> "list[Path]":
    """Return the requirements file and those that it includes with -r."""
    path = ROOT / name
    if not path.exists():
        raise SetupError(f"{path} does not exist")
    included = re.findall(r"^-r\s+(\S+)", path.read_text("utf-8"), re.MULTILINE)
    return [path] + [file for name in included for file in requirement_files(path.parent / name)]


def key(venv: Path, name: str) -> str:
    """Hash everything that decides what gets installed."""
    digest = hashlib.sha256()
    for path in [*requirement_files(name), ROOT / "constraints.txt", ROOT / "pyproject.toml"]:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    digest.update((venv / "pyvenv.cfg").read_bytes())
    return digest.hexdigest()


def installed(venv: Path) -> "dict[str, str]":
    """Return the keys under which requirements files were installed completely."""
    try:
        stamps = json.loads((venv / "installed.json").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    names = [name for name in stamps if (ROOT / name).exists()]
    return {name: stamps[name] for name in names if stamps[name] == key(venv, name)}


def is_installed(venv: Path, requirements: str) -> bool:
    """Whether the file, or one that includes it, is installed as it now stands."""
    wanted = (ROOT / requirements).resolve()
    return any(
        wanted in [path.resolve() for path in requirement_files(name)] for name in installed(venv)
    )


def install(venv: Path, requirements: str) -> None:
    """Install a requirements file and the library itself, and note that it is done."""
    started = time.monotonic()
    log = venv / "setup.log"
    # What was installed before for other versions of these files no longer counts.
    write_atomically(venv / "installed.json", json.dumps(installed(venv)))
    files = requirement_files(requirements)
    # pip names a refused connection only when it retries; without, it says "no such package".
    pip = [str(venv_python(venv)), "-m", "pip", "install", "--retries=3", "--no-input"]
    pip.append("--disable-pip-version-check")
    constrained = [*pip, "-c", str(ROOT / "constraints.txt")]
    say(f"installing {requirements} (the first time takes minutes; pip writes to {log})")
    index = torch_index()
    torch = re.search(r"^torch==\S+", "\n".join(f.read_text("utf-8") for f in files), re.MULTILINE)
    if index and torch:
        say(f"no NVIDIA driver here: asking {index} for the CPU build of {torch.group()}")
        must_run([*constrained, "--extra-index-url", index, torch.group()], log)
    # setuptools builds the library in this environment, so that nothing unpinned is fetched for it.
    must_run([*constrained, "-r", str(files[0]), "setuptools"], log)
    library = [*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    must_run(library, log)
    stamps = dict(installed(venv), **{requirements: key(venv, requirements)})
    write_atomically(venv / "installed.json", json.dumps(stamps, indent=1) + "\n")
    say(f"{requirements} installed in {time.monotonic() - started:.0f} s")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step, so that an interruption leaves the old one."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, "utf-8")
    os.replace(str(temporary), str(path))


def torch_index() -> str:
    """Return the index to ask for torch's CPU build; nothing when pip should decide."""
    index = os.environ.get("SLINGSHOT_TORCH_INDEX", TORCH_INDEX)
    if not index or sys.platform != "linux" or has_nvidia_driver():
        return ""
    return index if answers(index.rstrip("/") + "/torch/", TORCH_INDEX_SECONDS) else ""


def has_nvidia_driver() -> bool:
    """Whether this machine could use a build of torch with CUDA."""
    return bool(shutil.which("nvidia-smi")) or os.path.exists("/proc/driver/nvidia")


def answers(url: str, seconds: float) -> bool:
    """Whether ``url`` answers with success within ``seconds``, the look-up of its name included."""
    success = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError):
            urllib.request.urlopen(url, timeout=seconds).close()
            success.set()

    # A socket's timeout does not cover the name look-up; waiting for a thread does.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return success.is_set()


# --- Browser -------------------------------------------------------------------------------------


def has_browser(venv: Path) -> bool:
    """Whether a Chromium, or Chrome, is on PATH, or Playwright has downloaded its own."""
    if any(shutil.which(name) for name in BROWSERS):
        return True
    ask = [str(venv_python(venv)), "-c", PLAYWRIGHTS_OWN]
    run = subprocess.run(ask, capture_output=True, text=True, check=False)
    return run.returncode == 0 and Path(run.stdout.strip()).is_file()


def install_browser(venv: Path) -> None:
    """Install Chromium with apt-get when that is allowed, else with Playwright."""
    say("installing Chromium for the browser tests")
    log = venv / "setup.log"
    if os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get"):
        run_logged(["apt-get", "update"], log)
        run_logged(["apt-get", "install", "-y", "--no-install-recommends", "chromium"], log)
    if not has_browser(venv):
        run_logged([str(venv_python(venv)), "-m", "playwright", "install", "chromium"], log)
    if not has_browser(venv):
        raise SetupError(
            f"no Chromium could be installed for the browser tests (see {log}): install Chromium "
            "or Google Chrome yourself, then run the same command again"
        )


# --- Processes -----------------------------------------------------------------------------------


def must_run(command: "list[str]", log: Path) -> None:
    """Run a step of the installation; raise ``SetupError`` with one line when it fails."""
    code, output = run_logged(command, log)
    if code != 0:
        raise SetupError(why_failed(output, log))


def run_logged(command: "list[str]", log: Path) -> "tuple[int, str]":
    """Run a command with its output in ``log``; return its exit code and that output."""
    with open(str(log), "ab") as stream:
        start = stream.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            watch(process, log)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    with open(str(log), "rb") as written:
        written.seek(start)
        return process.returncode, written.read().decode("utf-8", "replace")


def watch(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait, showing the log's last line: each second on a terminal, every 20 seconds elsewhere."""
    terminal = sys.stdout.isatty()
    started = time.monotonic()
    for tick in range(1, 10**9):
        try:
            process.wait(timeout=1)
            break
        except subprocess.TimeoutExpired:
            line = f"  {time.monotonic() - started:3.0f} s  {last_line(log)}"
        if terminal:
            width = shutil.get_terminal_size().columns - 1
            print("\r\x1b[K" + line[:width], end="", flush=True)
        elif tick % 20 == 0:
            print(line[:100], flush=True)
    if terminal:
        print("\r\x1b[K", end="", flush=True)


def last_line(log: Path) -> str:
    """Return the last line of a file that is not blank."""
    lines = log.read_bytes()[-4000:].decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def why_failed(output: str, log: Path) -> str:
    """Turn the output of a failed pip into one line that says what to do."""
    if "No space left on device" in output:
        return f"the disk is full: the environment needs about 3 GB (see {log})"
    if NO_NETWORK.search(output):
        return (
            "the package index cannot be reached: check the network, the proxy settings and "
            f"`pip config list`, then run the same command again (pip's own words: {log})"
        )
    missing = re.search(r"No matching distribution found for (\S+)", output)
    if missing:
        return (
            f"pip finds no {missing.group(1)} for Python {platform.python_version()} on "
            f"{platform.system()} {platform.machine()}: try another Python version, "
            f"with `make distclean` first (see {log})"
        )
    lines = [line for line in output.split("\n") if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no output"]
    return f"installation failed: {errors[-1].strip()} (see {log})"


def describe_os_error(error: OSError) -> str:
    """Turn an error of the operating system into one line."""
    if error.errno == errno.ENOSPC:
        return "the disk is full: the environment needs about 3 GB"
    return f"{error.filename or 'the operating system'}: {error.strerror or error}"


@contextlib.contextmanager
def one_at_a_time(path: Path) -> "Iterator[None]":
    """Hold a lock on ``path``, so that two makes do not install into one environment at once."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(str(path)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this folder")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
