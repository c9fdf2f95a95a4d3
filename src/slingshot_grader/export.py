"""Grades and feedback, as a learning platform takes them back.

A platform wants the points in a file that it has exported itself. They are filled in by the number
or the name that the platform knows a learner by. A grade that is there already stays, unless it is
to be replaced, and whoever has no grade stays blank and is named.
"""

import argparse
import csv
import io
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slingshot_grader.feedback import page_name
from slingshot_grader.files import same_name
from slingshot_grader.table import COLUMNS, LAST, as_it_was

EMPTY = {"", "-", "–", "N/A"}


@dataclass(frozen=True)
class Platform:
    """How a platform's file is read: who a line is about, and where the grade goes.

    ``assignment`` is the column that says what a line is about, where a file has lines on several.
    """

    columns: tuple[str, ...]
    grade: str
    who: Callable[[dict[str, str]], str]
    by_number: bool
    assignment: str = ""


def last_number(text: str) -> str:
    """The number at the end of a text such as ``Participant 12345``."""
    match = re.search(r"\d+$", text.strip())
    return match[0] if match else ""


PLATFORMS = {
    "moodle": Platform(("Identifier",), "Grade", lambda row: last_number(row["Identifier"]), True),
    "canvas": Platform(("ID",), "", lambda row: row["ID"].strip(), True),
    "nbgrader": Platform(
        ("student_id", "assignment"), "score", lambda row: row["student_id"], False, "assignment"
    ),
    "classroom": Platform(
        ("github_username",), "points_awarded", lambda row: row["github_username"], False
    ),
}


class ExportError(Exception):
    """What keeps an export from being made, as one line."""


@dataclass
class Filled:
    """A filled table, and what was not filled in."""

    text: str
    count: int = 0
    kept: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What happened, a line for each kind."""
        lines = [f"{self.count} filled in"]
        for names, text in (
            (self.kept, "had a grade already, which stays (--replace writes over it)"),
            (self.blank, "without a grade, left blank"),
            (self.strange, "in no line of the exported file"),
            (self.unfinished, "filled in although parts are still to be graded by hand"),
        ):
            if names:
                lines.append(f"{len(names)} {text}: {', '.join(names[:20])}")
        return lines


def main(argv: Sequence[str]) -> int:
    """Fill in the file, pack the feedback; return 0 when every grade is whole and filled in."""
    args = parse_arguments(argv)
    try:
        rows = read_rows(args.graded)
        grades = rows_of(args.assignment, rows, args.graded)
        complete = True
        if args.into:
            platform = PLATFORMS[args.to]
            exported = read_text(args.into)
            column = args.column or platform.grade
            filled = fill(grades, exported, platform, column, replace=args.replace)
            part = args.filled.with_name(f"{args.filled.name}.part")
            part.write_text(filled.text, "utf-8", newline="")
            os.replace(part, args.filled)  # whole, or as it was: it may be the exported file itself
            print("\n".join([*filled.lines(), f"written: {args.filled}"]))
            complete = not (filled.kept or filled.strange or filled.unfinished)
        if args.feedback:
            several = len({row["assignment"] for row in rows}) > 1
            count = pack(grades, args.graded / "feedback", args.to, args.feedback, several=several)
            print(f"{count} pages in {args.feedback}")
    except (ExportError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    return 0 if complete else 1


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tools/grade.py export", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    add("graded", type=Path, help="the folder with grades.csv")
    add("--to", choices=sorted(PLATFORMS), required=True, help="the platform")
    add("--assignment", metavar="NAME", required=True, help="whose points, such as claim")
    add("--into", type=Path, metavar="CSV", help="what the platform has exported")
    add(
        "--filled",
        type=Path,
        metavar="CSV",
        default=Path("filled.csv"),
        help="what to upload (default: %(default)s)",
    )
    add("--column", help="where the grade goes; Canvas: the assignment's title with its number")
    add("--replace", action="store_true", help="write over grades that are there")
    add("--feedback", type=Path, metavar="ZIP", help="pack the pages for the platform")
    args = parser.parse_args(argv)
    if not args.into and not args.feedback:
        parser.error("give --into, --feedback or both")
    if args.into and args.to == "canvas" and not args.column:
        parser.error("Canvas: give --column, such as 'Claim (4711)'")
    return args


def read_text(path: Path) -> str:
    """The text of a table; raise ``ExportError``."""
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of ``grades.csv``, with the learners' names as they are."""
    table = csv.DictReader(io.StringIO(read_text(folder / "grades.csv")))
    if missing := [name for name in (*COLUMNS, *LAST) if name not in (table.fieldnames or ())]:
        raise ExportError(f"{folder / 'grades.csv'} has no column {', '.join(missing)}")
    rows = list(table)
    for row in rows:
        row["learner"] = as_it_was(row["learner"])
    return rows


