"""The page of verdicts and the page of what changed: from the data, and nothing left out."""

import datetime
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ledger import SINCE_KINDS, VERDICTS, Claim, Since, Source, load_claims
from slingshot import facts
from test_drawings import faults
from verdict import (
    LOOKED_UP,
    Row,
    Side,
    controls,
    describe,
    draw,
    glued_text,
    notebook_of,
    parse_rows,
    parts,
)
from what_changed import counts, quarter_of, sections, stated_since

ROOT = Path(__file__).resolve().parents[1]
CLAIMS = load_claims(ROOT / "book" / "claims.yml")
PARTS = parts(ROOT)


def body() -> list[str]:
    """The rows of the figure on the page that has it."""
    page = (ROOT / "book" / "verdict.md").read_text("utf-8")
    return page.partition("```{closer-look}\n")[2].partition("```")[0].splitlines()


# --- the figure ----------------------------------------------------------------------------------


def test_the_figure_of_the_page_can_be_read_and_each_closer_look_is_smaller() -> None:
    rows = parse_rows(body())
    assert len(rows) >= 6
    assert all(row.first.value > row.closer.value >= 1 for row in rows)
    assert faults(draw(rows)) == []
    for row in rows:
        assert row.name in describe(rows)
        assert f"{row.closer.text} {row.closer.words}" in describe(rows)


