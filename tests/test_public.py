"""What hangs on the course's public address: all of it with the setting, and nothing without."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import nbformat
import pytest
from docutils import nodes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from sphinx.errors import ConfigError

import public
import teaching
from built_book import pages
from notebook_counts_plugin import course_notebooks, read

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import address, copies  # noqa: E402

REPOSITORY = "somebody/slingshot-course"
BASE = "https://somebody.github.io/slingshot-course/"
CHAPTER, EXERCISES = "notebooks/moe_gating", "notebooks/assignments/release/moe"
CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "book" / "_ext")!r})
extensions = ["myst_nb", "public"]
html_theme = "sphinx_book_theme"
html_theme_options = {{"use_download_button": True}}
nb_execution_mode = "off"
"""
PAGE = """# A page

> What the article says, which is long enough to be a description of something.

Too short.

A page about nothing, with words enough & one "quotation".

```{toctree}
notebooks/moe_gating
notebooks/assignments/release/moe
```
"""


class Head(HTMLParser):
    """The tags of a page's head by their names, and all links."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: dict[str, str] = {}
        self.links: list[str] = []
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = {name: value or "" for name, value in attrs}
        if tag == "meta" and "content" in fields:
            name = fields.get("property") or fields.get("name", "")
            assert name not in self.tags or not name.startswith("og:"), f"{name} stands twice"
            self.tags[name] = fields["content"]
        if tag == "a" and "href" in fields:
            self.links.append(fields["href"])

    @property
    def launches(self) -> list[str]:
        """Where the launch buttons lead."""
        return [link for link in self.links if re.search(r"mybinder|colab\.research", link)]


def build(folder: Path, repository: str) -> subprocess.CompletedProcess[str]:
    """Build a page and two notebooks of the course in the theme of the book, strictly."""
    source = folder / "source"
    for name in (CHAPTER, EXERCISES):
        file = source / f"{name}.ipynb"
        file.parent.mkdir(parents=True, exist_ok=True)
        cells = [nbformat.v4.new_markdown_cell(f"# The page {name.split('/')[-1]}")]  # type: ignore[no-untyped-call]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), file)  # type: ignore[no-untyped-call]
    source.mkdir(exist_ok=True)
    (source / "index.md").write_text(PAGE, "utf-8")
    (source / "conf.py").write_text(CONF, "utf-8")
    options = ["-W", "-n", "-q", "-D", f"public_repository={repository}"]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(folder / "html")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of a course that is public."""
    folder = tmp_path_factory.mktemp("on")
    assert (said := build(folder, REPOSITORY)).returncode == 0, said.stderr
    return folder / "html"


# --- in a small book -----------------------------------------------------------------------------

BINDER = f"https://mybinder.org/v2/gh/{REPOSITORY}/main?urlpath=lab/tree"
COLAB = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main"


@pytest.mark.slow
def test_each_notebook_is_launched_by_its_path(on: Path) -> None:
    launches = {name: Head(on / f"{name}.html").launches for name in (CHAPTER, EXERCISES, "index")}
    assert launches == {
        CHAPTER: [f"{BINDER}/{CHAPTER}.ipynb", f"{COLAB}/{CHAPTER}.ipynb"],
        EXERCISES: [f"{BINDER}/{EXERCISES}.ipynb"],  # no cell of it installs the library
        "index": [],
    }
    assert all((ROOT / f"{name}.ipynb").is_file() for name in (CHAPTER, EXERCISES))


@pytest.mark.slow
def test_each_page_says_what_it_is_about_and_has_its_picture(on: Path) -> None:
    for page in ("index", CHAPTER, EXERCISES):
        tags = Head(on / f"{page}.html").tags
        assert tags["og:url"] == f"{BASE}{page}.html"
        assert tags["og:title"]
        assert tags["description"] == tags["og:description"]
        picture = on / tags["og:image"].removeprefix(BASE)
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 100_000
        assert tags["og:image:alt"]
    tags = Head(on / "index.html").tags
    words = 'A page about nothing, with words enough & one "quotation".'
    assert tags["og:description"].translate({0x201C: '"', 0x201D: '"'}) == words
    said = Head(on / f"{CHAPTER}.html").tags["og:description"]
    assert said.startswith("After it you can: Write a router")


