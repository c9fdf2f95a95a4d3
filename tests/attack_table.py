"""The table of attacks: what each tries, what must come of it, and what came, in both modes.

    python tests/attack_table.py                  # all of them: some minutes in each mode
    python tests/attack_table.py --only hostile   # those of test_grade_hostile.py

The submissions are those of the tests. Ends with 1 where something else came than must.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from made_up_class import CLOSED_PORT, points_of_kinds
from slingshot_grader.files import clean_name, remove
from test_grade import ALL, NFC, NFD, SANDBOX, Prey, limits, read_reports, read_rows, write_class
from test_grade_hostile import RIGHT, ROOT, attacks, hand_in, odd_files

MARK = "attack-table"
TRIES = {
    "other types": "right answers that look at the types of their arguments (R1)",
    "references": "call the checks' own references (R3)",
    "hunts": "look for references among modules, objects and files (R3)",
    "half letters": "print and write half a letter of UTF-16 (R4)",
    "half letters in an error": "raise an error with half a letter in it (R4)",
    "collides": "return a mapping whose keys collide (R6)",
    "many cells": "hand in a thousand cells (R7)",
    "a long line": "a line of 0.9 MB (R7)",
    "a longer line": "a line of 2 MB (R7)",
    "memfd": "memory that belongs to no process, by memfd (R8)",
    "memory in files": "memory in files of memory (R8)",
    "memory of nobody": "shared memory given back and kept (R8)",
    "survives": "a double fork in a session of its own (R9)",
    "kills": "kill the grader and all else (R9)",
    "owns a signal": "let a file send the grader a signal (R9)",
    "forks": "45 processes that wait",
    "threads": "3,000 threads that wait",
    "short lives": "compute in a thousand children, each for a moment",
    "deep folders": "2,000 folders within each other, left behind",
    "takes over": "replace the worker through gc, and send odd outputs",
    "right": "nothing: the right answers",
}
OTHERS = {
    **dict.fromkeys(RIGHT, "a file name of odd bytes or length, or a mark before the text (R2)"),
    "ADA": "a name that differs in case alone (R10)",
    "Ada (2)": "the name that a second Ada would get (R10)",
    "Ada (3)": "two notebooks in a folder (R10)",
}


@dataclass(frozen=True)
class Line:
    """A submission: what it tries, and what must come of it: points, and words that are said."""

    learner: str
    tries: str
    points: float | None
    said: str = ""

    @property
    def due(self) -> str:
        """What must come of it, in words."""
        points = "no grade" if self.points is None else f"{self.points:g}"
        return f"{points}; {self.said}" if self.said else points


def hostile(folder: Path) -> Iterator[Line]:
    """Hand in what stands in ``test_grade_hostile.py``."""
    made = attacks(MARK)
    if set(made) != set(TRIES):
        raise ValueError(f"say in TRIES what they try: {sorted(set(made) ^ set(TRIES))}")
    for name, attack in made.items():
        hand_in(folder, f"{name}.ipynb", attack.notebook)
        yield Line(name, TRIES[name], attack.points, attack.said)
    for name, words in odd_files(folder).items():
        yield Line(name, "what is no notebook, or no regular file (R5)", None, words)
    lost = {"ADA": 2, "Ada (2)": 1}
    for name, tries in OTHERS.items():
        yield Line(name, tries, ALL - lost.get(name, 0))


def usual(folder: Path) -> Iterator[Line]:
    """Hand in what stands in ``test_grade.py``."""
    # The hostile ones go for a folder that only looks like a course.
    decoy = folder.with_name("course")
    (decoy / "tests").mkdir(parents=True)
    write_class(folder, Prey(decoy, CLOSED_PORT, folder.name))
    for name, points in points_of_kinds().items():
        if name in ("two", "Two", NFC, NFD, "=1+1"):
            continue  # of two under one name, either may get the number
        yield Line(clean_name(name), name.replace("-", " "), points)


def grade(folder: Path, mode: str) -> None:
    """Grade a folder in a mode."""
    temporary = folder.with_name("tmp")
    temporary.mkdir()
    words = [sys.executable, "-m", "slingshot_grader", "--assignment=claim", *limits(), "--jobs=2"]
    env = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT / "src")}
    options = ["--no-sandbox"] if mode == "no sandbox" else []
    run = subprocess.run(
        [*words, *options, str(folder)], env=env, capture_output=True, text=True, check=False
    )
    if run.returncode not in (0, 1) or "Traceback" in run.stderr or list(temporary.iterdir()):
        raise RuntimeError(f"the grader itself has failed: {run.stderr[-2000:]}")


def seen(line: Line, folder: Path) -> tuple[str, bool]:
    """What came of a submission, in words, and whether that is what must."""
    output = folder.with_name(f"{folder.name}-graded")
    row = read_rows(output).get(line.learner)
    if row is None:
        return "no row", False
    report = read_reports(output).get(line.learner, {"grades": []})
    said = [row["remarks"], *(each["message"] for each in report["grades"])]
    points = float(row["points"]) if row["points"] else None
    same = points in (line.points, line.points or None) and any(line.said in text for text in said)
    words = "no grade" if points is None else f"{points:g}"
    return f"{words}; {row['status']}", same


def main(argv: Sequence[str] | None = None) -> int:
    """Grade everything in both modes, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=("hostile", "usual"))
    args = parser.parse_args(argv)
    modes = [*(["sandbox"] if SANDBOX else []), "no sandbox"]
    kinds = {"hostile": hostile, "usual": usual}
    wrong = 0
    print(f"| submission | tries | expected | {' | '.join(modes)} |")
    print("| --- " * (3 + len(modes)) + "|")
    for kind in [args.only] if args.only else kinds:
        place = Path(tempfile.mkdtemp(prefix="attacks-"))
        folders = {mode: place / mode / f"class-{kind}" for mode in modes}
        for mode, folder in folders.items():
            folder.mkdir(parents=True)
            lines = list(kinds[kind](folder))
            grade(folder, mode)
        for line in lines:
            found = [seen(line, folder) for folder in folders.values()]
            wrong += not all(same for _, same in found)
            cells = [text if same else f"**{text}**" for text, same in found]
            print(f"| {line.learner} | {line.tries} | {line.due} | {' | '.join(cells)} |")
        remove(place)
    print(f"\n{wrong} came otherwise than they must", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
