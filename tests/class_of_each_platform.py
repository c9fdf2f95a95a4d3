"""Take a made-up class through all that an instructor does, as each platform hands it over.

    python tests/class_of_each_platform.py /tmp/platforms --learners 40
    python tests/class_of_each_platform.py /tmp/platforms --learners 200 --layout moodle

The class is graded, decided on, graded again after some have handed in once more, and exported:
once undisturbed, and once with the grader killed (SIGKILL) and ended (SIGTERM) in the middle of
each run. Both must end with the same bytes, and everybody with one row and the points that were
known beforehand. Nothing may be left running, or in the temporary folder.

With ``--undisturbed moodle`` only that layout goes both ways. The others are still held against
the known points. With ``--shared`` a notebook that was graded once is not graded again for another
layout: what is tried then is the layouts, and not the running of notebooks.
"""

import argparse
import contextlib
import csv
import hashlib
import html
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
from nbformat import NotebookNode

from made_up_class import FIRST, LAST, made_up_answers
from slingshot_grader import cli
from slingshot_grader.assignment import Assignment
from slingshot_grader.files import (
    Submission,
    UnreadableError,
    digest,
    read_regular,
    write_atomically,
)
from slingshot_grader.local import Local
from slingshot_grader.notebook import LARGEST_NOTEBOOK
from slingshot_grader.outcome import Report, read_report
from test_grade import (
    ALL,
    ATTACKS,
    OPEN,
    edition,
    everything_wrong,
    limits,
    solved,
    with_cells,
)

ROOT = Path(__file__).resolve().parent.parent
GRADE = [sys.executable, str(ROOT / "tools" / "grade.py")]
IN_TIME, LATE = "2026-10-05 10:00:00.000000 UTC", "2026-10-06 11:30:00.000000 UTC"
RULES = """late_percent_a_day = 20
[deadlines]
claim = 2026-10-05T12:00:00Z
[by_hand]
predictions = 2
"""
PENALTY = 0.2
PATIENCE = 3600.0


@dataclass
class Learner:
    """Somebody of the class: what the platform knows, what was handed in, what it is worth."""

    number: int
    name: str
    login: str
    points: float | None = None
    attempts: list[bytes] = field(default_factory=list)
    late: bool = False
    graded_before: bool = False
    another: bytes = b""  # at another assignment


def made_up(size: int, chance: random.Random) -> list[Learner]:
    """A class: most hand in once, some twice, late, something broken or hostile, or nothing."""
    found: list[Learner] = []
    for place in range(size):
        name = f"{chance.choice(FIRST)} {chance.choice(LAST)}"
        if place % 20 == 7:
            name = found[-1].name
        each = Learner(20_001 + 7 * place, name, f"login{place}-x{place % 3}")
        answers, each.points = made_up_answers(chance)
        each.attempts = [as_bytes(**answers)]
        each.late, each.graded_before = place % 9 == 4, place % 10 == 7
        each.another = as_bytes("moe") if place % 10 == 4 else b""
        if place % 8 == 5:  # the better one counts
            each.attempts.append(as_bytes())
            each.points = ALL
        if place % 20 in BROKEN:
            each.attempts, each.points = [BROKEN[place % 20]], None
        if place % 20 == 2:
            each.attempts, each.points = [json.dumps(hostile(place)).encode()], 0.0
        if place % 20 == 3:
            each.attempts, each.points = [], None
        found.append(each)
    return found


BROKEN = {6: b"PK\x03\x04 an archive that broke off", 14: b'{"cells": [], "nbform'}
"""What cannot be read, by the place of its learner among each twenty."""

# Attacks that show the same each time: the pages of both ways are compared.
HOSTILE = ("overwrites-the-checks", "overwrites-builtins", "equals-everything", "forges-replies")


