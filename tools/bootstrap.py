"""Create .venv and install the pinned requirements; a second call installs nothing.

An environment that was moved or damaged is mended, or made again, and what was wrong is said.
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
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console, inherited, venv_state  # noqa: E402
from tools.common.files import write_atomically  # noqa: E402
from tools.common.venv_state import venv_python  # noqa: E402

# The Pythons for which every pinned package has a wheel.
OLDEST, NEWEST = (3, 11), (3, 14)
RANGE = "{}.{} to {}.{}".format(*OLDEST, *NEWEST)

# Where PyTorch publishes the builds without CUDA. SLINGSHOT_TORCH_INDEX names another index;
# set to nothing, it leaves the choice of the build to pip.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_INDEX_SECONDS = 3.0

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APT = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
WHY_NO_SANDBOX = """
from slingshot_grader.sandbox import find_sandbox
print(find_sandbox().why_not)
"""
PLAYWRIGHTS_OWN = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""

# The library is no package of an index: where it lies is written down in a file of this name.
LIBRARY = venv_state.LIBRARY
LIBRARY_PATH = "slingshot_course.pth"
METADATA_OF_LIBRARY = """
import sys
from setuptools import build_meta
build_meta.prepare_metadata_for_build_wheel(sys.argv[1])
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
    if not is_fit(sys.version_info[:2]):
        return run_with_other_python(args.venv, sys.argv[1:] if argv is None else argv)
    try:
        with one_at_a_time(ROOT / "requirements.txt"):
            set_up(args)
    except (SetupError, inherited.ConfigurationError) as error:
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
        help="install requirements-dev.txt instead, and Chromium and bubblewrap if absent",
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
    make_usable(args.venv)
    mend(args.venv)
    if not is_installed(args.venv, requirements):
        install(args.venv, requirements)
    if args.dev:
        install_programs(args.venv)
        for line in skipped_tests(args.venv):
            say(line)


def make_usable(venv: Path) -> None:
    """Create the environment, or make it anew where it cannot be used."""
    creating = venv / ".creating"
    if venv.exists() and not venv.is_dir():
        raise SetupError(f"{venv} is no folder: delete it, then run the same command again")
    if venv.exists() and not creating.exists():
        reason = venv_state.why_unusable(venv, OLDEST, NEWEST)
        if not reason:
            return
        if not venv_state.may_be_emptied(venv, ROOT / ".venv"):
            raise SetupError(
                f"{venv} is no environment ({reason}): name another folder, or move it"
            )
        say(f"{venv.name} cannot be used: {reason}")
    create_venv(venv, creating)


def mend(venv: Path) -> None:
    """Forget packages whose files are not as they were installed, so that pip brings them again."""
    known = recorded_versions(venv)
    present = venv_state.versions(venv, set(known))
    faults = {}
    for name, version in known.items():
        if name not in present:
            faults[name] = "it is missing"
        elif present[name] != version:
            faults[name] = f"it is version {present[name]} in place of {version}"
    faults.update(venv_state.damage(venv, pinned_names()))
    if not faults:
        return
    name, fault = next(iter(faults.items()))
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    say(f"{venv.name} is damaged: {name} ({fault}){more}")
    for _, _, metadata in venv_state.records(venv, set(faults)):
        shutil.rmtree(str(metadata))
    write_atomically(venv / "installed.json", "{}")


# --- Pythons -------------------------------------------------------------------------------------


def is_fit(version: "tuple[int, ...]") -> bool:
    """Whether every pinned package can be had for a Python, given by two numbers."""
    return OLDEST <= version <= NEWEST and platform.python_implementation() == "CPython"


def run_with_other_python(venv: Path, argv: "list[str]") -> int:
    """Hand over to the environment's own Python if it is fit; else say what this one is not."""
    own = str(venv_python(venv))
    test = f"import sys; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"
    env = inherited.environment()
    with contextlib.suppress(OSError):
        if sys.prefix != str(venv) and subprocess.call([own, "-c", test], env=env) == 0:
            return subprocess.call([own, str(Path(__file__).resolve()), *argv], env=env)
    found = f"{platform.python_implementation()} {platform.python_version()}"
    return fail(unfit(found, fit_pythons()))


