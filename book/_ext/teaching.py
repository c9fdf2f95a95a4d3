"""The tables of the teaching guide, made from the course itself, so that they cannot drift from it.

``{chapter-goals}`` writes what a learner can do after each chapter, with its minutes;
``{course-minutes}`` adds the minutes up by part; ``{course-plan}`` writes a plan, week by week;
``{known-mistakes}`` lists what the checks of an assignment name; ``{live-cells}`` says which cells
to leave out on a slow machine, and which others need them. A plan or a goal that names a chapter
before it stands in ``_toc.yml`` is left out of the page until it does.
"""

import ast
import importlib
import json
import os
import re
import symtable
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from IPython.core.inputtransformer2 import TransformerManager
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from slingshot_exercises.checking import Exercise

# Our assumptions, printed under the table. Nobody has timed a class.
WORDS_PER_MINUTE: Final = 180
LINES_PER_MINUTE: Final = 25
MINUTES_PER_PREDICTION: Final = 2

REFERENCE: Final = "Reference"
ASSIGNMENTS: Final = "notebooks/assignments/release/"
MINUTES: Final = {
    "five": 5,
    "ten": 10,
    "fifteen": 15,
    "twenty": 20,
    "twenty-five": 25,
    "thirty": 30,
    "forty": 40,
    "forty-five": 45,
    "sixty": 60,
}
COUNTS: Final = ("zero", "one", "two", "three", "four", "five")
EXERCISE: Final = re.compile(
    r"^## (?P<number>\d)\. (?P<title>.+)\n\n"
    r"\*Difficulty: (?P<difficulty>\w+) of four\. Time: (?P<minutes>[\w-]+) minutes\. "
    r"(?P<points>\w+) points?\.\*",
    re.M,
)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives with Sphinx."""
    app.add_directive("chapter-goals", ChapterGoals)
    app.add_directive("course-minutes", CourseMinutes)
    app.add_directive("course-plan", CoursePlan)
    app.add_directive("known-mistakes", KnownMistakes)
    app.add_directive("live-cells", LiveCells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# --- what the course says of itself ------------------------------------------------------------


@dataclass(frozen=True)
class Effort:
    """The minutes that a page takes, and the seconds that it runs if they were recorded.

    For an assignment ``exercises`` holds all minutes, and reading is part of them.
    """

    reading: int = 0
    predictions: int = 0
    seconds: float | None = None
    exercises: int = 0

    @property
    def minutes(self) -> int:
        """Minutes to do its exercises, or to read it, run it and answer what is to be predicted."""
        running = ceil((self.seconds or 0) / 60)
        thinking = MINUTES_PER_PREDICTION * self.predictions
        return self.exercises or self.reading + running + thinking


@dataclass(frozen=True)
class Task:
    """An exercise of an assignment as its heading describes it."""

    number: int
    title: str
    difficulty: str
    minutes: int
    points: int


def parts(root: Path) -> dict[str, list[str]]:
    """The chapters by the caption of their part, without those of the reference."""
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    return {
        part["caption"]: [chapter["file"] for chapter in part["chapters"]]
        for part in toc["parts"]
        if part["caption"] != REFERENCE
    }


def chapters(root: Path) -> list[str]:
    """All chapters but those of the reference, in the order of the book."""
    return [chapter for part in parts(root).values() for chapter in part]


def source(root: Path, chapter: str) -> Path:
    """The file of a chapter; raise ``ValueError`` when there is none."""
    for suffix in (".md", ".ipynb"):
        if (path := root / f"{chapter}{suffix}").is_file():
            return path
    raise ValueError(f"there is no chapter {chapter!r}; give it as _toc.yml does")


def cells(path: Path, *, shown: bool = False) -> list[tuple[str, str]]:
    """The kind and the text of each cell, or of each that is ``shown`` on the page.

    A page of Markdown is one cell.
    """
    if path.suffix == ".md":
        return [("markdown", path.read_text("utf-8"))]
    found = json.loads(path.read_text("utf-8"))["cells"]
    return [
        (cell["cell_type"], "".join(cell["source"]))
        for cell in found
        if not (shown and "remove-cell" in cell["metadata"].get("tags", []))
    ]


def effort(root: Path, chapter: str) -> Effort:
    """Count the words, lines of code and questions of a chapter, and look its seconds up."""
    path = source(root, chapter)
    texts = [text for kind, text in cells(path) if kind == "markdown"]
    if chapter.startswith(ASSIGNMENTS):
        return Effort(exercises=sum(task.minutes for task in tasks(path)))
    words = sum(len(text.split()) for text in texts)
    if any("{claims-ledger}" in text for text in texts):
        words += words_of_ledger(root)
    code = [text for kind, text in cells(path, shown=True) if kind == "code"]
    lines = [line for text in code for line in text.splitlines()]
    minutes = words / WORDS_PER_MINUTE + sum(map(bool, map(str.strip, lines))) / LINES_PER_MINUTE
    recorded = json.loads((root / "notebooks" / "seconds.json").read_text("utf-8"))["seconds"]
    predictions = sum(text.count(":class: predict") for text in texts)
    return Effort(ceil(minutes), predictions, recorded.get(path.stem))


def words_of_ledger(root: Path) -> int:
    """The words of the ledger that its page shows: quotation and finding of each claim."""
    claims = yaml.safe_load((root / "book" / "claims.yml").read_text("utf-8"))
    return sum(len(f"{claim['quote']} {claim['finding']}".split()) for claim in claims)


def tasks(path: Path) -> list[Task]:
    """The exercises of an assignment; raise ``ValueError`` when a heading says no minutes."""
    found = []
    for kind, text in cells(path):
        if kind != "markdown" or not re.search(r"^## \d\. ", text, re.M):
            continue
        match = EXERCISE.search(text)
        if match is None or match["minutes"] not in MINUTES:
            line = text.partition("## ")[2].splitlines()[0]
            raise ValueError(f"{path.name}, {line!r}: it needs difficulty, minutes and points")
        points = COUNTS.index(match["points"].lower())
        minutes = MINUTES[match["minutes"]]
        found.append(
            Task(int(match["number"]), match["title"], match["difficulty"], minutes, points)
        )
    return found


def mistakes(assignment: str) -> dict[str, list[str]]:
    """The messages of all known mistakes by exercise, in the order in which they are compared."""
    module = importlib.import_module(f"slingshot_exercises.{assignment}")
    found: dict[str, list[str]] = {name: [] for name in module.CHECKS}
    part: Exercise
    for part in module.EXERCISES:
        found[part.name] += [mistake.message for mistake in part.mistakes]
        found[part.name] += [part.reason] if part.reason else []
    return {name: list(dict.fromkeys(messages)) for name, messages in found.items()}


# --- cells that need other cells ------------------------------------------------------------------


@dataclass(frozen=True)
class Names:
    """The names that a statement defines, and those that it needs."""

    defines: frozenset[str]
    needs: frozenset[str]


@dataclass(frozen=True)
class CodeCell:
    """A code cell: the heading above it, its text, and the names of its statements in order."""

    section: str
    text: str
    statements: tuple[Names, ...]


def code_cells(path: Path) -> list[CodeCell]:
    """The code cells of a notebook."""
    section, found = "", []
    for kind, text in cells(path):
        if kind == "markdown":
            headings: list[str] = re.findall(r"^#+ (.+)$", text, re.M)
            section = headings[-1] if headings else section
        elif kind == "code":
            # A line such as %pip becomes a call.
            python = TransformerManager().transform_cell(text)  # type: ignore[no-untyped-call]
            statements = [names_of(ast.unparse(node)) for node in ast.parse(python).body]
            found.append(CodeCell(section, text, tuple(statements)))
    return found


def names_of(statement: str) -> Names:
    """The names of a statement. A function needs what it will need when it is called."""
    table = symtable.symtable(statement, "cell", "exec")
    symbols = table.get_symbols()
    defined = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    needed = {s.get_name() for s in symbols if s.is_referenced()} | set(globals_in(table))
    return Names(frozenset(defined), frozenset(needed))


def globals_in(table: symtable.SymbolTable) -> Iterator[str]:
    """The global names that the functions within a table use."""
    for child in table.get_children():
        yield from (s.get_name() for s in child.get_symbols() if s.is_global())
        yield from globals_in(child)


def cell_with(found: Sequence[CodeCell], text: str) -> CodeCell:
    """The one cell that holds a text; raise ``ValueError`` when there is none, or a second."""
    holding = [cell for cell in found if text in cell.text]
    if len(holding) != 1:
        raise ValueError(f"{len(holding)} cells hold {text!r}; give a text that one cell holds")
    return holding[0]


def stopped_without(found: Sequence[CodeCell], left_out: Sequence[CodeCell]) -> list[CodeCell]:
    """The cells that meet an unknown name when some are left out and all others run in order.

    A cell runs down to the statement that meets it, as in Jupyter; what stands above is defined.
    """
    known: set[str] = set()
    missing: set[str] = set()
    stopped = []
    for cell in found:
        runs = cell not in left_out
        for names in cell.statements:
            if runs and names.needs & (missing - known - names.defines):
                stopped.append(cell)
                runs = False
            (known if runs else missing).update(names.defines)
    return stopped


# --- what the guide says --------------------------------------------------------------------------


def parse_goals(content: str) -> dict[str, list[str]]:
    """Read goals by chapter; raise ``ValueError`` when they are no lists of texts."""
    goals = yaml.safe_load(content)
    if not isinstance(goals, dict):
        raise ValueError("give a mapping of chapters to lists of goals")
    for chapter, texts in goals.items():
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            raise ValueError(f"{chapter}: give a list of goals; a goal holds no colon")
    return goals


@dataclass(frozen=True)
class Week:
    """A week of a plan: what is read before class, done in class, and handed in."""

    title: str
    before: tuple[str, ...] = ()
    together: tuple[str, ...] = ()
    hand_in: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every chapter of the week."""
        return (*self.before, *self.together, *self.hand_in)


