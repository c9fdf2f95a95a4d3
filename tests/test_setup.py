"""The set-up: what it installs and mends, what it inherits, and how the scripts speak."""

import ast
import contextlib
import errno
import http.server
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import bootstrap  # noqa: E402
from tools.common import console, inherited, venv_state  # noqa: E402

# A developer's proxy must not answer for the indexes of these tests.
NO_PROXY = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

PATIENCE = 60.0
"""Seconds for what takes a moment: a busy machine changes no result."""

# --- bootstrap: what is wrong, in one line -----------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that consists of the set-up script and one package that does not exist."""
    (tmp_path / "tools").mkdir()
    for name in ("__init__.py", "bootstrap.py"):
        shutil.copy(ROOT / "tools" / name, tmp_path / "tools")
    shutil.copytree(ROOT / "tools" / "common", tmp_path / "tools" / "common")
    (tmp_path / "requirements.txt").write_text("no-such-package-of-ours==1\n")
    (tmp_path / "requirements-dev.txt").write_text("-r requirements.txt\n")
    (tmp_path / "constraints.txt").touch()
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def set_up(project: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the project's set-up with a pip that knows one index, on a port where nobody listens."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("PIP_")}
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/", **NO_PROXY}
    return subprocess.run(
        [sys.executable, str(project / "tools" / "bootstrap.py"), *arguments],
        env={**inherited, **pip, "SLINGSHOT_TORCH_INDEX": "", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def the_line(run: subprocess.CompletedProcess[str]) -> str:
    """The one line on standard error of a run that failed as it should."""
    assert run.returncode == 1, run
    lines = run.stderr.splitlines()
    assert len(lines) == 1, run.stderr
    return lines[0]


def at_start(folder: Path, code: str) -> dict[str, str]:
    """Environment in which every Python runs ``code`` before anything else."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


def executable(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def unreadable_for_old_pythons(source: str) -> list[str]:
    """What in ``source`` a Python 3.6 could not parse, or not evaluate while it reads it."""
    try:
        tree = ast.parse(source, feature_version=(3, 6))
    except SyntaxError as error:
        return [str(error)]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    hints = [node.returns for node in functions]
    hints += [arg.annotation for node in functions for arg in node.args.args + node.args.kwonlyargs]
    return [ast.unparse(hint) for hint in hints if isinstance(hint, ast.Subscript | ast.BinOp)]


SETUP = [ROOT / "tools" / "bootstrap.py", *sorted((ROOT / "tools" / "common").glob("*.py"))]


@pytest.mark.parametrize("path", SETUP, ids=lambda path: path.name)
def test_an_old_python_can_read_the_script(path: Path) -> None:
    assert not unreadable_for_old_pythons(path.read_text("utf-8"))


@pytest.mark.parametrize("line", ["if (a := 1): pass", "def f() -> list[int]: ..."])
def test_what_an_old_python_cannot_read_is_noticed(line: str) -> None:
    assert unreadable_for_old_pythons(line)


@pytest.mark.parametrize("version", [(3, 9, 2), (3, 10, 13), (3, 15, 0)])
def test_an_unfit_python_names_one_that_is_fit(
    project: Path, tmp_path: Path, version: tuple[int, int, int]
) -> None:
    executable(tmp_path / "bin" / "python3.12", "true")
    executable(tmp_path / "bin" / "python3.15", "true")
    other = at_start(tmp_path / "site", pretend(version))
    line = the_line(set_up(project, PATH=str(tmp_path / "bin"), **other))
    assert "{}.{}.{}".format(*version) in line
    assert "3.11 to 3.14" in line
    assert "`make book PYTHON=python3.12`" in line
    assert not (project / ".venv").exists()


def pretend(version: tuple[int, int, int]) -> str:
    """Code after which Python says that it is another one."""
    number = "{}.{}.{}".format(*version)
    return (
        f"import platform, sys; sys.version_info = {version}; "
        f"platform.python_version = lambda: {number!r}"
    )


def test_another_implementation_is_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bootstrap.is_fit((3, 11))
    monkeypatch.setattr("platform.python_implementation", lambda: "PyPy")
    assert not bootstrap.is_fit((3, 11))


def test_an_unfit_python_alone_asks_for_another() -> None:
    assert "install one" in bootstrap.unfit("CPython 3.9.2", [])


def test_an_old_python_hands_over_to_a_sound_environment(project: Path, tmp_path: Path) -> None:
    own = 'if [ "$1" = -c ]; then exit 0; fi; echo "handed over: $2"'
    executable(project / ".venv" / "bin" / "python", own)
    old = at_start(tmp_path / "site", pretend((3, 9, 2)))
    run = set_up(project, "--dev", **old)
    assert (run.returncode, run.stdout) == (0, "handed over: --dev\n")


def test_a_python_without_ensurepip(project: Path, tmp_path: Path) -> None:
    env = at_start(tmp_path / "site", "import sys; sys.modules['ensurepip'] = None")
    assert "-venv` as root" in the_line(set_up(project, **env))


SOUND = "echo 3 12"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda venv: venv.mkdir(), "no python"),
    "dangling": (lambda venv: dangle(venv / "bin" / "python"), "/gone/python3.11, is gone"),
    "failing": (lambda venv: executable(venv / "bin" / "python", "exit 3"), "exit code 3"),
    "not a program": (lambda venv: garbage(venv / "bin" / "python"), "does not run"),
    "old": (lambda venv: executable(venv / "bin" / "python", "echo 3 9"), "its Python is 3.9"),
    "new": (lambda venv: executable(venv / "bin" / "python", "echo 3 15"), "its Python is 3.15"),
    "without pip": (
        lambda venv: executable(
            venv / "bin" / "python",
            "echo \"ModuleNotFoundError: No module named 'pip'\" >&2; exit 1",
        ),
        "pip is missing",
    ),
    "half of pip": (lambda venv: half_of_pip(venv), "pip is damaged: pip/main.py is missing"),
    "bare": (lambda venv: executable(venv / "bin" / "python", SOUND), "pyvenv.cfg is missing"),
    "copied": (lambda venv: made_in(venv, "/somewhere/else/.venv"), "made in another folder"),
    "copied with a space": (lambda venv: made_in(venv, "/a b/.venv"), "made in another folder"),
}


def dangle(link: Path) -> None:
    link.parent.mkdir(parents=True)
    link.symlink_to("/gone/python3.11")


def garbage(path: Path) -> None:
    executable(path, "")
    path.write_bytes(b"\x7fELF")


def made_in(venv: Path, place: str) -> None:
    executable(venv / "bin" / "python", SOUND)
    command = f"command = /usr/bin/python3 -m venv --copies {place}\n"
    (venv / "pyvenv.cfg").write_text("version = 3.12.1\n" + command, "utf-8")


def half_of_pip(venv: Path) -> None:
    made_in(venv, str(venv))
    package(venv, "pip", "24.0", {"pip/__init__.py": "", "pip/main.py": ""})
    (venv / "lib" / "python3.12" / "site-packages" / "pip" / "main.py").unlink()


def package(venv: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """Put a package there as pip would; return the folder of its metadata."""
    site = venv / "lib" / "python3.12" / "site-packages"
    metadata = site / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text, "utf-8")
    rows = [f"{path},sha256=x,{len(text.encode())}\n" for path, text in files.items()]
    rows += [f"{metadata.name}/RECORD,,\n", f"{name}/__pycache__/m.cpython-312.pyc,,\n"]
    (metadata / "RECORD").write_text("".join(rows), "utf-8")
    return metadata


@pytest.mark.parametrize("how", BROKEN)
def test_an_environment_that_cannot_be_used_is_made_anew(
    project: Path, monkeypatch: pytest.MonkeyPatch, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, reason = BROKEN[how]
    venv = project / ".venv"
    damage(venv)
    (venv / "old").touch()
    monkeypatch.setattr(bootstrap, "ROOT", project)
    commands: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "must_run", lambda command, *_: commands.append(command))
    bootstrap.make_usable(venv)
    assert reason in capsys.readouterr().out
    assert commands == [[sys.executable, "-m", "venv", str(venv)]]
    assert os.listdir(venv) == []


@pytest.mark.parametrize("place", ["elsewhere", ".venv"])
def test_what_is_no_environment_is_not_emptied(project: Path, place: str) -> None:
    documents = project / "documents"
    documents.mkdir()
    (documents / "thesis.txt").write_text("ten years")
    if place == ".venv":  # a link to a folder of other things
        (project / ".venv").symlink_to(documents)
    line = the_line(set_up(project, *([] if place == ".venv" else ["--venv", str(documents)])))
    assert "is no environment" in line
    assert (documents / "thesis.txt").read_text() == "ten years"


def test_a_file_in_place_of_the_environment_takes_one_line(project: Path) -> None:
    (project / ".venv").write_text("another-venv\n")
    assert "is no folder: delete it" in the_line(set_up(project))


@pytest.mark.parametrize("folder", ["plain", "with space", "Ü日本 kurs", "a'b$c%d (e)"])
def test_a_sound_environment_is_used(tmp_path: Path, folder: str) -> None:
    venv = tmp_path / folder / ".venv"
    made_in(venv, str(venv))
    package(venv, "pip", "24.0", {"pip/__init__.py": ""})
    assert venv_state.why_unusable(venv, (3, 11), (3, 14)) == ""
    other = tmp_path / "link"
    other.symlink_to(tmp_path / folder)
    assert venv_state.why_unusable(other / ".venv", (3, 11), (3, 14)) == ""


def test_no_network_after_an_interrupted_creation(project: Path) -> None:
    venv = project / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / ".creating").touch()
    (venv / "half").touch()
    run = set_up(project)
    line = the_line(run)
    assert "creating .venv" in run.stdout
    assert not (venv / "half").exists()
    assert "index cannot be reached" in line
    assert str(venv / "setup.log") in line
    assert "Connection refused" in (venv / "setup.log").read_text()
    assert json.loads((venv / "installed.json").read_text()) == {}


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        (
            "WARNING: x\nERROR: No matching distribution found for torch==2.13.0\n",
            "no torch==2.13.0",
        ),
        ("ERROR: a\nERROR: something new\n\n", "ERROR: something new"),
        ("", "no output"),
    ],
)
def test_why_pip_failed(output: str, words: str) -> None:
    line = bootstrap.why_failed(output, Path("setup.log"))
    assert words in line
    assert "setup.log" in line
    assert "\n" not in line


def test_errors_of_the_system_and_interruptions_take_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, code, words in [
        (OSError(28, "No space left on device"), 1, "disk is full"),
        (PermissionError(13, "Permission denied", "/x/.venv"), 1, "/x/.venv: Permission denied"),
        (KeyboardInterrupt(), 130, "continues where it stopped"),
    ]:

        def stop(args: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(bootstrap, "set_up", stop)
        assert bootstrap.main([]) == code
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert words in lines[0]


# --- bootstrap: what gets installed, and when --------------------------------------------------


@pytest.fixture
def pip(project: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Set the script up on ``project``, with a pip that only writes down what it was asked."""
    commands: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "ROOT", project)
    monkeypatch.setattr(bootstrap, "must_run", lambda command, *_: commands.append(command))
    monkeypatch.setattr(bootstrap, "install_library", lambda venv, log: None)
    monkeypatch.setattr(inherited, "for_pip", lambda python: {})
    monkeypatch.setenv("SLINGSHOT_TORCH_INDEX", "")
    (project / ".venv").mkdir()
    (project / ".venv" / "pyvenv.cfg").write_text("version = 3.11.7")
    return commands


def test_the_second_call_installs_nothing(project: Path, pip: list[list[str]]) -> None:
    venv = project / ".venv"
    assert not bootstrap.is_installed(venv, "requirements.txt")
    bootstrap.install(venv, "requirements.txt")
    wanted = str(project / "requirements.txt")
    assert [command[-3:] for command in pip] == [["-r", wanted, "setuptools"]]
    assert bootstrap.is_installed(venv, "requirements.txt")
    assert not bootstrap.is_installed(venv, "requirements-dev.txt")
    bootstrap.install(venv, "requirements-dev.txt")
    assert bootstrap.is_installed(venv, "requirements-dev.txt")


def test_the_larger_set_includes_the_smaller(project: Path, pip: list[list[str]]) -> None:
    bootstrap.install(project / ".venv", "requirements-dev.txt")
    assert bootstrap.is_installed(project / ".venv", "requirements.txt")


@pytest.mark.parametrize(
    "name", ["requirements.txt", "constraints.txt", "pyproject.toml", ".venv/pyvenv.cfg"]
)
def test_a_changed_file_installs_again(project: Path, pip: list[list[str]], name: str) -> None:
    bootstrap.install(project / ".venv", "requirements-dev.txt")
    with open(project / name, "a") as file:
        file.write("# changed\n")
    assert not bootstrap.is_installed(project / ".venv", "requirements-dev.txt")


def test_an_older_stamp_does_not_come_back(project: Path, pip: list[list[str]]) -> None:
    bootstrap.install(project / ".venv", "requirements-dev.txt")
    before = (project / "constraints.txt").read_text()
    (project / "constraints.txt").write_text("numpy==1\n")
    bootstrap.install(project / ".venv", "requirements.txt")
    (project / "constraints.txt").write_text(before)
    assert not bootstrap.is_installed(project / ".venv", "requirements-dev.txt")


def test_an_interrupted_installation_leaves_no_stamp(
    project: Path, pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bootstrap, "must_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bootstrap.install(project / ".venv", "requirements.txt")
    assert not bootstrap.is_installed(project / ".venv", "requirements.txt")


class Index(http.server.BaseHTTPRequestHandler):
    """A package index that has torch alone."""

    def do_GET(self) -> None:
        found = self.path == "/whl/cpu/torch/"
        try:
            self.send_response(200 if found else 404)
            self.end_headers()
        except BrokenPipeError:
            pass

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/whl/cpu"
    for name, text in {"SLINGSHOT_TORCH_INDEX": address, **NO_PROXY}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(bootstrap, "has_nvidia_driver", lambda: False)
    yield address
    server.shutdown()
    server.server_close()


def test_torch_comes_from_its_own_index(
    project: Path, pip: list[list[str]], index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLINGSHOT_TORCH_INDEX", index)
    (project / "requirements.txt").write_text("numpy==2\ntorch==2.13.0\n")
    bootstrap.install(project / ".venv", "requirements-dev.txt")
    assert pip[0][-3:] == ["--extra-index-url", index, "torch==2.13.0"]
    assert len(pip) == 2


def test_a_slow_index_is_not_waited_for(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request that hangs would come out well, so whoever waited for it would take the index."""
    end = threading.Event()
    real = urllib.request.urlopen

    def slow(url: str, timeout: float) -> Any:  # noqa: ANN401
        end.wait(PATIENCE)
        return real(url, timeout=PATIENCE)

    monkeypatch.setattr("urllib.request.urlopen", slow)
    monkeypatch.setattr(bootstrap, "TORCH_INDEX_SECONDS", 0.1)
    assert bootstrap.torch_index() == ""
    end.set()


def test_an_index_that_refuses_is_not_waited_for(
    index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has an hour to answer, and what refuses has answered."""
    monkeypatch.setattr(bootstrap, "TORCH_INDEX_SECONDS", 3600.0)
    for address in (index + "/nothing", "http://127.0.0.1:9/whl/cpu", "not an address"):
        monkeypatch.setenv("SLINGSHOT_TORCH_INDEX", address)
        started = time.monotonic()
        assert bootstrap.torch_index() == ""
        assert time.monotonic() - started < PATIENCE


def test_a_driver_or_another_system_leaves_torch_to_pip(
    index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bootstrap.torch_index() == index
    monkeypatch.setattr(bootstrap, "has_nvidia_driver", lambda: True)
    assert bootstrap.torch_index() == ""
    monkeypatch.setattr(bootstrap, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert bootstrap.torch_index() == ""


# --- what no installation should do --------------------------------------------------------------


@pytest.fixture
def whole(project: Path, pip: list[list[str]]) -> Path:
    """An environment with two whole packages, of which the set-up knows."""
    venv = project / ".venv"
    (project / "constraints.txt").write_text("Some.Pack==1.0\nother==2.0\n")
    package(venv, "some_pack", "1.0", {"some_pack/__init__.py": "a = 1\n", "../../../bin/run": "x"})
    package(venv, "other", "2.0+cpu", {"other/__init__.py": ""})
    bootstrap.install(venv, "requirements-dev.txt")
    pip.clear()
    return venv


def site(venv: Path) -> Path:
    return venv / "lib" / "python3.12" / "site-packages"


def replaced(venv: Path) -> None:
    shutil.rmtree(site(venv) / "some_pack-1.0.dist-info")
    package(venv, "some_pack", "0.9", {})


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a module is gone": (
        lambda venv: shutil.rmtree(site(venv) / "some_pack"),
        "some-pack (some_pack/__init__.py is missing)",
    ),
    "a script is gone": (
        lambda venv: (venv / "bin" / "run").unlink(),
        "some-pack (../../../bin/run is missing)",
    ),
    "a module is cut short": (
        lambda venv: (site(venv) / "some_pack" / "__init__.py").write_text("a"),
        "some-pack (some_pack/__init__.py has 1 bytes in place of 6)",
    ),
    "a package is gone": (
        lambda venv: shutil.rmtree(site(venv) / "some_pack-1.0.dist-info"),
        "some-pack (it is missing)",
    ),
    "its list is gone": (
        lambda venv: (site(venv) / "some_pack-1.0.dist-info" / "RECORD").unlink(),
        "some-pack (its list of files is missing)",
    ),
    "it was replaced": (
        lambda venv: replaced(venv),
        "some-pack (it is version 0.9 in place of 1.0)",
    ),
    "it is there twice": (
        lambda venv: package(venv, "some_pack", "0.9", {}),
        "some-pack (it is there twice)",
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_package_is_brought_again(
    whole: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, fault = DAMAGE[how]
    bootstrap.mend(whole)
    assert bootstrap.is_installed(whole, "requirements.txt")
    assert capsys.readouterr().out == ""
    damage(whole)
    bootstrap.mend(whole)
    assert f".venv is damaged: {fault}" in capsys.readouterr().out
    assert not bootstrap.is_installed(whole, "requirements.txt")
    # pip takes for installed what has its metadata.
    assert [path.name for path in site(whole).glob("*.dist-info")] == ["other-2.0+cpu.dist-info"]


def test_what_the_set_up_does_not_answer_for_is_left_alone(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    package(whole, "mine", "1.0", {"mine/__init__.py": ""})
    (site(whole) / "mine" / "__init__.py").unlink()
    setting = whole / "bin" / "run"
    setting.write_text("a setting that the user has changed")
    bootstrap.mend(whole)
    assert capsys.readouterr().out == ""


def test_an_interrupted_installation_is_checked_too(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (whole / "versions.json").unlink()
    (site(whole) / "some_pack" / "__init__.py").unlink()
    bootstrap.mend(whole)
    assert "some_pack/__init__.py is missing" in capsys.readouterr().out


# --- pins ----------------------------------------------------------------------------------------


def forbids(requires: str, version: str) -> bool:
    """Whether a package's Requires-Python leaves a Python out."""
    return version not in SpecifierSet(requires)


def promised() -> list[str]:
    """The oldest Python of pyproject.toml, and the first of the newest line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=")
    assert oldest == "{}.{}".format(*bootstrap.OLDEST)
    return [f"{oldest}.0", "{}.{}.0".format(*bootstrap.NEWEST)]


def test_every_pin_allows_every_python_that_is_promised() -> None:
    files = [ROOT / "constraints.txt", ROOT / "benchmarks" / "requirements.txt"]
    files += ROOT.glob("requirements*.txt")
    pins = {name: v for f in files for name, v in venv_state.pinned(f.read_text("utf-8")).items()}
    present = reversed([*metadata.distributions()])  # the first of a name is the one that counts
    found = {venv_state.normal(each.metadata["Name"]): each for each in present}
    checked = pins.keys() & found.keys()
    bench = venv_state.pinned((ROOT / "benchmarks" / "requirements.txt").read_text("utf-8"))
    # What the benchmarks compare with, and what that needs, is not installed for the tests.
    # jupyter-server wants one up to Python 3.11, and IPython two where there are terminals.
    elsewhere = {"flatbuffers", "protobuf", "overrides", "pexpect", "ptyprocess"}
    assert pins.keys() - checked <= {*bench, *elsewhere}
    others = [n for n in sorted(checked) if found[n].version.partition("+")[0] != pins[n]]
    assert others == [], "run `make setup-dev`: installed are other versions than the pins say"
    problems = [
        f"{name}=={pins[name]} needs Python {requires}, and {version} is promised: pin another"
        for name in sorted(checked)
        if (requires := found[name].metadata["Requires-Python"])
        for version in promised()
        if forbids(requires, version)
    ]
    assert problems == []


@pytest.mark.parametrize("requires", [">=3.11.5", ">3.11.0", "<3.14", ">=3.9,<3.14", "==3.12.*"])
def test_a_pin_that_leaves_a_promised_python_out_is_found(requires: str) -> None:
    assert any(forbids(requires, version) for version in promised())
    assert not any(forbids(">=3.11", version) for version in promised())


def test_the_readme_names_the_range() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    minors = range(bootstrap.OLDEST[1], bootstrap.NEWEST[1] + 1)
    oldest, *_, newest = (f"3.{minor}" for minor in minors)
    assert f"You need Python {oldest} to {newest} and" in text


# --- what is inherited ---------------------------------------------------------------------------

HARMFUL = [
    *(
        "PIP_USER",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_ROOT",
        "PIP_REQUIRE_VIRTUALENV",
        "PIP_REQUIRE_HASHES",
        "PIP_NO_DEPS",
    ),
    *(
        "PIP_DRY_RUN",
        "PIP_ONLY_BINARY",
        "PIP_NO_BINARY",
        "PIP_PYTHON",
        "PIP_REPORT",
        "PIP_PRE",
        "PIP_IGNORE_INSTALLED",
    ),
    *(
        "PIP_SRC",
        "PIP_EDITABLE",
        "PIP_REQUIREMENT",
        "PIP_PLATFORM",
        "PIP_QUIET",
        "PIP_AN_OPTION_OF_2030",
    ),
    *(
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "PYTHONUSERBASE",
        "PYTHONNOUSERSITE",
        "PYTHONOPTIMIZE",
        "PYTHONWARNINGS",
    ),
    *(
        "PYTHONSAFEPATH",
        "PYTHONINSPECT",
        "PYTHONPLATLIBDIR",
        "PYTHONEXECUTABLE",
        "PYTHON_A_SWITCH_OF_2030",
    ),
    *(
        "VIRTUAL_ENV",
        "__PYVENV_LAUNCHER__",
        "MYPYPATH",
        "JUPYTER_PATH",
        "MPLBACKEND",
        "SETUPTOOLS_USE_DISTUTILS",
    ),
]
HARMLESS = [
    *(
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_FIND_LINKS",
        "PIP_NO_INDEX",
        "PIP_TRUSTED_HOST",
        "PIP_CERT",
        "PIP_PROXY",
    ),
    *(
        "PIP_CLIENT_CERT",
        "PIP_DEFAULT_TIMEOUT",
        "PIP_TIMEOUT",
        "PIP_RETRIES",
        "PIP_CACHE_DIR",
        "PIP_CONSTRAINT",
    ),
    *(
        "PIP_CONFIG_FILE",
        "PYTHONUNBUFFERED",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONIOENCODING",
        "PYTHONPYCACHEPREFIX",
    ),
    *(
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "HOME",
        "LANG",
        "OMP_NUM_THREADS",
        "SLINGSHOT_TORCH_INDEX",
    ),
]


def test_the_set_up_inherits_no_other_place() -> None:
    env = inherited.environment(dict.fromkeys([*HARMFUL, *HARMLESS, "PYTHON"], "x"))
    assert sorted(env) == sorted([*HARMLESS, "PYTHON", "PYTHONUTF8"])
    assert env["PYTHONUTF8"] == "1"


def test_make_inherits_the_same(tmp_path: Path) -> None:
    # Every variable that the Python side knows by name, too: the two lists must be equal.
    known = {f"PIP_{n}" for n in inherited.PIP} | {f"PYTHON{n}" for n in inherited.PYTHON}
    harmless = sorted({*HARMLESS, *known} - {"PYTHONUTF8"})
    probe = tmp_path / "probe.mk"
    probe.write_text("include Makefile\nprobe:\n\t@env\n")
    path = {"PATH": os.environ["PATH"], "PYTHONUTF8": "0"}
    names = dict.fromkeys([*HARMFUL, *harmless, *inherited.OTHERS], "x")
    run = subprocess.run(
        ["make", "--no-print-directory", "-f", str(probe), "probe"],
        cwd=ROOT,
        env={**names, **path},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = dict(line.partition("=")[::2] for line in run.stdout.splitlines())
    assert sorted(seen.keys() & names.keys()) == harmless
    assert seen["PYTHONUTF8"] == "1"


def test_make_hands_on_a_name_as_it_was_typed(tmp_path: Path) -> None:
    probe = tmp_path / "probe.mk"
    probe.write_text("include Makefile\nprobe:\n\t@printf '%s' $(call as_typed,SUBMISSIONS)\n")
    name = "week 3 'a' \"b\" $HOME $(x) `y` % -f Ü日本"
    command = ["make", "--no-print-directory", "-f", str(probe), "probe", f"SUBMISSIONS={name}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert run.stdout.decode() == name


HOSTILE = """
[global]
index-url = http://127.0.0.1:9/simple
require-virtualenv = true
no-deps = true
[install]
user = true
target = {0}
prefix = {0}
root = {0}
find-links = {1}
no-index = true
"""


def test_pip_installs_in_the_environment_whatever_its_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "")
        about = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        wheel.writestr("tiny-1.0.dist-info/METADATA", about)
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr("tiny-1.0.dist-info/WHEEL", tags)
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    configuration = tmp_path / "pip.conf"
    configuration.write_text(HOSTILE.format(tmp_path / "elsewhere", tmp_path))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("PIP_DRY_RUN", "1")
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "user"))
    venv = tmp_path / ".venv"
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    bootstrap.make_usable(venv)
    python = str(venv_state.venv_python(venv))
    command = [python, "-m", "pip", "install", "tiny"]
    bootstrap.must_run(command, tmp_path / "log", inherited.for_pip(python))
    assert (venv_state.site_packages(venv) / "tiny.py").is_file()
    assert not (tmp_path / "elsewhere").exists()
    # And the environment that was just made is one that is used as it is.
    assert venv_state.why_unusable(venv, bootstrap.OLDEST, bootstrap.NEWEST) == ""


def test_a_configuration_that_pip_cannot_read_takes_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.conf").write_text("[global\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    with pytest.raises(inherited.ConfigurationError, match="mend the file") as error:
        inherited.for_pip(sys.executable)
    assert "\n" not in str(error.value)


# --- the library in the environment ---------------------------------------------------------------

FOLDERS = ["plain", "Ü日本 kurs", "a'b\"c$d%e -f #[g]"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_library_is_found_under_every_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    course = tmp_path / folder
    (course / "src" / "slingshot").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, course)
    (course / "src" / "slingshot" / "__init__.py").touch()
    for place in (course / ".venv" / "site", tmp_path / "Ω" / "site"):
        place.mkdir(parents=True)
        (place / "__editable__.slingshot_course-0.1.0.pth").write_text("/gone")
        (place / "another-1.0.dist-info").mkdir()
        monkeypatch.setattr(bootstrap, "ROOT", course)
        monkeypatch.setattr(bootstrap, "venv_python", lambda venv: Path(sys.executable))
        monkeypatch.setattr(venv_state, "site_packages", lambda venv, place=place: place)
        monkeypatch.setenv("LC_ALL", "C")
        bootstrap.install_library(course / ".venv", tmp_path / "log")
        assert sorted(path.suffix for path in place.iterdir()) == [".dist-info"] * 2 + [".pth"]
        version = f"import importlib.metadata as m; print(m.version({venv_state.LIBRARY!r}))"
        look = f"import site, sys; site.addsitedir(sys.argv[1]); import slingshot; {version}"
        for locale in ("C", "C.UTF-8"):
            run = subprocess.run(
                [sys.executable, "-S", "-c", look, str(place)],
                env={"PATH": os.environ["PATH"], "LC_ALL": locale},
                cwd=tmp_path,
                capture_output=True,
                check=False,
            )
            assert (run.returncode, run.stderr) == (0, b""), run.stderr
        assert venv_state.fault_of(next(place.glob("slingshot*.dist-info"))) == ""


# --- programs that the tests use ------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, and a Python in it in which nothing works."""
    executable(tmp_path / "bin" / "python", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


@pytest.mark.parametrize(
    ("user", "calls"),
    [
        (0, ["update", "install chromium", "install bubblewrap", "playwright"]),
        (1000, ["playwright"]),
    ],
)
def test_programs_are_installed_where_that_is_allowed(
    machine: Path, monkeypatch: pytest.MonkeyPatch, user: int, calls: list[str]
) -> None:
    called: list[str] = []
    executable(machine / "bin" / "apt-get", "true")
    monkeypatch.setattr(os, "geteuid", lambda: user)

    def run_logged(command: list[str], log: Path, env: object = None) -> tuple[int, str]:
        if command[0] == "apt-get":
            called.append(" ".join(word for word in command[1:] if not word.startswith("-")))
        else:
            called.append(command[2])
        return 1, ""

    monkeypatch.setattr(bootstrap, "run_logged", run_logged)
    with pytest.raises(bootstrap.SetupError, match="no Chromium could be installed"):
        bootstrap.install_programs(machine)
    assert called == calls
    called.clear()
    executable(machine / "bin" / "google-chrome", "true")
    executable(machine / "bin" / "bwrap", "true")
    bootstrap.install_programs(machine)
    assert called == []


def test_the_last_lines_name_the_tests_that_will_be_skipped(machine: Path) -> None:
    executable(
        machine / "bin" / "python", 'case "$2" in *sandbox*) echo no bwrap;; *) exit 1; esac'
    )
    sandbox, optional = bootstrap.skipped_tests(machine)
    assert sandbox == "tests of the sandbox will be skipped: no bwrap"
    assert "reasoning-gym" in optional
    executable(machine / "bin" / "python", "true")
    assert bootstrap.skipped_tests(machine) == []


# --- consoles ------------------------------------------------------------------------------------

SCRIPTS = [
    *sorted(
        path
        for path in (ROOT / "tools").glob("[a-z]*.py")
        if path.name not in {"copies.py", "lab_server.py", "start_page.py"}  # parts of lab.py
    ),
    *sorted((ROOT / "experiments").glob("[a-z]*.py")),
    *sorted((ROOT / "benchmarks").glob("bench_*.py")),
]
# One process for all, since each would import torch anew; what is ours, each script imports anew.
# The help holds letters that no narrow console has, and what no console can show at all.
SPEAK = """
import argparse, io, json, runpy, sys, traceback
from pathlib import Path
text = "usage: \\xdc\\u65e5\\u672c \\u2026 \\u2212\\ud800\\n"
argparse.ArgumentParser.format_help = lambda self: text
path, kept, said = sys.path[:], [], {}
for script in sys.argv[1:]:
    out, err = io.BytesIO(), io.BytesIO()
    sys.stdout = io.TextIOWrapper(out, "ascii")
    sys.stderr = io.TextIOWrapper(err, "ascii", "backslashreplace")
    kept += sys.stdout, sys.stderr  # when they go, they close what is below them
    folder = Path(script).resolve().parent
    sys.argv, sys.path[:] = [script, "--help"], [str(folder), *path]
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        code = 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    said[script] = code, out.getvalue().decode("ascii"), err.getvalue().decode("ascii")
    ours = tuple(str(folder.parent / name) for name in ("tools", "experiments", "benchmarks"))
    for name, module in [*sys.modules.items()]:
        if (getattr(module, "__file__", None) or "").startswith(ours):
            del sys.modules[name]
print(json.dumps(said), file=sys.__stdout__)
"""


def shell(command: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash with the Python of these tests as $PY and the project's library."""
    path = os.pathsep.join([str(ROOT / "src"), env.pop("PYTHONPATH", "")])
    return subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PY": sys.executable, **env, "PYTHONPATH": path},
        capture_output=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def spoken() -> dict[str, list[object]]:
    """What each script does when it is asked for help: its exit code, and what it prints where."""
    scripts = [str(script.relative_to(ROOT)) for script in SCRIPTS]
    run = shell(shlex.join([sys.executable, "-c", SPEAK, *scripts]))
    assert run.returncode == 0, run.stderr
    found: dict[str, list[object]] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_script_speaks_on_a_narrow_console(
    script: Path, spoken: dict[str, list[object]]
) -> None:
    said = "usage: \\xdc\\u65e5\\u672c \\u2026 \\u2212\\ud800\n"
    assert spoken[str(script.relative_to(ROOT))] == [0, said, ""]


@pytest.mark.parametrize(
    ("number", "raises"),
    [(errno.EPIPE, False), (errno.EINVAL, False), (errno.EIO, False), (errno.ENOSPC, True)],
)
def test_a_full_disk_is_not_taken_for_a_reader_that_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, raises: bool
) -> None:
    class Failing(io.FileIO):
        def write(self, data: object) -> int:
            raise OSError(number, "no")

    stream = console.Console(io.BufferedWriter(Failing(tmp_path / "file", "w")), encoding="ascii")
    with pytest.raises(OSError, match="no") if raises else contextlib.nullcontext():
        print("text", file=stream, flush=True)
    monkeypatch.setattr(Failing, "write", io.FileIO.write)  # for when the stream is closed


TALKATIVE = """
import sys
sys.path.insert(0, {root!r})
from tools.common import console
console.prepare("make something")
import tqdm
for number in tqdm.tqdm(range(3)):
    sys.stdout.isatty()
for number in range(30000):
    print("Ü日本", number, flush=number % 100 == 0)
print("err …", file=sys.stderr)
open({done!r}, "w").close()
"""


@pytest.mark.parametrize(
    ("redirection", "encoding"),
    [
        ("| head -n 1", "ascii"), ("| head -n 1", "cp1252"), ("| head -n 1", "utf-8"),
        (">&-", "ascii"), ("2>&-", "ascii"), (">&- 2>&-", "ascii"), ("<&- >&- 2>&-", "utf-8"),
        ("2>&1 | true", "cp1252"), (">/dev/null", "cp1252"),
    ],
)  # fmt: skip
def test_a_script_goes_on_when_nobody_reads(
    tmp_path: Path, redirection: str, encoding: str
) -> None:
    course = tmp_path / "course"
    shutil.copytree(ROOT / "tools" / "common", course / "tools" / "common")
    (course / "tools" / "__init__.py").touch()
    script, done = course / "tools" / "talk.py", tmp_path / "done"
    script.write_text(TALKATIVE.format(root=str(course), done=str(done)), "utf-8")
    run = shell(f'set -o pipefail; "$PY" "{script}" {redirection}', PYTHONIOENCODING=encoding)
    assert run.returncode == 0, run.stderr
    assert done.exists()
    assert b"Traceback" not in run.stderr
    assert b"Exception ignored" not in run.stderr


@pytest.mark.parametrize(
    ("script", "package", "remedy"),
    [
        ("tools/grade.py SUBMISSIONS", "nbgrader", "make setup-instructor"),
        ("tools/assignments.py", "nbgrader", "make setup-instructor"),
        ("tools/notebooks.py", "nbclient", "make setup"),
        ("tools/lab.py", "nbformat", "make setup"),
        ("tools/show_progress.py", "tqdm", "make setup"),
        ("tools/model.py", "slingshot", "make setup"),
        ("tools/book.py", "jupyter_book", "make setup"),
        ("tools/pdf.py", "playwright", "make setup-dev"),
        ("experiments/mixture.py", "torch", "make setup"),
        ("experiments/reasoning.py", "slingshot", "make setup"),
        ("benchmarks/bench_formats.py", "ml_dtypes", "make setup-dev"),
        ("benchmarks/bench_router.py", "transformers", "make setup-dev"),
    ],
)
def test_a_missing_package_takes_one_line(
    tmp_path: Path, script: str, package: str, remedy: str
) -> None:
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions" / "a.ipynb").write_text("{}")
    hide = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""
    script = script.replace("SUBMISSIONS", f"'{tmp_path / 'submissions'}'")
    run = shell(f'"$PY" {script}', **at_start(tmp_path / "site", hide))
    (line,) = run.stderr.decode().splitlines()
    assert run.returncode == 1
    assert f"No module named '{package}" in line
    assert f"run `{remedy}`," in line


def test_a_module_of_ours_that_is_missing_is_a_fault_of_ours(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['slingshot_grader'] = None"
    run = shell('"$PY" tools/show_progress.py', **at_start(tmp_path / "site", hide))
    assert b"Traceback" in run.stderr
    assert b"make setup" not in run.stderr


# --- a failed build fails again ------------------------------------------------------------------

CONF = """
import os, sys
sys.path.insert(0, {extensions!r})
extensions = ["honest_builds"]
def stop(app, env):
    if os.environ.get("STOP"):
        raise KeyboardInterrupt
def setup(app):
    app.connect("env-updated", stop)
"""


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Builds a small book in tmp_path as strictly as ours; returns the code and what it said."""
    (tmp_path / "conf.py").write_text(CONF.format(extensions=str(ROOT / "book" / "_ext")))
    pages = ".. toctree::\n\n   other\n"
    (tmp_path / "index.rst").write_text(f"Title\n=====\n\n{pages}   third\n")
    (tmp_path / "third.rst").write_text("Third\n=====\n\n:ref:`to it <there>`\n")
    (tmp_path / "other.rst").write_text(".. _there:\n\nOther\n=====\n")

    def run(*options: str, **env: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", *options, ".", "_build"]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_warnings_count_until_they_are_gone(
    tmp_path: Path, build: Callable[..., tuple[int, str]]
) -> None:
    assert build()[0] == 0
    code, said = build()
    assert (code, "0 added, 0 changed, 0 removed" in said) == (0, True)  # still quick
    page = tmp_path / "index.rst"
    sound = page.read_text()
    page.write_text(sound + "\n:ref:`nowhere`\n")
    for _ in range(2):
        code, said = build()
        assert (code, "undefined label" in said) == (1, True)
    page.write_text(sound)
    assert build()[0] == 0


def test_a_target_that_went_is_missed_in_a_page_that_did_not_change(
    tmp_path: Path, build: Callable[..., tuple[int, str]]
) -> None:
    assert build()[0] == 0
    other = tmp_path / "other.rst"
    other.write_text(other.read_text() + "\nMore.\n")
    code, said = build()
    assert code == 0
    assert "0 added, 1 changed, 0 removed" in said  # one page changed, and one page is read
    other.write_text("Other\n=====\n")
    for _ in range(2):
        code, said = build()
        assert (code, "undefined label" in said) == (1, True)


def test_a_build_that_was_interrupted_does_not_count(
    tmp_path: Path, build: Callable[..., tuple[int, str]]
) -> None:
    assert build()[0] == 0
    other = tmp_path / "other.rst"
    other.write_text(other.read_text() + "\nMore\n---\n\nBelow\n----\n")  # warns when it is read
    assert build(STOP="yes")[0] != 0
    for _ in range(2):
        code, said = build()
        assert (code, "Title underline too short" in said) == (1, True)


def test_a_build_that_asked_for_less_does_not_count(
    tmp_path: Path, build: Callable[..., tuple[int, str]]
) -> None:
    page = tmp_path / "other.rst"
    page.write_text(page.read_text() + "\n:py:class:`Unknown`\n")
    assert build()[0] == 0
    assert build("-n")[0] == 1


def test_the_book_is_built_so() -> None:
    configuration = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    assert "honest_builds" in configuration["sphinx"]["local_extensions"]
    assert "*.md" in configuration["exclude_patterns"]  # for a folder with brackets in its name


# --- .ci/run -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("book", "test", "code", "last"),
    [
        ("true", "echo 7 passed", 0, "7 passed"),
        ("true", "touch left; echo 7 passed", 1, "?? left"),
        ("echo more >> Makefile", "echo 7 passed", 1, " M Makefile"),
        ("false", "echo 7 passed", 1, ".ci/run: make book failed"),
        ("false", "false", 1, ".ci/run: make book and make test failed"),
    ],
)
def test_ci_ends_with_the_tests_line_or_the_reason(
    tmp_path: Path, book: str, test: str, code: int, last: str
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "Makefile").write_text(f"book:\n\t@{book}\ntest:\n\t@{test}\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    env = {name: text for name, text in os.environ.items() if not name.startswith(("GIT_", "MAKE"))}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    if test == "echo 7 passed" and code == 0:  # no checkout, such as an archive, is no fault
        assert run(".ci/run").stdout.splitlines()[-1] == last
    for command in ([*git, "init", "-q"], [*git, "add", "."], [*git, "commit", "-qm", "all"]):
        assert run(*command).returncode == 0
    done = run(".ci/run")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, last)
