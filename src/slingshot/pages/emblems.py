"""Emblems: a small picture for each chapter that a card of the book shows.

An emblem hints at an idea and shows no data: it has no words, no axis and no scale. ``EMBLEMS``
holds what draws each by the chapter's place in the book, or by the caption of a part.
"""

from collections.abc import Callable, Sequence
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc, FancyArrowPatch

from slingshot.pages.drawings import box
from slingshot.pages.figures import INK, PALETTE, RC, to_svg

# In points. A card is about as wide.
WIDTH: Final = 168.0
HEIGHT: Final = 72.0

BLUE, ORANGE, VIOLET = PALETTE["blue"], PALETTE["orange"], PALETTE["violet"]
GREEN, RED = PALETTE["green"], PALETTE["red"]


def emblem(name: str) -> Figure:
    """Draw the emblem of a chapter or a part.

    Raises ``KeyError`` when ``name`` has none.
    """
    draw = EMBLEMS[name]
    with mpl.rc_context({**RC, "figure.constrained_layout.use": False}):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        axes.axis("off")
        draw(axes)
    return figure


def emblem_svg(name: str) -> str:
    """Return the emblem as an ``<svg>`` element that a reader who hears the page does not hear.

    The link beside it says all that the emblem hints at. Raises ``KeyError`` as `emblem` does.
    """
    prefix = "emblem-" + "".join(c if c.isalnum() else "-" for c in name.lower())
    svg = to_svg(emblem(name), alt="An emblem", prefix=prefix)
    return svg.replace('role="img" aria-label="An emblem"', 'aria-hidden="true"')


# --- strokes --------------------------------------------------------------------------------------


def _dots(axes: Axes, points: Sequence[tuple[float, float]], color: str, size: float = 7) -> None:
    x, y = zip(*points, strict=True)
    axes.plot(x, y, "o", color=color, markersize=size)


def _line(axes: Axes, points: Sequence[tuple[float, float]], color: str, width: float = 2) -> None:
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color=color, linewidth=width, solid_capstyle="round")


def _full(axes: Axes, x: float, y: float, width: float, height: float, color: str) -> None:
    box(axes, x, y, width, height, facecolor=color, edgecolor=color)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0,
            color=color, linewidth=1.6,
        )
    )  # fmt: skip


def _grid(axes: Axes, rows: int, columns: int, lit: set[tuple[int, int]], color: str) -> None:
    """Draw small squares in the middle, some of them filled."""
    side, gap = 8.0, 3.0
    left = (WIDTH - columns * (side + gap) + gap) / 2
    top = (HEIGHT - rows * (side + gap) + gap) / 2
    for row in range(rows):
        for column in range(columns):
            x, y = left + column * (side + gap), top + row * (side + gap)
            if (row, column) in lit:
                _full(axes, x, y, side, side, color)
            else:
                box(axes, x, y, side, side, linewidth=0.8)


def _bars(axes: Axes, heights: Sequence[float], colors: Sequence[str], width: float = 14) -> None:
    """Draw bars that stand on one line, in the middle; a height is at most one."""
    step = width + 6
    left = (WIDTH - step * len(heights) + 6) / 2
    for number, (height, color) in enumerate(zip(heights, colors, strict=True)):
        _full(axes, left + number * step, 62 - 50 * height, width, 50 * height, color)
    _line(axes, [(left - 6, 62), (left + step * len(heights), 62)], INK, 1)


# --- the claim ------------------------------------------------------------------------------------


def _two_sums(axes: Axes) -> None:
    _line(axes, [(18, 50), (150, 50)], INK, 1)
    _dots(axes, [(38, 32), (62, 32)], ORANGE, 9)
    _dots(axes, [(138, 32)], BLUE, 9)


def _fraction(axes: Axes) -> None:
    _line(axes, [(50, 36), (118, 36)], INK, 2)
    _dots(axes, [(60 + 16 * n, 22) for n in range(4)], ORANGE)
    _dots(axes, [(76, 50), (92, 50)], ORANGE)


def _area(axes: Axes) -> None:
    _full(axes, 30, 24, 52, 36, ORANGE)
    box(axes, 24, 10, 120, 54, linestyle=(0, (3, 2)))


def _chip(axes: Axes) -> None:
    for n in range(4):
        y = 18 + 12 * n
        _line(axes, [(54, y), (64, y)], INK, 1.4)
        _line(axes, [(104, y), (114, y)], INK if n < 2 else RED, 1.4)
    box(axes, 64, 10, 40, 52, linewidth=1.4)
    _full(axes, 74, 24, 20, 24, BLUE)
    _line(axes, [(118, 46), (128, 60)], RED, 2)
    _line(axes, [(128, 46), (118, 60)], RED, 2)


