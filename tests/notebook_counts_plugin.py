"""Counts the code cells whose outputs nbval compares and those that it ignores.

As a plugin (``pytest -p tests.notebook_counts_plugin``, which ``make test`` does) it prints both
numbers at the end of the run, and how many cells nbval has really run. It also gives an output of a
busy machine its time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import IPyNbCell, find_comment_markers, find_metadata_tags

# nbval waits 5 seconds for an output that a cell has made, which is short beside other work.
OUTPUT_SECONDS = 300

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"


@dataclass(frozen=True)
class Counts:
    """Numbers of code cells: those compared with their stored outputs, and those ignored."""

    compared: int
    ignored: int

    @property
    def total(self) -> int:
        """All code cells."""
        return self.compared + self.ignored

    def __str__(self) -> str:
        """One line for the end of the run."""
        return f"notebooks: {self.compared} code cells compared, {self.ignored} ignored"


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook."""
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def course_notebooks() -> list[Path]:
    """Return the notebooks that are chapters of the book."""
    return sorted(FOLDER.glob("*.ipynb"))


def markers(cell: nbformat.NotebookNode) -> dict[str, bool]:
    """Return what nbval was told about a cell, read by nbval itself: ``{"check": False}``."""
    return {**dict(find_metadata_tags(cell.metadata)), **dict(find_comment_markers(cell.source))}


def count(notebooks: Iterable[nbformat.NotebookNode]) -> Counts:
    """Count the code cells of the notebooks."""
    told = [markers(cell) for nb in notebooks for cell in nb.cells if cell.cell_type == "code"]
    ignored = sum(not each.get("check", True) or each.get("skip", False) for each in told)
    return Counts(compared=len(told) - ignored, ignored=ignored)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Wait longer for the outputs of notebooks."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.output_timeout = OUTPUT_SECONDS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the numbers above pytest's closing line."""
    counts = count(read(path) for path in course_notebooks())
    reports = (report for kind in terminalreporter.stats.values() for report in kind)
    nodeids = {getattr(report, "nodeid", "") for report in reports}
    run = {each for each in nodeids if each.partition("::")[0].endswith(".ipynb")}
    terminalreporter.write_line(f"{counts}; nbval has run {len(run)} of {counts.total}")
