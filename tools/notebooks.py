"""Re-execute the notebooks and store their outputs in one normal form.

Running it twice changes no byte: metadata is fixed, and timings, widget state and random cell ids
are left out. A cell tagged ``nbval-ignore-output`` measures the machine, so it keeps its stored
output while a fresh one differs in nothing but numbers; clear it to measure anew. A notebook in
which a cell raises stays on disk as it was.
"""

import argparse
import asyncio
import copy
import datetime
import hashlib
import itertools
import json
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console  # noqa: E402
from tools.common.files import write_atomically  # noqa: E402

console.prepare("make setup")

import nbformat  # noqa: E402
from nbclient import NotebookClient  # noqa: E402
from nbclient.exceptions import (  # noqa: E402
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)
from nbformat import NotebookNode  # noqa: E402

FOLDER = ROOT / "notebooks"

SECONDS = FOLDER / "seconds.json"

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE_INFO = {"name": "python", "pygments_lexer": "ipython3"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
MEASURES = "nbval-ignore-output"


class NotebookError(Exception):
    """A notebook that could not be executed, as one line for the person at the terminal."""


def main(argv: Sequence[str] | None = None) -> int:
    """Execute the notebooks; return 1 when one raises, or when ``--check`` finds a difference."""
    args = parse_arguments(argv)
    try:
        paths = [find(name) for name in args.notebooks] or sorted(FOLDER.glob("*.ipynb"))
        if not paths:
            raise NotebookError(f"no notebooks in {FOLDER}")
        seconds: dict[str, float] = {}
        changed = [p for p in paths if refresh(p, args.timeout, seconds, write=not args.check)]
        if args.record:
            record_seconds(SECONDS, seconds)
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted; every notebook on disk is whole", file=sys.stderr)
        return 130
    if args.check and changed:
        names = ", ".join(display_name(path) for path in changed)
        print(f"would change: {names}; run `make notebooks`", file=sys.stderr)
    return 1 if args.check and changed else 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "notebooks",
        nargs="*",
        help="paths, or names in notebooks/ (default: all of notebooks/*.ipynb, without folders)",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a notebook would change"
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help=f"note in {SECONDS.name} how long each took, for the colophon of the book",
    )
    parser.add_argument(
        "--timeout", type=int, default=300, help="seconds per cell (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if args.record and (args.notebooks or args.check):
        parser.error("--record is for a run of all notebooks: one record, one machine, one day")
    return args


def find(name: str) -> Path:
    """Return the notebook that ``name`` means: a path, or a name with or without its suffix."""
    for path in (Path(name), FOLDER / name, FOLDER / f"{name}.ipynb"):
        if path.is_file():
            return path.resolve()
    known = ", ".join(path.stem for path in sorted(FOLDER.glob("*.ipynb"))) or "none"
    raise NotebookError(f"no notebook {name!r}; there are: {known}")


def display_name(path: Path) -> str:
    """Return the path as seen from the project, or in full when it lies elsewhere."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def refresh(path: Path, timeout: int, seconds: dict[str, float], *, write: bool) -> bool:
    """Execute one notebook and note its ``seconds``; return whether the result differs.

    It is stored if it does and ``write`` is set.
    """
    started = time.monotonic()
    print(f"{display_name(path)} ... ", end="", flush=True)
    before = path.read_text("utf-8")
    try:
        stored = parse(before, path)
        fresh = normalize(execute(copy.deepcopy(stored), path, timeout))
        after = serialize(keep_measurements(fresh, stored))
    except BaseException:
        print("stopped", flush=True)
        raise
    changed = after != before
    if changed and write:
        write_atomically(path, after)
    verdict = "unchanged" if not changed else "stored" if write else "differs"
    seconds[path.stem] = round(time.monotonic() - started, 1)
    print(f"{seconds[path.stem]:.1f} s, {verdict}", flush=True)
    return changed


def parse(text: str, path: Path) -> NotebookNode:
    """Read a notebook, giving an id to every cell that has none of its own."""
    try:
        content = json.loads(text)
        if content["nbformat"] != 4:
            raise NotebookError(f"{display_name(path)}: format {content['nbformat']} is not 4")
        add_cell_ids(content["cells"])
        content["nbformat_minor"] = 5
        notebook: NotebookNode = nbformat.reads(json.dumps(content), as_version=4)  # type: ignore[no-untyped-call]
    except (ValueError, KeyError, TypeError) as error:
        raise NotebookError(f"{display_name(path)} is not a notebook: {error!r}") from error
    return notebook


def add_cell_ids(cells: list[dict[str, Any]]) -> None:
    """Give every cell without an id, or with an earlier cell's, one that follows from its text."""
    taken: set[str] = set()
    for cell in cells:
        source = "".join(cell["source"])
        number = 0
        while not cell.get("id") or cell["id"] in taken:
            cell["id"] = hashlib.sha256(f"{number} {source}".encode()).hexdigest()[:8]
            number += 1
        taken.add(cell["id"])


def execute(notebook: NotebookNode, path: Path, timeout: int) -> NotebookNode:
    """Run all cells in the notebook's own folder; raise ``NotebookError`` naming the bad cell."""
    current = 0

    def note_cell(cell: NotebookNode, cell_index: int) -> None:
        nonlocal current
        current = cell_index

    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        # The kernel warns at every start that its local connection is not encrypted.
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=note_cell,
    )
    try:
        client.execute()
    except CellTimeoutError as error:
        raise NotebookError(f"{place(path, notebook, current)} ran over {timeout} s") from error
    except CellExecutionError as error:
        what = " ".join(f"{error.ename}: {error.evalue}".split())
        raise NotebookError(f"{place(path, notebook, current)} raised {what}") from error
    except DeadKernelError as error:
        raise NotebookError(f"{place(path, notebook, current)} killed its kernel") from error
    except AssertionError as error:
        # nbclient answers Ctrl-C by stopping the kernel, and then trips over its absence. An
        # assertion that fails in a cell is a CellExecutionError.
        raise KeyboardInterrupt from error
    except RuntimeError as error:
        raise NotebookError(f"{display_name(path)}: the kernel does not start: {error}") from error
    return notebook


