"""What a notebook does first, and where it finds the files of the course."""

import json
from pathlib import Path

import pytest
import torch

from slingshot.notebook import course_file, setup, stored_results

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course with one stored experiment, seen from the folder of its notebooks."""
    results = tmp_path / "experiments" / "results"
    results.mkdir(parents=True)
    (results / "trial.json").write_text(json.dumps({"a/0": {"result": 1}}))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def test_results_beside_the_notebook_are_read(course: Path) -> None:
    assert stored_results("trial") == {"a/0": {"result": 1}}
    assert course_file("experiments/results/trial.json").is_relative_to(course)


def test_a_notebook_that_was_moved_finds_the_course(course: Path) -> None:
    assert course_file("experiments/results/mixture.json").is_relative_to(ROOT)
    assert "dense/0" in stored_results("mixture")


def test_a_missing_file_is_named(course: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"results/absent\.json is neither in .* nor in"):
        stored_results("absent")


def test_setup_fixes_the_threads() -> None:
    before = torch.get_num_threads()
    try:
        setup(threads=2)
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="threads is 0; give at least 1"):
            setup(threads=0)
    finally:
        torch.set_num_threads(before)