def _falling(axes: Axes) -> None:
    for start, end, color in ((12, 60, BLUE), (24, 46, ORANGE), (50, 44, GREEN)):
        _line(axes, [(44, start), (124, end)], color)
        _dots(axes, [(44, start), (124, end)], color, 6)


def _batch(axes: Axes) -> None:
    x = np.linspace(0, 1, 40)
    _line(axes, list(zip(24 + 120 * x, 60 - 52 / (1 + 9 * x), strict=True))[::-1], BLUE)
    _line(axes, [(24, 60), (148, 60)], INK, 1)
    _line(axes, [(24, 8), (24, 60)], INK, 1)


# --- use less of the model ------------------------------------------------------------------------


def _mostly_idle(axes: Axes) -> None:
    _grid(axes, 5, 12, {(0, 3), (1, 9), (2, 5), (3, 1), (4, 10)}, BLUE)


def _router(axes: Axes) -> None:
    _dots(axes, [(30, 36)], ORANGE, 9)
    for n in range(5):
        y = 10 + 13 * n
        chosen = n in (1, 3)
        _line(axes, [(36, 36), (110, y)], BLUE if chosen else INK, 1.8 if chosen else 0.6)
        box(axes, 112, y - 4.5, 16, 9, facecolor=BLUE if chosen else "none", linewidth=0.8)


def _uneven(axes: Axes) -> None:
    _bars(axes, (1, 0.85, 0.1, 0.06, 0.04, 0.04), [ORANGE] * 2 + [BLUE] * 4)
    axes.plot([32, 136], [44, 44], color=INK, linewidth=1, linestyle=(0, (3, 2)))


def _sorted(axes: Axes) -> None:
    colors = (BLUE, ORANGE, GREEN)
    for n, kind in enumerate((0, 2, 1, 0, 1, 2, 0, 1)):
        _full(axes, 22 + 16 * n, 12, 11, 14, colors[kind])
    for n, kind in enumerate((0, 0, 0, 1, 1, 1, 2, 2)):
        _full(axes, 22 + 16 * n, 48, 11, 14, colors[kind])
    _arrow(axes, (83, 30), (83, 45), INK)


def _two_curves(axes: Axes) -> None:
    x = np.linspace(0, 1, 40)
    for floor, color in ((0.42, ORANGE), (0.18, BLUE)):
        y = floor + (0.95 - floor) * np.exp(-5 * x)
        _line(axes, list(zip(26 + 116 * x, 62 - 54 * y, strict=True)), color)
    _line(axes, [(26, 8), (26, 62), (144, 62)], INK, 1)


# --- use fewer bits -------------------------------------------------------------------------------


def _comb(axes: Axes) -> None:
    _line(axes, [(16, 52), (152, 52)], INK, 1)
    for power in range(3):
        for step in range(4):
            x = 16 + 136 * (2**power * (1 + step / 4) - 1) / 7
            tall = step == 0
            _line(axes, [(x, 52 - (34 if tall else 20)), (x, 52)], BLUE, 2 if tall else 1.2)
    _line(axes, [(152, 18), (152, 52)], BLUE, 2)


def _bits(axes: Axes) -> None:
    for n in range(8):
        color = RED if n == 0 else BLUE if n < 5 else ORANGE
        lit = n in (2, 3, 4, 6, 7)
        look = {"facecolor": color if lit else "none", "edgecolor": color, "linewidth": 1.6}
        box(axes, 18 + 17 * n, 24, 13, 24, **look)


def _product(axes: Axes) -> None:
    for x, y, width, height, color in (
        (22, 22, 46, 28, BLUE), (76, 10, 24, 46, ORANGE), (120, 22, 24, 28, INK),
    ):  # fmt: skip
        box(axes, x, y, width, height, edgecolor=color, linewidth=1.4)
    _full(axes, 22, 30, 46, 5, BLUE)
    _full(axes, 84, 10, 5, 46, ORANGE)
    _full(axes, 128, 30, 5, 5, INK)
    _line(axes, [(106, 33), (114, 33)], INK, 1.4)
    _line(axes, [(106, 39), (114, 39)], INK, 1.4)


def _steps(axes: Axes) -> None:
    x = np.linspace(0, 1, 90)
    smooth = 1 - np.sqrt(x)
    _line(axes, list(zip(26 + 116 * x, 58 - 46 * smooth, strict=True)), ORANGE, 1.4)
    rounded = np.round(smooth * 6) / 6
    _line(axes, list(zip(26 + 116 * x, 58 - 46 * rounded, strict=True)), BLUE, 1.8)