@pytest.mark.slow
def test_the_sitemap_lists_every_page_and_no_other(on: Path) -> None:
    tree = ET.parse(on / "sitemap.xml").getroot()
    listed = [each.text for each in tree.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")]
    assert listed == sorted(f"{BASE}{page}.html" for page in ("index", CHAPTER, EXERCISES))
    assert all((on / str(each).removeprefix(BASE)).is_file() for each in listed)


@pytest.mark.slow
def test_two_builds_say_the_same_and_without_the_setting_nothing_is_left(
    on: Path, tmp_path: Path
) -> None:
    def made(html: Path) -> dict[str, bytes]:
        files = [*html.glob("_static/cards/*"), *html.glob("sitemap.xml"), *html.rglob("moe*.html")]
        return {file.relative_to(html).as_posix(): file.read_bytes() for file in files}

    assert build(tmp_path, REPOSITORY).returncode == 0
    assert len(made(on)) == 6
    assert made(tmp_path / "html") == made(on)
    assert build(tmp_path, "").returncode == 0
    for page in ("index", CHAPTER, EXERCISES):
        head = Head(tmp_path / "html" / f"{page}.html")
        assert head.launches == []
        assert [name for name in head.tags if name.startswith(("og:", "twitter:"))] == []
    assert [name for name in made(tmp_path / "html") if not name.endswith(".html")] == []


@pytest.mark.slow
def test_a_setting_that_is_no_repository_stops_the_build(tmp_path: Path) -> None:
    run = build(tmp_path, "https://github.com/somebody/course")
    assert run.returncode != 0
    assert 'give "owner/name", or nothing' in run.stderr


# --- in the book as it is set ------------------------------------------------------------------


def test_the_book_has_what_its_setting_says(book: Path) -> None:
    repository = address.setting()
    for page in pages():
        head = Head(book / page)
        source = page.removesuffix(".html") + ".ipynb"
        wanted = []
        if repository and (ROOT / source).is_file():
            wanted = [f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/{source}"]
            if not source.startswith(copies.ASSIGNMENTS):
                colab = "https://colab.research.google.com/github"
                wanted.append(f"{colab}/{repository}/blob/main/{source}")
        assert head.launches == wanted, page
        assert ("og:image" in head.tags) == bool(repository), page
    assert (book / "sitemap.xml").exists() == bool(repository)
    assert (book / "_static" / "cards").exists() == bool(repository)


# --- the parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repository", "base"),
    [
        ("Some-body/course", "https://some-body.github.io/course/"),
        ("somebody/somebody.github.io", "https://somebody.github.io/"),
    ],
)
def test_where_github_publishes(repository: str, base: str) -> None:
    assert public.base_url(repository) == base


@pytest.mark.parametrize("wrong", ["course", "a/b/c", "-a/b", "a/b c", 'a/"', "a/", True])
def test_what_is_no_repository(wrong: object) -> None:
    app: Any = None
    config: Any = {public.SETTING: wrong}
    with pytest.raises(ConfigError, match="give"):
        public.turn_on(app, config)


def test_a_description_is_of_the_page_and_short() -> None:
    page = nodes.document("", "")
    said = "what the article says of a thing, at some length"
    page += nodes.block_quote("", nodes.paragraph(text=said))
    assert public.description("a", page, {}) == public.OTHER
    page += nodes.paragraph(text="word " * 100)
    assert public.description("a", page, {}).endswith("word …")
    assert len(public.description("a", page, {})) <= 200
    assert public.description("a", page, {"a": ["Write.", "Read."]}) == (
        "After it you can: Write. Read."
    )


def test_every_chapter_is_described_by_its_goals() -> None:
    known = public.goals()
    chapters = [page for part in teaching.parts(ROOT).values() for page in part]
    assert [page for page in chapters if page not in known] == []


COURSE = copies.Course(ROOT)
TITLES = [(re.sub(r"\{\w+\}|`", "", COURSE.title(page)), page) for page in COURSE.pages]


def outside(title: str, page: str) -> list[str]:
    """The texts of a card that leave it or cover each other."""
    figure = public.draw_card(title, "Use less of the model", page)
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw(renderer)
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    edge = figure.bbox.padded(-40)
    left = [
        words for words, b in boxes if not (edge.contains(b.x0, b.y0) and edge.contains(b.x1, b.y1))
    ]
    return left + [a for (a, one), (_, other) in combinations(boxes, 2) if one.overlaps(other)]


@pytest.mark.parametrize(("title", "page"), TITLES, ids=[page for _, page in TITLES])
def test_a_title_fits_its_card(title: str, page: str) -> None:
    assert outside(title, page) == []


def test_a_title_that_does_not_fit_is_noticed() -> None:
    assert outside("W" * 27, "a")
    assert outside("word " * 60, "a")


# --- the address in the notebooks ----------------------------------------------------------------


def copy_of_the_course(folder: Path) -> Path:
    (folder / "notebooks").mkdir()
    for path in [ROOT / "_config.yml", *course_notebooks()]:
        (folder / path.relative_to(ROOT)).write_text(path.read_text("utf-8"), "utf-8")
    return folder


def installs(root: Path) -> set[str]:
    """What the first code cell of each chapter asks pip for."""
    found = set()
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        first = next(cell.source for cell in read(path).cells if cell.cell_type == "code")
        found |= set(re.findall(r'%pip install --quiet "([^"]+)"', first)) or {path.name}
    return found


def test_the_first_cells_and_the_setting_say_the_same() -> None:
    assert installs(ROOT) == {address.requirement(address.setting())}


def test_the_address_is_written_everywhere_and_can_be_taken_back(tmp_path: Path) -> None:
    root = copy_of_the_course(tmp_path)
    n_files = 1 + len(course_notebooks())
    address.write("", root)
    before = {path: path.read_bytes() for path in root.rglob("*.*")}
    assert len(address.write(REPOSITORY, root)) == n_files
    assert address.setting(root) == REPOSITORY
    assert installs(root) == {f"slingshot-course[notebooks] @ git+https://github.com/{REPOSITORY}"}
    assert address.write(REPOSITORY, root) == []
    assert len(address.write("", root)) == n_files
    assert {path: path.read_bytes() for path in root.rglob("*.*")} == before


def test_a_chapter_without_the_cell_is_named(tmp_path: Path) -> None:
    root = copy_of_the_course(tmp_path)
    empty = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (root / "notebooks" / "other.ipynb").write_text(json.dumps(empty), "utf-8")
    with pytest.raises(ValueError, match=r"other\.ipynb installs the library in 0 places"):
        address.write(REPOSITORY, root)


def test_a_wrong_address_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    before = (ROOT / "_config.yml").read_bytes()
    assert address.main(["github.com/somebody/course"]) == 1
    assert "is not of the form owner/name" in capsys.readouterr().err
    assert (ROOT / "_config.yml").read_bytes() == before
