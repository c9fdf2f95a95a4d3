"""Write a chapter out as a copy that JupyterLab shows as the book does.

The book is made by Sphinx, which looks facts, glued numbers, citations and references up while it
builds. JupyterLab does not: it would show their keys. So a copy gets them as text and links. A
question that marks itself becomes a question with folded answers, a drawing becomes a picture. The
code, its outputs, and what nbgrader knows a cell by stay as they are, and running a copy changes no
text of it.
"""

import ast
import base64
import functools
import html
import mimetypes
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import nbformat
from docutils.nodes import make_id
from nbformat import NotebookNode
from pybtex.database import Entry, parse_file

from slingshot import facts
from slingshot.pages import drawings
from slingshot.pages.figures import to_svg
from tools.common import sphinx_extensions

ASSIGNMENTS = "notebooks/assignments/release/"
BOOK = "/book/"
"""Where the built pages are in the learner's JupyterLab; tools/lab_server.py answers there."""

# What the extension of JupyterLab for MyST shows as the book does.
NATIVE_ROLES = frozenset({"math", "sub", "sup", "abbr", "kbd"})
NATIVE_DIRECTIVES = frozenset(
    {"admonition", "attention", "caution", "danger", "dropdown", "error", "hint", "important"}
    | {"list-table", "math", "note", "seealso", "tip", "warning"}
)
CODE_DIRECTIVES = frozenset({"code", "code-block", "try"})
PICTURE_DIRECTIVES = frozenset({"figure", "image"})

# A span of code, with a role before it or without; and a link or a picture.
SPAN = re.compile(
    r"(?:\{(?P<role>[\w:+-]+)\})?(?P<ticks>`+)(?P<text>.+?)(?<!`)(?P=ticks)(?!`)", re.S
)
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]*)\)")
FENCE = re.compile(
    r"^(?P<indent> *)(?P<mark>`{3,}|:{3,}|~{3,})(?:\{(?P<name>[\w:+-]+)\})?(?P<rest>.*)$"
)
LABEL = re.compile(r"^\((?P<label>[^()\n]+)\)=\n+", re.M)
HINT = re.compile(
    r"<details>\s*<summary>(?P<title>.*?)</summary>\s*(?P<body>.*?)\s*</details>", re.S
)
TITLED = re.compile(r"(?P<text>.*?)\s*<(?P<target>[^<>]+)>", re.S)
OPTION = re.compile(r"^:(?P<name>[\w-]+):\s*(?P<value>.*)$")
SPECIAL = re.compile(r"([\\`*_{}\[\]<>$~|#])")
LEFT = """\
# What is still to be written in this notebook.
def is_written(name):
    code = getattr(globals().get(name), "__code__", None)
    return name in globals() and "NotImplementedError" not in getattr(code, "co_names", ())


left = [name for name in [{names}] if not is_written(name)]
print("Still to be written:", ", ".join(left) or "nothing")
print("Which exercises pass: `make progress` tells.")"""


class NotShownError(ValueError):
    """Something in a chapter that a copy cannot show; the message names it and the remedy."""


@dataclass(frozen=True)
class Place:
    """Where a label stands: the chapter as _toc.yml names it, and the words below it."""

    chapter: str
    words: str


