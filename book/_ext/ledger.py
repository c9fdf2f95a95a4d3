"""The claims ledger: every claim of the article with its verdict, from ``book/claims.yml``.

``{claims-ledger}`` writes one article per claim and the controls that filter and sort them;
``{claims-summary}`` writes the count of each verdict. Both work without a kernel, and the ledger is
complete without JavaScript: the script only hides and reorders what is there.

A verdict stays on the date of the article. What came after it is folded below as "since then".
"""

import datetime
import html
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from slingshot import facts

KINDS = {
    "computable": "a reader can compute it",
    "checkable": "a public source can settle it",
    "opinion": "opinion or framing",
}
VERDICTS = {
    "confirmed": "the sources or the sums say the same",
    "nuanced": "true with a condition that matters",
    "contradicted": "the sources or the sums say otherwise",
    "not checkable": "nothing public can settle it",
}
SINCE_KINDS = {
    "primary": "read in the document itself",
    "copy": "read in a copy or a quotation of the document",
    "reported": "reported by others; the document was not seen",
}
ARTICLE_ENDS = datetime.date(2025, 1, 31)  # the article is of January 2025
MAX_QUOTE_WORDS = 15


@dataclass(frozen=True)
class Source:
    """Where a finding was read: a key of the bibliography, and the place in it."""

    key: str
    where: str


@dataclass(frozen=True)
class Target:
    """Where a claim is computed: a document below the root, without suffix, and a label in it."""

    doc: str
    label: str


@dataclass(frozen=True)
class Since:
    """What came after the article and bears on a claim, and on the claims named in ``also``.

    ``date`` is a day, or, with ``whole_month``, the first of a month of which no day is known.
    """

    date: datetime.date
    whole_month: bool
    kind: str
    source: Source
    also: tuple[str, ...]
    text: str

    @property
    def when(self) -> str:
        """The day as a sentence prints it, or the month."""
        month = facts.MONTHS[self.date.month - 1]
        day = "" if self.whole_month else f" {self.date.day},"
        return f"{month}{day} {self.date.year}"


@dataclass(frozen=True)
class Claim:
    """One claim of the article. Exactly one of ``computed_in`` and ``not_computable`` is set.

    ``measured`` is Markdown with the number that carries the verdict, or empty.
    """

    id: str
    quote: str
    kind: str
    verdict: str
    finding: str
    sources: tuple[Source, ...]
    computed_in: Target | None
    not_computable: str
    measured: str = ""
    since: tuple[Since, ...] = ()


def load_claims(path: Path) -> list[Claim]:
    """Read the ledger; raise ``ValueError`` naming the claim and the field that is wrong."""
    try:
        entries = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from error
    claims = [_parse_claim(entry) for entry in entries]
    if repeated := [id for id, count in Counter(c.id for c in claims).items() if count > 1]:
        raise ValueError(f"claim {repeated[0]} stands more than once in {path.name}")
    ids = {claim.id for claim in claims}
    for claim in claims:
        for entry in claim.since:
            if wrong := [id for id in entry.also if id not in ids or id == claim.id]:
                raise ValueError(f"claim {claim.id}: since names {wrong[0]!r} in also")
    return claims


def _parse_claim(entry: object) -> Claim:
    if not isinstance(entry, dict):
        raise ValueError(f"a claim must be a mapping, got {entry!r}")
    name = f"claim {entry.get('id', '?')}"
    for field in ("id", "quote", "class", "verdict", "finding", "sources"):
        if not entry.get(field):
            raise ValueError(f"{name} has no {field}")
    if entry["class"] not in KINDS:
        raise ValueError(f"{name}: class {entry['class']!r} is not one of {', '.join(KINDS)}")
    if entry["verdict"] not in VERDICTS:
        known = ", ".join(VERDICTS)
        raise ValueError(f"{name}: verdict {entry['verdict']!r} is not one of {known}")
    if (words := len(entry["quote"].split())) > MAX_QUOTE_WORDS:
        raise ValueError(f"{name}: the quote has {words} words, {MAX_QUOTE_WORDS} are allowed")
    if ("computed_in" in entry) == ("not_computable" in entry):
        raise ValueError(f"{name} needs either computed_in or not_computable, and not both")
    target = entry.get("computed_in")
    for source in entry["sources"]:
        _check_fields(f"{name}: source", source, Source)
    if "computed_in" in entry:
        _check_fields(f"{name}: computed_in", target, Target)
    elif not entry["not_computable"]:
        raise ValueError(f"{name}: not_computable is empty; say why")
    return Claim(
        id=str(entry["id"]),
        quote=entry["quote"],
        kind=entry["class"],
        verdict=entry["verdict"],
        finding=entry["finding"].strip(),
        sources=tuple(Source(**source) for source in entry["sources"]),
        computed_in=Target(**target) if target else None,
        not_computable=entry.get("not_computable", ""),
        measured=(entry.get("measured") or "").strip(),
        since=tuple(_parse_since(f"{name}: since", item) for item in entry.get("since", ())),
    )


