"""The drawings: legible, inside their canvas, in colors that every reader sees, and all in use."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from slingshot.pages import drawings
from slingshot.pages.drawings import DRAWINGS, canvas, label
from slingshot.pages.figures import INK, PALETTE, to_svg

ROOT = Path(__file__).resolve().parent.parent


def texts(figure: Figure) -> list[tuple[Text, Bbox]]:
    """What is written in a figure, with the place that it takes."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw(renderer)
    found = [
        text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()
    ]
    return [(text, text.get_window_extent(renderer)) for text in found]


def faults(figure: Figure) -> list[str]:
    """Return each text that is too small, leaves the canvas, or covers another."""
    written = texts(figure)
    edge = figure.bbox.padded(1)
    small = [f"{t.get_text()!r} is too small" for t, _ in written if float(t.get_fontsize()) < 10]
    outside = [
        f"{text.get_text()!r} leaves the canvas"
        for text, place in written
        if not (edge.contains(place.x0, place.y0) and edge.contains(place.x1, place.y1))
    ]
    over = [
        f"{a.get_text()!r} and {b.get_text()!r} overlap"
        for (a, one), (b, other) in combinations(written, 2)
        if one.padded(-1).overlaps(other.padded(-1))
    ]
    return small + outside + over


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_can_be_read(name: str) -> None:
    assert faults(DRAWINGS[name].draw()) == []


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_the_same_each_time_and_has_words(name: str) -> None:
    drawing = DRAWINGS[name]
    svg = to_svg(drawing.draw(), alt=drawing.alt, prefix=name)
    assert svg == to_svg(drawing.draw(), alt=drawing.alt, prefix=name)
    assert drawing.alt.endswith(".")
    assert len(drawing.alt.split()) >= 10


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_colors_are_those_of_the_course(name: str) -> None:
    known = {to_hex(color) for color in (INK, *PALETTE.values())}
    svg = to_svg(DRAWINGS[name].draw(), alt="x", prefix=name)
    assert set(re.findall(r"#[0-9a-fA-F]{6}", svg)) <= known


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_drawing_stands_on_a_page(name: str) -> None:
    pages = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    used = (f"{{drawing}} {name}\n", f'DRAWINGS[\\"{name}\\"]')
    assert any(use in page.read_text("utf-8") for page in pages for use in used)


def test_the_numbers_of_a_layer_come_from_the_facts() -> None:
    words = [text.get_text() for text, _ in texts(drawings.mixture_layer())]
    assert "in memory: 256 experts and the shared one" in words
    assert "at work on this token: 8 and the shared one" in words


@pytest.mark.parametrize(
    ("text", "where", "size", "fault"),
    [
        ("a long line of words that runs out", 330.0, 11, "leaves the canvas"),
        ("tiny", 60.0, 8, "too small"),
        ("over", 160.0, 11, "overlap"),
    ],
)
def test_a_faulty_drawing_is_found(text: str, where: float, size: float, fault: str) -> None:
    figure, axes = canvas(100)
    label(axes, 170, 50, "in the middle")
    label(axes, where, 50, text, fontsize=size)
    assert any(fault in found for found in faults(figure))
