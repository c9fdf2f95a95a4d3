"""The teaching guide: nothing in it drifts from the course, and what it tells to type works."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import yaml

import teaching
from exercise_counts_plugin import assignments, checks
from slingshot_grader import desk
from slingshot_grader.export import PLATFORMS
from test_prose import style_faults, typed_numbers

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "book" / "teaching.md").read_text("utf-8")
ASSIGNMENTS = [f"{teaching.ASSIGNMENTS}{name}" for name in assignments()]
SLOW = 20.0
NOTHING_STORED = {  # beside what is left out; what it printed stands in the notebook
    "notebooks/moe_gating",
    "notebooks/sparse_attention",
    "notebooks/guess_and_verify",
}

# What a goal begins with: something that can be seen to be done, or not.
VERBS = re.compile(
    "Bound|Break|Build|Change|Check|Compare|Compute|Construct|Count|Date|Decide|Derive|Design|"
    "Distinguish|Estimate|Explain|Implement|Judge|Look|Measure|Predict|Put|Quantize|Read|Recompute|"
    "Retell|Rewrite|Run|Sample|Say|Separate|Show|Split|State|Take|Test|Trace|Vary|Write"
)


# --- what the guide says, and what is wrong with it ---------------------------------------------


def goals(page: str) -> dict[str, list[str]]:
    """The goals of all chapters."""
    bodies = teaching.directive_bodies(page, "chapter-goals")
    return {c: texts for _, body in bodies for c, texts in teaching.parse_goals(body).items()}


def plans(page: str) -> list[list[teaching.Week]]:
    """The plans of the guide."""
    return [teaching.parse_plan(body) for _, body in teaching.directive_bodies(page, "course-plan")]


def live(page: str) -> dict[str, teaching.Live]:
    """The cells that the guide leaves out on slow machines."""
    ((_, body),) = teaching.directive_bodies(page, "live-cells")
    return teaching.parse_live(body)


def announced() -> set[str]:
    """The chapters of the book, and those that its first page links to."""
    index = (ROOT / "book" / "index.md").read_text("utf-8")
    links = re.findall(r"\]\((?:\.\./)?([\w/]+)\.(?:md|ipynb)\)", index)
    linked = {link if "/" in link else f"book/{link}" for link in links}
    return {*teaching.chapters(ROOT), *linked, *ASSIGNMENTS}


def without_goals(page: str) -> list[str]:
    """The chapters for which the guide has no goal, and the goals that have no chapter."""
    found, named = goals(page), announced() | {"book/verifiers"}
    missing = [chapter for chapter in teaching.chapters(ROOT) if chapter not in found]
    return missing + [chapter for chapter in found if chapter not in named]


def weak_goals(page: str) -> list[str]:
    """The goals that say nothing that can be seen."""
    return [
        goal
        for texts in goals(page).values()
        for goal in texts
        if not VERBS.fullmatch(goal.split()[0]) or not goal.endswith(".") or len(goal.split()) > 35
    ]


def unplanned(page: str) -> list[tuple[int, str]]:
    """For each plan the assignments that it has not, and chapters that are none."""
    named = announced() | {"book/verifiers"}
    found = []
    for number, plan in enumerate(plans(page)):
        planned = [chapter for week in plan for chapter in week.all]
        handed_in = [chapter for week in plan for chapter in week.hand_in]
        found += [(number, name) for name in ASSIGNMENTS if name not in handed_in]
        found += [(number, chapter) for chapter in planned if chapter not in named]
    return found


def links_of(assignment: str) -> set[str]:
    """The notebooks that an assignment refers to."""
    text = "\n".join(text for _, text in teaching.cells(teaching.source(ROOT, assignment)))
    return {f"notebooks/{name}" for name in re.findall(r"\]\(\.\./\.\./(\w+)\.ipynb\)", text)}


def too_late(page: str) -> list[tuple[int, str, str]]:
    """The notebooks that an assignment needs and that a plan has later, or not at all."""
    found = []
    for number, plan in enumerate(plans(page)):
        week_of = {chapter: i for i, week in enumerate(plan) for chapter in week.all}
        for assignment in ASSIGNMENTS:
            due = week_of.get(assignment, -1)
            needed = links_of(assignment) & set(teaching.chapters(ROOT))
            late = [c for c in sorted(needed) if week_of.get(c, len(plan)) > due]
            found += [(number, assignment, chapter) for chapter in late]
    return found


def wrong_live_cells(page: str) -> list[str]:
    """What does not hold of the cells to leave out: the text, or the section to read."""
    found = []
    for chapter, entry in live(page).items():
        cells = teaching.code_cells(teaching.source(ROOT, chapter))
        try:
            left_out = [teaching.cell_with(cells, text) for text in entry.cells]
        except ValueError as error:
            found.append(f"{chapter}: {error}")
            continue
        readable = {c.section for c in cells if any(w in c.text for w in ("stored", "runs_of"))}
        headings = {cell.section for cell in cells}
        if entry.read not in headings:
            found.append(f"{chapter}: no section {entry.read!r}")
        stopped = teaching.stopped_without(cells, left_out)
        lost = {cell.section for cell in stopped}
        if entry.read in lost and entry.read not in {c.section for c in left_out}:
            found.append(f"{chapter}: {entry.read!r} needs what is left out")
        if len(stopped) > len(cells) / 4:
            found.append(f"{chapter}: {len(stopped)} of {len(cells)} cells stop")
        assert readable or chapter in NOTHING_STORED
    return found


def slow_without_remedy(page: str) -> list[str]:
    """The notebooks of the book that run long and of which the guide says nothing."""
    named = live(page)
    return [
        chapter
        for chapter in teaching.chapters(ROOT)
        if (teaching.effort(ROOT, chapter).seconds or 0) > SLOW and chapter not in named
    ]


FAULTS: dict[str, Callable[[str], list[str] | list[tuple[int, str]] | list[tuple[int, str, str]]]]
FAULTS = {
    "goals": without_goals,
    "verbs": weak_goals,
    "plans": unplanned,
    "order": too_late,
    "live": wrong_live_cells,
    "slow": slow_without_remedy,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_guide_fits_the_course(fault: str) -> None:
    assert FAULTS[fault](GUIDE) == [], "mend book/teaching.md"


@pytest.mark.parametrize(
    ("fault", "old", "new"),
    [
        ("goals", "book/cost:\n- Explain", "book/story:\n- Explain"),
        ("goals", "notebooks/moe_layer:\n- Derive", "notebooks/moe_lair:\n- Derive"),
        ("verbs", "- Derive the error", "- Understand the error"),
        ("verbs", "- Write the whole router", "- Know the whole router"),
        ("plans", "  hand in: [notebooks/assignments/release/moe]\n", ""),
        ("plans", "  class: [notebooks/claims_arithmetic]", "  class: [notebooks/claims]"),
        (
            "order",
            "notebooks/training_cost, book/cost, notebooks/serving_costs",
            "notebooks/training_cost",
        ),
        ("order", "[book/moe, notebooks/moe_balancing, notebooks", "[book/moe, notebooks"),
        ("live", "alone = train(", "together = train("),
        ("live", "read: Which is best?", "read: Which is worst?"),
        ("live", 'cells: ["alone = train("]', 'cells: ["import torch"]'),
        ("slow", "notebooks/moe_balancing:\n  cells", "notebooks/moe_layer:\n  cells"),
    ],
)
def test_a_fault_in_the_guide_is_found(fault: str, old: str, new: str) -> None:
    assert old in GUIDE
    assert FAULTS[fault](GUIDE.replace(old, new, 1)) != []


def test_there_are_two_plans_and_the_longer_has_every_chapter() -> None:
    short, long = plans(GUIDE)
    assert (len(short), len(long)) == (4, 12)
    planned = {chapter for week in long for chapter in week.all}
    results = {"book/moe_results", "book/low_precision_results"}  # read aloud where they belong
    assert results <= planned
    assert [c for c in teaching.chapters(ROOT) if c not in planned] == []


def test_every_assignment_has_its_mistakes_on_the_page() -> None:
    named = [name for name, _ in re.findall(r"\{known-mistakes\} (\w+)\n(```)", GUIDE)]
    assert sorted(named) == assignments()


def test_the_prose_in_the_directives_obeys_the_rules() -> None:
    texts = [goal for found in goals(GUIDE).values() for goal in found]
    texts += [week.title for plan in plans(GUIDE) for week in plan]
    assert [text for text in texts if typed_numbers(text) or style_faults(text)] == []


def test_every_command_of_make_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    code = re.findall(r"`([^`\n]+)`|^(make .+)$", GUIDE, re.M)
    commands = {a or b for a, b in code if (a or b).startswith("make ")}
    targets = {command.split()[1] for command in commands}
    assert targets >= {"lab", "grade", "book", "assignments", "progress", "model"}
    assert [t for t in targets if not re.search(rf"^{t}: ", makefile, re.M)] == []


def test_every_option_and_script_is_there() -> None:
    named = {"grade": "--no-sandbox", "lab": "--prepare-only", "show_progress": "--workspace"}
    code = {tool: ROOT / "tools" / f"{tool}.py" for tool in named}
    code["grade"] = ROOT / "src" / "slingshot_grader" / "cli.py"
    for tool, option in named.items():
        assert f'"{option}"' in code[tool].read_text("utf-8")
        assert re.search(rf"tools/{tool}\.py[^`]*{option}", GUIDE)


def test_every_option_of_the_export_is_there() -> None:
    code = (ROOT / "src" / "slingshot_grader" / "export.py").read_text("utf-8")
    words = re.search(r"### Back to the platform(.*?)\n### ", GUIDE, re.S)
    assert words
    options = set(re.findall(r"--[a-z]+", words[1]))
    assert options >= {"--to", "--into", "--filled", "--feedback", "--replace", "--column"}
    assert [option for option in options if f'"{option}"' not in code] == []
    assert set(re.findall(r"--to (\w+)", words[1])) <= set(PLATFORMS)


def test_the_files_of_the_instructor_are_read_as_the_guide_writes_them(tmp_path: Path) -> None:
    (overrides,) = re.findall(r"```text\n(learner,.*?)```", GUIDE, re.S)
    (rules,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.S)
    for name, text in (("overrides.csv", overrides), ("rules.toml", rules)):
        (tmp_path / name).write_text(text, "utf-8")
    found = desk.read_overrides(tmp_path / "overrides.csv")
    assert [(each.learner, each.points, each.excused) for each in found] == [
        ("Ada Lovelace", 0.5, False),
        ("12346", None, False),
        ("Alan Turing", None, True),
    ]
    read = desk.read_rules(tmp_path / "rules.toml")
    assert (read.attempts, read.by_hand["predictions"], read.extra_days) == (
        "best", 1, {"Ada Lovelace": 3},
    )  # fmt: skip
    paths = re.findall(r"(?:tools|src)/[\w/]+(?:\.py)?", GUIDE.replace("\\", "/"))
    assert [path for path in paths if not (ROOT / path).exists()] == []


# --- the minutes --------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course of one part with two chapters and an assignment."""
    (tmp_path / "book").mkdir()
    (tmp_path / "notebooks" / "assignments" / "release").mkdir(parents=True)
    toc = {
        "parts": [
            {"caption": "One", "chapters": [{"file": "book/a"}, {"file": "notebooks/b"}]},
            {"caption": "Reference", "chapters": [{"file": "book/z"}]},
        ]
    }
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    (tmp_path / "book" / "a.md").write_text("word " * 181)
    claims = [{"quote": "three more words", "finding": "and two"}]
    (tmp_path / "book" / "claims.yml").write_text(yaml.safe_dump(claims))
    (tmp_path / "notebooks" / "seconds.json").write_text('{"seconds": {"b": 61.0}}')
    write_notebook(
        tmp_path / "notebooks" / "b.ipynb",
        ["word " * 176 + "\n:class: predict\n\n", "x = 1\n\n" * 25],
    )
    return tmp_path


