"""Grading: a class of made-up learners of every kind, honest and not, and what becomes of them.

The class is graded once, as an instructor would, and the tests look at what is there afterwards.
"""

import ast
import contextlib
import copy
import csv
import dataclasses
import hashlib
import html
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
import pytest
from nbformat import NotebookNode
from playwright.sync_api import Page

from exercise_counts_plugin import WrongAnswer, assignments, checks, wrong_answers

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from slingshot_grader import cli, confine, pool, stand_in, wire  # noqa: E402
from slingshot_grader.assignment import names_needed, read_assignments  # noqa: E402
from slingshot_grader.cli import EDITION  # noqa: E402
from slingshot_grader.cli import main as grade  # noqa: E402
from slingshot_grader.examine import examine, starter  # noqa: E402
from slingshot_grader.files import Submission, clean_name  # noqa: E402
from slingshot_grader.outcome import Report  # noqa: E402
from slingshot_grader.sandbox import (  # noqa: E402
    Sandbox,
    bubblewrap,
    find_sandbox,
    readable,
)
from slingshot_grader.session import Limits, RemoteFunction, Run, Session  # noqa: E402
from slingshot_grader.table import as_it_was, no_formula  # noqa: E402

ASSIGNMENTS = read_assignments(EDITION)
CLAIM = ASSIGNMENTS["claim"]
ALL = CLAIM.points
# Short, and patient with a busy machine: the seconds are of computing.
LIMITS = Limits(cell=3.0, call=2.0, total=60.0, memory=3_000_000_000, patience=20.0)
PATIENT = dataclasses.replace(LIMITS, call=30.0, total=600.0)  # for right answers alone
SANDBOX = find_sandbox()
OFF = Sandbox("", cli.OFF)
OPEN = [] if SANDBOX else ["--no-sandbox"]  # a machine without one tests what holds there
FEW = [*OPEN, "--jobs=1"]  # for one notebook or two: a second examiner would start in vain
needs_sandbox = pytest.mark.skipif(not SANDBOX, reason=f"no sandbox: {SANDBOX.why_not}")
SECRET = "BEGIN HIDDEN TESTS"

# --- notebooks of learners -----------------------------------------------------------------------


def edition(folder: str, assignment: str = "claim") -> NotebookNode:
    path = ROOT / "notebooks" / "assignments" / folder / f"{assignment}.ipynb"
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def by_id(notebook: NotebookNode) -> dict[str, NotebookNode]:
    return {
        cell.metadata.nbgrader.grade_id: cell
        for cell in notebook.cells
        if "nbgrader" in cell.metadata
    }


def solved(assignment: str = "claim", **answers: str) -> NotebookNode:
    """The student edition with all solutions filled in, but for those that are given."""
    notebook, source = edition("release", assignment), by_id(edition("source", assignment))
    for grade_id, cell in by_id(notebook).items():
        if cell.metadata.nbgrader.solution:
            cell.source = answers.get(grade_id.partition("-")[2], source[grade_id].source)
    return notebook


def stub(exercise: str) -> str:
    return str(by_id(edition("release"))[f"claim-{exercise}"].source)


def with_cells(notebook: NotebookNode, *sources: str, first: bool = False) -> NotebookNode:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]  # type: ignore[no-untyped-call]
    notebook.cells = [*cells, *notebook.cells] if first else [*notebook.cells, *cells]
    return notebook


def without(notebook: NotebookNode, *words: str) -> NotebookNode:
    """The notebook without the cells whose grade id holds one of the words."""
    notebook.cells = [
        cell
        for cell in notebook.cells
        if not any(word in cell.metadata.get("nbgrader", {}).get("grade_id", "") for word in words)
    ]
    return notebook


def edited_tests() -> NotebookNode:
    notebook = without(solved(run_time=stub("run_time")), "utilization-test")
    for grade_id, cell in by_id(notebook).items():
        if grade_id.endswith("-test"):
            cell.source = "print('passed')"
            cell.metadata.nbgrader.points = 100
    notebook.cells += [by_id(notebook)["claim-run_time-test"]] * 3
    return notebook


def everything_wrong() -> dict[str, str]:
    return {name: f"def {name}(*arguments):\n    return 42.0" for name in checks("claim")}


# --- attacks: each is put into a notebook in which every answer is wrong -------------------------


@dataclass(frozen=True)
class Prey:
    """What the hostile submissions go for. All of it belongs to this run, and nothing else is met.

    ``course`` is a copy of the course, ``port`` a listener outside of every sandbox, and ``mark`` a
    word that stands in what must not be seen and nowhere else on this machine.
    """

    course: Path
    port: int
    mark: str

    def named(self, folder: Path) -> str:
        """How each attack begins: with the names of its prey, which it need not find out."""
        values = str(folder.parent), str(self.course), self.port, self.mark
        return f"OURS, COURSE, PORT, MARK = {values!r}\n" + SHUT_IN


SHUT_IN = """
import os
inside = os.path.isdir("/submission")  # outside of a sandbox it looks at this run's folder alone
"""

CHECKERS = """
import sys
import slingshot_exercises as exercises
import slingshot_exercises.checking as checking
import slingshot_exercises.claim as claim
for module in (exercises, checking, claim):
    for name, value in list(vars(module).items()):
        if callable(value):
            setattr(module, name, lambda *arguments, **keywords: None)
for name in list(claim.CHECKS):
    claim.CHECKS[name] = globals()[f"check_{name}"] = lambda *arguments, **keywords: None
checking.Exercise.check = lambda *arguments, **keywords: None
sys.modules["slingshot_exercises.claim"] = claim
"""
BUILTINS = """
import builtins, math, numpy
builtins.AssertionError = builtins.Exception = BaseException
builtins.isinstance = lambda value, kind: True
builtins.all = builtins.any = builtins.callable = lambda *arguments: True
builtins.abs = lambda value: 0
math.isclose = numpy.allclose = numpy.all = lambda *arguments, **keywords: True
builtins.exec = builtins.compile = lambda *arguments, **keywords: None
"""
EQUAL = """
class Equal(float):
    def __eq__(self, other): return True
    def __sub__(self, other): return 0.0
    __rsub__ = __abs__ = __sub__
    def __le__(self, other): return True
    __ge__ = __lt__ = __gt__ = __le__
    def __hash__(self): return 0
    def __reduce__(self): return (exec, (f"open({OURS!r} + '/was-unpickled', 'w')",))
def training_flops(*arguments): return Equal(1.0)
def run_time(*arguments): return (Equal(1.0), Equal(1.0))
utilization = conversation_price = conversations_that_fit = training_flops
export_limit = run_time
"""
FORGERY = """
import json, os
PASSED = {"number": 0, "passed": True, "points": 100, "outcome": "passed", "result": {"tuple": []},
          "kind": "value", "value": True, "changed": [], "outputs": []}
def forge(*arguments):
    for name in range(3, 64):
        for number in range(1, 200):
            data = json.dumps({**PASSED, "number": number}).encode()
            try:
                os.write(name, b"%d\\n" % len(data) + data)
            except OSError:
                break
    return 1.0
training_flops = run_time = utilization = conversation_price = forge
"""
GARBAGE = """
import os
def garbage(*arguments):
    for name in range(3, 64):
        try:
            os.write(name, b"99999999999\\n{{{{" + bytes(1000))
        except OSError:
            pass
    return 1.0
training_flops = run_time = garbage
"""
STACK = """
import gc, inspect
seen = []
def training_flops(*arguments):
    frames = [frame.frame for frame in inspect.stack()]
    for frame in frames:
        for name, value in [*frame.f_locals.items(), *frame.f_globals.items()]:
            seen.append(name)
    return 1.0
training_flops()
print("FOUND" if "expected" in seen or "answers" in seen else "", len(seen), "names")
secret = " ".join(["HIDDEN", "TESTS"])
parts = (part for value in gc.get_objects() for part in gc.get_referents(value))
texts = {part for part in parts if type(part) is str}
found = any(secret in text for text in texts - {secret})
print("FOUND" if found else "", len(texts), "texts")
"""
REPORTS = """
for folder, folders, files in os.walk("/" if inside else OURS):
    folders[:] = [name for name in folders if name not in ("proc", "usr", "site-packages")]
    for name in [*folders, *files]:
        if f"{MARK}-graded" in name:
            print("FOUND", folder, name)
"""
ATTACKS = {
    "overwrites-the-checks": CHECKERS,
    "overwrites-builtins": BUILTINS,
    "equals-everything": EQUAL,
    "forges-replies": FORGERY,
    "sends-garbage": GARBAGE,
    "looks-into-the-stack": STACK,
    "looks-for-the-grades": REPORTS,
}

