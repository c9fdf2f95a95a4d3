"""The book as it is built: strict, self-contained, readable, and its interactive parts alive."""

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
import yaml
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from ledger import VERDICTS, load_claims
from test_prose import docstrings

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = load_claims(ROOT / "book" / "claims.yml")

# Faults of the theme and of docutils that a page of ours cannot mend: the search field's and the
# color switch's labels, and the roles that docutils writes into a bibliography.
KNOWN = {"label-content-name-mismatch", "aria-required-children"}


def pages() -> list[str]:
    """Every page of the table of contents, as a path of the built book."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    files = [toc["root"]]
    for part in toc["parts"]:
        for chapter in part["chapters"]:
            files += [
                chapter["file"],
                *(section["file"] for section in chapter.get("sections", [])),
            ]
    return [f"{file}.html" for file in files]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the HTML of a fresh, strict build."""
    target = tmp_path_factory.mktemp("book")
    jupyter_book = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", jupyter_book, "build", str(ROOT)]
    options = ["-W", "--keep-going", "-n", "--path-output", str(target)]
    build = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stdout[-3000:] + build.stderr[-3000:]
    return target / "_build" / "html"


@pytest.fixture
def visit(book: Path) -> Callable[[Page, str], None]:
    """Opens a page of the book from the file system."""

    def go(page: Page, address: str) -> None:
        page.goto(f"{book.as_uri()}/{address}")

    return go


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


