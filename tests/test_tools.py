"""The set-up and the re-execution of notebooks."""

import ast
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import bootstrap, notebooks  # noqa: E402

# A developer's proxy must not answer for the indexes of these tests.
NO_PROXY = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

# --- bootstrap: what is wrong, in one line -----------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that consists of the set-up script and one package that does not exist."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "bootstrap.py", tmp_path / "tools")
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


def test_an_old_python_can_read_the_script() -> None:
    assert not unreadable_for_old_pythons((ROOT / "tools" / "bootstrap.py").read_text())


@pytest.mark.parametrize("line", ["if (a := 1): pass", "def f() -> list[int]: ..."])
def test_what_an_old_python_cannot_read_is_noticed(line: str) -> None:
    assert unreadable_for_old_pythons(line)


def test_an_old_python_names_a_newer_one(project: Path, tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "python3.12", "true")
    old = at_start(tmp_path / "site", "import sys; sys.version_info = (3, 9, 2)")
    line = the_line(set_up(project, PATH=str(tmp_path / "bin"), **old))
    assert "3.9.2" in line
    assert "3.11 or newer" in line
    assert "`make book PYTHON=python3.12`" in line
    assert not (project / ".venv").exists()


def test_an_old_python_alone_asks_for_a_newer_one() -> None:
    assert "install one" in bootstrap.too_old("3.9.2", [])


def test_an_old_python_hands_over_to_a_sound_environment(project: Path, tmp_path: Path) -> None:
    own = 'if [ "$1" = -c ]; then exit 0; fi; echo "handed over: $2"'
    executable(project / ".venv" / "bin" / "python", own)
    old = at_start(tmp_path / "site", "import sys; sys.version_info = (3, 9, 2)")
    run = set_up(project, "--dev", **old)
    assert (run.returncode, run.stdout) == (0, "handed over: --dev\n")


def test_a_python_without_ensurepip(project: Path, tmp_path: Path) -> None:
    env = at_start(tmp_path / "site", "import sys; sys.modules['ensurepip'] = None")
    assert "-venv` as root" in the_line(set_up(project, **env))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda venv: venv.mkdir(), "no python"),
    "dangling": (lambda venv: dangle(venv / "bin" / "python"), "/gone/python3.11, is gone"),
    "failing": (lambda venv: executable(venv / "bin" / "python", "exit 3"), "exit code 3"),
    "not a program": (lambda venv: garbage(venv / "bin" / "python"), "does not run"),
    "old": (lambda venv: executable(venv / "bin" / "python", "echo 3 9"), "its Python is 3.9"),
    "without pip": (
        lambda venv: executable(
            venv / "bin" / "python",
            "echo \"ModuleNotFoundError: No module named 'pip'\" >&2; exit 1",
        ),
        "pip is missing",
    ),
    "copied": (lambda venv: copied(venv), "made in another folder"),
}


def dangle(link: Path) -> None:
    link.parent.mkdir(parents=True)
    link.symlink_to("/gone/python3.11")


def garbage(path: Path) -> None:
    executable(path, "")
    path.write_bytes(b"\x7fELF")


def copied(venv: Path) -> None:
    executable(venv / "bin" / "python", "echo 3 11")
    (venv / "bin" / "pip").write_text("#!/somewhere/else/.venv/bin/python\n")


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_environment(project: Path, how: str) -> None:
    damage, reason = BROKEN[how]
    damage(project / ".venv")
    line = the_line(set_up(project))
    assert reason in line
    assert "run `make distclean`" in line


@pytest.mark.parametrize(
    "head", ["#!{}/bin/python\n", "#!/bin/sh\n'''exec' \"{}/bin/python\" \"$0\""]
)
def test_a_sound_environment_is_not_called_copied(tmp_path: Path, head: str) -> None:
    venv = tmp_path / "with space"
    executable(venv / "bin" / "python", "echo 3 11")
    (venv / "bin" / "pip").write_text(head.format(venv))
    assert bootstrap.why_broken(venv) == ""


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
    monkeypatch.setattr(bootstrap, "must_run", lambda command, log: commands.append(command))
    monkeypatch.setenv("SLINGSHOT_TORCH_INDEX", "")
    (project / ".venv").mkdir()
    (project / ".venv" / "pyvenv.cfg").write_text("version = 3.11.7")
    return commands