def write_notebook(path: Path, texts: list[str]) -> None:
    """Write a notebook in which Markdown and code take turns."""
    notebook = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    make = [nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell]
    notebook.cells = [make[index % 2](text) for index, text in enumerate(texts)]  # type: ignore[no-untyped-call]
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


def test_minutes_are_counted_from_the_text(course: Path) -> None:
    assert teaching.chapters(course) == ["book/a", "notebooks/b"]
    assert teaching.effort(course, "book/a") == teaching.Effort(reading=2)
    effort = teaching.effort(course, "notebooks/b")
    assert effort == teaching.Effort(reading=2, predictions=1, seconds=61.0)
    assert effort.minutes == 6  # two to read, two to run, two for the prediction


def test_a_cell_that_the_page_does_not_show_is_not_read(course: Path) -> None:
    path = course / "notebooks" / "b.ipynb"
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    long = "y = 2\n" * 100
    hidden = nbformat.v4.new_code_cell(long, metadata={"tags": ["remove-cell"]})  # type: ignore[no-untyped-call]
    notebook.cells.append(hidden)
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    assert teaching.effort(course, "notebooks/b").reading == 2
    assert "y" in teaching.code_cells(path)[-1].statements[0].defines  # it runs, though


def test_what_was_not_measured_is_no_number() -> None:
    page, measured = teaching.Effort(reading=2), teaching.Effort(seconds=90.0)
    exercises, unmeasured = teaching.Effort(exercises=10), teaching.Effort(reading=3)
    known = {"book/a": page, "notebooks/b": measured, f"{teaching.ASSIGNMENTS}c": exercises}
    assert teaching.running_minutes(known) == "1.5"
    assert teaching.running_minutes({**known, "notebooks/d": unmeasured}) == "–"


