"""The look of every figure, and a matplotlib figure as SVG that belongs to the page it stands on.

A page has a light and a dark theme, and a figure is stored once. So the background is transparent,
data colors are readable on both pages, and the one gray that draws axes and text is replaced on the
page by ``currentColor``: the color of the text around the figure.
"""

import io
import re
import xml.etree.ElementTree as ET
from typing import Any, Final

import matplotlib as mpl
from cycler import cycler
from IPython import get_ipython
from matplotlib.figure import Figure

INK: Final = "#70777f"
"""Axes, ticks and text. Readable on white (4.5:1) and on the dark page (3.9:1); on the book's
pages it gives way to the color of the text."""

PALETTE: Final = {
    "blue": "#2c6bf9",
    "orange": "#cf7c07",
    "green": "#02a670",
    "red": "#b7412e",
    "violet": "#7e7edb",
    "mauve": "#b1619a",
}
"""Colors of data, in the order in which lines take them. Each has a contrast of at least 3:1 with
both pages, and any two stay apart in deuteranopia and protanopia (the test-suite computes both)."""

SEQUENTIAL: Final = "cividis"
"""The color map of heat maps: its lightness rises steadily, which every reader sees."""

# Whatever matplotlib draws in black by default is text or axis, so it takes the ink.
_INKED = sorted(name for name, value in mpl.rcParamsDefault.items() if value == "black")

RC: Final[dict[Any, Any]] = {
    **dict.fromkeys(_INKED, INK),
    # Small in inches and large in type: a phone shows the figure 330 pixels wide.
    "figure.figsize": (5.6, 3.4),
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.prop_cycle": cycler(color=PALETTE.values()),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "axes.axisbelow": True,
    "font.size": 12,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "image.cmap": SEQUENTIAL,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "slingshot",
}

# Tight boxes would give every figure another width, and so another size of type on the page.
_INLINE: Final[dict[str, Any]] = {
    "bbox_inches": None,
    "metadata": {"Date": None, "Creator": None},
    "backend": "module://slingshot.pages.svg_canvas",  # the same bytes on every machine
}

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"
_DECIMAL = re.compile(r"-?\d*\.\d+")
_REFERENCE = re.compile(r"url\(#([^)]+)\)|^#(.+)")
_PREFIX = re.compile(r"[^\s\"'()<>&#]+")


def style() -> None:
    """Give every figure that follows the look of the course; call it once, atop a notebook.

    In a notebook it also makes the stored figures SVG without dates, in the form of
    `slingshot.pages.svg_canvas`, so that they come out the same each time and on each machine.
    """
    mpl.rcParams.update(RC)
    if shell := get_ipython():
        from matplotlib_inline.config import InlineBackend

        # The traits rather than set_matplotlib_formats: the latter is undone when the inline
        # backend starts up, which happens with the first figure.
        inline = InlineBackend.instance(parent=shell)
        inline.shell = shell
        inline.print_figure_kwargs = _INLINE
        inline.figure_formats = {"svg"}


def to_svg(figure: Figure, *, alt: str, prefix: str) -> str:
    """Draw ``figure`` as an ``<svg>`` element for a page, as `embed_svg` says; it stays open."""
    return embed_svg(raw_svg(figure), alt=alt, prefix=prefix)


def raw_svg(figure: Figure) -> str:
    """Draw ``figure`` as matplotlib's own SVG document, the same bytes each time."""
    out = io.StringIO()
    with mpl.rc_context({name: RC[name] for name in ("svg.fonttype", "svg.hashsalt")}):
        figure.savefig(out, format="svg", **_INLINE)
    return out.getvalue()


