"""The claims ledger: every claim has a verdict, sources, and a place that computes it.

``problems`` says what is wrong with a ledger, in words that name the claim. One test asks it about
the real ledger; the others plant one fault each into a copy and expect to see it named.
"""

import copy
import datetime
import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import pytest
import yaml
from pybtex.database import parse_file, parse_string

from citations import label_of
from ledger import ARTICLE_ENDS, bears_on, entry_line, load_claims
from slingshot import facts

ROOT = Path(__file__).resolve().parents[1]
IDS = [str(n) for n in range(1, 37)] + ["36b"] + [str(n) for n in range(37, 51)]
CLASSES = {"computable", "checkable", "opinion"}
VERDICTS = {"confirmed", "nuanced", "contradicted", "not checkable"}
FIELDS = {"id", "quote", "class", "verdict", "finding", "sources"}
OPTIONAL = {"computed_in", "not_computable", "measured", "since"}
# What an entry of a kind may rest on: a number that is only reported makes it a report.
MAY_USE = {
    "primary": {"verified"},
    "copy": {"verified", "secondary"},
    "reported": {"verified", "secondary", "reported"},
}
MAX_QUOTE_WORDS = 15
MIN_REASON = 40

GLUE_ROLE = re.compile(r"\{glue:text\}`\.\./notebooks/(\w+)\.ipynb::(\w+)[^`]*`")
FACT_ROLE = re.compile(r"\{fact\}`([^`]*)`")
# A number with a currency before it, or with a unit or a scale after it: 5.6 million, $5, 39%.
TYPED_NUMBER = re.compile(
    r"(?:[$€¥]|\b(?:RMB|USD|CNY|US\$))\s*\d"
    r"|\d[\d.,]*\s*(?:%|percent\b|million\b|billion\b|trillion\b|thousand\b|[GTM]B\b"
    r"|T?FLOPs?\b|TFLOPS\b|TOPS\b|TPP\b|GPUs?\b|GPU hours?\b|hours?\b|tokens?\b|parameters?\b"
    r"|dollars?\b|yuan\b|times\b|points?\b|rows?\b|days?\b|experts?\b|layers?\b|bytes?\b)",
    re.IGNORECASE,
)

Ledger = list[dict[str, Any]]


def problems(claims: Ledger, bib_keys: Set[str], fact_keys: Set[str], root: Path) -> list[str]:
    """Name every fault of a ledger: one sentence each, none for a ledger without fault."""
    found = [
        f"claim {claim.get('id')}: {fault}"
        for claim in claims
        for fault in claim_problems(claim, bib_keys, fact_keys, root)
    ]
    if (ids := [claim.get("id") for claim in claims]) != IDS:
        missing, extra = set(IDS) - set(ids), set(ids) - set(IDS)
        found.append(f"ids are not in order: missing {missing}, unexpected {extra}")
    return found


def claim_problems(
    claim: dict[str, Any], bib_keys: Set[str], fact_keys: Set[str], root: Path
) -> list[str]:
    """Name the faults of one claim."""
    if missing := [field for field in sorted(FIELDS) if not claim.get(field)]:
        return [f"no {field}" for field in missing]
    found = []
    if unknown := claim.keys() - FIELDS - OPTIONAL:
        found.append(f"unknown fields {unknown}")
    if claim["class"] not in CLASSES:
        found.append(f"class {claim['class']!r}")
    if claim["verdict"] not in VERDICTS:
        found.append(f"verdict {claim['verdict']!r}")
    if (words := len(claim["quote"].split())) > MAX_QUOTE_WORDS:
        found.append(f"quote of {words} words")
    for source in claim["sources"]:
        if source.get("key") not in bib_keys:
            found.append(f"source {source.get('key')!r} is not in the bibliography")
        if not source.get("where"):
            found.append(f"source {source.get('key')!r} has no place")
    for key in FACT_ROLE.findall(claim["finding"]):
        if key not in fact_keys:
            found.append(f"fact {key!r} does not exist")
    if typed := TYPED_NUMBER.search(FACT_ROLE.sub("", claim["finding"])):
        found.append(f"typed number {typed.group()!r}")
    found += measured_problems(claim, fact_keys, root)
    for entry in claim.get("since", ()):
        found += [f"since {entry.get('date')}: {p}" for p in since_problems(entry, bib_keys)]
    return found + place_problems(claim, root)


