"""matplotlib's SVG in a form that every machine writes alike.

The layout of a figure adds and divides floats, and the last bit of such a sum differs between
processors. Six decimals show it where a sum ends in a five, and so does a name that matplotlib
makes by hashing coordinates. Here coordinates are rounded to hundredths of a point, which nobody
sees, and names are made from what is drawn after that. `slingshot.pages.figures` draws with it.

Two things are left. A coordinate that lies half-way between two hundredths, to the last bit, may
still fall to either. And a picture of pixels is compressed by libraries that may differ.
"""

import hashlib
import io
import re
from os import PathLike
from pathlib import Path
from typing import IO, Any, Final

from matplotlib import cbook
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG

_TAG: Final = re.compile(r"<[^!?/][^>]*>")
_PLACE: Final = re.compile(
    r'(?<=\s)(d|x|y|x1|y1|x2|y2|cx|cy|width|height|points|viewBox|transform)="([^"]*)"'
)
_CALL: Final = re.compile(r"(translate|rotate)\(([^)]*)\)")
_NUMBER: Final = re.compile(r"-?(?:\d+\.?\d*|\.\d+)")
_REFERENCE: Final = re.compile(r'(?<=url\(#)[^)"]+|(?<=href="#)[^"]+')
_ID: Final = re.compile(r'(?<=\sid=")[^"]+')
_HASHED: Final = re.compile(r"\w*[0-9a-f]{10}")


class FigureCanvas(FigureCanvasAgg):
    """What ``savefig(..., backend="module://slingshot.pages.svg_canvas")`` draws on.

    The class has the name that matplotlib looks for in a backend. Of the other formats it writes
    PDF and those of Agg, as matplotlib does.
    """

    def print_svg(
        self,
        filename: str | PathLike[str] | IO[str] | IO[bytes],
        *,
        bbox_inches_restore: object = None,
        metadata: dict[str, Any] | None = None,
        **_: object,  # what matplotlib hands to other formats: resolution, colors, paper
    ) -> None:
        """Write the figure to a path or an open file, as `same_everywhere` says."""
        drawn = io.StringIO()
        FigureCanvasSVG(self.figure).print_svg(  # type: ignore[no-untyped-call]
            drawn, bbox_inches_restore=bbox_inches_restore, metadata=metadata
        )
        svg = same_everywhere(drawn.getvalue())
        if isinstance(filename, str | PathLike):
            Path(filename).write_bytes(svg.encode("utf-8"))  # a text file's newlines differ
        elif cbook.file_requires_unicode(filename):
            filename.write(svg)  # type: ignore[call-overload]
        else:
            filename.write(svg.encode("utf-8"))  # type: ignore[arg-type]

    def print_pdf(
        self,
        filename: str | PathLike[str] | IO[bytes],
        *,
        bbox_inches_restore: object = None,
        metadata: dict[str, Any] | None = None,
        **_: object,
    ) -> None:
        """Write the figure as matplotlib's own PDF."""
        FigureCanvasPdf(self.figure).print_pdf(  # type: ignore[no-untyped-call]
            filename, bbox_inches_restore=bbox_inches_restore, metadata=metadata
        )


def same_everywhere(svg: str) -> str:
    """Round the coordinates of matplotlib's ``svg`` to 2 decimals (points), and rename its parts.

    Scales and styles stay: a third decimal can be all there is of them, and no layout makes them.
    Words stay. A part that something refers to, or that has a hash for a name, is named by its
    number and by what the whole figure is: two documents share a name only where they are equal.
    What is in this form already comes back as it is.
    """
    svg = _TAG.sub(lambda tag: _PLACE.sub(_rounded, tag[0]), svg)
    tags = "".join(_TAG.findall(svg))
    used = set(_REFERENCE.findall(tags))
    names = [
        name for name in dict.fromkeys(_ID.findall(tags)) if name in used or _HASHED.fullmatch(name)
    ]
    numbers = {name: f"\0{number}" for number, name in enumerate(names)}  # no document has a zero
    numbered = _renamed(svg, numbers)
    figure = hashlib.sha256(numbered.encode()).hexdigest()[:10]
    return _renamed(numbered, {n: f"part{n[1:]}-{figure}" for n in numbers.values()})


def _rounded(place: re.Match[str]) -> str:
    """Round the numbers of one attribute."""
    name, value = place.groups()
    if name != "transform":
        return f'{name}="{_round(value)}"'
    return f'{name}="{_CALL.sub(lambda call: f"{call[1]}({_round(call[2])})", value)}"'


def _round(numbers: str) -> str:
    """Round each, and write 0 for what is -0."""
    return _NUMBER.sub(lambda number: f"{round(float(number[0]), 2) + 0:.12g}", numbers)


def _renamed(svg: str, names: dict[str, str]) -> str:
    """Give parts new names where they stand and where they are referred to."""

    def rename(tag: re.Match[str]) -> str:
        text = tag[0]
        for pattern in (_ID, _REFERENCE):
            text = pattern.sub(lambda name: names.get(name[0], name[0]), text)
        return text

    return _TAG.sub(rename, svg)
