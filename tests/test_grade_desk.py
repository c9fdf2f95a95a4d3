"""What an instructor decides and collects: layouts, attempts, overrides, lateness, export.

Most of it grades with a stand-in that reads the points from the notebook, so that only the finding,
the reckoning and the writing are tested here; ``test_grade.py`` runs notebooks.
"""

import contextlib
import csv
import html
import io
import itertools
import json
import os
import random
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page

from class_of_each_platform import FORMS, made_up
from slingshot_grader import desk, layouts, similar, unzip
from slingshot_grader.assignment import Assignment, read_assignments
from slingshot_grader.batch import WHOLE_CLASS, Batch, Settings
from slingshot_grader.cli import EDITION, ROOT
from slingshot_grader.cli import main as command
from slingshot_grader.feedback import feedback
from slingshot_grader.files import (
    Submission,
    UnreadableError,
    digest,
    printable,
    read_regular,
    remove,
    same_name,
)
from slingshot_grader.notebook import Cell
from slingshot_grader.outcome import Grade, Report
from slingshot_grader.page import render
from slingshot_grader.pool import Pool
from slingshot_grader.sandbox import Sandbox
from slingshot_grader.standing import stand
from test_grade import by_id, edition, read_rows, solved

OFF = Sandbox("", "not needed: nothing runs")


def worth(points: float, assignment: str = "claim") -> bytes:
    """A notebook that the stand-in below gives so many points."""
    notebook = solved(assignment)
    notebook.metadata["worth"] = points
    return json.dumps(notebook).encode()


def stand_in(submission: Submission, assignment: Assignment) -> Report:
    """Give the points that a notebook says, exercise after exercise."""
    try:
        data = read_regular(submission.path, 10_000_000)
        left = float(json.loads(data)["metadata"].get("worth", 0))
    except (UnreadableError, ValueError):
        grades = [
            Grade(t.exercise, t.grade_id, 0, t.points, "unreadable") for t in assignment.tests
        ]
        return Report("unreadable", ["no notebook"], grades, digest=digest(submission))
    grades = []
    for test in assignment.tests:
        points = min(left, test.points)
        left -= points
        outcome = "passed" if points == test.points else "wrong"
        grades.append(Grade(test.exercise, test.grade_id, points, test.points, outcome))
    return Report("graded", [], grades, digest=digest(submission))


@pytest.fixture(scope="module")
def examiner() -> Iterator[Pool]:
    """One examiner for all tests: it takes a second to start, and does each job in a fork."""
    made = Pool(1)
    yield made
    made.close()