class Course:
    """The course in a folder, read once: its pages, its labels and its sources."""

    def __init__(self, root: Path) -> None:
        """Read nothing yet."""
        self.root = root

    def copy(self, chapter: str) -> bytes:
        """The notebook of a chapter, such as ``notebooks/moe_gating``, as it is handed out."""
        notebook = read(self.root / chapter)
        writer = Writer(self, chapter, glued_in(notebook))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                writer.write(cell)
            elif cell.cell_type == "code":
                fold(cell)
        if chapter.startswith(ASSIGNMENTS):
            run_to_the_end(notebook)
        text: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
        return (text.rstrip("\n") + "\n").encode("utf-8")

    @functools.cached_property
    def pages(self) -> dict[str, str]:
        """The text of each chapter."""
        found = [(path, path.read_text("utf-8")) for path in (self.root / "book").glob("*.md")]
        for folder in ("notebooks", ASSIGNMENTS):
            for path in (self.root / folder).glob("*.ipynb"):
                cells = read(path.with_suffix("")).cells
                texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
                found.append((path, "\n\n".join(texts)))
        return {p.relative_to(self.root).with_suffix("").as_posix(): text for p, text in found}

    @functools.cached_property
    def labels(self) -> dict[str, Place]:
        """Where each label stands. The ledger makes its own, one for each claim."""
        found = {}
        for chapter, text in self.pages.items():
            for match in LABEL.finditer(text):
                below = text[match.end() :].split("\n", 1)[0]
                found[match["label"]] = Place(chapter, below.lstrip("# "))
            if "{claims-ledger}" in text:
                claims = (self.root / "book" / "claims.yml").read_text("utf-8")
                for number in re.findall(r'^- id: "?([\w-]+)"?$', claims, re.M):
                    found[f"ledger-{number}"] = Place(chapter, f"claim {number}")
        return found

    @functools.cached_property
    def sources(self) -> dict[str, Entry]:
        """The bibliography by key."""
        return dict(parse_file(str(self.root / "book" / "references.bib")).entries)

    def title(self, chapter: str) -> str:
        """The first heading of a chapter, or its name if it has none."""
        match = re.search(r"^# (.+)$", self.pages[chapter], re.M)
        return match[1] if match else chapter.rpartition("/")[2]

    def is_asked_for(self, label: str, chapter: str) -> bool:
        """Whether a chapter refers to a label."""
        name = re.escape(label)
        asked = rf"\{{(?:num)?ref\}}`(?:[^`]*<)?{name}>?`|\]\(#{name}\)"
        return re.search(asked, self.pages[chapter]) is not None