# What a notebook may try to read, write and reach; each prints what came of it.
SPY = """
secret = " ".join(["BEGIN", "HIDDEN", "TESTS"])
submissions = OURS + "/" + MARK
source = COURSE + "/notebooks/assignments/source"
others = [COURSE + "/tests", submissions, submissions + "/right.ipynb", "right.ipynb"]
for place in [source + "/claim.ipynb", source, *others, "/proc/1/root"]:
    try:
        if os.path.isdir(place):
            print("listed", place, os.listdir(place))
        else:
            print("read", place, open(place, errors="replace").read()[:100])
    except OSError as error:
        print("no", place, error.strerror)
hits = []
for folder, folders, files in os.walk("/" if inside else OURS):
    folders[:] = [name for name in folders if name not in ("proc", "usr", "site-packages")]
    for name in files:
        if name.endswith(".ipynb"):
            text = open(os.path.join(folder, name), errors="replace").read()
            hits += [name] * (MARK in text or secret in text)
print("notebooks:", hits)
processes = [name for name in os.listdir("/proc") if name.isdigit()] if inside else []
commands = [open(f"/proc/{name}/cmdline").read() for name in processes]
print("others:", [each for each in commands if MARK in each])
print("environment:", [name for name in os.environ if "SPIED" in name])
"""
WRITE = """
library = COURSE + "/src/slingshot"
checks = COURSE + "/src/slingshot_exercises/__init__.py"
handed_in = OURS + "/" + MARK + "/no-notebook/essay.txt"
reports = OURS + "/" + MARK + "-graded/x"
for place in [checks, library + "/x", handed_in, reports]:
    try:
        with open(place, "a") as file:
            file.write("# was here")
        print("wrote", place)
    except OSError as error:
        print("no", place, error.strerror)
import sys
for place in ["/", "/usr", sys.prefix, "/submission"]:  # asked, and not tried: they are not ours
    if os.path.exists(place):
        flags = os.statvfs(place).f_flag
        print("read-only" if flags & os.ST_RDONLY else "writable", place)
"""
CONNECT = """
import socket
print("interfaces:", [name for number, name in socket.if_nameindex()])
own = socket.create_server(("127.0.0.1", 0))
for whose in ("own", "outside"):
    port = own.getsockname()[1] if whose == "own" else PORT
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
        print("reached", whose)
    except OSError as error:
        print("no", whose, error)
"""
PROBES = {"spies": SPY, "writes": WRITE, "connects": CONNECT}
SCRIPT = """
from IPython.display import HTML, Javascript, Markdown, display
display(HTML("<script>alert('html')</script><img src=x onerror=alert(1)>"))
display(Javascript("alert('js')"))
display(Markdown("<script>alert('markdown')</script>"))
print("<script>alert('text')</script>")
raise ValueError("<script>alert('error')</script>")
"""


@dataclass
class Class:
    """A graded class."""

    folder: Path
    output: Path
    rows: dict[str, dict[str, str]]
    reports: dict[str, dict[str, Any]]
    said: str

    def page(self, learner: str) -> str:
        return (self.output / "feedback" / f"{learner}.html").read_text("utf-8")

    def text(self, learner: str) -> str:
        """All that the cells of a learner showed."""
        return shown_by_cells(self.page(learner))


def shown_by_cells(page: str) -> str:
    """The text of a page without the learner's own source."""
    notebook = page.partition("Your notebook as it ran")[2]
    outputs = re.sub(r'<div class="[^"]*highlight.*?</pre>', "", notebook, flags=re.S)
    return html.unescape(re.sub(r"<[^>]*>", "", outputs))


def read_rows(output: Path) -> dict[str, dict[str, str]]:
    with open(output / "grades.csv", encoding="utf-8-sig", newline="") as file:
        return {row["learner"]: row for row in csv.DictReader(file)}


def read_reports(output: Path) -> dict[str, dict[str, Any]]:
    """What is kept of each learner."""
    found = {}
    for learner, row in read_rows(output).items():
        place = as_it_was(row["file"])
        code = hashlib.sha256(f"{place}\0{row['assignment']}".encode()).hexdigest()[:16]
        path = output / "results" / f"{code}.json"
        if path.is_file():
            found[learner] = json.loads(path.read_text("utf-8"))["report"]
    return found


def limits() -> list[str]:
    return [
        f"--cell-seconds={LIMITS.cell}",
        f"--call-seconds={LIMITS.call}",
        f"--total-seconds={LIMITS.total}",
        f"--memory={LIMITS.memory / 1e9}",
        f"--patience={LIMITS.patience}",
    ]


NFC, NFD = (unicodedata.normalize(form, "José") for form in ("NFC", "NFD"))


