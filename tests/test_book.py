"""The book as it is built: complete, self-contained, its links alive and its secrets kept."""

import gzip
import html
import json
import random
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

import fresh_build
from built_book import pages
from test_prose import docstrings

ROOT = Path(__file__).resolve().parent.parent


class Addresses(HTMLParser):
    """Collects ids, links, and everything that a page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = {name: value or "" for name, value in attrs}
        self.ids.add(fields.get("id", ""))
        if tag == "a" and "href" in fields:
            self.links.append(fields["href"])
        elif tag == "link" and "href" in fields and fields.get("rel") not in ("canonical",):
            self.loads.append(fields["href"])
        elif "src" in fields:
            self.loads.append(fields["src"])


@pytest.fixture(scope="module")
def addresses(book: Path) -> dict[str, Addresses]:
    found = sorted(book.rglob("*.html"))
    assert len(found) >= len(pages())
    return {f.relative_to(book).as_posix(): Addresses(f.read_text("utf-8")) for f in found}


def test_every_page_of_the_contents_is_built(book: Path) -> None:
    assert [page for page in pages() if not (book / page).exists()] == []


def test_no_page_loads_anything_from_another_host(addresses: dict[str, Addresses]) -> None:
    foreign = {
        (page, load)
        for page, found in addresses.items()
        for load in found.loads
        if re.match(r"(https?:)?//", load)
    }
    assert foreign == set()


def test_no_page_names_a_script_host(book: Path) -> None:
    hosts = re.compile(r"unpkg|jsdelivr|cdnjs|googleapis|thebe", re.IGNORECASE)
    named = {
        file.relative_to(book).as_posix(): sorted(set(hosts.findall(file.read_text("utf-8"))))
        for file in book.rglob("*.html")
    }
    assert {name: found for name, found in named.items() if found} == {}


def test_every_internal_link_leads_somewhere(book: Path, addresses: dict[str, Addresses]) -> None:
    dead, checked = [], 0
    for page, found in addresses.items():
        for link in found.links:
            target, fragment = urldefrag(unquote(link))
            if re.match(r"[a-z]+:", link):
                continue
            file = (book / page).parent / target if target else book / page
            name = file.resolve().relative_to(book.resolve()).as_posix()
            checked += 1
            if not file.exists():
                dead.append((page, link))
            elif fragment and "=" not in fragment and name in addresses:
                dead += [(page, link)] * (fragment not in addresses[name].ids)
    assert dead == []
    assert checked > 500


MOST_BYTES = 150_000


def heavy(folder: Path) -> dict[str, int]:
    """The pages that have more bytes than a page may have when a server has compressed them."""
    sizes = {
        file.relative_to(folder).as_posix(): len(gzip.compress(file.read_bytes()))
        for file in folder.rglob("*.html")
    }
    return {name: size for name, size in sizes.items() if size > MOST_BYTES}


def test_no_page_is_heavy(book: Path) -> None:
    assert heavy(book) == {}


def test_a_heavy_page_is_found(tmp_path: Path) -> None:
    """A picture that does not compress, and a page that is long and does."""
    (tmp_path / "heavy.html").write_text(random.Random(0).randbytes(MOST_BYTES).hex())
    (tmp_path / "long.html").write_text("<p>again</p>" * MOST_BYTES)
    assert list(heavy(tmp_path)) == ["heavy.html"]


def test_every_student_edition_has_its_page() -> None:
    release = sorted((ROOT / "notebooks" / "assignments" / "release").glob("*.ipynb"))
    assert release
    names = [path.relative_to(ROOT).with_suffix(".html").as_posix() for path in release]
    assert [name for name in names if pages().count(name) != 1] == []


def secrets(assignments: Path) -> set[str]:
    """The lines of solutions and hidden tests that stand in the source edition and nowhere else."""
    public = [path.read_text("utf-8") for path in (ROOT / "book").glob("*.md")]
    public += [text for _, text in docstrings()]
    for folder in (ROOT / "notebooks", assignments / "release"):
        public += [source for path in folder.glob("*.ipynb") for source in sources(path)]
    hidden = [
        line.strip()
        for path in (assignments / "source").glob("*.ipynb")
        for source in sources(path)
        for block in re.findall(r"### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)### END", source, re.S)
        for line in block.splitlines()
    ]
    shown = "\n".join(public)
    return {line for line in hidden if len(line) > 15 and line not in shown}


def sources(path: Path) -> list[str]:
    """The texts of a notebook's cells."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells]


