"""Cells to try: what they print is the same in Python and in the browser, and nothing hangs."""

import ast
import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from slingshot import facts
from try_cell import CELLS, MOST_LINES, read

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(file.stem for file in CELLS.glob("*.py"))
OURS = {("accept", "n, accepted, counts = 5000, 0, [0, 0, 0]")}
"""Lines whose large number is our own choice: how often a cell draws."""
MODULES = {"math", "random"}
"""Others take Brython seconds to load."""


def pages_with(name: str) -> list[str]:
    """Pages of the book that show a cell."""
    shown = re.compile(rf"^```\{{try\}} {name}$", re.M)
    return [f.stem for f in (ROOT / "book").glob("*.md") if shown.search(f.read_text("utf-8"))]


def in_python(name: str) -> str:
    """What a cell prints in this Python."""
    printed = io.StringIO()
    code = compile((CELLS / f"{name}.py").read_text("utf-8"), name, "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, {"__name__": "cell"})
    return printed.getvalue()


def test_there_are_ten_and_each_stands_on_one_page() -> None:
    assert len(NAMES) >= 10
    assert {name: len(pages_with(name)) for name in NAMES} == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_short_plain_and_prints(name: str) -> None:
    title, code = read(CELLS / f"{name}.py")
    assert title.endswith((".", "?"))
    tree = ast.parse(code)
    imported = {
        a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
    }
    assert imported <= MODULES
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    assert max(map(len, code.splitlines())) <= 76  # what a page shows without scrolling
    lines = in_python(name).splitlines()
    assert 2 <= len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 76


@pytest.mark.parametrize("name", NAMES)
def test_a_number_that_names_its_fact_is_that_fact(name: str) -> None:
    code = (CELLS / f"{name}.py").read_text("utf-8")
    for line in code.splitlines():
        if "# fact: " in line:
            left, key = line.split("# fact: ")
            numbers = [
                float(n.replace("_", "")) for n in re.findall(r"[\d_.]+", left.split("=")[1])
            ]
            assert numbers, line
            assert set(numbers) == {float(facts.value(key))}, line
        # A large number without a source would be typed from memory.
        large = re.search(r"= *\d[\d_]{3,}", line)
        assert not large or "# fact: " in line or (name, line) in OURS, line


def test_what_the_cells_say_is_what_the_chapters_found() -> None:
    assert f"{facts.value('v3.cost.total'):,} dollars" in in_python("run_cost")
    assert f"{facts.value('inference.cost_per_day'):,} dollars" in in_python("token_price")
    sizes = re.findall(r"([\d,]+) bytes,", in_python("cache_bytes"))
    assert f"{facts.value('insights.kv_cache.v3'):,}" == sizes[-1]


# --- in the browser ----------------------------------------------------------------------------


@pytest.fixture
def open_cell(book: Path, page: Page) -> Callable[[str], Page]:
    """Opens the page of a cell from the file system."""

    def go(name: str) -> Page:
        (where,) = pages_with(name)
        page.goto(f"{book.as_uri()}/book/{where}.html")
        return page

    return go


def finished(page: Page, name: str) -> str:
    """What a cell has printed when it is done."""
    cell = page.locator(f"#try-{name}")
    expect(cell.locator(".try-run")).to_have_text("Run", timeout=120_000)
    return cell.locator(".try-output").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_browser_prints_what_python_prints(name: str, open_cell: Callable[[str], Page]) -> None:
    page = open_cell(name)
    loaded = "performance.getEntriesByType('resource').map(e => e.name)"
    assert not any("brython" in address for address in page.evaluate(loaded))
    page.locator(f"#try-{name} .try-run").click()
    printed = finished(page, name)
    assert [line.rstrip() for line in printed.rstrip().splitlines()] == [
        line.rstrip() for line in in_python(name).rstrip().splitlines()
    ]


@pytest.mark.slow
def test_a_reader_changes_runs_stops_and_starts_again(open_cell: Callable[[str], Page]) -> None:
    page = open_cell("wilson")
    cell = page.locator("#try-wilson")
    code, run = cell.locator(".try-code"), cell.locator(".try-run")
    original = code.input_value()
    code.fill("total = 6 * 7\nprint('it is', total)")
    code.press("Control+Enter")
    assert finished(page, "wilson").strip() == "it is 42"
    code.fill("print(1)\n1 / 0")
    run.click()
    said = finished(page, "wilson")
    assert said.startswith("1\n")
    assert "Line 2:" in said
    assert "ZeroDivisionError: division by zero" in said
    assert "blob" not in said
    code.fill("print('begun')\nwhile True:\n    pass")
    run.click()
    expect(cell.locator(".try-output")).to_contain_text("begun", timeout=60_000)
    expect(run).to_have_text("Stop")
    run.click()
    assert finished(page, "wilson").strip() == "begun\n(Stopped.)"
    code.fill("while True:\n    print('x' * 100)")
    run.click()
    assert "more than a page can show" in finished(page, "wilson")
    code.fill("def f(:\n")
    run.click()
    assert "SyntaxError" in finished(page, "wilson")
    code.fill("x = 1")
    run.click()
    assert finished(page, "wilson") == "(It printed nothing.)"
    cell.locator(".try-reset").click()
    assert code.input_value() == original
    expect(code).to_be_focused()
    run.focus()
    page.keyboard.press("Enter")
    assert "percent, between" in finished(page, "wilson")


@pytest.mark.slow
def test_without_scripts_a_cell_is_code_to_read(book: Path, new_page: Callable[..., Page]) -> None:
    page = new_page(java_script_enabled=False)
    page.goto(f"{book.as_uri()}/book/how_to_read_results.html")
    expect(page.locator("#try-wilson .try-code")).to_be_visible()
    expect(page.locator("#try-wilson .try-run")).to_be_hidden()
    expect(page.locator("#try-wilson .try-output")).to_be_hidden()