WEEK_KEYS: Final = {"title", "before", "class", "hand in"}


def parse_plan(content: str) -> list[Week]:
    """Read a plan; raise ``ValueError`` naming the week that is wrong."""
    weeks = []
    for number, entry in enumerate(yaml.safe_load(content) or [], start=1):
        if not isinstance(entry, dict) or not {"title"} <= set(entry) <= WEEK_KEYS:
            raise ValueError(f"week {number}: give title, before, class and hand in")
        lists = [tuple(entry.get(key) or ()) for key in ("before", "class", "hand in")]
        weeks.append(Week(entry["title"], *lists))
    repeated = [c for week in weeks for c in week.all if sum(w.all.count(c) for w in weeks) > 1]
    if repeated:
        raise ValueError(f"{repeated[0]} is planned twice")
    return weeks


@dataclass(frozen=True)
class Live:
    """The cells of a notebook to leave out, each by a text in it, and the section to read."""

    cells: tuple[str, ...]
    read: str


def parse_live(content: str) -> dict[str, Live]:
    """Read which cells train; raise ``ValueError`` when an entry has other than cells and read."""
    entries = yaml.safe_load(content) or {}
    for chapter, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) != {"cells", "read"}:
            raise ValueError(f"{chapter}: give cells and read")
    return {c: Live(tuple(entry["cells"]), entry["read"]) for c, entry in entries.items()}