@pytest.fixture
def pool(examiner: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """That examiner, with a folder of the test's own for what is unpacked."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(examiner, "scratch", folder)
    return examiner


@pytest.fixture
def graded(tmp_path: Path, pool: Pool) -> Callable[..., dict[str, dict[str, str]]]:
    """Grades what lies in ``class`` and returns the rows."""

    def grade(assignment: str = "claim", folder: str = "class") -> dict[str, dict[str, str]]:
        settings = Settings(
            tmp_path / folder, tmp_path / "class-graded", EDITION, (), OFF, assignment=assignment
        )
        batch = Batch(settings, pool)
        batch.find()
        batch.run(stand_in)
        batch.write()
        rows = read_rows(tmp_path / "class-graded")
        for note in batch.notes:
            rows[note] = {}
        return rows

    return grade


Graded = Callable[..., dict[str, dict[str, str]]]


def hand_in(folder: Path, name: str, data: bytes) -> None:
    path = folder / "class" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def decide(folder: Path, name: str, text: str) -> None:
    (folder / "class-graded").mkdir(exist_ok=True)
    (folder / "class-graded" / name).write_text(text, "utf-8")


def page(folder: Path, learner: str) -> str:
    return (folder / "class-graded" / "feedback" / f"{learner}.html").read_text("utf-8")


# --- layouts -------------------------------------------------------------------------------------


def test_moodle_in_folders_and_flat(tmp_path: Path, graded: Graded) -> None:
    hand_in(tmp_path, "Ada Lovelace_12345_assignsubmission_file/claim.ipynb", worth(11))
    hand_in(tmp_path, "Ada Lovelace_12345_assignsubmission_onlinetext/text.html", b"hello")
    hand_in(tmp_path, "Ada Lovelace_12347_assignsubmission_file_/claim.ipynb", worth(3))
    hand_in(tmp_path, "Zoë 9_12346_assignsubmission_file_my claim.ipynb", worth(5))
    hand_in(tmp_path, "Zoë 9_12346_assignsubmission_file_old.ipynb", worth(4))
    hand_in(tmp_path, "Kurt_12348_assignsubmission_onlinetext/text.html", b"no file")
    rows = graded()
    assert {name: (row["id"], row["points"], row["attempts"]) for name, row in rows.items()} == {
        "Ada Lovelace": ("12345", "11", "1"),
        "Ada Lovelace (2)": ("12347", "3", "1"),
        "Zoë 9": ("12346", "5", "2"),
        "Kurt": ("12348", "", "1"),
    }
    assert rows["Kurt"]["status"] == "unreadable"


def test_canvas_with_late_and_again(tmp_path: Path, graded: Graded) -> None:
    hand_in(tmp_path, "lovelaceada_12345_678901_claim.ipynb", worth(4))
    hand_in(tmp_path, "turingalan_LATE_12346_678902_claim-1.ipynb", worth(6))
    rows = graded()
    assert (rows["lovelaceada"]["id"], rows["lovelaceada"]["late"]) == ("12345", "")
    assert (rows["turingalan"]["id"], rows["turingalan"]["late"]) == ("12346", "yes")
    assert "Handed in late." in page(tmp_path, "turingalan")


@pytest.mark.parametrize("platform", FORMS)
def test_each_platform_of_the_made_up_class_is_recognized(tmp_path: Path, platform: str) -> None:
    """The class of ``class_of_each_platform.py``: whose each file is, as the platform knows it."""
    learners = made_up(20, random.Random(0))
    (tmp_path / "class").mkdir()
    for who in learners:
        FORMS[platform].write(tmp_path / "class", who)
    found = layouts.entries(tmp_path / "class", "class")
    names = layouts.name_learners(found)
    handed_in = [who for who in learners if who.attempts]
    assert len(names) == len(handed_in)
    if FORMS[platform].knows_number:
        assert {each.number for each in found} == {str(who.number) for who in handed_in}
    elif platform == "plain":
        assert set(names.values()) == {f"{who.name} {who.number}" for who in handed_in}
    else:
        assert set(names.values()) == {who.login for who in handed_in}


def test_nbgrader_with_its_times(tmp_path: Path, graded: Graded) -> None:
    for name, points, assignment in (("ada", 11, "claim"), ("ada", 10, "moe"), ("bob", 2, "claim")):
        hand_in(tmp_path, f"{name}/{assignment}/{assignment}.ipynb", worth(points, assignment))
        hand_in(tmp_path, f"{name}/{assignment}/timestamp.txt", b"2026-10-06 10:00:00.5 UTC")
    deadline = "late_percent_a_day = 10\n[deadlines]\nclaim = 2026-10-05T12:00:00Z\n"
    decide(tmp_path, "rules.toml", deadline)
    rows = graded()
    assert {name: row["points"] for name, row in rows.items()} == {"ada": "9.9", "bob": "1.8"}
    rows = graded("")
    assert rows["ada"]["assignment"] == "moe"  # the last row of that name


def test_work_at_another_assignment_is_no_attempt_at_this_one(
    tmp_path: Path, graded: Graded
) -> None:
    """However the two come: side by side, in a folder, or in two zips."""
    claim, moe = worth(9), worth(10, "moe")
    for name, data in (("claim", claim), ("moe", moe)):
        hand_in(tmp_path, f"Bob_12_assignsubmission_file_{name}.ipynb", data)
        hand_in(tmp_path, f"cyd_13_{'14' if name == 'claim' else '15'}_{name}.ipynb", data)
        hand_in(tmp_path, f"Dan_16_assignsubmission_file/{name}.zip", zip_of(**{"x.ipynb": data}))
        hand_in(tmp_path, f"Eve_17_assignsubmission_file/{name}.ipynb", data)
    hand_in(tmp_path, "Gus_18_assignsubmission_file_moe.ipynb", moe)  # nothing else: it is graded
    decide(tmp_path, "rules.toml", 'attempts = "last"\n')
    rows = graded()
    assert {name: (row["points"], row["attempts"]) for name, row in rows.items()} == {
        **dict.fromkeys(("Bob", "cyd", "Dan", "Eve"), ("9", "1")),
        "Gus": ("10", "1"),  # by the stand-in, which reads them from the file
    }


def test_a_folder_of_nbgrader_belongs_to_its_assignment(tmp_path: Path, graded: Graded) -> None:
    for who, assignment in (("ada", "claim"), ("ada", "moe"), ("fay", "moe")):
        hand_in(tmp_path, f"{who}/{assignment}/{assignment}.ipynb", worth(9, assignment))
        hand_in(tmp_path, f"{who}/{assignment}/timestamp.txt", b"2026-10-06 10:00:00 UTC")
    decide(tmp_path, "rules.toml", 'attempts = "last"\n')
    decide(tmp_path, "roster.csv", "learner\nada\nfay\n")
    rows = graded()
    assert (rows["ada"]["attempts"], rows["ada"]["file"]) == ("1", "class/ada/claim/claim.ipynb")
    assert rows["fay"]["status"] == "missing"


def test_github_classroom_with_other_notebooks(tmp_path: Path, graded: Graded) -> None:
    for login, points in (("ada", 11), ("bob-2", 3)):
        hand_in(tmp_path, f"week-3-{login}/.git/HEAD", b"ref")
        hand_in(tmp_path, f"week-3-{login}/claim.ipynb", worth(points))
        by_id(chapter := edition("release", "moe"))  # untouched
        hand_in(tmp_path, f"week-3-{login}/moe.ipynb", json.dumps(chapter).encode())
        hand_in(tmp_path, f"week-3-{login}/notes.ipynb", b'{"cells": [], "nbformat": 4}')
    for assignment in ("claim", ""):
        rows = graded(assignment)
        assert {name: row["points"] for name, row in rows.items()} == {"ada": "11", "bob-2": "3"}


def zip_of(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


def test_zips_of_a_learner_and_of_a_class(tmp_path: Path, graded: Graded) -> None:
    hand_in(tmp_path, "ada.zip", zip_of(**{"work__claim.ipynb": worth(7), "work__data.csv": b"1"}))
    hand_in(tmp_path, "bob/claim.ZIP", zip_of(**{"claim.ipynb": worth(2)}))
    hand_in(tmp_path, "empty.zip", zip_of(**{"essay.txt": b"x"}))
    hand_in(tmp_path, "none.zip", b"PK no zip")
    rows = graded()
    assert {name: row["points"] for name, row in rows.items()} == {
        "ada": "7", "bob": "2", "empty": "", "none": "",
    }  # fmt: skip
    assert rows["ada"]["file"] == "class/ada.zip/work/claim.ipynb"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for path in (tmp_path / "class").rglob("*"):
            made.write(path, path.relative_to(tmp_path / "class"))
    (tmp_path / "all.zip").write_bytes(buffer.getvalue())
    again = graded(folder="all.zip")
    assert {name: row["points"] for name, row in again.items()} == {
        name: row["points"] for name, row in rows.items()
    }


def bomb() -> bytes:
    return zip_of(**{"claim.ipynb": bytes(60_000_000)})


def link() -> bytes:
    info = zipfile.ZipInfo("claim.ipynb")
    info.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(info, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bomb(), "grows beyond all measure"),
        (zip_of(**{f"{n}.txt": b"" for n in range(3000)}), "a zip of 3000 files"),
        (b"PK\x03\x04" + bytes(40), "cannot be read"),
        (b"", "cannot be read"),
    ],
    ids=["bomb", "many", "broken", "empty"],
)
def test_a_zip_beyond_bounds_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    (tmp_path / "to").mkdir()
    with pytest.raises(UnreadableError, match=words):
        unzip.unpack(tmp_path / "x.zip", tmp_path / "to")
    size = sum(path.stat().st_size for path in (tmp_path / "to").rglob("*"))
    assert size < 50_000_000


def test_the_zip_of_a_class_may_hold_more_than_that_of_a_learner(tmp_path: Path) -> None:
    data = zip_of(**{f"{n}.txt": b"" for n in range(2100)})
    (tmp_path / "x.zip").write_bytes(data)
    (tmp_path / "to").mkdir()
    unzip.unpack(tmp_path / "x.zip", tmp_path / "to", **WHOLE_CLASS)
    assert len(list((tmp_path / "to").iterdir())) == 2100


def test_files_that_are_too_large_together_are_no_bomb(tmp_path: Path) -> None:
    chance = random.Random(0)
    data = zip_of(**{f"{n}.txt": chance.randbytes(1000) for n in range(3)})
    (tmp_path / "x.zip").write_bytes(data)
    for place, most in (("less", 2500), ("enough", 3000)):
        (tmp_path / place).mkdir()
        with contextlib.ExitStack() as stack:
            if most < 3000:
                stack.enter_context(pytest.raises(UnreadableError, match="too large together"))
            unzip.unpack(tmp_path / "x.zip", tmp_path / place, most_bytes=most)


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "..\\out", "C:/out", ".hidden"])
def test_a_zip_writes_nowhere_else(tmp_path: Path, name: str) -> None:
    place = tmp_path / "deep" / "to"
    place.mkdir(parents=True)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(name, "x")
        made.writestr("kept.txt", "x")
    (tmp_path / "x.zip").write_bytes(buffer.getvalue())
    assert unzip.unpack(tmp_path / "x.zip", place) == ["1 entries of the zip are no plain files"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["x.zip", "kept.txt"]


def test_a_link_in_a_zip_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(link())
    (tmp_path / "to").mkdir()
    unzip.unpack(tmp_path / "x.zip", tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


# --- what a learner may do to others by names and folders ---------------------------------------


def test_a_folder_of_any_depth_costs_nobody_the_table(tmp_path: Path, graded: Graded) -> None:
    hand_in(tmp_path, "ada.ipynb", worth(11))
    hand_in(tmp_path, "bob/work.zip", zip_of(**{"a__" * 900 + "claim.ipynb": worth(3)}))
    here = os.getcwd()
    (tmp_path / "class" / "deep").mkdir()
    os.chdir(tmp_path / "class" / "deep")
    try:
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
        Path("claim.ipynb").write_bytes(worth(5))
    finally:
        os.chdir(here)
    for number in range(3000):
        (tmp_path / "class" / "wide" / str(number)).mkdir(parents=True)
    rows = graded()
    assert {name: (row["status"], row["points"]) for name, row in rows.items()} == {
        "ada": ("graded", "11"), "bob": ("unreadable", ""), "deep": ("unreadable", ""),
        "wide": ("unreadable", ""),
    }  # fmt: skip
    remove(tmp_path / "class")


def test_whatever_lies_in_a_folder_is_taken_away(tmp_path: Path) -> None:
    here, folder = os.getcwd(), tmp_path / "scratch"
    (folder / "locked" / "in").mkdir(parents=True)
    (folder / "locked").chmod(0)
    (tmp_path / "outside").mkdir()
    (folder / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(folder / "pipe")
    os.chdir(folder)
    try:
        for _ in range(1200):  # the whole name is longer than any may be
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
    finally:
        os.chdir(here)
    remove(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]


def test_no_two_submissions_share_what_is_kept(tmp_path: Path, graded: Graded, pool: Pool) -> None:
    hand_in(tmp_path, os.fsdecode(b"Ren\xe9.ipynb"), worth(11))
    hand_in(tmp_path, "Ren\\xe9.ipynb", worth(1))
    for place in ("a", "b"):
        hand_in(tmp_path, f"two/{place}/claim.ipynb", worth(7 if place == "a" else 2))
    parts = {"a__claim.ipynb": worth(8), "b__claim.ipynb": worth(3)}
    hand_in(tmp_path, "zipped.zip", zip_of(**parts))
    for _ in range(2):  # the second time from what was kept
        remove(pool.scratch / "unpacked")
        rows = graded()
        assert {name: row["points"] for name, row in rows.items()} == {
            "Ren_xe9": "1", "Ren_xe9 (2)": "11", "two": "7", "zipped": "8",
        }  # fmt: skip
    assert rows["two"]["file"] == "class/two/a/claim.ipynb"
    assert rows["zipped"]["file"] == "class/zipped.zip/a/claim.ipynb"


def test_nobody_hands_in_for_another(tmp_path: Path, graded: Graded) -> None:
    hand_in(tmp_path, "Vic_999_assignsubmission_file_claim.ipynb", worth(9))
    ours = "Eve_12_assignsubmission_file_"
    hand_in(tmp_path, f"{ours}x_999_assignsubmission_file_claim.ipynb", worth(1))
    hand_in(tmp_path, f"{ours}x_999_assignsubmission_onlinetext_claim.ipynb", worth(1))
    decide(tmp_path, "rules.toml", 'attempts = "last"\n')
    rows = graded()
    assert (rows["Vic"]["id"], rows["Vic"]["points"], rows["Vic"]["attempts"]) == ("999", "9", "1")
    assert [row["id"] for name, row in rows.items() if name != "Vic"] == ["", ""]


def test_a_learners_own_timestamp_is_none(tmp_path: Path, graded: Graded) -> None:
    for name in ("ada", "bob", "cy"):
        hand_in(tmp_path, f"{name}/claim/claim.ipynb", worth(10))
    hand_in(tmp_path, "cy/claim/timestamp.txt", b"2020-01-01 00:00:00 UTC")
    late = datetime(2026, 10, 6, 11, tzinfo=UTC).timestamp()
    for path in (tmp_path / "class").rglob("claim.ipynb"):
        os.utime(path, (late, late))
    rules = "late_percent_a_day = 20\ntimes = 'files'\n[deadlines]\nclaim = 2026-10-05T12:00:00Z\n"
    decide(tmp_path, "rules.toml", rules)
    assert {row["points"] for row in graded().values()} == {"8"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Zoë 李.ipynb", "Zoë 李.ipynb"),
        ("a\x1b]0;owned\x07\nno grade: b", "a\\u001b]0;owned\\u0007\\u000ano grade: b"),
        ("a\u202egpj.b", "a\\u202egpj.b"),
        (os.fsdecode(b"a\xe9"), "a\\xe9"),
        ("a\\xe9", "a\\\\xe9"),
    ],
    ids=ascii,
)
def test_a_name_is_one_harmless_line(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_thousands_of_one_name_take_no_time_each(tmp_path: Path) -> None:
    found = [layouts.Entry("anon", tmp_path, "Canvas", str(n)) for n in range(3000)]
    names = layouts.name_learners([*found, layouts.Entry("Anon (7)", tmp_path, "plain")])
    assert len({same_name(name) for name in names.values()}) == 3001
    assert names["Canvas", "2"] == "anon (3)"


def test_pages_hold_the_notebook_and_the_grader_does_not(tmp_path: Path, pool: Pool) -> None:
    """Ten thousand notebooks would fill its memory."""
    hand_in(tmp_path, "ada.ipynb", worth(11))
    settings = Settings(tmp_path / "class", tmp_path / "class-graded", EDITION, (), OFF)
    for _ in range(2):
        batch = Batch(settings, pool)
        batch.find()
        batch.run(lambda *each: replace(stand_in(*each), notebook="<p>as it ran</p>"))
        batch.write()
        assert [report.notebook for report in batch.reports.values()] == [""]
        assert "<p>as it ran</p>" in page(tmp_path, "ada")


# --- attempts, deadlines, the roster -------------------------------------------------------------


@pytest.mark.parametrize(("rule", "points"), [("best", "9"), ("last", "4")])
def test_the_attempt_that_counts(tmp_path: Path, graded: Graded, rule: str, points: str) -> None:
    for number, each in enumerate((6, 9, 4)):
        hand_in(tmp_path, f"ada/{number}.ipynb", worth(each))
    decide(tmp_path, "rules.toml", f'attempts = "{rule}"\n')
    row = graded()["ada"]
    assert (row["points"], row["attempts"]) == (points, "3")
    assert f"the {rule} of 3 attempts (class/ada/0.ipynb: 6" in row["remarks"]


def test_the_best_attempt_is_the_best_after_its_penalty(tmp_path: Path, graded: Graded) -> None:
    for name, points, day in (("early", 6, 5), ("late", 7, 9)):
        hand_in(tmp_path, f"ada/{name}/claim.ipynb", worth(points))
        hand_in(tmp_path, f"ada/{name}/timestamp.txt", f"2026-10-0{day} 10:00:00 UTC".encode())
    rules = "late_percent_a_day = 20\n[deadlines]\nclaim = 2026-10-05T12:00:00Z\n"
    decide(tmp_path, "rules.toml", rules)
    row = graded()["ada"]
    assert (row["points"], row["late"]) == ("6", "")


@pytest.mark.parametrize(
    ("hours", "days"), [(-1, 0), (0, 0), (0.1, 0), (0.5, 1), (24.1, 1), (24.5, 2), (1000, 42)]
)
def test_each_begun_day_is_late(hours: float, days: int) -> None:
    deadline = datetime(2026, 10, 5, 12, tzinfo=UTC)
    rules = desk.Rules(deadlines={"claim": deadline}, grace_minutes=15, extra_days={"Zoë": 2})
    at = deadline + timedelta(hours=hours)
    assert rules.days_late("claim", ["ada"], at) == days
    assert rules.days_late("claim", ["Zoe\u0308", "7"], at) == max(0, days - 2)
    assert rules.days_late("moe", ["ada"], at) == rules.days_late("claim", ["ada"], None) == 0


def test_a_file_has_its_own_time_where_the_rules_say_so(tmp_path: Path, graded: Graded) -> None:
    hand_in(tmp_path, "ada.ipynb", worth(10))
    late = datetime(2026, 10, 6, 11, tzinfo=UTC).timestamp()
    os.utime(tmp_path / "class" / "ada.ipynb", (late, late))
    rules = "late_percent_a_day = 20\n[deadlines]\nclaim = 2026-10-05T12:00:00Z\n"
    decide(tmp_path, "rules.toml", rules)
    assert graded()["ada"]["points"] == "10"
    decide(tmp_path, "rules.toml", f'times = "files"\n{rules}')
    row = graded()["ada"]
    assert (row["points"], row["late"], row["penalty"]) == ("8", "1", "2")
    text = page(tmp_path, "ada")
    assert "10 points for the answers, less 2 for handing in 1 day late" in text


def dated_zip(**members: tuple[bytes, datetime]) -> bytes:
    """A zip whose members have the times that are given, as a clock of this machine shows them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, (data, time) in members.items():
            made.writestr(zipfile.ZipInfo(name, time.astimezone().timetuple()[:6]), data)
    return buffer.getvalue()


TIMES_OF_FILES = (
    'times = "files"\nlate_percent_a_day = 20\n[deadlines]\nclaim = 2026-10-05T12:00:00Z\n'
)
EARLY, LATE = datetime(2026, 10, 5, 11, tzinfo=UTC), datetime(2026, 10, 6, 11, tzinfo=UTC)


def test_files_keep_their_times_in_the_zip_of_a_class(tmp_path: Path, graded: Graded) -> None:
    """The zip of a learner within it has its own time there, and not those of what it holds."""
    own = dated_zip(**{"claim.ipynb": (worth(10), EARLY)})
    whole = {"ada.ipynb": (worth(10), EARLY), "bob.ipynb": (worth(10), LATE), "cy.zip": (own, LATE)}
    (tmp_path / "all.zip").write_bytes(dated_zip(**whole))
    decide(tmp_path, "rules.toml", TIMES_OF_FILES)
    rows = graded(folder="all.zip")
    late = {name: (row["points"], row["late"]) for name, row in rows.items()}
    assert late == {"ada": ("10", ""), "bob": ("8", "1"), "cy": ("8", "1")}


@pytest.mark.parametrize(("inside", "outside"), [(EARLY, LATE), (LATE, EARLY)])
def test_a_learners_zip_counts_with_its_own_time(
    tmp_path: Path, graded: Graded, inside: datetime, outside: datetime
) -> None:
    """The times within it are the learner's to write."""
    for name in ("ada.zip", "bob/claim.zip"):
        hand_in(tmp_path, name, dated_zip(**{"claim.ipynb": (worth(10), inside)}))
        os.utime(tmp_path / "class" / name, (outside.timestamp(),) * 2)
    decide(tmp_path, "rules.toml", TIMES_OF_FILES)
    assert {row["late"] for row in graded().values()} == {"1" if outside == LATE else ""}


@pytest.mark.parametrize("date", [(1980, 0, 0, 0, 0, 0), (2107, 15, 31, 31, 63, 62)])
def test_an_impossible_date_in_a_zip_makes_nobody_late(
    tmp_path: Path, date: tuple[int, int, int, int, int, int]
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(zipfile.ZipInfo("claim.ipynb", date), b"{}")
    (tmp_path / "x.zip").write_bytes(buffer.getvalue())
    unzip.unpack(tmp_path / "x.zip", tmp_path / "to")
    assert (tmp_path / "to" / "claim.ipynb").stat().st_mtime == 0


def test_who_is_missing(tmp_path: Path, graded: Graded) -> None:
    hand_in(tmp_path, "Ada_1_assignsubmission_file/claim.ipynb", worth(1))
    hand_in(tmp_path, "Zoë_2_assignsubmission_file/claim.ipynb", worth(1))
    decide(tmp_path, "roster.csv", "learner,id\nAda L.,1\nZoe\u0308,\nKurt,3\nEmmy,4\n")
    decide(tmp_path, "overrides.csv", "learner,assignment,exercise,points,comment,excused\n"
                                      "Emmy,claim,,,ill,yes\n")  # fmt: skip
    rows = graded()
    assert {name: row["status"] for name, row in rows.items()} == {
        "Ada": "graded", "Zoë": "graded", "Kurt": "missing", "Emmy": "excused",
    }  # fmt: skip
    assert (rows["Kurt"]["points"], rows["Kurt"]["attempts"]) == ("", "0")
    summary = (tmp_path / "class-graded" / "summary.html").read_text("utf-8")
    assert "Missing: 1" in summary
    assert "<li>Kurt</li>" in summary


def test_of_two_who_share_a_name_one_may_be_missing(tmp_path: Path, graded: Graded) -> None:
    hand_in(tmp_path, "Zoë Müller_1_assignsubmission_file/claim.ipynb", worth(1))
    hand_in(tmp_path, "Li_7_assignsubmission_file/claim.ipynb", worth(1))
    hand_in(tmp_path, "Ada.ipynb", worth(1))
    # Li's number is one of another register; the last two have none.
    roster = ["learner,id", "Zoë Müller,1", "Zoë Müller,2", "Li,990", "Ada,", "Ada,"]
    decide(tmp_path, "roster.csv", "\n".join(roster) + "\n")
    graded()
    with open(tmp_path / "class-graded" / "grades.csv", encoding="utf-8-sig", newline="") as file:
        rows = [(row["learner"], row["id"], row["status"]) for row in csv.DictReader(file)]
    assert sorted(rows) == [
        ("Ada", "", "graded"), ("Ada", "", "missing"), ("Li", "7", "graded"),
        ("Zoë Müller", "1", "graded"), ("Zoë Müller", "2", "missing"),
    ]  # fmt: skip


# --- overrides -----------------------------------------------------------------------------------


OVERRIDES = """learner,assignment,exercise,points,comment,excused
ada,claim,run_time,0.5,"half: the idea is right, <b>see</b> me",
ada,claim,export_limit,,,yes
ada,claim,,,Well done,
bob,claim,,7,after talking to Bob,
bob,claim,,,after talking again,
ada,claim,export_limit,,was ill,
cy,claim,predictions,2,,
none,,,,read on paper,
"""


def test_overrides_survive_every_rerun_and_show_on_the_page(tmp_path: Path, graded: Graded) -> None:
    for name in ("ada", "bob", "cy", "dan"):
        hand_in(tmp_path, f"{name}.ipynb", worth(11))
    hand_in(tmp_path, "none.ipynb", b"")
    decide(tmp_path, "overrides.csv", OVERRIDES)
    decide(tmp_path, "rules.toml", "[by_hand]\npredictions = 3\n")
    for _ in range(2):
        rows = graded()
        assert rows["ada"]["points"] == "7.5"
        assert (rows["ada"]["claim-run_time"], rows["ada"]["claim-export_limit"]) == (
            "0.5", "excused",
        )  # fmt: skip
        assert rows["ada"]["out of"] == "11"  # eleven, three less for the excused, three by hand
        assert rows["bob"]["points"] == "7"
        assert rows["cy"]["points"] == "13"
        assert rows["dan"]["to grade by hand"] == "predictions"
        assert rows["none"]["comment"] == "read on paper"
        assert rows["none"]["points"] == ""
    text = page(tmp_path, "ada")
    assert "half: the idea is right, &lt;b&gt;see&lt;/b&gt; me" in text
    assert "Well done" in text
    assert "by the instructor" in text
    assert "These points were given by the instructor" in page(tmp_path, "bob")
    assert "Still to be graded by hand: predictions" in page(tmp_path, "dan")
    hand_in(tmp_path, "ada.ipynb", worth(1))  # handed in again: the decision stands
    assert graded()["ada"]["claim-run_time"] == "0.5"
    assert (tmp_path / "class-graded" / "overrides.csv").read_text("utf-8") == OVERRIDES


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("[extra_days]\nAda = inf", "Ada is inf; give a number from 0"),
        ("[extra_days]\nAda = nan", "Ada is nan; give a number from 0"),
        ("[extra_days]\nAda = -3", "Ada is -3; give a number from 0"),
        ("grace_minutes = inf", "grace_minutes is inf; give a number from 0"),
        ("grace_minutes = -600", "grace_minutes is -600; give a number from 0"),
        ("[by_hand]\npredictions = -5", "predictions is -5; give a number from 0"),
    ],
)
def test_a_rule_that_no_deadline_can_keep_is_refused(
    tmp_path: Path, rules: str, words: str
) -> None:
    (tmp_path / "rules.toml").write_text(f"{rules}\n", "utf-8")
    with pytest.raises(desk.DeskError, match=words):
        desk.read_rules(tmp_path / "rules.toml")


