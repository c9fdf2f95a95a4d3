"""The book built twice, in two folders and under other settings: the same to the byte."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import same_bytes
from clean_run_plugin import differences, files_of

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow

# What a clone elsewhere may have otherwise: a time zone, a language, an order of sets.
ELSEWHERE = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "7"}


def held(folder: Path) -> dict[str, str]:
    """What each file below a folder holds."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of a copy of the course in a folder of another name, built by its own tool."""
    course = tmp_path_factory.mktemp("else where") / "a clone"
    for path in files_of(ROOT):
        if path.is_file():
            target = course / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    build = subprocess.run(
        [sys.executable, str(course / "tools" / "book.py")],
        env={**os.environ, **ELSEWHERE, "PYTHONPATH": str(course / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stdout[-3000:] + build.stderr[-3000:]
    return course / "_build" / "html"


def test_two_builds_are_the_same_to_the_byte(book: Path, again: Path) -> None:
    first, second = held(book), held(again)
    assert len(first) > 100
    assert ".buildinfo" in first
    assert "data/facts.csv" in first
    assert differences(first, second) == []


def test_a_byte_that_differs_is_found(tmp_path: Path) -> None:
    for name, text in (("one", "a"), ("two", "b")):
        (tmp_path / name / "_static").mkdir(parents=True)
        (tmp_path / name / "_static" / "x.js").write_text(text)
        (tmp_path / name / "same.html").write_text("same")
    found = differences(held(tmp_path / "one"), held(tmp_path / "two"))
    assert found == ["changed: _static/x.js"]


def test_the_hash_of_the_configuration_knows_no_place() -> None:
    """It still knows which folders there are, and the folders that are copied stay as they were."""
    hashed: list[list[str]] = []

    def hash_of(places: list[str]) -> list[str]:
        config = SimpleNamespace(html_static_path=places)

        def create_build_info() -> str:
            hashed.append(config.html_static_path)
            return "hash"

        builder = SimpleNamespace(create_build_info=create_build_info, build_info="old")
        app: Any = SimpleNamespace(config=config, builder=builder)
        same_bytes.forget_places(app)
        assert builder.build_info == "hash"
        assert config.html_static_path == places
        return hashed[-1]

    here = hash_of(["book/assets", "/home/a/.venv/lib/copybutton/_static"])
    assert here == hash_of(["book/assets", "/srv/b c/env/copybutton/_static"])
    assert here != hash_of(["book/assets", "/srv/b c/env/togglebutton/_static"])