def _outlier(axes: Axes) -> None:
    heights = (0.07, 0.05, 0.09, 0.06, 1.0, 0.05, 0.08, 0.06)
    _bars(axes, heights, [RED if h == 1 else BLUE for h in heights], 9)


def _halved(axes: Axes) -> None:
    for y, width, color in ((14, 120, ORANGE), (42, 96, BLUE)):
        box(axes, 24, y, 120, 16, linewidth=0.8)
        _full(axes, 24, y, width, 16, color)


# --- move less memory -----------------------------------------------------------------------------


def _nested(axes: Axes) -> None:
    box(axes, 14, 8, 140, 56, linewidth=0.8)
    box(axes, 24, 16, 84, 40, linewidth=1.2, edgecolor=VIOLET)
    _full(axes, 34, 26, 26, 20, BLUE)


def _cache(axes: Axes) -> None:
    for n in range(8):
        _full(axes, 20 + 10 * n, 10, 7, 50, ORANGE)
    _full(axes, 122, 10, 7, 50, BLUE)
    _full(axes, 134, 46, 7, 14, BLUE)


def _look_at_few(axes: Axes) -> None:
    chosen = (1, 4, 9)
    for n in range(11):
        x = 20 + 13 * n
        box(axes, x - 4, 48, 9, 12, facecolor=BLUE if n in chosen else "none", linewidth=0.8)
        if n in chosen:
            _line(axes, [(150, 20), (x, 46)], BLUE, 1.2)
    _dots(axes, [(150, 18)], ORANGE, 8)


def _draft(axes: Axes) -> None:
    for n in range(5):
        color = GREEN if n < 3 else RED if n == 3 else INK
        look = {"facecolor": color if n < 4 else "none", "edgecolor": color}
        box(axes, 28 + 24 * n, 26, 17, 20, **look)
    _line(axes, [(100, 26), (117, 46)], INK, 1.6)


def _machines(axes: Axes) -> None:
    corners = [(24, 10), (112, 10), (24, 44), (112, 44)]
    for n, (x, y) in enumerate(corners):
        box(axes, x, y, 32, 18, linewidth=1)
        for each in range(3):
            _full(axes, x + 4 + 9 * each, y + 5, 6, 8, BLUE if (n + each) % 3 else ORANGE)
    for start, end in (((58, 19), (110, 19)), ((58, 53), (110, 53)), ((58, 24), (110, 48))):
        _arrow(axes, start, end, VIOLET)


def _pipeline(axes: Axes) -> None:
    for stage in range(3):
        for n in range(4):
            _full(axes, 20 + 15 * (n + stage), 12 + 17 * stage, 13, 14, BLUE)
        for n in range(2):
            _full(axes, 118 + 15 * n - 4 * stage, 12 + 17 * stage, 13, 14, ORANGE)


# --- think out loud -------------------------------------------------------------------------------


def _cups(axes: Axes) -> None:
    below = (2, 0, 1, 3)
    for start, end in enumerate(below):
        color = ORANGE if start == 1 else INK
        x, y = 36 + 32 * start, 36 + 32 * end
        _line(axes, [(x, 14), (x, 22), (y, 50), (y, 58)], color, 2.4 if start == 1 else 1)
    _dots(axes, [(68, 12), (36, 60)], ORANGE, 8)


def _reward(axes: Axes) -> None:
    axes.add_patch(Arc((84, 36), 66, 52, theta1=200, theta2=160, color=INK, linewidth=1.2))
    _dots(axes, [(62 + 15 * n, 36) for n in range(4)], GREEN, 7)
    _arrow(axes, (52.5, 28), (53.5, 27), INK)


def _hacked(axes: Axes) -> None:
    _line(axes, [(26, 8), (26, 62), (144, 62)], INK, 1)
    _line(axes, [(30, 52), (66, 40), (140, 12)], GREEN)
    _line(axes, [(30, 52), (66, 38), (140, 58)], RED)


def _teacher(axes: Axes) -> None:
    _full(axes, 22, 14, 44, 44, ORANGE)
    _full(axes, 124, 30, 22, 28, BLUE)
    for y in (34, 43, 52):
        _line(axes, [(74, y), (100, y)], INK, 1.2)
    _arrow(axes, (102, 43), (118, 43), INK)


def _balance(axes: Axes) -> None:
    _line(axes, [(84, 14), (84, 60)], INK, 1.6)
    _line(axes, [(34, 26), (134, 14)], INK, 1.6)
    _line(axes, [(70, 61), (98, 61)], INK, 1.6)
    _full(axes, 22, 28, 26, 22, ORANGE)
    _full(axes, 124, 16, 20, 16, BLUE)