def test_files_as_other_programs_write_them(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text('attempts = "last"\n', "utf-8-sig")
    assert desk.read_rules(tmp_path / "rules.toml").attempts == "last"
    (tmp_path / "roster.csv").write_text("learner;id\nAda;7\n", "utf-8-sig")
    assert [(each.name, each.number) for each in desk.read_roster(tmp_path / "roster.csv")] == [
        ("Ada", "7")
    ]


@pytest.mark.parametrize("option", ["--cell-seconds", "--memory", "--patience"])
@pytest.mark.parametrize("value", ["0", "-5", "nan", "inf", "much"])
def test_a_limit_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit):
        command([f"{option}={value}", str(tmp_path)])
    assert f"argument {option}: '{value}'; give a number above 0" in capsys.readouterr().err


def test_a_table_of_something_else_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "grades.csv").write_text("name,grade\nAda,1\n", "utf-8")
    words = ["export", str(tmp_path), "--to=moodle", "--assignment=claim"]
    assert command([*words, "--feedback", str(tmp_path / "x.zip")]) == 1
    said = capsys.readouterr().err
    assert "grades.csv has no column learner, id, assignment" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("eve,claim,run_time,1,,", "line 2: nobody is called 'eve'"),
        ("ada,claim,run_tim,1,,", "line 2: there is no 'run_tim'; there are: training_flops"),
        ("ada,claim,run_time,5,,", "line 2: 5 points of at most 1"),
    ],
)
def test_a_decision_without_effect_is_named(
    tmp_path: Path, graded: Graded, line: str, words: str
) -> None:
    hand_in(tmp_path, "ada.ipynb", worth(11))
    decide(
        tmp_path, "overrides.csv", f"learner,assignment,exercise,points,comment,excused\n{line}\n"
    )
    assert any(words in name for name in graded())


