"""A folder of submissions: found, graded, kept, and told in tables and pages."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from slingshot_grader import layouts, table
from slingshot_grader.assignment import Assignment, read_assignments
from slingshot_grader.desk import (
    Enrolled,
    Override,
    Rules,
    begin_overrides,
    read_overrides,
    read_roster,
    read_rules,
)
from slingshot_grader.feedback import feedback, page_name
from slingshot_grader.files import (
    Submission,
    digest,
    printable,
    same_name,
    write_atomically,
)
from slingshot_grader.layouts import Entry
from slingshot_grader.outcome import Report, clean, expect, read_report, text
from slingshot_grader.pool import Job, LostError, Pool
from slingshot_grader.sandbox import SOURCE, Sandbox
from slingshot_grader.session import Limits
from slingshot_grader.similar import Pair, pairs
from slingshot_grader.standing import Attempt, Decisions, Standing, problems, stand
from slingshot_grader.summary import summary

MOST_ATTEMPTS = 10
ARCHIVE_CLOCK = 300.0
WHOLE_CLASS = {"most_bytes": 10_000_000_000, "most_files": 200_000}
"""Bounds of the zip of a class, which a platform has made; each file has those of a learner."""
CHANGING = "it changed while it was graded"


class GradeError(Exception):
    """What keeps grading from beginning, as one line."""


@dataclass(frozen=True)
class Settings:
    """What an instructor asks for."""

    folder: Path
    output: Path
    source: Path
    secrets: tuple[Path, ...]
    sandbox: Sandbox
    limits: Limits = field(default_factory=Limits)
    assignment: str = ""
    jobs: int = 1
    similar: bool = False


class Grader(Protocol):
    """What grades one submission: examiners of this machine, or a cluster's."""

    def __call__(self, submission: Submission, assignment: Assignment) -> Report:
        """Return the report; raise ``LostError``."""


