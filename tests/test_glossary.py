"""The glossary: each term in one sentence, and linked where a chapter first uses it.

The transform decides on docutils' tree. The test of the built book decides on the HTML, by rules
of its own, and must find the same first uses.
"""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from glossary import TERMS_FILE, WITHOUT_LINKS, Term, first_uses, load_terms, pattern, terms_of
from verdict import parts

ROOT = Path(__file__).resolve().parents[1]
TERMS = load_terms()
PARTS = parts(ROOT)
CHAPTERS = [page for page in PARTS if page not in WITHOUT_LINKS]
MAX_WORDS = 30


def markdown(page: str) -> str:
    """The Markdown of a page or of a notebook, given without suffix."""
    if (file := ROOT / f"{page}.md").exists():
        ledger = (ROOT / "book/claims.yml").read_text("utf-8") if page == "book/claims" else ""
        return file.read_text("utf-8") + ledger
    cells = json.loads((ROOT / f"{page}.ipynb").read_text("utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


@pytest.mark.parametrize("term", TERMS, ids=[term.term for term in TERMS])
def test_a_term_is_one_plain_sentence_and_its_chapter_has_it(term: Term) -> None:
    assert re.fullmatch(r"[A-Z][^.]*\.", term.meaning), "one sentence"
    assert len(term.meaning.split()) <= MAX_WORDS
    assert term.introduced in PARTS
    assert pattern(term.forms).search(markdown(term.introduced))
    assert set(term.parts) <= set(PARTS.values())


def test_there_are_some_seventy_terms() -> None:
    assert len(TERMS) >= 70


def entry(**fields: object) -> dict[str, object]:
    return {"term": "token", "meaning": "A word.", "introduced": "book/story", **fields}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry(meaning="")], "'token' has no meaning"),
        ([entry(introduced=None)], "'token' has no introduced"),
        ([entry(from_="x")], "its fields are"),
        (["token"], "a term is 'token'"),
        ([entry(), entry(term="expert")], "'token' is not in alphabetical order"),
        ([entry(), entry(term="word", forms=["token"])], "'token' stands for two terms"),
        (
            [entry(parts=["A"]), entry(term="word", forms=["token"])],
            "'token' stands for two terms in 'A'",
        ),
    ],
)
def test_a_wrong_glossary_is_named(entries: list[Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "terms.yml").write_text(yaml.safe_dump(entries), "utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        load_terms(tmp_path / "terms.yml")


def test_a_word_may_mean_two_things_in_two_parts(tmp_path: Path) -> None:
    entries = [entry(parts=["A"]), entry(term="word", forms=["token"], parts=["B"])]
    (tmp_path / "terms.yml").write_text(yaml.safe_dump(entries), "utf-8")
    terms = load_terms(tmp_path / "terms.yml")
    assert [term.term for term in terms_of("B", terms)] == ["word"]


def found(*texts: str, otherwise: tuple[str, ...] = ()) -> list[tuple[int, str]]:
    """The first uses of three terms in texts."""
    terms = [
        Term("expert", ("expert", "experts"), otherwise, "One.", "", (), "a"),
        Term("mixture of experts", ("mixture of experts", "MoE"), (), "Many.", "", (), "a"),
        Term("pass@1", ("pass@1",), (), "A share.", "", (), "a"),
    ]
    return [(number, match[0]) for number, match, _ in first_uses(texts, terms)]


def test_the_first_use_is_the_first_whole_word_and_the_longest() -> None:
    assert found("A mixture of experts has experts.") == [(0, "mixture of experts"), (0, "experts")]
    assert found("Nothing.", "Experts", "an expert") == [(1, "Experts")]
    assert found("A mixture\nof experts, MoE.") == [(0, "mixture\nof experts")]
    assert found("expertise, expert-level, EXPERT, moe") == []
    assert found("pass@1 and pass@10") == [(0, "pass@1")]
    assert found("Ask an expert witness, an expert.", otherwise=("expert witness",)) == [
        (0, "expert")
    ]


# --- in a page -----------------------------------------------------------------------------------

CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "book" / "_ext")!r})
extensions = ["myst_nb", "quiz", "glossary"]
nb_execution_mode = "off"
import glossary
def use_part(app):
    glossary.page_parts = lambda: {{"page": "A", "book/glossary": "A"}}
def setup(app):
    app.connect("builder-inited", use_part)
"""
PAGE = """# A router

> A router of the article.