def hostile(place: int) -> NotebookNode:
    """A notebook of wrong answers, with one of the attacks that try to make them right."""
    return with_cells(solved(**everything_wrong()), ATTACKS[HOSTILE[place // 20 % len(HOSTILE)]])


def as_bytes(assignment: str = "claim", **answers: str) -> bytes:
    """A notebook in which all is right but the answers that are given."""
    return json.dumps(solved(assignment, **answers)).encode()


def named(name: str, data: bytes) -> str:
    """A name with the ending that suits its content."""
    return f"{name}.zip" if data.startswith(b"PK") else f"{name}.ipynb"


# --- what each platform hands over, and what it wants back ---------------------------------------


@dataclass(frozen=True)
class Form:
    """How a platform lays a submission out, exports its grades and names the grade's column.

    ``page`` is what the place of a learner's page in the zip begins with, or holds.
    """

    write: Callable[[Path, Learner], None]
    export: Callable[[Sequence[Learner]], list[list[str]]] | None = None
    to: str = ""
    column: str = ""
    page: str = ""
    knows_number: bool = True
    takes_penalty: bool = False


def put(path: Path, data: bytes) -> None:
    """Write a file where a platform puts it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def zip_of(members: dict[str, bytes]) -> bytes:
    """An archive, the same bytes each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def moodle(folder: Path, who: Learner) -> None:
    """A folder for each, some with a zip in it, and one beside it for text typed online."""
    stem = f"{who.name}_{who.number}_assignsubmission"
    files = {named(f"claim {n}" if n else "claim", d): d for n, d in enumerate(who.attempts)}
    if files and who.number % 3 == 0 and "claim.zip" not in files:
        files = {"work.zip": zip_of({f"work/{name}": data for name, data in files.items()})}
    for name, data in files.items():
        put(folder / f"{stem}_file" / name, data)
    if files and who.number % 4 == 0:
        put(folder / f"{stem}_onlinetext" / "onlinetext.html", b"<p>see my file</p>")


def moodle_flat(folder: Path, who: Learner) -> None:
    """Files side by side."""
    for number, data in enumerate(who.attempts):
        name = named(f"my_claim_{number}", data)
        put(folder / f"{who.name}_{who.number}_assignsubmission_file_{name}", data)


def canvas(folder: Path, who: Learner) -> None:
    """Files side by side, under a name without spaces or signs; of two attempts a file each."""
    letters = "".join(sign for sign in who.name.casefold() if sign.isalnum())
    late = "_LATE" if who.late else ""
    for again, data in enumerate(who.attempts):
        name = named(f"claim-{again}" if again else "claim", data)
        put(folder / f"{letters}{late}_{who.number}_{910_000 + who.number + again}_{name}", data)


def nbgrader(folder: Path, who: Learner) -> None:
    """The folder ``submitted``, which holds another assignment too, and one attempt of each."""
    both = [("claim", each) for each in who.attempts[-1:]]
    both += [("moe", who.another)] if who.another else []
    for name, data in both:
        put(folder / who.login / name / named(name, data), data)
        time_ = LATE if who.late else IN_TIME
        put(folder / who.login / name / "timestamp.txt", time_.encode())


def classroom(folder: Path, who: Learner) -> None:
    """A clone of a repository, with the chapters and the assignments that nobody has begun."""
    if not who.attempts:
        return
    repository = folder / f"week-3-{who.login}"
    put(repository / ".git" / "HEAD", b"ref: refs/heads/main\n")
    put(repository / ".github" / "workflows" / "classroom.yml", b"name: check\n")
    put(repository / "README.md", b"# Week 3\n")
    put(repository / "moe.ipynb", json.dumps(edition("release", "moe")).encode())
    put(repository / "notes.ipynb", b'{"cells": [], "metadata": {}, "nbformat": 4}')
    for number, data in enumerate(who.attempts):
        put(repository / named(f"claim-{number}" if number else "claim", data), data)


def plain(folder: Path, who: Learner) -> None:
    """By hand: a file, a folder or a zip."""
    name = f"{who.name} {who.number}"
    files = {named(str(number), data): data for number, data in enumerate(who.attempts)}
    if not files:
        return
    # What comes again replaces what was there, in whatever form: a name stands for one learner.
    shutil.rmtree(folder / name, ignore_errors=True)
    for ending in (".zip", ".ipynb"):
        (folder / f"{name}{ending}").unlink(missing_ok=True)
    if who.number % 3 == 0 and "0.zip" not in files:
        put(folder / f"{name}.zip", zip_of(files))
    elif who.number % 3 == 1 or len(files) > 1:
        for each, data in files.items():
            put(folder / name / each, data)
    else:
        put(folder / named(name, who.attempts[0]), who.attempts[0])


def moodle_rows(learners: Sequence[Learner]) -> list[list[str]]:
    """The grading worksheet."""
    head = ["Identifier", "Full name", "Email address", "Status", "Grade", "Maximum Grade"]
    head += ["Grade can be changed", "Last modified (submission)", "Feedback comments"]
    return [head] + [
        [f"Participant {who.number}", who.name, f"{who.login}@example.org", "Submitted",
         "1.00" if who.graded_before else "", f"{ALL:.2f}", "Yes", "-", ""]
        for who in learners
    ]  # fmt: skip


def canvas_rows(learners: Sequence[Learner]) -> list[list[str]]:
    """The gradebook, with its rows that are about nobody."""
    head = [
        "Student",
        "ID",
        "SIS User ID",
        "SIS Login ID",
        "Section",
        "Claim (4711)",
        "Final Score",
    ]
    return [head, ["", "", "", "", "", "Manual Posting", ""],
            ["    Points Possible", "", "", "", "", f"{ALL:.2f}", "(read only)"]] + [
        [f"{who.name.split()[-1]}, {who.name.split()[0]}", str(who.number), "", who.login, "A",
         "1.00" if who.graded_before else "", "50"]
        for who in learners
    ] + [["Student, Test", "", "", "f00", "A", "", ""]]  # fmt: skip


def nbgrader_rows(learners: Sequence[Learner]) -> list[list[str]]:
    """What ``nbgrader export`` writes, with a line for each assignment."""
    head = ["assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"]
    head += ["raw_score", "late_submission_penalty", "score", "max_score"]
    return [head] + [
        [name, "", "", who.login, "", "", "", "0.0", "0.0",
         "1.0" if who.graded_before and name == "claim" else "", f"{ALL:g}"]
        for name in ("claim", "moe") for who in learners
    ]  # fmt: skip


def classroom_rows(learners: Sequence[Learner]) -> list[list[str]]:
    """What "Download grades" gives."""
    head = ["assignment_name", "assignment_url", "starter_code_url", "github_username"]
    head += ["roster_identifier", "student_repository_name", "points_awarded", "points_available"]
    return [head] + [
        ["week 3", "", "", who.login, who.name, f"week-3-{who.login}",
         "1" if who.graded_before else "", f"{ALL:g}"]
        for who in learners
    ]  # fmt: skip


MOODLES = "{who.name}_{who.number}_assignsubmission_file"
FORMS = {
    "moodle": Form(moodle, moodle_rows, "moodle", "Grade", MOODLES),
    "moodle-flat": Form(moodle_flat, moodle_rows, "moodle", "Grade", MOODLES),
    "canvas": Form(canvas, canvas_rows, "canvas", "Claim (4711)", "_{who.number}_"),
    "nbgrader": Form(
        nbgrader, nbgrader_rows, "nbgrader", "score", "{who.login}/claim/", False, True
    ),
    "classroom": Form(
        classroom, classroom_rows, "classroom", "points_awarded", "week-3-{who.login}/", False
    ),
    "plain": Form(plain, knows_number=False),
}

# --- the way through -----------------------------------------------------------------------------


class Way:
    """One class on its way, and all that was written, by name."""

    def __init__(
        self, place: Path, platform: str, size: int, *, disturb: bool, shared: Path | None = None
    ) -> None:
        """Lay the class out in ``place``; nothing is graded yet."""
        self.form, self.disturb, self.shared = FORMS[platform], disturb, shared
        self.chance = random.Random(f"{platform} {size}")
        self.folder, self.output = place / "class", place / "class-graded"
        self.temporary = place / "tmp"
        for each in (self.folder, self.output, self.temporary):
            each.mkdir(parents=True)
        self.learners = made_up(size, random.Random(size))
        for who in self.learners:
            self.form.write(self.folder, who)
        self.written: dict[str, bytes] = {}
        self.stops = 0
        self.seconds: list[float] = []
        self.meter = Meter()

    def go(self) -> dict[str, bytes]:
        """Grade, decide, let some hand in again, and export; return all that was written."""
        (self.output / "rules.toml").write_text(RULES, "utf-8")
        lines = [f"{self.named(who)},{who.number}" for who in self.learners]
        (self.output / "roster.csv").write_text("learner,id\n" + "\n".join(lines) + "\n", "utf-8")
        self.grade("1 graded", sum(len(who.attempts) for who in self.learners))
        assert not (wrong := list(self.wrong_points({}))), wrong
        decided = self.decide()
        before = self.results()
        self.grade("2 decided", 0)
        assert self.results() == before  # nothing was graded again
        assert not (wrong := list(self.wrong_points(decided))), wrong
        able = [who for who in self.learners if who.attempts and who.number not in decided]
        again = able[-max(3, len(self.learners) // 10) :]
        for who in again:
            who.attempts, who.points = [as_bytes()], ALL
            self.form.write(self.folder, who)
        self.grade("3 handed in again", len(again))
        assert not (wrong := list(self.wrong_points(decided))), wrong
        for path in [self.output / "summary.html", *(self.output / "feedback").iterdir()]:
            self.written[path.name] = path.read_bytes()
        if self.form.export:
            self.give_back()
        assert list(self.temporary.iterdir()) == []
        return self.written

    def named(self, who: Learner) -> str:
        """A learner's name in the table, where it is known beforehand."""
        if self.form.to in ("nbgrader", "classroom"):
            return who.login
        return f"{who.name} {who.number}" if not self.form.to else who.name

    def decide(self) -> dict[int, float | None]:
        """Decide on three learners; return the points that they must have then."""
        able = [who for who in self.learners if who.points is not None]
        full, excused, half = able[0], able[1], able[2]
        table = csv.writer(text := io.StringIO())
        table.writerow(["learner", "assignment", "exercise", "points", "comment", "excused"])
        word = [str(who.number) if self.form.knows_number else self.named(who) for who in able]
        table.writerow([word[0], "claim", "", f"{ALL - 0.5}", "talked, and understood", ""])
        table.writerow([word[1], "claim", "", "", "ill", "yes"])
        table.writerow([word[2], "claim", "predictions", "1.5", "well argued", ""])
        (self.output / "overrides.csv").write_text(text.getvalue(), "utf-8")
        assert half.points is not None
        share = 1 - PENALTY if half.late and self.form.takes_penalty else 1
        return {full.number: ALL - 0.5, excused.number: None,
                half.number: (half.points + 1.5) * share}  # fmt: skip

    def wrong_points(self, decided: dict[int, float | None]) -> Iterator[str]:
        """Whoever has not the points that were known beforehand."""
        rows = self.rows()
        for who in self.learners:
            points = who.points
            if points is not None and who.late and self.form.takes_penalty:
                points *= 1 - PENALTY
            points = decided.get(who.number, points)
            row = rows.get(str(who.number) if self.form.knows_number else self.named(who))
            there = None if row is None or row["points"] == "" else float(row["points"])
            same = there == points or (None not in (there, points) and abs(there - points) < 1e-5)  # type: ignore[operator]
            if row is None or not same:
                yield f"{who}: {there}, must be {points}: {row and row['remarks']}"[-300:]

    def rows(self) -> dict[str, dict[str, str]]:
        """The table by what the platform knows a learner by."""
        with open(self.output / "grades.csv", encoding="utf-8-sig", newline="") as file:
            name = "id" if self.form.knows_number else "learner"
            rows = list(csv.DictReader(file))
        found = {row[name]: row for row in rows}
        assert len(found) == len(rows) == len(self.learners), (len(found), len(rows))
        return found

    def results(self) -> dict[str, float]:
        """What is kept, and when each was written."""
        return {p.name: p.stat().st_mtime for p in (self.output / "results").glob("*.json")}

    # --- the grader, left alone or not -----------------------------------------------------------

    def grade(self, step: str, new: int) -> None:
        """Grade ``new`` submissions to the end, however often that is interrupted before."""
        began = time.monotonic()
        if self.disturb:
            self.stop_in_the_middle(signal.SIGKILL, new)
            self.stop_in_the_middle(signal.SIGTERM, new)
        process = self.start()
        with self.meter.of(process.pid):
            _, said = process.communicate(timeout=PATIENCE)
        broken = any(who.attempts and who.points is None for who in self.learners)
        assert process.returncode == (1 if broken else 0), said
        self.written[f"{step}: grades.csv"] = (self.output / "grades.csv").read_bytes()
        self.seconds.append(time.monotonic() - began)

    def start(self) -> "subprocess.Popen[str]":
        """The command that an instructor types."""
        words = [*GRADE, "--assignment=claim", "--similar"]
        if self.shared:
            words[1:2] = [__file__, f"{SHARED}{self.shared}"]
        env = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT / "src")}
        return subprocess.Popen(
            [*words, *limits(), *OPEN, "--jobs=2", str(self.folder)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip

    def stop_in_the_middle(self, how: signal.Signals, new: int) -> None:
        """Start grading, end it after some submissions, and see that nothing goes on.

        Where nothing is new, it is ended after some seconds, wherever it is then.
        """
        process, before = self.start(), self.results()
        some = self.chance.randint(0, new // 3)
        end = time.monotonic() + (PATIENCE if new else self.chance.uniform(2, 8))
        with self.meter.of(process.pid):
            while process.poll() is None and time.monotonic() < end:
                if new and len(self.results().items() - before.items()) > some:
                    break
                time.sleep(0.2)
            started = [] if process.poll() is not None else below(process.pid)
            process.send_signal(how)
            process.communicate(timeout=300)
        _, left = psutil.wait_procs(started, timeout=120)
        assert left == [], left
        self.stops += process.returncode in (-how, 130)

    def give_back(self) -> None:
        """Fill in the platform's own file, with and without ``--replace``, and pack the pages."""
        assert self.form.export is not None
        place = self.folder.parent
        with open(place / "exported.csv", "w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows(self.form.export(self.learners))
        for name, more in (("kept", []), ("replaced", ["--replace"])):
            words = [*GRADE, "export", str(self.output)]
            words += ["--to", self.form.to, "--assignment=claim", "--column", self.form.column]
            words += ["--into", str(place / "exported.csv"), "--filled", str(place / f"{name}.csv")]
            words += ["--feedback", str(place / "feedback.zip"), *more]
            run = subprocess.run(words, capture_output=True, text=True, check=False)
            assert not run.stderr, run.stderr
            self.written[f"{name}.csv"] = (place / f"{name}.csv").read_bytes()
            self.written[f"{name}: said"] = run.stdout.replace(str(place), "").encode()
            assert not (wrong := list(self.wrongly_filled(place / f"{name}.csv", bool(more)))), (
                wrong
            )
        self.written["feedback.zip"] = (place / "feedback.zip").read_bytes()
        with zipfile.ZipFile(place / "feedback.zip") as packed:
            pages = {name: packed.read(name).decode() for name in packed.namelist()}
            assert len(pages) == len(packed.namelist())
        assert not (wrong := list(self.wrong_pages(pages))), wrong

    def wrong_pages(self, pages: dict[str, str]) -> Iterator[str]:
        """Whoever has not exactly one page, or one of somebody else or with other points."""
        rows, of_nobody = self.rows(), set(pages)
        for who in self.learners:
            word = self.form.page.format(who=who)
            mine = [name for name in pages if word in name]
            of_nobody -= set(mine)
            row = rows[str(who.number) if self.form.knows_number else self.named(who)]
            if len(mine) != bool(who.attempts):
                yield f"{who.name}: {mine}"
                continue
            text = pages[mine[0]] if mine else ""
            if mine and f"<h1>claim: {html.escape(row['learner'])}</h1>" not in text:
                yield f"{mine[0]} is not the page of {row['learner']}"
            if mine and row["points"] and f"<strong>{float(row['points']):g} of " not in text:
                yield f"{mine[0]} has not the {row['points']} points of the table"
        yield from of_nobody

    def wrongly_filled(self, path: Path, replaced: bool) -> Iterator[str]:
        """Whose line has another grade than the table, or lost the one that was there."""
        assert self.form.export is not None
        rows = self.rows()
        with open(path, encoding="utf-8-sig", newline="") as file:
            filled = list(csv.reader(file))
        exported = self.form.export(self.learners)
        place = exported[0].index(self.form.column)
        assert [len(line) for line in filled] == [len(line) for line in exported]
        for old, new in zip(exported, filled, strict=True):
            who = next((each for each in self.learners if is_about(old, each, self.form)), None)
            due = old[place]
            if who and "moe" not in old[:1]:
                key = str(who.number) if self.form.knows_number else self.named(who)
                points = rows[key]["points"]
                if points and (replaced or not old[place]):
                    due = points
            if [*new[:place], *new[place + 1 :]] != [*old[:place], *old[place + 1 :]]:
                yield f"another line: {old} {new}"
            if new[place] != due:
                yield f"{old}: {new[place]}, must be {due}"


def is_about(line: Sequence[str], who: Learner, form: Form) -> bool:
    """Whether a line of an exported file is about a learner."""
    mine = {str(who.number), f"Participant {who.number}"} if form.knows_number else {who.login}
    return not mine.isdisjoint(line)


def below(pid: int) -> list[psutil.Process]:
    """A process with all that it has started; nothing where it has just ended."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


class Meter:
    """The most memory that was seen: of the grader itself, and of it with all that it starts."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self.grader = self.all = 0

    @contextlib.contextmanager
    def of(self, pid: int) -> Iterator[None]:
        """Look twice a second until the block ends."""
        over = threading.Event()
        watch = threading.Thread(target=self.look, args=(pid, over))
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()

    def look(self, pid: int, over: threading.Event) -> None:
        """Add up the memory, where several share a page each its part."""
        while not over.wait(0.5):
            with contextlib.suppress(psutil.Error, OSError):
                self.grader = max(self.grader, psutil.Process(pid).memory_info().rss)
                self.all = max(self.all, sum(map(part_of, [psutil.Process(pid), *below(pid)])))


def part_of(process: psutil.Process) -> int:
    """The memory of a process, of what it shares its part; 0 where it has just ended."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.Error, OSError):
        return 0


SHARED = "--grade-with="


@dataclass(frozen=True)
class Sharing:
    """Grades as this machine does, but each notebook once, and keeps the reports in a folder."""

    folder: Path
    grader: Local

    def __call__(self, submission: Submission, assignment: Assignment) -> Report:
        """The report, from the folder where it is there."""
        try:
            content = hashlib.sha256(read_regular(submission.path, LARGEST_NOTEBOOK)).hexdigest()
            path = self.folder / f"{content}.json"
            kept = json.loads(path.read_text("utf-8"))
            return replace(read_report(kept), digest=digest(submission))
        except FileNotFoundError:
            report = self.grader(submission, assignment)
            write_atomically(path, json.dumps(report.message()))
            return report
        except UnreadableError:
            return self.grader(submission, assignment)


def grade_with(folder: Path, argv: Sequence[str]) -> int:
    """The command that an instructor types, but for what is graded already."""
    folder.mkdir(parents=True, exist_ok=True)
    cli.Local = lambda *words: Sharing(folder, Local(*words))  # type: ignore[attr-defined, assignment]
    return cli.main(argv)


def go_through(
    place: Path, platform: str, size: int, *, both: bool, shared: bool
) -> tuple[list[str], str]:
    """Go one way or both; return the names of what differs, and what was measured, in words."""
    folder = place / "shared" if shared else None
    names = ["disturbed", "undisturbed"] if both else ["disturbed"]
    ways = [
        Way(empty(place / platform / name), platform, size, disturb=way == 0, shared=folder)
        for way, name in enumerate(names)
    ]
    shaken, *calm = [way.go() for way in ways]
    differ = [
        name
        for other in calm
        for name in sorted(other.keys() | shaken.keys())
        if other.get(name) != shaken.get(name)
    ]
    return differ, "; ".join(map(measured, ways))


def empty(folder: Path) -> Path:
    """A folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def measured(way: Way) -> str:
    """How often the grader was stopped, and what grading took."""
    seconds = " + ".join(f"{each:.0f}" for each in way.seconds)
    megabytes = f"{way.meter.grader / 1e6:.0f} MB, all of it {way.meter.all / 1e6:.0f} MB"
    return f"stopped {way.stops} times, graded in {seconds} s, the grader at most {megabytes}"


def main(argv: Sequence[str] | None = None) -> int:
    """Take each class through; return 1 where the two ways end differently."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0].startswith(SHARED):
        return grade_with(Path(words[0].removeprefix(SHARED)), words[1:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("place", type=Path)
    add("--learners", type=int, default=40, help="default: %(default)s")
    add("--layout", nargs="+", choices=FORMS, default=list(FORMS), help="default: all")
    add("--undisturbed", nargs="*", choices=FORMS, default=list(FORMS), help="default: all")
    add("--shared", action="store_true", help="grade a notebook once for all layouts")
    args = parser.parse_args(words)
    failed = 0
    for platform in args.layout:
        both = platform in args.undisturbed
        differ, said = go_through(
            args.place.resolve(), platform, args.learners, both=both, shared=args.shared
        )
        failed += bool(differ)
        end = f"differ: {', '.join(differ[:9])}" if differ else "the same bytes"
        print(f"{platform}: {args.learners} learners, {said}", flush=True)
        print(f"  everybody as known beforehand{f'; both ways {end}' if both else ''}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