def _threads(axes: Axes) -> None:
    _line(axes, [(24, 36), (60, 36), (84, 20), (146, 20)], BLUE, 2.4)
    axes.plot([60, 84, 146], [36, 54, 54], color=RED, linewidth=2, linestyle=(0, (3, 2)))
    _dots(axes, [(24, 36), (60, 36), (84, 20), (146, 20)], BLUE, 7)
    _dots(axes, [(84, 54), (146, 54)], RED, 7)


def _lesson(axes: Axes) -> None:
    for row in range(7):
        _full(axes, 52, 6 + 8 * row, 64, 5, GREEN if row > 3 else BLUE)
    _dots(axes, [(26, 20), (26, 32), (26, 44)], ORANGE, 7)
    _line(axes, [(34, 32), (48, 32)], INK, 1.4)


def _thirty(axes: Axes) -> None:
    _grid(axes, 3, 10, {(r, c) for r in range(3) for c in range(10)} - {(2, 8), (2, 9)}, BLUE)


# --- the verdict ----------------------------------------------------------------------------------


def _verdicts(axes: Axes) -> None:
    for y, width, color in ((10, 86, GREEN), (27, 104, ORANGE), (44, 34, RED)):
        _full(axes, 32, y, width, 12, color)


def _years(axes: Axes) -> None:
    _line(axes, [(18, 40), (150, 40)], INK, 1.4)
    _dots(axes, [(36, 40)], ORANGE, 10)
    _dots(axes, [(72, 40), (90, 40), (118, 40), (136, 40)], BLUE, 7)


def _bug(axes: Axes) -> None:
    x = np.linspace(0, 1, 12)
    y = 56 - 38 * x
    _line(axes, list(zip(26 + 116 * x, y, strict=True)), INK, 1)
    _dots(axes, [(26 + 116 * a, b) for a, b in zip(x, y, strict=True)][:7], GREEN, 5)
    _dots(axes, [(26 + 116 * a, b + 14) for a, b in zip(x, y, strict=True)][7:], RED, 5)


def _log(axes: Axes) -> None:
    for n in range(4):
        y = 14 + 15 * n
        _dots(axes, [(40, y)], ORANGE if n == 0 else BLUE, 6)
        _line(axes, [(52, y), (128 - 14 * (n % 2), y)], INK, 1.4)


def _streams(axes: Axes) -> None:
    for y in (18, 36, 54):
        _line(axes, [(24, y), (68, y)], INK, 1.2)
        _line(axes, [(100, y), (144, y)], INK, 1.2)
        for other in (18, 36, 54):
            color = BLUE if y == other else ORANGE
            _line(axes, [(68, y), (100, other)], color, 2 if y == other else 0.8)


EMBLEMS: Final[dict[str, Callable[[Axes], None]]] = {
    "The claim": _two_sums,
    "notebooks/claims_arithmetic": _fraction,
    "notebooks/training_cost": _area,
    "notebooks/chips_and_rules": _chip,
    "notebooks/price_of_a_token": _falling,
    "notebooks/serving_costs": _batch,
    "Use less of the model": _mostly_idle,
    "notebooks/moe_gating": _router,
    "notebooks/moe_balancing": _uneven,
    "notebooks/moe_layer": _sorted,
    "notebooks/sparse_vs_dense": _two_curves,
    "Use fewer bits": _bits,
    "notebooks/number_formats": _comb,
    "notebooks/low_precision_matmul": _product,
    "notebooks/fp8_training": _steps,
    "notebooks/quantize_real_llm": _outlier,
    "notebooks/fp8_savings": _halved,
    "Move less memory": _nested,
    "notebooks/kv_cache": _cache,
    "notebooks/sparse_attention": _look_at_few,
    "notebooks/guess_and_verify": _draft,
    "notebooks/many_machines": _machines,
    "notebooks/pipeline_bubbles": _pipeline,
    "Think out loud": _cups,
    "notebooks/reinforce_reasoning": _reward,
    "notebooks/reward_hacking": _hacked,
    "notebooks/distill_traces": _teacher,
    "notebooks/distill_vs_rl": _balance,
    "notebooks/trust_the_trace": _threads,
    "notebooks/teach_a_real_model": _lesson,
    "notebooks/thirty_problems": _thirty,
    "The verdict": _verdicts,
    "After V3": _streams,
    "book/two_years_on": _years,
    "book/museum": _bug,
    "book/what_changed": _log,
}
"""What draws each emblem, by the chapter's place in the book or the caption of a part."""
