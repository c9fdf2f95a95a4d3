"""Grading what was made to break it: each way that a review has found, with and without a sandbox.

All notebooks are graded as one class, once for each mode; files that are none, or oddly named, are
in the class of the first mode alone, since no code of theirs is run. Whatever is in it, everybody
has a row, those who have answers have their points, and nothing is left behind.
"""

import dataclasses
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbformat import NotebookNode

from exercise_counts_plugin import assignments
from slingshot_grader import batch, confine, examiner, files, notebook, outcome, page, wire
from slingshot_grader.batch import Batch, Settings
from slingshot_grader.cli import EDITION, uninterrupted
from slingshot_grader.cli import main as grade
from slingshot_grader.examine import refuse
from slingshot_grader.files import Submission, UnreadableError
from slingshot_grader.local import Local
from slingshot_grader.pool import Job, LostError, Pool
from slingshot_grader.processes import computed, family
from slingshot_grader.session import Run, read_outputs, remote_error
from test_grade import (
    ALL,
    ASSIGNMENTS,
    LIMITS,
    OPEN,
    SANDBOX,
    Class,
    by_id,
    edition,
    everything_wrong,
    limits,
    needs_sandbox,
    read_reports,
    read_rows,
    solved,
    with_cells,
)

ROOT = Path(__file__).resolve().parent.parent
MODES = [
    pytest.param("sandbox", marks=needs_sandbox),
    "no sandbox",
]
WITH_ODD_FILES = "sandbox" if SANDBOX else "no sandbox"
"""The mode in which files that are no notebooks, or oddly named, are read as well."""

# --- notebooks, and what each must get ---------------------------------------------------------