@dataclass
class Writer:
    """Writes the text of one chapter out, with what its notebook has glued."""

    course: Course
    chapter: str
    glued: Mapping[str, str]
    attachments: dict[str, dict[str, str]] = field(default_factory=dict)

    # --- blocks --------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where the chapter stands; its links start there."""
        return (self.course.root / self.chapter).parent

    def write(self, cell: NotebookNode) -> None:
        """Write a cell of Markdown out in its place, with the pictures that it needs."""
        self.attachments = {}
        cell.source = self.text(cell.source)
        if self.attachments:
            cell.attachments = {**cell.get("attachments", {}), **self.attachments}

    def text(self, source: str) -> str:
        """The text of a Markdown cell, with everything looked up."""
        kept = HINT.sub(self.hint, LABEL.sub(self.label, source))
        return "\n".join(self.blocks(kept.split("\n")))

    def hint(self, match: re.Match[str]) -> str:
        """HTML that folds, as a directive: JupyterLab reads formulas and links in that alone."""
        return "\n".join(fold_of(match["title"], [match["body"]]))

    def label(self, match: re.Match[str]) -> str:
        """A label stays where a reference in the same notebook needs it."""
        return match[0] if self.course.is_asked_for(match["label"], self.chapter) else ""

    def blocks(self, lines: list[str]) -> Iterator[str]:
        """The lines, with what is fenced treated by its name."""
        prose: list[str] = []
        while lines:
            opening = FENCE.match(lines[0])
            if opening is None:
                prose.append(lines.pop(0))
                continue
            body, lines = fenced(lines, opening)
            yield from self.prose(prose)
            prose = []
            yield from self.directive(opening, body)
        yield from self.prose(prose)

    def prose(self, lines: list[str]) -> list[str]:
        """Lines of text; roles and links may run from one line to the next."""
        return self.inline("\n".join(lines)).split("\n") if lines else []

    def directive(self, opening: re.Match[str], body: list[str]) -> list[str]:
        """A fenced block as JupyterLab can show it."""
        name, rest = opening["name"], opening["rest"].strip()
        last = opening["mark"]
        if not name and opening["mark"][0] != ":":
            return [opening[0], *body, opening["indent"] + last]  # code, as it is
        if name in CODE_DIRECTIVES:
            _, code = options_of(body)
            return [f"```{rest if name != 'try' else 'python'}".rstrip(), *code, "```"]
        if name == "math":
            return [opening[0], *body, opening["indent"] + last]
        if name in NATIVE_DIRECTIVES:
            head = f"{opening['indent']}{last}{{{name}}} {self.inline(rest)}".rstrip()
            given, inner = options_of(body)
            return [head, *given, *self.blocks(inner), opening["indent"] + last]
        if name == "quiz":
            return self.quiz(body)
        if name == "drawing":
            return self.drawing(rest)
        if name in PICTURE_DIRECTIVES:
            return self.picture(rest, body)
        raise NotShownError(
            f"{self.chapter}: a copy cannot show {{{name}}}; teach tools/copies.py what it becomes"
        )

    def quiz(self, body: list[str]) -> list[str]:
        """The question, and under each answer a fold that says whether it is right and why."""
        asked, answers = question_of(body)
        lines = ["**Question.** " + self.inline("\n".join(asked).strip()), ""]
        for right, words, why in answers:
            verdict = "**Right.**" if right else "**No.**"
            lines += [*fold_of(self.inline(words), [verdict + " " + self.inline(why)]), ""]
        return lines

    def drawing(self, name: str) -> list[str]:
        """A drawing of the library as a picture that the cell carries."""
        drawn = drawings.DRAWINGS[name]
        svg = to_svg(drawn.draw(), alt=drawn.alt, prefix=f"drawing-{name.replace('_', '-')}")
        return ["", self.attach(f"{name}.svg", svg.encode(), drawn.alt), ""]

    def picture(self, target: str, body: list[str]) -> list[str]:
        """A picture from a file, with its caption below it."""
        given, caption = options_of(body)
        alt = next((o[len(":alt:") :].strip() for o in given if o.startswith(":alt:")), "")
        path = self.folder / target
        return ["", self.attach(path.name, path.read_bytes(), alt), "", *self.blocks(caption)]

    def attach(self, name: str, content: bytes, alt: str) -> str:
        """Put a picture into the cell, and return the Markdown that shows it."""
        kind = mimetypes.guess_type(name)[0] or "image/png"
        self.attachments[name] = {kind: base64.b64encode(content).decode("ascii")}
        return f"![{escape(alt)}](attachment:{name})"

    # --- within a line --------------------------------------------------------------------------

    def inline(self, text: str) -> str:
        """Text with its roles and links looked up; spans of code stay."""
        # Spans first, each hidden from the search for links behind a character of no language.
        hidden: list[str] = []

        def hide(match: re.Match[str]) -> str:
            hidden.append(self.role(match) if match["role"] else match[0])
            return f"\ue000{len(hidden) - 1}\ue001"

        text = SPAN.sub(hide, text)
        text = LINK.sub(self.link, text)
        return re.sub("\ue000(\\d+)\ue001", lambda match: hidden[int(match[1])], text)

    def role(self, match: re.Match[str]) -> str:
        """What a role says, as text or a link."""
        role, text = match["role"], match["text"]
        if role in NATIVE_ROLES:
            return match[0]
        known: Mapping[str, Callable[[str], str]] = {
            "fact": self.fact,
            "glue:text": self.glue,
            "glue": self.glue,
            "cite:p": self.cite,
            "cite:t": self.cite,
            "cite": self.cite,
            "ref": self.ref,
            "numref": self.ref,
            "doc": self.doc,
        }
        if role in known:
            return known[role](text)
        if role.startswith("py:"):
            return f"`{TITLED.sub(lambda m: m['text'], text).lstrip('~')}`"
        raise NotShownError(
            f"{self.chapter}: a copy cannot show {{{role}}}; teach tools/copies.py what it becomes"
        )

    def fact(self, key: str) -> str:
        """A sourced number, linked to its row in the table of facts."""
        known = facts.get(key)
        source = self.course.sources.get(known.source)
        note = f"{known.label}. {label_of(source) if source else known.source}, {known.where}"
        anchor = "fact-" + key.replace(".", "-").replace("_", "-")
        return in_the_book(escape(known.text), "book/facts", anchor, note)

    def glue(self, text: str) -> str:
        """A number that a cell of the stored notebook has glued."""
        page, _, key = text.rpartition("::")
        key, _, form = key.partition(":")
        glued = glued_in(read(self.course.root / page)) if page else self.glued
        if key not in glued:
            raise NotShownError(f"{self.chapter}: no cell glues {key!r}; run `make notebooks`")
        value = glued[key]
        return escape(format(ast.literal_eval(value), form) if form else unquoted(value))

    def cite(self, keys: str) -> str:
        """The labels of sources, as in the bibliography, each linked to where it can be read."""
        sources = self.course.sources
        links = []
        for key in (key.strip() for key in keys.split(",")):
            if key not in sources:
                raise NotShownError(f"{self.chapter}: {key!r} is not in book/references.bib")
            label, address = (
                escape(label_of(sources[key])),
                sphinx_extensions.load("citations").address_of(sources[key]),
            )
            links.append(
                f"[{label}]({address})" if address else in_the_book(label, "book/bibliography")
            )
        return f"({'; '.join(links)})"

    def ref(self, text: str) -> str:
        """A reference to a label, as a link to the copy or the page that has it."""
        titled = TITLED.fullmatch(text)
        label = titled["target"] if titled else text
        place = self.course.labels.get(label)
        if place is None:
            raise NotShownError(f"{self.chapter}: nothing is labeled {label!r}")
        words = self.inline(titled["text"] if titled else place.words)
        return self.to(place.chapter, words, label)

    def doc(self, text: str) -> str:
        """A reference to a page by its name."""
        titled = TITLED.fullmatch(text)
        chapter = self.resolve(titled["target"] if titled else text)
        words = titled["text"] if titled else self.course.title(chapter)
        return self.to(chapter, words)

    def link(self, match: re.Match[str]) -> str:
        """A link of Markdown, or a picture, to a file of the course."""
        text, target = match["text"], match["target"]
        if re.match(r"[a-z]+:", target) or target.startswith("/"):
            return match[0]
        path, _, anchor = target.partition("#")
        if match["picture"]:
            file = self.folder / path
            return self.attach(file.name, file.read_bytes(), text)
        if not path:
            known = self.course.labels.get(anchor)
            return self.to(known.chapter, text, anchor) if known else match[0]
        chapter = self.resolve(re.sub(r"\.(md|ipynb)$", "", path))
        return self.to(chapter, text or self.course.title(chapter), anchor)

    def resolve(self, target: str) -> str:
        """The chapter that a relative path leads to; raise where there is none."""
        found = self.folder.joinpath(target).resolve()
        chapter = found.relative_to(self.course.root.resolve()).as_posix()
        if not any((self.course.root / f"{chapter}{end}").is_file() for end in (".md", ".ipynb")):
            raise NotShownError(f"{self.chapter}: there is no page {target!r}")
        return chapter

    def to(self, chapter: str, words: str, anchor: str = "") -> str:
        """A link to a chapter: within this copy, to another copy, or to a page of the book."""
        if chapter == self.chapter and anchor:
            return f"[{words}](#{anchor})"
        if home := home_of(chapter):
            up = "../" * home_of(self.chapter).count("/")
            return f"[{words}]({quote(up + home)})"
        return in_the_book(words, chapter, make_id(anchor))