def write_class(folder: Path, prey: Prey) -> None:
    """Hand in one notebook, or something like one, for every kind of learner."""
    named = prey.named(folder)

    def hand_in(name: str, notebook: NotebookNode) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        notebook.metadata["mark"] = prey.mark
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call]

    def notebook_of(learner: str, *cells: str, **answers: str) -> None:
        hand_in(f"{learner}.ipynb", with_cells(solved(**answers), *cells))

    notebook_of("right")
    hand_in("nothing.ipynb", edition("release"))
    notebook_of("partly", utilization=stub("utilization"), run_time="def run_time(): pass")
    notebook_of("syntax", export_limit="def export_limit(a, b, c:\n    return 1")
    hand_in("raises.ipynb", with_cells(solved(), "1 / 0", "raise KeyError('x')", first=True))
    loop = "while True:\n    pass"
    hand_in("loops.ipynb", with_cells(solved(), loop, first=True))
    notebook_of("loops-in-a-function", run_time="def run_time(*a):\n    while True: pass")
    ignore = "import signal\nsignal.signal(signal.SIGPROF, signal.SIG_IGN)\n"
    hand_in("loops-stubbornly.ipynb", with_cells(solved(), ignore + loop, first=True))
    # Zeros take no time to fill, so that it is memory that ends before time does.
    bomb = "bomb = []\nwhile True:\n    bomb.append(bytes(50_000_000))"
    hand_in("memory-bomb.ipynb", with_cells(solved(), bomb, first=True))
    indented = bomb.replace("\n", "\n    ")
    notebook_of("memory-bomb-in-a-function", run_time=f"def run_time(*a):\n    {indented}")
    many = (
        "import os, time\nfor _ in range(100):\n    if os.fork() == 0:\n        time.sleep(600)\n"
    )
    many += "time.sleep(600)"
    hand_in("many-processes.ipynb", with_cells(solved(), many, first=True))
    leave = "import os\nos._exit(0)"
    hand_in("exits.ipynb", with_cells(solved(), leave, first=True))
    notebook_of("exits-in-a-function", run_time=f"import os\ndef run_time(*a):\n    {leave[10:]}")
    flood = "while True:\n    print('flood' * 1000)"
    raw = "import os\nfor _ in range(100_000):\n    os.write(1, b'x' * 9999)"
    hand_in("floods.ipynb", with_cells(solved(), flood, raw, first=True))
    many_shown = "from IPython.display import display\nwhile True:\n    display('shown ' * 1000)"
    hand_in("floods-displays.ipynb", with_cells(solved(), many_shown, first=True))
    notebook_of("returns-too-much", run_time="def run_time(*a):\n    return ['x' * 1000] * 100_000")
    hand_in("edited-tests.ipynb", edited_tests())
    hand_in("missing-cells.ipynb", without(solved(), "-test", "imports", "claim-utilization"))
    hand_in("no-metadata.ipynb", solved())
    borrowed = "from slingshot import costs\ndef training_flops(n, d, again=False):\n"
    borrowed += "    assert costs\n    return (8 if again else 6) * n * d"
    notebook_of("library", training_flops=borrowed)
    notebook_of("magics", "%time 1 + 1\n!true\n%pip --version", "display(1)", "exit()")
    notebook_of("scripts", SCRIPT)
    for name, code in ATTACKS.items():
        notebook_of(name, named + code, **everything_wrong())
    for name, code in PROBES.items():
        notebook_of(name, named + code)
    hidden = prey.course / "notebooks" / "assignments" / "source" / "claim.ipynb"

    hand_in("with-files/claim.ipynb", with_cells(solved(), "print(open('data.txt').read())"))
    (folder / "with-files" / "data.txt").write_text("forty-two")
    (folder / "with-files" / "link.txt").symlink_to(hidden)
    (folder / "links.ipynb").symlink_to(hidden)
    (folder / "no-notebook").mkdir()
    (folder / "no-notebook" / "essay.txt").write_text("I did my best")
    hand_in("李雷 Zoë 🙂.ipynb", solved())
    hand_in("=1+1.ipynb", solved())
    hand_in("two.ipynb", solved())
    hand_in("Two/claim.ipynb", edition("release"))
    hand_in(f"{NFC}/claim.ipynb", solved())
    hand_in(f"{NFD}/claim.ipynb", edition("release"))
    strip = json.loads((folder / "no-metadata.ipynb").read_text("utf-8"))
    for cell in strip["cells"]:
        cell["metadata"] = {}
    (folder / "no-metadata.ipynb").write_text(json.dumps(strip))
    for name, content in UNREADABLE.items():
        (folder / f"{name}.ipynb").write_bytes(content)


UNREADABLE = {
    "empty": b"",
    "blank": b" \n",
    "not-json": b"dear teacher, my dog",
    "no-cells": b'{"a": 1}',
    "a-list": b"[1, 2]",
    "a-number": b"7",
    "deep": b"[" * 100_000,
    "binary": bytes(range(256)),
    "odd-cells": b'{"cells": [3, null], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
}


Listener = tuple[int, list[object]]


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    """A server on the loopback of this machine, and who came."""
    server, came = socket.create_server(("127.0.0.1", 0)), []

    def accept() -> None:
        while True:
            try:
                came.append(server.accept()[1])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1], came
    server.close()