def given_away(folder: Path, lines: set[str]) -> dict[str, list[str]]:
    """The files below a folder that hold one of the lines, however they are marked up."""
    found = {}
    for file in folder.rglob("*"):
        if file.name == "brython_sources.js":  # Python's own library, whose lines look alike
            continue
        if file.suffix == ".ipynb":
            text = "\n".join(sources(file))
        elif file.suffix in (".html", ".js", ".txt", ".md"):
            text = html.unescape(re.sub(r"<[^<>]+>", "", file.read_text("utf-8")))
        else:
            continue
        found[file.relative_to(folder).as_posix()] = [line for line in lines if line in text]
    return {name: seen for name, seen in found.items() if seen}


def test_the_book_shows_the_student_edition_and_gives_nothing_away(book: Path) -> None:
    assignments = ROOT / "notebooks" / "assignments"
    lines = secrets(assignments)
    assert len(lines) > 50
    assert given_away(book, lines) == {}
    shown = [page for page in pages() if "assignments/" in page]
    assert shown
    assert all("assignments/release/" in page for page in shown)
    for page in shown:
        assert "raise NotImplementedError" in re.sub(
            r"<[^<>]+>", "", (book / page).read_text("utf-8")
        )


# --- the note of what a book was built from ----------------------------------------------------


@dataclass
class FakeApp:
    """As much of Sphinx as the note asks for."""

    outdir: Path
    fresh_env_used: bool = True
    _warncount: int = 0
    config: Any = field(default_factory=lambda: SimpleNamespace(nitpicky=True))


def test_a_whole_and_strict_build_leaves_a_note_of_what_is_there(tmp_path: Path) -> None:
    app: Any = FakeApp(tmp_path / "html")
    fresh_build.begin(app, app.config)
    assert not fresh_build.is_fresh(app.outdir)
    fresh_build.finish(app, None)
    assert fresh_build.is_fresh(app.outdir)
    fresh_build.begin(app, app.config)
    assert not fresh_build.is_fresh(app.outdir), "a build that has begun is not a whole one"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"fresh_env_used": False}, None),
        ({"_warncount": 1}, None),
        ({"config": SimpleNamespace(nitpicky=False)}, None),
        ({}, RuntimeError()),
    ],
)
def test_another_build_leaves_none(
    tmp_path: Path, change: dict[str, Any], error: Exception | None
) -> None:
    app: Any = FakeApp(tmp_path / "html", **change)
    fresh_build.begin(app, app.config)
    fresh_build.finish(app, error)
    assert not fresh_build.note_of(app.outdir).exists()


def test_a_build_over_old_pages_leaves_none(tmp_path: Path) -> None:
    """A page that is no longer in the contents would still be there, and links to it alive."""
    app: Any = FakeApp(tmp_path / "html")
    (tmp_path / "html" / "book").mkdir(parents=True)
    (tmp_path / "html" / "book" / "old.html").write_text("")
    fresh_build.begin(app, app.config)
    fresh_build.finish(app, None)
    assert not fresh_build.note_of(app.outdir).exists()


@pytest.mark.parametrize("name", fresh_build.MADE_FROM)
def test_any_change_of_what_it_is_made_from_makes_the_note_worthless(
    tmp_path: Path, name: str
) -> None:
    for each in fresh_build.MADE_FROM:
        place = tmp_path / each
        if (ROOT / each).is_dir():
            place.mkdir()
            place = place / "a"
        place.write_text("a")
    digests = [fresh_build.digest(tmp_path)]
    changed = tmp_path / name / "a" if (tmp_path / name).is_dir() else tmp_path / name
    changed.write_text("b")
    digests.append(fresh_build.digest(tmp_path))
    changed.rename(tmp_path / "elsewhere")
    digests.append(fresh_build.digest(tmp_path))
    assert len(set(digests)) == 3
    assert fresh_build.digest(tmp_path) == digests[2]


@pytest.mark.parametrize(
    "cache", ["__pycache__", ".ipynb_checkpoints", ".ruff_cache", ".mypy_cache", ".pytest_cache"]
)
def test_what_tools_leave_beside_it_changes_nothing(tmp_path: Path, cache: str) -> None:
    """Ruff leaves a cache among the notebooks, between a build and the tests that look at it."""
    for each in fresh_build.MADE_FROM:
        (tmp_path / each).write_text("a") if (ROOT / each).is_file() else (tmp_path / each).mkdir()
    before = fresh_build.digest(tmp_path)
    (tmp_path / "notebooks" / cache).mkdir()
    (tmp_path / "notebooks" / cache / "a").write_text("a")
    assert fresh_build.digest(tmp_path) == before
