"""The book in a browser: readable on every screen and by everyone, its interactive parts alive."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from built_book import pages
from ledger import VERDICTS, load_claims

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = load_claims(ROOT / "book" / "claims.yml")


@pytest.fixture
def visit(book: Path) -> Callable[[Page, str], None]:
    """Opens a page of the book from the file system."""

    def go(page: Page, address: str) -> None:
        page.goto(f"{book.as_uri()}/{address}")

    return go


@pytest.mark.parametrize("name", pages())
def test_a_page_is_quiet_fits_a_phone_and_has_no_serious_barrier(
    name: str, new_page: Callable[..., Page], visit: Callable[[Page, str], None]
) -> None:
    """One visit: on a phone, then on a desk, in the light theme and in the dark one."""
    # A color that is still fading in has no contrast to measure.
    page = new_page(
        viewport={"width": 390, "height": 844}, color_scheme="light", reduced_motion="reduce"
    )
    visit(page, name)
    page.wait_for_function("!window.MathJax || MathJax.startup.promise.then(() => true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator(".bd-article h1").count() == 1
    page.set_viewport_size({"width": 1280, "height": 720})
    # The hidden frames of a figure are built like the one that is shown, and take the most time.
    page.evaluate("document.querySelectorAll('.explore-frame[hidden]').forEach(f => f.remove())")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert serious(page) == {}
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert serious(page, "color-contrast") == {}  # the themes differ in nothing else


def serious(page: Page, *rules: str) -> dict[str, list[str]]:
    """The serious faults that axe finds on a page, by all its rules or by those that are named."""
    # Without preload: axe would fetch the style sheets, which a browser refuses from a file.
    options: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}
    if rules:
        options["runOnly"] = list(rules)
    return {
        fault["id"]: [node["html"][:200] for node in fault["nodes"]]
        for fault in Axe().run(page, options=options).response["violations"]
        if fault["impact"] in ("serious", "critical")
    }


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("document.querySelector('.bd-article p').style.color = '#bbb'", "color-contrast"),
        ("document.querySelector('.bd-article [aria-label]').ariaLabel = ''", "svg-img-alt"),
        ("document.documentElement.lang = ''", "html-has-lang"),
    ],
)
def test_a_serious_barrier_is_found(
    fault: str, rule: str, new_page: Callable[..., Page], visit: Callable[[Page, str], None]
) -> None:
    page = new_page(color_scheme="light", reduced_motion="reduce")
    visit(page, "book/index.html")
    page.evaluate(fault)
    assert rule in serious(page)


@pytest.mark.parametrize("name", ["search.html", "genindex.html"])
def test_what_is_no_chapter_has_no_serious_barrier(
    name: str, page: Page, visit: Callable[[Page, str], None]
) -> None:
    visit(page, name)
    assert serious(page) == {}


def test_mathematics_is_drawn(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "notebooks/moe_gating.html")
    expect(page.locator("mjx-container").first).to_be_visible()


def test_the_fonts_are_ours(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "book/index.html")
    page.evaluate("document.fonts.ready")
    loaded = page.evaluate(
        "[...document.fonts].filter(f => f.status == 'loaded').map(f => f.family)"
    )
    assert {"Slingshot Sans", "Slingshot Serif"} <= {name.strip('"') for name in loaded}


def test_the_search_works_from_a_file(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "search.html?q=router")
    expect(page.locator("#search-results li").first).to_be_visible()


# --- sourced numbers -------------------------------------------------------------------------


def test_a_sourced_number_shows_its_source(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "book/story.html")
    number = page.locator(".fact", has_text="$5.576 million")
    assert "Table 1" in (number.get_attribute("data-source") or "")
    shown = "e => getComputedStyle(e, '::after').content"
    assert number.evaluate(shown) == "none"
    number.locator("a").focus()
    assert "DeepSeek-V3 report" in number.evaluate(shown)
    number.locator("a").click()
    expect(page).to_have_url(re.compile(r"facts\.html#fact-v3-cost-total$"))


# --- the ledger ------------------------------------------------------------------------------


def visible(page: Page) -> list[str]:
    """Ids of the claims that are shown, in the order of the page."""
    script = "all => all.filter(c => c.offsetParent).map(c => c.dataset.claim)"
    shown: list[str] = page.locator("article.claim").evaluate_all(script)
    return shown


def with_verdict(verdict: str) -> list[str]:
    return [claim.id for claim in CLAIMS if claim.verdict == verdict]


def test_the_ledger_shows_every_claim(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "book/claims.html")
    assert visible(page) == [claim.id for claim in CLAIMS]
    first = page.locator("article.claim").first
    for text in (CLAIMS[0].quote, CLAIMS[0].verdict, CLAIMS[0].kind, "Sources:", "claim 1"):
        expect(first).to_contain_text(text)


def test_the_ledger_is_whole_without_javascript(
    new_page: Callable[..., Page], visit: Callable[[Page, str], None]
) -> None:
    page = new_page(java_script_enabled=False)
    visit(page, "book/claims.html")
    assert page.locator("article.claim:visible").count() == len(CLAIMS)
    expect(page.locator(".ledger-controls")).to_be_hidden()


def test_the_ledger_filters(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "book/claims.html")
    status = page.locator(".ledger-controls [role=status]")
    for verdict in VERDICTS:
        if verdict != "contradicted":
            page.get_by_role("checkbox", name=verdict).uncheck()
    assert visible(page) == with_verdict("contradicted")
    count = len(with_verdict("contradicted"))
    expect(status).to_have_text(f"{count} of {len(CLAIMS)} claims shown")
    page.get_by_role("searchbox").fill("route token")
    assert visible(page) == ["26"]
    page.get_by_role("button", name="Show all").click()
    expect(status).to_have_text(f"{len(CLAIMS)} of {len(CLAIMS)} claims shown")
    page.get_by_role("checkbox", name="computable").uncheck()
    assert visible(page) == [claim.id for claim in CLAIMS if claim.kind != "computable"]


def test_the_ledger_sorts(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "book/claims.html")
    page.get_by_role("combobox").select_option("verdict")
    assert visible(page) == [id for verdict in VERDICTS for id in with_verdict(verdict)]
    page.get_by_role("combobox").select_option("order")
    assert visible(page) == [claim.id for claim in CLAIMS]


def test_the_ledger_obeys_the_keyboard(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "book/claims.html")
    box = page.get_by_role("checkbox", name="confirmed")
    box.focus()
    page.keyboard.press("Space")
    assert set(visible(page)) == {claim.id for claim in CLAIMS} - set(with_verdict("confirmed"))


def test_the_title_page_leads_to_one_verdict(
    page: Page, visit: Callable[[Page, str], None]
) -> None:
    visit(page, "book/index.html")
    count = len(with_verdict("contradicted"))
    page.get_by_role("link", name=f"{count} contradicted").click()
    status = page.locator("[role=status]", has_text=f"{count} of {len(CLAIMS)} claims")
    expect(status).to_be_visible()
    assert visible(page) == with_verdict("contradicted")


# --- interactive figures ---------------------------------------------------------------------


def test_the_gating_figure_moves(page: Page, visit: Callable[[Page, str], None]) -> None:
    visit(page, "notebooks/moe_gating.html")
    figure = page.locator("figure.explore")
    slider = figure.get_by_role("slider", name="tokens")
    frame = figure.locator(".explore-frame:visible svg")
    before, picture = frame.get_attribute("aria-label"), frame.inner_html()
    slider.focus()
    page.keyboard.press("End")
    assert frame.count() == 1
    assert frame.get_attribute("aria-label") != before
    assert frame.inner_html() != picture
    assert slider.get_attribute("aria-valuetext") == "200"
    expect(figure.locator("figcaption")).to_contain_text("Tokens in the question: 200")
