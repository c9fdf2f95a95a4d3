"""The facts and the verdicts as files for other programs: ``data/`` beside the pages.

``facts`` and ``claims`` come as JSON, each with its schema, and as CSV; ``since.csv`` holds what
came after the article, which the JSON keeps under its claim. Each file says of which version it is,
and each row where on the pages it stands. The role ``{data-file}`facts.csv``` links a file.
"""

import csv
import datetime
import io
import json
import re
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from pybtex.database import Entry
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from citations import address_of
from fact_role import bibliography, label_of
from ledger import Claim, Since, Source, load_claims
from slingshot import facts
from verdict import glued_text

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "book" / "data"
FORMAT = "1.0"
"""The version of the form: a new first number where a field goes or means something else."""
LICENSE = "CC-BY-4.0"
Row = dict[str, Any]
_ROLE = re.compile(r"\{(?P<role>[a-z:]+)\}`(?P<text>[^`]+)`")
_GLUED = re.compile(r"\.\./notebooks/(?P<notebook>\w+)\.ipynb::(?P<name>\w+):s")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role and the step that writes the files."""
    app.add_role("data-file", DataRole())
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class DataRole(SphinxRole):
    """Link one of the files."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the link, or warn where there is no such file."""
        if self.text not in NAMES:
            known = ", ".join(NAMES)
            logger.warning(
                "no data %r; there are %s", self.text, known, location=self.get_location()
            )
        address = "../" * self.env.docname.count("/") + f"data/{self.text}"
        return [nodes.reference(self.rawtext, self.text, refuri=address, internal=False)], []


# --- rows ----------------------------------------------------------------------------------------


def fact_rows(library: Mapping[str, Entry]) -> list[Row]:
    """Every fact as a row of plain values."""
    return [fact_row(facts.get(key), library) for key in facts.keys()]  # noqa: SIM118 not a dict


def fact_row(fact: facts.Fact, library: Mapping[str, Entry]) -> Row:
    """One fact. A value that is a day is written as one: 2024-12-26."""
    value = fact.value
    return {
        "key": fact.key,
        "value": value.isoformat() if isinstance(value, datetime.date) else value,
        "unit": fact.unit,
        "text": fact.text,
        "label": fact.label,
        **source_row(Source(fact.source, fact.where), library),
        "as_of": fact.as_of.isoformat(),
        "confidence": fact.confidence,
        "leaves_out": fact.leaves_out,
        "address": f"book/facts.html#{label_of(fact.key)}",
    }


def source_row(source: Source, library: Mapping[str, Entry]) -> Row:
    """A source with its title and address; both are empty where the bibliography has none."""
    entry = library.get(source.key)
    address = address_of(entry) if entry else ""
    title = re.sub(r"[{}]", "", entry.fields.get("title", "")) if entry else ""
    return {
        "source": source.key, "source_title": title, "source_url": address, "where": source.where,
    }  # fmt: skip


def claim_rows(claims: Sequence[Claim], library: Mapping[str, Entry]) -> list[Row]:
    """Every claim with its verdict, and what came after the article below it."""
    return [
        {
            "id": claim.id,
            "quote": claim.quote,
            "class": claim.kind,
            "verdict": claim.verdict,
            "finding": plain(claim.finding),
            "measured": plain(claim.measured),
            "sources": [source_row(source, library) for source in claim.sources],
            "computed_in": f"{target.doc}.html#{target.label}" if target else "",
            "not_computable": claim.not_computable,
            "since": [since_row(entry, library) for entry in claim.since],
            "address": f"book/claims.html#ledger-{claim.id}",
        }
        for claim in claims
        for target in [claim.computed_in]
    ]


def since_row(entry: Since, library: Mapping[str, Entry]) -> Row:
    """What came after; a date of which only the month is known is written as one: 2025-07."""
    date = entry.date.isoformat()
    return {
        "date": date[:7] if entry.whole_month else date,
        "kind": entry.kind,
        "text": plain(entry.text),
        **source_row(entry.source, library),
        "also": list(entry.also),
    }


def plain(markdown: str) -> str:
    """Text with its numbers in place of the roles; another role raises ``ValueError``."""

    def shown(match: re.Match[str]) -> str:
        if match["role"] == "fact":
            return facts.get(match["text"]).text
        glued = _GLUED.fullmatch(match["text"]) if match["role"] == "glue:text" else None
        if glued is None:
            raise ValueError(f"{match[0]} has no plain text; use fact or glue:text")
        return glued_text(ROOT / "notebooks" / f"{glued['notebook']}.ipynb", glued["name"])

    return " ".join(_ROLE.sub(shown, markdown).split())


# --- files ---------------------------------------------------------------------------------------


def files_of(version: str, claims: Sequence[Claim], library: Mapping[str, Entry]) -> dict[str, str]:
    """The text of each file by its name."""
    found, judged = fact_rows(library), claim_rows(claims, library)
    flat = [
        {
            **row,
            "sources": "; ".join(f"{each['source']}: {each['where']}" for each in row["sources"]),
            "since": len(row["since"]),
        }
        for row in judged
    ]
    since = [
        {"claim": row["id"], **entry, "also": " ".join(entry["also"]), "address": row["address"]}
        for row in judged
        for entry in row["since"]
    ]
    return {
        "facts.json": as_json("facts", found, version),
        "facts.csv": as_csv(found, version),
        "claims.json": as_json("claims", judged, version),
        "claims.csv": as_csv(flat, version),
        "since.csv": as_csv(since, version),
    }


NAMES = (
    "facts.json", "facts.csv", "facts.schema.json", "claims.json", "claims.csv", "since.csv",
    "claims.schema.json",
)  # fmt: skip


def as_json(name: str, rows: Sequence[Row], version: str) -> str:
    """A document that says what it is, and the rows."""
    head = {
        "$schema": f"{name}.schema.json",
        "format": FORMAT,
        "course": "slingshot-course",
        "version": version,
        "license": LICENSE,
    }
    return json.dumps({**head, name: rows}, indent=1, ensure_ascii=False) + "\n"


def as_csv(rows: Sequence[Row], version: str) -> str:
    """A table with a line of names; its last column is the version of the course."""
    text = io.StringIO()
    table = csv.DictWriter(text, [*rows[0], "version"], lineterminator="\n")
    table.writeheader()
    table.writerows({**row, "version": version} for row in rows)
    return text.getvalue()


def write_files(app: Sphinx, error: Exception | None) -> None:
    """Write the files beside the pages; what is wrong in them is a warning."""
    if error is not None or app.builder.format != "html":
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    try:
        claims = load_claims(ROOT / "book" / "claims.yml")
        files = files_of(project["version"], claims, bibliography(app))
    except (OSError, ValueError) as fault:
        logger.warning("data: %s", fault)
        return
    folder = Path(app.outdir) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8", newline="\n")
    for schema in sorted(SCHEMAS.glob("*.schema.json")):
        shutil.copyfile(schema, folder / schema.name)