def embed_svg(svg: str, *, alt: str, prefix: str) -> str:
    """Turn matplotlib's SVG document into an ``<svg>`` element that can share a page with others.

    ``alt`` says in words what the figure shows. Every id begins with ``prefix``, which must be
    unique on the page. The gray `INK` becomes ``currentColor``, the font is the page's, numbers
    are rounded to 2 decimals (points), and metadata and unused ids go.

    Raises ``ValueError`` if ``alt`` is blank, ``prefix`` cannot begin an id, or ``svg`` is not SVG.
    """
    if not alt.strip():
        raise ValueError(f"alt is {alt!r}; say in a sentence what the figure shows")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"prefix {prefix!r} cannot begin an id; use letters, digits and hyphens")
    root = _parse(svg)
    _prune(root)
    ids = _new_ids(root, prefix)
    for element in root.iter():
        cleaned = (
            (name.removeprefix(_XLINK), _clean(name.removeprefix(_XLINK), value, ids))
            for name, value in element.attrib.items()
        )
        element.attrib = {name: value for name, value in cleaned if value}
    _unwrap(root)
    _set_root(root, alt)
    return ET.tostring(root, encoding="unicode")


def _parse(svg: str) -> ET.Element:
    try:
        root = ET.fromstring(svg)
    except ET.ParseError as error:
        raise ValueError(f"not an SVG document ({error}): {svg[:60]!r}") from error
    if root.tag != f"{_SVG}svg" or "viewBox" not in root.attrib:
        raise ValueError(f"not an SVG document with a viewBox: {svg[:60]!r}")
    return root


def _prune(element: ET.Element) -> None:
    """Drop namespaces, metadata, indentation, and the style sheet, which would leak to the page."""
    element.tag = element.tag.removeprefix(_SVG)
    for child in list(element):
        child.tail = None
        _prune(child)
        empty_defs = child.tag == "defs" and not len(child)
        if child.tag in ("metadata", "style") or empty_defs:
            element.remove(child)
    if element.tag not in ("text", "tspan") or len(element):
        element.text = None


def _unwrap(element: ET.Element) -> None:
    """Replace every group that carries no attribute by what it holds."""
    for child in list(element):
        _unwrap(child)
        if child.tag == "g" and not child.attrib:
            place = list(element).index(child)
            element[place : place + 1] = list(child)


def _new_ids(root: ET.Element, prefix: str) -> dict[str, str]:
    """Number the ids that something refers to."""
    used = {
        match[1] or match[2]
        for element in root.iter()
        for value in element.attrib.values()
        for match in _REFERENCE.finditer(value)
    }
    names = [name for element in root.iter() if (name := element.get("id")) in used]
    return {name: f"{prefix}-{number}" for number, name in enumerate(names) if name}


def _clean(name: str, value: str, ids: dict[str, str]) -> str:
    """Rewrite the value of one attribute or style property; an empty one is dropped."""
    if name == "id":
        return ids.get(value, "")
    value = _REFERENCE.sub(
        lambda match: match[0].replace(old := match[1] or match[2], ids.get(old, old)), value
    )
    if name == "style":
        pairs = re.findall(r"([\w-]+)\s*:\s*([^;]+)", value)
        cleaned = ((key, _clean(key, text.strip(), ids)) for key, text in pairs)
        return ";".join(f"{key}:{text}" for key, text in cleaned if text)
    if name == "font-family":
        return "monospace" if "monospace" in value.lower() else ""
    if name == "href":
        return "".join(value.split())
    if name == "transform":
        return _clean_transform(value)
    if value.lower() == INK:
        return "currentColor"
    value = _round(value)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", value).strip() if name == "d" else value


def _clean_transform(value: str) -> str:
    """Round shifts and turns; leave scales, where the third decimal can be all there is."""
    calls = re.findall(r"(\w+)\(([^)]*)\)", value)
    return " ".join(
        f"{name}({_round(numbers) if name in ('translate', 'rotate') else numbers})"
        for name, numbers in calls
        if not (name == "rotate" and float(numbers.split()[0]) == 0)
    )


def _round(text: str) -> str:
    return _DECIMAL.sub(lambda match: f"{round(float(match[0]), 2) + 0:.12g}", text)


def _set_root(root: ET.Element, alt: str) -> None:
    width = float(root.attrib["viewBox"].split()[2]) * 4 / 3  # points to CSS pixels
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": alt,
        "style": f"width:100%;max-width:{width:.0f}px;height:auto;font-family:inherit;"
        "stroke-linejoin:round;stroke-linecap:butt",
    }
