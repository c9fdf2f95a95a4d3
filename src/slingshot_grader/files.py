"""What a learner has handed in: found, read with suspicion, and copied."""

import hashlib
import json
import os
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from slingshot_grader.assignment import Assignment, grade_id_of

LARGEST_NOTEBOOK = 30_000_000
LARGEST_FOLDER = 100_000_000
SKIPPED = {".ipynb_checkpoints", "__MACOSX", "__pycache__", ".git", ".DS_Store"}


class UnreadableError(Exception):
    """A submission that is no notebook, and why, in a few words."""


@dataclass(frozen=True)
class Cell:
    """A code cell of a submission: its text and its grade id, empty for the learner's own cells."""

    source: str
    grade_id: str
    raw: Any


@dataclass
class Submission:
    """One notebook, or something in its place, of one learner."""

    learner: str
    path: Path
    assignment: str
    remarks: list[str]

    @property
    def folder(self) -> Path | None:
        """The learner's folder if the notebook came in one."""
        return self.path.parent if self.in_folder else None

    in_folder: bool = False


def find_submissions(
    folder: Path, assignments: dict[str, Assignment], wanted: str | None
) -> list[Submission]:
    """Return every submission of a folder: one for each notebook, or for what stands in its place.

    Without ``wanted`` the grade ids in a notebook say which assignment it is.
    """
    found = []
    for entry in sorted(folder.iterdir(), key=lambda path: path.name):
        if entry.name in SKIPPED or entry.name.startswith("."):
            continue
        found += list(of_one_learner(entry, assignments, wanted))
    number_equal_names(found)
    return found


def of_one_learner(
    entry: Path, assignments: dict[str, Assignment], wanted: str | None
) -> Iterator[Submission]:
    """The submissions in one file or folder."""
    if not entry.is_dir() or entry.is_symlink():
        yield Submission(
            clean_name(entry.stem if entry.is_file() else entry.name),
            entry,
            wanted or guess_assignment(entry, assignments),
            [],
        )
        return
    learner = clean_name(entry.name)
    notebooks = sorted(path for path in walk(entry) if path.suffix == ".ipynb")
    guessed = {path: guess_assignment(path, assignments) for path in notebooks}
    if wanted is not None:
        # With one notebook there is no doubt; of several, those of another assignment are no error.
        mine = [path for path in notebooks if guessed[path] in (wanted, "") or len(notebooks) == 1]
        guessed = dict.fromkeys(mine, wanted)
    for path, assignment in guessed.items():
        yield Submission(learner, path, assignment, [], in_folder=True)
    if not guessed:
        yield Submission(learner, entry, wanted or "", [])


def walk(folder: Path) -> Iterator[Path]:
    """The files of a folder, without following links."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        yield from (Path(where) / name for name in sorted(files) if not name.startswith("."))


def clean_name(name: str) -> str:
    """A name in one Unicode form, without control characters or signs that no file may have."""
    text = unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))
    kept = "".join("_" if sign in '/\\:*?"<>|' or not sign.isprintable() else sign for sign in text)
    return kept.strip(" .")[:100] or "_"


def number_equal_names(submissions: Sequence[Submission]) -> None:
    """Give the second of two equal names the number 2, and say so in the remarks of both."""
    groups: dict[tuple[str, str], list[Submission]] = {}
    for submission in submissions:
        key = unicodedata.normalize("NFKC", submission.learner).casefold()
        groups.setdefault((key, submission.assignment), []).append(submission)
    for group in groups.values():
        if len(group) > 1:
            for number, submission in enumerate(group, start=1):
                submission.remarks.append(f"{len(group)} submissions under this name")
                if number > 1:
                    submission.learner = f"{submission.learner} ({number})"


def guess_assignment(path: Path, assignments: dict[str, Assignment]) -> str:
    """The assignment that most of a notebook's grade ids belong to, empty if there is none."""
    try:
        ids = {cell.grade_id for cell in read_notebook(path)}
    except UnreadableError:
        ids = set()
    shared = {name: len(ids & each.ids) for name, each in assignments.items()}
    best = max(shared, key=lambda name: shared[name])
    if shared[best]:
        return best
    return path.stem if path.stem in assignments else ""


def read_notebook(path: Path) -> list[Cell]:
    """Return the code cells; raise ``UnreadableError`` when the file is no notebook."""
    if path.is_symlink():
        raise UnreadableError("a link, not a file")
    if path.is_dir():
        raise UnreadableError("no notebook in the folder")
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= LARGEST_NOTEBOOK else b""
    except OSError as error:
        raise UnreadableError(f"the file cannot be read: {error.strerror}") from error
    if size > LARGEST_NOTEBOOK:
        raise UnreadableError(f"a file of {size / 1e6:.0f} MB, more than a notebook has")
    if not data.strip():
        raise UnreadableError("an empty file")
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        raise UnreadableError("not a notebook: the file is not JSON") from None
    try:
        notebook = nbformat.reads(data.decode("utf-8"), as_version=4)  # type: ignore[no-untyped-call]
        return [
            Cell(cell_source(cell), grade_id_of(cell), cell)
            for cell in notebook["cells"]
            if cell["cell_type"] == "code"
        ]
    except Exception:  # nbformat raises of all kinds for a stranger's JSON
        raise UnreadableError("not a notebook: there are no cells in it") from None


def cell_source(cell: Any) -> str:  # noqa: ANN401 a stranger's JSON
    """The text of a cell."""
    source = cell["source"]
    if isinstance(source, list):
        source = "".join(str(line) for line in source)
    return source if isinstance(source, str) else ""


def copy_files(submission: Submission, target: Path) -> list[str]:
    """Copy what lies beside a learner's notebook, without links, up to a bound; return remarks."""
    if submission.folder is None:
        return []
    left = LARGEST_FOLDER
    for path in walk(submission.folder):
        if path.is_symlink() or not path.is_file():
            continue
        left -= path.stat().st_size
        if left < 0:
            return [f"more than {LARGEST_FOLDER / 1e6:.0f} MB of files; not all were there"]
        copy = target / path.relative_to(submission.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return []


def digest(submission: Submission) -> str:
    """Hash what was handed in."""
    result = hashlib.sha256()
    paths = [submission.path] if submission.folder is None else list(walk(submission.folder))
    for path in paths:
        result.update(f"{path.name} ".encode("utf-8", "surrogateescape"))
        if path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                result.update(hashlib.file_digest(file, "sha256").digest())
    return result.hexdigest()
