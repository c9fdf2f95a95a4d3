"""What a copy in the workspace shows: no key of Sphinx is left in it, and no link is dead."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from slingshot import facts
from slingshot.pages import drawings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import copies, start_page  # noqa: E402

COURSE = copies.Course(ROOT)
CHAPTERS = [chapter for chapter in COURSE.pages if copies.home_of(chapter)]
SPHINX = re.compile(r"\{(?!dropdown|admonition|math)[a-z:+-]+\}`|\{quiz\}|^\([\w-]+\)=$", re.M)


def copied(chapter: str) -> NotebookNode:
    notebook: NotebookNode = nbformat.reads(COURSE.copy(chapter).decode(), as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def text_of(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def written(tmp_path: Path, text: str, *, others: dict[str, str] | None = None) -> str:
    """What a notebook with this text becomes, in a course with these other notebooks."""
    (tmp_path / "notebooks").mkdir()
    for name, source in {"one": text, **(others or {})}.items():
        cell = nbformat.v4.new_markdown_cell(source)  # type: ignore[no-untyped-call]
        notebook = nbformat.v4.new_notebook(cells=[cell])  # type: ignore[no-untyped-call]
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")  # type: ignore[no-untyped-call]
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "references.bib").write_text(
        '@misc{paper, author={Ada Low}, year=2024, url="https://example.org/p"}\n'
        "@misc{talk, author={Bo High}, year=2023}\n"
        "@misc{deepseekv3, shorthand={DeepSeek-V3 report}, year=2024}\n"
    )
    course = copies.Course(tmp_path)
    cells = nbformat.reads(course.copy("notebooks/one").decode(), as_version=4).cells  # type: ignore[no-untyped-call]
    return str(cells[0].source)


# --- the whole course ------------------------------------------------------------------------


def test_every_notebook_has_a_copy() -> None:
    here = {*(ROOT / "notebooks").glob("*.ipynb")} | {
        *(ROOT / "notebooks" / "assignments" / "release").glob("*.ipynb")
    }
    assert len(CHAPTERS) == len(here) > 20


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_key_of_sphinx_is_left(chapter: str) -> None:
    assert SPHINX.findall(text_of(copied(chapter))) == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_code_and_outputs_are_those_of_the_chapter(chapter: str) -> None:
    mine = [cell for cell in copied(chapter).cells if cell.cell_type == "code"]
    theirs = [cell for cell in copies.read(ROOT / chapter).cells if cell.cell_type == "code"]
    if chapter.startswith(copies.ASSIGNMENTS):
        assert "Still to be written" in mine.pop().source
    assert [c.source for c in mine] == [c.source for c in theirs]
    assert [c.outputs for c in mine] == [c.outputs for c in theirs]
    assert [c.get("id") for c in mine] == [c.get("id") for c in theirs]
    for cell in mine:
        tags = set(cell.metadata.get("tags", []))
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        assert hidden or not tags & {"hide-input", "remove-input", "remove-cell"}


class Anchors(HTMLParser):
    """The ids of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {value for name, value in attrs if name == "id" and value}


def test_no_link_is_dead(book: Path) -> None:
    """Every link to a copy has its copy, and every link to the book its page and its anchor."""
    homes = {copies.home_of(chapter) for chapter in CHAPTERS}
    texts = {copies.home_of(chapter): text_of(copied(chapter)) for chapter in CHAPTERS}
    texts[start_page.NAME] = start_page.text(ROOT, [], {})
    anchors: dict[str, set[str]] = {}
    local, pages = 0, 0
    for home, text in texts.items():
        for target in re.findall(r"\]\(([^)#:]+\.ipynb)\)", text):
            local += 1
            assert (Path("x") / home).parent.joinpath(target).resolve() in {
                (Path("x") / each).resolve() for each in homes
            }, (home, target)
        for page, anchor in re.findall(r'href="/book/([^"#]+)#?([^"]*)"', text):
            pages += 1
            if page not in anchors:
                parser = Anchors()
                parser.feed((book / page).read_text("utf-8"))
                anchors[page] = parser.found
            assert not anchor or anchor in anchors[page], (home, page, anchor)
    assert local > 50
    assert pages > 100


# --- one thing at a time -----------------------------------------------------------------------


def test_a_fact_is_its_number_with_its_source(tmp_path: Path) -> None:
    text = written(tmp_path, "It cost {fact}`v3.cost.total`.")
    number = facts.get("v3.cost.total").text
    assert text.startswith('It cost <a href="/book/book/facts.html#fact-v3-cost-total"')
    assert f">{number}</a>." in text
    assert "DeepSeek-V3 report, Table 1" in text


def test_glued_numbers_show_as_they_are(tmp_path: Path) -> None:
    writer = copies.Writer(COURSE, "notebooks/one", {"cost": "'$5 to $6'", "share": "0.25"})
    shown = writer.text("{glue:text}`cost` and {glue:text}`share:.0%`")
    assert shown == r"\$5 to \$6 and 25%"  # in Markdown a bare dollar begins a formula
    with pytest.raises(copies.NotShownError, match="no cell glues 'nothing'"):
        written(tmp_path, "{glue:text}`nothing`")


def test_a_citation_leads_to_its_source(tmp_path: Path) -> None:
    text = written(tmp_path, "So they say {cite:p}`paper, talk`.")
    assert "([Low 2024](https://example.org/p); " in text
    assert '<a href="/book/book/bibliography.html" target="_blank">High 2023</a>)' in text


