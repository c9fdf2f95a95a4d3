"""The directive ``{what-changed}``: what came after the article, newest first, from the data alone.

It lists the entries "since" of ``claims.yml`` and the facts that were stated after the article, by
quarter. The next edition adds entries and facts, and no word of the page.
"""

import datetime
from collections import Counter
from collections.abc import Sequence

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx

from fact_role import FACTS_FILE
from ledger import ARTICLE_ENDS, SINCE_KINDS, Claim, ClaimsDirective, Since, entry_line
from slingshot import facts

SEASONS = ("January to March", "April to June", "July to September", "October to December")
Quarter = tuple[int, int]


def quarter_of(date: datetime.date) -> Quarter:
    """The year and the number of the quarter, from 0."""
    return date.year, (date.month - 1) // 3


def stated_since() -> list[facts.Fact]:
    """The facts that were stated after the article, newest first; a date is told as an event."""
    found = [fact for fact in map(facts.get, facts.keys()) if fact.as_of > ARTICLE_ENDS]
    return sorted(found, key=lambda fact: fact.as_of, reverse=True)


class WhatChanged(ClaimsDirective):
    """One section for each quarter in which something came."""

    def run(self) -> list[nodes.Node]:
        """Write the sections as Markdown and let the page's own parser read them."""
        self.env.note_dependency(str(FACTS_FILE))
        node = nodes.section()
        node.document = self.state.document
        lines = StringList(sections(self.claims(), stated_since()), self.arguments[0])
        self.state.nested_parse(lines, 0, node, match_titles=True)
        return node.children


def counts(claims: Sequence[Claim], stated: Sequence[facts.Fact]) -> str:
    """How many entries there are of each kind, and how many facts."""
    kinds = Counter(entry.kind for claim in claims for entry in claim.since)
    each = ", ".join(f"{kinds[kind]} {kind} ({meaning})" for kind, meaning in SINCE_KINDS.items())
    return f"Entries: {each}. Facts stated since: {len(stated)}."


def sections(claims: Sequence[Claim], stated: Sequence[facts.Fact]) -> list[str]:
    """The counts, then for each quarter its events and, folded, its numbers."""
    entries = sorted(
        ((entry, claim) for claim in claims for entry in claim.since),
        key=lambda pair: pair[0].date,
        reverse=True,
    )
    # A heading comes first: what stands before it would be put behind all sections.
    lines = ["## In numbers", "", counts(claims, stated), ""]
    quarters = {quarter_of(entry.date) for entry, _ in entries}
    quarters |= {quarter_of(fact.as_of) for fact in stated}
    for quarter in sorted(quarters, reverse=True):
        lines += [f"## {SEASONS[quarter[1]]} {quarter[0]}", ""]
        lines += [event(*pair) for pair in entries if quarter_of(pair[0].date) == quarter]
        numbers = [number(fact) for fact in stated if quarter_of(fact.as_of) == quarter]
        if numbers:
            summary = f"Facts stated in these months ({len(numbers)})"
            lines += ["", f"<details><summary>{summary}</summary>", "", *numbers, "", "</details>"]
        lines.append("")
    return lines


def event(entry: Since, claim: Claim) -> str:
    """One entry with the claims that it bears on."""
    claims = ", ".join(f"{{ref}}`{id} <ledger-{id}>`" for id in (claim.id, *entry.also))
    return f"- {entry_line(entry)} Bears on {'claims' if entry.also else 'claim'} {claims}."


def number(fact: facts.Fact) -> str:
    """One fact: its value, what it is, and the day for which it was stated."""
    return f"- {{fact}}`{fact.key}`: {fact.label} ({fact.as_of:%Y-%m-%d})"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("what-changed", WhatChanged)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
