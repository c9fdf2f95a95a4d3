"""How learning platforms name what they hand over, and whose each file therefore is.

Moodle puts a number between a name and a fixed word, Canvas two numbers, nbgrader a folder for each
learner and assignment with a time in it, GitHub Classroom a repository for each. Anything else is
one file or one folder for each learner.
"""

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from slingshot_grader.desk import read_moment
from slingshot_grader.files import (
    SKIPPED,
    Submission,
    UnreadableError,
    clean_name,
    printable,
    read_regular,
    same_name,
    walk,
)

MARK = re.compile(r"_\d+_assignsubmission_(?:file|onlinetext)")
MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_file_?(?P<rest>.*)", re.S)
ONLINE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_onlinetext_?.*", re.S)
CANVAS = re.compile(r"(?P<name>[^_]+)(?P<late>_LATE)?_(?P<id>\d+)_(?P<sub>\d+)_(?P<rest>.+)", re.S)
TIMESTAMP = "timestamp.txt"


@dataclass(frozen=True)
class Entry:
    """A file or a folder of one learner."""

    name: str
    path: Path
    layout: str
    number: str = ""
    late: bool = False
    order: int = 0
    handed_in: datetime | None = None
    place: str = ""

    @property
    def owner(self) -> tuple[str, str]:
        """What tells this learner from all others: a number, else a name or a place."""
        if self.layout in ("nbgrader", "GitHub Classroom"):
            return self.layout, self.name
        return self.layout, self.number or os.fspath(self.path)


def entries(folder: Path, shown: str) -> list[Entry]:
    """What lies in a folder of submissions, by learner; ``shown`` is the folder's own name."""
    paths = sorted(
        (path for path in folder.iterdir() if is_wanted(path)), key=lambda path: os.fsencode(path)
    )
    prefix = common_prefix(paths)
    stamped = {path: folders for path in paths if (folders := folders_of_nbgrader(path))}
    if 2 * len(stamped) <= sum(path.is_dir() for path in paths):
        stamped = {}  # a learner alone may write a time, too
    found: list[Entry] = []
    for path in paths:
        place = f"{shown}/{printable(path.name)}"
        found += entries_at(path, prefix, stamped.get(path, []), place)
    files = {entry.number for entry in found if entry.layout == "Moodle"}
    # Text typed online beside a file is no submission of its own.
    return [e for e in found if not (e.layout == "Moodle, text" and e.number in files)]


def is_wanted(path: Path) -> bool:
    """Whether an entry may be somebody's."""
    return path.name not in SKIPPED and not path.name.startswith(".")


def common_prefix(paths: list[Path]) -> str:
    """What the names of repositories begin with: the assignment's name in GitHub Classroom."""
    names = [path.name for path in paths if is_repository(path)]
    if len(names) < 2 or len(names) != len([path for path in paths if path.is_dir()]):
        return ""
    together = itertools.takewhile(lambda signs: len(set(signs)) == 1, zip(*names, strict=False))
    return "".join(signs[0] for signs in together).rpartition("-")[0]


def is_repository(path: Path) -> bool:
    """Whether a folder is a clone."""
    return path.is_dir() and not path.is_symlink() and (path / ".git").exists()


def entries_at(path: Path, prefix: str, stamped: list[Path], place: str) -> Iterator[Entry]:
    """Whose a file or a folder is; ``stamped`` are those within it that nbgrader has made."""
    stem = path.stem if not path.is_dir() else path.name
    if len(MARK.findall(path.name)) > 1:
        # A learner who calls a file so would hand in for somebody else.
        yield Entry(stem, path, "plain", place=place)
    elif match := ONLINE.fullmatch(path.name):
        yield Entry(match["name"], path, "Moodle, text", match["id"], place=place)
    elif match := MOODLE.fullmatch(path.name):
        yield Entry(match["name"], path, "Moodle", match["id"], place=place)
    elif not path.is_dir() and (match := CANVAS.fullmatch(path.name)):
        order = int(match["sub"])
        late = bool(match["late"])
        yield Entry(match["name"], path, "Canvas", match["id"], late, order, place=place)
    elif prefix and is_repository(path) and path.name.startswith(f"{prefix}-"):
        login = path.name.removeprefix(f"{prefix}-")
        yield Entry(login, path, "GitHub Classroom", place=place)
    elif stamped:
        for each in stamped:
            time = timestamp(each)
            yield Entry(
                path.name, each, "nbgrader", "", handed_in=time, place=f"{place}/{each.name}"
            )
    else:
        yield Entry(stem, path, "plain", place=place)


def folders_of_nbgrader(path: Path) -> list[Path]:
    """The folders of a learner's assignments, where nbgrader has written its time into each."""
    if not path.is_dir() or path.is_symlink():
        return []
    folders = sorted(each for each in path.iterdir() if each.is_dir() and not each.is_symlink())
    return [each for each in folders if (each / TIMESTAMP).exists()]


def timestamp(folder: Path) -> datetime | None:
    """The time that nbgrader has written, ``None`` where it cannot be read."""
    try:
        return read_moment(read_regular(folder / TIMESTAMP, 200).decode("utf-8", "replace"))
    except UnreadableError:
        return None


def name_learners(found: list[Entry]) -> dict[tuple[str, str], str]:
    """A name for each learner, none twice whatever a file system makes of it."""
    names: dict[tuple[str, str], str] = {}
    taken: dict[str, int] = {}  # each with the last number that was given to one like it
    later: dict[tuple[str, str], str] = {}
    for entry in found:
        if entry.owner in names or entry.owner in later:
            continue
        name = clean_name(entry.name)
        if same_name(name) in taken:
            later[entry.owner] = name
        else:
            taken[same_name(name)] = 1
            names[entry.owner] = name
    for owner, first in later.items():
        number = taken[same_name(first)] + 1
        while same_name(name := f"{first} ({number})") in taken:
            number += 1
        taken[same_name(first)], taken[same_name(name)] = number, 1
        names[owner] = name
    return names


def equal_names(found: list[Entry]) -> dict[tuple[str, str], int]:
    """For each learner, how many have this name."""
    owners = {entry.owner: same_name(clean_name(entry.name)) for entry in found}
    count: dict[str, int] = {}
    for name in owners.values():
        count[name] = count.get(name, 0) + 1
    return {owner: count[name] for owner, name in owners.items()}


def notebooks(folder: Path) -> list[Path]:
    """The notebooks in a learner's folder."""
    return [path for path in walk(folder) if path.suffix == ".ipynb"]


def zips(folder: Path) -> list[Path]:
    """The archives in a learner's folder."""
    return [path for path in walk(folder) if is_zip(path)]


def is_zip(path: Path) -> bool:
    """Whether a name says that a file is an archive."""
    return path.suffix.casefold() == ".zip"


def submission_of(
    entry: Entry, path: Path, assignment: str, learner: str, *, in_folder: bool
) -> Submission:
    """One attempt of a learner."""
    within = path.relative_to(entry.path).parts if path.is_relative_to(entry.path) else (path.name,)
    inner = "".join(f"/{printable(part)}" for part in within)
    return Submission(
        learner,
        path,
        assignment,
        [],
        in_folder,
        entry.number,
        entry.late,
        entry.handed_in,
        f"{entry.place}{inner}",
    )
