"""The glossary, and a link to it wherever a page first uses one of its words.

``{glossary-terms} glossary.yml`` writes the page. A transform goes through every chapter and links
the first use of each term, so no chapter has a link to keep: not in headings, code, other links,
quotations, quizzes and what is folded, and where two terms begin at one place the longer counts.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from quiz import QuizQuestion
from verdict import parts

ROOT = Path(__file__).resolve().parents[2]
TERMS_FILE = ROOT / "book" / "glossary.yml"
FIELDS = {"term", "forms", "otherwise", "meaning", "symbol", "parts", "introduced"}
# The title page and the pages that one looks things up on have no first use to explain.
WITHOUT_LINKS = {
    "book/index", "book/glossary", "book/what_changed", "book/teaching", "book/facts",
    "book/library", "book/bibliography", "book/colophon",
}  # fmt: skip
NOT_PROSE = (
    nodes.title, nodes.literal, nodes.literal_block, nodes.reference, nodes.raw, nodes.math,
    nodes.math_block, nodes.block_quote, nodes.target, nodes.comment, nodes.problematic,
    nodes.system_message, addnodes.pending_xref, QuizQuestion,
)  # fmt: skip
NOT_PROSE_CLASSES = {"cell_output", "claim-quote", "claim-tags"}


@dataclass(frozen=True)
class Term:
    """A word of the field.

    ``forms`` begins with the term itself, ``otherwise`` has phrases in which the word means
    something else, and no parts means all parts.
    """

    term: str
    forms: tuple[str, ...]
    otherwise: tuple[str, ...]
    meaning: str
    symbol: str
    parts: tuple[str, ...]
    introduced: str


def load_terms(path: Path = TERMS_FILE) -> list[Term]:
    """Read the terms; raise ``ValueError`` naming the term and the field that is wrong."""
    terms = [_parse_term(entry) for entry in yaml.safe_load(path.read_text("utf-8"))]
    names = [term.term for term in terms]
    if names != (ordered := sorted(names, key=str.lower)):
        first = next(a for a, b in zip(names, ordered, strict=True) if a != b)
        raise ValueError(f"{first!r} is not in alphabetical order in {path.name}")
    known = {part for term in terms for part in term.parts} | {""}
    for part in known:
        count = Counter(form for term in terms_of(part, terms) for form in term.forms)
        if twice := [form for form, times in count.items() if times > 1]:
            raise ValueError(f"{twice[0]!r} stands for two terms in {part or 'every part'!r}")
    return terms


def _parse_term(entry: object) -> Term:
    if not isinstance(entry, dict) or entry.keys() - FIELDS:
        raise ValueError(f"a term is {entry!r}; its fields are {', '.join(sorted(FIELDS))}")
    for field in ("term", "meaning", "introduced"):
        if not entry.get(field):
            raise ValueError(f"term {entry.get('term', '?')!r} has no {field}")
    return Term(
        term=entry["term"],
        forms=(entry["term"], *entry.get("forms", ())),
        otherwise=tuple(entry.get("otherwise", ())),
        meaning=entry["meaning"],
        symbol=entry.get("symbol", ""),
        parts=tuple(entry.get("parts", ())),
        introduced=entry["introduced"],
    )


def terms_of(part: str, terms: Sequence[Term]) -> list[Term]:
    """The terms that have their meaning in a part of the book."""
    return [term for term in terms if not term.parts or part in term.parts]


# --- finding first uses --------------------------------------------------------------------------


def pattern(forms: Sequence[str]) -> re.Pattern[str]:
    """Match any of the forms as a whole word, the longest first; a sentence may begin with one."""
    longest = sorted(forms, key=len, reverse=True)
    return re.compile(rf"(?<![\w@/.-])(?:{'|'.join(map(_one, longest))})(?![\w-])")


def _one(form: str) -> str:
    """A form with any space between its words, and with a small or a large first letter."""
    words = r"\s+".join(map(re.escape, form.split()))
    first = form[0]
    return (
        f"[{first}{first.upper()}]{words[1:]}"
        if form == form.lower() and first.isalpha()
        else words
    )


def by_form(terms: Sequence[Term]) -> dict[str, Term | None]:
    """The term that each form stands for; none for a phrase in which it means something else."""
    forms: dict[str, Term | None] = {form: term for term in terms for form in term.forms}
    return forms | {phrase: None for term in terms for phrase in term.otherwise}


def meant(match: str, known: Mapping[str, Term | None]) -> Term | None:
    """The term that a match of `pattern` stands for."""
    form = " ".join(match.split())
    return known[form] if form in known else known[form[0].lower() + form[1:]]


def first_uses(
    texts: Sequence[str], terms: Sequence[Term]
) -> Iterator[tuple[int, re.Match[str], Term]]:
    """The first use of each term in consecutive texts: in which text, where, and of what."""
    known = by_form(terms)
    words = pattern(list(known))
    seen: set[str] = set()
    for number, text in enumerate(texts):
        for match in words.finditer(text):
            term = meant(match[0], known)
            if term and term.term not in seen:
                seen.add(term.term)
                yield number, match, term


# --- in a page -----------------------------------------------------------------------------------


class TermUse(nodes.inline):
    """A link to a term, wrapped so that it can carry the meaning as a tooltip."""


def open_term_use(writer: HTML5Translator, node: TermUse) -> None:
    """Write the wrapper; the stylesheet shows ``data-meaning`` on hover and on keyboard focus."""
    writer.body.append(writer.starttag(node, "span", "", **{"data-meaning": node["meaning"]}))


def close_term_use(writer: HTML5Translator, node: TermUse) -> None:
    """Close the wrapper."""
    writer.body.append("</span>")


def is_prose(node: nodes.Node) -> bool:
    """Whether a node is text that a reader reads as a sentence."""
    if not isinstance(node, nodes.Text):
        return False
    above = node.parent
    while above is not None:
        if isinstance(above, NOT_PROSE) or NOT_PROSE_CLASSES & set(above.get("classes", ())):
            return False
        above = above.parent
    return True


def sentences(document: nodes.document) -> list[nodes.Text]:
    """The prose of a page in its order, without what is folded: a reader meets that later."""
    found, folded = [], 0
    for node in document.findall():
        if isinstance(node, nodes.raw):
            folded += node.astext().count("<details") - node.astext().count("</details")
        elif not folded and is_prose(node):
            found.append(node)
    return found


class LinkTerms(SphinxTransform):
    """Link the first use of each term in a chapter."""

    default_priority = 900  # after quotation marks have been made

    def apply(self, **options: object) -> None:
        """Visit the sentences of one page in their order."""
        page = self.env.docname
        part = page_parts().get(page)
        if part is None or page in WITHOUT_LINKS:
            return
        self.env.note_dependency(str(TERMS_FILE))
        texts = sentences(self.document)
        uses: dict[int, list[tuple[re.Match[str], Term]]] = {}
        found = first_uses([text.astext() for text in texts], terms_of(part, all_terms()))
        for number, match, term in found:
            uses.setdefault(number, []).append((match, term))
        for number, matches in uses.items():
            replace(texts[number], matches, page)


@functools.cache
def page_parts() -> dict[str, str]:
    """The part of each chapter; read once, since every page asks."""
    return parts(ROOT)


@functools.cache
def all_terms() -> tuple[Term, ...]:
    """The terms; read once, since every page asks."""
    return tuple(load_terms())


def replace(text: nodes.Text, matches: Sequence[tuple[re.Match[str], Term]], page: str) -> None:
    """Put links into a text."""
    words, end = text.astext(), 0
    pieces: list[nodes.Node] = []
    for match, term in matches:
        pieces += [nodes.Text(words[end : match.start()]), link(match[0], term, page)]
        end = match.end()
    text.parent.replace(text, [*pieces, nodes.Text(words[end:])])


def link(words: str, term: Term, page: str) -> nodes.Node:
    """The words as a link to the term's entry."""
    reference = addnodes.pending_xref(
        words,
        nodes.inline(words, words),
        refdomain="std",
        reftype="term",
        reftarget=term.term,
        refexplicit=True,
        refwarn=True,
        refdoc=page,
    )
    return TermUse("", "", reference, meaning=plain(term.meaning), classes=["term-use"])


def plain(markdown: str) -> str:
    """A meaning as a tooltip shows it."""
    return re.sub(r"[`*$]", "", markdown)


class GlossaryTerms(SphinxDirective):
    """All terms, each with its meaning, its symbol or unit, and where it is introduced."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write a glossary as Markdown and let the page's own parser read it."""
        _, file = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(file)
        try:
            terms = load_terms(Path(file))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise self.error(f"{self.arguments[0]}: {error}") from error
        lines = ["````{glossary}"]
        for term in terms:
            symbol = f" Symbol or unit: {term.symbol}." if term.symbol else ""
            introduced = f" Introduced in {{doc}}`/{term.introduced}`."
            lines += [term.term, f"  {term.meaning}{symbol}{introduced}", ""]
        lines.append("````")
        found = nodes.container()
        found.document = self.state.document
        self.state.nested_parse(StringList(lines, self.arguments[0]), 0, found)
        return list(found.children)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive, the node and the transform with Sphinx."""
    page_parts.cache_clear()
    all_terms.cache_clear()
    app.add_node(TermUse, html=(open_term_use, close_term_use))
    app.add_directive("glossary-terms", GlossaryTerms)
    app.add_transform(LinkTerms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
