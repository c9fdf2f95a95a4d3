"""Open JupyterLab on the learner's own copies of the chapters and assignments, in workspace/.

What a learner has worked in is never overwritten. When the course has changed a notebook, a copy
that is still as it was handed out is replaced by the new edition. Any other copy stays, and the new
edition is put beside it on request.
"""

import argparse
import hashlib
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console  # noqa: E402
from tools.common.files import write_atomically  # noqa: E402

console.prepare("make setup")

import nbformat  # noqa: E402
from jupyter_core.paths import (  # noqa: E402
    jupyter_config_dir,
    jupyter_data_dir,
    jupyter_runtime_dir,
)
from nbformat.sign import NotebookNotary  # noqa: E402

from tools import copies, show_progress, start_page  # noqa: E402

SERVER = ROOT / "tools" / "lab_server.py"
CONFIG = ROOT / "tools" / "lab_config"
RECORD = ".handed_out.json"
SECONDS_FOR_PROGRESS = 10.0


@dataclass
class Handout:
    """What one preparation of the workspace did, by the notebooks' names."""

    new: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare workspace/ and, unless told not to, replace this process by JupyterLab."""
    args = parse_arguments(argv)
    course = ROOT / "notebooks"
    try:
        find_room_for_jupyter()
        handout = prepare(course, args.workspace, beside=args.new_editions)
        print(*report(handout, args.workspace), sep="\n", flush=True)
        standing: dict[str, str] = {}
        if not args.prepare_only:
            standing, lines = short_progress(course, args.workspace)
            print(*lines, sep="\n", flush=True)
        write_start_page(args.workspace, standing)
        if args.prepare_only:
            return 0
    except (OSError, copies.NotShownError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; every notebook is whole", file=sys.stderr)
        return 130
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(
        filter(None, [str(CONFIG), os.environ.get("JUPYTER_CONFIG_PATH")])
    )
    os.chdir(args.workspace)
    os.execv(sys.executable, command_of(args))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--prepare-only", action="store_true", help="copy, but start nothing")
    parser.add_argument(
        "--new-editions",
        action="store_true",
        help="where you have worked and the course has changed, put its new edition beside yours",
    )
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


def command_of(args: argparse.Namespace) -> list[str]:
    """The command that starts JupyterLab at the start page, with the course's look."""
    start = f"--LabApp.default_url=/lab/tree/{start_page.NAME}"
    browser = ["--no-browser"] if args.no_browser else []
    return [sys.executable, str(SERVER), start, *browser, *args.jupyter_arguments]


def find_room_for_jupyter() -> None:
    """Raise ``OSError`` in words where JupyterLab, or its record of trust, could not write."""
    for folder in (jupyter_data_dir(), jupyter_runtime_dir(), jupyter_config_dir()):
        try:
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OSError(
                f"Jupyter must write in {folder} and cannot ({error.strerror}): set HOME to a "
                "folder that you can write, for example HOME=/tmp/home make lab"
            ) from error


def editions(course: Path) -> dict[str, bytes]:
    """What the course hands out: the chapters, and the student edition of each assignment.

    They read like the book: what Sphinx looks up in a chapter, a copy has as text and links.
    """
    written = copies.Course(course.parent)
    released = course / "assignments" / "release"
    paths = [*sorted(course.glob("*.ipynb")), *sorted(released.glob("*.ipynb"))]
    chapters = [path.relative_to(course.parent).with_suffix("").as_posix() for path in paths]
    return {copies.home_of(chapter): written.copy(chapter) for chapter in chapters}


def prepare(course: Path, workspace: Path, *, beside: bool = False) -> Handout:
    """Bring ``workspace`` up to date and note the hash of what was handed out."""
    (workspace / show_progress.FOLDER).mkdir(parents=True, exist_ok=True)
    record = read_record(workspace)
    handout = Handout()
    for name, content in editions(course).items():
        mine, handed_out = workspace / name, record.get(name, "")
        if create(mine, content):
            handout.new.append(name)
        elif digest(mine.read_bytes()) != digest(content):
            if handed_out in ("", digest(content)):
                continue  # the learner's work, or a file of the learner's that has this name
            if replace_untouched(mine, content, handed_out):
                handout.updated.append(name)
            elif beside:
                other = put_beside(mine, content)
                handout.beside.append(other.relative_to(workspace).as_posix())
            else:
                handout.changed.append(name)
                continue
        if handed_out != digest(content):
            record[name] = digest(content)
            write_record(workspace, record)
    return handout


