"""What a learner has handed in, as files: opened with suspicion, copied, hashed and named."""

import contextlib
import hashlib
import os
import stat
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

LARGEST_FOLDER = 100_000_000
MOST_FILES = 2000
DEEPEST = 40
"""Folders within folders that are looked into."""

SKIPPED = {".ipynb_checkpoints", "__MACOSX", "__pycache__", ".git", ".DS_Store"}
LONGEST_NAME = 120  # bytes: with what is added to it, a file name has at most 255


class UnreadableError(Exception):
    """A submission that is no notebook, and why, in a few words."""


@dataclass
class Submission:
    """One notebook, or something in its place, of one learner.

    ``number`` is the learner's on the platform, ``handed_in`` the time if it is known, ``place``
    where the instructor finds it, ``problem`` why it cannot be read if that is known already.
    """

    learner: str
    path: Path
    assignment: str
    remarks: list[str]
    in_folder: bool = False
    number: str = ""
    late: bool = False
    handed_in: datetime | None = None
    place: str = ""
    problem: str = ""

    @property
    def folder(self) -> Path | None:
        """The learner's folder if the notebook came in one."""
        return self.path.parent if self.in_folder else None


def walk(folder: Path) -> Iterator[Path]:
    """The files of a folder, without following links, and never more than a bounded number.

    Folders count as files do, and none is looked into that lies too deep.
    """
    count, waiting = 0, [(folder, 0)]
    while waiting:
        where, depth = waiting.pop()
        here = entries_of(where)
        inner = [each for each in here if each.is_dir()]
        for each in here:
            count += 1
            if count > MOST_FILES:
                return
            if not each.is_dir() and not each.name.startswith("."):
                yield where / each.name
        if depth < DEEPEST:
            waiting += [
                (where / each.name, depth + 1)
                for each in reversed(inner)
                if each.name not in SKIPPED and not each.is_symlink()
            ]


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder that is taken away at the end, whatever a learner's code has made in it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Take a folder away, however deep it is, as far as that is possible.

    Each folder within is first moved up beside ``folder``: so no name grows too long, and nothing
    has to be called again for each level, as :func:`shutil.rmtree` does. Several processes may take
    the same folder away: the names that it is moved to are each process's own.
    """
    waiting, count = [folder], 0
    while waiting:
        where = waiting.pop()
        with contextlib.suppress(OSError):
            os.chmod(where, 0o700)
        for each in entries_of(where):
            with contextlib.suppress(OSError):
                if not each.is_dir(follow_symlinks=False):
                    os.unlink(each)
                    continue
                count += 1
                above = folder.with_name(f"{folder.name}.{os.getpid()}.{count}")
                os.chmod(each, 0o700)
                os.rename(each, above)
                waiting.append(above)
        with contextlib.suppress(OSError):
            os.rmdir(where)


def entries_of(folder: Path) -> list["os.DirEntry[str]"]:
    """What lies in a folder, by name; nothing where it may not be read, or has just gone."""
    try:
        return sorted(os.scandir(folder), key=lambda each: each.name)
    except OSError:
        return []


def open_regular(path: Path) -> BinaryIO:
    """Open a file that is one; raise ``UnreadableError`` for a link, a pipe, a device, a folder.

    A pipe that nobody writes to would keep a reader waiting, so it is not waited for.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink():
        raise UnreadableError("a link, not a file")
    try:
        if path.is_dir():
            raise UnreadableError("no notebook in the folder")
        if not stat.S_ISREG(path.stat(follow_symlinks=False).st_mode):
            raise UnreadableError("no regular file")
        number = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise UnreadableError(f"the file cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):  # it was another a moment ago
        os.close(number)
        raise UnreadableError("no regular file")
    return os.fdopen(number, "rb")


def read_regular(path: Path, largest: int) -> bytes:
    """Return what a regular file holds; raise ``UnreadableError`` where it is too large."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(largest + 1) if size <= largest else b""
    if size > largest or len(data) > largest:
        raise UnreadableError(f"a file of {max(size, len(data)) / 1e6:.0f} MB, more than is read")
    return data


def parts(submission: Submission) -> Iterator[tuple[str, Path]]:
    """The files of a submission, each with its place in it."""
    if submission.folder is None:
        yield submission.path.name, submission.path
        return
    for path in walk(submission.folder):
        yield path.relative_to(submission.folder).as_posix(), path


def copy(submission: Submission, target: Path | None) -> tuple[str, list[str]]:
    """Copy a submission, or only read it; return the hash of what was read, and remarks.

    What is graded is the copy, so the hash is that of what was graded, whatever happens meanwhile
    to the files.
    """
    result, left, remarks = hashlib.sha256(), LARGEST_FOLDER, list[str]()
    for name, path in parts(submission):
        try:
            with open_regular(path) as file:
                data = file.read(left + 1)
        except UnreadableError:
            result.update(entry(name, None))
            continue
        left -= len(data)
        if left < 0:
            remarks.append(f"more than {LARGEST_FOLDER / 1e6:.0f} MB of files; not all were there")
            break
        result.update(entry(name, data))
        if target is not None:
            copied = target / name
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(data)
    return result.hexdigest(), remarks


def digest(submission: Submission) -> str:
    """Hash what was handed in, as :func:`copy` does."""
    return copy(submission, None)[0]


def entry(name: str, data: bytes | None) -> bytes:
    """What a file adds to a hash; ``None`` stands for something that is no regular file."""
    kind = b"none" if data is None else hashlib.sha256(data).digest()
    return hashlib.sha256(os.fsencode(name)).digest() + kind


def write_atomically(path: Path, text: str) -> None:
    """Write a file in one step: it is there whole, or as it was."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, "utf-8")
    os.replace(part, path)


# --- names -----------------------------------------------------------------------------------


def printable(name: str) -> str:
    """A file name of any bytes as a line of text, and no two names as the same text.

    Bytes that are no UTF-8, and signs that would do something on a terminal, are spelled out.
    """
    text = os.fsencode(name).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in text)


def clean_name(name: str) -> str:
    """A name in one Unicode form, without control characters or signs that no file may have."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    text = unicodedata.normalize("NFC", text)
    kept = "".join("_" if sign in '/\\:*?"<>|' or not sign.isprintable() else sign for sign in text)
    short = kept.strip(" .").encode("utf-8")[:LONGEST_NAME].decode("utf-8", "ignore")
    return short.strip(" .") or "_"


def same_name(name: str) -> str:
    """What two names have in common that a file system may take for one."""
    return unicodedata.normalize("NFKC", name).casefold()