def since_problems(entry: dict[str, Any], bib_keys: Set[str]) -> list[str]:
    """Name the faults of what came after that the loader does not refuse."""
    found = []
    if (key := entry["source"]["key"]) not in bib_keys:
        found.append(f"source {key!r} is not in the bibliography")
    if typed := TYPED_NUMBER.search(FACT_ROLE.sub("", entry["text"])):
        found.append(f"typed number {typed.group()!r}")
    for name in FACT_ROLE.findall(entry["text"]):
        if name not in facts.keys():  # noqa: SIM118 a function of the module, not of a dict
            found.append(f"fact {name!r} does not exist")
        elif (sure := facts.get(name).confidence) not in MAY_USE[entry["kind"]]:
            found.append(f"it is {entry['kind']}, and {name!r} is only {sure}")
        elif (day := facts.get(name).as_of) <= ARTICLE_ENDS:
            found.append(f"fact {name!r} is of {day}, before the article")
    return found


def measured_problems(claim: dict[str, Any], fact_keys: Set[str], root: Path) -> list[str]:
    """Name the faults of the number that carries a verdict."""
    text = claim.get("measured", "")
    if not text:
        return ["computable, and nothing measured"] if claim["class"] == "computable" else []
    found = [
        f"fact {key!r} does not exist" for key in FACT_ROLE.findall(text) if key not in fact_keys
    ]
    values = GLUE_ROLE.findall(text)
    for doc, name in values:
        if name not in glued(root / "notebooks" / f"{doc}.ipynb"):
            found.append(f"{doc!r} glues no {name!r}")
    if not values and not FACT_ROLE.search(text):
        found.append("nothing in what was measured is computed or looked up")
    if typed := TYPED_NUMBER.search(GLUE_ROLE.sub("", FACT_ROLE.sub("", text))):
        found.append(f"typed number {typed.group()!r}")
    return found