def digest(content: bytes) -> str:
    """The hash by which a copy is known again."""
    return hashlib.sha256(content).hexdigest()


def create(path: Path, content: bytes) -> bool:
    """Write a notebook and trust it; return False, and do nothing, where there is a file."""
    try:
        # "x" creates or fails: no race can overwrite what the learner has just saved.
        with open(path, "xb") as file:
            try:
                file.write(content)
            except BaseException:
                path.unlink()
                raise
    except FileExistsError:
        return False
    trust(path)
    return True


def replace_untouched(path: Path, content: bytes, handed_out: str) -> bool:
    """Replace a copy by the new edition if it is still what was handed out.

    It is moved aside before it is judged for good: what JupyterLab saves at that moment is either
    the file that was moved, which then comes back, or a new one, which then stays.
    """
    if digest(path.read_bytes()) != handed_out:
        return False
    aside = path.with_name(f".{path.name}.old")
    try:
        os.replace(path, aside)
        return digest(aside.read_bytes()) == handed_out and create(path, content)
    finally:
        if path.exists():
            aside.unlink(missing_ok=True)
        else:
            os.replace(aside, path)


def put_beside(path: Path, content: bytes) -> Path:
    """Write the new edition under a name that is free, or find it there; return its path."""
    ends = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    names = (path.with_name(f"{path.stem}.new-edition{end}.ipynb") for end in ends)
    return next(p for p in names if create(p, content) or p.read_bytes() == content)


def trust(notebook: Path) -> None:
    """Sign a fresh copy, so that JupyterLab lets the scripts of its stored figures run."""
    if notebook.suffix != ".ipynb":
        return
    NotebookNotary().sign(nbformat.read(notebook, as_version=4))  # type: ignore[no-untyped-call]


def short_progress(course: Path, workspace: Path) -> tuple[dict[str, str], list[str]]:
    """How many exercises pass, by notebook and in lines to print, if that is soon known.

    No fault here keeps JupyterLab closed.
    """
    try:
        release = course / "assignments" / "release"
        worked_in = find_worked_in(workspace)
        standing = show_progress.standing(workspace, worked_in, release, SECONDS_FOR_PROGRESS)
        return standing or {}, show_progress.in_short(standing, SECONDS_FOR_PROGRESS)
    except Exception as error:
        return {}, [f"how many exercises pass is not known: {type(error).__name__}: {error}"]


def write_start_page(workspace: Path, standing: dict[str, str]) -> None:
    """Write the start page anew, unless the learner has made it their own."""
    record = read_record(workspace)
    path = workspace / start_page.NAME
    begun = {
        name
        for name, known in record.items()
        if (workspace / name).is_file() and digest((workspace / name).read_bytes()) != known
    }
    content = start_page.text(ROOT, begun, standing).encode("utf-8")
    if create(path, content) or replace_untouched(path, content, record.get(path.name, "")):
        record[path.name] = digest(content)
        write_record(workspace, record)


def find_worked_in(workspace: Path) -> set[Path]:
    """The notebooks of assignments that are not as they were handed out."""
    known = set(read_record(workspace).values())
    found = (workspace / show_progress.FOLDER).glob("*.ipynb")
    return {path for path in found if digest(path.read_bytes()) not in known}


def read_record(workspace: Path) -> dict[str, str]:
    """Return the hashes of what was handed out; nothing when the record is absent or damaged."""
    try:
        record = json.loads((workspace / RECORD).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(record, dict):
        return {}
    return {str(name): str(known) for name, known in record.items()}


def write_record(workspace: Path, record: dict[str, str]) -> None:
    """Replace the record in one step."""
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    write_atomically(workspace / RECORD, text)


def report(handout: Handout, workspace: Path) -> list[str]:
    """Return the lines that tell the learner what is new and what the course has changed."""
    place = f"{workspace.name}/"
    lines = [f"new in {place}: {name}" for name in handout.new]
    lines += [
        f"new edition in {place}: {name}, in place of the old one, in which you had changed nothing"
        for name in handout.updated
    ]
    lines += [f"new edition in {place}, beside yours: {name}" for name in handout.beside]
    lines += [
        f"the course has changed {name} since you got it; yours stays, with your work in it"
        for name in handout.changed
    ]
    if handout.changed:
        lines.append("to get the new editions, each beside yours: make lab NEW_EDITIONS=yes")
    return lines or [f"{place} has every notebook of the course"]


if __name__ == "__main__":
    sys.exit(main())
