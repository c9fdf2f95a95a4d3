"""The pages: a frame that asks nobody for anything, and a learner's notebook in it."""

import html
from collections.abc import Sequence
from typing import Any

import bleach
import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter
from pygments.token import STANDARD_TYPES

from slingshot_grader.assignment import Assignment
from slingshot_grader.notebook import Cell
from slingshot_grader.outcome import LARGEST_PAGE, clean
from slingshot_grader.session import Run

LONGEST_LINE = 2_000
MOST_LINES = 400
LONGEST_TEXT = 25_000
MOST_SHOWN = 400_000  # letters of all cells and outputs of a notebook
MOST_PICTURES = 5_000_000
MOST_CELLS = 300

TAGS = frozenset(
    [
        "a",
        "abbr",
        "b",
        "blockquote",
        "br",
        "code",
        "del",
        "div",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "li",
        "ol",
        "p",
        "pre",
        "span",
        "strong",
        "sub",
        "sup",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
COLORS = frozenset(STANDARD_TYPES.values())

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #0a6b4b; --bad: #a33a22;
  --passed: #0072b2; --wrong: #b34f00; --not-written: #6e6e6e; --stopped: #a33a22;
  --unreadable: #4a4a4a; }
@media (prefers-color-scheme: dark) { :root { --good: #4fd1a5; --bad: #ff9a82; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: break-word; }
td.points { white-space: nowrap; } td.outcome { overflow-wrap: normal; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid var(--line); border-radius: .3rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
p + ul { margin-top: -.6rem; padding-left: 1.2rem; }
.prompt, .jp-InputPrompt, .jp-OutputPrompt { display: none; }
.passed { color: var(--good); font-weight: 600; } .failed { color: var(--bad); font-weight: 600; }
.notebook { border-left: .25rem solid var(--line); padding-left: .8rem; }
.notebook :is(h1, h2, h3, h4, h5, h6) { font-size: 1.05rem; }
.own { border-left: .25rem solid var(--passed); padding-left: .8rem; }
.bar { display: flex; height: 1.5rem; margin: .2rem 0 .6rem; overflow: hidden; }
.bar span { color: #fff; font-size: .8rem; line-height: 1.5rem; text-align: center; min-width: 0; }
.key span { display: inline-block; margin-right: 1rem; white-space: nowrap; }
.key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .3rem; }
.columns { display: flex; align-items: flex-end; height: 9rem; gap: 2px; }
.columns div { flex: 1; display: flex; flex-direction: column; justify-content: flex-end;
  height: 100%; text-align: center; font-size: .75rem; min-width: 0; }
.columns i { display: block; background: var(--passed); }
img { max-width: 100%; background: #fff; }
"""
CODE = HtmlFormatter(style="default").get_style_defs(".highlight")
CODE_DARK = HtmlFormatter(style="github-dark").get_style_defs(".highlight")


def frame(title: str, body: str) -> str:
    """A whole page that asks no other host for anything, and runs nothing."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>{STYLE}\n{CODE}\n"
        f"@media (prefers-color-scheme: dark) {{ {CODE_DARK} }}</style></head>"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def breakable(name: str) -> str:
    """A name that may be broken where its words end."""
    return html.escape(name).replace("_", "_<wbr>")


# --- a notebook as it ran --------------------------------------------------------------------


def render(cells: Sequence[Cell], runs: Sequence[Run], assignment: Assignment) -> str:
    """What the learner wrote and what it showed, as HTML without anything active in it.

    Text that the student edition has, too, is left out. What is shown is bounded altogether; raise
    ``ValueError`` for a page that is too large even so: half of one would not be closed.
    """
    budget = Budget()
    ran = {run.number: run for run in runs}
    shown, number = list[NotebookNode](), 0
    for cell in cells:
        number += cell.kind == "code"
        if len(shown) >= MOST_CELLS or budget.left <= 0:
            shown.append(markdown("*The rest of the notebook is not shown.*"))
            break
        if cell.kind != "code":
            if cell.source.strip() and cell.source not in assignment.texts:
                shown.append(markdown(f"**You wrote:**\n\n{budget.cut(cell.source)}"))
        elif number in ran:
            run = ran[number]
            outputs = outputs_of(run, budget)
            shown.append(nbformat.v4.new_code_cell(budget.cut(run.source), outputs=outputs))  # type: ignore[no-untyped-call]
    for place, each in enumerate(shown):
        each["id"] = f"cell-{place}"  # nbformat's own differ each time, and so would the page
    notebook = nbformat.v4.new_notebook(cells=shown)  # type: ignore[no-untyped-call]
    exporter = HTMLExporter(template_name="basic", sanitize_html=True)  # type: ignore[no-untyped-call]
    exporter.exclude_anchor_links = True  # they lead to places that are not kept
    exporter.register_filter("clean_html", harmless)  # type: ignore[no-untyped-call]
    body: str = exporter.from_notebook_node(notebook)[0]
    if len(body) > LARGEST_PAGE:
        raise ValueError(f"a page of {len(body)} letters")
    return clean(body)


def harmless(text: object) -> str:
    """HTML with the tags of plain text alone; nbconvert's own filter knows no paragraph.

    A class is kept where it colors code, and nowhere else: with one of this page's own a learner's
    text could look like the instructor's.
    """
    html_ = text.decode() if isinstance(text, bytes) else str(text)
    return str(bleach.clean(html_, tags=TAGS, attributes=may_stay))


def may_stay(tag: str, name: str, value: str) -> bool:
    """Whether an attribute does nothing but color code or lead to a page."""
    if name == "class":
        colors = tag == "span" and value in COLORS
        return colors or (tag == "div" and value.strip().startswith("highlight"))
    return tag == "a" and name == "href"


def markdown(text: str) -> NotebookNode:
    """A cell of text."""
    cell: NotebookNode = nbformat.v4.new_markdown_cell(text)  # type: ignore[no-untyped-call]
    return cell


class Budget:
    """How much of a notebook is still to be shown."""

    def __init__(self) -> None:
        """Begin with all of it."""
        self.left = MOST_SHOWN
        self.pictures = MOST_PICTURES

    def cut(self, text: str) -> str:
        """A text, cut in its lines, in their number and in its length."""
        lines = clean(text)[: 4 * LONGEST_TEXT].split("\n")
        short = [
            line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} [cut]"
            for line in lines[:MOST_LINES]
        ]
        if len(lines) > MOST_LINES:
            short.append("[more lines are not shown]")
        kept = "\n".join(short)[: max(0, min(LONGEST_TEXT, self.left))]
        self.left -= len(kept)
        return kept


def outputs_of(run: Run, budget: Budget) -> list[NotebookNode]:
    """The outputs of a cell, and why it was stopped."""
    outputs = [rebuild(item, budget) for item in run.outputs]
    if run.stopped:
        text = f"This cell {run.stopped}. The rest was run without it."
        outputs.append(output("error", ename="Stopped", evalue=run.stopped, traceback=[text]))
    return outputs


def rebuild(item: dict[str, Any], budget: Budget) -> NotebookNode:
    """One output (``session.read_output``): text and pictures. HTML and scripts have no way in."""
    if "stream" in item:
        name = "stderr" if item["stream"] == "stderr" else "stdout"
        return output("stream", name=name, text=budget.cut(item["text"]))
    if "error" in item:
        name, value, trace = map(budget.cut, item["error"])
        return output("error", ename=name, evalue=value, traceback=trace.split("\n"))
    (shown,) = item.values()
    data = {"text/plain": budget.cut(shown["text/plain"])}
    picture = shown.get("image/png", "")
    if 0 < len(picture) <= budget.pictures:
        budget.pictures -= len(picture)
        data["image/png"] = picture
    return output("display_data", data=data)


def output(kind: str, **content: Any) -> NotebookNode:  # noqa: ANN401
    """An output of a cell."""
    made: NotebookNode = nbformat.v4.new_output(kind, **content)  # type: ignore[no-untyped-call]
    return made