def place(path: Path, notebook: NotebookNode, index: int) -> str:
    """Return where a cell stands: the notebook, its number in all and among the code cells."""
    code = sum(cell["cell_type"] == "code" for cell in notebook.cells[: index + 1])
    return f"{display_name(path)}: cell {index + 1} (code cell {code})"


def normalize(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook without all that differs between two equal runs."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.update(kernelspec=KERNELSPEC, language_info=LANGUAGE_INFO)
    count = 0
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        # Jupyter gives no number to an empty cell.
        empty = not cell.source.strip()
        count += not empty
        cell.execution_count = None if empty else count
        cell.outputs = [normalize_output(out, count) for out in merge_streams(cell.outputs)]
    return notebook


def keep_measurements(fresh: NotebookNode, stored: NotebookNode) -> NotebookNode:
    """Return ``fresh`` with the stored output of cells that measure, if only numbers differ."""
    for cell, old in zip(fresh.cells, stored.cells, strict=True):
        if MEASURES in cell.metadata.get("tags", []) and (
            _without_numbers(cell.outputs) == _without_numbers(old.outputs)
        ):
            cell.outputs = old.outputs
    return fresh


def _without_numbers(outputs: list[NotebookNode]) -> str:
    """The outputs as text, with a mark for each number and each run of spaces."""
    return re.sub(r"\d[\d.,]*", "0", re.sub(r" +", " ", json.dumps(outputs, sort_keys=True)))


def normalize_output(output: NotebookNode, number: int) -> NotebookNode:
    """Drop the widget's view, whose ids are random; its static twin and its text stay."""
    for part in ("data", "metadata"):
        output.get(part, {}).pop(WIDGET_VIEW, None)
    if output.output_type == "execute_result":
        output.execution_count = number
    return output


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighboring pieces of text, which the kernel cuts where its clock happens to tick.

    Between two other outputs at most one piece of standard output stays, then one of errors.
    """
    merged: list[NotebookNode] = []
    for is_stream, group in itertools.groupby(outputs, lambda out: out.output_type == "stream"):
        pieces = list(group)
        if not is_stream:
            merged += pieces
            continue
        for name in ("stdout", "stderr"):
            text = "".join(piece.text for piece in pieces if piece.name == name)
            if text:
                merged.append(nbformat.v4.new_output("stream", name=name, text=text))  # type: ignore[no-untyped-call]
    return merged


def record_seconds(file: Path, seconds: dict[str, float]) -> None:
    """Write the seconds with what they were measured on."""
    record = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "seconds": dict(sorted(seconds.items())),
    }
    write_atomically(file, json.dumps(record, indent=1) + "\n")


def serialize(notebook: NotebookNode) -> str:
    """Return the text of the notebook's file; raise ``ValidationError`` if it is malformed."""
    nbformat.validate(notebook)
    text: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    return text.rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.exit(main())