def test_the_numbers_are_those_of_the_notebook_and_of_the_facts() -> None:
    lines = [
        "a | b: training_cost::hours_ratio | c: kv_cache::over_mha",
        "d | e: chip.h800.fp8 / chip.h800.bf16 | f: sparse_attention::limit",
    ]
    first, second = parse_rows(lines)
    assert first.first.text == glued_text(ROOT / "notebooks/training_cost.ipynb", "hours_ratio")
    assert f"{first.closer.text} times" == glued_text(ROOT / "notebooks/kv_cache.ipynb", "over_mha")
    ratio = facts.value("chip.h800.fp8") / facts.value("chip.h800.bf16")
    assert second.first.value == ratio
    assert f"{second.closer.text}-fold" == glued_text(
        ROOT / "notebooks/sparse_attention.ipynb", "limit"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a | b: training_cost::hours_ratio", "is not of the form 'name | first | closer'"),
        (
            "a | b | c: training_cost::hours_ratio",
            "'b' is not of the form 'words: notebook::value'",
        ),
        ("a | b: training_cost::hours | c: d::e", "'training_cost' glues no 'hours'"),
        ("a | b: nowhere::hours | c: d::e", "there is no notebook 'nowhere'"),
        ("a | b: training_cost::v3_bill | c: d::e", "'\\$5.576 million', which is no factor"),
        ("a | b: 57 | c: d::e", "'57' is neither notebook::value nor fact / fact"),
        ("a | b: v3.gpus / v3.gpuss | c: d::e", "unknown fact 'v3.gpuss'"),
        ("", "has no rows"),
    ],
)
def test_a_wrong_line_of_the_figure_is_named(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rows([line])


def test_a_label_that_covers_another_would_be_found() -> None:
    side = Side("in words", 1.0, "1.0")
    assert faults(draw([Row("W" * 60, Side("in words", 20.0, "20"), side)])) != []


# --- the table -----------------------------------------------------------------------------------


def test_every_claim_is_in_a_part_of_the_book() -> None:
    documents = {claim.id: notebook_of(claim) for claim in CLAIMS}
    assert {document for document in documents.values() if document} <= PARTS.keys()
    assert [c.id for c in CLAIMS if c.computed_in and not documents[c.id]] == []


def test_the_controls_count_every_claim_once() -> None:
    where = {
        claim.id: PARTS[document] if (document := notebook_of(claim)) else LOOKED_UP
        for claim in CLAIMS
    }
    form = controls(CLAIMS, where, PARTS)
    for field in ("verdict", "part"):
        boxes = re.findall(rf'name="{field}" value="([^"]+)".*?count">(\d+)<', form)
        assert sum(int(count) for _, count in boxes) == len(CLAIMS)
        assert len({name for name, _ in boxes}) == len(boxes)


class Rows(HTMLParser):
    """The rows of the table of verdicts: the fields that the script reads, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[dict[str, str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = {name: value or "" for name, value in attrs}
        if tag == "tr" and "data-part" in fields:
            self.rows.append({**fields, "text": ""})
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "tr"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1]["text"] += data


@pytest.mark.slow
def test_the_table_shows_every_claim_with_its_number_or_why_there_is_none(book: Path) -> None:
    rows = Rows((book / "book" / "verdict.html").read_text("utf-8")).rows
    assert [row["data-verdict"] for row in rows] == [claim.verdict for claim in CLAIMS]
    for row, claim in zip(rows, CLAIMS, strict=True):
        text = " ".join(row["text"].split())
        assert f"Claim {claim.id}" in text
        assert claim.quote in text
        if not claim.measured:
            assert claim.not_computable.split(",")[0].rstrip(".") in text.replace("’", "'")
        else:
            assert re.search(r"\d", text.partition(claim.quote)[2]), f"no number: {text}"


@pytest.fixture
def table(page: Page, book: Path) -> Page:
    page.goto(f"{book.as_uri()}/book/verdict.html")
    return page


def shown(page: Page) -> int:
    return page.locator(".verdict-table tbody tr:visible").count()


@pytest.mark.slow
def test_the_table_filters_by_verdict_and_by_part_with_the_keyboard(table: Page) -> None:
    status = table.locator(".verdict-controls [role=status]")
    assert shown(table) == len(CLAIMS)
    for verdict in VERDICTS:
        if verdict != "contradicted":
            box = table.get_by_role("checkbox", name=verdict)
            box.focus()
            table.keyboard.press("Space")
    contradicted = [claim for claim in CLAIMS if claim.verdict == "contradicted"]
    assert shown(table) == len(contradicted)
    expect(status).to_have_text(f"{len(contradicted)} of {len(CLAIMS)} claims shown")
    table.get_by_role("checkbox", name="Use less of the model").uncheck()
    assert shown(table) == len(contradicted) - 1
    table.get_by_role("button", name="Show all").click()
    expect(status).to_have_text(f"{len(CLAIMS)} of {len(CLAIMS)} claims shown")


@pytest.mark.slow
def test_without_javascript_it_is_the_whole_table(
    new_page: Callable[..., Page], book: Path
) -> None:
    page = new_page(java_script_enabled=False)
    page.goto(f"{book.as_uri()}/book/verdict.html")
    assert shown(page) == len(CLAIMS)
    expect(page.locator(".verdict-controls")).to_be_hidden()


# --- what changed --------------------------------------------------------------------------------


def test_everything_that_came_after_is_listed_once_by_quarter() -> None:
    lines = sections(CLAIMS, stated_since())
    text = "\n".join(lines)
    for claim in CLAIMS:
        for entry in claim.since:
            assert sum(" ".join(entry.text.split()) in line for line in lines) == 1
    listed = re.findall(r"^- \{fact\}`([^`]+)`", text, re.M)
    assert sorted(listed) == sorted(fact.key for fact in stated_since())
    days = [facts.get(key).as_of for key in listed]
    assert days == sorted(days, reverse=True)


def claim_with(**fields: Any) -> Claim:  # noqa: ANN401
    entry = Since(
        date=datetime.date(2026, 12, 1), whole_month=False, kind="copy",
        source=Source("article", "page 1"), also=("2",), text="It rained.",
    )  # fmt: skip
    return Claim(
        id="1", quote="a", kind="opinion", verdict="confirmed", finding="b", sources=(),
        computed_in=None, not_computable="c", since=(entry,), **fields,
    )  # fmt: skip


def test_a_new_entry_and_a_new_fact_need_no_other_change() -> None:
    fact = facts.Fact(
        "a.b", 1, "1", "A thing", "article", "page 1", datetime.date(2027, 2, 3), "verified"
    )
    lines = sections([claim_with()], [fact])
    counted = counts([claim_with()], [fact])
    assert counted.startswith("Entries: 0 primary")
    assert all(meaning in counted for meaning in SINCE_KINDS.values())
    assert counted.endswith("Facts stated since: 1.")
    headings = [line for line in lines if line.startswith("## ")]
    assert lines[2] == counted
    assert headings == ["## In numbers", "## January to March 2027", "## October to December 2026"]
    assert "- {fact}`a.b`: A thing (2027-02-03)" in lines
    (told,) = [line for line in lines if "It rained." in line]
    assert told.startswith("- **December 1, 2026.** It rained. [copy]{.since-kind}")
    assert told.endswith("Bears on claims {ref}`1 <ledger-1>`, {ref}`2 <ledger-2>`.")


@pytest.mark.parametrize(("month", "quarter"), [(1, 0), (3, 0), (4, 1), (9, 2), (12, 3)])
def test_the_quarter_of_a_day(month: int, quarter: int) -> None:
    assert quarter_of(datetime.date(2026, month, 28)) == (2026, quarter)


def test_no_fact_of_the_article_s_time_is_called_new() -> None:
    assert all(fact.as_of > datetime.date(2025, 1, 31) for fact in stated_since())
    assert "v3.cost.total" not in {fact.key for fact in stated_since()}
    assert "r1.cost.total" in {fact.key for fact in stated_since()}
