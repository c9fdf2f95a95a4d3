"""The page of verdicts: each claim beside the number that carries it, and the course in one figure.

``{verdict-table} claims.yml`` writes every claim with its verdict and what was measured, and the
controls that filter the rows; without JavaScript it is the whole table. ``{closer-look}``
draws ratios at their largest and at a closer look. No number is typed: each
is a value that a notebook has glued, or a fact.
"""

import functools
import html
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from docutils import nodes
from docutils.statemachine import StringList
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ledger import VERDICTS, Claim, ClaimsDirective
from slingshot import facts
from slingshot.pages.drawings import WIDTH, canvas, label
from slingshot.pages.figures import INK, PALETTE, to_svg

ROOT = Path(__file__).resolve().parents[2]
LOOKED_UP = "Sources alone"
_GLUED = re.compile(r"\{glue:text\}`\.\./(notebooks/\w+)\.ipynb::")
_ROW = re.compile(r"(?P<name>[^|]+)\|(?P<first>[^|]+)\|(?P<closer>[^|]+)")
_SIDE = re.compile(r"(?P<words>[^:]+):\s+(?P<source>\S.*)")
_FACTOR = re.compile(r"([\d,]+(?:\.\d+)?)(?: times|-fold)?")


# --- the table -----------------------------------------------------------------------------------


def parts(root: Path) -> dict[str, str]:
    """The part of the book in which each document stands, by the table of contents."""
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    return {c["file"]: part["caption"] for part in toc["parts"] for c in part["chapters"]}


def notebook_of(claim: Claim) -> str | None:
    """The document that a claim's number comes from: the first that glues one, or computes it."""
    if match := _GLUED.search(claim.measured):
        return match[1]
    return claim.computed_in.doc if claim.computed_in else None


class VerdictTable(ClaimsDirective):
    """All claims in a table, with the controls."""

    def run(self) -> list[nodes.Node]:
        """Return the controls and the table."""
        claims, known = self.claims(), parts(ROOT)
        self.env.note_dependency(str(ROOT / "_toc.yml"))
        where = {claim.id: self.part(claim, known) for claim in claims}
        page = nodes.container(classes=["verdicts"])
        page.document = self.state.document
        page += nodes.raw("", controls(claims, where, known), format="html")
        head = "".join(
            f'<th scope="col">{name}</th>'
            for name in ("Claim", "Verdict", "What carries it", "Where")
        )
        start = f'<table class="table verdict-table"><thead><tr>{head}</tr></thead><tbody>'
        page += nodes.raw("", start, format="html")
        for claim in claims:
            page += self.row(claim, where[claim.id])
        page += nodes.raw("", "</tbody></table>", format="html")
        return [page]

    def part(self, claim: Claim, known: Mapping[str, str]) -> str:
        """The part of the book that a claim's number comes from."""
        document = notebook_of(claim)
        if document is not None and document not in known:
            raise self.error(f"claim {claim.id}: {document!r} is not in the table of contents")
        return known[document] if document else LOOKED_UP

    def row(self, claim: Claim, part: str) -> list[nodes.Node]:
        """One claim: its words, its verdict, its number or why there is none, and the notebook."""
        document = notebook_of(claim)
        verdict = claim.verdict.replace(" ", "-")
        open_row = (
            f'<tr class="{verdict}" data-verdict="{claim.verdict}" data-part="{html.escape(part)}">'
        )
        quote = html.escape(claim.quote)
        return [
            nodes.raw("", open_row + '<th scope="row">', format="html"),
            *self.parse(f"{{ref}}`Claim {claim.id} <ledger-{claim.id}>`"),
            nodes.raw(
                "",
                f'<span class="claim-quote">{quote}</span></th>'
                f'<td><span class="verdict">{claim.verdict}</span></td><td>',
                format="html",
            ),
            *self.parse(claim.measured or f"*{claim.not_computable}*"),
            nodes.raw("", "</td><td>", format="html"),
            *self.parse(f"{{doc}}`/{document}`" if document else LOOKED_UP),
            nodes.raw("", "</td></tr>", format="html"),
        ]

    def parse(self, markdown: str) -> list[nodes.Node]:
        """Read Markdown as this page would."""
        found = nodes.container()
        found.document = self.state.document
        self.state.nested_parse(StringList(markdown.splitlines(), self.arguments[0]), 0, found)
        return list(found.children)


def controls(claims: Sequence[Claim], where: Mapping[str, str], known: Mapping[str, str]) -> str:
    """Return the form that filters the rows; the script shows it, since it is dead without."""

    def boxes(field: str, legend: str, counts: Counter[str], names: Sequence[str]) -> str:
        rows = "".join(
            f'<label><input type="checkbox" name="{field}" value="{html.escape(name)}" checked>'
            f' {html.escape(name)} <span class="count">{counts[name]}</span></label>'
            for name in names
            if counts[name]
        )
        return f"<fieldset><legend>{legend}</legend>{rows}</fieldset>"

    by_verdict = Counter(claim.verdict for claim in claims)
    order = [*dict.fromkeys(known.values()), LOOKED_UP]
    return f"""<form class="ledger-controls verdict-controls" hidden aria-label="Filter the table">
{boxes("verdict", "Verdict", by_verdict, list(VERDICTS))}
{boxes("part", "Part", Counter(where.values()), order)}
<div class="ledger-row"><button type="reset">Show all</button>
<p role="status">{len(claims)} of {len(claims)} claims shown</p></div>
</form>
"""