WRONG = everything_wrong()
REFERENCES = """
from slingshot_exercises import claim as c
from slingshot_exercises.claim import check_run_time
def training_flops(*arguments):
    return c.TRAINING_FLOPS.reference(*arguments)
def run_time(*arguments):
    return check_run_time.__globals__["RUN_TIME"].reference(*arguments)
def utilization(*arguments):
    return c.check_utilization.__globals__["_utilization"](*arguments)
"""
HUNT = """
import gc, importlib, sys
ours = "slingshot_grader.stand_in"
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != ours]
for name in [name for name in sys.modules if name.startswith("slingshot")]:
    del sys.modules[name]
importlib.invalidate_caches()
found = []
for name in ("slingshot_exercises.claim", "slingshot_exercises.checking", "tools.grade",
             "slingshot_grader.examine", "slingshot_grader.session"):
    try:
        found.append(importlib.import_module(name).__file__)
    except ImportError:
        pass
print("imported:", found)
word = "".join(["NOT", "_", "WRITTEN"])
texts = [value for value in gc.get_objects() if isinstance(value, dict)]
print("held:", [sorted(map(str, value))[:5] for value in texts if word in value])
"""
READ = """
import os
word = "".join(["TRAINING_", "FLOPS = "])
found = []
for top in ("/course", "/usr/lib/python3", "/tmp", "/submission", sys.prefix):
    for folder, folders, names in os.walk(top):
        for name in names:
            if name.endswith((".py", ".pyc", ".ipynb")) and "slingshot" in folder + name:
                text = open(os.path.join(folder, name), errors="replace").read()
                found += [name] * (word in text)
print("read:", found)
"""
COLLIDE = """
from collections.abc import Mapping
class Many(Mapping):
    def __len__(self): return 40_000
    def __iter__(self): return iter(range(40_000))
    def __getitem__(self, key): return 0
    def items(self): return [(i * (2**61 - 1), 0) for i in range(40_000)]
def run_time(*arguments): return Many()
"""
MEMFD = """
import os
held = []
def fill():
    for number in range(20):
        file = os.memfd_create(str(number))
        os.write(file, bytes(50_000_000))
        held.append(file)
fill()
"""
FILES_IN_MEMORY = """
written = 0
for folder in ("/tmp", "/dev/shm"):
    for number in range(40):
        try:
            with open(f"{folder}/{number}", "wb") as file:
                written += file.write(bytes(20_000_000))
        except OSError:
            break
print("in files:", written)
"""
SURVIVE = """
import os, subprocess, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        words = [sys.executable, "-c", "import time; time.sleep(3600)", MARK]
        os.execv(sys.executable, words)
    os._exit(0)
time.sleep(0.5)
"""
KILL = """
import os, signal
all_of_us = os.path.isdir("/submission")  # where there are no others
for pid in {os.getppid(), *range(2, os.getppid() + 1)} if all_of_us else {os.getppid()}:
    if pid != os.getpid():
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError as error:
            print(error)
"""
OWNER = """
import fcntl, os, signal
read_end, write_end = os.pipe()
fcntl.fcntl(read_end, fcntl.F_SETOWN, os.getppid())
fcntl.fcntl(read_end, 10, signal.SIGKILL)
fcntl.fcntl(read_end, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
os.write(write_end, b"x")
"""
FORKS = """
import os, time
for _ in range(45):
    if os.fork() == 0:
        time.sleep(3600)
"""
TAKE_OVER = """
import gc
for value in gc.get_objects():
    if type(value).__name__ == "Worker":
        big = [{"display": {"text/plain": "x" * 20_000, "image/png": "A" * 1_400_000}}] * 5
        type(value).run = lambda self, source: {"outputs": [None, 7, [], {}, {"stream": 1}, *big],
                                                "late": ["x"], "library": [1, "x" * 9999]}
"""
THREADS = """
import threading, time
threading.stack_size(65536)
for _ in range(3000):
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
"""
OF_NOBODY = """
import mmap
def keep(file, *options):
    memory = mmap.mmap(file, 200_000_000, *options)
    for at in range(0, 200_000_000, 4096):
        memory[at] = 1
    memory.madvise(mmap.MADV_DONTNEED)  # now it counts for no process, and is still there
    return memory
zero = open("/dev/zero", "r+b", buffering=0)
for file in (-1, zero.fileno()):
    try:
        print("of nobody:", len(keep(file)))
    except OSError as error:
        print("no memory:", error.strerror)
"""
SHORT_LIVES = """
import os
for _ in range(1000):
    if os.fork() == 0:
        for number in range(2_000_000):
            pass
        os._exit(0)
    os.wait()
"""
DEEP = """
import os
for _ in range(2000):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
"""
HALF = """
def run_time(*arguments):
    raise ValueError("\\udcff")
"""
TYPES = {
    "run_time": """
import functools
@functools.lru_cache
def run_time(flops, n_gpus, peak_flops, mfu, uptime=1.0):
    if not isinstance(mfu, (int, float)):
        raise TypeError(type(mfu))
    gpu_hours = flops / (peak_flops * mfu * uptime) / 3600
    return gpu_hours, gpu_hours / n_gpus / 24
"""
}


@dataclass(frozen=True)
class Attack:
    """A notebook, the points that it must get, and what must be said of it."""

    notebook: NotebookNode
    points: float
    said: str = ""


