"""The runs of an experiment on a cluster: a scheduler and two workers on this machine."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _cluster
import psutil
import pytest
from _cluster import ClusterError

from cluster_here import Running, cluster_here
from test_grade import wait_until

ROOT = Path(__file__).resolve().parent.parent
TRIAL = """
import os, sys, time
from pathlib import Path
from _runner import Run, main
import torch

PLACE = Path(__file__).resolve().parents[2]


def execute(run):
    with (PLACE / "made").open("a") as made:
        made.write(f"{run.key} {os.getpid()}\\n")
    while (PLACE / "wait").exists():
        time.sleep(0.02)
    if (PLACE / f"{run.name} fails").exists():
        raise ArithmeticError("diverged")
    print("said by the run")
    torch.manual_seed(run.seed)
    numbers = torch.randn(run.configuration["width"], 64, dtype=torch.float64)
    return {"loss": (numbers @ numbers.T).sum().item(), "threads": torch.get_num_threads(),
            "nothing": float("nan")}


runs = [Run(name, seed, {"width": width, "seed": seed})
        for name, width in (("narrow", 3), ("wide", 50)) for seed in range(2)]
if __name__ == "__main__":
    sys.exit(main("trial", runs, execute))
"""


class Trial:
    """A course with one experiment of tiny runs, and a cluster whose workers have it too."""

    def __init__(self, place: Path, running: Running) -> None:
        self.place = place
        self.running = running

    def start(self, results: str, *options: str) -> "subprocess.Popen[str]":
        script = self.place / "course" / "experiments" / "trial.py"
        words = [sys.executable, str(script), "--results", str(self.place / results), *options]
        env = {**os.environ, "PYTHONPATH": str(self.place / "course" / "src")}
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )

    def there(self) -> "subprocess.Popen[str]":
        return self.start("there", "--scheduler", self.running.address)

    def made(self) -> list[tuple[str, int]]:
        log = self.place / "made"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(key, int(pid)) for key, pid in map(str.split, lines)]


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    course = tmp_path / "course"
    (course / "experiments").mkdir(parents=True)
    for name in ("src", "tools"):
        (course / name).symlink_to(ROOT / name)
    for name in ("_runner.py", "_cluster.py"):
        shutil.copy(ROOT / "experiments" / name, course / "experiments")
    (course / "experiments" / "trial.py").write_text(TRIAL)
    with cluster_here(tmp_path, course / "src") as running:
        yield Trial(tmp_path, running)


def test_a_killed_worker_costs_one_run_twice_and_the_file_is_the_same(trial: Trial) -> None:
    assert trial.start("here", "--jobs", "1").wait() == 0
    assert len(trial.made()) == 4
    (trial.place / "made").unlink()
    (trial.place / "wait").write_text("")
    process = trial.there()
    # One on each worker.
    wait_until(lambda: process.poll() is not None or len(trial.made()) == 2)
    assert process.poll() is None, process.communicate()
    victim = trial.running.workers[0]
    (child,) = psutil.Process(victim.pid).children()
    lost = {pid: key for key, pid in trial.made()}[child.pid]
    victim.kill()
    victim.wait()
    child.wait(60)  # what it has begun ends with it
    (trial.place / "wait").unlink()
    _, said = process.communicate()
    assert process.returncode == 0, said
    files = [(trial.place / name / "trial.json").read_bytes() for name in ("here", "there")]
    assert files[0] == files[1]
    keys = [key for key, _ in trial.made()]
    assert sorted(keys) == sorted([*json.loads(files[0]), lost])
    assert json.loads(files[1])["wide/1"]["result"]["threads"] == 1


def test_what_a_run_raises_and_what_another_version_makes_are_not_stored(trial: Trial) -> None:
    (trial.place / "wide fails").write_text("")
    process = trial.there()
    _, said = process.communicate()
    assert process.returncode == 1
    assert "in the run wide/" in said
    assert "ArithmeticError: diverged" in said
    (trial.place / "wide fails").unlink()
    script = trial.place / "course" / "experiments" / "trial.py"
    stored = json.loads((trial.place / "there" / "trial.json").read_text())
    assert {key.partition("/")[0] for key in stored} == {"narrow"}

    # Another copy of the course asks, of which the workers have none.
    other = trial.place / "other" / "experiments"
    shutil.copytree(script.parent, other, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("src", "tools"):
        (other.parent / name).symlink_to(ROOT / name)
    (other / "trial.py").write_text(f"{TRIAL}# changed\n")
    before = len(trial.made())
    words = [sys.executable, str(other / "trial.py"), "--results", str(trial.place / "there")]
    run = subprocess.run(
        [*words, "--scheduler", trial.running.address], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == (
        "trial: a worker of the cluster has another version of the course"
    )
    assert len(trial.made()) == before
    assert json.loads((trial.place / "there" / "trial.json").read_text()) == stored


OURS = {"python": "3.11.7", "torch": "2.9.1", "machine": "x86_64"}


class Future:
    """What a cluster has come to."""

    def __init__(self, answer: Any) -> None:  # noqa: ANN401
        self.answer = answer

    def result(self) -> Any:  # noqa: ANN401
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"version": "other"}, "another version of the course"),
        ({}, "another version of the course"),
        (
            {"version": "v", "versions": {**OURS, "torch": "2.8.0"}},
            "3.11.7 and torch 2.8",
        ),
        (RuntimeError("lost"), "says of the run a/0: RuntimeError: lost"),
    ],
    ids=["another", "none", "torch", "lost"],
)
def test_an_answer_that_may_not_be_stored_is_refused(answer: Any, words: str) -> None:  # noqa: ANN401
    good = {"version": "v", "versions": OURS, "result": 1}
    assert _cluster.read_answer(Future(good), "a/0", "v", OURS) == good
    with pytest.raises(ClusterError, match=words):
        _cluster.read_answer(Future(answer), "a/0", "v", OURS)


def test_a_scheduler_that_is_none_takes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cluster, "CONNECT_SECONDS", 0.5)
    with pytest.raises(ClusterError, match="no scheduler answers at tcp://127"):
        list(_cluster.results_of("tcp://127.0.0.1:9", "trial", ["a/0"], ROOT, OURS))