def copy_course(folder: Path) -> Path:
    """What grading needs of the course, in a folder where it may be attacked."""
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("src", "tools", "notebooks/assignments"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    (folder / "tests").mkdir()
    shutil.copy(__file__, folder / "tests")
    return folder


def grade_class(prey: Prey, folder: Path, *options: str) -> Class:
    """Grade a folder with the copy of the course, by the command that an instructor types."""
    arguments = ["--assignment", "claim", *limits(), *OPEN, *options, str(folder)]
    own = {"SPIED": "secret", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(prey.course / "src")}
    run = subprocess.run(
        [sys.executable, str(prey.course / "tools" / "grade.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **own},
        check=False,
    )
    output = folder.with_name(f"{folder.name}-graded")
    rows = read_rows(output)
    everybody = all(row["status"] in ("graded", "stopped") for row in rows.values())
    assert run.returncode == (0 if everybody else 1), run.stderr
    return Class(folder, output, rows, read_reports(output), run.stdout + run.stderr)


def new_prey(place: Path, port: int) -> tuple[Prey, Path]:
    """A copy of the course in ``place``, and an empty folder beside it for submissions."""
    mark = f"class-{uuid.uuid4().hex}"
    (place / mark).mkdir()
    return Prey(copy_course(place / "course"), port, mark), place / mark


@pytest.fixture(scope="module")
def prey(tmp_path_factory: pytest.TempPathFactory, listener: Listener) -> tuple[Prey, Path]:
    """What the class goes for, beside what an earlier grading has left there."""
    place = tmp_path_factory.mktemp("grading")
    (place / "x-graded").mkdir()
    (place / "x-graded" / "grades.csv").write_text("learner,points\nx,1\n")
    return new_prey(place, listener[0])


@pytest.fixture(scope="module")
def graded(prey: tuple[Prey, Path]) -> Class:
    """The class, graded."""
    write_class(prey[1], prey[0])
    return grade_class(*prey)


# --- points --------------------------------------------------------------------------------------


def points(graded: Class, learner: str) -> float:
    return float(graded.rows[learner]["points"] or 0)


FULL = ["right", "raises", "loops", "loops-stubbornly", "memory-bomb", "many-processes", "exits",
        "floods", "floods-displays", "no-metadata", "library", "magics", "scripts", "spies",
        "writes", "connects", "with-files", "李雷 Zoë 🙂", "'=1+1"]  # fmt: skip


@pytest.mark.parametrize("learner", FULL)
def test_right_answers_get_all_points_whatever_is_beside_them(graded: Class, learner: str) -> None:
    assert points(graded, learner) == ALL


@pytest.mark.parametrize("learner", [*UNREADABLE, "nothing", "links", "no-notebook"])
def test_what_is_no_answer_gets_none_and_a_row(graded: Class, learner: str) -> None:
    assert points(graded, learner) == 0
    assert graded.page(learner)


@pytest.mark.parametrize("learner", [*UNREADABLE, "links", "no-notebook"])
def test_what_is_no_notebook_is_called_so(graded: Class, learner: str) -> None:
    assert graded.rows[learner]["status"] == "unreadable"
    assert len(graded.rows[learner]["remarks"]) > 5


LOST = {
    "partly": {"run_time", "utilization"},
    "syntax": {"export_limit"},
    "loops-in-a-function": {"run_time"},
    "exits-in-a-function": {"run_time"},
    "memory-bomb-in-a-function": {"run_time"},
    "returns-too-much": {"run_time"},
    "edited-tests": {"run_time"},
    "missing-cells": {"utilization"},
}


@pytest.mark.parametrize("learner", LOST)
def test_a_wrong_part_costs_its_points_and_no_others(graded: Class, learner: str) -> None:
    grades = {each["exercise"]: each for each in graded.reports[learner]["grades"]}
    assert {name for name, each in grades.items() if each["points"] < each["most"]} == LOST[learner]
    row = graded.rows[learner]
    for test in CLAIM.tests:
        expected = 0 if test.exercise in LOST[learner] else test.points
        assert float(row[f"claim-{test.exercise}"]) == expected
    assert points(graded, learner) == ALL - sum(grades[name]["most"] for name in LOST[learner])


@pytest.mark.parametrize("learner", ATTACKS)
def test_an_attack_gets_no_point(graded: Class, learner: str) -> None:
    assert points(graded, learner) == 0
    if SANDBOX or learner != "looks-for-the-grades":  # without one nothing keeps it from files
        assert "FOUND" not in graded.text(learner)


def test_nothing_was_unpickled(graded: Class) -> None:
    assert points(graded, "equals-everything") == 0
    assert not (graded.folder.parent / "was-unpickled").exists()


@pytest.mark.parametrize(
    ("learner", "words"),
    [
        ("loops", "code cell 1 took more than 3 s of computing"),
        ("loops-stubbornly", "code cell 1 did not stop after 3 s of computing"),
        ("many-processes", "code cell 1 started more than 40 processes"),
        ("exits", "code cell 1 ended its own process"),
        ("floods", "code cell 1 took more than 3 s of computing"),
        ("memory-bomb", "1 cell raises"),
        ("raises", "2 cells raise"),
        ("edited-tests", "edited, without effect: claim-conversation_price-test"),
        ("edited-tests", "not in the notebook, without effect: claim-utilization-test"),
        ("edited-tests", "copied, without effect: claim-run_time-test"),
        ("library", "imports slingshot.costs: look"),
        ("links", "a link, not a file"),
        ("no-notebook", "no notebook in the folder"),
        ("empty", "an empty file"),
        ("not-json", "not JSON"),
        ("two (2)", "2 learners under this name"),
        (f"{NFC} (2)", "2 learners under this name"),
    ],
)
def test_a_remark_says_what_happened(graded: Class, learner: str, words: str) -> None:
    assert words in graded.rows[learner]["remarks"]


@pytest.mark.parametrize(
    ("learner", "words"),
    [
        ("loops-in-a-function", "run_time: it took more than 2 s of computing"),
        ("exits-in-a-function", "run_time: it ended its own process"),
        ("memory-bomb-in-a-function", "run_time: it raises MemoryError"),
        ("returns-too-much", "run_time: it sent what is no answer: a message of"),
        ("partly", "utilization: not written yet"),
        ("partly", "run_time: it raises TypeError: run_time() takes 0 positional arguments"),
        ("syntax", "export_limit: export_limit is not defined"),
        ("equals-everything", "training_flops: the result is wrong"),
    ],
)
def test_a_page_says_what_is_wrong(graded: Class, learner: str, words: str) -> None:
    messages = "\n".join(each["message"] for each in graded.reports[learner]["grades"])
    assert words in messages
    assert words.replace("'", "&#x27;") in graded.page(learner)


def test_two_submissions_of_one_name_are_both_graded(graded: Class) -> None:
    both = [points(graded, name) for name in graded.rows if name.casefold().startswith("two")]
    assert sorted(both) == [0, ALL]
    assert {points(graded, NFC), points(graded, f"{NFC} (2)")} == {0, ALL}
    files = [row["file"] for row in graded.rows.values()]
    assert len(set(files)) == len(files)


def test_nothing_is_lost(graded: Class) -> None:
    handed_in = list(graded.folder.iterdir())
    assert len(graded.rows) == len(handed_in)
    assert len(list((graded.output / "feedback").iterdir())) == len(handed_in)
    assert f"{len(handed_in)} learners: " in graded.said


def test_the_learners_own_files_are_there(graded: Class) -> None:
    assert "forty-two" in graded.text("with-files")


def test_output_is_bounded(graded: Class) -> None:
    for learner in ("floods", "floods-displays"):
        assert len(graded.page(learner)) < 200_000
    assert "more was printed" in graded.page("floods")


def test_memory_is_bounded(graded: Class) -> None:
    assert "MemoryError" in graded.text("memory-bomb")


WORK = """
import torch
x = torch.ones(3, requires_grad=True)
assert torch.autograd.grad((x @ x), [x])[0].tolist() == [2, 2, 2]
"""
DATA = """
import re
print(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
LIMITED = """
from slingshot_grader.confine import limit_resources
limit_resources({memory}, 60)
{work}
try:
    bytearray({memory})
except MemoryError:
    print("bounded")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of Linux")
def test_what_a_library_maps_is_no_memory_of_the_learner() -> None:
    """The libraries of torch take addresses, with CUDA more than a learner may use of memory."""

    def run(code: str) -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    memory = int(run(WORK + DATA)) * 1024 + 100_000_000
    assert run(LIMITED.format(memory=memory, work=WORK)) == "bounded\n"


def test_the_libraries_of_a_build_with_cuda_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = 0
    for number, name in enumerate(
        ["torch/lib/libtorch_cuda.so", "nvidia/cu13/lib/libcublas.so.13", "torch/lib/notes.txt"], 1
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.truncate(number * 1_000_000_000)  # a hole: it takes no place on the disk
        whole += number * 1_000_000_000 if ".so" in name else 0
    (tmp_path / "nvidia/cu13/lib/libcublas.so").symlink_to("libcublas.so.13")
    found = importlib.machinery.ModuleSpec(
        "torch", None, origin=str(tmp_path / "torch/__init__.py")
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "torch" else 0)
    assert confine.libraries() == whole == 3_000_000_000
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert confine.libraries() == 0


def test_memory_of_children_counts(tmp_path: Path) -> None:
    """Each process stays within the limit; all together do not."""
    code = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        block = bytearray(os.urandom(1000) * 200_000)
        time.sleep(600)
time.sleep(600)
"""
    path = tmp_path / "one.ipynb"
    nbformat.write(with_cells(solved(), code, first=True), path)  # type: ignore[no-untyped-call]
    limits = dataclasses.replace(LIMITS, memory=800_000_000)
    report, _ = examine(Submission("one", path, "claim", []), CLAIM, SANDBOX, limits)
    assert "code cell 1 used more than 0.8 GB of memory" in report.remarks
    assert report.points == ALL


def test_a_bar_shows_how_far_it_is(graded: Class) -> None:
    count = len(graded.rows)
    assert re.search(rf"grading: +\d+%.* \d+/{count} ", graded.said)
    assert re.search(rf"grading: 100%.* {count}/{count} ", graded.said)


def test_magics_work_as_in_a_notebook(graded: Class) -> None:
    assert "pip" in graded.text("magics")
    assert graded.rows["magics"]["status"] == "graded"


class Active(HTMLParser):
    """Collects what on a page could run or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "iframe", "object", "embed", "form", "link", "base", "svg"}:
            self.found.append((tag, ""))
        for name, value in attrs:
            loads = name in {"href", "src"} and not (value or "").startswith(("#", "data:image/"))
            if name.startswith("on") or loads:
                self.found.append((tag, f"{name}={value}"))


def active(text: str) -> list[tuple[str, str]]:
    parser = Active()
    parser.feed(text)
    return parser.found


def test_what_is_active_is_noticed() -> None:
    for text in ("<script>", "<p onclick=x>", "<img src=//x.org>", "<a href='javascript:x'>"):
        assert active(text)
    assert not active("<p>&lt;script&gt; <img src='data:image/png;base64,AA' alt=''>")


def test_no_page_holds_anything_active(graded: Class) -> None:
    pages = [*(graded.output / "feedback").iterdir(), graded.output / "summary.html"]
    for page in pages:
        text = page.read_text("utf-8")
        assert active(text) == [], page
        assert "default-src 'none'" in text
    page_of_scripts = graded.page("scripts")
    for word in ("text", "error"):
        assert re.search(rf"&lt;script&gt;alert\((?:'|&#39;|&#x27;){word}", page_of_scripts)


def test_the_summary_shows_each_exercise(graded: Class) -> None:
    text = (graded.output / "summary.html").read_text("utf-8")
    for test in CLAIM.tests:
        column = [row[f"claim-{test.exercise}"] for row in graded.rows.values()]
        passed = sum(float(each or 0) == test.points for each in column)
        name = test.exercise.replace("_", "_<wbr>")
        assert f"<h3>{name}: {passed} of {len(graded.rows)} passed</h3>" in text
        assert re.search(rf'aria-label="{passed} passed, \d+ wrong', text)
    assert "the result is wrong" in text


def test_the_pages_fit_a_phone(graded: Class, new_page: Callable[..., Page]) -> None:
    page = new_page(viewport={"width": 390, "height": 844})
    long = "李雷 Zoë 🙂"
    for path in ("summary.html", "feedback/partly.html", f"feedback/{long}.html"):
        page.goto((graded.output / path).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.goto((graded.output / "summary.html").as_uri())
    widths = page.locator("li").evaluate_all("all => all.map(e => e.getBoundingClientRect().width)")
    assert min(widths) > 250  # a sentence in a narrow column is a tower


def test_no_cell_of_the_table_is_a_formula(graded: Class) -> None:
    for row in graded.rows.values():
        assert not any(value.startswith(("=", "+", "-", "@")) for value in row.values())
    assert no_formula("") == ""


@pytest.mark.parametrize(
    "text", ["", "Ada", "=1", "'=1", "''=1", "'t Hooft", "'", "''", "-", "'-Ada"]
)
def test_what_is_kept_from_being_a_formula_can_be_read_back(text: str) -> None:
    assert as_it_was(no_formula(text)) == text


# --- the sandbox ---------------------------------------------------------------------------------


@needs_sandbox
def test_the_hidden_tests_and_other_submissions_are_not_there(graded: Class) -> None:
    text = graded.text("spies")
    assert SECRET not in text
    assert not re.search(r"^(read|listed) ", text.replace("listed /proc/1/root", ""), re.M), text
    assert "notebooks: []" in text
    assert "others: []" in text
    assert "environment: []" in text


@needs_sandbox
def test_the_file_system_is_read_only(graded: Class) -> None:
    text = graded.text("writes")
    assert "wrote" not in text
    assert "writable" not in text
    assert text.count("read-only /") == 4
    course = graded.folder.with_name("course")
    assert "was here" not in (course / "src/slingshot_exercises/__init__.py").read_text("utf-8")


@needs_sandbox
def test_there_is_no_network(graded: Class) -> None:
    text = graded.text("connects")
    assert "interfaces: ['lo']" in text
    assert "reached own" in text
    assert "no outside" in text


@needs_sandbox
def test_no_sandbox_is_not_claimed(graded: Class) -> None:
    assert "NO SANDBOX" not in graded.said


def test_what_lies_in_a_readable_folder_is_covered(tmp_path: Path) -> None:
    secret = readable()[0] / "share"
    words = bubblewrap("bwrap", tmp_path, [secret, tmp_path])
    covered = [words[i + 1] for i, word in enumerate(words) if word == "--tmpfs"]
    assert str(secret.resolve()) in covered
    assert str(tmp_path) not in covered


@needs_sandbox
def test_a_secret_in_a_readable_folder_is_empty_inside(tmp_path: Path) -> None:
    """A course that lies within Python's own folders would show its tests without this."""
    secret = Path(nbformat.__file__).parent
    report = examine_one(
        tmp_path, f"import os\nprint('inside:', os.listdir({str(secret)!r}))", secret
    )
    assert "inside: []" in report.cells[-1].outputs[0]["text"]


def examine_one(
    folder: Path, code: str, *secrets: Path, sandbox: Sandbox = SANDBOX, **answers: str
) -> Report:
    path = folder / "one.ipynb"
    nbformat.write(with_cells(solved(**answers), code), path)  # type: ignore[no-untyped-call]
    return examine(Submission("one", path, "claim", []), CLAIM, sandbox, LIMITS, secrets)[0]


@needs_sandbox
def test_a_course_that_lies_in_the_temporary_folder_has_a_sandbox_too(tmp_path: Path) -> None:
    for name in ("tools", "src"):
        shutil.copytree(ROOT / name, tmp_path / name)
    code = "from slingshot_grader import sandbox; print(sandbox.SOURCE, sandbox.find_sandbox())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        check=True,
    )
    assert run.stdout.startswith(f"{tmp_path / 'src'} Sandbox(program='/")


def test_an_examiner_starts_without_the_grammar_that_no_notebook_needs() -> None:
    """It takes twice as long to compile as all else that an examiner imports."""
    code = "import sys; from slingshot_grader import examiner; print('lark' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert run.stdout == "False\n"


FIRST_PAGE = """
import sys
from slingshot import facts
from slingshot_grader import examiner, page
from slingshot_grader.assignment import read_assignments
from slingshot_grader.cli import EDITION
from slingshot_grader.notebook import Cell
from slingshot_grader.session import Run
claim = read_assignments(EDITION)["claim"]
if PREPARED:
    examiner.prepare(("examine", {"assignment": claim}))
before = set(sys.modules)
facts.keys()
cells = [Cell("*text*", "", None, "markdown"), Cell("1 + 1", "", None)]
shown = [{"stream": "stdout", "text": "a"}, {"result": {"text/plain": "2"}}]
page.render(cells, [Run("1 + 1", "", 1, shown)], claim)
print(len(set(sys.modules) - before), facts._load.cache_info().hits)
"""


def test_an_examiner_does_once_what_each_grading_would_begin_with() -> None:
    """A fork that had to import, and to read the facts, took twice as long."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    said = []
    for prepared in (True, False):
        code = f"PREPARED = {prepared}\n{FIRST_PAGE}"
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
        said.append(tuple(map(int, run.stdout.split())))
    (imported, read), (imported_else, read_else) = said
    assert (imported, read) == (0, 1)
    assert imported_else > 50
    assert read_else == 0


def test_without_a_sandbox_it_refuses_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "class"
    folder.mkdir()
    nbformat.write(solved(), folder / "a.ipynb")  # type: ignore[no-untyped-call]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert grade([*limits(), str(folder)]) == 1
    said = capsys.readouterr().err
    assert "NO SANDBOX: bubblewrap is not installed" in said
    assert "It can read your files, the checks" in said
    assert said.endswith("nothing was graded; to grade without protection, say --no-sandbox\n")
    assert not (tmp_path / "class-graded").exists()
    assert grade(["--no-sandbox", "--jobs=1", *limits(), str(folder)]) == 0
    assert "NO SANDBOX: it was switched off" in capsys.readouterr().err
    assert read_rows(tmp_path / "class-graded")["a"]["points"] == f"{ALL:g}"


def test_a_sandbox_that_does_not_work_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'no permission' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_sandbox() == Sandbox("", "bubblewrap does not work here: no permission")


@pytest.fixture(scope="module")
def open_class(tmp_path_factory: pytest.TempPathFactory, listener: Listener) -> Class:
    """The attacks and the probes alone, graded without a sandbox by a copy of the course."""
    prey, folder = new_prey(tmp_path_factory.mktemp("open"), listener[0])
    named = prey.named(folder)
    everything = {name: with_cells(solved(), named + code) for name, code in PROBES.items()}
    for name, code in ATTACKS.items():
        everything[name] = with_cells(solved(**everything_wrong()), named + code)
    for name, notebook in everything.items():
        nbformat.write(notebook, folder / f"{name}.ipynb")  # type: ignore[no-untyped-call]
    return grade_class(prey, folder, "--no-sandbox")


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_gets_no_point_without_a_sandbox_either(open_class: Class, attack: str) -> None:
    assert points(open_class, attack) == 0
    assert not (open_class.folder.parent / "was-unpickled").exists()


def test_without_a_sandbox_the_probes_find_what_it_keeps_from_them(
    open_class: Class, listener: Listener
) -> None:
    """So what is not found within the sandbox is not missed for want of looking."""
    assert "FOUND" in open_class.text("looks-for-the-grades")
    spied = open_class.text("spies")
    assert f"listed {open_class.folder.with_name('course')}/tests" in spied
    assert "notebooks: []" not in spied
    changed = open_class.folder.with_name("course") / "src/slingshot_exercises/__init__.py"
    assert f"wrote {changed}" in open_class.text("writes")
    assert "was here" in changed.read_text("utf-8")
    assert "reached outside" in open_class.text("connects")
    assert listener[1]


# --- all wrong answers, through the grader -------------------------------------------------------


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., Session]]:
    """Starts a learner's process, as the grader does, and lets it run cells."""
    sessions = []

    def begin(*sources: str) -> Session:
        for name in ("files", "here"):
            (tmp_path / name).mkdir()
        start = starter(SANDBOX, LIMITS, tmp_path / "files", tmp_path / "here", [])
        sessions.append(session := Session(start, [Run(source, "") for source in sources], LIMITS))
        session.run_all()
        return session

    yield begin
    for session in sessions:
        session.close()


@dataclass(frozen=True)
class Rounds:
    """A notebook for each assignment with all its wrong answers, and what each must be told."""

    expected: dict[str, dict[str, str]]
    reports: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    """All wrong answers, each an exercise of an edition of its own."""
    place = tmp_path_factory.mktemp("rounds")
    for name in ("source", "class"):
        (place / name).mkdir()
    expected: dict[str, dict[str, str]] = {}
    for assignment in assignments():
        mine = [answer for answer in wrong_answers() if answer.assignment == assignment]
        assert {answer.exercise for answer in mine} == {
            test.exercise for test in ASSIGNMENTS[assignment].tests
        }
        notebook, expected[assignment] = edition_of_wrong_answers(assignment, mine)
        for folder in ("source", "class"):
            nbformat.write(notebook, place / folder / f"{assignment}.ipynb")  # type: ignore[no-untyped-call]
    words = ["--jobs=2", "--total-seconds=900", "--source", str(place / "source")]
    assert grade([*OPEN, *words, str(place / "class")]) == 0
    return Rounds(expected, read_reports(place / "class-graded"))


def edition_of_wrong_answers(
    assignment: str, answers: list[WrongAnswer]
) -> tuple[NotebookNode, dict[str, str]]:
    """A notebook in which every answer has a name of its own, and what each must be told."""
    source, expected = by_id(edition("source", assignment)), {}
    notebook = edition("source", assignment)
    notebook.cells = [source[grade_id] for grade_id in ASSIGNMENTS[assignment].locked]
    for number, answer in enumerate(answers):
        name, code = f"{answer.exercise}_{number}", answer.path.read_text("utf-8")
        cells = f"{assignment}-{answer.exercise}", f"{assignment}-{answer.exercise}-test"
        written, test = (copy.deepcopy(source[grade_id]) for grade_id in cells)
        lines = f"names = {{}}\nexec({code!r}, names)\n{name} = names[{answer.exercise!r}]"
        written.source = f"### BEGIN SOLUTION\n{lines}\n### END SOLUTION"
        written.metadata.nbgrader.grade_id = f"{assignment}-{name}"
        test.source = re.sub(rf"\b{answer.exercise}\b", name, test.source)
        test.metadata.nbgrader.grade_id = f"{assignment}-{name}-test"
        notebook.cells += [written, test]
        expected[name] = message_of(code)
    return notebook, expected


def message_of(code: str) -> str:
    """What the check must say to a wrong answer."""
    names: dict[str, Any] = {}
    exec(code, names)
    return str(names["MESSAGE"])


def test_every_wrong_answer_gets_its_message_from_the_grader_and_no_point(rounds: Rounds) -> None:
    missed = [
        (name, each["exercise"], each["message"])
        for name, messages in rounds.expected.items()
        for each in rounds.reports[name]["grades"]
        if messages[each["exercise"]] not in each["message"] or each["points"] != 0
    ]
    assert missed == []


def test_no_wrong_answer_is_left_out(rounds: Rounds) -> None:
    graded = {name: len(report["grades"]) for name, report in rounds.reports.items()}
    assert graded == {name: len(messages) for name, messages in rounds.expected.items()}
    assert sum(graded.values()) == len(wrong_answers())


def test_whatever_an_assignment_gives_is_there_while_it_is_graded() -> None:
    """Beside the checks: a name that the stand-in does not know would be an empty module."""
    for assignment in assignments():
        module = importlib.import_module(f"slingshot_exercises.{assignment}")
        cells = [cell.source for cell in edition("source", assignment).cells]
        (imports,) = (text for text in cells if f"from {module.__name__} import" in text)
        (node,) = (
            node
            for node in ast.walk(ast.parse(imports))
            if isinstance(node, ast.ImportFrom) and node.module == module.__name__
        )
        names = {alias.name for alias in node.names if not alias.name.startswith("check_")}
        given = stand_in.GIVEN.get(module.__name__, {})
        assert names == set(given)
        stand = stand_in.StandIn(module.__name__)
        assert all(getattr(stand, name) is getattr(module, name) for name in names)


@pytest.mark.parametrize("assignment", assignments())
@pytest.mark.parametrize("folder", ["release", "source"])
def test_both_editions_get_what_they_deserve(tmp_path: Path, assignment: str, folder: str) -> None:
    path = tmp_path / "x.ipynb"
    nbformat.write(edition(folder, assignment), path)  # type: ignore[no-untyped-call]
    given = ASSIGNMENTS[assignment]
    report, _ = examine(Submission("x", path, assignment, []), given, SANDBOX, PATIENT)
    assert report.points == (given.points if folder == "source" else 0), report.grades
    if folder == "release":
        assert {each.outcome for each in report.grades} == {"not written"}


# --- a batch -------------------------------------------------------------------------------------


def hand_in_four(folder: Path, *first: str) -> None:
    """Four learners; the notebooks of the last two begin with these cells."""
    for number in range(4):
        notebook = with_cells(solved(), *(first if number > 1 else ()), first=True)
        nbformat.write(notebook, folder / f"learner-{number}.ipynb")  # type: ignore[no-untyped-call]


def start(folder: Path) -> "subprocess.Popen[str]":
    # A shell starts what is in its background deaf to Ctrl-C, and so would this child of a test be.
    words = [sys.executable, str(ROOT / "tools" / "grade.py"), "--jobs=1", "--patience=100"]
    words += [*OPEN, str(folder)]
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return subprocess.Popen(words, stdout=-1, stderr=-1, text=True, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)


def results(folder: Path) -> dict[str, int]:
    found = folder.with_name("class-graded") / "results"
    return {path.name: path.stat().st_mtime_ns for path in found.glob("*.json")}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_batch_goes_on_where_it_stopped(tmp_path: Path, how: signal.Signals) -> None:
    small = tmp_path / "class"
    small.mkdir()
    hand_in_four(small, ENDLESS)
    process = start(small)
    wait_until(lambda: len(results(small)) == 2 and is_endless(process))
    started = family(process)
    os.killpg(process.pid, how)
    _, said = process.communicate(timeout=PATIENCE)
    if SANDBOX:  # no code of a learner outlives the grader
        assert psutil.wait_procs(started, timeout=PATIENCE)[1] == []
    for each in started:  # without a sandbox some may be there still
        with contextlib.suppress(psutil.Error):
            each.kill()
    before = results(small)
    assert len(before) == 2
    if how != signal.SIGKILL:
        assert process.returncode == 130
        assert "the same command continues where it stopped" in said
        rows = read_rows(small.with_name("class-graded"))
        assert len(rows) == 4
        assert sum(row["status"] == "not graded" for row in rows.values()) == 2
    hand_in_four(small)  # what has its grade is handed in as it was
    process = start(small)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    after = results(small)
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    rows = read_rows(small.with_name("class-graded"))
    assert [float(row["points"]) for row in rows.values()] == [ALL] * 4


ENDLESS = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; time.sleep(3600)", "endless"])
"""
PATIENCE = 600.0
"""Seconds to wait for what must happen. They decide nothing: a busy machine takes longer."""


def wait_until(happened: Callable[[], bool]) -> None:
    """Wait for an event."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.05)


def is_endless(process: "subprocess.Popen[str]") -> bool:
    """Whether an endless cell runs below a process."""
    return any("endless" in command_of(each) for each in family(process))


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """What a process has started."""
    return list(psutil.Process(process.pid).children(recursive=True))


def command_of(process: psutil.Process) -> list[str]:
    """The command of a process, empty where it has ended."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


DAMAGE = {"nothing": b"", "half": b'{"key": "', "a-list": b"[]", "a-number": b'{"key": 1}'}


def test_a_damaged_result_is_none(tmp_path: Path) -> None:
    """A machine that stops may leave half a file, and a half must not count as a grade."""
    folder = tmp_path / "class"
    folder.mkdir()
    for name in DAMAGE:
        nbformat.write(solved(), folder / f"{name}.ipynb")  # type: ignore[no-untyped-call]
    assert grade([*OPEN, str(folder)]) == 0
    stored = sorted((tmp_path / "class-graded" / "results").iterdir())
    whole = [json.loads(path.read_text("utf-8"))["key"] for path in stored]
    for path, damage in zip(stored, DAMAGE.values(), strict=True):
        path.write_bytes(damage)
    (tmp_path / "class-graded" / "grades.csv").write_text("half a")
    assert grade([*OPEN, str(folder)]) == 0
    assert [json.loads(path.read_text("utf-8"))["key"] for path in stored] == whole
    rows = read_rows(tmp_path / "class-graded")
    assert {name: row["points"] for name, row in rows.items()} == dict.fromkeys(DAMAGE, f"{ALL:g}")


def test_what_has_changed_is_graded_anew_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "class"
    folder.mkdir()
    for name in ("a", "b"):
        nbformat.write(solved(), folder / f"{name}.ipynb")  # type: ignore[no-untyped-call]
    assert grade([*FEW, str(folder)]) == 0
    before = results(folder)
    nbformat.write(edition("release"), folder / "b.ipynb")  # type: ignore[no-untyped-call]
    (tmp_path / "class-graded" / "feedback" / "a.html").unlink()
    assert grade([*FEW, str(folder)]) == 0
    rows = read_rows(tmp_path / "class-graded")
    assert [float(rows[name]["points"]) for name in ("a", "b")] == [ALL, 0]
    assert (tmp_path / "class-graded" / "feedback" / "a.html").is_file()
    kept = results(folder)
    assert grade([*FEW, str(folder)]) == 0
    assert results(folder) == kept != before


def test_a_fault_of_the_grader_stops_nothing_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "class"
    folder.mkdir()
    for name in ("a", "b"):
        nbformat.write(solved(), folder / f"{name}.ipynb")  # type: ignore[no-untyped-call]
    ask = pool.Examiner.ask

    def faulty(examiner: pool.Examiner, job: pool.Job) -> dict[str, Any]:
        if job.name == "examine" and job.arguments["submission"].learner == "a":
            raise RuntimeError("planted")
        return ask(examiner, job)

    monkeypatch.setattr(pool.Examiner, "ask", faulty)
    assert grade([*FEW, str(folder)]) == 1
    rows = read_rows(tmp_path / "class-graded")
    assert (rows["a"]["status"], rows["b"]["points"]) == ("not graded", f"{ALL:g}")
    assert rows["a"]["points"] == ""
    assert "planted" in rows["a"]["remarks"]
    assert "no grade: class/a.ipynb: not graded: RuntimeError: planted" in capsys.readouterr().err
    monkeypatch.undo()
    assert grade([*FEW, str(folder)]) == 0
    assert read_rows(tmp_path / "class-graded")["a"]["points"] == f"{ALL:g}"


def test_the_assignment_is_found_by_the_grade_ids(tmp_path: Path) -> None:
    folder = tmp_path / "class"
    for name in ASSIGNMENTS:
        (folder / "anna").mkdir(parents=True, exist_ok=True)
        nbformat.write(solved(name), folder / "anna" / f"my {name}.ipynb")  # type: ignore[no-untyped-call]
    assert grade([*OPEN, str(folder)]) == 0
    with open(tmp_path / "class-graded" / "grades.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["assignment"] for row in rows) == sorted(ASSIGNMENTS)
    for row in rows:
        assert float(row["points"]) == ASSIGNMENTS[row["assignment"]].points == float(row["out of"])
    assert len(list((tmp_path / "class-graded" / "feedback").iterdir())) == len(ASSIGNMENTS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([""], "is no folder of submissions"),
        (["{tmp}/none"], "is no folder of submissions"),
        (["{tmp}"], "there is nothing in"),
        (["--assignment", "art", "{tmp}"], "there is no assignment 'art'; there are: claim"),
        (["--output", "{tmp}/x", "{tmp}"], "lies within the submissions"),
        (["--source", "{tmp}", "{tmp}"], "no notebooks in"),
    ],
)
def test_a_mistake_of_the_instructor_takes_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    (tmp_path / "class").mkdir()
    folder = str(tmp_path / "class")
    options = ["--no-sandbox", *(each.format(tmp=folder) for each in arguments)]
    assert grade(options) == 1
    warning = cli.NO_SANDBOX.format(why=cli.OFF)
    lines = capsys.readouterr().err.replace(warning, "").strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]


# --- the wire ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [None, True, 3, -(10**30), 2.5, float("inf"), "ü\ud800", [1, [2.0]], (1, "a"), {16: ()},
     {1, 2}, frozenset("a"), range(1, 9, 2), Fraction(-1, 3), np.float64(2.5), np.int16(3),
     np.bool_(True), np.float32(0.1)],
    ids=repr,
)  # fmt: skip
def test_plain_values_cross_the_wire_as_they_are(value: object) -> None:
    back = wire.decode(json.loads(json.dumps(wire.encode(value))))
    assert back == value
    assert type(back) is type(value)


def test_arrays_and_tensors_cross_the_wire() -> None:
    import torch

    for array in (np.arange(6.0).reshape(2, 3), np.array(3, dtype=np.int16), np.zeros((0, 2))):
        back = wire.decode(wire.encode(array))
        np.testing.assert_array_equal(back, array)
        assert back.dtype == array.dtype
        assert back.flags.writeable
    for dtype in (torch.float64, torch.bfloat16, torch.int64, torch.bool):
        tensor = torch.ones(2, 3).to(dtype)
        back = wire.decode(wire.encode(tensor))
        assert back.dtype == dtype
        assert torch.equal(back, tensor)
    asks = torch.ones(2, requires_grad=True)
    assert wire.decode(wire.encode(asks)).requires_grad


ODD_VALUES = [object(), 1j, b"x", iter([1]), lambda: 0]


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: type(value).__name__)
def test_anything_else_becomes_a_name_and_a_text(value: object) -> None:
    back = wire.decode(wire.encode(value))
    assert isinstance(back, wire.Opaque)
    assert type(back).__name__ == type(value).__name__
    assert repr(back) == repr(value)[:500]


@pytest.mark.parametrize(
    "data",
    [
        [],
        {},
        {"list": 3},
        {"pickle": "gASV"},
        {"array": ["O", [1], ""]},
        {"array": ["<f8", [10**9, 10**9], ""]},
        {"array": ["<f8", [-1], ""]},
        {"array": ["<f8", [2], "AAAA"]},
        {"array": ["<f8", [1] * 40, "AAAAAAAAAAA="]},
        {"tensor": ["<f8", [0], "", "Storage", False]},
        {"opaque": [1]},
        {"dict": [[{"list": []}, 1]]},
        {"dict": [[number, 1] for number in range(2000)]},
        {"set": [[1]]},
        {"set": list(range(2000))},
        {"scalar": ["<f8", [2], "AAAAAAAAAAAAAAAAAAAAAA=="]},
        {"fraction": [1.5, 2]},
        {"range": [0, 1, 0]},
        {"range": [0, 10**9, 1]},
        {"array": ["f8,f8", [0], ""]},
        {"array": [["<f8"], [0], ""]},
        {"array": ["<f8", ["1"], "AAAAAAAAAAA="]},
        {"list": [], "tuple": []},
    ],
    ids=lambda data: str(data)[:40],
)
def test_malformed_values_are_refused(data: object) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(data)


@pytest.mark.parametrize(
    "message", [b"x\n{}", b"2\n[]", b"2\n{x", b"999999999999\n", b"-5\n{}", b"9999999999\n{}"]
)
def test_malformed_messages_are_refused(message: bytes) -> None:
    import io

    with pytest.raises(wire.WireError):
        wire.receive(io.BytesIO(message))


def test_deep_messages_are_refused() -> None:
    import io

    deep = b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    with pytest.raises(wire.WireError):
        wire.receive(io.BytesIO(b"%d\n" % len(deep) + deep))


# --- a made-up class -----------------------------------------------------------------------------


def test_a_made_up_class_has_every_kind_and_is_the_same_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import made_up_class  # late: it takes its kinds from here

    tables = []
    for name in ("one", "two"):
        assert made_up_class.main([str(tmp_path / name), "--size", "80", "--seed", "3"]) == 0
        tables.append((tmp_path / f"{name}-expected.csv").read_text("utf-8"))
    assert tables[0] == tables[1]
    handed_in = {path.name for path in (tmp_path / "one").iterdir()}
    assert len(handed_in) == 80
    assert {name.removesuffix(".ipynb") for name in handed_in} > set(
        made_up_class.points_of_kinds()
    )
    assert made_up_class.main([str(tmp_path / "one")]) == 1
    assert "is there already" in capsys.readouterr().err


def test_points_that_are_not_those_of_a_made_up_class_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import made_up_class

    (tmp_path / "class-graded").mkdir()
    (tmp_path / "class-expected.csv").write_text("file,points\na,1\nb,2\nc,3\n")
    rows = "file,points\nclass/a,1\nclass/b/claim.ipynb,1\n"
    (tmp_path / "class-graded" / "grades.csv").write_text(rows)
    assert made_up_class.main([str(tmp_path / "class"), "--compare"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "b: 1 points, must be 2"
    assert lines[1:] == ["c: no points, must be 3", "2 of 3 differ"]


# --- small parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("check(f)\nprint(f(1))", ["check", "f"]),
        ("import math\nassert math.isclose(f(x), 1)", ["f", "x"]),
        ("for i in range(3):\n    g(i)", ["g"]),
        ("h = lambda a: a + b\nh(1)", ["b"]),
    ],
)
def test_the_names_that_a_test_needs(source: str, names: list[str]) -> None:
    assert names_needed(source, set()) == names


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("a/b", "a_b"),
        ("x\n", "x_"),
        ("..", "_"),
        ("", "_"),
        (NFD, NFC),
        ("é" * 200, "é" * 60),
        ("Jos\udce9", "Jos_xe9"),
        ("雷" * 85, "雷" * 40),
    ],
)
def test_a_name_becomes_one_that_a_file_may_have(name: str, clean: str) -> None:
    assert clean_name(name) == clean


def test_gradients_cross_the_wire(worker: Callable[..., Session]) -> None:
    """A check may ask for gradients as if the function were here."""
    import torch

    code = "def f(x, y):\n    return [(x * x * y).sum(), x.detach() + 1], y * 2"
    f = RemoteFunction(worker("import torch", code), "f")
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([3.0, 5.0], dtype=torch.float64)
    (total, detached), double = f(x, y)
    f(x, y)  # another call in between changes nothing
    assert not detached.requires_grad
    assert not double.requires_grad
    (gradient,) = torch.autograd.grad(7 * total, [x])
    assert torch.equal(gradient, 7 * 2 * x.detach() * y)