@functools.cache
def glued(notebook: Path) -> frozenset[str]:
    """The names of the values that a notebook hands to the pages."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"] if notebook.exists() else []
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    names = [output.get("metadata", {}).get("scrapbook", {}).get("name") for output in outputs]
    return frozenset(name for name in names if name)


def place_problems(claim: dict[str, Any], root: Path) -> list[str]:
    """Name what is wrong with the place that computes a claim, or with the reason for none."""
    if ("computed_in" in claim) == ("not_computable" in claim):
        return ["needs exactly one of computed_in and not_computable"]
    if "not_computable" in claim:
        reason = (claim["not_computable"] or "").strip()
        if not reason or (claim["class"] == "computable" and len(reason) <= MIN_REASON):
            return [f"the reason for not computing it is too short: {reason!r}"]
        return []
    doc, label = claim["computed_in"]["doc"], claim["computed_in"]["label"]
    text = document_text(root / doc)
    if text is None:
        return [f"document {doc!r} does not exist"]
    return [] if f"({label})=" in text.splitlines() else [f"label {label!r} is not in {doc!r}"]


def document_text(path: Path) -> str | None:
    """The Markdown of a page or of a notebook given without suffix, or None."""
    if (page := path.with_name(path.name + ".md")).exists():
        return page.read_text("utf-8")
    if (notebook := path.with_name(path.name + ".ipynb")).exists():
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return None


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    claims: Ledger = yaml.safe_load((ROOT / "book/claims.yml").read_text("utf-8"))
    return claims


@pytest.fixture(scope="module")
def bib_keys() -> set[str]:
    return set(parse_file(str(ROOT / "book/references.bib")).entries)


def source_of(key: str) -> str:
    return facts.get(key).source


def test_ledger_has_no_problems(ledger: Ledger, bib_keys: set[str]) -> None:
    assert problems(ledger, bib_keys, set(facts.keys()), ROOT) == []


def test_every_fact_names_a_source_of_the_bibliography(bib_keys: set[str]) -> None:
    assert set(map(source_of, facts.keys())) <= bib_keys


def test_reported_numbers_are_called_so(ledger: Ledger) -> None:
    for claim in ledger:
        for key in FACT_ROLE.findall(claim["finding"]):
            if facts.get(key).confidence == "reported":
                assert "reported" in claim["finding"], f"claim {claim['id']} uses {key} as if read"


def drop(field: str) -> Callable[[dict[str, Any]], None]:
    return lambda claim: claim.pop(field)


def put(**fields: object) -> Callable[[dict[str, Any]], None]:
    return lambda claim: claim.update(fields)


FAULTS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (drop("verdict"), "no verdict"),
    (drop("sources"), "no sources"),
    (put(sources=[]), "no sources"),
    (put(verdict="true"), "verdict 'true'"),
    (put(**{"class": "src"}), "class 'src'"),
    (put(sources=[{"key": "nobody2020", "where": "page 1"}]), "'nobody2020' is not in the bib"),
    (put(sources=[{"key": "article", "where": ""}]), "'article' has no place"),
    (put(quote=" ".join(["word"] * 16)), "quote of 16 words"),
    (put(finding="It cost {fact}`v3.cost.totl`."), "fact 'v3.cost.totl' does not exist"),
    (put(finding="It cost $5.576 million."), "typed number '$5'"),
    (put(finding="It took 2048 GPUs."), "typed number '2048 GPUs'"),
    (put(finding="Prices fell by 97.5%."), "typed number '97.5%'"),
    (put(finding="It has RMB 10 more."), "typed number 'RMB 1'"),
    (put(computed_in={"doc": "book/nowhere", "label": "claim-1"}), "'book/nowhere' does not exist"),
    (put(computed_in={"doc": "book/claims", "label": "claim-x"}), "'claim-x' is not in"),
    (put(not_computable="Both stand here, which cannot be."), "exactly one of"),
    (drop("computed_in"), "exactly one of"),
    (put(source="misspelled"), "unknown fields"),
    (put(measured="a great deal"), "nothing in what was measured"),
    (put(measured="{fact}`v3.cost.totl`"), "fact 'v3.cost.totl' does not exist"),
    (put(measured="{fact}`v3.gpus`, or 2048 GPUs"), "typed number '2048 GPUs'"),
    (
        put(measured="{glue:text}`../notebooks/training_cost.ipynb::bill:s`"),
        "'training_cost' glues no 'bill'",
    ),
    (
        put(measured="{glue:text}`../notebooks/nowhere.ipynb::bill:s`"),
        "'nowhere' glues no 'bill'",
    ),
]
SINCE = {
    "date": datetime.date(2025, 9, 23),
    "kind": "primary",
    "source": {"key": "stargate2025", "where": "page 1"},
    "text": "It grew.",
}


def later(**fields: object) -> Callable[[dict[str, Any]], None]:
    """Let one thing come after the first claim, with these fields changed."""
    return put(since=[{**SINCE, **fields}])


FAULTS += [
    (later(source={"key": "nobody2026", "where": "page 1"}), "'nobody2026' is not in the bib"),
    (later(text="It cost $5 million."), "typed number '$5'"),
    (later(text="It cost {fact}`since.v31.tokns`."), "fact 'since.v31.tokns' does not exist"),
    (later(text="It took {fact}`since.v31.tokens`."), "'since.v31.tokens' is only secondary"),
    (
        later(kind="copy", text="By {fact}`since.ernie45.total`."),
        "'since.ernie45.total' is only reported",
    ),
    (later(text="It cost {fact}`v3.cost.total`."), "is of 2024-12-26, before the article"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_planted_fault_is_named(
    fault: Callable[[dict[str, Any]], None], message: str, ledger: Ledger, bib_keys: set[str]
) -> None:
    broken = copy.deepcopy(ledger)
    fault(broken[0])
    found = problems(broken, bib_keys, set(facts.keys()), ROOT)
    assert any(text.startswith("claim 1: ") and message in text for text in found), found


def test_short_reason_for_a_computable_claim_is_named(ledger: Ledger, bib_keys: set[str]) -> None:
    broken = copy.deepcopy(ledger)
    claim = next(c for c in broken if c["class"] == "computable")
    del claim["computed_in"]
    claim["not_computable"] = "Too hard."
    found = problems(broken, bib_keys, set(facts.keys()), ROOT)
    fault = "the reason for not computing it is too short: 'Too hard.'"
    assert f"claim {claim['id']}: {fault}" in found


def test_missing_and_reordered_claims_are_named(ledger: Ledger, bib_keys: set[str]) -> None:
    for broken in (ledger[1:], [ledger[1], ledger[0], *ledger[2:]], [*ledger, ledger[0]]):
        found = problems(broken, bib_keys, set(facts.keys()), ROOT)
        assert any("in order" in text for text in found)


@pytest.mark.parametrize(
    "text", ["in 2022 and 2023", "the 910B", "GPT-4o-0513", "Llama 3.1 405B", "claims 33 and 34",
             "On December 2, 2024", "Doubao pro-32k", "39 years old"],
)  # fmt: skip
def test_names_dates_and_small_counts_may_be_typed(text: str) -> None:
    assert not TYPED_NUMBER.search(text)


def test_loader_of_the_book_reads_every_claim(ledger: Ledger) -> None:
    claims = load_claims(ROOT / "book/claims.yml")
    assert [claim.id for claim in claims] == IDS
    assert [claim.kind for claim in claims] == [entry["class"] for entry in ledger]
    places = [claim.computed_in and claim.computed_in.label for claim in claims]
    assert places == [entry.get("computed_in", {}).get("label") for entry in ledger]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (drop("verdict"), "verdict"),
        (put(sources=[]), "sources"),
        (put(**{"class": "src"}), "src"),
        (put(quote=" ".join(["word"] * 16)), "16 words"),
        (drop("computed_in"), "computed_in"),
        (put(id="2"), "claim 2"),
        (
            put(sources=[{"key": "article"}]),
            "claim 1: source is {'key': 'article'}; give key and where",
        ),
        (put(computed_in=None), "claim 1: computed_in is None; give doc and label"),
        (put(computed_in={"doc": "book/claims", "label": ""}), "claim 1: computed_in is"),
        (later(date="2025-9"), "claim 1: since: date is '2025-9'; give a day or a month"),
        (later(date="2026-13"), "claim 1: since: date is '2026-13'; give a day or a month"),
        (later(date=datetime.date(2025, 1, 20)), r"2025, 1, 20.* after 2025-01-31"),
        (later(date="2025-01"), "after 2025-01-31"),
        (later(kind="rumor"), "kind 'rumor' is not one of primary, copy, reported"),
        (later(text=" "), "claim 1: since has no text"),
        (later(source={"key": "article"}), "claim 1: since: source is"),
        (later(sources=[]), "give date, kind, source, text and perhaps also"),
        (put(since=["later"]), "claim 1: since is 'later'"),
        (later(also=["51"]), "claim 1: since names '51' in also"),
        (later(also=["1"]), "claim 1: since names '1' in also"),
    ],
)
def test_loader_of_the_book_refuses(
    fault: Callable[[dict[str, Any]], None],
    message: str,
    ledger: Ledger,
    tmp_path: Path,
) -> None:
    broken = copy.deepcopy(ledger)
    fault(broken[0])
    (tmp_path / "claims.yml").write_text(yaml.safe_dump(broken), "utf-8")
    with pytest.raises(ValueError, match=message):
        load_claims(tmp_path / "claims.yml")


@pytest.mark.parametrize(
    ("text", "message"),
    [("- id: [1", "claims.yml is not YAML.*line 1"), ("- a claim", "mapping, got 'a claim'")],
)
def test_loader_of_the_book_refuses_what_is_no_ledger(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "claims.yml").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        load_claims(tmp_path / "claims.yml")


def test_what_came_after_is_told_once_and_found_by_each_claim_it_bears_on() -> None:
    claims = load_claims(ROOT / "book/claims.yml")
    entries = [entry for claim in claims for entry in claim.since]
    assert {entry.kind for entry in entries} == {"primary", "copy", "reported"}
    shown = [(claim.id, found) for claim in claims for _, found in bears_on(claim.id, claims)]
    assert len(shown) == sum(1 + len(entry.also) for entry in entries)
    for claim in claims:
        dates = [found.date for _, found in bears_on(claim.id, claims)]
        assert dates == sorted(dates)


def test_an_entry_says_when_and_how_it_was_read(ledger: Ledger, tmp_path: Path) -> None:
    claim = copy.deepcopy(ledger[0])
    later(date="2026-06", kind="reported")(claim)
    (tmp_path / "claims.yml").write_text(yaml.safe_dump([claim]), "utf-8")
    (loaded,) = load_claims(tmp_path / "claims.yml")
    (entry,) = loaded.since
    assert entry.when == "June 2026"
    line = "**June 2026.** It grew. [reported]{.since-kind} {cite:p}`stargate2025`, page 1."
    assert entry_line(entry) == line


# --- labels of sources -------------------------------------------------------------------------


def test_no_two_sources_share_a_label() -> None:
    """The bibliography would add a letter to each, which the tooltip of a number does not show."""
    entries = parse_file(str(ROOT / "book/references.bib")).entries
    labels = Counter(label_of(entry) for entry in entries.values())
    assert [label for label, count in labels.items() if count > 1] == []


@pytest.mark.parametrize("field", ["author={Doe, Jane}", "year={2024}"])
def test_a_source_without_a_label_is_named(field: str) -> None:
    (entry,) = parse_string(f"@misc{{doe, {field}}}", "bibtex").entries.values()
    with pytest.raises(ValueError, match="doe has no label: give it author and year"):
        label_of(entry)
