"""The facts and verdicts as files: of the form that their schemas say, and as on the pages."""

import csv
import datetime
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from pybtex.database import Entry, parse_file

import open_data
from ledger import ARTICLE_ENDS, KINDS, SINCE_KINDS, VERDICTS, load_claims
from slingshot import facts

ROOT = Path(__file__).resolve().parent.parent
VERSION = "1.2.3.dev4"
Document = dict[str, Any]


@pytest.fixture(scope="module")
def library() -> dict[str, Entry]:
    return dict(parse_file(str(ROOT / "book" / "references.bib")).entries)


@pytest.fixture(scope="module")
def files(library: dict[str, Entry]) -> dict[str, str]:
    return open_data.files_of(VERSION, load_claims(ROOT / "book" / "claims.yml"), library)


def schema(name: str) -> Document:
    found: Document = json.loads((open_data.SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    return found


def complaints(name: str, document: Document) -> list[str]:
    """What a schema says against a document."""
    validator = jsonschema.Draft202012Validator(schema(name))
    return [f"{'/'.join(map(str, e.path))}: {e.message}" for e in validator.iter_errors(document)]


def rows(text: str) -> list[dict[str, str]]:
    """A table as the csv module reads it; each line must have as many fields as there are names."""
    lines = list(csv.reader(io.StringIO(text)))
    assert {len(line) for line in lines} == {len(lines[0])}
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


@pytest.mark.parametrize("name", ["facts", "claims"])
def test_the_files_are_of_the_form_that_is_said(name: str, files: dict[str, str]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))
    document = json.loads(files[f"{name}.json"])
    assert complaints(name, document) == []
    assert document["version"] == VERSION
    assert document["$schema"] in open_data.NAMES


FAULTS: list[tuple[str, Callable[[Document], object], str]] = [
    ("facts", lambda row: row.pop("source"), "'source' is a required property"),
    ("facts", lambda row: row.update(note="x"), "'note' was unexpected"),
    ("facts", lambda row: row.update(confidence="sure"), "'sure' is not one of"),
    ("facts", lambda row: row.update(unit="token"), "is not of type 'number'"),
    ("facts", lambda row: row.update(as_of="December"), "'December' does not match"),
    ("facts", lambda row: row.update(address="facts.html"), "does not match"),
    ("claims", lambda row: row.update(verdict="maybe"), "'maybe' is not one of"),
    ("claims", lambda row: row.update(sources=[]), "[]"),
    ("claims", lambda row: row["since"][0].update(kind="heard"), "'heard' is not one of"),
    ("claims", lambda row: row["since"][0].update(date="2025"), "'2025' does not match"),
    ("claims", lambda row: row.update(computed_in="claims.md"), "does not match"),
]


@pytest.mark.parametrize(("name", "fault", "words"), FAULTS)
def test_a_file_of_another_form_is_refused(
    name: str, fault: Callable[[Document], object], words: str, files: dict[str, str]
) -> None:
    document = json.loads(files[f"{name}.json"])
    fault(document[name][0])  # the first fact is a day, and the first claim has entries since
    said = complaints(name, document)
    assert len(said) == 1
    assert words in said[0]


def test_the_schemas_name_what_the_course_knows() -> None:
    fact = schema("facts")["properties"]["facts"]["items"]["properties"]
    claim = schema("claims")["properties"]["claims"]["items"]["properties"]
    since = claim["since"]["items"]["properties"]
    assert fact["confidence"]["enum"] == list(get_args(facts.Confidence))
    assert claim["verdict"]["enum"] == list(VERDICTS)
    assert claim["class"]["enum"] == list(KINDS)
    assert since["kind"]["enum"] == list(SINCE_KINDS)
    for name in ("facts", "claims"):
        assert schema(name)["properties"]["format"]["const"] == open_data.FORMAT
        assert schema(name)["$id"].endswith(f":{open_data.FORMAT}")


def test_every_fact_is_there_as_it_is_stored(files: dict[str, str]) -> None:
    """The YAML is read here by itself, without what the course reads it with."""
    stored = yaml.safe_load(Path(facts.__file__).with_name("facts.yml").read_text("utf-8"))
    found = {row["key"]: row for row in json.loads(files["facts.json"])["facts"]}
    assert list(found) == list(stored)
    for key, entry in stored.items():
        for field, value in entry.items():
            expected = value.isoformat() if isinstance(value, datetime.date) else value
            assert found[key][field] == expected, (key, field)


def test_every_claim_is_there_with_what_came_after(files: dict[str, str]) -> None:
    stored = yaml.safe_load((ROOT / "book" / "claims.yml").read_text("utf-8"))
    found = json.loads(files["claims.json"])["claims"]
    assert [row["id"] for row in found] == [entry["id"] for entry in stored]
    for row, entry in zip(found, stored, strict=True):
        for field in ("quote", "class", "verdict"):
            assert row[field] == entry[field]
        dates = [str(each["date"]) for each in entry.get("since", [])]
        assert [each["date"] for each in row["since"]] == dates
        assert [each["source"] for each in row["sources"]] == [s["key"] for s in entry["sources"]]
    assert all(each["date"] > str(ARTICLE_ENDS)[:7] for row in found for each in row["since"])


def test_no_role_and_no_unknown_source_is_left(
    files: dict[str, str], library: dict[str, Entry]
) -> None:
    for name, text in files.items():
        assert re.findall(r"\{[a-z:]+\}`", text) == [], name
    for row in json.loads(files["facts.json"])["facts"]:
        assert row["source"] in library
        assert row["source_title"]


def test_text_with_another_role_is_refused() -> None:
    tokens = facts.get("v3.gpu_hours.total").text
    assert open_data.plain("It took {fact}`v3.gpu_hours.total`.") == f"It took {tokens}."
    with pytest.raises(ValueError, match="no plain text"):
        open_data.plain("as {cite:p}`deepseekv3` says")


def test_the_tables_hold_the_same_rows(files: dict[str, str]) -> None:
    found = json.loads(files["facts.json"])["facts"]
    expected = [{name: str(v) for name, v in row.items()} | {"version": VERSION} for row in found]
    assert rows(files["facts.csv"]) == expected
    claims = json.loads(files["claims.json"])["claims"]
    table = rows(files["claims.csv"])
    for row, claim in zip(table, claims, strict=True):
        same = {name for name, value in claim.items() if row[name] == value}
        assert same == claim.keys() - {"sources", "since"}
        assert row["since"] == str(len(claim["since"]))
        assert row["sources"].count("; ") >= len(claim["sources"]) - 1
        assert row["version"] == VERSION
    since = [(c["id"], e["date"], e["text"]) for c in claims for e in c["since"]]
    assert [(r["claim"], r["date"], r["text"]) for r in rows(files["since.csv"])] == since


def test_the_book_carries_the_files_and_every_address_leads_to_a_place(book: Path) -> None:
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"]
    assert {path.name for path in (book / "data").iterdir()} == set(open_data.NAMES)
    linked = (book / "book" / "colophon.html").read_text("utf-8")
    assert [name for name in open_data.NAMES if f'href="../data/{name}"' not in linked] == []
    places: dict[str, str] = {}
    for name in ("facts", "claims"):
        document = json.loads((book / "data" / f"{name}.json").read_text("utf-8"))
        assert complaints(name, document) == []
        assert document["version"] == version
        for row in document[name]:
            for address in filter(None, (row["address"], row.get("computed_in"))):
                page, _, anchor = address.partition("#")
                text = places.setdefault(page, (book / page).read_text("utf-8"))
                assert f'id="{anchor}"' in text, address


def test_a_finding_reads_as_on_its_page(book: Path) -> None:
    """The numbers in the files are those that the page shows."""
    page = (book / "book" / "claims.html").read_text("utf-8")
    shown = " ".join(re.sub(r"<[^>]+>", "", page).split())
    document = json.loads((book / "data" / "claims.json").read_text("utf-8"))
    numbers = [
        number
        for row in document["claims"]
        for number in re.findall(
            r"\$?\d[\d,.]*(?: (?:million|billion|trillion))?%?", row["finding"]
        )
    ]
    assert len(numbers) > 50
    assert [number for number in numbers if number not in shown] == []
