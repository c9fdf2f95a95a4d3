"""A wrong page fails the strict build, and what is wrong is named with its page.

Many faults are built together, each on a page of its own: a build takes seconds, a page none.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Page

from test_book import given_away, secrets

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow

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
REFERENCES = "\n```{bibliography}\n```\n"
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


def figure(words: str) -> str:
    """A notebook with a figure and, if there are any, its words for those who do not see it."""
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><path d="M0 0"/></svg>'
    data = {"image/svg+xml": svg, "text/plain": "<Figure>"}
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    alt: dict[str, Any] = {"mystnb": {"image": {"alt": words}}} if words else {}
    cell = {"cell_type": "code", "id": "b", "source": "figure", "metadata": alt}
    title = {"cell_type": "markdown", "id": "a", "source": "# A figure", "metadata": {}}
    python = {"language_info": {"name": "python", "pygments_lexer": "python"}}
    cells = [title, cell | {"outputs": [output], "execution_count": 1}]
    return json.dumps({"cells": cells, "metadata": python, "nbformat": 4, "nbformat_minor": 5})


@dataclass
class Built:
    """A small book after a strict build: whether it succeeded, what was said, and its pages."""

    succeeded: bool
    said: str
    pages: Path

    def said_of(self, page: str) -> str:
        """The lines about a page that fail a strict build: warnings, and what is worse."""
        level = re.compile(rf"/{page}\.\w+:.*\b(WARNING|ERROR|CRITICAL|SEVERE): ")
        return "\n".join(line for line in self.said.splitlines() if level.search(line))


def build(folder: Path, pages: dict[str, str], facts: str = FACT) -> Built:
    """Build pages with our extensions, strictly, with the facts that are given.

    ``pages`` holds what is to be written by file name; ``index.md`` leads to all others.
    """
    source = folder / "source"
    source.mkdir(parents=True)
    others = [Path(name).stem for name in pages if name.endswith((".md", ".ipynb"))]
    contents = "\n".join(["", "```{toctree}", *(o for o in others if o != "index"), "```", ""])
    first = pages.get("index.md", "# A page\n") + contents + REFERENCES
    for name, text in {**pages, "index.md": first}.items():
        (source / name).write_text(text, "utf-8")
    library = (ROOT / "book" / "references.bib").read_text("utf-8")
    (source / "references.bib").write_text(library, "utf-8")
    assets, extensions = str(ROOT / "book" / "assets"), str(ROOT / "book" / "_ext")
    conf = CONF.format(extensions=extensions, bibliography="references.bib", assets=assets)
    (source / "conf.py").write_text(conf, "utf-8")
    (folder / "facts.yml").write_text(facts, "utf-8")
    # The module reads its own facts.yml; this run gives it another text. And it does without a
    # grammar that takes a second to compile (slingshot_grader/__init__.py says which).
    program = (
        "import functools, pathlib, sys; from slingshot import facts; import slingshot_grader;"
        f"text = pathlib.Path({str(folder / 'facts.yml')!r}).read_text('utf-8');"
        "facts._load = functools.cache(lambda: facts.parse(text));"
        "from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"
    )
    options = ["-W", "--keep-going", "-n", "-q", str(source), str(folder / "html")]
    command = [sys.executable, "-c", program, *options]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return Built(run.returncode == 0, run.stderr, folder / "html")


def ledger(number: int, **change: object) -> dict[str, str]:
    """A page with a ledger of one claim, and the file of the claim."""
    claim = {**CLAIM, "id": str(number), **change}
    page = f"# A ledger\n\n```{{claims-ledger}} claims-{number}.yml\n```\n"
    return {f"ledger-{number}.md": page, f"claims-{number}.yml": yaml.safe_dump([claim])}


# --- what is right ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A book without a fault."""
    pages = {"index.md": PAGE, **ledger(1), "question.md": QUESTION, "figure.ipynb": figure("A.")}
    return build(tmp_path_factory.mktemp("right"), pages)


def test_right_pages_build(right: Built) -> None:
    assert (right.succeeded, right.said) == (True, "")
    assert "148 tokens" in (right.pages / "index.html").read_text("utf-8")


@pytest.mark.parametrize("scripts", [True, False])
def test_a_question_explains_the_chosen_answer_alone(
    scripts: bool, right: Built, new_page: Callable[..., Page]
) -> None:
    page = new_page(java_script_enabled=scripts)
    page.goto((right.pages / "question.html").as_uri())

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


# --- what is wrong ---------------------------------------------------------------------------

