"""The summary of a class: for each exercise who passed, and what the checks said most often."""

import html
import statistics
from collections import Counter
from collections.abc import Sequence

from slingshot_grader.assignment import Assignment, Test
from slingshot_grader.outcome import OUTCOMES
from slingshot_grader.page import breakable, frame
from slingshot_grader.similar import Pair
from slingshot_grader.standing import Standing

LONGEST_MISTAKE = 160
MOST_SHOWN = 40


def summary(
    standings: Sequence[Standing],
    assignments: dict[str, Assignment],
    notes: Sequence[str] = (),
    similar: Sequence[Pair] = (),
) -> str:
    """The whole page."""
    body = ["<h1>Summary</h1>"]
    if notes:
        body.append(listed("Look at these", [note[:300] for note in notes]))
    for name, assignment in assignments.items():
        mine = [each for each in standings if each.submission.assignment == name]
        if any(each.report.status != "missing" for each in mine):
            body += of_assignment(assignment, mine)
    if similar:
        body.append("<h2>Answers that have much in common</h2>")
        body.append("<p>A hint to look, and no proof: a short answer has few forms.</p><ul>")
        for pair in similar[:MOST_SHOWN]:
            body.append(
                f"<li>{html.escape(pair.first)} and {html.escape(pair.second)}: "
                f"{breakable(pair.exercise)}, {pair.share:.0%}</li>"
            )
        body.append("</ul>")
    return frame("Summary", "\n".join(body))


def listed(title: str, items: Sequence[str]) -> str:
    """A list with its title, cut where it is long."""
    shown = "".join(f"<li>{html.escape(item)}</li>" for item in items[:MOST_SHOWN])
    more = f"<p>… and {len(items) - MOST_SHOWN} more</p>" if len(items) > MOST_SHOWN else ""
    return f"<h2>{html.escape(title)}</h2><ul>{shown}</ul>{more}"


def of_assignment(assignment: Assignment, standings: Sequence[Standing]) -> list[str]:
    """The part of the page about an assignment."""
    graded = [each for each in standings if each.report.grades]
    statuses = Counter(each.status for each in standings)
    counts = ", ".join(f"{number} {status}" for status, number in statuses.items())
    lines = [f"<h2>{breakable(assignment.name)}: {len(standings)} learners</h2>"]
    lines.append(f"<p>{html.escape(counts)}.</p>")
    for status, title in (("missing", "Missing"), ("not graded", "Not graded")):
        if who := [each.submission.learner for each in standings if each.status == status]:
            lines.append(listed(f"{title}: {len(who)}", who).replace("h2>", "h3>"))
    if not graded:
        return lines
    totals = [each.points for each in graded if each.has_grade and not each.excused]
    if totals:
        lines.append(
            f"<p>Points: mean {statistics.mean(totals):.1f}, median {statistics.median(totals):g} "
            f"of {assignment.points:g}.</p>"
        )
        lines.append(histogram(totals, assignment.points))
    lines.append(key())
    for test in assignment.tests:
        lines += of_exercise(test, graded)
    return lines


def outcomes(test: Test, standings: Sequence[Standing]) -> Counter[str]:
    """How often each outcome occurred for a test."""
    return Counter(
        grade.outcome
        for each in standings
        for grade in each.report.grades
        if grade.grade_id == test.grade_id
    )


def of_exercise(test: Test, standings: Sequence[Standing]) -> list[str]:
    """A bar of outcomes, what was said most often, and how well it tells learners apart."""
    counts, number = outcomes(test, standings), len(standings)
    lines = [f"<h3>{breakable(test.exercise)}: {counts['passed']} of {number} passed</h3>"]
    words = ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if counts[name])
    spans = "".join(
        f'<span style="width:{100 * counts[name] / number:.2f}%;background:var(--{color(name)})">'
        f"{counts[name]}</span>"
        for name in OUTCOMES
        if counts[name]
    )
    lines.append(f'<div class="bar" role="img" aria-label="{html.escape(words)}">{spans}</div>')
    if (tells := separation(test, standings)) is not None:
        lines.append(f"<p>Correlation with the points for all other exercises: {tells:.2f}</p>")
    said = Counter(
        grade.mistake
        for each in standings
        for grade in each.report.grades
        if grade.grade_id == test.grade_id and grade.outcome == "wrong"
    )
    if said:
        items = "".join(
            f"<li>{count} × {html.escape(cut(text))}</li>" for text, count in said.most_common(5)
        )
        lines.append(f"<p>Most frequent mistakes:</p><ul>{items}</ul>")
    return lines


def separation(test: Test, standings: Sequence[Standing]) -> float | None:
    """Correlation of an exercise with the rest of the points, ``None`` where one is fixed."""
    here, rest = [], []
    for each in standings:
        if each.report.status == "unreadable":
            continue
        points = {grade.grade_id: grade.points for grade in each.report.grades}
        if test.grade_id in points:
            here.append(points[test.grade_id])
            rest.append(sum(points.values()) - points[test.grade_id])
    if len(set(here)) < 2 or len(set(rest)) < 2:
        return None
    return statistics.correlation(here, rest)


def cut(text: str) -> str:
    """A text of bounded length."""
    return text if len(text) <= LONGEST_MISTAKE else f"{text[:LONGEST_MISTAKE]} …"


def color(outcome: str) -> str:
    """The name of an outcome's color."""
    return outcome.replace(" ", "-")


def key() -> str:
    """What the colors mean."""
    items = "".join(
        f'<span><i style="background:var(--{color(name)})"></i>{name}</span>' for name in OUTCOMES
    )
    return f'<p class="key">{items}</p>'


def histogram(totals: Sequence[float], most: float) -> str:
    """How many learners have how many points, as columns."""
    count = Counter(min(int(points), int(most)) for points in totals)
    highest = max(count.values())
    columns = "".join(
        f'<div>{count[n] or ""}<i style="height:{100 * count[n] / highest:.1f}%"></i>{n}</div>'
        for n in range(int(most) + 1)
    )
    words = ", ".join(f"{number} with {points}" for points, number in sorted(count.items()))
    return (
        f'<div class="columns" role="img" aria-label="Learners by points: {words}">{columns}</div>'
        "<p>Learners by points.</p>"
    )
