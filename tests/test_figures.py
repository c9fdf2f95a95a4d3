import io
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from IPython.core.pylabtools import print_figure
from matplotlib.figure import Figure
from numpy.typing import NDArray

from slingshot.pages import figures, svg_canvas

ROOT = Path(__file__).resolve().parent.parent
SVG = "{http://www.w3.org/2000/svg}"

LIGHT_PAGE, DARK_PAGE = "#ffffff", "#14181f"

# Machado, Oliveira and Fernandes (2009), severity 1.0, applied to linear RGB.
DEUTERANOPIA = [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
]
PROTANOPIA = [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
]
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)

Array = NDArray[np.float64]


@pytest.fixture(autouse=True)
def fresh_matplotlib() -> Iterator[None]:
    with mpl.rc_context():
        yield
    plt.close("all")


def linear(color: str) -> Array:
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio."""
    low, high = sorted(float(XYZ[1] @ linear(color)) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: Array) -> Array:
    """CIELAB of linear RGB."""
    x, y, z = (
        t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116
        for t in XYZ @ rgb / XYZ.sum(axis=1)
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def closest_pair(colors: list[str], vision: Array) -> float:
    """The smallest CIE76 color difference between two of the colors, as ``vision`` sees them."""
    seen = [lab(np.clip(vision @ linear(color), 0, 1)) for color in colors]
    return min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2))


def test_contrast_measures_what_wcag_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("name", figures.PALETTE)
@pytest.mark.parametrize("page", [LIGHT_PAGE, DARK_PAGE])
def test_palette_stands_out_from_both_pages(name: str, page: str) -> None:
    assert contrast(figures.PALETTE[name], page) >= 3


def test_ink_is_readable_on_both_pages() -> None:
    assert contrast(figures.INK, LIGHT_PAGE) >= 4.5
    # No gray reaches 4.5 on both: the pages' own contrast is 17.8 and 4.5² is more.
    assert contrast(figures.INK, DARK_PAGE) >= 3.9


@pytest.mark.parametrize("vision", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["all", "d", "p"])
def test_palette_survives_color_blindness(vision: Array) -> None:
    # A difference of 2.3 is just noticeable; ten times that is plain in a thin line.
    assert closest_pair(list(figures.PALETTE.values()), np.array(vision)) >= 23


def test_the_color_blindness_check_catches_red_and_green() -> None:
    red_green = ["#d62728", "#7a8a00"]
    assert closest_pair(red_green, np.eye(3)) > 60
    assert closest_pair(red_green, np.array(DEUTERANOPIA)) < 23


def test_sequential_map_rises_in_lightness() -> None:
    colors = mpl.colormaps[figures.SEQUENTIAL](np.linspace(0, 1, 32))[:, :3]
    lightness = [lab(linear(mpl.colors.to_hex(color)))[0] for color in colors]
    assert (np.diff(lightness) > 1).all()


def sample(label: str = "loss") -> Figure:
    figures.style()
    figure, axes = plt.subplots()
    axes.plot([0, 1, 2], [1, 1 / 3, 0], label=label)
    axes.set(xlabel="step", ylabel="loss", title=figures.INK)
    axes.legend()
    return figure


def test_svg_carries_its_text_alternative_escaped() -> None:
    alt = """5 < 6 & "loss" isn't > 7"""
    root = ET.fromstring(figures.to_svg(sample(), alt=alt, prefix="a"))
    assert root.get("role") == "img"
    assert root.get("aria-label") == alt


def test_svg_takes_the_color_of_the_text_around_it() -> None:
    svg = figures.to_svg(sample(), alt="A line.", prefix="a")
    root = ET.fromstring(svg)
    attributes = [v for e in root.iter() for v in e.attrib.values()]
    assert not any(figures.INK in value for value in attributes)
    assert "stroke:currentColor" in svg
    assert "fill:currentColor" in svg
    assert figures.PALETTE["blue"] in svg
    assert f">{figures.INK}</text>" in svg, "text that mentions the ink must stay"


def test_svg_leaves_the_page_alone() -> None:
    svg = figures.to_svg(sample(), alt="A line.", prefix="a")
    for intruder in ("<?xml", "<!DOCTYPE", "<style", "<metadata", "date", "DejaVu", "#ffffff"):
        assert intruder not in svg