def attacks(mark: str) -> dict[str, Attack]:
    """All of them by the name of the learner."""
    loose = with_cells(solved(), "print('\\udcff')", "x = '\udcff'")
    named = f"MARK = {mark!r}\n"
    long = solved()
    long.cells[2].source += f"\n# {'x' * 2_000_000}"
    many = solved()
    many.cells += [nbformat.v4.new_code_cell("1")] * 900  # type: ignore[no-untyped-call]
    wide = with_cells(solved(), f"y = '{'x' * 900_000}'")
    return {
        "other types": Attack(solved(**TYPES), ALL),
        "references": Attack(solved(**{**WRONG, "utilization": REFERENCES, "training_flops": "",
                                       "run_time": ""}), 0, "has no 'TRAINING_FLOPS'"),
        "hunts": Attack(with_cells(solved(**WRONG), HUNT, READ), 0),
        "half letters": Attack(loose, ALL),
        "half letters in an error": Attack(solved(run_time=HALF), ALL - 1, "it raises ValueError"),
        "collides": Attack(solved(run_time=COLLIDE), ALL - 1, "it sends what is no answer"),
        "many cells": Attack(many, ALL),
        "a long line": Attack(wide, ALL),
        "a longer line": Attack(long, 0, "a cell of 200"),
        "memfd": Attack(with_cells(solved(), MEMFD, first=True), ALL, "1 cell raises"),
        "memory in files": Attack(with_cells(solved(), FILES_IN_MEMORY, first=True), ALL),
        "survives": Attack(with_cells(solved(), named + SURVIVE, first=True), ALL),
        "kills": Attack(with_cells(solved(), KILL, first=True), ALL),
        "owns a signal": Attack(with_cells(solved(), OWNER, first=True), ALL),
        "forks": Attack(with_cells(solved(), FORKS, first=True), ALL, "code cell 1 started more"),
        "threads": Attack(with_cells(solved(), THREADS, first=True), ALL, "more than 400 threads"),
        "memory of nobody": Attack(with_cells(solved(), OF_NOBODY, first=True), ALL),
        "short lives": Attack(with_cells(solved(), SHORT_LIVES, first=True), ALL, "code cell 1 "),
        "deep folders": Attack(with_cells(solved(), DEEP, first=True), ALL),
        "takes over": Attack(with_cells(solved(), TAKE_OVER, "1", first=True), 0),
        "right": Attack(solved(), ALL),
    }  # fmt: skip


