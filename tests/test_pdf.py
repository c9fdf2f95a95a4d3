"""The printed book: whole, nothing cut off, its mathematics drawn, its text and figures there."""

import io
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader
from pypdf.generic import ArrayObject, DictionaryObject, IndirectObject

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import pdf  # noqa: E402
from tools.printed import (  # noqa: E402
    assemble,
    chromium,
    press,
)

pytestmark = pytest.mark.slow
T = TypeVar("T")


def apart(work: Callable[[], T]) -> T:
    """Work in a thread of its own: Playwright runs once in a thread, and other tests have begun."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result()


@pytest.fixture(scope="module")
def document(book: Path) -> BeautifulSoup:
    """What is printed, as HTML."""
    return BeautifulSoup(assemble.assemble(book), "html.parser")


@pytest.fixture(scope="module")
def printed(book: Path, tmp_path_factory: pytest.TempPathFactory) -> PdfReader:
    """The book as ``make pdf`` prints it."""
    target = tmp_path_factory.mktemp("printed") / "book.pdf"
    assert apart(lambda: pdf.print_pages(book, target)) == []
    return PdfReader(io.BytesIO(target.read_bytes()))


@pytest.fixture(scope="module")
def texts(printed: PdfReader) -> list[str]:
    """The text of each page."""
    return [" ".join(page.extract_text().split()) for page in printed.pages]


def flat(outline: Sequence[object], depth: int = 0) -> Iterator[tuple[int, str, object]]:
    """The bookmarks from first to last: how deep, the words, and the place."""
    for entry in outline:
        if isinstance(entry, list):
            yield from flat(entry, depth + 1)
        else:
            yield depth, " ".join(str(entry.title).split()), entry  # type: ignore[attr-defined]


def chapter_pages(printed: PdfReader) -> dict[str, int]:
    """The page, from 1, of each bookmark of a chapter; the title page's stands before all parts."""
    marks = list(flat(printed.outline))
    first = next(i for i, (_, name, _) in enumerate(marks) if name == "Slingshot")
    found: dict[str, int] = {}
    for depth, name, place in [marks[first], *(mark for mark in marks if mark[0] == 1)]:
        number = printed.get_destination_page_number(place)  # type: ignore[arg-type]
        assert number is not None, (depth, name)
        found.setdefault(name, number + 1)
    return found


def figures(node: object, seen: set[int]) -> Iterator[str]:
    """What the tags of a file say about each of its figures."""
    if isinstance(node, IndirectObject):
        if node.idnum in seen:
            return
        seen.add(node.idnum)
        node = node.get_object()
    if isinstance(node, ArrayObject):
        for each in node:
            yield from figures(each, seen)
    elif isinstance(node, DictionaryObject):
        if node.get("/S") == "/Figure":
            yield " ".join(str(node.get("/Alt", "")).split())
        if "/K" in node:
            yield from figures(node.raw_get("/K"), seen)


def test_every_chapter_has_its_bookmark_and_its_page(
    printed: PdfReader, texts: list[str], book: Path
) -> None:
    chapters = [assemble.read(book, page, "", 0).title for page, _ in assemble.contents()]
    assert len(chapters) == len({*chapters}) > 40
    places = chapter_pages(printed)
    assert [title for title in chapters if title not in places] == []
    numbers = [places[title] for title in chapters]
    assert numbers == sorted(numbers)
    for title in chapters:
        text = texts[places[title] - 1]
        assert title in text
        assert str(places[title]) in text.split(), text[-60:]


def test_the_contents_name_the_pages(printed: PdfReader, texts: list[str], book: Path) -> None:
    listed, places = " ".join(texts[1:5]), chapter_pages(printed)
    titles = [assemble.read(book, page, "", 0).title for page, _ in assemble.contents()]
    assert [title for title in titles if f"{title} {places[title]}" not in listed] == []


def test_all_text_can_be_read_and_no_formula_is_left_as_source(texts: list[str]) -> None:
    blank = [i + 1 for i, text in enumerate(texts) if len(text) < 10]
    assert blank == [1] or blank == []
    assert sum(map(len, texts)) > 500_000
    raw = re.compile(r"\\\(|\\\[(?!\w)|\$\$|\\(?:frac|sum|text|begin|sigma|sqrt|mathrm)\b")
    found = {i + 1: raw.findall(text) for i, text in enumerate(texts) if raw.search(text)}
    assert found == {}


def test_every_figure_is_printed_and_said_in_words(
    printed: PdfReader, document: BeautifulSoup
) -> None:
    shown = [*document.find_all("svg", role="img"), *document.find_all("img")]
    words = [" ".join(str(f.get("aria-label") or f.get("alt", "")).split()) for f in shown]
    assert len(words) > 90
    tags = list(figures(printed.trailer["/Root"]["/StructTreeRoot"].raw_get("/K"), set()))  # type: ignore[index]
    assert Counter(words) - Counter(tags) == Counter()
    assert "" not in tags


