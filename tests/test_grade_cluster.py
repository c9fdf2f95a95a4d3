"""Grading on a Dask cluster: a scheduler and two workers on loopback, one killed in the middle."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_here import Running, cluster_here
from slingshot_grader import cli, cluster
from slingshot_grader.batch import Settings, version
from slingshot_grader.cli import EDITION
from slingshot_grader.cli import main as grade
from slingshot_grader.cluster import Cluster
from slingshot_grader.files import Submission
from slingshot_grader.outcome import Report
from slingshot_grader.pool import LostError
from slingshot_grader.processes import family
from test_grade import (
    ALL,
    CLAIM,
    LIMITS,
    OPEN,
    SANDBOX,
    command_of,
    everything_wrong,
    limits,
    read_rows,
    solved,
    stub,
    wait_until,
    with_cells,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A cluster on this machine."""
    with cluster_here(tmp_path, ROOT / "src") as made:
        yield made


@pytest.fixture(autouse=True)
def no_examiner_stays() -> Iterator[None]:
    """End what a test has started as a worker would."""
    yield
    cluster.close_idle()


def hand_in(folder: Path) -> None:
    """Six learners, of every kind that has a row of its own."""
    folder.mkdir()
    notebooks = {
        "right": solved(),
        "wrong": solved(**everything_wrong()),
        "partly": solved(run_time=stub("run_time")),
        "long": with_cells(solved(), "import time\ntime.sleep(2)"),
        "raises": with_cells(solved(), "1 / 0", first=True),
    }
    for name, notebook in notebooks.items():
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook))
    (folder / "broken.ipynb").write_bytes(b"{")
    (folder / "link.ipynb").symlink_to(folder / "right.ipynb")


def test_a_killed_worker_costs_nothing_and_the_table_is_the_same(
    tmp_path: Path, running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        hand_in(tmp_path / name / "class")
    words = ["--assignment=claim", *limits(), *OPEN]
    assert grade([*words, str(tmp_path / "here" / "class")]) == 1  # two are no notebooks
    victim = running.workers[0]
    killed = threading.Event()

    def kill() -> None:
        wait_until(lambda: any("slingshot_grader.worker" in word for each in family(victim.pid)
                               for word in words_of(each)))  # fmt: skip
        victim.kill()
        victim.wait()
        killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    there = ["--scheduler", running.address, str(tmp_path / "there" / "class")]
    assert grade([*words, *there]) == 1
    thread.join()
    assert killed.is_set()
    tables = [(tmp_path / name / "class-graded" / "grades.csv").read_bytes()
              for name in ("here", "there")]  # fmt: skip
    assert tables[0] == tables[1]
    rows = read_rows(tmp_path / "there" / "class-graded")
    assert rows["right"]["points"] == f"{ALL:g}"
    stored = list((tmp_path / "there" / "class-graded" / "results").iterdir())
    assert len(stored) == len(rows)


def words_of(pid: int) -> list[str]:
    import psutil

    try:
        return command_of(psutil.Process(pid))
    except psutil.Error:
        return []


class FakeFuture:
    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def result(self, timeout: float) -> dict[str, Any]:
        return self.answer

    def release(self) -> None:
        pass


class FakeClient:
    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def submit(self, function: object, *arguments: object, **options: object) -> FakeFuture:
        return FakeFuture(self.answer)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"version": "another"}, "another version of the course"),
        ({}, "another version of the course"),
        ({"version": "ours", "report": {"status": "perfect"}}, "answered what is no report"),
        ({"version": "ours", "report": Report("graded").message()}, "on another assignment"),
        ({"version": "ours", "lost": "it ended early"}, "it ended early"),
    ],
)
def test_an_answer_that_is_not_ours_is_refused(
    tmp_path: Path, answer: dict[str, Any], words: str
) -> None:
    (tmp_path / "a.ipynb").write_text("{}")
    settings = Settings(tmp_path, tmp_path / "x", EDITION, (), SANDBOX, LIMITS)
    made = Cluster("tcp://none", settings, "ours", threading.Event())
    made.client = FakeClient(answer)
    with pytest.raises(LostError, match=words):
        made(Submission("a", tmp_path / "a.ipynb", "claim", []), CLAIM)


def test_a_worker_of_another_version_grades_nothing(tmp_path: Path) -> None:
    submission = Submission("a", tmp_path / "a.ipynb", "claim", [])
    answer = cluster.grade_here(submission, {}, CLAIM, LIMITS, False, "another")
    assert answer == {"version": version()}


def test_the_limits_hold_on_a_worker_too(tmp_path: Path) -> None:
    endless = with_cells(solved(), "while True:\n    pass", first=True)
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(endless))
    packed, problem = cluster.pack(submission := Submission("a", path, "claim", []))
    assert problem == ""
    answer = cluster.grade_here(submission, packed, CLAIM, LIMITS, bool(SANDBOX), version())
    assert answer["report"]["status"] == "stopped"
    assert "code cell 1 took more than 3 s of computing" in answer["report"]["remarks"]
    assert sum(each["points"] for each in answer["report"]["grades"]) == ALL
    with cluster.an_examiner() as first:
        examiner = first.all[0].process
        assert examiner is not None
        assert examiner.poll() is None  # the next submission finds it
    cluster.close_idle()
    assert examiner.poll() is not None


def test_a_scheduler_that_is_none_takes_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "a.ipynb").write_text("{}")
    arguments = [*OPEN, "--scheduler=tcp://127.0.0.1:9", str(tmp_path / "class")]
    assert grade(arguments) == 1
    assert "no scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err.splitlines()[-1]
    assert cli.parse_arguments(["x"]).scheduler == os.environ.get("SCHEDULER", "")