def rows_of(assignment: str, rows: Iterable[dict[str, str]], folder: Path) -> list[dict[str, str]]:
    """The rows of an assignment; raise ``ExportError`` where there is none."""
    found = [row for row in rows if row["assignment"] == assignment]
    if not found:
        raise ExportError(f"{folder / 'grades.csv'} has no row of {assignment!r}")
    return found


def fill(
    grades: Iterable[dict[str, str]],
    exported: str,
    platform: Platform,
    column: str,
    *,
    replace: bool = False,
) -> Filled:
    """Fill points into what a platform has exported; raise ``ExportError`` for a wrong column."""
    first = exported.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    table = csv.DictReader(io.StringIO(exported), delimiter=delimiter)
    names = list(table.fieldnames or ())
    for name in (*platform.columns, column):
        if name not in names:
            raise ExportError(f"the exported file has no column {name!r}; it has {names}")
    rows = list(table)
    due = {identity(row, platform): row for row in grades}
    due.pop("", None)
    filled, used = Filled(""), set[str]()
    for line in rows:
        who = same_name(platform.who({name: line[name] or "" for name in platform.columns}))
        if who not in due:
            continue
        if platform.assignment and line[platform.assignment] != due[who]["assignment"]:
            continue
        used.add(who)
        set_grade(line, column, due[who], filled, replace=replace)
    filled.strange = [row["learner"] for who, row in due.items() if who not in used]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, delimiter=delimiter, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    filled.text = buffer.getvalue()
    return filled


def identity(row: dict[str, str], platform: Platform) -> str:
    """What the platform knows a learner by."""
    return same_name(row["id"] if platform.by_number else row["learner"])


def set_grade(
    line: dict[str, str], column: str, row: dict[str, str], filled: Filled, *, replace: bool
) -> None:
    """Put a learner's points into a line, unless there are others already."""
    there = (line[column] or "").strip()
    if row["points"] == "":
        filled.blank.append(f"{row['learner']} ({row['status']})")
    elif there in EMPTY or same_number(there, row["points"]) or replace:
        line[column] = row["points"]
        filled.count += 1
        if row["to grade by hand"]:
            filled.unfinished.append(row["learner"])
    else:
        filled.kept.append(f"{row['learner']} ({there}, not {row['points']})")


def same_number(a: str, b: str) -> bool:
    """Whether two texts are the same number."""
    try:
        return float(a.replace(",", ".")) == float(b.replace(",", "."))
    except ValueError:
        return False


def pack(
    rows: Iterable[dict[str, str]], pages: Path, platform: str, target: Path, *, several: bool
) -> int:
    """Pack the pages as the platform gave the submissions out; return how many there are.

    Who has handed in nothing has no page, and does not get the page of a namesake.
    """
    count = 0
    part = target.with_name(f"{target.name}.part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as packed:
        for row in rows:
            page = pages / page_name(row["learner"], row["assignment"], several)
            if row["attempts"] != "0" and page.is_file():
                # No time of the file: the same pages give the same bytes.
                place = zipfile.ZipInfo(place_for(row, platform))
                place.external_attr, place.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
                packed.writestr(place, page.read_bytes())
                count += 1
    os.replace(part, target)
    return count


def place_for(row: dict[str, str], platform: str) -> str:
    """Where a page goes in the zip."""
    learner = row["learner"]
    entry = [*row["file"].split("/"), ""][1]
    if platform == "moodle":  # a folder stays one; a file becomes the folder of its learner
        match = re.match(r"(.+_\d+_assignsubmission_file_?)", entry)
        return f"{match[1] if match else learner}/feedback.html"
    if platform == "canvas":
        return f"{entry.rpartition('.')[0] or entry}.html"
    if platform == "nbgrader":
        return f"{learner}/{row['assignment']}/{row['assignment']}.html"
    return f"{entry or learner}/feedback.html"