def test_paper_shows_what_a_screen_folds(document: BeautifulSoup, book: Path) -> None:
    text = (book / "notebooks" / "moe_gating.html").read_text("utf-8")
    assert text.count('class="explore-frame" hidden') > 1
    assert document.find_all("details") == []
    assert document.find_all("input") == []
    questions = document.find_all(class_="quiz")
    answers = [note for note in document.find_all(class_="endnote") if "answer" in str(note["id"])]
    assert len(answers) == len(questions) > 5
    for note in answers:
        assert note.get_text().count("Right.") == 1


def test_every_link_leads_to_one_place(document: BeautifulSoup) -> None:
    ids = Counter(str(tag["id"]) for tag in document.find_all(id=True))
    assert {name for name, count in ids.items() if count > 1} == set()
    links = [str(tag["href"]) for tag in document.find_all("a", href=True)]
    assert {link for link in links if not link.startswith(("#", "http", "mailto:"))} == set()
    # What an id stood on may be left out on paper: a control, or the code of a folded cell.
    assert [link for link in links if link[0] == "#" and link[1:] not in ids] == []
    assert len(links) > 3000


def test_no_date_and_the_same_length() -> None:
    dated = b"<</CreationDate (D:20261127122141+00'00')\n/ModDate (D:20261127122141+00'00')>>"
    assert b"2026" not in press.without_dates(dated)
    assert len(press.without_dates(dated)) == len(dated)


def test_a_bookmark_that_is_said_twice_is_said_once() -> None:
    twice = b"<</Title (The plotThe plot)\n/Next 3 0 R>> <</Title (One \\(1\\)One \\(1\\))>>"
    once = press.once_named(twice)
    assert len(once) == len(twice)
    assert once.startswith(b"<</Title (The plot)        \n/Next")
    assert b"(One \\(1\\))" in once
    assert press.once_named(once) == once
    other = b"/Title <FEFF201C0061201C0061>"
    assert press.once_named(other) == b"/Title <FEFF201C0061>        "


# --- what is wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<p>good</p>", ""),
        ("<pre style='white-space:pre'>" + "wide " * 60 + "</pre>", "the document"),
        ("<div style='width:900px'>x</div>", "too wide: chapter-1: <div"),
        (r"<span class='math'>\(x\)</span>", "not drawn: <span"),
    ],
)
def test_what_paper_would_cut_off_is_found(tmp_path: Path, body: str, fault: str) -> None:
    file = tmp_path / "a.html"
    page = f"<!doctype html><body style='margin:0'><div class='chapter' id='chapter-1'>{body}</div>"
    file.write_text(page, "utf-8")

    def look() -> list[str]:
        with press.opened(file) as opened:
            return press.faults(opened)

    found = apart(look)
    assert bool(found) == bool(fault)
    assert any(fault in line for line in found) or not fault


def test_a_table_that_is_too_wide_is_set_smaller(tmp_path: Path) -> None:
    file = tmp_path / "a.html"
    style = f"<style>{assemble.STYLE.read_text('utf-8')}</style>"
    cells = "".join(f"<td>word{i}word</td>" for i in range(14))
    file.write_text(
        f"<!doctype html>{style}<body><div class='bd-article'><table><tr>{cells}</table>", "utf-8"
    )

    def look() -> tuple[str, list[str]]:
        with press.opened(file) as opened:
            return str(opened.locator("table").get_attribute("class")), press.faults(opened)

    classes, faults = apart(look)
    assert "narrow" in classes
    assert faults == []


def test_a_page_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"book/index\.html is not in"):
        assemble.assemble(tmp_path)


def test_a_missing_browser_takes_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    assert apart(lambda: pdf.main(["--output", str(tmp_path / "a.pdf")])) == 1
    assert capsys.readouterr().err == f"pdf: {chromium.REMEDY}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_fault_leaves_the_old_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "a.pdf"
    old.write_text("old")
    monkeypatch.setattr(pdf, "is_built", lambda: True)
    monkeypatch.setattr(pdf, "assemble", lambda pages: "<html></html>")
    monkeypatch.setattr(pdf, "print_document", lambda document, target: ["too wide: a table"])
    assert apart(lambda: pdf.main(["--output", str(old)])) == 1
    assert capsys.readouterr().err == "pdf: too wide: a table\n"
    assert old.read_text() == "old"


def test_the_tool_builds_what_is_not_fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[list[str]] = []

    def build(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(pdf, "PAGES", tmp_path / "html")
    monkeypatch.setattr(subprocess, "run", build)
    assert not pdf.is_built()
    assert [Path(command[1]).name for command in ran] == ["book.py"]