def hand_in(folder: Path, name: str, content: NotebookNode | bytes) -> Path:
    """Write a notebook, or bytes in its place."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(data)
    return path


def odd_files(folder: Path) -> dict[str, str]:
    """Hand in what is no notebook, or oddly named; return what each row must say."""
    right = json.dumps(solved()).encode()
    os.mkfifo(folder / "pipe.ipynb")
    (folder / "pipes").mkdir()
    os.mkfifo(folder / "pipes" / "claim.ipynb")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)  # the name of a socket is short
        server.bind("socket.ipynb")
        os.chdir(here)
    said = dict.fromkeys(("pipe", "pipes", "socket"), "no regular file")
    if os.geteuid() == 0:
        try:
            os.mknod(folder / "device.ipynb", 0o20666, os.makedev(1, 5))
            said["device"] = "no regular file"
        except OSError:
            pass  # not here
    hand_in(folder, "utf-16.ipynb", right.decode().encode("utf-16"))
    said["utf-16"] = "the file is in UTF-16"
    hand_in(folder, "newer.ipynb", b'{"nbformat": 9, "cells": []}')
    said["newer"] = "a notebook of format 9"
    cells = b",".join([b'{"cell_type": "code", "source": "", "metadata": {}}'] * 200_000)
    hand_in(folder, "too-many.ipynb", b'{"nbformat": 4, "cells": [' + cells + b"]}")
    said["too-many"] = "200000 cells"
    hand_in(folder, "marked.ipynb", b"\xef\xbb\xbf" + right)
    hand_in(folder, os.fsdecode(b"Jos\xe9.ipynb"), right)
    hand_in(folder, os.fsdecode(b"Jos\xe8.ipynb"), right)
    hand_in(folder, f"{'雷' * 80}/claim.ipynb", right)
    hand_in(folder, "a\nb\r.ipynb", right)
    hand_in(folder, "Ada/claim.ipynb", right)
    hand_in(folder, "Ada/old.ipynb", json.dumps(solved(**WRONG)).encode())
    hand_in(folder, "Ada (2).ipynb", json.dumps(solved(run_time="")).encode())
    hand_in(folder, "ADA.ipynb", json.dumps(solved(utilization="")).encode())
    for number in range(30):
        hand_in(folder, f"hundred/{number:02}.ipynb", b"{")
    return said


RIGHT = ["marked", "Jos_xe9", "Jos_xe8", "雷" * 40, "a_b_"]


@dataclass
class Graded(Class):
    """A class that was graded, and what its attacks were."""

    attacks: dict[str, Attack] = dataclasses.field(default_factory=dict)
    odd: dict[str, str] = dataclasses.field(default_factory=dict)
    mark: str = ""
    mode: str = ""


@pytest.fixture(scope="module", params=MODES)
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graded:
    """Everything, graded in one of the modes."""
    place = tmp_path_factory.mktemp("hostile")
    folder = place / "class"
    folder.mkdir()
    mark = f"survivor-{os.getpid()}-{request.param.replace(' ', '-')}"
    made = attacks(mark)
    for name, attack in made.items():
        hand_in(folder, f"{name}.ipynb", attack.notebook)
    odd = odd_files(folder) if request.param == WITH_ODD_FILES else {}
    options = ["--no-sandbox"] if request.param == "no sandbox" else []
    words = [sys.executable, "-m", "slingshot_grader", "--assignment=claim", *limits(), "--jobs=2"]
    temporary = place / "tmp"
    temporary.mkdir()
    run = subprocess.run(
        [*words, *options, str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert run.returncode == 1, run.stderr  # some have no grade
    output = folder.with_name("class-graded")
    rows, reports = read_rows(output), read_reports(output)
    return Graded(folder, output, rows, reports, run.stdout + run.stderr, made, odd, mark,
                  request.param)  # fmt: skip


only_with_odd_files = pytest.mark.parametrize("hostile", [WITH_ODD_FILES], indirect=True)


def test_everybody_has_a_row_and_what_is_theirs(hostile: Graded) -> None:
    due = {name: attack.points for name, attack in hostile.attacks.items()}
    if hostile.odd:
        due |= dict.fromkeys(RIGHT, ALL) | {"ADA": ALL - 2, "Ada (2)": ALL - 1, "Ada (3)": ALL}
    seen = {name: float(hostile.rows[name]["points"] or 0) for name in due}
    assert seen == due, {
        name: hostile.rows[name]["remarks"] for name in due if seen[name] != due[name]
    }


def test_what_is_said_of_each(hostile: Graded) -> None:
    for name, attack in hostile.attacks.items():
        messages = [each["message"] for each in hostile.reports[name]["grades"]]
        everything = [*messages, hostile.rows[name]["remarks"]]
        assert any(attack.said in text for text in everything), (name, everything)


@only_with_odd_files
def test_what_is_no_notebook_has_a_reason_and_no_points(hostile: Graded) -> None:
    assert len(hostile.odd) >= 6
    for name, words in hostile.odd.items():
        row = hostile.rows[name]
        assert row["status"] == "unreadable"
        assert words in row["remarks"], row
        assert row["points"] == ""
        assert f"no grade: class/{name}" in hostile.said


def test_no_reference_is_within_reach(hostile: Graded) -> None:
    """By import, by the globals of a check, among all objects; by reading in the sandbox alone."""
    text = hostile.text("hunts")
    assert "imported: []" in text
    assert "held: []" in text
    if hostile.mode == "sandbox":
        assert "read: []" in text


def test_memory_that_is_of_no_process_is_bounded(hostile: Graded) -> None:
    assert "Function not implemented" in hostile.text("memfd")
    text = hostile.text("memory of nobody")
    assert text.count("no memory: ") == (2 if hostile.mode == "sandbox" else 1), text
    if hostile.mode == "sandbox":
        (written,) = [
            int(line.split()[-1])
            for line in hostile.text("memory in files").splitlines()
            if line.startswith("in files: ")
        ]
        assert 0 < written < LIMITS.memory / 8 + LIMITS.memory / 32


def test_no_process_outlives_grading(hostile: Graded) -> None:
    commands = [each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])]
    assert [words for words in commands if hostile.mark in words] == []


def test_no_file_is_left_in_the_temporary_folder(hostile: Graded) -> None:
    assert list((hostile.folder.parent / "tmp").iterdir()) == []


def deep(folder: Path, wide: int = 40) -> None:
    """A folder with folders in it that the same names occur in."""
    for number in range(wide):
        (folder / str(number) / "work" / "more").mkdir(parents=True)
        (folder / str(number) / "work" / "claim.ipynb").write_text("{}")


def test_two_may_take_the_same_folder_away(tmp_path: Path) -> None:
    words = [sys.executable, "-c", REMOVE, str(tmp_path / "scratch")]
    for _ in range(5):
        deep(tmp_path / "scratch", 400)
        both = [subprocess.Popen(words, stdin=subprocess.PIPE) for _ in range(2)]
        for each in both:
            assert each.stdin is not None
            each.stdin.close()
        assert [each.wait() for each in both] == [0, 0]
        assert list(tmp_path.iterdir()) == []


REMOVE = """
import sys
from pathlib import Path
from slingshot_grader.files import remove
sys.stdin.read()
remove(Path(sys.argv[1]))
"""


def test_a_grader_that_is_killed_while_it_tidies_up_leaves_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    words = [sys.executable, "-c", TIDY, str(tmp_path / "a.zip")]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.ipynb", "{}")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    assert said
    scratch = Path(said)
    started = [psutil.Process(each) for each in family(process.pid)[1:]]
    assert len(started) == 1
    deep(scratch / "unpacked", 4000)
    process.send_signal(signal.SIGUSR1)
    while (scratch / "unpacked" / "0").exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert psutil.wait_procs(started, timeout=600)[1] == []
    assert [each.name for each in tmp_path.iterdir()] == ["a.zip"]


TIDY = """
import signal, sys
from pathlib import Path
from slingshot_grader.pool import Job, Pool
pool = Pool(2)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
pool.ask(Job("unpack", {"archive": Path(sys.argv[1]), "target": pool.scratch / "class"}))
print(pool.scratch, flush=True)
signal.sigwait([signal.SIGUSR1])
pool.close()
"""


def test_nothing_interrupts_the_tidying_up() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_pages_are_unique_and_bounded(hostile: Graded) -> None:
    pages = list((hostile.output / "feedback").iterdir())
    assert len(pages) == len(hostile.rows)
    assert max(page.stat().st_size for page in pages) < outcome.LARGEST_PAGE
    assert "not shown" in hostile.page("many cells")


@only_with_odd_files
def test_one_learner_has_one_row_whatever_was_handed_in(hostile: Graded) -> None:
    row = hostile.rows["hundred"]
    assert row["attempts"] == "10"
    assert "30 attempts; the last 10 were graded" in row["remarks"]
    assert hostile.rows["Ada (3)"]["attempts"] == "2"


# --- the types of arguments ----------------------------------------------------------------------


def kinds(value: object) -> Any:  # noqa: ANN401
    """The types in a value."""
    if isinstance(value, dict):
        return type(value), [(kinds(name), kinds(each)) for name, each in value.items()]
    if isinstance(value, list | tuple | set):
        return type(value), [kinds(each) for each in value]
    return type(value), getattr(value, "dtype", None), getattr(value, "requires_grad", None)


@pytest.mark.parametrize("assignment", assignments())
def test_the_grader_passes_the_very_types_that_the_visible_check_passes(assignment: str) -> None:
    names: dict[str, Any] = {}
    cells = by_id(edition("source", assignment))
    tests = {test.grade_id for test in ASSIGNMENTS[assignment].tests}
    calls = 0

    def observed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: object, **keywords: object) -> object:
            nonlocal calls
            calls += 1
            for value in [*arguments, *keywords.values()]:
                there = wire.decode(json.loads(json.dumps(wire.encode(value))))
                assert kinds(there) == kinds(value)
            return function(*arguments, **keywords)

        return call

    for grade_id, cell in cells.items():
        if grade_id in tests:
            exercise = grade_id.partition("-")[2].removesuffix("-test")
            exec(cell.source, {**names, exercise: observed(names[exercise]), "print": id})
        elif cell.cell_type == "code":
            exec(cell.source, names)
    assert calls > 3 * len(tests)


def test_a_scalar_that_is_an_array_would_be_noticed() -> None:
    import numpy as np

    assert kinds(np.float64(1)) != kinds(np.array(1.0)) != kinds(1.0)


# --- one at a time -------------------------------------------------------------------------------


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """An examiner with a temporary folder of its own, in which nothing may be left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    made = Pool(1)
    yield made
    made.close()
    assert list(folder.iterdir()) == []


