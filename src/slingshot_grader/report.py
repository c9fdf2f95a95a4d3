"""What the instructor and the learner get: the table, a page for each learner, and the summary."""

import base64
import csv
import html
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from slingshot.pages.figures import PALETTE
from slingshot_grader.assignment import Assignment, Test
from slingshot_grader.examine import Grade, Report
from slingshot_grader.files import Submission
from slingshot_grader.session import Run

OUTCOMES = {
    "passed": PALETTE["blue"],
    "wrong": PALETTE["orange"],
    "not written": "#8a8a8a",
    "stopped": PALETTE["red"],
    "unreadable": "#5c5c5c",
}
COLUMNS = ("learner", "assignment", "status", "points", "out of")

Row = tuple[Submission, Report]

# --- the table -------------------------------------------------------------------------------


def write_grades(path: Path, rows: Sequence[Row], assignments: dict[str, Assignment]) -> None:
    """Write ``grades.csv``: a line for each submission, a column for each exercise.

    It begins with a byte order mark, without which spreadsheets take UTF-8 for something else.
    """
    names = {submission.assignment for submission, _ in rows}
    used = [assignment for name, assignment in assignments.items() if name in names]
    tests = [test.grade_id.removesuffix("-test") for each in used for test in each.tests]
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow([*COLUMNS, *tests, "remarks", "seconds", "file"])
        for submission, report in rows:
            points = {g.grade_id.removesuffix("-test"): g.points for g in report.grades}
            known = assignments.get(submission.assignment)
            table.writerow(
                [
                    no_formula(submission.learner),
                    submission.assignment,
                    report.status,
                    f"{report.points:g}",
                    f"{known.points:g}" if known else "",
                    *(f"{points[test]:g}" if test in points else "" for test in tests),
                    no_formula("; ".join([*submission.remarks, *report.remarks])),
                    f"{report.seconds:g}",
                    no_formula(str(submission.path)),
                ]
            )


def no_formula(text: str) -> str:
    """Keep a spreadsheet from running a learner's text: a sign like = would start a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


# --- a page for a learner ----------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #0a6b4b; --bad: #a33a22; }
@media (prefers-color-scheme: dark) { :root { --good: #4fd1a5; --bad: #ff9a82; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid var(--line); border-radius: .3rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
th { overflow-wrap: normal; } td:nth-child(2) { white-space: nowrap; }
p + ul { margin-top: -.6rem; padding-left: 1.2rem; }
.prompt, .jp-InputPrompt, .jp-OutputPrompt, .anchor-link { display: none; }
.passed { color: var(--good); font-weight: 600; } .failed { color: var(--bad); font-weight: 600; }
img { max-width: 100%; background: #fff; }
"""
CODE = HtmlFormatter(style="default").get_style_defs(".highlight")
CODE_DARK = HtmlFormatter(style="github-dark").get_style_defs(".highlight")


def page(title: str, body: str) -> str:
    """A whole page that asks no other host for anything."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>{STYLE}\n{CODE}\n"
        f"@media (prefers-color-scheme: dark) {{ {CODE_DARK} }}</style></head>"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def feedback(submission: Submission, report: Report, assignment: Assignment) -> str:
    """The learner's page: points, what each failure says, and the notebook as it ran."""
    head = [f"<h1>{html.escape(assignment.name)}: {html.escape(submission.learner)}</h1>"]
    head.append(f"<p><strong>{report.points:g} of {assignment.points:g} points.</strong> ")
    head.append(f"Status: {html.escape(report.status)}.</p>")
    remarks = [*submission.remarks, *report.remarks]
    if remarks:
        items = "".join(f"<li>{html.escape(remark)}</li>" for remark in remarks)
        head.append(f"<h2>Remarks</h2><ul>{items}</ul>")
    head.append("<h2>Exercises</h2><table><thead><tr><th>Exercise</th><th>Points</th>")
    head.append("<th>Outcome</th></tr></thead><tbody>")
    head += [grade_row(grade) for grade in report.grades]
    head.append("</tbody></table>")
    messages = [grade for grade in report.grades if grade.message]
    if messages:
        head.append("<h2>What the checks say</h2>")
    for grade in messages:
        head.append(f"<h3>{breakable(grade.exercise)}</h3><pre>{html.escape(grade.message)}</pre>")
    if report.cells:
        head.append("<h2>Your notebook as it ran</h2>")
        head.append(render(report.cells))
    return page(f"{assignment.name}: {submission.learner}", "\n".join(head))


def grade_row(grade: Grade) -> str:
    """A line of the table of exercises."""
    kind = "passed" if grade.outcome == "passed" else "failed"
    return (
        f'<tr><th scope="row">{breakable(grade.exercise)}</th>'
        f"<td>{grade.points:g} of {grade.most:g}</td>"
        f'<td><span class="{kind}">{html.escape(grade.outcome)}</span></td></tr>'
    )


def breakable(name: str) -> str:
    """A name that may be broken where its words end."""
    return html.escape(name).replace("_", "_<wbr>")


def outputs_of(run: Run) -> list[NotebookNode]:
    """The outputs of a cell, rebuilt piece by piece from what the worker said they were."""
    outputs = []
    for item in run.outputs:
        try:
            outputs.append(rebuild(item))
        except (KeyError, TypeError, ValueError):
            continue
    if run.stopped:
        text = f"This cell {run.stopped}. The rest was run without it."
        outputs.append(output("error", ename="Stopped", evalue=run.stopped, traceback=[text]))
    return outputs


