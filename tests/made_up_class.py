"""Make up a class, to see what ``make grade`` does with a large one, and compare its points.

    python tests/made_up_class.py /tmp/class
    make grade SUBMISSIONS=/tmp/class
    python tests/made_up_class.py /tmp/class --compare

The class hands in the assignment ``claim``. Every kind of submission of ``test_grade.py`` is in it
once: honest, broken, endless and hostile. The rest are learners with some answers right, some of
the known wrong ones and some not written. What each must get is known beforehand.
"""

import argparse
import csv
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat

from exercise_counts_plugin import wrong_answers
from test_grade import (
    ALL,
    ATTACKS,
    CLAIM,
    FULL,
    LOST,
    NFC,
    NFD,
    UNREADABLE,
    Prey,
    solved,
    stub,
    write_class,
)

CLOSED_PORT = 9
FIRST = ["Ada", "Zoë", "李", "Søren", "Ömer", "Αθηνά", "نور", "Łucja", "Nguyễn", "Mary Jane"]
LAST = ["O'Neill", "Müller", "雷", "García", "Жуков", "כהן", "Smith-Jones", "van den Berg"]
POINTS = {test.exercise: test.points for test in CLAIM.tests}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the class, or compare its grades with what they must be; return 1 if one differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=200, help="submissions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--compare", action="store_true", help="read grades.csv, write nothing")
    args = parser.parse_args(argv)
    expected = args.folder.with_name(f"{args.folder.name}-expected.csv")
    if args.compare:
        grades = args.folder.with_name(f"{args.folder.name}-graded") / "grades.csv"
        lines = differences(read(expected), read(grades), args.folder)
        print("\n".join([*lines, f"{len(lines)} of {len(read(expected))} differ"]))
        return 1 if lines else 0
    if args.folder.exists():
        print(f"{args.folder} is there already; give a new folder", file=sys.stderr)
        return 1
    made = make_up(args.folder, args.size, random.Random(args.seed))
    with open(expected, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "points"])
        table.writerows(made.items())
    print(f"{len(made)} submissions in {args.folder}, and what they must get in {expected}")
    return 0


def make_up(folder: Path, size: int, chance: random.Random) -> dict[str, float]:
    """Write the submissions; return the points of each by the name of its file or folder."""
    folder.mkdir(parents=True)
    # The hostile ones go for a folder that only looks like a course, never for this one.
    decoy = folder.resolve().with_name(f"{folder.name}-course")
    for name in ("src/slingshot_exercises/__init__.py", "notebooks/assignments/source/claim.ipynb"):
        (decoy / name).parent.mkdir(parents=True)
        (decoy / name).write_text("")
    write_class(folder.resolve(), Prey(decoy, CLOSED_PORT, folder.name))
    kinds = points_of_kinds()
    expected = {path.name: kinds[path.name.removesuffix(".ipynb")] for path in folder.iterdir()}
    for number in range(len(expected), size):
        name = f"{chance.choice(FIRST)} {chance.choice(LAST)} {number}.ipynb"
        answers, points = made_up_answers(chance)
        nbformat.write(solved(**answers), folder / name)  # type: ignore[no-untyped-call]
        expected[name] = points
    return expected


def points_of_kinds() -> dict[str, float]:
    """What each special kind of submission must get."""
    none = [*UNREADABLE, *ATTACKS, "nothing", "links", "no-notebook", "Two", NFD]
    return {
        **dict.fromkeys(none, 0.0),
        **{name.removeprefix("'"): ALL for name in [*FULL, "two", NFC]},
        **{name: ALL - sum(POINTS[each] for each in lost) for name, lost in LOST.items()},
    }


def made_up_answers(chance: random.Random) -> tuple[dict[str, str], float]:
    """The answers of one learner that are not right, and the points of those that are."""
    wrong = [answer for answer in wrong_answers() if answer.assignment == "claim"]
    answers, points = {}, 0.0
    for exercise in POINTS:
        fate = chance.choices(["right", "wrong", "not written"], [6, 3, 1])[0]
        if fate == "right":
            points += POINTS[exercise]
        elif fate == "wrong":
            mine = [answer.path for answer in wrong if answer.exercise == exercise]
            answers[exercise] = chance.choice(mine).read_text("utf-8")
        else:
            answers[exercise] = stub(exercise)
    return answers, points


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def differences(
    expected: list[dict[str, str]], grades: list[dict[str, str]], folder: Path
) -> list[str]:
    """A line for each submission that has no row, or other points than it must have."""
    found = {Path(row["file"]).parts[1]: row["points"] or "0" for row in grades}
    return [
        f"{row['file']}: {found.get(row['file'], 'no')} points, must be {row['points']}"
        for row in expected
        if float(found.get(row["file"], "nan")) != float(row["points"])
    ]


if __name__ == "__main__":
    sys.exit(main())