def new_batch(tmp_path: Path, pool: Pool, **changes: object) -> tuple[Batch, Local]:
    folder = tmp_path / "class"
    folder.mkdir(exist_ok=True)
    settings = Settings(folder, tmp_path / "class-graded", EDITION, (), SANDBOX, LIMITS, "claim")
    settings = dataclasses.replace(settings, **changes)  # type: ignore[arg-type]
    return Batch(settings, pool), Local(pool, SANDBOX, LIMITS)


def test_what_changes_while_it_is_graded_gets_no_grade_of_something_else(
    tmp_path: Path, pool: Pool
) -> None:
    (tmp_path / "class").mkdir()
    path = hand_in(tmp_path / "class", "a.ipynb", solved())
    made, local = new_batch(tmp_path, pool)
    seen = []

    def meddle(submission: Submission, assignment: Any) -> outcome.Report:  # noqa: ANN401
        report = local(submission, assignment)
        seen.append(report.points)
        if len(seen) == 1:
            hand_in(tmp_path / "class", "a.ipynb", solved(**WRONG))
        return report

    made.find()
    made.run(meddle)
    (row,) = made.write()
    assert seen == [ALL, 0]
    assert row.points == 0

    def always(submission: Submission, assignment: Any) -> outcome.Report:  # noqa: ANN401
        report = local(submission, assignment)
        path.write_text(path.read_text() + " ")
        return report

    made.reports.clear()
    path.write_text(path.read_text() + " ")
    made.run(always)
    (row,) = made.write()
    assert (row.status, row.report.remarks) == ("not graded", [batch.CHANGING])


