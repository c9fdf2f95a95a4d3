"""Rules that every notebook of the book obeys, each with a fault planted to see it caught."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell

from notebook_counts_plugin import (
    OUTPUT_SECONDS,
    Counts,
    count,
    course_notebooks,
    markers,
    pytest_collection_modifyitems,
    read,
)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import notebooks as tool  # noqa: E402

LARGEST_IGNORED_SHARE = 0.1


# --- the rules: each returns its complaints ----------------------------------------------------


def too_much_ignored(counts: Counts) -> list[str]:
    """At most a tenth of all code cells is left out of the comparison, and there are some."""
    if counts.total == 0:
        return ["no code cell was counted"]
    if counts.ignored > LARGEST_IGNORED_SHARE * counts.total:
        return [f"{counts.ignored} of {counts.total} code cells are ignored"]
    return []


def stored_errors(notebook: NotebookNode) -> list[str]:
    """No cell stores an error, except those that are there to show one."""
    return [
        f"cell {number} stores {error}"
        for number, cell in code_cells(notebook)
        for error in errors(cell)
        if not markers(cell).get("check_exception")
    ]


def skipped_cells(notebook: NotebookNode) -> list[str]:
    """Every cell is executed."""
    return [
        f"cell {number} is skipped"
        for number, cell in code_cells(notebook)
        if markers(cell).get("skip") or "skip-execution" in cell.metadata.get("tags", [])
    ]


def unexplained_exceptions(notebook: NotebookNode) -> list[str]:
    """A cell may raise only what the Markdown cell right above it names."""
    complaints = []
    for number, cell in code_cells(notebook):
        if not markers(cell).get("check_exception"):
            continue
        above = notebook.cells[number - 2] if number > 1 else None
        text = above.source if above and above.cell_type == "markdown" else ""
        if not errors(cell):
            complaints.append(f"cell {number} may raise, but stores no error")
        complaints += [
            f"cell {number} raises {error}, which the text above does not announce"
            for error in errors(cell)
            if error not in text
        ]
    return complaints


def images_without_alt(notebook: NotebookNode) -> list[str]:
    """Every cell that shows an image says in words what is on it."""
    return [
        f"cell {number} shows an image without mystnb.image.alt"
        for number, cell in code_cells(notebook)
        if any(mime.startswith("image/") for out in cell.outputs for mime in out.get("data", {}))
        and not str(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")).strip()
    ]


def allowed_errors(text: str) -> list[str]:
    """Neither the book nor a notebook allows errors."""
    return ["allow_errors is used"] if "allow_errors" in text else []


def not_normal(text: str) -> list[str]:
    """The file is as ``make notebooks`` writes it."""
    notebook = tool.parse(text, Path("notebook"))
    normal = tool.serialize(tool.normalize(notebook))
    return [] if normal == text else ["not in normal form: run `make notebooks`"]


def code_cells(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """The code cells, each with its number among all cells, from 1."""
    cells = enumerate(notebook.cells, start=1)
    return [(number, cell) for number, cell in cells if cell.cell_type == "code"]


def errors(cell: NotebookNode) -> list[str]:
    """The names of the exceptions that a cell stores."""
    return [out.ename for out in cell.outputs if out.output_type == "error"]


NOTEBOOK_RULES = [stored_errors, skipped_cells, unexplained_exceptions, images_without_alt]
TEXT_RULES = [allowed_errors, not_normal]


# --- the notebooks obey them -------------------------------------------------------------------


def test_enough_cells_are_compared() -> None:
    assert not too_much_ignored(count(read(path) for path in course_notebooks()))


@pytest.mark.parametrize("path", course_notebooks(), ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", NOTEBOOK_RULES)
def test_notebook(path: Path, rule: Callable[[NotebookNode], list[str]]) -> None:
    assert not rule(read(path))


@pytest.mark.parametrize("path", course_notebooks(), ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", TEXT_RULES)
def test_text_of_notebook(path: Path, rule: Callable[[str], list[str]]) -> None:
    assert not rule(path.read_text("utf-8"))


def test_configuration_of_the_book() -> None:
    assert not allowed_errors((ROOT / "_config.yml").read_text("utf-8"))


# --- and each rule catches its fault -----------------------------------------------------------


def make(*cells: NotebookNode) -> NotebookNode:
    """A notebook in normal form."""
    notebook = nbformat.v4.new_notebook(cells=list(cells))  # type: ignore[no-untyped-call]
    return tool.normalize(notebook)


def text_cell(source: str) -> NotebookNode:
    cell: NotebookNode = nbformat.v4.new_markdown_cell(source)  # type: ignore[no-untyped-call]
    return cell


def code(source: str = "1", *outputs: NotebookNode, **metadata: Any) -> NotebookNode:  # noqa: ANN401
    cell: NotebookNode = nbformat.v4.new_code_cell(  # type: ignore[no-untyped-call]
        source, outputs=list(outputs), metadata=metadata
    )
    return cell


def output(kind: str, **content: Any) -> NotebookNode:  # noqa: ANN401
    made: NotebookNode = nbformat.v4.new_output(kind, **content)  # type: ignore[no-untyped-call]
    return made


def error() -> NotebookNode:
    return output("error", ename="ValueError", evalue="no", traceback=[])


def image() -> NotebookNode:
    return output("display_data", data={"image/png": "AA==", "text/plain": "<Figure>"})


IGNORED = [
    code(tags=["nbval-ignore-output"]),
    code("# NBVAL_IGNORE_OUTPUT\n1"),
    code(tags=["nbval-skip"]),
    code("# NBVAL_SKIP\n1"),
]


@pytest.mark.parametrize("cell", IGNORED)
def test_ignored_cells_are_counted(cell: NotebookNode) -> None:
    assert count([make(text_cell("a"), cell, code())]) == Counts(compared=1, ignored=1)


def test_ignoring_more_than_a_tenth_is_caught() -> None:
    assert too_much_ignored(Counts(compared=8, ignored=1))
    assert not too_much_ignored(Counts(compared=9, ignored=1))


def test_counting_nothing_is_caught() -> None:
    assert too_much_ignored(count([]))


def test_a_stored_error_is_caught() -> None:
    assert stored_errors(make(code("1", error())))
    assert not stored_errors(make(code("1", error(), tags=["raises-exception"])))


@pytest.mark.parametrize("cell", [*IGNORED[2:], code(tags=["skip-execution"])])
def test_a_skipped_cell_is_caught(cell: NotebookNode) -> None:
    assert skipped_cells(make(cell))
    assert not skipped_cells(make(*IGNORED[:2]))


def test_an_exception_without_a_reason_is_caught() -> None:
    raising = code("1", error(), tags=["raises-exception"])
    assert unexplained_exceptions(make(raising))
    assert unexplained_exceptions(make(text_cell("It fails."), raising))
    assert unexplained_exceptions(make(text_cell("A ValueError."), code(), raising))
    assert not unexplained_exceptions(make(text_cell("It raises `ValueError`."), raising))


def test_a_cell_that_no_longer_raises_is_caught() -> None:
    silent = code("1", tags=["raises-exception"])
    assert unexplained_exceptions(make(text_cell("It raises `ValueError`."), silent))


def test_an_image_without_words_is_caught() -> None:
    assert images_without_alt(make(code("1", image())))
    assert images_without_alt(make(code("1", image(), mystnb={"image": {"alt": " "}})))
    assert not images_without_alt(make(code("1", image(), mystnb={"image": {"alt": "a line"}})))


def test_allowing_errors_is_caught() -> None:
    # Planted: the one place that may write it, to see that the rule finds it.
    assert allowed_errors("execute:\n  allow_errors: true\n")
    notebook = make(code())
    notebook.metadata.mystnb = {"execution_allow_errors": True}
    assert allowed_errors(tool.serialize(notebook))


FAULTS: dict[str, Callable[[NotebookNode], Any]] = {
    "kernel of another machine": lambda nb: nb.metadata.kernelspec.update(name="my-env"),
    "version of Python": lambda nb: nb.metadata.language_info.update(version="3.11.7"),
    "state of widgets": lambda nb: nb.metadata.update(widgets={"state": {}}),
    "view of a widget": lambda nb: nb.cells[1].outputs[0].data.update({tool.WIDGET_VIEW: {}}),
    "timings": lambda nb: nb.cells[1].metadata.update(execution={"iopub.status.busy": "now"}),
    "never executed": lambda nb: nb.cells[1].update(execution_count=None),
    "executed out of order": lambda nb: nb.cells[1].update(execution_count=7),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_form_that_is_not_normal_is_caught(fault: str) -> None:
    notebook = make(text_cell("a"), code("1", image()))
    assert not not_normal(tool.serialize(notebook))
    FAULTS[fault](notebook)
    assert not_normal(tool.serialize(notebook))


def test_a_missing_newline_is_caught() -> None:
    assert not_normal(tool.serialize(make(code())).rstrip("\n"))


# --- how long they take --------------------------------------------------------------------------

SECONDS_EACH = 90
SECONDS_OF = {"teach_a_real_model": 180}  # it trains a language model
SECONDS_ALL = 930


def over_budget(seconds: dict[str, float], notebooks: set[str]) -> list[str]:
    """Name each notebook that has no seconds or takes too long, and the sum if it is too large."""
    faults = [f"{name} has no recorded seconds" for name in sorted(notebooks - seconds.keys())]
    faults += [f"{name} is recorded but gone" for name in sorted(seconds.keys() - notebooks)]
    faults += [
        f"{name} takes {s} s"
        for name, s in seconds.items()
        if s > SECONDS_OF.get(name, SECONDS_EACH)
    ]
    if (total := sum(seconds.values())) > SECONDS_ALL:
        faults.append(f"all together take {total:.0f} s")
    return faults


def test_every_notebook_has_its_seconds_within_the_budget() -> None:
    record = json.loads(tool.SECONDS.read_text("utf-8"))
    notebooks = {path.stem for path in tool.FOLDER.glob("*.ipynb")}
    assert over_budget(record["seconds"], notebooks) == []


@pytest.mark.parametrize(
    ("seconds", "fault"),
    [
        ({}, "a has no recorded seconds"),
        ({"a": 1.0, "b": 1.0}, "b is recorded but gone"),
        ({"a": 90.1}, "a takes 90.1 s"),
        ({"a": 930.1}, "all together take 930 s"),
    ],
)
def test_a_fault_in_the_seconds_is_named(seconds: dict[str, float], fault: str) -> None:
    assert over_budget({"a": 90.0}, {"a"}) == []
    assert fault in over_budget(seconds, {"a"})


def test_an_output_of_a_busy_machine_gets_its_time() -> None:
    cell = IPyNbCell.__new__(IPyNbCell)
    cell.output_timeout = 5  # nbval's own, which it reads from the cell
    pytest_collection_modifyitems([cell])
    assert cell.output_timeout == OUTPUT_SECONDS > 5