def test_two_figures_share_a_page_without_sharing_ids() -> None:
    figure = sample()
    ids = []
    for prefix in ("one", "two"):
        root = ET.fromstring(figures.to_svg(figure, alt="A line.", prefix=prefix))
        own = {e.get("id") for e in root.iter() if e.get("id")}
        text = ET.tostring(root, encoding="unicode")
        assert own
        assert all(str(name).startswith(f"{prefix}-") for name in own)
        referred = re.findall(r'(?:url\(|href=")#([^)"]+)', text)
        assert set(referred) == own, "ids that nothing uses, or references to nothing"
        ids.append(own)
    assert not ids[0] & ids[1]


def test_numbers_are_rounded_but_scales_are_not() -> None:
    document = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 36">'
        '<path d="M 0.12345 -0.001 \nL 10 2.5 \n"'
        ' transform="translate(1.23456 2) scale(0.015625)"/>'
        '<text transform="rotate(-0 1.234 2)">0.12345</text></svg>'
    )
    svg = figures.embed_svg(document, alt="A line.", prefix="a")
    assert 'd="M0.12 0L10 2.5"' in svg
    assert 'transform="translate(1.23 2) scale(0.015625)"' in svg
    assert "<text>0.12345</text>" in svg
    assert "max-width:96px" in svg


def test_embedding_what_is_embedded_changes_nothing_but_the_prefix() -> None:
    once = figures.to_svg(sample(), alt="A line.", prefix="one")
    assert figures.embed_svg(once, alt="A line.", prefix="two") == once.replace("one-", "two-")


def test_figure_stays_open() -> None:
    figure = sample()
    figures.to_svg(figure, alt="A line.", prefix="a")
    assert plt.fignum_exists(figure.number)


@pytest.mark.parametrize(
    ("svg", "alt", "prefix", "message"),
    [
        ("<svg", "A line.", "a", "not an SVG document"),
        ("<p/>", "A line.", "a", "not an SVG document"),
        ("<svg/>", " ", "a", "alt is ' '"),
        ("<svg/>", "A line.", "a b", "prefix 'a b'"),
        ("<svg/>", "A line.", "", "prefix ''"),
    ],
)
def test_wrong_arguments_are_named(svg: str, alt: str, prefix: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figures.embed_svg(svg, alt=alt, prefix=prefix)


@pytest.mark.slow
def test_same_bytes_in_another_process() -> None:
    program = "import test_figures as t; print(t.figures.to_svg(t.sample(), alt='A', prefix='a'))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "MPLBACKEND": "agg"},
            cwd=os.path.dirname(__file__),
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_notebooks_store_svg_that_repeats(
    run_notebook: Callable[..., nbformat.NotebookNode],
) -> None:
    def run() -> str:
        notebook = run_notebook(
            "import matplotlib.pyplot as plt\nfrom slingshot.pages import figures\nfigures.style()",
            "figure, axes = plt.subplots()\naxes.plot([1, 2])\nplt.show()",
        )
        (output,) = notebook.cells[1].outputs
        assert "image/png" not in output.data
        return str(output.data["image/svg+xml"])

    stored = run()
    assert "dc:date" not in stored
    assert 'width="403.2pt"' in stored, "a tight box would change the size of the type"
    assert stored == run()
    assert "currentColor" in figures.embed_svg(stored, alt="A line.", prefix="a")


# --- the form that every machine writes ----------------------------------------------------------


def moved(figure: Figure, by: float) -> tuple[str, str]:
    """Return matplotlib's SVG and ours of the figure with its axes moved by some points."""
    figure.set_layout_engine("none")
    points = figure.get_size_inches() * 72
    left = (52.7199275 + by) / points[0]  # a tie in the sixth decimal
    bottom = (52.135 + by) / points[1]  # and in the second
    figure.axes[0].set_position((left, bottom, 0.5, 0.5))
    plain = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "slingshot"}):
        figure.savefig(plain, format="svg", metadata={"Date": None})
    return plain.getvalue(), figures.raw_svg(figure)


def test_the_last_bit_of_a_layout_changes_no_figure() -> None:
    drawn = [moved(sample(), by) for by in (-1e-11, 0, 1e-11)]
    assert len({plain for plain, _ in drawn}) > 1, "the fault is not there to be caught"
    assert len({ours for _, ours in drawn}) == 1