def test_an_instructor_who_mends_a_test_accuses_nobody(tmp_path: Path, pool: Pool) -> None:
    source = tmp_path / "source"
    source.mkdir()
    mended = edition("source")
    cells = by_id(mended)
    cells["claim-run_time-test"].source += "\nassert run_time(7.2e15, 2, 1e12, 0.5)[0] > 0"
    cells["claim-imports"].source += "\nimport math"
    nbformat.write(mended, source / "claim.ipynb")  # type: ignore[no-untyped-call]
    (tmp_path / "class").mkdir()
    hand_in(tmp_path / "class", "honest.ipynb", solved())
    edited = solved()
    by_id(edited)["claim-run_time-test"].source = "print('passed')"
    hand_in(tmp_path / "class", "edits.ipynb", edited)
    made, local = new_batch(tmp_path, pool, source=source)
    made.find()
    made.run(local)
    rows = {row.submission.learner: row for row in made.write()}
    assert [rows[name].points for name in ("honest", "edits")] == [ALL, ALL]
    (remark,) = rows["honest"].report.remarks
    assert remark == "of another edition, graded by this one: claim-imports, claim-run_time-test"
    assert "edited, without effect: claim-run_time-test" in rows["edits"].report.remarks


def test_an_examiner_that_is_brought_down_costs_one_grade_alone(tmp_path: Path, pool: Pool) -> None:
    look = Job("identify", {"path": tmp_path, "assignments": ASSIGNMENTS})
    with pytest.raises(LostError, match="KeyError"):
        pool.ask(Job("no such job", {}))
    first = pool.all[0].process
    assert first is not None
    assert pool.ask(look)
    assert pool.all[0].process is first  # a job that fails costs no examiner
    first.kill()
    with pytest.raises(LostError):
        pool.ask(look)
    assert pool.ask(look)
    assert pool.all[0].process is not first


REPORT = {"status": "graded", "remarks": [], "grades": [], "seconds": 1, "notebook": "",
          "digest": "", "answers": {}}  # fmt: skip