def test_a_reference_leads_to_the_copy_that_has_it(tmp_path: Path) -> None:
    text = "See {ref}`there <far>`, {ref}`near` and [](two.ipynb).\n\n(near)=\n## Close by\n"
    others = {"two": "# The second\n\n(far)=\n## Far\n"}
    shown = written(tmp_path, text, others=others)
    assert shown.startswith(
        "See [there](two.ipynb), [Close by](#near) and [The second](two.ipynb)."
    )
    assert "(near)=" in shown


def test_a_label_that_nobody_needs_is_left_out(tmp_path: Path) -> None:
    assert written(tmp_path, "(claim-1)=\n## A heading") == "## A heading"


QUIZ = """```{quiz}
What is kept?

- [ ] The `weights`.

  They are dropped.
- [x] The scales.

  One for each block.
```"""


def test_a_quiz_is_a_question_with_folded_answers(tmp_path: Path) -> None:
    shown = written(tmp_path, QUIZ)
    assert shown.startswith("**Question.** What is kept?")
    assert "::::{dropdown} The `weights`.\n**No.** They are dropped.\n::::" in shown
    assert "::::{dropdown} The scales.\n**Right.** One for each block.\n::::" in shown


def test_a_hint_keeps_its_links_and_formulas(tmp_path: Path) -> None:
    text = "<details>\n<summary>Hint 1: look</summary>\n\nSee {cite:p}`paper`, $x^2$.\n\n</details>"
    shown = written(tmp_path, text)
    assert shown.startswith("::::{dropdown} Hint 1: look\nSee ([Low 2024]")
    assert shown.endswith("$x^2$.\n::::")


def test_code_is_not_read(tmp_path: Path) -> None:
    text = "`{fact}` and ``{fact}`x` ``\n\n```python\n{ref}`nowhere` [](no.md)\n```"
    assert written(tmp_path, text) == text


def test_what_stands_in_a_box_is_looked_up(tmp_path: Path) -> None:
    text = ":::{admonition} Predict\n:class: predict\nHow much is {fact}`v3.gpus`?\n:::"
    shown = written(tmp_path, text).split("\n")
    assert shown[:2] == text.split("\n")[:2]
    assert ">2,048 chips</a>?" in shown[2] or "facts.html#fact-v3-gpus" in shown[2]


def test_a_drawing_and_a_picture_travel_with_the_cell(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "dot.png").write_bytes(b"png")
    writer = copies.Writer(copies.Course(tmp_path), "notebooks/one", {})
    name = next(iter(drawings.DRAWINGS))
    shown = writer.text(f"```{{drawing}} {name}\n```\n\n![A dot](dot.png)")
    assert f"](attachment:{name}.svg)" in shown
    assert "![A dot](attachment:dot.png)" in shown
    assert set(writer.attachments) == {f"{name}.svg", "dot.png"}


@pytest.mark.parametrize(
    "text", ["{strange}`x`", "```{strange}\n```", "[x](nowhere.md)", "{ref}`no`"]
)
def test_what_a_copy_cannot_show_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(copies.NotShownError, match="notebooks/one"):
        written(tmp_path, text)


# --- Run All ---------------------------------------------------------------------------------


def last_cell(assignment: str, before: str) -> str:
    """What the last cell of an assignment prints after some code."""
    code = f"{before}\n{copied(copies.ASSIGNMENTS + assignment).cells[-1].source}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.splitlines()[0]


def test_the_last_cell_says_what_is_to_be_written() -> None:
    assert "update_bias, balance_loss, route, dispatch" in last_cell(
        "moe", "def gate(): return 1\ndef route(): raise NotImplementedError()"
    )
    done = "gate = update_bias = balance_loss = route = dispatch = print"
    assert last_cell("moe", done) == "Still to be written: nothing"


def test_run_all_passes_by_what_fails() -> None:
    for chapter in CHAPTERS:
        if chapter.startswith(copies.ASSIGNMENTS):
            cells = [cell for cell in copied(chapter).cells if cell.cell_type == "code"]
            assert "raises-exception" not in cells[0].metadata.get("tags", [])  # the imports
            assert all("raises-exception" in cell.metadata.tags for cell in cells[1:-1])


# --- the start page -----------------------------------------------------------------------------


def test_the_start_page_has_the_course_in_its_order() -> None:
    begun, standing = ["moe_gating.ipynb"], {"assignments/moe.ipynb": "2 of 5 pass"}
    text = start_page.text(ROOT, begun, standing)
    places = [text.index(f"]({copies.home_of(chapter)})") for chapter in CHAPTERS]
    assert len(places) == len(CHAPTERS)
    lines = {line.split("](")[-1].split(")")[0]: line for line in text.splitlines()}
    assert lines["moe_gating.ipynb"].endswith("| begun |")
    assert lines["assignments/moe.ipynb"].endswith("| 2 of 5 pass |")
    assert lines["moe_layer.ipynb"].endswith("|  |")
    assert text.index("moe_gating.ipynb") < text.index("moe_balancing.ipynb")
    assert json.loads((ROOT / "notebooks" / "seconds.json").read_text())["seconds"]
    assert all(int(row.split("|")[3]) > 0 for row in text.splitlines() if row.startswith("| note"))