def test_a_solution_in_the_book_would_be_found(
    build: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assignments = ROOT / "notebooks" / "assignments"
    files = {"a.ipynb": (assignments / "source" / "claim.ipynb").read_text("utf-8")}
    build("# A page\n\n```{toctree}\na\n```\n", files=files)
    found = given_away(tmp_path / "html", secrets(assignments))
    assert len(found["a.html"]) > 20
    assert len(found["_sources/a.ipynb.txt"]) > 20


@pytest.mark.parametrize("name", pages())
def test_a_page_is_quiet_and_fits_a_phone(
    name: str, new_page: Callable[..., Page], visit: Callable[[Page, str], None]
) -> None:
    page = new_page(viewport={"width": 390, "height": 844})
    visit(page, name)
    page.wait_for_function("!window.MathJax || MathJax.startup.promise.then(() => true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator(".bd-article h1").count() == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", pages())
def test_a_page_has_no_serious_barrier(
    name: str, theme: str, new_page: Callable[..., Page], visit: Callable[[Page, str], None]
) -> None:
    # A color that is still fading in has no contrast to measure.
    page = new_page(color_scheme=theme, reduced_motion="reduce")
    visit(page, name)
    assert page.locator("html").get_attribute("data-theme") == theme
    # The hidden frames of a figure are built like the one that is shown, and take the most time.
    page.evaluate("document.querySelectorAll('.explore-frame[hidden]').forEach(f => f.remove())")
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if theme == "dark":
        options["runOnly"] = ["color-contrast"]  # the themes differ in nothing else
    found = Axe().run(page, options=options)["violations"]
    serious = {
        fault["id"]: [node["html"][:200] for node in fault["nodes"]]
        for fault in found
        if fault["impact"] in ("serious", "critical") and fault["id"] not in KNOWN
    }
    assert serious == {}


def test_mathematics_is_drawn(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "notebooks/moe_gating.html")
    expect(page.locator("mjx-container").first).to_be_visible()


def test_the_fonts_are_ours(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "book/index.html")
    page.evaluate("document.fonts.ready")
    loaded = page.evaluate(
        "[...document.fonts].filter(f => f.status == 'loaded').map(f => f.family)"
    )
    assert {"Slingshot Sans", "Slingshot Serif"} <= {name.strip('"') for name in loaded}


def test_the_search_works_from_a_file(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "search.html?q=router")
    expect(page.locator("#search-results li").first).to_be_visible()


# --- sourced numbers -------------------------------------------------------------------------


def test_a_sourced_number_shows_its_source(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "book/index.html")
    number = page.locator(".fact", has_text="$5.576 million")
    assert "Table 1" in (number.get_attribute("data-source") or "")
    shown = "e => getComputedStyle(e, '::after').content"
    assert number.evaluate(shown) == "none"
    number.locator("a").focus()
    assert "DeepSeek-V3 report" in number.evaluate(shown)
    number.locator("a").click()
    expect(page).to_have_url(re.compile(r"facts\.html#fact-v3-cost-total$"))


# --- the ledger ------------------------------------------------------------------------------


def visible(page: Page) -> list[str]:
    """Ids of the claims that are shown, in the order of the page."""
    script = "all => all.filter(c => c.offsetParent).map(c => c.dataset.claim)"
    shown: list[str] = page.locator("article.claim").evaluate_all(script)
    return shown


def with_verdict(verdict: str) -> list[str]:
    return [claim.id for claim in CLAIMS if claim.verdict == verdict]


def test_the_ledger_shows_every_claim(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "book/claims.html")
    assert visible(page) == [claim.id for claim in CLAIMS]
    first = page.locator("article.claim").first
    for text in (CLAIMS[0].quote, CLAIMS[0].verdict, CLAIMS[0].kind, "Sources:", "claim 1"):
        expect(first).to_contain_text(text)


def test_the_ledger_is_whole_without_javascript(
    new_page: Callable[..., Page], visit: Callable[[Page, str], None]
) -> None:
    page = new_page(java_script_enabled=False)
    visit(page, "book/claims.html")
    assert page.locator("article.claim:visible").count() == len(CLAIMS)
    expect(page.locator(".ledger-controls")).to_be_hidden()


def test_the_ledger_filters(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "book/claims.html")
    status = page.locator(".ledger-controls [role=status]")
    for verdict in VERDICTS:
        if verdict != "contradicted":
            page.get_by_role("checkbox", name=verdict).uncheck()
    assert visible(page) == with_verdict("contradicted")
    count = len(with_verdict("contradicted"))
    expect(status).to_have_text(f"{count} of {len(CLAIMS)} claims shown")
    page.get_by_role("searchbox").fill("route token")
    assert visible(page) == ["26"]
    page.get_by_role("button", name="Show all").click()
    expect(status).to_have_text(f"{len(CLAIMS)} of {len(CLAIMS)} claims shown")
    page.get_by_role("checkbox", name="computable").uncheck()
    assert visible(page) == [claim.id for claim in CLAIMS if claim.kind != "computable"]


def test_the_ledger_sorts(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "book/claims.html")
    page.get_by_role("combobox").select_option("verdict")
    assert visible(page) == [id for verdict in VERDICTS for id in with_verdict(verdict)]
    page.get_by_role("combobox").select_option("order")
    assert visible(page) == [claim.id for claim in CLAIMS]


def test_the_ledger_obeys_the_keyboard(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "book/claims.html")
    box = page.get_by_role("checkbox", name="confirmed")
    box.focus()
    page.keyboard.press("Space")
    assert set(visible(page)) == {claim.id for claim in CLAIMS} - set(with_verdict("confirmed"))


def test_the_title_page_leads_to_one_verdict(
    page: Page, visit: Callable[[Page, str], None]
) -> None:
    visit(page, "book/index.html")
    count = len(with_verdict("contradicted"))
    page.get_by_role("link", name=f"{count} contradicted").click()
    status = page.locator("[role=status]", has_text=f"{count} of {len(CLAIMS)} claims")
    expect(status).to_be_visible()
    assert visible(page) == with_verdict("contradicted")


# --- interactive figures ---------------------------------------------------------------------


def test_the_gating_figure_moves(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "notebooks/moe_gating.html")
    figure = page.locator("figure.explore")
    slider = figure.get_by_role("slider", name="tokens")
    frame = figure.locator(".explore-frame:visible svg")
    before, picture = frame.get_attribute("aria-label"), frame.inner_html()
    slider.focus()
    page.keyboard.press("End")
    assert frame.count() == 1
    assert frame.get_attribute("aria-label") != before
    assert frame.inner_html() != picture
    assert slider.get_attribute("aria-valuetext") == "200"
    expect(figure.locator("figcaption")).to_contain_text("Tokens in the question: 200")


# --- a wrong page fails the build --------------------------------------------------------------

CONF = """
import sys
sys.path.insert(0, {extensions!r})
extensions = ["myst_nb", "sphinxcontrib.bibtex", "citations", "fact_role", "ledger"]
extensions += ["notebook_figures", "quiz"]
html_static_path = [{assets!r}]
html_css_files = ["slingshot.css"]
bibtex_bibfiles = [{bibliography!r}]
bibtex_default_style = "slingshot"
bibtex_reference_style = "label"
myst_enable_extensions = ["attrs_block", "attrs_inline"]
nb_execution_mode = "off"
suppress_warnings = ["bibtex.missing_field"]
"""
FACT = """
v3.tokens:
  value: 148
  unit: token
  label: Tokens
  source: deepseekv3
  where: section 1
  as_of: 2024-12-26
  confidence: verified
"""
CLAIM = {
    "id": "1",
    "quote": "massive investment",
    "class": "checkable",
    "verdict": "nuanced",
    "finding": "It is {fact}`v3.tokens`.",
    "sources": [{"key": "deepseekv3", "where": "abstract"}],
    "computed_in": {"doc": "index", "label": "here"},
}
PAGE = "(here)=\n# A page\n\nIt saw {fact}`v3.tokens`.\n\n```{fact-table}\n```\n"
LEDGER = "\n```{claims-ledger} claims.yml\n```\n"
REFERENCES = "\n```{bibliography}\n```\n"


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Builds one page with our extensions, strictly, with the facts and claims that it is given."""

    def run(
        page: str = PAGE,
        facts: str = FACT,
        claim: dict[str, object] | None = None,
        files: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        for name, text in (files or {}).items():
            (source / name).write_text(text, "utf-8")
        extensions, library = str(ROOT / "book" / "_ext"), ROOT / "book" / "references.bib"
        (source / "references.bib").write_text(library.read_text("utf-8"), "utf-8")
        assets = str(ROOT / "book" / "assets")
        conf = CONF.format(extensions=extensions, bibliography="references.bib", assets=assets)
        (source / "conf.py").write_text(conf, "utf-8")
        (source / "index.md").write_text(page + REFERENCES, "utf-8")
        (source / "claims.yml").write_text(yaml.safe_dump([claim or CLAIM]), "utf-8")
        (tmp_path / "facts.yml").write_text(facts, "utf-8")
        # The module reads its own facts.yml; this run gives it another text.
        program = (
            "import functools, pathlib, sys; from slingshot import facts;"
            f"text = pathlib.Path({str(tmp_path / 'facts.yml')!r}).read_text('utf-8');"
            "facts._load = functools.cache(lambda: facts.parse(text));"
            "from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"
        )
        options = ["-W", "--keep-going", "-n", "-q", str(source), str(tmp_path / "html")]
        return subprocess.run(
            [sys.executable, "-c", program, *options], capture_output=True, text=True, check=False
        )

    return run


def test_a_right_page_builds(
    build: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    result = build(PAGE + LEDGER)
    assert (result.returncode, result.stderr) == (0, "")
    assert "148 tokens" in (tmp_path / "html" / "index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"page": PAGE.replace("{fact}`v3.tokens`", "{fact}`v3.token`")},
            "unknown fact 'v3.token'",
        ),
        (
            {"facts": FACT.replace("deepseekv3", "nobody2024")},
            "source 'nobody2024' is not in the bib",
        ),
        ({"facts": FACT.replace("unit: token", "unit: furlong")}, "'furlong' does not parse"),
        ({"facts": FACT.replace("where: section 1", "where: ''")}, "where is empty"),
        ({"facts": FACT.replace("v3.", "v9.").replace("v3", "v9")}, "'v9'"),
        ({"page": PAGE.replace("\n\n```{fact-table}\n```", "")}, "fact-v3-tokens"),
    ],
)
def test_a_wrong_fact_fails_the_build_and_is_named(
    arguments: dict[str, str],
    message: str,
    build: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    result = build(**arguments)
    assert result.returncode != 0
    assert message in result.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": ""}, "claim 1 has no verdict"),
        ({"verdict": "maybe"}, "verdict 'maybe' is not one of"),
        ({"sources": []}, "claim 1 has no sources"),
        ({"sources": [{"key": "nobody2024", "where": "x"}]}, "nobody2024"),
        ({"computed_in": {"doc": "index", "label": "nowhere"}}, "nowhere"),
        ({"not_computable": "because"}, "either computed_in or not_computable"),
        ({"quote": "word " * 16}, "the quote has 16 words"),
        ({"finding": "It is {fact}`v3.nothing`."}, "unknown fact 'v3.nothing'"),
    ],
)
def test_a_wrong_claim_fails_the_build_and_is_named(
    change: dict[str, object],
    message: str,
    build: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    result = build(PAGE + LEDGER, claim={**CLAIM, **change})
    assert result.returncode != 0
    assert message in result.stderr


def test_a_figure_without_words_fails_the_build(
    build: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><path d="M0 0"/></svg>'
    data = {"image/svg+xml": svg, "text/plain": "<Figure>"}
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    cell: dict[str, Any] = {"cell_type": "code", "id": "a", "source": "figure", "metadata": {}}
    cell |= {"outputs": [output], "execution_count": 1}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    page = "# A page\n\n```{toctree}\nfigure\n```\n"
    result = build(page, files={"figure.ipynb": json.dumps(notebook)})
    assert result.returncode != 0
    assert "a figure has no alt text" in result.stderr
    cell["metadata"] = {"mystnb": {"image": {"alt": "A path."}}}
    result = build(page, files={"figure.ipynb": json.dumps(notebook)})
    assert "a figure has no alt text" not in result.stderr


QUESTION = """# A page

```{quiz}
What **is** it?

- [ ] This, of {fact}`v3.tokens`.

  Too *many*.
- [x] That.

  As said.
- [ ] Nothing.

  It is something.
```

```{fact-table}
```
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[x]", "[ ]", "3 answers of which 0 begin with [x]"),
        ("- [ ] This", "- [x] This", "3 answers of which 2 begin with [x]"),
        ("- [ ] Nothing.\n\n  It is something.\n", "", "2 answers of which 1 begin with [x]"),
        ("[x] That", "That", "the answer 'That.' begins neither with [x] nor with [ ]"),
        ("\n\n  As said.", "", "the answer '[x] That.' has no explanation"),
        ("What **is** it?\n", "", "write the question, then one list of answers"),
        ("It is something.\n", "It is something.\n\nMore.\n", "and nothing after it"),
    ],
)
def test_a_wrong_question_fails_the_build_and_is_named(
    old: str, new: str, message: str, build: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert QUESTION.count(old) == 1 or old == "[x]"
    result = build(QUESTION.replace(old, new))
    assert result.returncode != 0
    assert message in result.stderr


@pytest.mark.parametrize("scripts", [True, False])
def test_a_question_explains_the_chosen_answer_alone(
    scripts: bool,
    build: Callable[..., subprocess.CompletedProcess[str]],
    new_page: Callable[..., Page],
    tmp_path: Path,
) -> None:
    result = build(QUESTION)
    assert (result.returncode, result.stderr) == (0, "")
    page = new_page(java_script_enabled=scripts)
    page.goto((tmp_path / "html" / "index.html").as_uri())

    def seen() -> list[str]:
        texts = page.locator(".quiz-explanation:visible").all_inner_texts()
        return [" ".join(text.split()) for text in texts]

    assert page.locator(".quiz-explanation").count() == 3
    assert seen() == []
    page.locator("input[type=radio]").first.focus()
    page.keyboard.press("Space")
    assert seen() == ["No. Too many."]
    page.keyboard.press("ArrowDown")
    assert seen() == ["Right. As said."]
    if scripts:
        assert "As said." in page.locator("[role=status]").inner_text()
    page.get_by_label("Nothing.").check()
    assert page.get_by_role("radiogroup", name="What is it?").count() == 1