def test_points_for_what_was_handed_in_on_paper(tmp_path: Path, graded: Graded) -> None:
    """Of somebody whom the roster names and who is missing: all points, one exercise, or none."""
    hand_in(tmp_path, "ada.ipynb", worth(11))
    decide(tmp_path, "roster.csv", "learner\nada\nbob\ncy\ndan\neve\n")
    decide(tmp_path, "rules.toml", "[by_hand]\npredictions = 3\n")
    lines = ("bob,claim,,8,,", "cy,claim,run_time,1,,", "dan,claim,,0,,")
    header = "learner,assignment,exercise,points,comment,excused"
    decide(tmp_path, "overrides.csv", "\n".join([header, *lines, ""]))
    rows = graded()
    assert [name for name, row in rows.items() if not row] == []  # nothing to be mended
    assert {name: (row["points"], row["out of"]) for name, row in rows.items()} == {
        "ada": ("11", "14"), "bob": ("8", "14"), "cy": ("1", "14"), "dan": ("0", "14"),
        "eve": ("", "14"),
    }  # fmt: skip
    assert {rows[name]["to grade by hand"] for name in ("bob", "dan", "eve")} == {""}
    assert rows["cy"]["to grade by hand"].endswith("export_limit; predictions")
    assert rows["eve"]["claim-run_time"] == ""


