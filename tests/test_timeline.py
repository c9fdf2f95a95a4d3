"""The timeline: it says which line is wrong, draws every lane, and no label covers another."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ledger import ARTICLE_ENDS
from slingshot import facts
from timeline import LANES, Event, describe, draw, parse_events

ROOT = Path(__file__).resolve().parents[1]
BODY = [
    "models: v3.release DeepSeek-V3",
    "chips: chip.a100.launch A100",
    "announcements: stargate.announcement Stargate",
]


def story(name: str = "story") -> list[str]:
    """The body of the directive on a page that has it."""
    page = (ROOT / "book" / f"{name}.md").read_text("utf-8")
    return page.partition("```{timeline}\n")[2].partition("```")[0].splitlines()


def text_boxes(figure: Figure) -> dict[str, Bbox]:
    """The box of each text in pixels; numbered, since two events may fall on one day."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    return {f"{i} {t.get_text()}": t.get_window_extent(renderer) for i, t in enumerate(texts)}


def collisions(figure: Figure) -> list[str]:
    """Texts that overlap, or that leave the figure."""
    boxes = text_boxes(figure)
    width, height = figure.get_size_inches() * figure.dpi
    outside = [
        name
        for name, box in boxes.items()
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height
    ]
    pairs = itertools.combinations(boxes.items(), 2)
    return outside + [f"{a}, {b}" for (a, left), (b, right) in pairs if left.overlaps(right)]


def test_events_stand_in_the_order_of_their_dates() -> None:
    events = parse_events(BODY)
    assert [event.label for event in events] == ["A100", "DeepSeek-V3", "Stargate"]
    assert [event.date for event in events] == [facts.get(event.key).value for event in events]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("models: v3.releas V3", r"unknown fact 'v3.releas'; did you mean v3.release"),
        ("models: v3.cost.total V3", r"fact 'v3.cost.total' is \$5.576 million, not a date"),
        ("model: v3.release V3", "lane 'model' .* is not one of chips, rules"),
        ("models: v3.release", "is not of the form"),
        ("models v3.release V3", "is not of the form"),
        ("models: v3.release DeepSeek-V3 with its report", "has 27 characters, 24 have room"),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_events([*BODY, line])


def test_a_timeline_needs_two_days() -> None:
    for body in ([], BODY[:1], BODY[:1] * 2):
        with pytest.raises(ValueError, match="at least two days"):
            parse_events(body)


def test_every_lane_and_year_is_drawn() -> None:
    drawn = [name.partition(" ")[2] for name in text_boxes(draw(parse_events(story())))]
    assert {event.lane for event in parse_events(story())} == set(LANES)
    assert set(LANES) <= set(drawn)
    assert {str(year) for year in range(2020, 2026)} <= set(drawn)  # 2021 too, which has no event


def test_a_lane_without_events_is_left_out() -> None:
    drawn = {name.partition(" ")[2] for name in text_boxes(draw(parse_events(BODY)))}
    assert drawn & set(LANES) == {"chips", "models", "announcements"}


def test_each_dot_stands_on_the_lane_of_its_event() -> None:
    axes = draw(events := parse_events(BODY)).axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    lines = {
        line.get_color(): np.asarray(line.get_xdata())[0] for line in axes.lines if line not in dots
    }
    assert [dot.get_color() for dot in dots] == [LANES[event.lane] for event in events]
    assert all(np.asarray(dot.get_xdata())[0] == lines[dot.get_color()] for dot in dots)


@pytest.mark.parametrize("name", ["story", "two_years_on"])
def test_no_label_covers_another_or_leaves_the_figure(name: str) -> None:
    assert collisions(draw(parse_events(story(name)))) == []


def test_the_second_timeline_goes_on_where_the_article_ends() -> None:
    dates = [event.date for event in parse_events(story("two_years_on"))]
    assert dates[0] > ARTICLE_ENDS
    assert {date.year for date in dates} == {2025, 2026}


def test_a_collision_would_be_found() -> None:
    events = parse_events(BODY)
    figure = draw(events)
    day = next(text for text in figure.axes[0].texts if text.get_text() == "May 14")
    day.set_position((day.get_position()[0] + 130, day.get_position()[1]))  # onto its label
    assert len(collisions(figure)) == 1
    wide = Event("models", "v3.release", "W" * 30, events[1].date)
    assert len(collisions(draw([events[0], wide, events[2]]))) == 1


def test_the_words_name_the_first_and_the_last_event() -> None:
    words = describe(parse_events(BODY))
    assert "3 events" in words
    assert "from A100 (May 14, 2020)" in words
    assert "to Stargate (January 21, 2025)" in words
    assert "models: DeepSeek-V3" in words
    assert "rules" not in words


# --- in a page ---------------------------------------------------------------------------------

CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "book" / "_ext")!r})
extensions = ["myst_nb", "sphinxcontrib.bibtex", "citations", "fact_role", "timeline"]
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "slingshot"
bibtex_reference_style = "label"
nb_execution_mode = "off"
suppress_warnings = ["bibtex.missing_field"]
"""


def build(folder: Path, body: list[str]) -> subprocess.CompletedProcess[str]:
    """Build one page with a timeline, strictly."""
    page = ["# A page", "", "```{timeline}", *body, "```", "", "```{fact-table}", "```", ""]
    page += ["```{bibliography}", "```", ""]
    (folder / "conf.py").write_text(CONF, "utf-8")
    library = (ROOT / "book" / "references.bib").read_text("utf-8")
    (folder / "references.bib").write_text(library, "utf-8")
    (folder / "index.md").write_text("\n".join(page), "utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "."]
    return subprocess.run(
        [*command, "html"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_directive_writes_the_figure_and_the_list(tmp_path: Path) -> None:
    result = build(tmp_path, BODY)
    assert (result.returncode, result.stderr) == (0, "")
    page = (tmp_path / "html" / "index.html").read_text("utf-8")
    assert 'role="img" aria-label="A timeline of 3 events' in page
    listed = page.partition("<details")[2].partition("</details>")[0]
    assert listed.count("<li>") == 3
    assert "December 26, 2024" in listed
    assert "DeepSeek-V3 repository" in listed  # the source, by the label of the bibliography


@pytest.mark.parametrize(
    ("line", "message"),
    [("models: v3.releas V3", "unknown fact 'v3.releas'"), ("models: v3.gpus V3", "not a date")],
)
def test_a_wrong_line_fails_the_build(line: str, message: str, tmp_path: Path) -> None:
    result = build(tmp_path, [*BODY, line])
    assert result.returncode != 0
    assert message in result.stderr