class Batch:
    """All submissions of a folder, and what has come of them so far."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        """Read what the instructor has decided; raise ``GradeError``, or what says why not."""
        self.settings = settings
        self.pool = pool
        self.folder, self.output = settings.folder, settings.output
        self.assignments = read_assignments(settings.source)
        if settings.assignment and settings.assignment not in self.assignments:
            known = ", ".join(self.assignments)
            raise GradeError(f"there is no assignment {settings.assignment!r}; there are: {known}")
        self.version = version()
        self.reports: dict[str, Report] = {}
        self.submissions: list[Submission] = []
        self.notes: list[str] = []
        self.complete = False  # whether all submissions have been found: a table of some is none
        try:
            for name in ("results", "feedback"):
                (self.output / name).mkdir(parents=True, exist_ok=True)
            begin_overrides(self.output / "overrides.csv")
        except OSError as error:
            raise GradeError(f"{self.output} cannot be written to: {error.strerror}") from error
        self.rules: Rules = read_rules(self.output / "rules.toml")
        self.overrides: list[Override] = read_overrides(self.output / "overrides.csv")
        self.roster: list[Enrolled] = read_roster(self.output / "roster.csv")

    # --- finding what was handed in ----------------------------------------------------------

    def find(self) -> None:
        """Find every submission; raise ``GradeError`` when there is none."""
        folder, shown = self.folder, printable(self.folder.name)
        if layouts.is_zip(folder) and not folder.is_dir():
            target = self.pool.scratch / "class"
            if trouble := self.unpack(folder, target, **WHOLE_CLASS)[1]:
                raise GradeError(f"{folder}: {trouble}")
            folder = target
        found = layouts.entries(folder, shown)
        names = layouts.name_learners(found)
        equal = layouts.equal_names(found)
        looked: dict[int, list[Submission]] = {}
        for number in self.pool.do(
            lambda i: looked.update({i: self.attempts(found[i], names[found[i].owner])}),
            range(len(found)),
        ):
            same = equal[found[number].owner]
            for submission in looked[number] if same > 1 else ():
                submission.remarks.append(f"{same} learners under this name")
        self.submissions = [each for i in range(len(found)) for each in looked[i]]
        if not self.submissions:
            what = f"of {self.settings.assignment!r} " if found else ""
            raise GradeError(f"there is nothing {what}in {self.folder}")
        self.fill_in_assignments()
        self.leave_out_others()
        self.bound_attempts()
        self.complete = True

    def attempts(self, entry: Entry, learner: str) -> list[Submission]:
        """What one entry holds."""
        if entry.layout == "nbgrader" and self.is_another(entry.path.name):
            return []
        if layouts.is_zip(entry.path) and not entry.path.is_dir():
            return self.in_archive(entry, entry.path, learner)
        if not entry.path.is_dir() or entry.path.is_symlink():
            name = self.settings.assignment or self.identify(entry.path)[0]
            return [
                self.dated(layouts.submission_of(entry, entry.path, name, learner, in_folder=False))
            ]
        chosen = self.in_folder(entry, entry.path, learner)
        for archive in layouts.zips(entry.path)[:MOST_ATTEMPTS]:
            chosen += self.in_archive(entry, archive, learner)
        if not chosen:
            name = self.settings.assignment
            chosen = [layouts.submission_of(entry, entry.path, name, learner, in_folder=False)]
        return chosen

    def is_another(self, name: str) -> bool:
        """Whether a name is that of an assignment that is not graded now."""
        return name in self.assignments and self.settings.assignment not in ("", name)

    def in_archive(self, entry: Entry, archive: Path, learner: str) -> list[Submission]:
        """What a zip holds."""
        code = hashlib.sha256(os.fsencode(archive)).hexdigest()[:16]
        target = self.pool.scratch / "unpacked" / code
        remarks, trouble = self.unpack(archive, target)
        found = [] if trouble else self.in_folder(entry, target, learner, archive)
        if not found:
            name = self.settings.assignment
            empty = layouts.submission_of(entry, archive, name, learner, in_folder=False)
            empty.problem = trouble or "no notebook in the zip"
            found = [self.dated(empty)]
        for each in found:
            each.remarks += remarks
            if not each.problem:
                within = each.path.relative_to(target).parts
                each.place = "/".join([entry.place, *map(printable, within)])
        return found

    def in_folder(
        self, entry: Entry, folder: Path, learner: str, archive: Path | None = None
    ) -> list[Submission]:
        """The attempts in a folder: its notebooks, without those of other assignments.

        Where a learner's ``archive`` held the folder, its own time counts: those within it are the
        learner's to write.
        """
        wanted, found = self.settings.assignment, []
        for path in layouts.notebooks(folder)[: 10 * MOST_ATTEMPTS]:
            found.append((path, *self.identify(path)))
        if wanted:
            mine = [each for each in found if each[1] == wanted] or (
                found if len(found) == 1 else [each for each in found if not each[1]]
            )
        else:
            # Beside an assignment lie chapters of the book; alone, anything is somebody's answer.
            mine = [each for each in found if each[1]] or found
        if any(begun for _, _, begun in mine):
            mine = [each for each in mine if each[2]]
        return [
            self.dated(
                layouts.submission_of(entry, path, wanted or name, learner, in_folder=True),
                archive,
            )
            for path, name, _ in mine
        ]

    def dated(self, submission: Submission, archive: Path | None = None) -> Submission:
        """The submission with its time, where the rules say that the file's own is it."""
        if submission.handed_in is None and self.rules.time_of_file:
            seconds = (archive or submission.path).stat(follow_symlinks=False).st_mtime
            submission.handed_in = datetime.fromtimestamp(seconds, UTC)
        return submission

    def identify(self, path: Path) -> tuple[str, bool]:
        """The assignment of a notebook, and whether anything in it was written."""
        try:
            job = Job("identify", {"path": path, "assignments": self.assignments}, ARCHIVE_CLOCK)
            answer = self.pool.ask(job)
            name = expect(answer.get("assignment"), str)
            return name if name in self.assignments else "", expect(answer.get("begun"), bool)
        except (LostError, ValueError):
            self.refuse_if_stopped()
            return "", True  # what it is will be said where it is graded

    def unpack(self, archive: Path, target: Path, **bounds: int) -> tuple[list[str], str]:
        """Unpack an archive, within ``bounds`` if given; return remarks, and what was wrong."""
        target.mkdir(parents=True, exist_ok=True)
        try:
            answer = self.pool.ask(
                Job("unpack", {"archive": archive, "target": target, **bounds}, ARCHIVE_CLOCK)
            )
            remarks = [text(each, 200) for each in expect(answer.get("remarks", []), list)[:10]]
            return remarks, text(answer.get("problem", ""), 200)
        except (LostError, ValueError) as error:
            self.refuse_if_stopped()
            return [], f"a zip that cannot be unpacked: {error}"

    def refuse_if_stopped(self) -> None:
        """Let an interruption be one."""
        if self.pool.stop.is_set():
            raise KeyboardInterrupt

    def fill_in_assignments(self) -> None:
        """What is no notebook is taken for the assignment of the others, if there is only one."""
        known = {s.assignment for s in self.submissions if s.assignment} or set(self.assignments)
        for submission in self.submissions:
            if not submission.assignment and len(known) == 1:
                submission.assignment = next(iter(known))

    def leave_out_others(self) -> None:
        """Leave out what a learner handed in for another assignment, beside work for this one."""
        wanted, left_out = self.settings.assignment, set[int]()

        def look(mine: list[Submission]) -> None:
            others = [each for each in mine if self.is_another(self.identify(each.path)[0])]
            if len(others) < len(mine):
                left_out.update(id(each) for each in others)

        several = [mine for mine in self.by_learner().values() if len(mine) > 1]
        for _ in self.pool.do(look, several if wanted else []):
            pass
        self.submissions = [each for each in self.submissions if id(each) not in left_out]

    def bound_attempts(self) -> None:
        """Keep the last few attempts of a learner; a hundred files are not graded."""
        left_out = set()
        for mine in self.by_learner().values():
            left_out |= {id(each) for each in mine[:-MOST_ATTEMPTS]}
            if len(mine) > MOST_ATTEMPTS:
                mine[-1].remarks.append(
                    f"{len(mine)} attempts; the last {MOST_ATTEMPTS} were graded"
                )
        self.submissions = [each for each in self.submissions if id(each) not in left_out]

    def by_learner(self) -> dict[tuple[str, str], list[Submission]]:
        """The attempts of each learner at each assignment, in the order of their time."""
        groups: dict[tuple[str, str], list[Submission]] = {}
        for each in self.submissions:
            groups.setdefault((each.learner, each.assignment), []).append(each)
        first = datetime.min.replace(tzinfo=UTC)
        for mine in groups.values():
            mine.sort(key=lambda each: each.handed_in or first)
        return groups

    # --- grading -----------------------------------------------------------------------------

    def run(self, grader: Grader, at_once: int = 0) -> None:
        """Grade what has no valid result yet, as many at once as there are examiners."""
        waiting = [each for each in self.submissions if not self.reuse(each)]
        count = len(self.submissions)
        with tqdm(
            total=count, initial=count - len(waiting), unit="submission", desc="grading"
        ) as bar:
            for _ in self.pool.do(lambda each: self.grade(each, grader), waiting, at_once):
                bar.update()

    def grade(self, submission: Submission, grader: Grader) -> None:
        """Grade one submission and keep the result. No fault of one costs another its grade."""
        try:
            report = self.try_to_grade(submission, grader)
            if not self.pool.stop.is_set():
                self.keep(submission, report)
        except Exception as error:
            why = str(error) if isinstance(error, LostError) else f"{type(error).__name__}: {error}"
            self.reports[self.code(submission)] = Report("not graded", [clean(why)[:300]])

    def try_to_grade(self, submission: Submission, grader: Grader) -> Report:
        """Grade a submission, again if it changes meanwhile."""
        assignment = self.assignments.get(submission.assignment)
        if assignment is None:
            why = "no notebook of an assignment; name one: ASSIGNMENT="
            return Report("unreadable", [why], digest=digest(submission))
        for _ in range(3):
            report = grader(submission, assignment)
            if report.digest == digest(submission):
                return report
        raise LostError(CHANGING)

    # --- results that stay -------------------------------------------------------------------

    def code(self, submission: Submission) -> str:
        """A name for what is kept about a submission."""
        words = [submission.place or os.fspath(submission.path), submission.assignment]
        return hashlib.sha256(os.fsencode("\0".join(words))).hexdigest()[:16]

    def key(self, submission: Submission, content: str) -> str:
        """Hash all that decides the result, where ``content`` is the hash of what was handed in."""
        assignment = self.assignments.get(submission.assignment)
        parts = [
            content,
            assignment.digest if assignment else "",
            self.version,
            repr(self.settings.limits),
            str(bool(self.settings.sandbox)),
            submission.problem,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def keep(self, submission: Submission, report: Report) -> None:
        """Write a result in one step."""
        record = {"key": self.key(submission, report.digest), "report": report.message()}
        path = self.output / "results" / f"{self.code(submission)}.json"
        write_atomically(path, json.dumps(record, indent=1))
        self.reports[self.code(submission)] = replace(report, notebook="")  # the file has it

    def reuse(self, submission: Submission) -> bool:
        """Whether an earlier run has left a result for exactly this."""
        path = self.output / "results" / f"{self.code(submission)}.json"
        try:
            record = json.loads(path.read_text("utf-8"))
            if expect(record, dict)["key"] != self.key(submission, digest(submission)):
                return False
            report = read_report(record["report"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.reports[self.code(submission)] = replace(report, notebook="")
        return True

    def as_it_ran(self, submission: Submission) -> str:
        """The notebook of a submission as its page shows it."""
        path = self.output / "results" / f"{self.code(submission)}.json"
        try:
            return read_report(json.loads(path.read_text("utf-8"))["report"]).notebook
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    # --- the end -----------------------------------------------------------------------------

    def standings(self) -> list[Standing]:
        """A row for each learner and assignment, then for each who has handed in nothing."""
        missing = Report("not graded", ["grading was interrupted before this one"])
        found, decided = [], Decisions(self.overrides)
        for mine in self.by_learner().values():
            attempts: list[Attempt] = [
                (each, self.reports.get(self.code(each), missing)) for each in mine
            ]
            assignment = self.assignments.get(mine[-1].assignment)
            found.append(stand(attempts, assignment, self.rules, decided.on(mine[-1])))
        return [*found, *self.missing()]

    def missing(self) -> list[Standing]:
        """Those of the roster who have handed in nothing."""
        wanted = self.settings.assignment
        due = (
            [wanted] if wanted else sorted({s.assignment for s in self.submissions if s.assignment})
        )
        found, decided = [], Decisions(self.overrides)
        for name in due:
            assignment = self.assignments.get(name)
            here = {
                (each.number, same_name(each.learner))
                for each in self.submissions
                if each.assignment == name
            }
            for who in absent_ones(self.roster, here):
                absent = Submission(who.name or who.number, self.folder, name, [])
                absent.number, absent.place = who.number, "–"
                report = Report("missing")
                found.append(stand([(absent, report)], assignment, self.rules, decided.on(absent)))
        return found

    def write(self, *, whole: bool = True) -> list[Standing]:
        """Write the table, then the pages and the summary; return all rows."""
        standings = self.standings()
        self.notes = [
            f"overrides.csv, line {each.line}: {why}"
            for each, why in problems(self.overrides, standings)
        ]
        self.notes += [
            f"rules.toml: there is no assignment {name!r}; there are: {', '.join(self.assignments)}"
            for name in self.rules.deadlines
            if name not in self.assignments
        ]
        part = self.output / "grades.csv.part"
        table.write_grades(part, standings, self.assignments)
        os.replace(part, self.output / "grades.csv")
        if whole:
            self.write_pages(standings)
            similar = self.similar(standings) if self.settings.similar else []
            text = summary(standings, self.assignments, self.notes, similar)
            write_atomically(self.output / "summary.html", text)
        return standings

    def similar(self, standings: Sequence[Standing]) -> list[Pair]:
        """Pairs of answers that have much in common."""
        answers: dict[str, dict[str, list[int]]] = {}
        for each in standings:  # a row for each assignment, whose name is in the keys
            if each.report.answers:
                answers.setdefault(each.submission.learner, {}).update(each.report.answers)
        return pairs(answers)

    def write_pages(self, standings: Sequence[Standing]) -> None:
        """Write a page for each learner, and take away those of nobody."""
        several = len({each.submission.assignment for each in standings}) > 1
        folder, written = self.output / "feedback", set()
        for each in standings:
            if each.report.status in ("missing", "not graded"):
                continue
            name = page_name(each.submission.learner, each.submission.assignment, several)
            path = folder / name
            report = replace(each.report, notebook=self.as_it_ran(each.submission))
            text = feedback(replace(each, report=report))
            if not path.is_file() or path.read_text("utf-8", "replace") != text:
                write_atomically(path, text)
            written.add(path.name)
        for path in folder.iterdir():
            if path.name not in written and path.suffix in (".html", ".part"):
                path.unlink()

    def closing_lines(self, standings: Sequence[Standing]) -> list[str]:
        """How many there are of each status, and where everything is."""
        statuses = [each.status for each in standings]
        counts = ", ".join(f"{statuses.count(s)} {s}" for s in dict.fromkeys(statuses))
        lines = [f"{len(statuses)} learners: {counts}", *self.notes]
        return [*lines, f"grades: {self.output / 'grades.csv'}"]


def absent_ones(roster: Sequence[Enrolled], here: Iterable[tuple[str, str]]) -> list[Enrolled]:
    """Those of the roster whom none of ``here``, a number and a name each, stands for.

    A number decides where both have one. A name stands for one learner: of two who share it, one
    may have handed in and the other not.
    """
    enrolled = {who.number for who in roster if who.number}
    numbers = {number for number, _ in here}
    names = Counter(name for number, name in here if number not in enrolled)
    found = []
    for who in roster:
        if who.number and who.number in numbers:
            continue
        if names[same_name(who.name)] > 0:
            names[same_name(who.name)] -= 1
        else:
            found.append(who)
    return found


def version() -> str:
    """Hash the code that grades and the library, so that a changed check grades anew."""
    result = hashlib.sha256()
    for name in ("slingshot_grader", "slingshot_exercises", "slingshot"):
        for path in sorted((SOURCE / name).rglob("*.py")):
            result.update(path.relative_to(SOURCE).as_posix().encode())
            result.update(path.read_bytes())
    result.update((SOURCE / "slingshot" / "facts.yml").read_bytes())
    return result.hexdigest()
