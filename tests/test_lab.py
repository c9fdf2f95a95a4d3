"""The learner's workspace: what is handed out, what is never overwritten, and which checks pass."""

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from test_grade import (
    ENDLESS,
    PATIENCE,
    edition,
    family,
    is_endless,
    solved,
    stub,
    wait_until,
    with_cells,
)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import lab, show_progress  # noqa: E402

from slingshot_grader.assignment import read_assignments  # noqa: E402
from slingshot_grader.session import Limits  # noqa: E402

RELEASE = ROOT / "notebooks" / "assignments" / "release"


def write(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]  # type: ignore[no-untyped-call]
    return save(path, nbformat.v4.new_notebook(cells=cells))  # type: ignore[no-untyped-call]


def save(path: Path, notebook: NotebookNode) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    return path


ALL = ["a.ipynb", "b.ipynb", "assignments/claim.ipynb"]


def without_text(notebook: NotebookNode) -> NotebookNode:
    """The notebook without its text, which leads to chapters that a small course does not have."""
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return notebook


TOC = """\
parts:
  - caption: The claim
    chapters:
      - file: book/story
      - file: notebooks/b
      - file: notebooks/a
      - file: notebooks/assignments/release/claim
  - caption: Reference
    chapters:
      - file: book/facts
"""


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course of two chapters and one assignment, with its source edition."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))  # where signatures are kept
    folder = tmp_path / "notebooks"
    for name in ("a.ipynb", "b.ipynb", "assignments/source/claim.ipynb"):
        write(folder / name, f"print({name!r})")
    save(folder / "assignments" / "release" / "claim.ipynb", without_text(edition("release")))
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "story.md").write_text("# A story\n")
    (folder / "seconds.json").write_text('{"seconds": {}}')
    (tmp_path / "_toc.yml").write_text(TOC)
    return folder


@pytest.fixture
def workspace(course: Path, tmp_path: Path) -> Path:
    """A workspace into which that course was handed out."""
    folder = tmp_path / "workspace"
    assert lab.prepare(course, folder) == lab.Handout(new=ALL)
    return folder


def everything(workspace: Path) -> list[bytes]:
    """What all files of a workspace hold, but for our record."""
    paths = [path for path in workspace.rglob("*") if path.is_file() and path.name != lab.RECORD]
    return [path.read_bytes() for path in paths]


# --- what is handed out --------------------------------------------------------------------------


def test_the_student_edition_is_handed_out_and_the_source_edition_is_not(workspace: Path) -> None:
    names = [path.relative_to(workspace).as_posix() for path in workspace.rglob("*.ipynb")]
    assert sorted(names) == sorted(ALL)
    assert "raise NotImplementedError()" in (workspace / "assignments/claim.ipynb").read_text()


