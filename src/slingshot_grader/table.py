"""The table of grades: a row for each learner and assignment."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from slingshot_grader.assignment import Assignment
from slingshot_grader.files import printable
from slingshot_grader.outcome import clean
from slingshot_grader.standing import Standing

COLUMNS = ("learner", "id", "assignment", "status", "points", "out of")
LAST = ("late", "penalty", "attempts", "to grade by hand", "comment", "remarks", "file")
# With any number of apostrophes before it, so that one more can be told from one of the name's own.
FORMULA = re.compile(r"'*[=+\-@\t\r]")


def write_grades(
    path: Path, standings: Sequence[Standing], assignments: dict[str, Assignment]
) -> None:
    """Write ``grades.csv``. The same results give the same bytes.

    It begins with a byte order mark, without which spreadsheets take UTF-8 for something else.
    """
    used = {standing.submission.assignment for standing in standings}
    columns = [
        f"{name}-{part}"
        for name in assignments
        if name in used
        for part in part_names(name, standings)
    ]
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow([*COLUMNS, *columns, *LAST])
        for standing in standings:
            table.writerow(map(no_formula, cells(standing, columns)))


def part_names(assignment: str, standings: Sequence[Standing]) -> list[str]:
    """The parts of an assignment, in their order."""
    found: dict[str, None] = {}
    for standing in standings:
        if standing.submission.assignment == assignment:
            found.update(dict.fromkeys(part.name for part in standing.parts))
    return list(found)


def cells(standing: Standing, columns: Sequence[str]) -> list[str]:
    """The words of a row. Where there is no grade, the points stay blank."""
    submission = standing.submission
    points = {
        f"{submission.assignment}-{part.name}": "excused" if part.excused else show(part.points)
        for part in standing.parts
    }
    late = standing.days_late or ("yes" if submission.late else "")
    return [
        submission.learner,
        submission.number,
        submission.assignment,
        standing.status,
        show(standing.points) if standing.has_grade and not standing.excused else "",
        show(standing.most) if standing.parts else "",
        *(points.get(column, "") for column in columns),
        str(late),
        show(standing.penalty) if standing.penalty else "",
        str(standing.attempts) if standing.report.status != "missing" else "0",
        "; ".join(standing.open_parts),
        standing.comment,
        "; ".join([*submission.remarks, *standing.report.remarks, *standing.remarks]),
        submission.place or printable(str(submission.path)),
    ]


def show(points: float | None) -> str:
    """A number of points, without digits that say nothing."""
    return "" if points is None else f"{round(points, 6):g}"


def no_formula(text: str) -> str:
    """Keep a spreadsheet from running a learner's text: a sign like = would start a formula."""
    text = clean(text)
    return f"'{text}" if FORMULA.match(text) else text


def as_it_was(text: str) -> str:
    """The text that ``no_formula`` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text