GRADE = {"exercise": "a", "grade_id": "a", "points": 1, "most": 1, "outcome": "passed",
         "message": ""}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"status": "perfect"},
        {"status": 1},
        {"remarks": "x"},
        {"remarks": [1]},
        {"grades": [{**GRADE, "points": 2}]},
        {"grades": [{**GRADE, "points": float("nan")}]},
        {"grades": [{**GRADE, "points": True}]},
        {"grades": [{**GRADE, "outcome": "brilliant"}]},
        {"grades": [7]},
        {"seconds": "1"},
        {"answers": {"a": ["b"]}},
        {"notebook": None},
    ],
    ids=str,
)
def test_a_report_that_is_none_is_refused(change: dict[str, Any]) -> None:
    assert outcome.read_report({**REPORT, "grades": [GRADE]}).points == 1
    with pytest.raises(ValueError, match="no "):
        outcome.read_report({**REPORT, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"grades": []},
        {"grades": [{**GRADE, "exercise": name, "grade_id": name} for name in "abcdef"]},
        {"answers": {"../page": [1]}},
    ],
    ids=str,
)
def test_a_report_on_another_assignment_is_refused(change: dict[str, Any]) -> None:
    claim = ASSIGNMENTS["claim"]
    grades = [dataclasses.asdict(refuse(test, "wrong", "")) for test in claim.tests]
    assert outcome.report_on(claim, {**REPORT, "grades": grades}).points == 0
    with pytest.raises(ValueError, match="another assignment"):
        outcome.report_on(claim, {**REPORT, "grades": grades, **change})


def test_a_report_is_bounded_and_can_be_written() -> None:
    long = {**REPORT, "remarks": ["\udcff" * 10_000] * 1000, "notebook": "x" * 20_000_000}
    read = outcome.read_report(long)
    assert read.remarks[0].encode("utf-8")
    assert sum(map(len, read.remarks)) <= outcome.MOST_REMARKS * outcome.LONGEST_REMARK
    assert len(read.notebook) == outcome.LARGEST_PAGE


