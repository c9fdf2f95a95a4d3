"""The front door: one screen, cards to every chapter, and minutes that are the course's own."""

import gzip
import html
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from playwright.sync_api import Page, expect

import front
import teaching
from built_book import pages
from slingshot import facts
from slingshot.pages import drawings, emblems
from slingshot.pages.figures import INK, PALETTE
from test_drawings import faults

ROOT = Path(__file__).resolve().parent.parent
PARTS = teaching.parts(ROOT)
MOST_BYTES = 150_000
"""Of a page as a server packs it, without what pages share."""


# --- on the built pages --------------------------------------------------------------------------


def cards(page: str) -> list[tuple[str, str, str]]:
    """Where each card of a page leads, its heading, and its last line."""
    found = []
    (grid,) = re.findall(r'<ul class="[^"]*\bcards\b[^"]*">(.*?)</ul>', page, re.S)
    for card in re.split(r"<li>", grid)[1:]:
        (title,) = re.findall(r'card-title.*?<a [^>]*href="([^"]+)"[^>]*>(.*?)</a>', card, re.S)
        (last,) = re.findall(r"card-minutes.*?<p[^>]*>(.*?)</p>", card, re.S)
        assert "<svg" in card
        words = html.unescape(re.sub(r"<[^<>]+>", "", title[1]))
        found.append((title[0], words, last))
    return found


def test_the_title_page_leads_to_each_part_with_its_minutes(book: Path) -> None:
    found = cards((book / "book" / "index.html").read_text("utf-8"))
    assert [(link, words) for link, words, _ in found] == [
        (os.path.relpath(f"{chapters[0]}.html", "book"), part) for part, chapters in PARTS.items()
    ]
    for (_, _, last), chapters in zip(found, PARTS.values(), strict=True):
        efforts = [teaching.effort(ROOT, chapter) for chapter in chapters]
        work = sum(each.exercises for each in efforts)
        rest = sum(each.minutes for each in efforts if not each.exercises)
        wanted = [f"{rest} min"] + [f"exercises {work} min"] * bool(work)
        assert last.removeprefix(last.partition("notebooks, ")[0] + "notebooks, ") == ", ".join(
            wanted
        )


# A part of short notebooks has no page of its own to open it.
OPENED = {part: chapters for part, chapters in PARTS.items() if chapters[0].startswith("book/")}


def test_every_long_part_is_opened_by_a_page() -> None:
    assert len(OPENED) >= 6


@pytest.mark.parametrize(("part", "chapters"), OPENED.items(), ids=list(OPENED))
def test_the_first_page_of_a_part_leads_to_all_its_notebooks(
    part: str, chapters: list[str], book: Path
) -> None:
    page = book / f"{chapters[0]}.html"
    found = [
        (page.parent / link).resolve().relative_to(book.resolve()).with_suffix("").as_posix()
        for link, _, _ in cards(page.read_text("utf-8"))
    ]
    others = [c for c in chapters[1:] if c.startswith("book/")]
    wanted = front.notebooks(chapters) or [*others, "book/what_changed"]
    assert sorted(found) == sorted(wanted)
    for link, (_, _, last) in zip(found, cards(page.read_text("utf-8")), strict=True):
        assert last == f"{teaching.effort(ROOT, link).minutes} min"


def test_each_way_in_takes_the_minutes_that_it_says(book: Path) -> None:
    page = (book / "book" / "index.html").read_text("utf-8")
    (ways,) = re.findall(r'<div class="start-here[^"]*">(.*?)</ul>', page, re.S)
    items = re.findall(r"<li>(.*?)</li>", ways, re.S)
    assert len(items) >= 5
    for item in items:
        links = re.findall(r'href="([^"]+)\.html', item)
        chapters = [link.removeprefix("../") if "/" in link else f"book/{link}" for link in links]
        minutes = sum(teaching.effort(ROOT, chapter).minutes for chapter in chapters)
        assert re.sub(r"<[^<>]+>", "", item).strip().endswith(f": {minutes} min.")
    assert sorted(front.counts(ROOT)) == ["claims", "notebooks"]
    for name, number in front.counts(ROOT).items():
        assert f"{number} {name}" in page


@pytest.mark.parametrize("page", ["book/index.html", *(f"{c[0]}.html" for c in PARTS.values())])
def test_a_page_that_many_open_first_is_light(page: str, book: Path) -> None:
    assert page in pages()
    assert len(gzip.compress((book / page).read_bytes())) <= MOST_BYTES


