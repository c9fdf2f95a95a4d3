"""A learner's page: points, what was decided by hand, what each check says, and the notebook."""

import html

from slingshot_grader.page import breakable, frame
from slingshot_grader.standing import Part, Standing

NONE_YET = "No grade yet."
WHAT_TO_DO = (
    "The remarks say why. Open your notebook in JupyterLab, save it, and hand that file in again; "
    "if it does not open, or the deadline is over, ask your instructor."
)


def feedback(standing: Standing) -> str:
    """The whole page."""
    submission = standing.submission
    title = f"{submission.assignment or 'Submission'}: {submission.learner}"
    body = [f"<h1>{html.escape(title)}</h1>", *summary_of(standing)]
    remarks = [*submission.remarks, *standing.report.remarks, *standing.remarks]
    if standing.comment:
        body.append(f'<div class="own"><p>{paragraphs(standing.comment)}</p></div>')
    if remarks:
        items = "".join(f"<li>{html.escape(remark)}</li>" for remark in remarks)
        body.append(f"<h2>Remarks</h2><ul>{items}</ul>")
    body.append("<h2>Exercises</h2><table><thead><tr><th>Exercise</th><th>Points</th>")
    body.append("<th>Outcome</th></tr></thead><tbody>")
    body += [row(part, graded=standing.has_grade) for part in standing.parts]
    body.append("</tbody></table>")
    told = [part for part in standing.parts if part.message or part.comment]
    if told:
        body.append("<h2>What is said about them</h2>")
    for part in told:
        body.append(f"<h3>{breakable(part.name)}</h3>")
        if part.comment:
            body.append(f'<div class="own"><p>{paragraphs(part.comment)}</p></div>')
        if part.message:
            body.append(f"<pre>{html.escape(part.message)}</pre>")
    if standing.report.notebook:
        # Set apart: what a learner writes there is no word of the instructor's.
        body.append("<h2>Your notebook as it ran</h2>")
        body.append(f'<div class="notebook">{standing.report.notebook}</div>')
    return frame(title, "\n".join(body))


def page_name(learner: str, assignment: str, several: bool) -> str:
    """The name of a learner's page; it names the assignment where the class has several."""
    return f"{learner} - {assignment or 'no assignment'}.html" if several else f"{learner}.html"


def summary_of(standing: Standing) -> list[str]:
    """The points in a sentence, and whatever has changed them."""
    if standing.excused:
        return ["<p><strong>Excused.</strong></p>"]
    points = f"{standing.points:g} of {standing.most:g} points." if standing.has_grade else NONE_YET
    lines = [f"<p><strong>{points}</strong> Status: {html.escape(standing.status)}.</p>"]
    if not standing.has_grade:
        lines.append(f"<p>{WHAT_TO_DO}</p>")
    if standing.fixed is not None:
        lines.append("<p>These points were given by the instructor.</p>")
    elif standing.penalty and standing.has_grade:
        days = "1 day" if standing.days_late == 1 else f"{standing.days_late} days"
        lines.append(
            f"<p>{standing.before_penalty:g} points for the answers, less "
            f"{standing.penalty:g} for handing in {days} late.</p>"
        )
    elif standing.days_late or standing.submission.late:
        lines.append("<p>Handed in late.</p>")
    if standing.open_parts:
        names = ", ".join(map(html.escape, standing.open_parts))
        lines.append(f"<p>Still to be graded by hand: {names}.</p>")
    return lines


def row(part: Part, *, graded: bool = True) -> str:
    """A line of the table of exercises; what could not be read is not worth zero."""
    kind = "passed" if part.points == part.most and not part.excused else "failed"
    if part.points is None or part.excused or part.outcome == "by the instructor":
        kind = ""
    points = "–" if part.points is None or not graded else f"{part.points:g}"
    return (
        f'<tr><th scope="row">{breakable(part.name)}</th>'
        f'<td class="points">{points} of {part.most:g}</td>'
        f'<td class="outcome"><span class="{kind}">{html.escape(part.outcome)}</span></td></tr>'
    )


def paragraphs(text: str) -> str:
    """A comment of the instructor's as HTML."""
    return html.escape(text).replace("\n", "<br>")