def test_the_second_call_installs_nothing(project: Path, pip: list[list[str]]) -> None:
    venv = project / ".venv"
    assert not bootstrap.is_installed(venv, "requirements.txt")
    bootstrap.install(venv, "requirements.txt")
    wanted = str(project / "requirements.txt")
    assert [command[-3:] for command in pip] == [
        ["-r", wanted, "setuptools"],
        ["--no-build-isolation", "-e", str(project)],
    ]
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
    def interrupt(command: list[str], log: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bootstrap, "must_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bootstrap.install(project / ".venv", "requirements.txt")
    assert not bootstrap.is_installed(project / ".venv", "requirements.txt")


class Index(http.server.BaseHTTPRequestHandler):
    """A package index that answers after a while."""

    delay = 0.0

    def do_GET(self) -> None:
        time.sleep(self.delay)
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
    assert len(pip) == 3


def test_a_slow_index_is_not_waited_for(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Index, "delay", 20.0)
    started = time.monotonic()
    assert bootstrap.torch_index() == ""
    # Three seconds, and room for a busy machine.
    assert 2.9 < time.monotonic() - started < 10


def test_an_index_that_refuses_is_not_waited_for(
    index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in (index + "/nothing", "http://127.0.0.1:9/whl/cpu", "not an address"):
        monkeypatch.setenv("SLINGSHOT_TORCH_INDEX", address)
        started = time.monotonic()
        assert bootstrap.torch_index() == ""
        assert time.monotonic() - started < 2


def test_a_driver_or_another_system_leaves_torch_to_pip(
    index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bootstrap.torch_index() == index
    monkeypatch.setattr(bootstrap, "has_nvidia_driver", lambda: True)
    assert bootstrap.torch_index() == ""
    monkeypatch.setattr(bootstrap, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert bootstrap.torch_index() == ""


@pytest.mark.parametrize(("user", "tools"), [(0, ["apt-get", "python"]), (1000, ["python"])])
def test_no_browser_can_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, tools: list[str]
) -> None:
    called: list[str] = []
    executable(tmp_path / "bin" / "apt-get", "true")
    executable(tmp_path / "bin" / "python", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(os, "geteuid", lambda: user)

    def run_logged(command: list[str], log: Path) -> tuple[int, str]:
        called.append(Path(command[0]).name)
        return 1, ""

    monkeypatch.setattr(bootstrap, "run_logged", run_logged)
    with pytest.raises(bootstrap.SetupError, match="no Chromium could be installed"):
        bootstrap.install_browser(tmp_path)
    assert sorted(set(called)) == tools
    executable(tmp_path / "bin" / "google-chrome", "true")
    assert bootstrap.has_browser(tmp_path)


# --- notebooks ---------------------------------------------------------------------------------

WIDGET = "import ipywidgets\nipywidgets.IntSlider(3)"
STREAMS = "import time\nprint('a', flush=True)\ntime.sleep(0.3)\nprint('b')"


def write(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]  # type: ignore[no-untyped-call]
    notebook = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    return path


def test_notebooks_come_out_the_same_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.ipynb", "%pwd", WIDGET, STREAMS, "")
    path.chmod(0o640)
    unexecuted = path.read_bytes()
    assert notebooks.main(["--check", str(path)]) == 1
    assert "would change" in capsys.readouterr().err
    assert path.read_bytes() == unexecuted

    assert notebooks.main([str(path)]) == 0
    stored = path.read_bytes()
    assert notebooks.main([str(path)]) == 0
    assert path.read_bytes() == stored
    assert "unchanged" in capsys.readouterr().out
    assert path.stat().st_mode & 0o777 == 0o640
    assert notebooks.main(["--check", str(path)]) == 0

    notebook = json.loads(stored)
    assert stored.endswith(b"}\n")
    assert b"widget-view" not in stored
    assert "widgets" not in notebook["metadata"]
    assert [cell["execution_count"] for cell in notebook["cells"]] == [1, 2, 3, None]
    assert notebook["cells"][0]["outputs"][0]["data"]["text/plain"] == [repr(str(tmp_path))]
    assert notebook["cells"][1]["outputs"][0]["data"] == {"text/plain": ["IntSlider(value=3)"]}
    assert [out["text"] for out in notebook["cells"][2]["outputs"]] == [["a\n", "b\n"]]


def test_a_measurement_stays_until_more_than_its_numbers_change(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"

    def run(*sources: str, tag: str = notebooks.MEASURES) -> list[str]:
        """Store the notebook with these sources and its present outputs; return the new texts."""
        notebook = json.loads(path.read_text("utf-8"))
        for cell, source in zip(notebook["cells"], sources, strict=True):
            cell["source"] = source
            cell["metadata"]["tags"] = [tag]
        path.write_text(json.dumps(notebook), "utf-8")
        assert notebooks.main([str(path)]) == 0
        cells = json.loads(path.read_text("utf-8"))["cells"]
        return ["".join(cell["outputs"][0]["text"]) for cell in cells]

    clock = "import time\nprint('took', time.perf_counter_ns(), 'ns')"
    write(path, clock)
    first = run(clock)
    assert run(clock) == first
    assert run(clock + "  # again") == first
    assert run(clock.replace("took", "needed"))[0].startswith("needed")
    unmarked = run(clock, tag="other")
    assert run(clock, tag="other") != unmarked


def test_a_raising_cell_is_named_and_the_file_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "bad.ipynb", "1", "2", "def f():\n    return 1 / 0\nf()")
    before = path.read_bytes()
    assert notebooks.main([str(path)]) == 1
    line = capsys.readouterr().err.strip()
    assert line.endswith(
        "bad.ipynb: cell 3 (code cell 3) raised ZeroDivisionError: division by zero"
    )
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["bad.ipynb"]


def test_ctrl_c_leaves_the_file_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "slow.ipynb", "open('started', 'w')\nimport time\ntime.sleep(60)")
    before = path.read_bytes()
    command = [sys.executable, str(ROOT / "tools" / "notebooks.py"), str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "every notebook on disk is whole" in stderr
    assert path.read_bytes() == before


def test_a_failed_write_leaves_the_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.ipynb", "1")
    before = path.read_bytes()

    def fail(source: str, target: Path) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        notebooks.write_atomically(path, "new")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ipynb"]


def test_cells_without_an_id_get_one_that_stays() -> None:
    cells: list[dict[str, Any]] = [
        {"source": "a"},
        {"source": "a"},
        {"source": ["a"], "id": "mine"},
    ]
    notebooks.add_cell_ids(cells)
    ids = [cell["id"] for cell in cells]
    assert len(set(ids)) == 3
    assert ids[2] == "mine"
    again = [{"source": "a"}, {"source": "a"}]
    notebooks.add_cell_ids(again)
    assert [cell["id"] for cell in again] == ids[:2]


def test_an_unknown_or_malformed_notebook_takes_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.ipynb").write_text("not JSON")
    for name, words in [("nowhere", "no notebook 'nowhere'"), ("text.ipynb", "not a notebook")]:
        assert notebooks.main([str(tmp_path / name) if "." in name else name]) == 1
        err = capsys.readouterr().err
        assert words in err
        assert len(err.splitlines()) == 1
