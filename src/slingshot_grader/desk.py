"""What the instructor has decided, in three files that grading reads and never writes over.

They lie in the folder of results: ``overrides.csv`` (points, comments, who is excused),
``rules.toml`` (deadlines, penalty, extra time, which attempt counts, parts graded by hand), and
``roster.csv``.
"""

import csv
import functools
import io
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from slingshot_grader.files import same_name

HEADER = ("learner", "assignment", "exercise", "points", "comment", "excused")
YES = {"yes", "x", "1", "true"}
NO = {"", "no", "0", "false"}


class DeskError(Exception):
    """A file of the instructor's that cannot be read, as one line."""


@dataclass(frozen=True)
class Override:
    """A decision on an exercise of a learner, or, without an exercise, on all of an assignment."""

    learner: str
    assignment: str
    exercise: str
    points: float | None
    comment: str
    excused: bool
    line: int


@dataclass(frozen=True)
class Rules:
    """How attempts, deadlines and parts by hand count. Nothing is late without a deadline."""

    attempts: str = "best"
    late_percent_a_day: float = 0.0
    grace_minutes: float = 0.0
    deadlines: Mapping[str, datetime] = field(default_factory=dict)
    extra_days: Mapping[str, float] = field(default_factory=dict)
    by_hand: Mapping[str, float] = field(default_factory=dict)
    time_of_file: bool = False

    @functools.cached_property
    def extra(self) -> dict[str, float]:
        """The extra days by what two spellings of a name have in common."""
        return {same_name(name): days for name, days in self.extra_days.items()}

    def days_late(self, assignment: str, who: Iterable[str], at: datetime | None) -> int:
        """Days after a learner's own deadline, each begun day as one; 0 where nothing is known."""
        deadline = self.deadlines.get(assignment)
        if deadline is None or at is None:
            return 0
        extra = max((self.extra.get(same_name(name), 0) for name in who if name), default=0)
        late = at - deadline - timedelta(days=extra, minutes=self.grace_minutes)
        return max(0, -(-late // timedelta(days=1)))


@dataclass(frozen=True)
class Enrolled:
    """A learner of the roster."""

    number: str
    name: str


def read_overrides(path: Path) -> list[Override]:
    """Return the overrides; raise ``DeskError`` with the line of one that cannot be read."""
    found = []
    for line, row in read_table(path, HEADER[:3]):
        points, excused = row.get("points", ""), row.get("excused", "").casefold()
        try:
            value = float(points.replace(",", ".")) if points else None
        except ValueError:
            raise DeskError(f"{path}, line {line}: {points!r} is no number of points") from None
        if value is not None and not 0 <= value < 1e6:
            raise DeskError(f"{path}, line {line}: {points!r} is no number of points")
        if excused not in YES | NO:
            raise DeskError(f"{path}, line {line}: excused is 'yes' or empty, not {excused!r}")
        if any(row.values()):
            found.append(
                Override(
                    row["learner"],
                    row["assignment"],
                    row["exercise"],
                    value,
                    row.get("comment", ""),
                    excused in YES,
                    line,
                )
            )
    return found


def read_roster(path: Path) -> list[Enrolled]:
    """Return who should hand in: columns ``learner`` and, where the platform has one, ``id``."""
    return [
        Enrolled(row.get("id", ""), row["learner"])
        for _, row in read_table(path, ("learner",))
        if row["learner"] or row.get("id")
    ]


def read_table(path: Path, needed: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with a header, stripped, each with its line; none without a file.

    A cell may have several lines, so that a row does not end where a line does.
    """
    if not path.is_file():
        return
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DeskError(f"{path} cannot be read: {error}") from error
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    # Strict: a quotation mark that nobody closes would take in all decisions that follow.
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        yield from numbered(path, table, needed)
    except csv.Error as error:
        raise DeskError(f"{path}, line {table.line_num}: {error}") from error


def numbered(
    path: Path, table: "csv.DictReader[str]", needed: Iterable[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows with the lines where they begin; raise ``DeskError`` where a column is missing."""
    missing = [name for name in needed if name not in (table.fieldnames or ())]
    if missing:
        raise DeskError(f"{path} has no column {', '.join(missing)}; it has {table.fieldnames}")
    for row in table:
        lines = sum((value or "").count("\n") for name, value in row.items() if name)
        cells = {str(name): (value or "").strip() for name, value in row.items() if name}
        yield table.line_num - lines, cells


TOO_MANY = 1_000_000
"""Days or minutes that no rule means, infinity among them: leave a deadline out instead."""


def read_rules(path: Path) -> Rules:
    """Return the rules; raise ``DeskError`` for a word that means nothing here."""
    if not path.is_file():
        return Rules()
    try:
        data = tomllib.loads(path.read_text("utf-8-sig"))
        known = {"attempts", "late_percent_a_day", "grace_minutes", "times"}
        known |= {"deadlines", "extra_days", "by_hand"}
        if strange := sorted(set(data) - known):
            raise DeskError(f"{path}: {', '.join(strange)} means nothing; use {sorted(known)}")
        rules = Rules(
            choice(data, "attempts", ("best", "last")),
            float(data.get("late_percent_a_day", 0)),
            float(data.get("grace_minutes", 0)),
            {name: moment(value) for name, value in data.get("deadlines", {}).items()},
            {name: float(value) for name, value in data.get("extra_days", {}).items()},
            {name: float(value) for name, value in data.get("by_hand", {}).items()},
            choice(data, "times", ("platform", "files")) == "files",
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DeskError(f"{path}: {error}") from error
    if not 0 <= rules.late_percent_a_day <= 100:
        raise DeskError(f"{path}: late_percent_a_day is from 0 to 100")
    for name, value in {
        "grace_minutes": rules.grace_minutes,
        **rules.extra_days,
        **rules.by_hand,
    }.items():
        if not 0 <= value < TOO_MANY:
            raise DeskError(f"{path}: {name} is {value:g}; give a number from 0 to {TOO_MANY - 1}")
    return rules


def choice(data: Mapping[str, Any], name: str, among: tuple[str, str]) -> str:
    """One of two words, the first where nothing is said."""
    value = data.get(name, among[0])
    if value not in among:
        raise ValueError(f"{name} is {' or '.join(map(repr, among))}, not {value!r}")
    return str(value)


def moment(value: Any) -> datetime:  # noqa: ANN401 what TOML holds
    """A time with its zone; without one, that of this machine."""
    if not isinstance(value, datetime):
        raise ValueError(f"a deadline is a time such as 2026-10-05T23:59:00+02:00, not {value!r}")
    return value if value.tzinfo else value.astimezone()


def read_moment(text: str) -> datetime | None:
    """The time that a platform has written, such as nbgrader: ``2026-10-05 21:12:03.5 UTC``."""
    try:
        read = datetime.fromisoformat(text.strip().removesuffix("UTC").strip())
    except ValueError:
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def begin_overrides(path: Path) -> None:
    """Lay out an empty file of overrides where there is none."""
    if not path.exists():
        path.write_text(",".join(HEADER) + "\n", "utf-8")