def add_script(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Load verdict.js on the page with the table, and on no other."""
    if doctree is None:
        return
    if any("verdicts" in found.get("classes", ()) for found in doctree.findall(nodes.container)):
        app.add_js_file("verdict.js")


# --- the figure ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One number of a row: what it is in words, its value, and its text."""

    words: str
    value: float
    text: str


@dataclass(frozen=True)
class Row:
    """A ratio at its largest, and at a closer look: another basis, or the whole step."""

    name: str
    first: Side
    closer: Side


def parse_rows(lines: Sequence[str], root: Path = ROOT) -> list[Row]:
    """Read lines such as ``name | words: notebook::value | words: a.fact / another.fact``.

    Raises ``ValueError`` naming the line, the value or the fact that is wrong.
    """
    rows = []
    for line in filter(None, map(str.strip, lines)):
        match = _ROW.fullmatch(line)
        if not match:
            raise ValueError(f"{line!r} is not of the form 'name | first | closer'")
        sides = [_parse_side(match[side].strip(), root) for side in ("first", "closer")]
        rows.append(Row(match["name"].strip(), *sides))
    if not rows:
        raise ValueError("the figure has no rows; add lines to its body")
    return rows


def _parse_side(text: str, root: Path) -> Side:
    match = _SIDE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not of the form 'words: notebook::value'")
    notebook, glued, name = match["source"].partition("::")
    if glued:
        shown = glued_text(root / "notebooks" / f"{notebook}.ipynb", name)
        number = _FACTOR.fullmatch(shown)
        if not number:
            raise ValueError(f"{match['source']!r} is {shown!r}, which is no factor")
        return Side(match["words"], float(number[1].replace(",", "")), number[1])
    over, divided, under = (part.strip() for part in match["source"].partition("/"))
    if not divided:
        raise ValueError(f"{match['source']!r} is neither notebook::value nor fact / fact")
    ratio = facts.value(over) / facts.value(under)
    return Side(match["words"], ratio, f"{ratio:.2g}")


@functools.cache
def glued_text(notebook: Path, name: str) -> str:
    """The text of the value that a stored notebook has glued under a name."""
    if not notebook.is_file():
        raise ValueError(f"there is no notebook {notebook.stem!r}")
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        for output in cell.get("outputs", ()):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == name:
                (text,) = output["data"].values()
                return "".join(text).strip("'")
    raise ValueError(f"notebook {notebook.stem!r} glues no {name!r}")


LEFT, RIGHT, TOP, STEP = 32.0, WIDTH - 26.0, 44.0, 42.0
TICKS = (1, 3, 10, 30)


def draw(rows: Sequence[Row]) -> Figure:
    """Draw one line for each row on a logarithmic axis, from the largest to a closer look."""
    bottom = TOP + STEP * len(rows)
    figure, axes = canvas(bottom + 26)
    most = max(max(row.first.value, row.closer.value) for row in rows)

    def place(value: float) -> float:
        return LEFT + float(np.log(value) / np.log(most)) * (RIGHT - LEFT)

    for tick in TICKS:
        axes.plot([place(tick)] * 2, [TOP - 8, bottom], color=INK, linewidth=0.6, alpha=0.25)
        label(axes, place(tick), bottom + 12, f"{tick}")
    for x, name, color in ((16.0, "at its largest", "orange"), (122.0, "at a closer look", "blue")):
        axes.plot(x, 14, "o", color=PALETTE[color], markersize=8)
        label(axes, x + 9, 14, name, ha="left")
    label(axes, RIGHT + 20, 14, "times", ha="right")
    for i, row in enumerate(rows):
        _draw_row(axes, row, TOP + STEP * i, place(row.first.value), place(row.closer.value))
    return figure


def _draw_row(axes: Axes, row: Row, y: float, first: float, closer: float) -> None:
    """The name, and below it two dots, each with its number on the outer side."""
    label(axes, 4, y, row.name, ha="left")
    y += 19
    axes.plot([first, closer], [y, y], color=INK, linewidth=1.4, alpha=0.6)
    side = 1 if first >= closer else -1
    for x, part, color, away in (
        (first, row.first, "orange", side),
        (closer, row.closer, "blue", -side),
    ):
        axes.plot(x, y, "o", color=PALETTE[color], markersize=8)
        ha = "left" if away > 0 else "right"
        label(axes, x + away * 7, y, part.text, ha=ha, color=PALETTE[color], weight="bold")


def describe(rows: Sequence[Row]) -> str:
    """Say in words what the figure shows."""
    return (
        f"{len(rows)} ratios on a logarithmic axis, at their largest and at a closer look."
        f" {'; '.join(map(words_of, rows))}."
    )


def words_of(row: Row) -> str:
    """A row in words."""
    first, closer = row.first, row.closer
    return f"{row.name}: {first.text} {first.words}, {closer.text} {closer.words}"


class CloserLook(SphinxDirective):
    """The figure, and the same rows as a folded list."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the figure and the list; a wrong line fails the build and is named."""
        self.env.note_dependency(facts.__file__)
        try:
            rows = parse_rows(list(self.content))
        except ValueError as error:
            raise self.error(f"closer-look: {error}") from error
        svg = to_svg(draw(rows), alt=describe(rows), prefix="closer-look")
        start = f'<div class="figure">{svg}</div><details><summary>The same as a list</summary>'
        items = [nodes.list_item("", nodes.paragraph("", words_of(row))) for row in rows]
        return [
            nodes.raw("", start, format="html"),
            nodes.bullet_list("", *items),
            nodes.raw("", "</details>", format="html"),
        ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives and the table's script with Sphinx."""
    app.add_directive("verdict-table", VerdictTable)
    app.add_directive("closer-look", CloserLook)
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
