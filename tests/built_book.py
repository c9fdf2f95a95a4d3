"""The book that the tests look at: the one that is there if it is fresh, or one built for them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

import fresh_build

ROOT = Path(__file__).resolve().parent.parent


def pages() -> list[str]:
    """Every page of the table of contents, as a path of the built book."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    files = [toc["root"]]
    for part in toc["parts"]:
        for chapter in part["chapters"]:
            files += [
                chapter["file"],
                *(section["file"] for section in chapter.get("sections", [])),
            ]
    return [f"{file}.html" for file in files]


def find_book(shared: Path) -> Path:
    """The folder with the HTML of a strict build: in ``_build``, or made once in ``shared``."""
    ready = ROOT / "_build" / "html"
    if fresh_build.is_fresh(ready):
        return ready
    once(shared / "book-is-built", lambda: build_book(shared))
    assert (said := (shared / "book-said").read_text("utf-8")) == "", said
    return shared / "_build" / "html"


def build_book(target: Path) -> None:
    """Build the book in a folder, strictly; leave there what it said if it failed."""
    jupyter_book = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", jupyter_book, "build", str(ROOT)]
    options = ["-W", "--keep-going", "-n", "--path-output", str(target)]
    build = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    said = "" if build.returncode == 0 else build.stdout[-3000:] + build.stderr[-3000:]
    assert said or fresh_build.is_fresh(target / "_build" / "html"), "it left no note"
    (target / "book-said").write_text(said or "", "utf-8")


def once(note: Path, work: Callable[[], None]) -> None:
    """Do something in the first of several processes that asks; the others wait until it is done.

    What fails there raises there, and ``note`` tells the others.
    """
    try:
        os.close(os.open(f"{note}-began", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        while not note.exists():
            time.sleep(0.1)
        assert note.read_text("utf-8") == "done", "another process has failed at it"
        return
    result = "failed"
    try:
        work()
        result = "done"
    finally:
        part = note.with_name(f"{note.name}-part")
        part.write_text(result, "utf-8")
        part.replace(note)