@pytest.mark.parametrize("path", sorted(RELEASE.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_student_edition_says_how_to_get_it(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells  # type: ignore[no-untyped-call]
    assert cells[0].source.count("`make lab`") == 1
    assert cells[0].source.count("`make progress`") == 1


def test_only_what_the_course_hands_out_is_trusted(workspace: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.ipynb", "print('from elsewhere')")
    for path, trusted in [(workspace / "a.ipynb", True), (other, False)]:
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        assert NotebookNotary().check_signature(notebook) is trusted  # type: ignore[no-untyped-call]


# --- a course that changes -----------------------------------------------------------------------


def test_an_untouched_copy_is_replaced_by_the_new_edition(course: Path, workspace: Path) -> None:
    write(course / "a.ipynb", "'new edition'")
    handout = lab.prepare(course, workspace)
    assert handout == lab.Handout(updated=["a.ipynb"])
    assert (workspace / "a.ipynb").read_bytes() == (course / "a.ipynb").read_bytes()
    assert "in which you had changed nothing" in lab.report(handout, workspace)[0]
    assert lab.prepare(course, workspace) == lab.Handout()
    assert len(everything(workspace)) == len(ALL)


def test_the_learners_work_is_never_overwritten(course: Path, workspace: Path) -> None:
    (workspace / "a.ipynb").write_text("mine")
    assert lab.prepare(course, workspace) == lab.Handout()

    write(course / "a.ipynb", "'new edition'")
    handout = lab.prepare(course, workspace)
    assert handout == lab.Handout(changed=["a.ipynb"]) == lab.prepare(course, workspace)
    assert (workspace / "a.ipynb").read_text() == "mine"
    lines = lab.report(handout, workspace)
    assert "the course has changed a.ipynb" in lines[0]
    assert "make lab NEW_EDITIONS=yes" in lines[1]

    (workspace / "a.ipynb").rename(workspace / "a-old.ipynb")
    assert lab.prepare(course, workspace) == lab.Handout(new=["a.ipynb"])
    assert "new edition" in (workspace / "a.ipynb").read_text()
    assert (workspace / "a-old.ipynb").read_text() == "mine"


def test_the_new_edition_is_put_beside_the_learners_on_request(
    course: Path, workspace: Path
) -> None:
    mine = workspace / "assignments" / "claim.ipynb"
    mine.write_text("mine")
    (workspace / "assignments" / "claim.new-edition-2.ipynb").write_text("mine, too")
    beside = []
    for number in range(3):
        write(course / "assignments" / "release" / "claim.ipynb", f"'edition {number}'")
        handout = lab.prepare(course, workspace, beside=True)
        beside += handout.beside
        assert f"edition {number}" in (workspace / handout.beside[0]).read_text()
        assert lab.prepare(course, workspace) == lab.Handout()  # said once
    assert beside == [f"assignments/claim.new-edition{end}.ipynb" for end in ("", "-3", "-4")]
    assert "beside yours: assignments/claim" in lab.report(handout, workspace)[0]
    assert mine.read_text() == "mine"
    assert mine.with_name("claim.new-edition-2.ipynb").read_text() == "mine, too"


def test_the_learners_work_is_not_even_moved(
    course: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "a.ipynb").write_text("mine")
    write(course / "a.ipynb", "'new edition'")
    moved: list[Path] = []
    monkeypatch.setattr(os, "replace", move_and(moved.append))
    assert lab.prepare(course, workspace) == lab.Handout(changed=["a.ipynb"])
    assert moved == []


@pytest.mark.parametrize("record", ["damaged", "[]"])
def test_a_file_of_the_same_name_is_the_learners(course: Path, tmp_path: Path, record: str) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "a.ipynb").write_text("mine")
    (workspace / lab.RECORD).write_text(record)
    assert lab.prepare(course, workspace) == lab.Handout(new=ALL[1:])
    write(course / "a.ipynb", "'new edition'")
    assert lab.prepare(course, workspace, beside=True) == lab.Handout()
    assert (workspace / "a.ipynb").read_text() == "mine"


def test_a_lost_record_of_untouched_copies_is_found_again(course: Path, workspace: Path) -> None:
    (workspace / lab.RECORD).unlink()
    assert lab.prepare(course, workspace) == lab.Handout()
    write(course / "a.ipynb", "'new edition'")
    assert lab.prepare(course, workspace) == lab.Handout(updated=["a.ipynb"])


STEPS = st.sampled_from(["course", "learner", "delete", "copy", "lose record", "lab", "beside"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(STEPS, max_size=12))
def test_no_order_of_events_loses_what_the_learner_wrote(
    steps: list[str], course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "trust", lambda path: None)
    workspace = tmp_path / "workspace"
    shutil.rmtree(workspace, ignore_errors=True)
    lab.prepare(course, workspace)
    mine = workspace / "a.ipynb"
    for number, step in enumerate(steps):
        if step == "course":
            write(course / "a.ipynb", f"edition {number} of {steps}")
        elif step == "learner":
            mine.write_text(f"by me: {number}")
        elif step == "delete":
            mine.unlink(missing_ok=True)
        elif step == "copy" and mine.exists():
            shutil.copy(mine, workspace / "a.new-edition.ipynb")
        elif step == "lose record":
            (workspace / lab.RECORD).unlink(missing_ok=True)
        else:
            before = {content for content in everything(workspace) if content[:5] == b"by me"}
            lab.prepare(course, workspace, beside=step == "beside")
            assert before <= set(everything(workspace))
            assert mine.exists()
    assert not list(workspace.rglob("*.old"))


# --- what happens at the wrong moment ------------------------------------------------------------


def move_and(then: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    """``os.replace`` with something that happens right after it, when a copy is moved aside."""
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        real(source, target)
        if Path(target).suffix == ".old":
            then(Path(target))

    return replace


def test_what_is_saved_just_before_the_new_edition_comes_back(
    course: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(course / "a.ipynb", "'new edition'")
    monkeypatch.setattr(os, "replace", move_and(lambda aside: aside.write_text("just saved")))
    assert lab.prepare(course, workspace) == lab.Handout(changed=["a.ipynb"])
    assert (workspace / "a.ipynb").read_text() == "just saved"
    assert len(everything(workspace)) == len(ALL)


def test_what_is_saved_while_the_new_edition_comes_stays(
    course: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(course / "a.ipynb", "'new edition'")
    mine = workspace / "a.ipynb"
    monkeypatch.setattr(os, "replace", move_and(lambda aside: mine.write_text("just saved")))
    assert lab.prepare(course, workspace) == lab.Handout(changed=["a.ipynb"])
    assert mine.read_text() == "just saved"
    assert len(everything(workspace)) == len(ALL)


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_leaves_every_notebook_whole_and_the_next_call_goes_on(
    course: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = (workspace / "b.ipynb").read_bytes()
    (workspace / "a.ipynb").unlink()
    write(course / "b.ipynb", "'new edition'")
    with monkeypatch.context() as patch:
        patch.setattr(lab, "trust", interrupt)  # after a.ipynb is written, before it is recorded
        with pytest.raises(KeyboardInterrupt):
            lab.prepare(course, workspace)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", move_and(interrupt))
        with pytest.raises(KeyboardInterrupt):
            lab.prepare(course, workspace)
    assert (workspace / "b.ipynb").read_bytes() == old
    assert len(everything(workspace)) == len(ALL)
    assert lab.prepare(course, workspace).changed == []
    for name in ("a.ipynb", "b.ipynb"):
        assert (workspace / name).read_bytes() == (course / name).read_bytes()
    assert lab.prepare(course, workspace) == lab.Handout()


class Full:
    """A file on a disk that fills up."""

    def __init__(self, path: Path, mode: str) -> None:
        self.file = open(path, mode)  # noqa: SIM115

    def __enter__(self) -> "Full":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> None:
        self.file.write(content[:10])
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("untouched", [True, False])
def test_a_full_disk_leaves_no_half_of_a_notebook(
    course: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, untouched: bool
) -> None:
    write(course / "a.ipynb", "'new edition'")
    if not untouched:
        (workspace / "a.ipynb").write_text("mine")
    before = sorted(everything(workspace))
    monkeypatch.setattr(lab, "open", Full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        lab.prepare(course, workspace, beside=True)
    assert sorted(everything(workspace)) == before


# --- the command ---------------------------------------------------------------------------------


AT_THE_START = "--LabApp.default_url=/lab/tree/START.md"


@pytest.fixture
def started(course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands by which JupyterLab would have been started, in that course."""
    commands: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lab, "ROOT", tmp_path)
    monkeypatch.setattr(lab, "SECONDS_FOR_PROGRESS", 300.0)  # a busy machine changes no result
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "")  # put back afterwards, whatever is set
    monkeypatch.setattr(os, "execv", lambda program, command: commands.append(command))
    return commands


def test_jupyter_starts_in_the_workspace(
    started: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab.main(["--prepare-only"]) == 0
    assert started == []
    assert "new in workspace/: assignments/claim.ipynb" in capsys.readouterr().out
    lab.main(["--no-browser", "--", "--port=9999"])
    assert started[0][1:] == [str(lab.SERVER), AT_THE_START, "--no-browser", "--port=9999"]
    assert os.environ["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0] == str(lab.CONFIG)
    assert Path.cwd() == tmp_path / "workspace"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "workspace/ has every notebook of the course"
    assert said[1] == "`make progress` shows which exercises pass, once you have begun"


def test_how_many_pass_is_said_before_jupyter_starts(
    started: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.main(["--prepare-only"])
    save(tmp_path / "workspace/assignments/claim.ipynb", solved(utilization=stub("utilization")))
    lab.main([])
    assert "assignments/claim.ipynb: 5 of 6 pass\n`make progress`" in capsys.readouterr().out
    assert len(started) == 1


def test_a_fault_of_the_checks_does_not_keep_jupyter_closed(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(show_progress, "standing", fail)
    lab.main([])
    assert "is not known: RuntimeError: planted" in capsys.readouterr().out
    assert len(started) == 1


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted; every notebook is whole"),
        (PermissionError(13, "Permission denied", "/x/a.ipynb"), 1, "denied: '/x/a.ipynb'"),
    ],
    ids=["interrupted", "denied"],
)
def test_what_keeps_it_from_starting_takes_one_line(
    started: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    words: str,
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(lab, "prepare", fail)
    assert lab.main([]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert started == []


# --- progress ------------------------------------------------------------------------------------

SHORT = Limits(cell=2.0, call=2.0, total=60.0, patience=20.0)


def claims_to_pass() -> NotebookNode:
    """Nothing is written, and all that could be taken for a sign of success is there."""
    notebook = edition("release")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            name = cell.metadata.get("nbgrader", {}).get("grade_id", "").partition("-")[2]
            text = f"{name.removesuffix('-test')}: passed\n"
            output = nbformat.v4.new_output("stream", name="stdout", text=text)  # type: ignore[no-untyped-call]
            cell.outputs, cell.execution_count = [output], 1
            if name.endswith("-test"):
                cell.source = f"print({text!r})"
    notebook.metadata.update(progress="passed", passed=True)
    return notebook


def test_each_exercise_is_in_one_of_three_states(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    answers = {
        "utilization": stub("utilization"),
        "run_time": "def run_time():\n    pass",
        "export_limit": "def export_limit(a, b:\n    pass",
        "conversation_price": stub("conversation_price").replace("# YOUR CODE", "x = 1 # MY CODE"),
    }
    path = save(tmp_path / "assignments" / "my claim.ipynb", solved(**answers))
    write(tmp_path / "assignments" / "scratch.ipynb", "1 / 0")
    before = path.read_bytes()
    assert show_progress.main(["--workspace", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "assignments/my claim.ipynb: 2 of 6 pass"
    states = {line[2:26].strip(): line[26:].strip() for line in lines[1:7]}
    assert states["training_flops"] == states["conversations_that_fit"] == "passes"
    assert states["utilization"] == "not begun"
    assert states["run_time"].startswith("not yet    it raises TypeError: run_time() takes 0")
    assert states["export_limit"].startswith("not yet    its cell raises SyntaxError: ")
    assert states["conversation_price"].startswith("not yet    not written yet: replace")
    assert max(map(len, lines[:-1])) <= 90
    assert lines[-1].startswith("2 of 6 exercises pass.")
    assert path.read_bytes() == before


def test_what_a_notebook_says_of_itself_is_not_believed(tmp_path: Path) -> None:
    editions = read_assignments(RELEASE, student_edition=True)
    save(tmp_path / "assignments" / "claim.ipynb", claims_to_pass())
    notebooks = show_progress.find_notebooks(tmp_path, editions)
    reports = show_progress.check(notebooks, editions, threading.Event())
    assert show_progress.count_passed(reports[0]) == 0
    assert show_progress.table(notebooks, reports, editions)[-1].startswith(
        "0 of 6 exercises pass."
    )


def test_a_loop_an_exit_and_a_damaged_file_take_a_line_each(tmp_path: Path) -> None:
    editions = read_assignments(RELEASE, student_edition=True)
    folder = tmp_path / "assignments"
    for name, code in {"loop": "while True: pass", "exit": "import os; os._exit(1)"}.items():
        save(folder / f"{name}.ipynb", with_cells(solved(), code, first=True))
    (folder / "claim.ipynb").write_text("{")
    notebooks = show_progress.find_notebooks(tmp_path, editions)
    reports = show_progress.check(notebooks, editions, threading.Event(), SHORT)
    assert [show_progress.count_passed(report) for report in reports] == [0, 6, 6]
    text = "\n".join(show_progress.table(notebooks, reports, editions))
    assert "code cell 1 took more than 2 s of computing" in text
    assert "code cell 1 ended its own process" in text
    assert "not a notebook: the file is not JSON" in text


def test_a_helper_beside_the_notebook_can_be_imported(tmp_path: Path) -> None:
    editions = read_assignments(RELEASE, student_edition=True)
    answer = "from helper import training_flops"
    save(tmp_path / "assignments" / "claim.ipynb", solved(training_flops=answer))
    code = (
        "def training_flops(n, d, recompute=False):\n    return (8 if recompute else 6) * n * d\n"
    )
    (tmp_path / "assignments" / "helper.py").write_text(code)
    reports = show_progress.check(
        show_progress.find_notebooks(tmp_path, editions), editions, threading.Event()
    )
    assert show_progress.count_passed(reports[0]) == 6


def test_only_what_was_worked_in_is_checked_at_the_start(tmp_path: Path) -> None:
    path = save(tmp_path / "assignments" / "claim.ipynb", solved())
    save(tmp_path / "assignments" / "moe.ipynb", edition("release", "moe"))
    lines = show_progress.in_short(show_progress.standing(tmp_path, {path}, RELEASE, 60), 60)
    assert lines[0] == "assignments/claim.ipynb: 6 of 6 pass"
    assert len(lines) == 2


def test_the_start_does_not_wait_for_long_checks(tmp_path: Path) -> None:
    # The cell ends by itself after an hour, and the patience of the checks after a minute and more.
    slow = with_cells(solved(), ENDLESS, first=True)
    path = save(tmp_path / "assignments" / "claim.ipynb", slow)
    lines = show_progress.in_short(show_progress.standing(tmp_path, {path}, RELEASE, 1), 1)
    assert lines == ["the checks take more than 1 s; `make progress` waits for them"]


@pytest.mark.parametrize("release", [RELEASE, ROOT / "book"])
def test_nothing_to_check_takes_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], release: Path
) -> None:
    assert show_progress.main(["--workspace", str(tmp_path), "--release", str(release)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert ("`make lab` puts them there" if release == RELEASE else "no notebooks in") in lines[0]


def test_ctrl_c_ends_the_checks_and_their_processes(tmp_path: Path) -> None:
    slow = with_cells(solved(), ENDLESS, first=True)
    path = save(tmp_path / "assignments" / "claim.ipynb", slow)
    before = path.read_bytes()
    command = [
        sys.executable,
        str(ROOT / "tools" / "show_progress.py"),
        "--workspace",
        str(tmp_path),
    ]
    # A shell starts what is in its background deaf to Ctrl-C, and so would this child of a test be.
    heard = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        process = subprocess.Popen(command, stderr=-1, text=True, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, heard)
    wait_until(lambda: is_endless(process))
    started = family(process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said.endswith("interrupted; nothing was changed\n")
    assert len(said.splitlines()) == 1
    _, alive = psutil.wait_procs(started, timeout=PATIENCE)
    assert alive == []
    assert path.read_bytes() == before


# --- with nothing but requirements.txt -----------------------------------------------------------


def needed_by(requirements: Path) -> set[str]:
    """The distributions that a requirements file brings, with all that they need."""
    lines = [
        line for line in requirements.read_text().splitlines() if line[:1] not in ("", "#", "-")
    ]
    waiting, found = [Requirement(line) for line in lines], set()
    while waiting:
        wanted = waiting.pop()
        name = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if name in found:
            continue
        found.add(name)
        try:
            needs = importlib.metadata.requires(wanted.name) or []
        except importlib.metadata.PackageNotFoundError:  # for another system
            continue
        for need in map(Requirement, needs):
            extras = wanted.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(need)
    return {name for name, _ in found}


def absent_for_a_learner() -> list[str]:
    """The packages here that ``requirements.txt`` does not bring."""
    learners = needed_by(ROOT / "requirements.txt")
    packages = importlib.metadata.packages_distributions()
    ours = {"slingshot-course"}
    return [
        package
        for package, owners in packages.items()
        if not {canonicalize_name(owner) for owner in owners} & (learners | ours)
    ]


HIDE = """
import sys
for name in {names!r}:
    sys.modules[name] = None
import slingshot_grader.worker
from tools import lab, show_progress
assert not set(sys.modules) & {{"tools.assignments"}}
code = lab.main(["--prepare-only", "--workspace", {workspace!r}])
if code == 0 and {fill!r}:
    open({workspace!r} + "/assignments/claim.ipynb", "w").write(open({fill!r}).read())
sys.exit(code or show_progress.main(["--workspace", {workspace!r}]))
"""


def test_a_learner_needs_nothing_but_the_requirements(tmp_path: Path) -> None:
    names = absent_for_a_learner()
    assert {"nbgrader", "hypothesis", "xdist", "playwright", "transformers"} <= set(names)
    assert not {"numpy", "torch", "nbformat", "jupyterlab", "IPython"} & set(names)
    fill = str(save(tmp_path / "solved.ipynb", solved(utilization=stub("utilization"))))
    code = HIDE.format(names=names, workspace=str(tmp_path / "workspace"), fill=fill)
    env = {**os.environ, "JUPYTER_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "assignments/claim.ipynb: 5 of 6 pass" in run.stdout
    assert "assignments/moe.ipynb: 0 of 5 pass" in run.stdout


def test_the_record_names_what_was_handed_out(workspace: Path) -> None:
    assert sorted(json.loads((workspace / lab.RECORD).read_text())) == sorted(ALL)