# --- a whole notebook ----------------------------------------------------------------------------


def fold(cell: NotebookNode) -> None:
    """Fold the code of a cell whose code the book folds or leaves out."""
    if {"hide-input", "remove-input", "remove-cell"} & set(cell.metadata.get("tags", [])):
        cell.metadata.setdefault("jupyter", {})["source_hidden"] = True


def run_to_the_end(notebook: NotebookNode) -> None:
    """Let Run All pass by what is not written yet, and say at its end what that is.

    JupyterLab goes on after a cell with the tag ``raises-exception``. A check still raises: that is
    how it tells a learner, ``make progress`` and a grader that an exercise does not pass.
    """
    functions: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        known = cell.metadata.get("nbgrader", {})
        if known.get("solution"):
            functions += re.findall(r"^def (\w+)", cell.source, re.M)
        if known.get("solution") or known.get("grade") or not known:
            tags = cell.metadata.setdefault("tags", [])
            tags += [] if "raises-exception" in tags else ["raises-exception"]
    names = ", ".join(f'"{name}"' for name in functions)
    cell = nbformat.v4.new_code_cell(LEFT.format(names=names), id="what-is-left")  # type: ignore[no-untyped-call]
    cell.metadata["jupyter"] = {"source_hidden": True}
    notebook.cells.append(cell)


