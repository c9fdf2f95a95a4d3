"""The directive ``{timeline}``: dated facts in their order, running down, which suits a phone.

Each line of the body puts one fact on a lane: ``models: v3.release DeepSeek-V3``. The dates come
from ``facts.yml``, and so do the words and sources of the list that follows the figure. A line that
does not parse, a fact that does not exist, or one that is not a date fails the build and is named.
"""

import datetime
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import matplotlib as mpl
from docutils import nodes
from docutils.statemachine import StringList
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from fact_role import FACTS_FILE
from slingshot import facts
from slingshot.pages.figures import INK, PALETTE, RC, to_svg

LANES: Final = {
    "chips": PALETTE["blue"],
    "rules": PALETTE["red"],
    "models": PALETTE["orange"],
    "prices": PALETTE["green"],
    "announcements": PALETTE["violet"],
}
_LINE = re.compile(r"(?P<lane>\w+):\s+(?P<key>\S+)\s+(?P<label>\S.*)")

# The layout, in points. A phone shows the figure at about nine tenths of its size.
WIDTH, ROW = 300.0, 18.0
DATE_X, LANE_X, LANE_STEP, LABEL_X = 4.0, 58.0, 16.0, 136.0
MAX_LABEL = 24  # characters between LABEL_X and WIDTH


@dataclass(frozen=True)
class Event:
    """One dated fact, with the lane it stands on and its short label in the figure."""

    lane: str
    key: str
    label: str
    date: datetime.date


def parse_events(lines: Sequence[str]) -> list[Event]:
    """Read the body of the directive, and sort it by date.

    Raises ``ValueError`` naming the line, lane or fact that is wrong.
    """
    events = [_parse_event(line.strip()) for line in lines if line.strip()]
    if len({event.date for event in events}) < 2:
        raise ValueError("a timeline needs events on at least two days; add lines to its body")
    return sorted(events, key=lambda event: event.date)


def _parse_event(line: str) -> Event:
    match = _LINE.fullmatch(line)
    if not match:
        raise ValueError(f"{line!r} is not of the form 'lane: fact.key Short label'")
    if match["lane"] not in LANES:
        raise ValueError(f"lane {match['lane']!r} of {line!r} is not one of {', '.join(LANES)}")
    fact = facts.get(match["key"])
    if not isinstance(fact.value, datetime.date):
        raise ValueError(f"fact {fact.key!r} is {fact.text}, not a date")
    label = match["label"] + (" (reported)" if fact.confidence == "reported" else "")
    if len(label) > MAX_LABEL:
        raise ValueError(f"label {label!r} has {len(label)} characters, {MAX_LABEL} have room")
    return Event(match["lane"], fact.key, label, fact.value)


def draw(events: Sequence[Event]) -> Figure:
    """Draw one row for each event, with a rule and a heading wherever a year begins."""
    lanes = [lane for lane in LANES if any(event.lane == lane for event in events)]
    years = range(events[0].date.year, events[-1].date.year + 1)
    # A year takes a row of its own, so that a year in which nothing happened is seen.
    rows: list[int | Event] = []
    for year in years:
        rows += [year, *(event for event in events if event.date.year == year)]
    top = ROW * (len(lanes) + 0.5)
    bottom = top + ROW * len(rows)
    with mpl.rc_context({**RC, "figure.constrained_layout.use": False}):
        figure = Figure(figsize=(WIDTH / 72, bottom / 72))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, WIDTH), ylim=(bottom, 0))
        axes.axis("off")
        place = {lane: LANE_X + LANE_STEP * i for i, lane in enumerate(lanes)}
        for i, (lane, x) in enumerate(place.items()):
            head = ROW * (i + 0.5)
            axes.plot([x, x], [head, bottom], color=LANES[lane], linewidth=1.2, alpha=0.6)
            axes.text(x + 6, head, lane, color=LANES[lane], va="center", fontsize=11, weight="bold")
        for i, row in enumerate(rows):
            y = top + ROW * (i + 0.5)
            if isinstance(row, int):
                _draw_year(axes, row, y)
            else:
                _draw_event(axes, row, place[row.lane], y)
    return figure


def _draw_year(axes: Axes, year: int, y: float) -> None:
    above = y - ROW / 2
    axes.plot([0, WIDTH], [above, above], color=INK, linewidth=0.6, alpha=0.5)
    axes.text(DATE_X, y, str(year), va="center", fontsize=11, weight="bold")


def _draw_event(axes: Axes, event: Event, x: float, y: float) -> None:
    """The day, the dot on its lane, and a thin line to the label."""
    day = f"{facts.MONTHS[event.date.month - 1][:3]} {event.date.day}"
    axes.text(DATE_X, y, day, va="center", fontsize=11)
    axes.plot([x, LABEL_X - 4], [y, y], color=LANES[event.lane], linewidth=0.8, alpha=0.6)
    axes.plot(x, y, "o", color=LANES[event.lane], markersize=7)
    axes.text(LABEL_X, y, event.label, va="center", fontsize=11)


def describe(events: Sequence[Event]) -> str:
    """Say in words what the figure shows: its span, its lanes, and where the events crowd."""
    first, last, middle = events[0], events[-1], events[len(events) // 2]
    lanes = []
    for lane in LANES:
        labels = [event.label for event in events if event.lane == lane]
        if labels:
            lanes.append(f"{lane}: {'; '.join(labels)}")
    return (
        f"A timeline of {len(events)} events, one to a row, from {first.label} ({_day(first)})"
        f" to {last.label} ({_day(last)}). Half of the events fall on or after {_day(middle)}."
        f" By lane, {'. '.join(lanes)}."
    )


def _day(event: Event) -> str:
    return facts.format_value(event.date, "date")


class Timeline(SphinxDirective):
    """The figure, and the same events as a folded list with their sources."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the figure and the folded list; a wrong line fails the build and is named."""
        self.env.note_dependency(str(FACTS_FILE))
        try:
            events = parse_events(self.content)
        except ValueError as error:
            raise self.error(f"timeline: {error}") from error
        prefix = "timeline-" + hashlib.sha256("\n".join(self.content).encode()).hexdigest()[:8]
        svg = to_svg(draw(events), alt=describe(events), prefix=prefix)
        listed = nodes.container()
        listed.document = self.state.document
        lines = [line for event in events for line in self.entry(event)]
        self.state.nested_parse(StringList(lines, str(FACTS_FILE)), 0, listed)
        details = '<details style="margin-bottom:1.5rem">'
        summary = "The same as a list, with days and sources"
        return [
            nodes.raw("", f'<div class="figure">{svg}</div>', format="html"),
            nodes.raw("", f"{details}<summary>{summary}</summary>", format="html"),
            *listed.children,
            nodes.raw("", "</details>", format="html"),
        ]

    @staticmethod
    def entry(event: Event) -> list[str]:
        """One item of the list: the day, what happened, and where we read it."""
        fact = facts.get(event.key)
        return [f"- {{fact}}`{fact.key}`, {event.lane}: {fact.label} {{cite:p}}`{fact.source}`"]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("timeline", Timeline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