def test_the_ledger_is_counted_with_the_page_that_shows_it(course: Path) -> None:
    page = course / "book" / "a.md"
    page.write_text("word " * 174 + "```{claims-ledger} claims.yml\n```")
    assert teaching.effort(course, "book/a").reading == 2  # 177 words of the page, 5 of the ledger


HEADING = "(x)=\n## 1. A gate\n\n*Difficulty: two of four. Time: ten minutes. Two points.*\n\nText"


def test_exercises_are_read_from_their_headings(course: Path) -> None:
    path = course / "notebooks" / "assignments" / "release" / "c.ipynb"
    write_notebook(path, ["# Exercises", "1", HEADING, "2"])
    assert teaching.tasks(path) == [teaching.Task(1, "A gate", "two", 10, 2)]
    assert teaching.effort(course, f"{teaching.ASSIGNMENTS}c") == teaching.Effort(exercises=10)
    assert teaching.points_of(course, ["book/a", f"{teaching.ASSIGNMENTS}c"]) == 2
    for old, new in [("ten minutes", "some minutes"), ("*Difficulty", "Difficulty")]:
        write_notebook(path, ["# Exercises", "1", HEADING.replace(old, new), "2"])
        with pytest.raises(ValueError, match=r"c\.ipynb, '1\. A gate': it needs difficulty"):
            teaching.tasks(path)


