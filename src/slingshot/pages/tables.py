"""A table that can be read on a page, in JupyterLab, on a phone, and in a terminal.

On a page and in JupyterLab it is HTML with a caption and header cells, which scrolls within itself
where it is wider than the page. Beside it is stored the same table as aligned text, for a terminal
and for whoever compares outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from numbers import Real
from typing import Any, Final

Cell = str | float | None
"""What stands in a table: a text, a number, or nothing, which is shown as a dash."""

NOTHING: Final = "–"
_SCROLLS: Final = "overflow-x:auto;max-width:100%"
_CAPTION: Final = "caption-side:top;text-align:left;white-space:normal"


@dataclass(frozen=True)
class Table:
    """What `table` returns; the last line of a cell shows it, and so does ``display``.

    ``rows`` are texts, as they are shown; ``is_number`` says of each column whether it is aligned
    to the right.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_number: tuple[bool, ...]

    def __repr__(self) -> str:
        """Return the table as aligned text, the caption above it."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        texts = [
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, self.is_number, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.caption, *texts])

    def _repr_html_(self) -> str:
        """Return the table as HTML: the first cell of a row is the header of the row."""
        head = "".join(
            f'<th scope="col"{_align(right)}>{escape(name)}</th>'
            for name, right in zip(self.header, self.is_number, strict=True)
        )
        body = "\n".join(f"<tr>{self._cells(row)}</tr>" for row in self.rows)
        return (
            f'<div class="course-table" style="{_SCROLLS}" tabindex="0" role="region"'
            f' aria-label="{escape(self.caption)}">\n<table class="table">\n'
            f'<caption style="{_CAPTION}">{escape(self.caption)}</caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
        )

    def _cells(self, row: Sequence[str]) -> str:
        first, *rest = (
            f"{_align(right)}>{escape(cell)}"
            for cell, right in zip(row, self.is_number, strict=True)
        )
        return f'<th scope="row"{first}</th>' + "".join(f"<td{cell}</td>" for cell in rest)


def table(
    rows: Sequence[Sequence[Any]],
    *,
    header: Sequence[str],
    caption: str,
    formats: Sequence[str] = (),
) -> Table:
    """Return a table to show: ``rows`` of cells under a ``header``, with a ``caption``.

    The first cell of a row names the row. A cell is a text, a number or ``None``. Numbers are
    written as their column's entry of ``formats`` says, for example ``".1%"`` or ``",.0f"``; an
    entry ``""``, or a missing one, writes a number as it is, which a float must not be. A column of
    numbers is aligned to the right, and so is one of texts that begin with a digit or a sign.

    Raises ``ValueError`` for rows of another length than the header, for a blank caption, for more
    formats than columns, and for a float without a format: its digits would be an accident.
    """
    header = tuple(header)
    if not caption.strip():
        raise ValueError(f"caption is {caption!r}; say in a few words what the numbers are")
    if len(formats) > len(header):
        raise ValueError(f"{len(formats)} formats for {len(header)} columns; give one a column")
    specs = [*formats, *[""] * (len(header) - len(formats))]
    shown = []
    for row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"the row {list(row)!r} has {len(row)} cells and the header {len(header)}; "
                "give one for each"
            )
        shown.append(tuple(_text(cell, spec) for cell, spec in zip(row, specs, strict=True)))
    columns = [[row[index] for row in shown] for index in range(len(header))]
    return Table(caption, header, tuple(shown), tuple(map(_is_number, columns)))


def _text(cell: Any, spec: str) -> str:  # noqa: ANN401 whatever a caller puts in a table
    """Write one cell."""
    if cell is None:
        return NOTHING
    if isinstance(cell, str):
        return cell
    if hasattr(cell, "item"):  # NumPy's or torch's number
        cell = cell.item()
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if not spec and isinstance(cell, Real) and not isinstance(cell, int):
        raise ValueError(f"the cell {cell!r} is a float; give its column a format, such as '.2f'")
    return format(cell, spec).replace("-", "\N{MINUS SIGN}") if spec else str(cell)


def _is_number(column: Sequence[str]) -> bool:
    """Whether a column reads as numbers: at least one, and nothing else."""
    told = [cell for cell in column if cell != NOTHING]
    return bool(told) and all(cell.lstrip("+\N{MINUS SIGN}-~<>≤≥")[:1].isdigit() for cell in told)


def _align(right: bool) -> str:
    return ' style="text-align:right"' if right else ' style="text-align:left"'
