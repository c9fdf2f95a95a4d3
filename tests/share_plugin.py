"""Which tests are slow, and how two processes share all of them evenly.

``conftest.py`` registers this plugin. ``pytest -m "not slow"`` leaves out what needs a browser, a
kernel, a build of pages, processes of its own, an experiment in small, all wrong answers of the
exercises or, marked where it stands, a training or more than a second. A file stays in one process,
as its fixtures want, except where its tests are long and independent. With
``--no-loadscope-reorder`` what takes long begins first, and the short files fill the gaps.
"""

import ast
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

SLOW_FILES = {
    "test_book.py", "test_book_browser.py", "test_book_builds.py", "test_clean_run.py",
    "test_exercises.py", "test_experiments_cluster.py", "test_fp8_training.py", "test_grade.py",
    "test_grade_cluster.py", "test_grade_desk.py", "test_grade_hostile.py", "test_lab.py",
    "test_memory_experiments.py", "test_package.py", "test_pdf.py", "test_same_twice.py",
    "test_setup.py", "test_timeline.py", "test_tools.py", "test_workspace.py",
}  # fmt: skip
AN_EXPERIMENT = "_experiment"
"""How the name of a file ends that runs an experiment in small: it is slow as well."""
SLOW_FIXTURES = {"book", "browser", "live_notebook", "run_notebook"}
SPREAD_FILES = {
    "test_book_browser.py", "test_grade.py", "test_grade_desk.py", "test_grade_hostile.py",
}  # fmt: skip
LONGEST = (
    "test_book.py", "test_book_builds.py", "test_setup.py", "test_grade.py",
    "test_grade_hostile.py", "test_grade_desk.py", "test_workspace.py", "test_lab.py",
    "test_parallel.py", "test_package.py", "test_pdf.py", "test_same_twice.py",
)  # fmt: skip
"""The slow files in the order in which they begin: one that takes minutes never comes last.

The first builds the book; those that look at it in a browser come when it is there.
"""
UNKNOWN = 180.0
"""Seconds of a notebook of which none are recorded: as long as the longest may take."""
MADE_ONCE = ("graded", "open_class", "rounds", "hostile")
"""What takes long to make, in a file that is spread: the tests that use it stay together."""


def pytest_configure(config: pytest.Config) -> None:
    """Give each process its share of the cores: threads that wait for each other compute as well.

    Two processes of two threads on two cores take several times as long as two of one thread. What
    a test starts, a kernel or a script, inherits the share.
    """
    if hasattr(config, "workerinput"):
        share = max(1, (os.cpu_count() or 1) // config.workerinput["workercount"])
        torch.set_num_threads(share)
        os.environ["OMP_NUM_THREADS"] = str(share)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether a file is not even read: half a minute goes to reading all of them."""
    return True if config.option.markexpr == "not slow" and is_slow_file(collection_path) else None


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by marker, and before they are shared out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and put it first."""
    for item in items:
        if is_slow(item):
            item.add_marker(pytest.mark.slow)
    items.sort(key=rank)


class Sharing(LoadFileScheduling):  # type: ignore[misc] # xdist has no types
    """Hands out files, and single tests of those that are spread."""

    def _split_scope(self, nodeid: str) -> str:
        """Name what a test must stay together with."""
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Share the tests in this way. The markers of ``--dist loadgroup`` are lost in pytest 9.2."""
    return Sharing(config, log)


def is_slow(item: pytest.Item) -> bool:
    """Whether a test is slow: said to be, a notebook's cell, by its file or by what it asks for."""
    fixtures = set(getattr(item, "fixturenames", ()))
    said = item.get_closest_marker("slow") is not None
    return said or is_slow_file(item.path) or bool(fixtures & SLOW_FIXTURES)


def is_slow_file(path: Path) -> bool:
    """Whether all tests of a file are slow: a notebook's are."""
    named = path.name in SLOW_FILES or path.stem.endswith(AN_EXPERIMENT)
    return named or path.suffix == ".ipynb"


def group_of(nodeid: str) -> str:
    """The name of what stays in one process: a file, or a test of a file that is spread."""
    path, _, rest = nodeid.partition("::")
    if Path(path).name not in SPREAD_FILES:
        return path
    name = rest.partition("[")[0].split("::")[-1]
    fixtures = asked_for(Path(path).name, name)
    return next((f"{path} {made}" for made in MADE_ONCE if made in fixtures), nodeid)


def asked_for(file: str, name: str) -> set[str]:
    """The fixtures that a function of a file asks for, those of its fixtures included."""
    functions = arguments(file)
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = functions.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


@cache
def arguments(file: str) -> dict[str, set[str]]:
    """The names of the arguments of each function of a file beside this one."""
    tree = ast.parse((Path(__file__).with_name(file)).read_text("utf-8"))
    return {name: set(names) for name, names in _functions(tree)}


def _functions(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name, [argument.arg for argument in node.args.args]


def rank(item: pytest.Item) -> tuple[int, float]:
    """Notebooks first, the longest first: none of their cells can be moved, and what begins late
    must be short, or one process waits for the other at the end. Then what is slow, then the rest.
    """
    if item.path.suffix == ".ipynb":
        return 0, -seconds().get(item.path.stem, UNKNOWN)
    if not is_slow(item):
        return 2, 0
    name = item.path.name
    return 1, LONGEST.index(name) if name in LONGEST else len(LONGEST)


@cache
def seconds() -> dict[str, float]:
    """How long each notebook took when its outputs were stored."""
    recorded = Path(__file__).resolve().parent.parent / "notebooks" / "seconds.json"
    found: dict[str, float] = json.loads(recorded.read_text("utf-8"))["seconds"]
    return found
