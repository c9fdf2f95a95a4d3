"""matplotlib's SVG in a form that every machine writes alike.

The layout of a figure adds and divides floats, and the last bit of such a sum differs between
processors. Six decimals show it where a sum ends in a five, and so does a name that matplotlib
makes by hashing coordinates. Here coordinates are rounded to hundredths of a point, which nobody
sees, and names are made from what is drawn after that. `slingshot.pages.figures` draws with it.
"""

import hashlib
import io
import re
from pathlib import Path
from typing import IO, Any, Final

from matplotlib import cbook
from matplotlib.backends.backend_svg import FigureCanvasSVG

_TAG: Final = re.compile(r"<[^!?/][^>]*>")
_PLACE: Final = re.compile(
    r'(?<=\s)(d|x|y|x1|y1|x2|y2|cx|cy|width|height|points|viewBox|transform)="([^"]*)"'
)
_CALL: Final = re.compile(r"(translate|rotate)\(([^)]*)\)")
_DECIMAL: Final = re.compile(r"-?\d*\.\d+")
_REFERENCE: Final = re.compile(r'(?<=url\(#)[^)"]+|(?<=href="#)[^"]+')
_ID: Final = re.compile(r'(?<=\sid=")[^"]+')


class FigureCanvas(FigureCanvasSVG):
    """What ``savefig(..., format="svg", backend="module://slingshot.pages.svg_canvas")`` draws on.

    The class has the name that matplotlib looks for in a backend.
    """

    def print_svg(
        self,
        filename: str | Path | IO[str] | IO[bytes],
        *,
        bbox_inches_restore: object = None,
        metadata: dict[str, Any] | None = None,
        **_: object,  # what matplotlib hands to other formats: resolution, colors, paper
    ) -> None:
        """Write the figure to a path or an open file, as `same_everywhere` says."""
        drawn = io.StringIO()
        super().print_svg(  # type: ignore[no-untyped-call]
            drawn, bbox_inches_restore=bbox_inches_restore, metadata=metadata
        )
        svg = same_everywhere(drawn.getvalue())
        with cbook.open_file_cm(filename, "w", encoding="utf-8") as file:
            write(file, svg)


def write(file: IO[Any], text: str) -> None:
    """Write ``text`` to a file of text or of bytes."""
    file.write(text if cbook.file_requires_unicode(file) else text.encode("utf-8"))


def same_everywhere(svg: str) -> str:
    """Round the coordinates of matplotlib's ``svg`` to 2 decimals (points), and rename its parts.

    Scales and styles stay: a third decimal can be all there is of them, and no layout makes them.
    A part that something refers to is named by its number in a figure that the rest of the name
    tells apart: two documents share a name only where they are equal. What is in this form already
    comes back as it is.
    """
    svg = _TAG.sub(lambda tag: _PLACE.sub(_rounded, tag[0]), svg)
    used = set(_REFERENCE.findall(svg))
    names = [name for name in dict.fromkeys(_ID.findall(svg)) if name in used]
    numbers = {name: f"part{number}" for number, name in enumerate(names)}
    numbered = _renamed(svg, numbers)
    figure = hashlib.sha256(numbered.encode()).hexdigest()[:10]
    return _renamed(numbered, {number: f"{number}-{figure}" for number in numbers.values()})


def _rounded(place: re.Match[str]) -> str:
    """Round the numbers of one attribute."""
    name, value = place.groups()
    if name != "transform":
        return f'{name}="{_round(value)}"'
    return f'{name}="{_CALL.sub(lambda call: f"{call[1]}({_round(call[2])})", value)}"'


def _round(numbers: str) -> str:
    """Round each; matplotlib's six decimals have gone before, so no tie hangs on a last bit."""
    return _DECIMAL.sub(lambda number: f"{round(float(number[0]), 2) + 0:.12g}", numbers)


def _renamed(svg: str, names: dict[str, str]) -> str:
    """Give parts new names where they stand and where they are referred to."""
    for pattern in (_ID, _REFERENCE):
        svg = pattern.sub(lambda name: names.get(name[0], name[0]), svg)
    return svg
