"""What a page shows is what it teaches: no visible line of code draws or glues."""

import ast
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from notebook_counts_plugin import course_notebooks, read

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = [*course_notebooks(), *(ROOT / "notebooks/assignments/source").rglob("*.ipynb")]
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
DRAWING = ("matplotlib", "myst_nb", "slingshot.pages")
SHOWN = {"setup", "table"}  # of slingshot.pages: they draw nothing


def drawing_lines(notebook: NotebookNode) -> list[str]:
    """The visible lines that draw or glue.

    A line does if it names what comes from matplotlib, from myst_nb or from `slingshot.pages`, or a
    figure or axes made by one of these, or if it calls a function that does. That ``display`` shows
    a figure belongs to the cell that makes it grow.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    trees = [tree_of(cell) for cell in cells]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = imported(nodes) - SHOWN
    names |= {name for node in nodes for name in made_by(names, node)}
    functions = {
        node.name for node in nodes if isinstance(node, ast.FunctionDef) and named(node) & names
    }
    return [
        f"{cell.id}: {cell.source.splitlines()[line - 1]}"
        for cell, tree in zip(cells, trees, strict=True)
        if not FOLDED & set(cell.metadata.get("tags", []))
        for line in sorted(lines_of(tree, names, functions))
    ]


def tree_of(cell: NotebookNode) -> ast.Module:
    code = TransformerManager().transform_cell(cell.source)  # type: ignore[no-untyped-call]
    return ast.parse(code)


def imported(nodes: list[ast.AST]) -> set[str]:
    """The names that are imported from what draws."""
    return {
        each.asname or each.name.split(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for each in node.names
        if (getattr(node, "module", None) or each.name).startswith(DRAWING)
    }


def made_by(names: set[str], node: ast.AST) -> set[str]:
    """What an assignment calls the figure or axes that one of ``names`` returns."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
        return set()
    if not named(node.value.func) & names:
        return set()
    return {name for target in node.targets for name in named(target)} - {"_"}


def named(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def lines_of(tree: ast.Module, names: set[str], functions: set[str]) -> set[int]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    shown = [arg for call in calls if named(call.func) == {"display"} for arg in call.args]
    spared = [each for arg in shown for each in ast.walk(arg)]
    drawn = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in names and node not in spared
    ]
    called = [
        node for node in calls if isinstance(node.func, ast.Name) and node.func.id in functions
    ]
    return {node.lineno for node in [*drawn, *called]}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_visible_line_draws_or_glues(path: Path) -> None:
    assert drawing_lines(read(path)) == []


# --- and what does is found --------------------------------------------------------------------


def notebook(*cells: tuple[str, list[str]]) -> NotebookNode:
    made = [
        nbformat.v4.new_code_cell(source, metadata={"tags": tags})  # type: ignore[no-untyped-call]
        for source, tags in cells
    ]
    book: NotebookNode = nbformat.v4.new_notebook(cells=made)  # type: ignore[no-untyped-call]
    return book


IMPORTS = (
    "import matplotlib.pyplot as plt\nfrom myst_nb import glue\n"
    "from slingshot.pages import PALETTE, explore, setup, table\nsetup()"
)


@pytest.mark.parametrize(
    ("source", "n_lines"),
    [
        ('glue("share", "4%", display=False)', 1),
        ("plt.plot([1, 2])\nplt.show()", 2),
        ("_, axes = plt.subplots()\naxes.plot([1, 2])\nx = 1", 2),
        ("explore(print, x=[1, 2])", 1),
        ("colors = [PALETTE['blue']]", 1),
        ("curve.plot(x, color='red')", 0),  # nothing says that it is a drawing
        ("def draw(x):\n    plt.plot(x)\ndraw([1])", 2),
        ("grow(1)", 1),  # a function that a folded cell defines
        ("train(on_step=grow)", 0),
        ("screen = display(figure, display_id=True)", 0),
        ("figure.suptitle('reward')", 1),
        ("table([[1]], header=['x'])\ntotal = sum([1, 2])", 0),
        ("%time total = sum([1, 2])", 0),
    ],
)
def test_a_line_that_draws_is_found_where_it_is_visible(source: str, n_lines: int) -> None:
    before: list[tuple[str, list[str]]] = [
        (IMPORTS, []),
        ("figure = plt.figure()\ndef grow(x):\n    figure.gca().plot(x)", ["hide-input"]),
    ]
    found = drawing_lines(notebook(*before, (source, [])))
    assert len(found) == n_lines, found
    for tag in sorted(FOLDED):
        assert drawing_lines(notebook(*before, (source, [tag]))) == []


@pytest.mark.parametrize("path", course_notebooks(), ids=lambda path: path.stem)
def test_what_a_chapter_folds_is_found_when_it_is_opened(path: Path) -> None:
    """The rule is not blind to how a chapter draws: whoever imports something draws with it."""
    opened = read(path)
    for cell in opened.cells:
        cell.metadata.tags = []
    trees = [tree_of(cell) for cell in opened.cells if cell.cell_type == "code"]
    draws = imported([node for tree in trees for node in ast.walk(tree)]) - SHOWN
    assert bool(drawing_lines(opened)) == bool(draws)