The `router` is [a router](https://example.org/). **Another router** routes to a router.

## Experts

```{quiz}
Does an expert think?

- [x] Yes.

  It does.
- [ ] No.

  It does not.
- [ ] Who knows.

  Nobody.
```

```python
expert = 1
```

<details><summary>A hint</summary>

An expert is folded here.

</details>

Experts answer; an expert is small.
"""


def build(folder: Path, page: str) -> subprocess.CompletedProcess[str]:
    """Build a page and the glossary, strictly."""
    (folder / "book").mkdir()
    (folder / "conf.py").write_text(CONF, "utf-8")
    (folder / "page.md").write_text(page, "utf-8")
    terms = re.sub(r"(?m)^(\s*introduced: ).*", r"\1page", TERMS_FILE.read_text("utf-8"))
    (folder / "book" / "glossary.yml").write_text(terms, "utf-8")
    text = (ROOT / "book" / "glossary.md").read_text("utf-8")
    (folder / "book" / "glossary.md").write_text(text, "utf-8")
    (folder / "index.md").write_text("# A\n\n```{toctree}\npage\nbook/glossary\n```\n", "utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", ".", "html"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_first_use_is_linked_and_no_other(tmp_path: Path) -> None:
    result = build(tmp_path, PAGE)
    assert (result.returncode, result.stderr) == (0, "")
    html = (tmp_path / "html" / "page.html").read_text("utf-8")
    links = re.findall(r'<span class="term-use" data-meaning="([^"]+)">(.*?)</span></a>', html)
    words = [re.sub("<[^<>]+>", "", link) for _, link in links]
    assert words == ["router", "Experts"]
    assert "Another <span" in html
    meaning = next(term.meaning for term in TERMS if term.term == "expert")
    assert links[1][0] == meaning
    assert 'href="book/glossary.html#term-expert"' in links[1][1]
    listed = (tmp_path / "html" / "book" / "glossary.html").read_text("utf-8")
    assert listed.count("<dt") == len(TERMS)
    assert "term-use" not in listed


# --- in the book ---------------------------------------------------------------------------------


SKIPPED = {"h1", "h2", "h3", "h4", "h5", "h6", "code", "pre", "blockquote", "script", "style",
           "textarea", "svg", "nav", "form", "details", "figure", "header",
           "mjx-container"}  # fmt: skip
VOID = {"br", "img", "input", "hr", "meta", "link", "source", "col", "wbr"}
SKIPPED_CLASSES = {"cell_output", "quiz", "claim-quote", "claim-tags", "fact", "math",
                   "admonition-title", "headerlink", "highlight", "claims-summary",
                   "pasted-text"}  # fmt: skip


class Sentences(HTMLParser):
    """The text of an article that is prose, and which of it is a link to the glossary."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, bool, bool]] = []  # tag, whether skipped, whether a term
        self.pieces: list[tuple[str, str]] = []  # the text, and the term that it links
        self.linked = ""
        self.in_article = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = {name: value or "" for name, value in attrs}
        classes = set(fields.get("class", "").split())
        self.pieces.append(("\0", ""))  # a word that is marked up in part is no use of it
        if tag == "article" and "bd-article" in classes:
            self.in_article = True
        if tag in VOID:
            return
        term = "term-use" in classes
        if tag == "a" and self.open and self.open[-1][2]:
            self.linked = fields["href"].partition("#")[2]
        elif tag == "a":
            self.open.append((tag, True, False))
            return
        raw = "figure" in classes or "course-table" in classes
        skipped = tag in SKIPPED or bool(classes & SKIPPED_CLASSES) or raw
        self.open.append((tag, skipped, term))

    def handle_endtag(self, tag: str) -> None:
        self.pieces.append(("\0", ""))
        if tag in VOID:
            return
        while self.open:
            name, _, term = self.open.pop()
            if term:
                self.linked = ""
            if name == tag:
                break

    def handle_data(self, data: str) -> None:
        if self.in_article and not any(skipped for _, skipped, _ in self.open):
            self.pieces.append((data, self.linked))


def unlinked(html: str, terms: list[Term]) -> list[str]:
    """The terms of which a page's first use is not the one link to them."""
    pieces = Sentences(html).pieces
    text = "".join(piece for piece, _ in pieces)
    links: list[str] = [link for piece, link in pieces for _ in piece]
    wrong = []
    for _, match, term in first_uses([text], terms):
        if not links[match.start()]:
            wrong.append(
                f"{term.term!r} in {text[max(0, match.start() - 40) : match.end() + 20]!r}"
            )
    targets = re.findall(r'class="term-use".*?href="[^"]*#([^"]+)"', html)
    wrong += [f"{target} is linked {targets.count(target)} times" for target in set(targets)
              if targets.count(target) > 1]  # fmt: skip
    return wrong


@pytest.mark.slow
def test_every_chapter_links_the_first_use_of_each_term(book: Path) -> None:
    pages = {page: (book / f"{page}.html").read_text("utf-8") for page in CHAPTERS}
    counts = {page: html.count('class="term-use"') for page, html in pages.items()}
    assert sum(counts.values()) > 300
    faults = {page: unlinked(html, terms_of(PARTS[page], TERMS)) for page, html in pages.items()}
    assert {page: wrong for page, wrong in faults.items() if wrong} == {}
    linked = set(re.findall(r'term-use".*?#(term-[^"]+)"', "".join(pages.values())))
    assert len(linked) == len(TERMS)


def test_an_unlinked_first_use_would_be_found() -> None:
    terms = [term for term in TERMS if term.term in ("expert", "token")]
    link = '<span class="term-use"><a href="glossary.html#term-expert">expert</a></span>'
    start = '<article class="bd-article"><h1>An expert</h1><p><a href="x">experts</a> '
    assert unlinked(f"{start}An {link}, an expert.</p></article>", terms) == []
    (wrong,) = unlinked(f"{start}An expert, an {link}.</p></article>", terms)
    assert wrong.startswith("'expert' in")
    (twice,) = unlinked(f"{start}An {link}, an {link}.</p></article>", terms)
    assert twice == "term-expert is linked 2 times"
    (missing,) = unlinked(f"{start}An {link} and a token.</p></article>", terms)
    assert missing.startswith("'token' in")