def _parse_since(name: str, entry: object) -> Since:
    """Read one entry of what came after; raise ``ValueError`` naming the field that is wrong."""
    if not isinstance(entry, dict) or entry.keys() - {"also"} != {"date", "kind", "source", "text"}:
        raise ValueError(f"{name} is {entry!r}; give date, kind, source, text and perhaps also")
    if entry["kind"] not in SINCE_KINDS:
        known = ", ".join(SINCE_KINDS)
        raise ValueError(f"{name}: kind {entry['kind']!r} is not one of {known}")
    if not (entry["text"] or "").strip():
        raise ValueError(f"{name} has no text")
    _check_fields(f"{name}: source", entry["source"], Source)
    date, whole_month = parse_date(name, entry["date"])
    return Since(
        date=date,
        whole_month=whole_month,
        kind=entry["kind"],
        source=Source(**entry["source"]),
        also=tuple(entry.get("also", ())),
        text=entry["text"].strip(),
    )


def parse_date(name: str, value: object) -> tuple[datetime.date, bool]:
    """Return a day after the article, and whether ``value`` names only its month: "2026-06"."""
    whole_month = isinstance(value, str) and bool(re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", value))
    date = datetime.date.fromisoformat(f"{value}-01") if whole_month else value
    if not isinstance(date, datetime.date) or date <= ARTICLE_ENDS:
        raise ValueError(
            f'{name}: date is {value!r}; give a day or a month ("2026-06") after {ARTICLE_ENDS}'
        )
    return date, whole_month


def _check_fields(name: str, entry: object, kind: type[Source] | type[Target]) -> None:
    """Raise ``ValueError`` unless ``entry`` has just the fields of ``kind``, and all are filled."""
    wanted = [field.name for field in fields(kind)]
    if not isinstance(entry, dict) or set(entry) != set(wanted) or not all(entry.values()):
        raise ValueError(f"{name} is {entry!r}; give {' and '.join(wanted)}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives and the ledger's script with Sphinx."""
    app.add_node(ClaimArticle, html=(open_article, close_article))
    app.add_directive("claims-ledger", ClaimsLedger)
    app.add_directive("claims-summary", ClaimsSummary)
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_script(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Load ledger.js on the page with the ledger, and on no other."""
    if doctree is not None and next(doctree.findall(ClaimArticle), None) is not None:
        app.add_js_file("ledger.js")


class ClaimArticle(nodes.container):
    """One claim; written as an article with the fields that the script filters by."""


def open_article(writer: HTML5Translator, node: ClaimArticle) -> None:
    """Write the opening tag."""
    data = {f"data-{key}": node[key] for key in ("claim", "kind", "verdict", "order")}
    writer.body.append(writer.starttag(node, "article", **data))


def close_article(writer: HTML5Translator, node: ClaimArticle) -> None:
    """Write the closing tag."""
    writer.body.append("</article>\n")


class ClaimsDirective(SphinxDirective):
    """Reads the file named in the argument, relative to the page."""

    required_arguments = 1

    def claims(self) -> list[Claim]:
        """Load the claims; a wrong entry fails the build and is named."""
        _, file = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(file)
        try:
            return load_claims(Path(file))
        except (OSError, ValueError, TypeError) as error:
            raise self.error(f"{self.arguments[0]}: {error}") from error


class ClaimsLedger(ClaimsDirective):
    """All claims, with the controls."""

    def run(self) -> list[nodes.Node]:
        """Return the controls and one article per claim."""
        claims = self.claims()
        ledger = nodes.container(classes=["ledger"])
        ledger += nodes.raw("", controls(claims), format="html")
        for order, claim in enumerate(claims):
            ledger += self.article(claim, order, bears_on(claim.id, claims))
        return [ledger]

    def article(self, claim: Claim, order: int, since: list[tuple[Claim, Since]]) -> nodes.Node:
        """One claim: number and quote, verdict, finding, sources, place, and what came after."""
        article = ClaimArticle(
            claim=claim.id,
            kind=claim.kind,
            verdict=claim.verdict,
            order=str(order),
            classes=["claim", claim.verdict.replace(" ", "-")],
        )
        article.document = self.state.document
        sources = "; ".join(f"{{cite:p}}`{s.key}`, {s.where}" for s in claim.sources)
        if claim.computed_in:
            place = f"{{ref}}`Recompute claim {claim.id} <{claim.computed_in.label}>`"
        else:
            place = f"Not computable: {claim.not_computable}"
        lines = [
            f"(ledger-{claim.id})=",
            "",
            "{.claim-head}",
            f"[{claim.id}]{{.claim-id}} [{claim.quote}]{{.claim-quote}}",
            "",
            "{.claim-tags}",
            f"[{claim.verdict}]{{.verdict}} [{claim.kind}]{{.kind}}",
            "",
            *claim.finding.splitlines(),
            "",
            "{.claim-sources}",
            f"Sources: {sources}.",
            "",
            "{.claim-place}",
            place,
        ]
        self.state.nested_parse(StringList(lines, self.arguments[0]), 0, article)
        if since:
            article += self.later(claim, since)
        return article

    def later(self, claim: Claim, since: list[tuple[Claim, Since]]) -> nodes.Node:
        """What came after the article, folded, so that nobody takes it for the verdict."""
        found = nodes.container(classes=["claim-since"])
        found.document = self.state.document
        lines = [
            f"- {entry_line(entry)}"
            if owner.id == claim.id
            else f"- {{ref}}`{entry.when}, at claim {owner.id} <ledger-{owner.id}>`"
            for owner, entry in since
        ]
        self.state.nested_parse(StringList(lines, self.arguments[0]), 0, found)
        summary = f"Since then, and apart from the verdict ({len(since)})"
        found.insert(0, nodes.raw("", f"<details><summary>{summary}</summary>", format="html"))
        found += nodes.raw("", "</details>", format="html")
        return found


def bears_on(id: str, claims: list[Claim]) -> list[tuple[Claim, Since]]:
    """What came after and bears on a claim, by date, each with the claim that tells it."""
    found = [
        (claim, entry)
        for claim in claims
        for entry in claim.since
        if claim.id == id or id in entry.also
    ]
    return sorted(found, key=lambda pair: (pair[1].date, pair[0].id != id))


def entry_line(entry: Since) -> str:
    """One entry in Markdown: when, what, how it was read, and where."""
    text = " ".join(entry.text.split())
    return (
        f"**{entry.when}.** {text} [{entry.kind}]{{.since-kind}}"
        f" {{cite:p}}`{entry.source.key}`, {entry.source.where}."
    )


def controls(claims: list[Claim]) -> str:
    """Return the form that filters and sorts; the script shows it, since it is dead without."""

    def boxes(field: str, legend: str, counts: Mapping[str, int], names: Mapping[str, str]) -> str:
        rows = "".join(
            f'<label title="{html.escape(meaning)}"><input type="checkbox" name="{field}"'
            f' value="{name}" checked> {name} <span class="count">{counts[name]}</span></label>'
            for name, meaning in names.items()
        )
        return f'<fieldset class="{field}s"><legend>{legend}</legend>{rows}</fieldset>'

    verdicts = Counter(claim.verdict for claim in claims)
    kinds = Counter(claim.kind for claim in claims)
    return f"""<form class="ledger-controls" hidden aria-label="Filter and sort the claims">
{boxes("verdict", "Verdict", verdicts, VERDICTS)}
{boxes("kind", "Kind", kinds, KINDS)}
<div class="ledger-row">
<label>Search <input type="search" name="text" placeholder="for example: chips"></label>
<label>Order <select name="order"><option value="order">as in the article</option>
<option value="verdict">by verdict</option><option value="kind">by kind</option></select></label>
<button type="reset">Show all</button>
</div>
<p role="status">{len(claims)} of {len(claims)} claims shown</p>
</form>
"""


class ClaimsSummary(ClaimsDirective):
    """How many claims have which verdict, as bars that link to the filtered ledger."""

    def run(self) -> list[nodes.Node]:
        """Return a list with one bar per verdict."""
        claims = self.claims()
        counts = Counter(claim.verdict for claim in claims)
        bars = "".join(
            f'<li class="{verdict.replace(" ", "-")}">'
            f'<a href="claims.html#verdict={verdict.replace(" ", "+")}">'
            f"<b>{counts[verdict]}</b> {verdict}</a>"
            f'<span class="bar" style="--share:{counts[verdict] / len(claims):.4f}"></span></li>'
            for verdict in VERDICTS
        )
        label = f"{len(claims)} claims by verdict"
        text = f'<ul class="claims-summary" aria-label="{label}">{bars}</ul>'
        return [nodes.raw("", text, format="html")]