def rebuild(item: Any) -> NotebookNode:  # noqa: ANN401 a stranger's JSON
    """One output; text stays text and a picture must be one. HTML and scripts have no way in."""
    if "stream" in item:
        name = "stderr" if item["stream"] == "stderr" else "stdout"
        return output("stream", name=name, text=str(item["text"])[:25_000])
    if "error" in item:
        name, value, trace = (str(part) for part in item["error"])
        return output("error", ename=name, evalue=value, traceback=trace[:25_000].split("\n"))
    shown = item.get("result") or item.get("display")
    data = {"text/plain": str(shown.get("text/plain", ""))[:25_000]}
    if picture := shown.get("image/png"):
        base64.b64decode(picture, validate=False)
        data["image/png"] = re.sub(r"[^A-Za-z0-9+/=]", "", picture)
    return output("display_data", data=data)


def output(kind: str, **content: Any) -> NotebookNode:  # noqa: ANN401
    """An output of a cell."""
    made: NotebookNode = nbformat.v4.new_output(kind, **content)  # type: ignore[no-untyped-call]
    return made


def render(cells: Sequence[Run]) -> str:
    """The cells as HTML, without anything active in it."""
    shown = [
        nbformat.v4.new_code_cell(cell.source, outputs=outputs_of(cell))  # type: ignore[no-untyped-call]
        for cell in cells
    ]
    notebook = nbformat.v4.new_notebook(cells=shown)  # type: ignore[no-untyped-call]
    exporter = HTMLExporter(template_name="basic", sanitize_html=True)  # type: ignore[no-untyped-call]
    body: str = exporter.from_notebook_node(notebook)[0]
    return body


# --- the summary -----------------------------------------------------------------------------


def write_summary(folder: Path, rows: Sequence[Row], assignments: dict[str, Assignment]) -> None:
    """Write ``summary.html`` and a picture for each assignment that was handed in."""
    parts = ["<h1>Summary</h1>"]
    for name, assignment in assignments.items():
        reports = [report for submission, report in rows if submission.assignment == name]
        if not reports:
            continue
        picture = draw_distribution(assignment, reports)
        (folder / f"distribution-{name}.png").write_bytes(picture)
        text = base64.b64encode(picture).decode("ascii")
        parts.append(f"<h2>{html.escape(name)}: {len(reports)} submissions</h2>")
        alt = html.escape(describe_distribution(assignment, reports), quote=True)
        parts.append(f'<img src="data:image/png;base64,{text}" alt="{alt}">')
        parts.append(mistakes(assignment, reports))
    (folder / "summary.html").write_text(page("Summary", "\n".join(parts)), "utf-8")


def outcomes(test: Test, reports: Sequence[Report]) -> Counter[str]:
    """How often each outcome occurred for a test."""
    return Counter(g.outcome for r in reports for g in r.grades if g.grade_id == test.grade_id)


def mistakes(assignment: Assignment, reports: Sequence[Report]) -> str:
    """For each exercise who passed, and what the checks said most often to the others."""
    lines = []
    for test in assignment.tests:
        said = Counter(
            grade.mistake
            for report in reports
            for grade in report.grades
            if grade.grade_id == test.grade_id and grade.outcome == "wrong"
        )
        passed = f"{outcomes(test, reports)['passed']} of {len(reports)} passed"
        lines.append(f"<h3>{breakable(test.exercise)}: {passed}</h3>")
        items = "".join(
            f"<li>{number} × {html.escape(text[:300])}</li>" for text, number in said.most_common(5)
        )
        if items:
            lines.append(f"<p>Most frequent mistakes:</p><ul>{items}</ul>")
    return "".join(lines)


def describe_distribution(assignment: Assignment, reports: Sequence[Report]) -> str:
    """The picture in words."""
    shares = [
        f"{test.exercise} {outcomes(test, reports)['passed']} of {len(reports)}"
        for test in assignment.tests
    ]
    return f"Bars by exercise. Passed: {', '.join(shares)}. Below, a histogram of all points."


def draw_distribution(assignment: Assignment, reports: Sequence[Report]) -> bytes:
    """Bars of outcomes for each exercise above a histogram of the totals, as PNG."""
    figure = Figure(figsize=(7, 2.6 + 0.4 * len(assignment.tests)), layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [0.4 * len(assignment.tests) + 0.6, 1.6]
    above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": ratios})
    for row, test in enumerate(assignment.tests):
        counts, left = outcomes(test, reports), 0
        for outcome, color in OUTCOMES.items():
            above.barh(row, counts[outcome], left=left, color=color, height=0.7)
            if counts[outcome]:
                middle = left + counts[outcome] / 2
                above.text(middle, row, str(counts[outcome]), ha="center", va="center", color="w")
            left += counts[outcome]
    above.set_yticks(range(len(assignment.tests)), [test.exercise for test in assignment.tests])
    above.set(ylim=(len(assignment.tests) - 0.4, -0.6), xlim=(0, len(reports)), xlabel="learners")
    above.xaxis.get_major_locator().set_params(integer=True)
    seen = {grade.outcome for report in reports for grade in report.grades}
    handles = [Patch(color=OUTCOMES[name], label=name) for name in OUTCOMES if name in seen]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False)
    totals = Counter(report.points for report in reports)
    below.bar(list(totals), list(totals.values()), width=0.8, color=PALETTE["blue"])
    below.set(xlim=(-0.6, assignment.points + 0.6), xlabel="points in all", ylabel="learners")
    below.yaxis.get_major_locator().set_params(integer=True)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()
