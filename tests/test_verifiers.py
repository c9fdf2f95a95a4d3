"""The page on verifiers of others: its code runs, and prints what the page says.

What the code needs is no requirement of the course, so the page cannot be executed when the book is
built. These tests do it where reasoning-gym is installed. Elsewhere they check what does not need
it: that the code is Python, and that it uses names which the library has.
"""

import ast
import contextlib
import importlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[1] / "book" / "verifiers.md"
BLOCK = re.compile(r"^```(?P<kind>python|text)\n(?P<body>.*?)^```$", re.M | re.S)


def blocks(markdown: str) -> list[tuple[str, str]]:
    """The code of a page, each piece with the output that is printed below it."""
    found = [(match["kind"], match["body"]) for match in BLOCK.finditer(markdown)]
    kinds, bodies = [kind for kind, _ in found], [body for _, body in found]
    assert kinds == ["python", "text"] * (len(found) // 2), "each code needs its output"
    return list(zip(bodies[::2], bodies[1::2], strict=True))


def outputs(markdown: str) -> list[str]:
    """Run the code of a page, piece after piece in one namespace; return what each prints."""
    namespace: dict[str, Any] = {}
    printed = []
    for code, _ in blocks(markdown):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, PAGE.name, "exec"), namespace)
        printed.append(out.getvalue())
    return printed


def different(markdown: str) -> list[str]:
    """The outputs that are not as the page has them."""
    return [
        f"printed {real!r}, the page has {shown!r}"
        for real, (_, shown) in zip(outputs(markdown), blocks(markdown), strict=True)
        if real != shown
    ]


def test_the_page_prints_what_it_says() -> None:
    pytest.importorskip("reasoning_gym", reason="optional: pip install reasoning-gym==0.1.25")
    assert different(PAGE.read_text("utf-8")) == []


def test_the_page_names_what_the_library_has() -> None:
    pieces = blocks(PAGE.read_text("utf-8"))
    assert len(pieces) >= 6
    for code, shown in pieces:
        assert shown.strip()
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slingshot"):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, name.name) for name in node.names)


@pytest.mark.parametrize("shown", ["4\n", "3", "", "3\n\n"])
def test_an_output_that_is_not_printed_is_found(shown: str) -> None:
    page = "# A page\n\n```python\nx = 1\nprint(x)\n```\n\n```text\n1\n```\n\n"
    more = "```python\nprint(x + 2)\n```\n\nIt is\n\n```text\n{}```\n"
    assert different(page + more.format("3\n")) == []
    if shown.endswith("\n") or not shown:
        assert different(page + more.format(shown)) == [f"printed '3\\n', the page has {shown!r}"]
    else:
        with pytest.raises(AssertionError, match="each code needs its output"):
            different(page + more.format(shown))


def test_code_without_its_output_is_found() -> None:
    with pytest.raises(AssertionError, match="each code needs its output"):
        blocks("```python\n1\n```\n\n```python\n2\n```\n\n```text\n2\n```\n")