def read(path: Path) -> NotebookNode:
    """The notebook of a chapter, given without its ending."""
    notebook: NotebookNode = nbformat.read(path.with_name(f"{path.name}.ipynb"), as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def glued_in(notebook: NotebookNode) -> dict[str, str]:
    """What the cells of a stored notebook have glued, by its key."""
    found = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            if name:
                for kind, value in output.data.items():
                    if kind.endswith("text/plain"):
                        found[name] = value
    return found


# --- what a copy is made from --------------------------------------------------------------------


def home_of(chapter: str) -> str:
    """Where the copy of a chapter lies in the workspace; empty for a page of the book alone."""
    if chapter.startswith(ASSIGNMENTS):
        return f"assignments/{chapter.rpartition('/')[2]}.ipynb"
    return f"{chapter.rpartition('/')[2]}.ipynb" if chapter.startswith("notebooks/") else ""


def label_of(source: Entry) -> str:
    """The label of a source, as the bibliography of the book has it."""
    return str(sphinx_extensions.load("citations").label_of(source))


def in_the_book(words: str, chapter: str, anchor: str = "", note: str = "") -> str:
    """A link to a page of the book, as HTML, for Markdown cannot ask for a tab of its own."""
    address = f"{BOOK}{quote(chapter)}.html" + (f"#{anchor}" if anchor else "")
    title = f' title="{html.escape(note)}"' if note else ""
    return f'<a href="{address}" target="_blank"{title}>{html_of(words)}</a>'


# --- the grammar ---------------------------------------------------------------------------------


def fenced(lines: list[str], opening: re.Match[str]) -> tuple[list[str], list[str]]:
    """What stands between a fence and its end, and what follows the end."""
    mark = opening["mark"]
    end = re.compile(rf" *{re.escape(mark[0])}{{{len(mark)},}} *")
    for number, line in enumerate(lines[1:], start=1):
        if end.fullmatch(line):
            return lines[1:number], lines[number + 1 :]
    return lines[1:], []


def options_of(body: Iterable[str]) -> tuple[list[str], list[str]]:
    """The options at the head of a directive, and what stands below them."""
    lines = list(body)
    count = next((n for n, line in enumerate(lines) if not OPTION.match(line)), len(lines))
    return lines[:count], lines[count:]


def question_of(body: list[str]) -> tuple[list[str], list[tuple[bool, str, str]]]:
    """A question's lines, and each answer: whether it is right, its words, and the explanation."""
    starts = [n for n, line in enumerate(body) if re.match(r"- \[[ x]\] ", line)]
    answers = []
    for start, end in zip(starts, [*starts[1:], len(body)], strict=True):
        item = [body[start][6:], *(line[2:] for line in body[start + 1 : end])]
        words, _, why = "\n".join(item).partition("\n\n")
        answers.append((body[start][3] == "x", words.strip(), why.strip()))
    return body[: starts[0]], answers


def fold_of(title: str, body: list[str]) -> list[str]:
    """What JupyterLab shows as something to open."""
    return [f"::::{{dropdown}} {' '.join(title.split())}", *body, "::::"]


def escape(text: str) -> str:
    """Text that Markdown shows as it is, a dollar sign included."""
    return SPECIAL.sub(r"\\\1", text)


def html_of(text: str) -> str:
    """A line of Markdown as it may stand in a summary, where Markdown is not read."""
    text = re.sub(r"\\([^\w\s])", r"\1", text)
    text = LINK.sub(lambda match: match["text"], text)
    text = html.escape(text, quote=False)
    text = re.sub(r"`+(.+?)`+", r"<code>\1</code>", text)
    return " ".join(text.split())


def unquoted(value: str) -> str:
    """A glued text without the quotation marks of its ``repr``."""
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value