def directive_bodies(page: str, name: str) -> list[tuple[str, str]]:
    """The argument and the body of each directive of a name, for tests that read the page."""
    pattern = rf"^```\{{{re.escape(name)}\}}[ ]*(.*?)\n(.*?)^```$"
    return [(m[1], m[2]) for m in re.finditer(pattern, page, re.M | re.S)]


# --- directives -----------------------------------------------------------------------------------


class Guide(SphinxDirective):
    """What the directives share: the course's folder, links, and Markdown that is parsed."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Write the directive's part of the page; a ``ValueError`` becomes an error of the page."""
        self.root = Path(self.env.srcdir)
        for name in ("_toc.yml", "notebooks/seconds.json", "book/claims.yml"):
            self.env.note_dependency(str(self.root / name))
        try:
            return self.write()
        except ValueError as error:
            raise self.error(str(error)) from error

    def write(self) -> list[nodes.Node]:
        """Return the nodes."""
        raise NotImplementedError

    def known(self, named: Sequence[str]) -> list[str]:
        """Those chapters that are in the book."""
        return [chapter for chapter in named if chapter in chapters(self.root)]

    def effort(self, chapter: str) -> Effort:
        """The effort of a chapter, whose changes from now on change the page."""
        self.env.note_dependency(str(source(self.root, chapter)))
        return effort(self.root, chapter)

    def link(self, chapter: str) -> str:
        """A link to a chapter, with its title."""
        here = Path(self.env.doc2path(self.env.docname)).parent
        path = Path(os.path.relpath(source(self.root, chapter), here))
        return f"[](<{path.as_posix()}>)"

    def parse(self, lines: Sequence[str]) -> list[nodes.Node]:
        """Let the parser of the page read Markdown."""
        node = nodes.container()
        node.document = self.state.document
        self.state.nested_parse(StringList(list(lines), self.env.docname), 0, node)
        return list(node.children)


