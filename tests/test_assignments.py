"""The two editions of the assignments: one made from the other, and nothing given away."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbgrader.nbgraderformat import MetadataValidator

import teaching
from exercise_counts_plugin import assignments, checks
from test_prose import long_quotations, style_faults, typed_numbers

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import assignments as tool  # noqa: E402

NUMBERS = ("zero", "one", "two", "three", "four", "five")
HINT = re.compile(r"<details>\n<summary>Hint (\d): [^<]+</summary>\n\n.+?\n\n</details>", re.S)
every_assignment = pytest.mark.parametrize("assignment", assignments())


def read(folder: Path, assignment: str) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(folder / f"{assignment}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def exercise_texts(notebook: NotebookNode) -> dict[str, str]:
    """The Markdown cell above each exercise's cell."""
    texts = {}
    for above, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        data = cell.metadata.get("nbgrader", {})
        if data.get("solution"):
            texts[data["grade_id"].partition("-")[2]] = above.source
    return texts


# --- one is made from the other ------------------------------------------------------------------


def test_the_student_edition_is_what_nbgrader_makes_of_the_source(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tool.main(["--check"]) == 0, "run `make assignments`"
    assert "unchanged" in capsys.readouterr().out


def test_making_it_twice_changes_no_byte(tmp_path: Path) -> None:
    for _ in range(2):
        assert tool.main(["--release", str(tmp_path)]) == 0
        made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert made == {path.name: path.read_bytes() for path in tool.RELEASE.iterdir()}


@pytest.fixture
def course(tmp_path: Path) -> tuple[Path, list[str]]:
    """A source folder with one assignment, and the arguments that point to it."""
    source, release = tmp_path / "source", tmp_path / "release"
    source.mkdir()
    (source / "claim.ipynb").write_bytes((tool.SOURCE / "claim.ipynb").read_bytes())
    return source, ["--source", str(source), "--release", str(release)]


def edit(path: Path, change: Callable[[NotebookNode], None]) -> None:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    change(notebook)
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


def test_drift_is_noticed_and_nothing_is_written(
    course: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    source, arguments = course
    assert tool.main(arguments) == 0
    edit(source / "claim.ipynb", lambda nb: nb.cells[0].update(source="# Another title"))
    assert tool.main([*arguments, "--check"]) == 1
    assert "claim.ipynb: would change" in capsys.readouterr().out
    assert "Another title" not in (source.parent / "release" / "claim.ipynb").read_text()
    assert tool.main(arguments) == 0
    assert tool.main([*arguments, "--check"]) == 0


def test_a_student_edition_without_a_source_is_noticed(
    course: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    source, arguments = course
    assert tool.main(arguments) == 0
    (source / "claim.ipynb").rename(source / "other.ipynb")
    assert tool.main(arguments) == 1
    assert "claim.ipynb: has no source" in capsys.readouterr().err


def _drop_end_of_hidden_tests(notebook: NotebookNode) -> None:
    cell = next(cell for cell in notebook.cells if "END HIDDEN TESTS" in cell.source)
    cell.source = cell.source.replace("### END HIDDEN TESTS", "")


def _drop_metadata(notebook: NotebookNode) -> None:
    cell = next(cell for cell in notebook.cells if "BEGIN SOLUTION" in cell.source)
    del cell.metadata["nbgrader"]


def _repeat_grade_id(notebook: NotebookNode) -> None:
    graded = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    graded[-1].metadata.nbgrader.grade_id = graded[0].metadata.nbgrader.grade_id


@pytest.mark.parametrize("fault", [_drop_end_of_hidden_tests, _drop_metadata, _repeat_grade_id])
def test_a_malformed_source_takes_one_line_and_makes_nothing(
    fault: Callable[[NotebookNode], None],
    course: tuple[Path, list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, arguments = course
    edit(source / "claim.ipynb", fault)
    assert tool.main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "claim.ipynb: " in lines[0]
    assert not (source.parent / "release").exists()


def test_no_source_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--source", str(tmp_path)]) == 1
    assert "no notebooks" in capsys.readouterr().err


# --- what is in them -----------------------------------------------------------------------------


@every_assignment
def test_the_student_edition_gives_nothing_away(assignment: str) -> None:
    text = (tool.RELEASE / f"{assignment}.ipynb").read_text("utf-8")
    source = read(tool.SOURCE, assignment)
    for word in ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS", "seed="):
        assert word not in text
        assert any(word in cell.source for cell in source.cells)
    solutions = re.findall(
        r"### BEGIN SOLUTION\n(.*?)### END SOLUTION",
        "\n".join(cell.source for cell in source.cells),
        re.S,
    )
    lines = [line.strip() for solution in solutions for line in solution.splitlines()]
    given_away = [line for line in lines if len(line) > 15 and json.dumps(line)[1:-1] in text]
    assert given_away == []


@every_assignment
def test_both_editions_are_valid_for_nbgrader_and_hold_no_outputs(assignment: str) -> None:
    for folder in (tool.SOURCE, tool.RELEASE):
        notebook = read(folder, assignment)
        MetadataValidator().validate_nb(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.id for cell in code if cell.outputs or cell.execution_count] == []
        ids = [cell.metadata.nbgrader.grade_id for cell in code if "nbgrader" in cell.metadata]
        assert all(grade_id.startswith(f"{assignment}-") for grade_id in ids)


@every_assignment
def test_what_is_not_the_learners_is_locked(assignment: str) -> None:
    for cell in read(tool.RELEASE, assignment).cells:
        data = cell.metadata.get("nbgrader", {})
        if data.get("grade") or data.get("locked"):
            assert cell.metadata.editable is False
            assert cell.metadata.deletable is False


@every_assignment
def test_every_exercise_has_its_difficulty_minutes_points_and_three_hints(assignment: str) -> None:
    notebook = read(tool.RELEASE, assignment)
    points = {
        cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader.points
        for cell in notebook.cells
        if cell.metadata.get("nbgrader", {}).get("grade")
    }
    texts, difficulties = exercise_texts(notebook), []
    assert list(texts) == list(checks(assignment))
    for number, (exercise, text) in enumerate(texts.items(), start=1):
        assert f"({assignment}-exercise-{number})=\n## {number}. " in text
        line = re.search(
            r"\*Difficulty: (\w+) of four\. Time: [\w-]+ minutes\. (\w+) points?\.\*", text
        )
        assert line, exercise
        difficulties.append(NUMBERS.index(line[1]))
        assert NUMBERS.index(line[2].lower()) == points[f"{assignment}-{exercise}-test"]
        assert HINT.findall(text) == ["1", "2", "3"]
        assert text.count("<details>") == 3
        assert re.search(r"\]\(\.\./\.\./\w+\.ipynb\)|chapter|notebook", text)
    assert difficulties == sorted(difficulties)
    assert difficulties[0] == 1
    assert difficulties[-1] == 4


@every_assignment
def test_every_link_leads_to_a_file(assignment: str) -> None:
    text = "\n".join(cell.source for cell in read(tool.RELEASE, assignment).cells)
    targets = re.findall(r"\]\(((?!https?:)[^)#\s]+)", text)
    assert targets
    assert [each for each in targets if not (tool.RELEASE / each).resolve().is_file()] == []


@every_assignment
def test_the_prose_obeys_the_rules_of_the_book(assignment: str) -> None:
    rules: list[Callable[[str], list[Any]]] = [typed_numbers, style_faults, long_quotations]
    found = [
        (rule.__name__, fault)
        for cell in read(tool.SOURCE, assignment).cells
        if cell.cell_type == "markdown"
        for rule in rules
        for fault in rule(cell.source)
    ]
    assert found == []


@every_assignment
def test_facts_that_the_text_names_exist(assignment: str) -> None:
    from slingshot import facts

    text = "\n".join(cell.source for cell in read(tool.SOURCE, assignment).cells)
    for key in re.findall(r"\{fact\}`([^`]+)`", text):
        facts.get(key)


def lost_sections(path: Path) -> list[str]:
    """The sections that a hint names, and that no notebook linked so far in the assignment has."""
    there, found = set[str](), []
    for kind, text in teaching.cells(path):
        if kind != "markdown" or not teaching.EXERCISE.search(text):
            continue
        for name in re.findall(r"\]\(\.\./\.\./(\w+)\.ipynb\)", text):
            there |= set(headings(ROOT / "notebooks" / f"{name}.ipynb"))
        hints = text.partition("<summary>Hint 1")[2].splitlines()
        quoted = [re.findall(r'"([^"]+)"', line) for line in hints if "section" in line]
        found += [name for names in quoted for name in names if name not in there]
    return found


def headings(path: Path) -> list[str]:
    """All headings of a notebook."""
    texts = [text for kind, text in teaching.cells(path) if kind == "markdown"]
    return [heading for text in texts for heading in re.findall(r"^#+ (.+)$", text, re.M)]


@every_assignment
def test_every_section_that_a_hint_names_is_there(assignment: str) -> None:
    assert lost_sections(tool.SOURCE / f"{assignment}.ipynb") == []


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ("The cache", "What one token costs: the cache", ["What one token costs: the cache"]),
        (
            "[The price of a token](../../price_of_a_token.ipynb)",
            "the notebook",
            ["The price lists"],
        ),
    ],
    ids=["heading", "link"],
)
def test_a_section_that_is_not_there_is_found(
    tmp_path: Path, old: str, new: str, lost: list[str]
) -> None:
    text = (tool.SOURCE / "claim.ipynb").read_text("utf-8")
    assert old in text
    (tmp_path / "claim.ipynb").write_text(text.replace(old, new), "utf-8")
    assert lost_sections(tmp_path / "claim.ipynb") == lost


SAID = {
    "an hour": 60,
    "an hour and a quarter": 75,
    "an hour and a half": 90,
    "two hours": 120,
    "two hours and a half": 150,
}
NEAR = 10


@every_assignment
def test_an_assignment_says_the_minutes_of_all_its_exercises(assignment: str) -> None:
    path = tool.SOURCE / f"{assignment}.ipynb"
    first = read(tool.SOURCE, assignment).cells[0].source
    (said,) = re.findall(r"Together they take (?:about|a little over) ([a-z ]+)[.;]", first)
    assert abs(SAID[said] - sum(task.minutes for task in teaching.tasks(path))) <= NEAR


@every_assignment
def test_an_assignment_says_which_file_to_hand_in_and_where_to_name_help(assignment: str) -> None:
    cells = read(tool.RELEASE, assignment).cells
    assert f"hand in that file: `workspace/assignments/{assignment}.ipynb`." in cells[0].source
    assert 'say so at the end, under "Help that you had".' in cells[0].source
    assert cells[-1].source.startswith("## Help that you had\n")