def test_what_is_seen_to_move_changes_the_figure_and_its_names() -> None:
    one, other = (moved(sample(), by)[1] for by in (0.0, 0.02))
    names = [set(re.findall(r'id="(part[^"]*)"', svg)) for svg in (one, other)]
    assert names[0]
    assert not names[0] & names[1], "on one page a figure would be cut as the other is"


def test_a_form_that_is_there_already_stays() -> None:
    svg = figures.raw_svg(sample())
    assert svg_canvas.same_everywhere(svg) == svg


def test_what_a_part_refers_to_is_there() -> None:
    figure = sample()
    axes = figure.axes[0]
    axes.scatter([0, 1], [1, 0])
    axes.fill_between([0, 1, 2], 0, 1, hatch="/")
    axes.imshow(np.eye(3), extent=(0, 1, 0, 1))
    svg = figures.raw_svg(figure)
    referred = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    ids = re.findall(r'\sid="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert referred
    assert referred <= {name for name in ids if name.startswith("part")}


def test_a_part_that_nothing_refers_to_keeps_no_hash_and_a_name_that_was_given_stays() -> None:
    figure = sample()
    axes = figure.axes[0]
    axes.plot([50, 60], [50, 60], "o")  # out of sight: a marker is defined and not used
    axes.set(xlim=(0, 2), ylim=(0, 1))
    axes.lines[0].set_gid("part0")
    axes.set_title("url(#axes_1)")
    svg = figures.raw_svg(figure)
    ids = re.findall(r'\sid="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert "part0" in ids
    assert not [name for name in ids if re.fullmatch(r"\w*[0-9a-f]{10}", name)]
    assert ">url(#axes_1)</text>" in svg


@pytest.mark.parametrize("form", ["png", "pdf"])
def test_other_formats_are_written_as_before(form: str) -> None:
    out = io.BytesIO()
    figures.style()
    print_figure(sample(), form, **figures._INLINE)  # type: ignore[no-untyped-call]
    sample().savefig(out, format=form, backend="module://slingshot.pages.svg_canvas")
    assert out.getvalue()[:4] in (b"\x89PNG", b"%PDF")


@pytest.mark.parametrize("text", ['d="0.125"', "x = 0.12345", "url(#axes_1)", "5 < 6 > 4"])
def test_words_in_a_figure_stay(text: str) -> None:
    root = ET.fromstring(figures.raw_svg(sample(label=text)))
    assert text in [element.text for element in root.iter(f"{SVG}text")]


def test_scales_and_styles_stay() -> None:
    written = (
        '<g transform="scale(0.015625) translate(1.23456 2)" style="stroke-width: 0.375">'
        '<path d="M 0.125 -0.001 \nL 0.135 5 \nL -0 -0.0 L -12 007.5"/></g>'
    )
    assert svg_canvas.same_everywhere(written) == (
        '<g transform="scale(0.015625) translate(1.23 2)" style="stroke-width: 0.375">'
        '<path d="M 0.12 0 \nL 0.14 5 \nL 0 0 L -12 7.5"/></g>'
    )


def test_a_file_of_bytes_and_a_path_get_the_same(tmp_path: Path) -> None:
    backend = "module://slingshot.pages.svg_canvas"
    sample().savefig(tmp_path / "a.svg", backend=backend, metadata={"Date": None})
    in_bytes = io.BytesIO()
    sample().savefig(in_bytes, format="svg", backend=backend, metadata={"Date": None})
    assert (tmp_path / "a.svg").read_bytes() == in_bytes.getvalue()
    in_text = io.StringIO()
    sample().savefig(in_text, format="svg", backend=backend, metadata={"Date": None})
    assert in_text.getvalue().encode() == in_bytes.getvalue()
    assert b"\r" not in in_bytes.getvalue()


def test_every_stored_figure_is_in_this_form() -> None:
    stored = [
        (path.name, "".join(svg))
        for path in sorted((ROOT / "notebooks").rglob("*.ipynb"))
        for cell in json.loads(path.read_text("utf-8"))["cells"]
        for output in cell.get("outputs", [])
        if (svg := output.get("data", {}).get("image/svg+xml"))
    ]
    assert stored
    assert [name for name, svg in stored if svg_canvas.same_everywhere(svg) != svg] == []