class ChapterGoals(Guide):
    """The chapters of a part, each with its minutes and what one can do after it."""

    def write(self) -> list[nodes.Node]:
        """Write a line for each chapter and its goals below."""
        lines: list[str] = []
        goals = parse_goals("\n".join(self.content))
        for chapter in self.known(list(goals)):
            lines += [f"**{self.link(chapter)}**: {self.minutes(self.effort(chapter))}", ""]
            lines += [f"- {goal}" for goal in goals[chapter]]
            lines.append("")
        return self.parse(lines)

    @staticmethod
    def minutes(effort: Effort) -> str:
        """The minutes of a chapter in words."""
        if effort.exercises:
            return f"exercises {effort.exercises} min"
        words = [f"read {effort.reading} min"]
        words += [f"run {effort.seconds:.0f} s"] if effort.seconds is not None else []
        if effort.predictions:
            s = "s" if effort.predictions > 1 else ""
            words.append(f"{effort.predictions} prediction{s}")
        return ", ".join(words)


class CourseMinutes(Guide):
    """The minutes of each part, with the assumptions that they rest on."""

    def write(self) -> list[nodes.Node]:
        """Write the table."""
        lines = ["| part | read | run | exercises | points |"]
        lines.append("| --- | ---: | ---: | ---: | ---: |")
        for part, named in [*parts(self.root).items(), ("all", chapters(self.root))]:
            efforts = {chapter: self.effort(chapter) for chapter in named}
            reading = sum(each.reading for each in efforts.values())
            exercises = sum(each.exercises for each in efforts.values())
            running, points = running_minutes(efforts), points_of(self.root, named) or ""
            lines.append(f"| {part} | {reading} | {running} | {exercises} | {points} |")
        lines += [
            "",
            "In minutes; the points are those of the assignment. Reading is counted from the text, "
            f"at {WORDS_PER_MINUTE} words and {LINES_PER_MINUTE} lines of code a minute, which is "
            "an assumption. Running was measured once, as [How this book is made](colophon.md) "
            "says; where a notebook has not been measured yet, a dash stands. The minutes of the "
            "exercises are our estimate. No class has been timed.",
        ]
        return self.parse(lines)


def points_of(root: Path, named: Sequence[str]) -> int:
    """The points of all exercises of the assignments among some chapters."""
    assignments = [chapter for chapter in named if chapter.startswith(ASSIGNMENTS)]
    return sum(task.points for each in assignments for task in tasks(source(root, each)))


def running_minutes(efforts: Mapping[str, Effort]) -> str:
    """The minutes that some chapters run, or a dash when a notebook has not been measured."""
    notebooks = {c: e for c, e in efforts.items() if c.startswith("notebooks/") and not e.exercises}
    if any(each.seconds is None for each in notebooks.values()):
        return "–"
    return f"{sum(each.seconds or 0 for each in notebooks.values()) / 60:.1f}"


