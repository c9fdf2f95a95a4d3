"""The page of planted faults names tests that exist."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = (TESTS / "PLANTED.md").read_text("utf-8")


def named(page: str) -> list[tuple[str, str]]:
    """The tests that a page names, as file and function."""
    return re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)


def absent(page: str) -> list[str]:
    """The tests that a page names and that are not there."""
    return [f"{file}::{name}" for file, name in named(page) if name not in functions(file)]


def functions(file: str) -> set[str]:
    """The functions of a file of tests; none where there is no such file."""
    path = TESTS / file
    tree = ast.parse(path.read_text("utf-8") if path.is_file() else "")
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_page_names_is_there() -> None:
    rows = PAGE.partition("## Planted once")[0].count("\n| ") - 2
    assert len(named(PAGE)) == rows > 30
    assert absent(PAGE) == []


def test_a_test_that_is_gone_is_found() -> None:
    here = "`test_planted.py::test_a_test_that_is_gone_is_found`"
    gone = "`test_planted.py::test_it` `test_nowhere.py::test_it`"
    assert absent(here + gone) == ["test_planted.py::test_it", "test_nowhere.py::test_it"]