# A change of the claim, and what is said of its page.
CLAIMS: list[tuple[dict[str, object], str]] = [
    ({"verdict": ""}, "claim 10 has no verdict"),
    ({"verdict": "maybe"}, "verdict 'maybe' is not one of"),
    ({"sources": []}, "claim 12 has no sources"),
    ({"sources": [{"key": "nobody2025", "where": "x"}]}, "nobody2025"),
    ({"computed_in": {"doc": "index", "label": "nowhere"}}, "nowhere"),
    ({"not_computable": "because"}, "either computed_in or not_computable"),
    ({"quote": "word " * 16}, "the quote has 16 words"),
    ({"finding": "It is {fact}`v3.nothing`."}, "unknown fact 'v3.nothing'"),
]
# A change of the question, and what is said of its page.
QUESTIONS = [
    ("[x]", "[ ]", "3 answers of which 0 begin with [x]"),
    ("- [ ] This", "- [x] This", "3 answers of which 2 begin with [x]"),
    ("- [ ] Nothing.\n\n  It is something.\n", "", "2 answers of which 1 begin with [x]"),
    ("[x] That", "That", "the answer 'That.' begins neither with [x] nor with [ ]"),
    ("\n\n  As said.", "", "the answer '[x] That.' has no explanation"),
    ("What **is** it?\n", "", "write the question, then one list of answers"),
    ("It is something.\n", "It is something.\n\nMore.\n", "and nothing after it"),
]
# A page, and what is said of it.
OTHERS = [
    ("unknown.md", "# A page\n\n{fact}`v3.token`\n", "unknown fact 'v3.token'"),
    ("rowless.md", "# A page\n\n{fact}`v3.tokens`\n", "fact-v3-tokens"),  # no table has its row
    ("wordless.ipynb", figure(""), "a figure has no alt text"),
]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A book in which every page has one fault, but for those that show what is none."""
    pages = {"index.md": "(here)=\n# A page\n", "good.ipynb": figure("A path."), **ledger(9)}
    for number, (change, _) in enumerate(CLAIMS, start=10):
        pages |= ledger(number, **change)
    for number, (old, new, _) in enumerate(QUESTIONS):
        assert QUESTION.count(old) == 1 or old == "[x]"
        pages[f"question-{number}.md"] = QUESTION.partition("```{fact-table}")[0].replace(old, new)
    pages |= {name: text for name, text, _ in OTHERS}
    source = ROOT / "notebooks" / "assignments" / "source" / "claim.ipynb"
    pages["solution.ipynb"] = source.read_text("utf-8")
    other = FACT.replace("v3.tokens", "v3.other").replace("deepseekv3", "nobody2024")
    return build(tmp_path_factory.mktemp("wrong"), pages, FACT + other)


@pytest.mark.parametrize(("number", "message"), [*enumerate([m for _, m in CLAIMS], start=10)])
def test_a_wrong_claim_fails_the_build_and_is_named(
    wrong: Built, number: int, message: str
) -> None:
    assert not wrong.succeeded
    assert message in wrong.said_of(f"ledger-{number}")


@pytest.mark.parametrize(("number", "message"), [*enumerate(m for *_, m in QUESTIONS)])
def test_a_wrong_question_fails_the_build_and_is_named(
    wrong: Built, number: int, message: str
) -> None:
    assert not wrong.succeeded
    assert message in wrong.said_of(f"question-{number}")


@pytest.mark.parametrize(("page", "message"), [(Path(name).stem, m) for name, _, m in OTHERS])
def test_another_wrong_page_fails_the_build_and_is_named(
    wrong: Built, page: str, message: str
) -> None:
    assert not wrong.succeeded
    assert message in wrong.said_of(page)


def test_a_fact_from_nowhere_fails_the_build_and_is_named(wrong: Built) -> None:
    assert "fact 'v3.other': source 'nobody2024' is not in the bibliography" in wrong.said


def test_what_is_right_beside_it_is_not_named(wrong: Built) -> None:
    assert wrong.said_of("good") == ""
    unfit = [line for line in wrong.said_of("ledger-9").splitlines() if "fact-v3" not in line]
    assert unfit == []  # the row is missing in this book, as `rowless` wants it


def test_a_solution_in_the_book_would_be_found(wrong: Built) -> None:
    found = given_away(wrong.pages, secrets(ROOT / "notebooks" / "assignments"))
    assert len(found["solution.html"]) > 20
    assert len(found["_sources/solution.ipynb.txt"]) > 20


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (FACT.replace("unit: token", "unit: furlong"), "'furlong' does not parse"),
        (FACT.replace("v3.", "v9.").replace("v3", "v9"), "'v9'"),
    ],
)
def test_wrong_facts_fail_the_build_and_are_named(tmp_path: Path, facts: str, message: str) -> None:
    built = build(tmp_path, {"index.md": "# A page\n\n```{fact-table}\n```\n"}, facts)
    assert not built.succeeded
    assert message in built.said
