"""Chromium prints a document: mathematics drawn, what is too wide made narrower, pages numbered."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader

from tools.printed.chromium import arguments, find_chromium

WIDTH_MM = 170  # of A4 without its margins
_MATHEMATICS = "!window.MathJax || MathJax.startup.promise.then(() => document.fonts.ready)"
# A table that is too wide is set smaller in two steps, a formula by as much as it needs.
_NARROW = """() => {
  const room = document.body.clientWidth;
  for (const table of document.querySelectorAll('table'))
    for (const step of ['narrow', 'narrowest']) {
      const box = table.parentElement.getBoundingClientRect();
      if (table.getBoundingClientRect().right > Math.min(room, box.right) + 1)
        table.classList.add(step);
    }
  for (const formula of document.querySelectorAll('mjx-container')) {
    const inner = formula.querySelector('mjx-math');
    const given = formula.parentElement.getBoundingClientRect().width;
    const taken = inner.getBoundingClientRect().width;
    if (taken > given && given > 0)
      formula.style.fontSize = Math.floor(98 * given / taken) + '%';
  }
}"""
_TOO_WIDE = """() => {
  const room = document.body.clientWidth + 1, found = [];
  const whole = document.documentElement;
  if (whole.scrollWidth > whole.clientWidth)  // then Chromium would shrink every page
    found.push(`the document: ${whole.scrollWidth} pixels of ${whole.clientWidth}`);
  for (const each of document.body.querySelectorAll('*')) {
    if (each.closest('svg svg, svg > *, mjx-assistive-mml, .quiz-aloud')) continue;
    const box = each.getBoundingClientRect();
    if (box.width && (box.right > room || box.left < -1))
      found.push(`${each.closest('.chapter')?.id}: ${each.outerHTML.slice(0, 120)}`);
  }
  return found;
}"""
_UNDRAWN = """() => [...document.querySelectorAll('.math')]
  .filter(m => !m.querySelector('mjx-container') || m.querySelector('mjx-merror'))
  .map(m => m.outerHTML.slice(0, 120))"""
_FILL = """pages => document.querySelectorAll('.toc-page')
  .forEach(each => each.textContent = pages[each.dataset.chapter] ?? '')"""


@contextmanager
def opened(document: Path) -> Iterator[Page]:
    """The document in Chromium as it will be printed, its mathematics drawn.

    Raises ``RuntimeError`` with the remedy where there is no Chromium.
    """
    with sync_playwright() as playwright:
        path = find_chromium(playwright)
        browser = playwright.chromium.launch(executable_path=path, args=arguments())
        try:
            page = browser.new_page(viewport={"width": round(WIDTH_MM / 25.4 * 96), "height": 900})
            page.set_default_timeout(300_000)
            page.emulate_media(media="print", color_scheme="light", reduced_motion="reduce")
            page.goto(document.as_uri())
            page.wait_for_function(_MATHEMATICS)
            page.evaluate(_NARROW)
            yield page
        finally:
            browser.close()


def faults(page: Page) -> list[str]:
    """What would be cut off at the edge of the paper, and formulas that are not drawn."""
    wide: list[str] = page.evaluate(_TOO_WIDE)
    undrawn: list[str] = page.evaluate(_UNDRAWN)
    return [f"too wide: {each}" for each in wide] + [f"not drawn: {each}" for each in undrawn]


def print_document(document: Path, target: Path) -> list[str]:
    """Print a document as PDF, twice, since the first print says on which page a chapter begins.

    Returns what is wrong with it, if anything is.
    """
    with opened(document) as page:
        wrong = faults(page)
        target.write_bytes(to_pdf(page))
        page.evaluate(_FILL, pages_of_chapters(target))
        target.write_bytes(once_named(without_dates(to_pdf(page))))
    return wrong


def to_pdf(page: Page) -> bytes:
    """Print with bookmarks and, for those who listen to it, with tags."""
    options: dict[str, Any] = {"prefer_css_page_size": True, "print_background": True}
    return page.pdf(outline=True, tagged=True, **options)


def pages_of_chapters(pdf: Path) -> dict[str, int]:
    """On which page, from 1, each chapter begins."""
    reader = PdfReader(pdf)
    numbers = {}
    for name, target in reader.named_destinations.items():
        if re.fullmatch(r"chapter-\d+", name.removeprefix("/")):
            number = reader.get_destination_page_number(target)
            if number is not None:
                numbers[name.removeprefix("/")] = number + 1
    return numbers


def once_named(pdf: bytes) -> bytes:
    """Name a bookmark once: Chromium says a heading at the top of a page twice; no byte moves."""
    plain = rb"(/Title \()((?:[^\\()]|\\.)+)\2(\))"
    in_hexadecimal = rb"(/Title <FEFF)((?:[0-9A-F]{4})+)\2(>)"
    for twice in (plain, in_hexadecimal):
        pdf = re.sub(twice, lambda m: m[1] + m[2] + m[3] + b" " * len(m[2]), pdf, flags=re.S)
    return pdf


def without_dates(pdf: bytes) -> bytes:
    """Leave out when a file was printed, so that it says nothing else each time; no byte moves."""
    dates = re.compile(rb"/(?:CreationDate|ModDate) \(D:[^)]*\)")
    return dates.sub(lambda match: b" " * len(match[0]), pdf)