@pytest.mark.parametrize("assignment", assignments())
def test_every_exercise_of_the_course_has_minutes_and_mistakes(assignment: str) -> None:
    tasks = teaching.tasks(teaching.source(ROOT, f"{teaching.ASSIGNMENTS}{assignment}"))
    found = teaching.mistakes(assignment)
    assert len(tasks) == len(checks(assignment))
    assert list(found) == list(checks(assignment))
    assert [name for name, messages in found.items() if len(messages) < 3] == []
    assert [name for name, messages in found.items() if len(set(messages)) < len(messages)] == []


@pytest.mark.parametrize("assignment", assignments())
def test_no_named_mistake_is_missing_from_the_list(assignment: str) -> None:
    """Each ``Mistake`` in the text of the checks is found, wherever it was declared."""
    files = (ROOT / "src" / "slingshot_exercises" / assignment).glob("*.py")
    written = {
        node.args[0].value
        for file in files
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id == "Mistake" and isinstance(node.args[0], ast.Constant)
    }
    listed = {text for messages in teaching.mistakes(assignment).values() for text in messages}
    assert len(written) > 20
    assert written - listed == set()


# --- leaving cells out --------------------------------------------------------------------------


@pytest.fixture
def notebook(tmp_path: Path) -> list[teaching.CodeCell]:
    """Cells that train, use what was trained, and do neither."""
    texts = [
        "# Title",
        "import math",
        "## Live",
        "def train():\n    return math.pi\n\n\nmodel = train()",
        "",
        "stored = 3\nprint(model)\nlater = 4",
        "## Stored",
        "print(stored)",
        "",
        "def show():\n    return later\n\n\nshow()",
        "## More",
        "model = 5",
        "",
        "print(model)",
    ]
    write_notebook(tmp_path / "n.ipynb", texts)
    return teaching.code_cells(tmp_path / "n.ipynb")


def test_what_a_missing_cell_stops(notebook: list[teaching.CodeCell]) -> None:
    trains = teaching.cell_with(notebook, "model = train()")
    stopped = teaching.stopped_without(notebook, [trains])
    # The second cell defines `stored`, stops at `model`, and so never defines `later`.
    assert [cell.text.splitlines()[0] for cell in stopped] == ["stored = 3", "def show():"]
    assert [cell.section for cell in stopped] == ["Live", "Stored"]
    assert teaching.stopped_without(notebook, []) == []


@pytest.mark.parametrize(("text", "count"), [("no such", 0), ("print(", 3)])
def test_a_cell_is_named_by_a_text_that_only_it_holds(
    notebook: list[teaching.CodeCell], text: str, count: int
) -> None:
    with pytest.raises(ValueError, match=f"{count} cells hold"):
        teaching.cell_with(notebook, text)


# --- mistakes of whoever writes the guide -------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "content", "message"),
    [
        (teaching.parse_goals, "- book/a", "give a mapping"),
        (teaching.parse_goals, "book/a: Write a gate.", "book/a: give a list of goals"),
        (teaching.parse_goals, "book/a:\n- Write: a gate.", "a goal holds no colon"),
        (teaching.parse_plan, "- before: [book/a]", "week 1: give title"),
        (teaching.parse_plan, "- title: A\n  home: [book/a]", "week 1: give title"),
        (
            teaching.parse_plan,
            "- {title: A, class: [book/a]}\n- {title: B, before: [book/a]}",
            "book/a is planned twice",
        ),
        (teaching.parse_live, "notebooks/a:\n  cells: [x]", "notebooks/a: give cells and read"),
    ],
)
def test_a_mistake_in_a_directive_is_named(
    parse: Callable[[str], object], content: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parse(content)


def test_a_chapter_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"no chapter 'book/nowhere'; give it as _toc\.yml does"):
        teaching.source(ROOT, "book/nowhere")
