"""Open JupyterLab on the learner's own copies of the notebooks, in workspace/.

A notebook is copied only where workspace/ has none of its name; a learner's file is never
overwritten. What the course has changed since it was handed out is named.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat.sign import NotebookNotary

ROOT = Path(__file__).resolve().parent.parent
RECORD = ".handed_out.json"


@dataclass
class Handout:
    """What one preparation of the workspace did, by the notebooks' names."""

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare workspace/ and, unless told not to, replace this process by JupyterLab."""
    args = parse_arguments(argv)
    try:
        handout = prepare(ROOT / "notebooks", args.workspace)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    for line in report(handout, args.workspace):
        print(line, flush=True)
    if args.prepare_only:
        return 0
    browser = ["--no-browser"] if args.no_browser else []
    command = [sys.executable, "-m", "jupyterlab", *browser, *args.jupyter_arguments]
    os.chdir(args.workspace)
    os.execv(sys.executable, command)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--prepare-only", action="store_true", help="copy, but start nothing")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    parser.add_argument(
        "--workspace",
        type=Path,
        default=ROOT / "workspace",
        help="where the copies live (default: %(default)s)",
    )
    parser.add_argument(
        "jupyter_arguments", nargs="*", metavar="ARG", help="after --, arguments for jupyter lab"
    )
    return parser.parse_args(argv)


def prepare(course: Path, workspace: Path) -> Handout:
    """Copy what is absent from ``workspace`` and note the hash of what was handed out."""
    workspace.mkdir(parents=True, exist_ok=True)
    record = read_record(workspace)
    handout = Handout()
    for source in sorted(course.glob("*.ipynb")):
        content = source.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        try:
            # "x" creates or fails: no race can overwrite what the learner has just saved.
            with open(workspace / source.name, "xb") as copy:
                copy.write(content)
        except FileExistsError:
            if record.get(source.name, digest) != digest:
                handout.changed.append(source.name)
        else:
            trust(workspace / source.name)
            record[source.name] = digest
            handout.new.append(source.name)
            write_record(workspace, record)
    return handout


def trust(notebook: Path) -> None:
    """Sign a fresh copy, so that JupyterLab lets the scripts of its stored figures run."""
    NotebookNotary().sign(nbformat.read(notebook, as_version=4))  # type: ignore[no-untyped-call]


def read_record(workspace: Path) -> dict[str, str]:
    """Return the hashes of what was handed out; nothing when the record is absent or damaged."""
    try:
        record = json.loads((workspace / RECORD).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(record, dict):
        return {}
    return {str(name): str(digest) for name, digest in record.items()}


def write_record(workspace: Path, record: dict[str, str]) -> None:
    """Replace the record in one step."""
    temporary = workspace / f"{RECORD}.part"
    temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", "utf-8")
    os.replace(temporary, workspace / RECORD)


def report(handout: Handout, workspace: Path) -> list[str]:
    """Return the lines that tell the learner what is new and what the course has changed."""
    lines = [f"new in {workspace.name}/: {name}" for name in handout.new]
    lines += [
        f"the course has changed {name} since you got it; yours is untouched. To get the new one, "
        f"rename {workspace.name}/{name} and run this again"
        for name in handout.changed
    ]
    return lines or [f"{workspace.name}/ has every notebook of the course"]


if __name__ == "__main__":
    sys.exit(main())