def test_the_opening_is_one_screen(book: Path, new_page: Callable[..., Page]) -> None:
    """What one will be able to do, where to start, and the figure: without scrolling."""
    page = new_page(viewport={"width": 1280, "height": 720})
    page.goto((book / "book" / "index.html").as_uri())
    page.evaluate("document.fonts.ready")
    for seen in (".hero ol", ".hero .actions a:last-child", ".hero figcaption"):
        box = page.locator(seen).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 720, seen
    page.set_viewport_size({"width": 390, "height": 844})
    start = page.locator(".hero .actions a").first.bounding_box()
    assert start is not None
    assert start["y"] + start["height"] <= 844


def test_the_rent_moves_the_sums_and_not_their_ratio(
    book: Path, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto((book / "book" / "index.html").as_uri())
    said = page.locator(".hero figcaption")
    expect(said).to_contain_text("At $2.00 an hour V3's run costs $5.58 million")
    page.get_by_role("slider", name="rent an hour").focus()
    page.keyboard.press("End")
    expect(said).to_contain_text("At $10.00 an hour V3's run costs $27.9 million")
    expect(said).to_contain_text(": 11 times as much")


def test_a_card_leads_on_wherever_it_is_clicked(book: Path, new_page: Callable[..., Page]) -> None:
    page = new_page(viewport={"width": 1280, "height": 720})
    page.goto((book / "book" / "moe.html").as_uri())
    last = page.locator(".cards > li").first.locator(".card-minutes")
    last.scroll_into_view_if_needed()
    place = last.bounding_box()
    assert place is not None
    page.mouse.click(place["x"] + place["width"] - 5, place["y"] + 5)
    expect(page).to_have_url(re.compile(r"notebooks/moe_gating\.html$"))


# --- the figure ----------------------------------------------------------------------------------


def test_the_first_rent_is_the_report_s_and_its_sum_is_the_looked_up_one() -> None:
    rent = front.rents_of()[0]
    assert rent == facts.value("v3.price_per_gpu_hour")
    assert facts.value("v3.gpu_hours.total") * rent == facts.value("v3.cost.total")


@pytest.mark.parametrize("rent", front.rents_of())
def test_the_figure_can_be_read_at_each_rent(rent: float) -> None:
    assert faults(drawings.five_sums(rent)) == []


# --- emblems -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", emblems.EMBLEMS)
def test_an_emblem_has_no_words_our_colors_and_stays_inside(name: str) -> None:
    figure = emblems.emblem(name)
    assert [t for t in figure.findobj(Text) if t.get_text() and t.axes is None] == []
    assert [t for t in figure.axes[0].texts if t.get_text()] == []
    svg = emblems.emblem_svg(name)
    assert svg == emblems.emblem_svg(name)
    known = {to_hex(color) for color in (INK, *PALETTE.values())}
    assert set(re.findall(r"#[0-9a-fA-F]{6}", svg)) <= known
    assert "<text" not in svg
    assert 'aria-hidden="true"' in svg
    assert "aria-label" not in svg
    drawn = figure.axes[0].dataLim
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= emblems.WIDTH
    assert drawn.y1 <= emblems.HEIGHT


def test_each_emblem_is_on_a_card_and_differs_from_all_others() -> None:
    text = "".join(path.read_text("utf-8") for path in (ROOT / "book").glob("*.md"))
    shown = {
        name
        for kind in ("chapter-cards", "part-cards")
        for _, body in teaching.directive_bodies(text, kind)
        for name in front.parse_texts(body)
    }
    assert shown == set(emblems.EMBLEMS)
    pictures = {re.sub(r"emblem-[\w-]+", "", emblems.emblem_svg(n)) for n in emblems.EMBLEMS}
    assert len(pictures) == len(emblems.EMBLEMS)


# --- what a page may say --------------------------------------------------------------------------


def test_minutes_in_words() -> None:
    read = teaching.Effort(reading=10, predictions=2, seconds=61)
    work = teaching.Effort(exercises=90)
    assert front.in_words({"a": read}) == "16 min"
    assert front.in_words({"a": read, "b": work}) == "16 min, exercises 90 min"
    assert front.in_words({"b": work}) == "exercises 90 min"


@pytest.mark.parametrize("text", ["- a", "a: [b]", "a:", "text"])
def test_cards_are_texts_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="give a mapping of names to texts"):
        front.parse_texts(text)


@pytest.mark.parametrize(
    "text", ["- who: a\n  why: b", "- who: a\n  why: b\n  path: []", "- a", "- {who: a, path: [b]}"]
)
def test_a_way_has_who_why_and_path(text: str) -> None:
    with pytest.raises(ValueError, match="way 1: give who, why and path"):
        front.parse_ways(text)