def test_a_deadline_of_no_assignment_is_named(tmp_path: Path, graded: Graded) -> None:
    hand_in(tmp_path, "ada.ipynb", worth(11))
    decide(tmp_path, "rules.toml", "[deadlines]\nclam = 2026-10-05T12:00:00Z\n")
    assert any("there is no assignment 'clam'; there are: claim" in name for name in graded())


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("overrides.csv", "learner,assignment\nx,y\n", "has no column exercise"),
        ("overrides.csv", "learner,assignment,exercise,points\na,b,c,ten\n", "line 2: 'ten' is no"),
        ("overrides.csv", "learner,assignment,exercise,points\na,b,c,-1\n", "line 2: '-1' is no"),
        ("overrides.csv", "learner,assignment,exercise,excused\na,b,c,maybe\n", "excused is 'yes'"),
        ("overrides.csv", b"\xff\xfe", "cannot be read"),
        ("overrides.csv", 'learner,assignment,exercise\na,b,"c\nd,e,f\n', "unexpected end"),
        ("roster.csv", "name\nx\n", "has no column learner"),
        ("rules.toml", "deadline = 1", "deadline means nothing"),
        ("rules.toml", "attempts = 'first'", "attempts is 'best' or 'last', not 'first'"),
        ("rules.toml", "[deadlines]\nclaim = '5 pm'", "a deadline is a time such as"),
        ("rules.toml", "late_percent_a_day = 200", "from 0 to 100"),
        ("rules.toml", "attempts =", "rules.toml"),
    ],
)
def test_a_file_of_the_instructor_that_cannot_be_read_takes_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | bytes, words: str
) -> None:
    hand_in(tmp_path, "ada.ipynb", b"")
    decide(tmp_path, name, "")
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "class-graded" / name).write_bytes(data)
    assert command(["--no-sandbox", str(tmp_path / "class")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("grade: ")
    assert words in said


def test_a_spreadsheet_of_another_country_is_read(tmp_path: Path) -> None:
    text = "learner;assignment;exercise;points;comment;excused\nada;claim;run_time;0,5;so, so;\n"
    (tmp_path / "overrides.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (override,) = desk.read_overrides(tmp_path / "overrides.csv")
    assert (override.points, override.comment) == (0.5, "so, so")


def test_the_page_of_what_could_not_be_read_says_no_points(tmp_path: Path, graded: Graded) -> None:
    for name in ("ada", "bob"):
        hand_in(tmp_path, f"{name}.ipynb", b"")
    lines = "bob,claim,,4,read on paper,\n"
    decide(
        tmp_path, "overrides.csv", f"learner,assignment,exercise,points,comment,excused\n{lines}"
    )
    graded()
    text = page(tmp_path, "ada")
    assert "<strong>No grade yet.</strong> Status: unreadable." in text
    assert "hand that file in again" in text
    assert '<td class="points">– of 1</td>' in text
    assert "0 of " not in text
    assert "<strong>4 of 11 points.</strong>" in page(tmp_path, "bob")


def test_pages_of_nobody_are_taken_away(tmp_path: Path, graded: Graded) -> None:
    hand_in(tmp_path, "ada.ipynb", worth(1))
    hand_in(tmp_path, "bob.ipynb", worth(1))
    graded()
    (tmp_path / "class" / "bob.ipynb").unlink()
    graded()
    pages = [path.name for path in (tmp_path / "class-graded" / "feedback").iterdir()]
    assert pages == ["ada.html"]


# --- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["export", "--help"]])
def test_the_help_names_the_command_and_says_what_each_option_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        command(words)
    said = capsys.readouterr().out
    assert said.startswith(f"usage: tools/grade.py {'export ' if len(words) > 1 else ''}[-h]")
    assert len(words) > 1 or "tools/grade.py export --help" in said
    options = re.findall(r"^  --.+(?:\n {6,}.+)*", said, re.M)
    assert len(options) > 5
    assert [option for option in options if not re.search(r"\S(  |\n) *\S", option)] == []


# --- export --------------------------------------------------------------------------------------

MOODLE = (
    "\ufeffIdentifier,Full name,Status,Grade,Maximum grade,Last modified (grade)\n"
    'Participant 1,"Lovelace, Ada",Submitted,,11.00,-\n'
    "Participant 2,Bob,Submitted,3.00,11.00,-\n"
    "Participant 3,Cy,Submitted,,11.00,-\n"
    "Participant 9,Nobody,No submission,,11.00,-\n"
)
CANVAS = (
    "Student,ID,SIS Login ID,Section,Claim (4711),Final Score\n"
    "    Points Possible,,,,11,(read only)\n"
    '"Lovelace, Ada",1,al,A,,50\n'
    "Bob,2,b,A,3,\n"
    "Cy,3,c,A,,\n"
    '"Student, Test",,,A,,\n'
)
NBGRADER = (
    "assignment,student_id,raw_score,late_submission_penalty,score,max_score\n"
    "claim,Ada,,,,11\nclaim,Bob,3,0,3,11\nclaim,Cy,,,,11\nmoe,Ada,,,,11\nmoe,Bob,5,0,5,11\n"
)
CLASSROOM = (
    '"assignment_name","github_username","points_awarded","points_available"\n'
    '"w","Ada","",""\n"w","Bob","3",""\n"w","Cy","",""\n'
)
PLACES = {
    "moodle": "{name}_{id}_assignsubmission_file/claim.ipynb",
    "canvas": "{name}_{id}_100{id}_claim.ipynb",
    "nbgrader": "{name}/claim/claim.ipynb",
    "classroom": "w-{name}/claim.ipynb",
}
FEEDBACK = {
    "moodle": "Ada_1_assignsubmission_file/feedback.html",
    "canvas": "Ada_1_1001_claim.html",
    "nbgrader": "Ada/claim/claim.html",
    "classroom": "w-Ada/feedback.html",
}


@pytest.mark.parametrize(
    ("platform", "exported", "column"),
    [
        ("moodle", MOODLE, "Grade"),
        ("canvas", CANVAS, "Claim (4711)"),
        ("nbgrader", NBGRADER, "score"),
        ("classroom", CLASSROOM, "points_awarded"),
    ],
)
def test_grades_and_feedback_go_back_to_each_platform(
    tmp_path: Path, graded: Graded, capsys: pytest.CaptureFixture[str],
    platform: str, exported: str, column: str,
) -> None:  # fmt: skip
    for number, (name, data) in enumerate(
        {"Ada": worth(11), "Bob": worth(8), "Cy": b""}.items(), 1
    ):
        place = PLACES[platform].format(name=name, id=number)
        hand_in(tmp_path, place, data)
        if platform == "nbgrader":
            hand_in(tmp_path, f"{name}/claim/timestamp.txt", b"2026-10-05 10:00:00 UTC")
        if platform == "classroom":
            hand_in(tmp_path, f"w-{name}/.git/HEAD", b"ref")
    hand_in(tmp_path, PLACES[platform].format(name="Dan", id=4), worth(1))
    if platform == "nbgrader":
        hand_in(tmp_path, "Dan/claim/timestamp.txt", b"2026-10-05 10:00:00 UTC")
    if platform == "classroom":
        hand_in(tmp_path, "w-Dan/.git/HEAD", b"ref")
    graded()
    (tmp_path / "exported.csv").write_text(exported, "utf-8")
    words = ["export", str(tmp_path / "class-graded"), "--to", platform, "--assignment", "claim"]
    words += ["--into", str(tmp_path / "exported.csv"), "--filled", str(tmp_path / "filled.csv")]
    words += ["--column", column, "--feedback", str(tmp_path / "feedback.zip")]

    def filled() -> list[str]:
        with open(tmp_path / "filled.csv", encoding="utf-8", newline="") as file:
            return [row[column] for row in csv.DictReader(file)][platform == "canvas" :]

    assert command(words) == 1
    assert filled()[:3] == ["11", {"moodle": "3.00"}.get(platform, "3"), ""]
    said = capsys.readouterr().out
    assert "1 filled in" in said
    assert "1 had a grade already, which stays (--replace writes over it): Bob (3" in said
    assert "1 without a grade, left blank: Cy (unreadable)" in said
    assert "1 in no line of the exported file: Dan" in said
    assert command([*words, "--replace"]) == 1  # Dan is in no line still
    assert filled()[:3] == ["11", "8", ""]
    if platform == "nbgrader":  # whose file has the other assignments, too
        assert filled()[3:] == ["", "5"]
    with zipfile.ZipFile(tmp_path / "feedback.zip") as packed:
        assert FEEDBACK[platform] in packed.namelist()
        assert len(packed.namelist()) == 4


def test_a_grade_that_is_not_whole_is_filled_in_and_named(
    tmp_path: Path, graded: Graded, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("Ada", "Bob", "Cy"), 1):
        hand_in(tmp_path, f"{name}_{number}_assignsubmission_file/claim.ipynb", worth(8))
    decide(tmp_path, "rules.toml", "[by_hand]\npredictions = 3\n")
    lines = "Bob,claim,predictions,2,,\nCy,claim,,9,all of it,\n"
    decide(
        tmp_path, "overrides.csv", f"learner,assignment,exercise,points,comment,excused\n{lines}"
    )
    graded()
    table = tmp_path / "exported.csv"
    table.write_text(MOODLE.replace("3.00", ""), "utf-8")
    words = ["export", str(tmp_path / "class-graded"), "--to=moodle", "--assignment=claim"]
    assert command([*words, f"--into={table}", f"--filled={table}"]) == 1
    said = capsys.readouterr().out
    assert "1 filled in although parts are still to be graded by hand: Ada\n" in said
    with open(table, encoding="utf-8", newline="") as file:
        assert [row["Grade"] for row in csv.DictReader(file)] == ["8", "10", "9", ""]


def packed_pages(folder: Path, platform: str) -> dict[str, str]:
    """The pages as they go back, each under its place."""
    words = ["export", str(folder / "class-graded"), "--to", platform, "--assignment", "claim"]
    assert command([*words, "--feedback", str(folder / "feedback.zip")]) == 0
    with zipfile.ZipFile(folder / "feedback.zip") as packed:
        return {name: packed.read(name).decode() for name in packed.namelist()}


def test_who_handed_in_nothing_does_not_get_the_page_of_a_namesake(
    tmp_path: Path, graded: Graded
) -> None:
    for number, points in ((2, 11), (4, 8)):
        place = f"Ada_{number}_assignsubmission_file/claim.ipynb"
        hand_in(tmp_path, place, worth(points))
    roster = "learner,id\n" + "".join(f"Ada,{number}\n" for number in (1, 2, 3, 4, 5))
    excused = "learner,assignment,exercise,points,comment,excused\n1,claim,,,ill,yes\n"
    decide(tmp_path, "roster.csv", roster)
    decide(tmp_path, "overrides.csv", excused)
    graded()
    places = sorted(packed_pages(tmp_path, "moodle"))
    assert places == [f"Ada_{number}_assignsubmission_file/feedback.html" for number in (2, 4)]


@pytest.mark.parametrize(
    "names", [("Ada", "'Ada"), ("=Ada", "'=Ada"), ("-Ada", "Ada"), ("Ada", "Ada - claim")]
)
def test_a_page_goes_to_its_own_learner_whatever_the_name(
    tmp_path: Path, graded: Graded, names: tuple[str, str]
) -> None:
    for name, points in zip(names, (11, 8), strict=True):
        hand_in(tmp_path, f"{name}/claim/claim.ipynb", worth(points))
        hand_in(tmp_path, f"{name}/claim/timestamp.txt", b"2026-10-05 10:00:00 UTC")
    graded()
    pages = packed_pages(tmp_path, "nbgrader")
    for name, points in zip(names, (11, 8), strict=True):
        page = pages[f"{name}/claim/claim.html"]
        assert f"<h1>claim: {html.escape(name)}</h1>" in page
        assert f"<strong>{points} of " in page


def test_an_export_that_cannot_be_made_takes_one_line(
    tmp_path: Path, graded: Graded, capsys: pytest.CaptureFixture[str]
) -> None:
    hand_in(tmp_path, "ada.ipynb", worth(1))
    graded()
    capsys.readouterr()
    (tmp_path / "e.csv").write_text("ID,Points\n1,\n")
    words = ["export", str(tmp_path / "class-graded"), "--assignment", "claim", "--to"]
    into = ["--into", str(tmp_path / "e.csv"), "--filled", str(tmp_path / "f.csv")]
    for options, text in (
        ([*words, "moodle", *into], "has no column 'Identifier'; it has ['ID', 'Points']"),
        ([*words, "canvas", *into, "--column", "Claim"], "has no column 'Claim'"),
        ([*words[:3], "art", "--to", "moodle", *into], "has no row of 'art'"),
        ([*words, "moodle", "--into", str(tmp_path / "none.csv")], "cannot be read"),
    ):
        assert command(options) == 1
        said = capsys.readouterr().err
        assert text in said
        assert len(said.splitlines()) == 1
    assert not (tmp_path / "f.csv").exists()


def test_an_export_is_whole_or_as_it_was_and_the_same_each_time(
    tmp_path: Path, graded: Graded, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_in(tmp_path, "Ada_1_assignsubmission_file/claim.ipynb", worth(11))
    graded()
    table, packed = tmp_path / "exported.csv", tmp_path / "feedback.zip"
    words = ["export", str(tmp_path / "class-graded"), "--to=moodle", "--assignment=claim"]
    words += [f"--into={table}", f"--filled={table}", f"--feedback={packed}"]
    table.write_text(MOODLE, "utf-8")
    packed.write_bytes(b"earlier")

    def killed(*paths: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("slingshot_grader.export.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            command(words)
    assert (table.read_text("utf-8"), packed.read_bytes()) == (MOODLE, b"earlier")
    assert command(words) == 0
    before = table.read_bytes(), packed.read_bytes()
    os.utime(tmp_path / "class-graded" / "feedback" / "Ada.html", (0, 0))  # 1970: no zip has that
    assert command(words) == 0
    assert (table.read_bytes(), packed.read_bytes()) == before


# --- nbgrader itself ---------------------------------------------------------------------------


def test_nbgraders_own_autograde_grades_as_the_guide_says(tmp_path: Path) -> None:
    guide = (ROOT / "book" / "teaching.md").read_text("utf-8")
    (script,) = re.findall(r"```sh\n([^`]*nbgrader autograde[^`]*)```", guide)
    hand_in(tmp_path, "ada.ipynb", json.dumps(solved(utilization="")).encode())
    script = script.replace("/path/to/week3", str(tmp_path / "class"))
    # The course's folder as far as the guide uses it: nothing is written into the real one.
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    outside = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        ["sh", "-ec", script],
        cwd=tmp_path,
        env={**outside, "PATH": os.defpath, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    with open(tmp_path / "course" / "grades.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["student_id"], float(row["score"]), float(row["max_score"])) == ("ada", 9, 11)
    assert (tmp_path / "course" / "feedback" / "ada" / "claim" / "claim.html").is_file()


# --- similarity ----------------------------------------------------------------------------------

ANSWER = """def f(a, b, c):
    total = 0
    for number in range(a):
        if number % b == c:
            total += number * b - c
        else:
            total -= number // (b + 1)
    return total / (a + b + c), [total] * a
"""
OTHER = """def f(a, b, c):
    import numpy as np
    numbers = np.arange(a)
    right = numbers % b == c
    total = (numbers * b - c)[right].sum() - (numbers // (b + 1))[~right].sum()
    return total / (a + b + c), [total] * a
"""


def test_a_renamed_copy_is_noticed_and_an_answer_of_ones_own_is_not() -> None:
    renamed = re.sub(r"\bnumber\b", "i", ANSWER).replace("total", "s")
    copied = f"# my own work\n{renamed}"
    answers = {"a": ANSWER, "b": copied, "c": OTHER}
    marks = {who: {"f": similar.fingerprint(text)} for who, text in answers.items()}
    assert [(pair.first, pair.second) for pair in similar.pairs(marks)] == [("a", "b")]


def test_what_the_whole_class_writes_counts_for_nobody() -> None:
    marks = {str(number): {"f": similar.fingerprint(ANSWER)} for number in range(20)}
    assert similar.pairs(marks) == []


@pytest.mark.parametrize("seed", range(30))
def test_the_pairs_are_those_of_a_look_at_all_pairs(seed: int) -> None:
    chance = random.Random(seed)
    base = [chance.sample(range(60), chance.randint(4, 25)) for _ in range(5)]
    marks = {
        str(who): sorted({*chance.choice(base), *chance.sample(range(60), chance.randint(0, 4))})
        for who in range(25)
    }
    count = Counter(mark for each in marks.values() for mark in each)
    common = {mark for mark, number in count.items() if number > similar.COMMON * len(marks)}
    due = []
    for a, b in itertools.combinations(sorted(marks), 2):
        first, second = set(marks[a]) - common, set(marks[b]) - common
        smaller = min(len(first), len(second))
        if smaller >= similar.FEWEST_MARKS and len(first & second) >= 0.8 * smaller:
            due.append((a, b, len(first & second) / smaller))
    found = similar.pairs({who: {"f": each} for who, each in marks.items()})
    assert sorted((pair.first, pair.second, pair.share) for pair in found) == due


def test_pairs_are_found_in_each_assignment_of_a_folder(tmp_path: Path, pool: Pool) -> None:
    """Neither a row of another assignment nor one of who is missing takes an answer away."""
    for assignment in ("claim", "moe"):
        for name in ("ada", "bob"):
            hand_in(tmp_path, f"{name}/{assignment}.ipynb", worth(9, assignment))
    decide(tmp_path, "roster.csv", "learner\nada\nada\nbob\n")  # the second has handed in nothing
    settings = Settings(
        tmp_path / "class", tmp_path / "class-graded", EDITION, (), OFF, similar=True
    )
    batch = Batch(settings, pool)
    batch.find()
    marks = similar.fingerprint(ANSWER)

    def answered(submission: Submission, assignment: Assignment) -> Report:
        name = min(assignment.answers)
        return replace(stand_in(submission, assignment), answers={name: marks})

    batch.run(answered)
    found = batch.similar(batch.standings())
    assert [(pair.first, pair.second, pair.exercise.partition("-")[0]) for pair in found] == [
        ("ada", "bob", "claim"), ("ada", "bob", "moe"),
    ]  # fmt: skip


def test_who_shares_nothing_is_not_compared() -> None:
    marks = {str(who): set(range(10 * who, 10 * who + 10)) for who in range(5000)}
    assert similar.candidates(marks, Counter(range(50_000)), 0.8) == []


def test_a_comment_may_have_several_lines(tmp_path: Path, graded: Graded) -> None:
    for name in ("ada", "bob"):
        hand_in(tmp_path, f"{name}.ipynb", worth(11))
    lines = ["learner,assignment,exercise,points,comment", "", 'ada,claim,run_time,0,"One.']
    lines += ['Two."', "bob,claim,run_time,0,Three.\u2028Four.", 'eve,claim,,5,"Five.', 'Six."']
    decide(tmp_path, "overrides.csv", "\n".join(lines) + "\n")
    rows = graded()
    assert "overrides.csv, line 6: nobody is called 'eve'" in rows
    assert (rows["ada"]["points"], rows["bob"]["points"]) == ("10", "10")
    assert "<p>One.<br>Two.</p>" in page(tmp_path, "ada")
    assert "Three.\u2028Four." in page(tmp_path, "bob")


@pytest.mark.parametrize("source", ["", "def f(:", "'''", "\x00", "x = '\ud800'", "(" * 5000])
def test_what_cannot_be_read_has_no_fingerprints(source: str) -> None:
    assert isinstance(similar.fingerprint(source), list)


# --- the pages -----------------------------------------------------------------------------------


def test_pages_fit_a_phone_in_the_dark(
    tmp_path: Path, graded: Graded, new_page: Callable[..., Page]
) -> None:
    long = "Wolfeschlegelsteinhausenbergerdorff-" * 3
    for name, data in ((long, worth(9)), ("none", b""), ("bob", worth(11))):
        hand_in(tmp_path, f"{name}.ipynb", data)
    decide(tmp_path, "roster.csv", "learner\nKurt\n")
    decide(tmp_path, "rules.toml", "[by_hand]\npredictions = 3\n")
    graded()
    output = tmp_path / "class-graded"
    for scheme in ("light", "dark"):
        page = new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
        for path in (output / "summary.html", *(output / "feedback").iterdir()):
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            broken = (
                "all => all.map(e => e.getClientRects().length - e.innerText.split(' ').length)"
            )
            assert max([0, *page.locator("td.outcome span").evaluate_all(broken)]) == 0
            assert page.locator("img").count() == 0


def test_what_a_learner_wrote_looks_like_no_word_of_the_instructor(
    tmp_path: Path, new_page: Callable[..., Page]
) -> None:
    """A heading says what anybody wants: it is set apart, smaller than those of the page."""
    assignment = read_assignments(EDITION)["claim"]
    hand_in(tmp_path, "ada.ipynb", worth(2))
    handed_in = Submission("ada", tmp_path / "class" / "ada.ipynb", "claim", [])
    texts = ("# 11 of 11", "<h1>11 of 11</h1></div>")
    shown = render([Cell(text, "", None, "markdown") for text in texts], [], assignment)
    assert "¶" not in shown
    report = replace(stand_in(handed_in, assignment), notebook=shown)
    text = feedback(stand([(handed_in, report)], assignment, desk.Rules()))
    (tmp_path / "ada.html").write_text(text, "utf-8")
    view = new_page(viewport={"width": 390, "height": 844})
    view.goto((tmp_path / "ada.html").as_uri())
    size = "e => parseFloat(getComputedStyle(e).fontSize)"
    own = view.locator("h2").first.evaluate(size)
    theirs = view.locator(".notebook h1")
    assert theirs.count() == 2
    assert all(each.evaluate(size) < 0.8 * own for each in theirs.all())
