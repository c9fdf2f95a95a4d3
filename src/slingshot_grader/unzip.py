"""Archives of learners, unpacked with suspicion: bounded, without links, and never outside."""

import contextlib
import os
import stat
import zipfile
from datetime import datetime
from pathlib import Path, PurePosixPath

from slingshot_grader.files import (
    DEEPEST,
    LARGEST_FOLDER,
    MOST_FILES,
    SKIPPED,
    UnreadableError,
    open_regular,
)

HIGHEST_RATIO = 200
"""How much larger than in the archive a file may be. Notebooks reach about 20."""

CHUNK = 1 << 16


def unpack(
    archive: Path, target: Path, most_bytes: int = LARGEST_FOLDER, most_files: int = MOST_FILES
) -> list[str]:
    """Write the files of a zip below ``target``; raise ``UnreadableError`` beyond bounds.

    The bounds are those of one learner unless others are given.
    """
    left = most_bytes
    with open_regular(archive) as file:
        try:
            with zipfile.ZipFile(file) as opened:
                members = [each for each in opened.infolist() if not each.is_dir()]
                if len(members) > most_files:
                    raise UnreadableError(f"a zip of {len(members)} files; at most {most_files}")
                wanted = [(each, place) for each in members if (place := place_of(each))]
                for member, place in wanted:
                    left -= extract(opened, member, target / place, left)
        except UnreadableError:
            raise
        except RuntimeError as error:  # that is how an encrypted one is told
            raise UnreadableError(f"a zip that cannot be read: {error}"[:200]) from error
        except Exception as error:  # zipfile raises of all kinds for a stranger's bytes
            raise UnreadableError("a zip that cannot be read") from error
    strange = len(members) - len(wanted)
    return [f"{strange} entries of the zip are no plain files"] if strange else []


def place_of(member: zipfile.ZipInfo) -> PurePosixPath | None:
    """Where a member goes, ``None`` for a link, a hidden file, or a place outside or too deep."""
    place = PurePosixPath(member.filename.replace("\\", "/"))
    kind = stat.S_IFMT(member.external_attr >> 16)
    outside = place.is_absolute() or ".." in place.parts or ":" in (place.parts or ("",))[0]
    if outside or kind not in (0, stat.S_IFREG) or not 0 < len(place.parts) <= DEEPEST:
        return None
    if any(part in SKIPPED or part.startswith(".") for part in place.parts):
        return None
    return place


def extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Write one member; return its size, which is counted and not taken from the archive's word."""
    most = min(LARGEST_FOLDER, HIGHEST_RATIO * max(member.compress_size, 4096))
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with opened.open(member) as source, open(target, "xb") as file:
        while data := source.read(CHUNK):
            size += len(data)
            if size > left:
                raise UnreadableError(
                    "a zip whose files are too large together; unpack it yourself"
                )
            if size > most:
                raise UnreadableError("a zip that grows beyond all measure when it is unpacked")
            file.write(data)
    with contextlib.suppress(OSError):  # a file system may have no such time
        os.utime(target, (time := stored_time(member), time))
    return size


def stored_time(member: zipfile.ZipInfo) -> float:
    """When a member was last written, in seconds; 0, so never late, where its date is none.

    An archive stores what a clock on a wall showed, without a zone: that of this machine is taken.
    """
    try:
        return max(0.0, datetime(*member.date_time).timestamp())
    except (ValueError, OverflowError, OSError):
        return 0.0
