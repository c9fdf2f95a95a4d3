"""A submitted notebook, read with suspicion: what it is, and why it is none if it is none."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from slingshot_grader.assignment import Assignment, grade_id_of
from slingshot_grader.files import UnreadableError, read_regular
from slingshot_grader.outcome import clean

LARGEST_NOTEBOOK = 30_000_000
MOST_CELLS = 1000
LARGEST_CELL = 1_000_000
KINDS = ("code", "markdown", "raw")
MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True)
class Cell:
    """A cell of a submission: its text and its grade id, empty for the learner's own cells."""

    source: str
    grade_id: str
    raw: Any
    kind: str = "code"


def read_cells(path: Path) -> list[Cell]:
    """Return all cells; raise ``UnreadableError``, with the reason, when there are none."""
    data = read_regular(path, LARGEST_NOTEBOOK)
    if not data.strip():
        raise UnreadableError("an empty file")
    if encoding := MARKS.get(data[:2]):
        raise UnreadableError(f"the file is in {encoding}; a notebook is in UTF-8")
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UnreadableError("not a notebook: the file is no text in UTF-8") from None
    except (ValueError, RecursionError):
        raise UnreadableError("not a notebook: the file is not JSON") from None
    major = content.get("nbformat") if isinstance(content, dict) else None
    if isinstance(major, int) and major > nbformat.current_nbformat:
        raise UnreadableError(f"a notebook of format {str(major)[:20]}; format 4 can be read")
    try:
        # Only older formats need nbformat, which is slow with thousands of cells.
        notebook = content if major == 4 else nbformat.convert(as_notebook(content), 4)  # type: ignore[no-untyped-call]
        cells = notebook["cells"]
        if len(cells) > MOST_CELLS:
            raise UnreadableError(f"{len(cells)} cells; at most {MOST_CELLS} are read")
        return [read_cell(cell) for cell in cells]
    except UnreadableError:
        raise
    except Exception:  # a stranger's JSON may be anything
        raise UnreadableError("not a notebook: there are no cells in it") from None


def as_notebook(content: Any) -> Any:  # noqa: ANN401 a stranger's JSON
    """The JSON of an older format as nbformat wants it."""
    return nbformat.reads(json.dumps(content), as_version=4)  # type: ignore[no-untyped-call]


def read_cell(cell: Any) -> Cell:  # noqa: ANN401 a stranger's JSON
    """Return one cell; raise of all kinds where it is none."""
    kind = cell["cell_type"]
    if kind not in KINDS:
        raise ValueError(f"a cell of type {str(kind)[:40]!r}")
    source = cell["source"]
    if isinstance(source, list):
        source = "".join(str(line) for line in source)
    if not isinstance(source, str):
        source = ""
    if len(source) > LARGEST_CELL:
        raise UnreadableError(f"a cell of {len(source)} letters; at most {LARGEST_CELL} are read")
    return Cell(clean(source), grade_id_of(cell), cell, kind)


def guess_assignment(path: Path, assignments: dict[str, Assignment]) -> str:
    """The assignment that most of a notebook's grade ids belong to, empty if there is none."""
    try:
        ids = {cell.grade_id for cell in read_cells(path)}
    except UnreadableError:
        ids = set()
    shared = {name: len(ids & each.ids) for name, each in assignments.items()}
    best = max(shared, key=lambda name: shared[name])
    if shared[best]:
        return best
    return path.stem if path.stem in assignments else ""


def is_begun(path: Path, assignment: Assignment) -> bool:
    """Whether an answer is no longer as it was handed out."""
    try:
        cells = read_cells(path)
    except UnreadableError:
        return True
    out = {name: assignment.handed_out[name].source for name in assignment.answers}
    return any(cell.source != out.get(cell.grade_id, cell.source) for cell in cells)