@pytest.mark.parametrize("answer", [{}, {"assignment": 1}, {"assignment": "../x", "begun": True}])
def test_an_assignment_that_is_none_gives_no_page_its_name(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    made, _ = new_batch(tmp_path, pool)
    monkeypatch.setattr(pool, "ask", lambda job: answer)
    assert made.identify(tmp_path / "a.ipynb") == ("", True)


@pytest.mark.parametrize(
    "answer", [{"remarks": 3}, {"remarks": ["x", []]}, {"problem": {}}], ids=str
)
def test_an_answer_about_a_zip_that_is_none_is_a_problem_of_that_zip(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    made, _ = new_batch(tmp_path, pool)
    monkeypatch.setattr(pool, "ask", lambda job: answer)
    remarks, problem = made.unpack(tmp_path / "a.zip", tmp_path / "unpacked")
    assert remarks == []
    assert problem.startswith("a zip that cannot be unpacked")


def test_a_page_that_cannot_be_made_costs_no_grade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> str:
        raise RecursionError

    made = outcome.Report("graded")
    monkeypatch.setattr(examiner, "examine", lambda *arguments: (made, []))
    monkeypatch.setattr(page, "render", fail)
    said: list[dict[str, Any]] = []
    submission = Submission("x", tmp_path, "claim", [])
    examiner.do_examine(said.append, submission, ASSIGNMENTS["claim"], SANDBOX, LIMITS, [])
    assert said == [{"report": made.message(), "whole": False}]


def test_a_page_beyond_bounds_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [notebook.Cell("a = 1", "", {})]
    runs = [Run("a = 1", "", 1)]
    assert "a" in page.render(cells, runs, ASSIGNMENTS["claim"])
    monkeypatch.setattr(page, "LARGEST_PAGE", 5)
    with pytest.raises(ValueError, match="a page of"):
        page.render(cells, runs, ASSIGNMENTS["claim"])


def test_a_learners_text_is_read_as_text_and_never_as_the_instructors() -> None:
    text = "I *predict* 3.\n\n# Why\n\n| a |\n|---|\n| 1 |\n\n[x](javascript:alert(1))\n\n"
    text += '<div class="own" id="x" style="position:fixed">All points.</div><img src=x onerror=y>'
    text += '<span class="own">All points.</span>'
    cells = [notebook.Cell(text, "", {}, "markdown"), notebook.Cell("a = 1", "", {})]
    shown = page.render(cells, [Run("a = 1", "", 1)], ASSIGNMENTS["claim"])
    for kept in ("<p>I <em>predict</em> 3.</p>", "<h1>Why", "<td>1</td>", "<div>All points.</div>"):
        assert kept in shown
    assert '<span class="n">a</span>' in shown
    assert page.render(cells, [Run("a = 1", "", 1)], ASSIGNMENTS["claim"]) == shown  # to the byte
    for gone in ("javascript:", "<img", 'class="own"', "style="):
        assert gone not in shown


def test_outputs_that_no_worker_of_ours_sends_are_left_out() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    picture = {"text/plain": "x", "image/png": "AAAA"}
    good = [
        {"stream": "stdout", "text": "x"},
        {"error": ["a", "b", "c"]},
        {"result": picture},
        {"display": {"text/plain": "x"}},
    ]
    bad: list[Any] = [None, 7, [], {}, "stream", {"stream": 1}, {"error": 1}, {"error": ["a"]},
           {"display": 1}, {"result": {"image/png": "A"}}]  # fmt: skip
    assert list(read_outputs([*good, *bad])) == good
    (empty,) = read_outputs([{"stream": deep, "text": deep, "more": "x"}])
    assert empty == {"stream": "", "text": ""}
    assert list(read_outputs([{"display": {"image/png": "A" * 10_000_000}}])) == [
        {"display": {"text/plain": ""}}
    ]
    assert len(list(read_outputs(good * 1000))) == wire.MOST_OUTPUTS
    assert list(read_outputs(7)) == []
    assert str(remote_error([deep, deep, deep])) == ""


@pytest.mark.parametrize("place", ["file/x", "/proc/x"])
def test_an_output_that_cannot_be_written_takes_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "class").mkdir()
    hand_in(tmp_path / "class", "a.ipynb", b"")
    (tmp_path / "file").write_text("")
    output = place if place.startswith("/") else str(tmp_path / place)
    assert grade([*OPEN, "--output", output, str(tmp_path / "class")]) == 1
    assert "cannot be written to" in capsys.readouterr().err.splitlines()[-1]


def test_a_full_disk_takes_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "class").mkdir()
    hand_in(tmp_path / "class", "a.ipynb", solved())

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(batch, "write_atomically", full)
    assert grade([*OPEN, "--assignment=claim", str(tmp_path / "class")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith(": No space left on device")


# --- small parts ---------------------------------------------------------------------------------


def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    for read in (lambda path: files.read_regular(path, 10), notebook.read_cells):
        with pytest.raises(UnreadableError, match="no regular file"):
            read(tmp_path / "x")
    submission = Submission("x", tmp_path / "x", "claim", [])
    assert files.digest(submission) == files.copy(submission, tmp_path)[0]


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
@pytest.mark.parametrize("machine", confine.ARCHITECTURES)
def test_the_filter_of_system_calls_has_no_way_out(machine: str) -> None:
    """Every jump lands within the program, and the last instruction returns."""
    column, architecture = confine.ARCHITECTURES[machine]
    for only in (None, 4711):
        program = list(confine.instructions(column, architecture, only))
        for place, (code, yes, no, _) in enumerate(program):
            assert code == confine.RETURN or place + 1 < len(program)
            assert place + 1 + max(yes, no) < len(program) or code == confine.RETURN
        assert program[-1] == (confine.RETURN, 0, 0, confine.ALLOW)


def test_the_computing_of_children_that_have_ended_counts() -> None:
    before = computed(os.getpid())
    burn = "import time\nwhile time.process_time() < 0.5:\n    pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert computed(os.getpid()) - before >= 0.4


def test_descendants_are_found_however_deep() -> None:
    code = "import subprocess, sys, time\nif len(sys.argv) < 5:\n    " \
        "subprocess.run([sys.executable, *sys.argv, 'x'])\ntime.sleep(600)"  # fmt: skip
    script = Path(tempfile.mkdtemp()) / "deep.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)])
    try:
        while len(family(process.pid)) < 5:
            threading.Event().wait(0.05)
    finally:
        for pid in reversed(family(process.pid)):
            os.kill(pid, 9)
        process.wait()
        shutil.rmtree(script.parent)