class CoursePlan(Guide):
    """A plan, week by week, with the minutes that it asks for, and what it leaves out."""

    def write(self) -> list[nodes.Node]:
        """Write a paragraph for each week and a list of what is done in it."""
        lines: list[str] = []
        plan = parse_plan("\n".join(self.content))
        for number, week in enumerate(plan, start=1):
            if not self.known(week.all):
                continue
            lines += [f"**Week {number}. {week.title}**", ""]
            lines += self.row("Before class", week.before)
            lines += self.row("In class", week.together)
            lines += self.row("Hand in", week.hand_in)
            lines.append("")
        planned = {chapter for week in plan for chapter in week.all}
        left_out = [self.link(each) for each in chapters(self.root) if each not in planned]
        if left_out:
            lines.append(f"Left out, or to be read at leisure: {', '.join(left_out)}.")
        return self.parse(lines)

    def row(self, label: str, named: Sequence[str]) -> Iterator[str]:
        """A line of a week, or none when nothing of it is in the book."""
        if known := self.known(named):
            total = sum(self.effort(chapter).minutes for chapter in known)
            yield f"- {label}, {total} min: {', '.join(map(self.link, known))}"


class KnownMistakes(Guide):
    """The exercises of an assignment, each with the mistakes that its check names, folded."""

    required_arguments = 1
    has_content = False

    def write(self) -> list[nodes.Node]:
        """Write a fold for each exercise."""
        name = self.arguments[0]
        path = source(self.root, f"{ASSIGNMENTS}{name}")
        checks = self.root / "src" / "slingshot_exercises"
        for file in (path, checks / "checking.py", *sorted((checks / name).glob("*.py"))):
            self.env.note_dependency(str(file))
        found: list[nodes.Node] = []
        for task, messages in zip(tasks(path), mistakes(name).values(), strict=True):
            summary = (
                f"{task.number}. {task.title}: difficulty {task.difficulty} of four, "
                f"{task.minutes} min, {task.points} point{'s' if task.points > 1 else ''}"
            )
            head = f"<details><summary>{nodes.Text(summary).astext()}</summary>"
            items = [nodes.list_item("", message_node(text)) for text in messages]
            found += [
                nodes.raw("", head, format="html"),
                nodes.bullet_list("", *items),
                nodes.raw("", "</details>", format="html"),
            ]
        return [nodes.container("", *found, classes=["known-mistakes"])]


def message_node(text: str) -> nodes.paragraph:
    """A message as a paragraph, in which what stands between backticks is code."""
    pieces = text.split("`")
    inline: list[nodes.Node] = [
        nodes.literal(text=piece) if index % 2 else nodes.Text(piece)
        for index, piece in enumerate(pieces)
        if piece
    ]
    return nodes.paragraph("", "", *inline)


class LiveCells(Guide):
    """The cells to leave out on a slow machine, what stops without them, and what to read."""

    def write(self) -> list[nodes.Node]:
        """Write an item for each notebook."""
        lines: list[str] = []
        live = parse_live("\n".join(self.content))
        for chapter in self.known(list(live)):
            self.env.note_dependency(str(source(self.root, chapter)))
            lines += self.item(chapter, live[chapter])
        return self.parse(lines)

    def item(self, chapter: str, live: Live) -> list[str]:
        """What to leave out of one notebook."""
        found = code_cells(source(self.root, chapter))
        left_out = [cell_with(found, text) for text in live.cells]
        stopped = stopped_without(found, left_out)
        text = f"- {self.link(chapter)}: leave out {self.describe(left_out, live.cells)}."
        if stopped:
            sections = ", ".join(f"*{s}*" for s in dict.fromkeys(c.section for c in stopped))
            cell = "one more cell stops" if len(stopped) == 1 else f"{len(stopped)} more cells stop"
            text += f" Then {cell} with a `NameError`, in {sections}; go on below."
        return [f"{text} The results stand in *{live.read}*."]

    @staticmethod
    def describe(left_out: Sequence[CodeCell], texts: Sequence[str]) -> str:
        """The cells by the line that names them and the heading above."""
        words: Mapping[CodeCell, str] = {
            cell: next(line.strip() for line in cell.text.splitlines() if text in line)
            for cell, text in zip(left_out, texts, strict=True)
        }
        return " and ".join(
            f"the cell with `{line}` in *{cell.section}*" for cell, line in words.items()
        )