def fit_pythons() -> "list[str]":
    """Return the commands on PATH that would do, by their names."""
    names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
    return [name for name in names if shutil.which(name)]


def unfit(found: str, others: "list[str]") -> str:
    """Say what was found and what to run instead."""
    line = f"this is {found}, and Slingshot needs CPython {RANGE}"
    if others:
        return line + f": {others[0]} is installed, so run `make book PYTHON={others[0]}`"
    return line + ": install one, then run, for example, `make book PYTHON=python3.12`"


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
    must_run([sys.executable, "-m", "venv", str(venv)], log, inherited.environment())
    creating.unlink()


def has_module(name: str) -> bool:
    """Whether this Python can import ``name``."""
    return importlib.util.find_spec(name) is not None


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


def pinned_names() -> "set[str]":
    """Return the packages that the set-up answers for, the library itself included."""
    files = [ROOT / "constraints.txt", *ROOT.glob("requirements*.txt")]
    pins = [venv_state.pinned(path.read_text("utf-8")) for path in files]
    return {LIBRARY, *(name for each in pins for name in each)}


def recorded_versions(venv: Path) -> "dict[str, str]":
    """Return what the last installation left, by name; nothing where none was completed."""
    try:
        versions = json.loads((venv / "versions.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return versions if isinstance(versions, dict) else {}


def install(venv: Path, requirements: str) -> None:
    """Install a requirements file and the library itself, and note that it is done."""
    started = time.monotonic()
    log = venv / "setup.log"
    # What was installed before for other versions of these files no longer counts.
    write_atomically(venv / "installed.json", json.dumps(installed(venv)))
    write_atomically(venv / "versions.json", "{}")
    files = requirement_files(requirements)
    # pip names a refused connection only when it retries; without, it says "no such package".
    pip = [str(venv_python(venv)), "-m", "pip", "install", "--retries=3", "--no-input"]
    pip += ["--disable-pip-version-check", "-c", str(ROOT / "constraints.txt")]
    env = inherited.for_pip(pip[0])
    say(f"installing {requirements} (the first time takes minutes; pip writes to {log})")
    index = torch_index()
    torch = re.search(r"^torch==\S+", "\n".join(f.read_text("utf-8") for f in files), re.MULTILINE)
    if index and torch:
        say(f"no NVIDIA driver here: asking {index} for the CPU build of {torch.group()}")
        must_run([*pip, "--extra-index-url", index, torch.group()], log, env)
    # setuptools describes the library in this environment: nothing unpinned is fetched for it.
    must_run([*pip, "-r", str(files[0]), "setuptools"], log, env)
    install_library(venv, log)
    versions = venv_state.versions(venv, pinned_names())
    write_atomically(venv / "versions.json", json.dumps(versions, indent=1) + "\n")
    stamps = dict(installed(venv), **{requirements: key(venv, requirements)})
    write_atomically(venv / "installed.json", json.dumps(stamps, indent=1) + "\n")
    say(f"{requirements} installed in {time.monotonic() - started:.0f} s")


def install_library(venv: Path, log: Path) -> None:
    """Let the environment find the library in src/, as an editable installation would.

    pip's own writes the folder's path in the encoding of the moment, which a Python started under
    another locale cannot read, and which some cannot spell. What is written here is ASCII.
    """
    site = venv_state.site_packages(venv)
    for old in [*site.glob("slingshot_course-*"), *site.glob("__editable__*slingshot*")]:
        shutil.rmtree(str(old)) if old.is_dir() else old.unlink()
    with tempfile.TemporaryDirectory(dir=str(venv)) as empty:
        describe = [str(venv_python(venv)), "-c", METADATA_OF_LIBRARY, empty]
        must_run(describe, log, inherited.environment(), ROOT)
        (written,) = Path(empty).glob("*.dist-info")
        metadata = site / written.name
        os.replace(str(written), str(metadata))
    (site / LIBRARY_PATH).write_text(path_line(ROOT / "src", site) + "\n", "ascii")
    (metadata / "INSTALLER").write_text("slingshot\n", "ascii")
    origin = {"url": ROOT.as_uri(), "dir_info": {"editable": True}}
    (metadata / "direct_url.json").write_text(json.dumps(origin), "ascii")
    files = [path for path in metadata.rglob("*") if path.is_file()]
    lines = [f"{path.relative_to(site).as_posix()},,\n" for path in [*files, site / LIBRARY_PATH]]
    record = metadata / "RECORD"
    record.write_text("".join([*lines, record.relative_to(site).as_posix() + ",,\n"]), "ascii")


def path_line(source: Path, site: Path) -> str:
    """Return the line of a .pth file that puts ``source`` on the path, in ASCII."""
    with contextlib.suppress(ValueError, UnicodeEncodeError):  # another drive; other letters
        line = os.path.relpath(os.path.realpath(str(source)), os.path.realpath(str(site)))
        line.encode("ascii")
        return line
    return f"import sys; sys.path.append({os.path.realpath(str(source))!a})"


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


# --- Programs ------------------------------------------------------------------------------------


def has_browser(venv: Path) -> bool:
    """Whether a Chromium, or Chrome, is on PATH, or Playwright has downloaded its own."""
    if any(shutil.which(name) for name in BROWSERS):
        return True
    code, answer = ask(venv, PLAYWRIGHTS_OWN)
    return code == 0 and Path(answer).is_file()


def install_programs(venv: Path) -> None:
    """Install Chromium and bubblewrap, which the tests use, with apt-get where that is allowed.

    Chromium can also come from Playwright, and must come; without bubblewrap tests are skipped.
    """
    absent = [] if has_browser(venv) else ["chromium"]
    absent += [] if shutil.which("bwrap") or sys.platform != "linux" else ["bubblewrap"]
    log = venv / "setup.log"
    if absent and os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing {' and '.join(absent)} for the tests")
        run_logged(["apt-get", "update"], log)
        for name in absent:  # one by one: where one cannot be had, the other may
            run_logged(["apt-get", "install", "-y", "--no-install-recommends", name], log, APT)
    if has_browser(venv):
        return
    say("downloading Chromium for the tests")
    run_logged([str(venv_python(venv)), "-m", "playwright", "install", "chromium"], log)
    if not has_browser(venv):
        raise SetupError(
            f"no Chromium could be installed for the browser tests (see {log}): install Chromium "
            "or Google Chrome yourself, then run the same command again"
        )


def skipped_tests(venv: Path) -> "list[str]":
    """Say which tests will be skipped and why, a line for each reason."""
    code, why_not = ask(venv, WHY_NO_SANDBOX)
    lines = [f"tests of the sandbox will be skipped: {why_not}"] if code or why_not else []
    code, _ = ask(venv, "import reasoning_gym")
    if code:
        lines.append(
            "tests of generators from reasoning-gym will be skipped: it is optional, and needs a C "
            f"compiler ({venv_python(venv)} -m pip install reasoning-gym==0.1.25)"
        )
    return lines


def ask(venv: Path, code: str) -> "tuple[int, str]":
    """Run a few lines in the environment, in the project; return exit code and what they print."""
    run = subprocess.run(
        [str(venv_python(venv)), "-c", code],
        capture_output=True,
        env=inherited.environment(),
        cwd=str(ROOT),
        check=False,
    )
    return run.returncode, run.stdout.decode("utf-8", "replace").strip()


# --- Processes -----------------------------------------------------------------------------------


def must_run(
    command: "list[str]", log: Path, env: "dict[str, str]", folder: "Path | None" = None
) -> None:
    """Run a step of the installation; raise ``SetupError`` with one line when it fails."""
    code, output = run_logged(command, log, env, folder)
    if code != 0:
        raise SetupError(why_failed(output, log))


def run_logged(
    command: "list[str]",
    log: Path,
    env: "dict[str, str] | None" = None,
    folder: "Path | None" = None,
) -> "tuple[int, str]":
    """Run a command with its output in ``log``; return its exit code and that output."""
    with open(str(log), "ab") as stream:
        start = stream.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=inherited.environment() if env is None else env,
            cwd=None if folder is None else str(folder),
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
            f"{platform.system()} {platform.machine()}: try another Python of {RANGE}, "
            f"with `make distclean` first (see {log})"
        )
    lines = [line for line in output.split("\n") if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no output"]
    return f"installation failed: {errors[-1].strip()[:300]} (see {log})"


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
    console.prepare("make setup")
    sys.exit(main())
