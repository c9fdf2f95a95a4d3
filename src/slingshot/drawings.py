"""Drawings of the ideas of the course: a layer, a node, a tile, a clip; drawn by code.

Each function draws one, with the numbers that it is given, and returns the figure. ``DRAWINGS``
holds them by name, each with the words that say what is seen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from slingshot import facts
from slingshot.figures import INK, PALETTE, RC

# Units are points. A phone shows a drawing of this width at nearly its size.
WIDTH: Final = 340.0


@dataclass(frozen=True)
class Drawing:
    """A drawing: the function that draws it, and what is seen in words."""

    draw: Callable[[], Figure]
    alt: str


def canvas(height: float) -> tuple[Figure, Axes]:
    """Return an empty figure, ``WIDTH`` by ``height`` points, and its axes; y runs down."""
    with mpl.rc_context({**RC, "figure.constrained_layout.use": False}):
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, WIDTH), ylim=(height, 0))
        axes.axis("off")
    return figure, axes


def box(axes: Axes, x: float, y: float, width: float, height: float, **look: Any) -> None:  # noqa: ANN401
    """Draw a rectangle with its left upper corner at ``x``, ``y``."""
    look = {"facecolor": "none", "edgecolor": INK, "linewidth": 1.0, **look}
    axes.add_patch(Rectangle((x, y), width, height, **look))


def label(axes: Axes, x: float, y: float, text: str, **look: Any) -> None:  # noqa: ANN401
    """Write ``text`` with its middle at ``x``, ``y``."""
    look = {"ha": "center", "va": "center", "fontsize": 11, "color": INK, **look}
    axes.text(x, y, text, **look)


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    **look: Any,  # noqa: ANN401
) -> None:
    """Draw an arrow from ``start`` to ``end``."""
    look = {"color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0, **look}
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, **look))


def _tint(color: str, alpha: float = 0.22) -> tuple[str, float]:
    return color, alpha


# --- Use less of the model -----------------------------------------------------------------------


def mixture_layer() -> Figure:
    """Draw one mixture layer of V3: all experts in memory, few at work on a token."""
    n_experts, n_chosen = (
        int(facts.value("v3.experts.routed")),
        int(facts.value("v3.experts.top_k")),
    )
    columns = 32
    rows = -(-n_experts // columns)
    side, left, top = 8.5, 14.0, 92.0
    figure, axes = canvas(top + rows * side + 118)
    chosen = np.random.default_rng(4).choice(n_experts, n_chosen, replace=False)

    box(axes, WIDTH / 2 - 48, 6, 96, 22)
    label(axes, WIDTH / 2, 17, "one token")
    arrow(axes, (WIDTH / 2, 28), (WIDTH / 2, 42))
    box(axes, WIDTH / 2 - 48, 42, 96, 22, edgecolor=PALETTE["orange"], linewidth=1.6)
    label(axes, WIDTH / 2, 53, "router", color=PALETTE["orange"])

    bottom = top + rows * side
    for expert in range(n_experts):
        row, column = divmod(expert, columns)
        x, y = left + column * side, top + row * side
        lit = expert in chosen
        face = PALETTE["blue"] if lit else "none"
        box(axes, x, y, side - 1.5, side - 1.5, facecolor=face, linewidth=0.5)
        if lit:
            middle = x + (side - 1.5) / 2
            axes.plot([WIDTH / 2, middle], [64, y], color=PALETTE["blue"], linewidth=0.9, alpha=0.7)
            below = [y + side, bottom + 44]
            axes.plot([middle, WIDTH / 2], below, color=PALETTE["blue"], linewidth=0.9, alpha=0.35)
    shared, green = left + columns * side + 24, PALETTE["green"]
    box(axes, shared - 8, top + 26, 17, 17, facecolor=green, linewidth=0.5)
    label(axes, WIDTH - 6, 76, "shared", color=green, ha="right")
    axes.plot([WIDTH / 2 + 48, shared, shared], [17, 17, 67], color=green, linewidth=0.9)
    axes.plot([shared, shared], [85, top + 26], color=green, linewidth=0.9)
    below = [top + 43, bottom + 55, bottom + 55]
    axes.plot([shared, shared, WIDTH / 2 + 74], below, color=green, linewidth=0.9)
    box(axes, WIDTH / 2 - 74, bottom + 44, 148, 22)
    label(axes, WIDTH / 2, bottom + 55, "sum, weighted by gates")
    label(axes, WIDTH / 2, bottom + 84, f"in memory: {n_experts} experts and the shared one")
    label(
        axes,
        WIDTH / 2,
        bottom + 102,
        f"at work on this token: {n_chosen} and the shared one",
        color=PALETTE["blue"],
    )
    return figure


def nodes() -> Figure:
    """Draw eight nodes of eight GPUs: fast links within a node, slower ones between."""
    n_nodes = n_gpus = 8
    figure, axes = canvas(256)
    wide, high, gap = 72.0, 62.0, 12.0
    centers = []
    for node in range(n_nodes):
        row, column = divmod(node, 4)
        x, y = 8 + column * (wide + gap), 20 + row * (high + 72)
        centers.append((x + wide / 2, y + high if row == 0 else y))
        box(axes, x, y, wide, high)
        for gpu in range(n_gpus):
            gx, gy = x + 7 + gpu % 4 * 15.5, y + 9 + gpu // 4 * 32
            box(axes, gx, gy, 12, 12, facecolor=PALETTE["blue"], linewidth=0)
            axes.plot([gx + 6, gx + 6], [y + 25, y + 37], color=PALETTE["green"], linewidth=2.4)
        axes.plot([x + 10, x + 62], [y + 31, y + 31], color=PALETTE["green"], linewidth=4)
    spine = 20 + high + 36
    axes.plot(
        [8 + wide / 2, WIDTH - 8 - wide / 2], [spine, spine], color=PALETTE["orange"], linewidth=1.4
    )
    for x, y in centers:
        axes.plot([x, x], [y, spine], color=PALETTE["orange"], linewidth=1.4)
    nvlink, ib = facts.get("v3.nvlink.usable").text, facts.get("v3.infiniband.usable").text
    label(axes, WIDTH / 2, 9, f"{n_nodes} nodes of {n_gpus} GPUs")
    label(axes, WIDTH / 2, 228, f"within a node NVLink: {nvlink}", color=PALETTE["green"])
    label(axes, WIDTH / 2, 246, f"between nodes InfiniBand: {ib}", color=PALETTE["orange"])
    return figure


# --- The claim -----------------------------------------------------------------------------------


def cost_left_out() -> Figure:
    """Draw the bill of V3's run as an area, hours by rent, and beside it what it leaves out."""
    figure, axes = canvas(216)
    hours, rent = facts.get("v3.gpu_hours.total").text, facts.get("v3.price_per_gpu_hour").text
    box(
        axes,
        70,
        22,
        150,
        96,
        facecolor=_tint(PALETTE["blue"]),
        edgecolor=PALETTE["blue"],
        linewidth=1.8,
    )
    label(axes, 145, 62, "the final run")
    label(axes, 145, 80, facts.get("v3.cost.total").text, weight="bold")
    label(axes, 145, 11, hours)
    label(axes, 64, 70, rent.replace(" ", "\n"), ha="right")
    out = [
        ("research and trial runs", 236, 22, 96, 44),
        ("salaries", 236, 74, 96, 44),
        ("data", 20, 134, 92, 34),
        ("earlier models", 124, 134, 96, 34),
        ("chips owned and\nnot used here", 236, 126, 96, 42),
    ]
    for text, x, y, wide, high in out:
        box(axes, x, y, wide, high, linestyle=(0, (4, 3)))
        label(
            axes, x + wide / 2, y + high / 2, text.replace(" and trial", "\nand trial"), fontsize=10
        )
    label(axes, WIDTH / 2, 186, "solid: counted by the report, at an assumed rent")
    label(axes, WIDTH / 2, 203, "dashed: outside of it; sizes unknown, not to scale")
    return figure


# --- Use fewer bits ------------------------------------------------------------------------------


def tiles() -> Figure:
    """Draw the three products of a linear layer in training, and which numbers share a scale."""
    figure, axes = canvas(292)
    products = [
        ("forward", "x", "W", "row", "square", "y"),
        ("gradient of the input", "dy", "W", "row", "square", "dx"),
        ("gradient of the weights", "dyᵀ", "x", "row", "column", "dW"),
    ]
    for i, (name, left, right, left_kind, right_kind, out) in enumerate(products):
        y = 22 + i * 88
        label(axes, 8, y - 10, name, ha="left", weight="bold")
        _matrix(axes, 12, y, left, left_kind)
        label(axes, 112, y + 28, "×", fontsize=14)
        _matrix(axes, 126, y, right, right_kind)
        label(axes, 226, y + 28, "=", fontsize=14)
        box(axes, 240, y, 84, 56)
        label(axes, 282, y + 28, out, fontsize=12)
    label(
        axes,
        8,
        280,
        "one color: 128 numbers, or 128 × 128, that share a scale",
        ha="left",
        fontsize=10.5,
    )
    return figure


def _matrix(axes: Axes, x: float, y: float, name: str, kind: str) -> None:
    """A matrix cut into tiles of a row, of a column, or of a square."""
    wide, high = 84.0, 56.0
    colors = [_tint(PALETTE["blue"], 0.5), _tint(PALETTE["orange"], 0.5)]
    n_across, n_down = {"row": (3, 8), "column": (12, 2), "square": (3, 2)}[kind]
    for row in range(n_down):
        for column in range(n_across):
            box(
                axes,
                x + column * wide / n_across,
                y + row * high / n_down,
                wide / n_across,
                high / n_down,
                facecolor=colors[(row + column) % 2],
                edgecolor="none",
            )
    box(axes, x, y, wide, high)
    label(axes, x + wide / 2, y + high / 2, name, fontsize=12, weight="bold")


def accumulator() -> Figure:
    """Draw a sum in few bits that is emptied into a float32 register every 128 products."""
    figure, axes = canvas(186)
    for i in range(4):
        x = 14 + i * 80
        for j in range(8):
            box(axes, x + j * 8, 22, 7, 12, facecolor=_tint(PALETTE["blue"], 0.6), linewidth=0)
        box(axes, x, 58, 64, 26, edgecolor=PALETTE["orange"], linewidth=1.6)
        label(axes, x + 32, 71, "14 bits", color=PALETTE["orange"])
        arrow(axes, (x + 32, 36), (x + 32, 58))
        arrow(axes, (x + 32, 84), (x + 32, 118), color=PALETTE["green"])
    label(axes, 14, 11, "128 products each", ha="left", color=PALETTE["blue"])
    label(axes, 328, 100, "promoted", ha="right", color=PALETTE["green"], fontsize=10)
    box(axes, 14, 118, 304, 28, edgecolor=PALETTE["green"], linewidth=1.6)
    label(axes, WIDTH / 2, 132, "sum of the parts in float32", color=PALETTE["green"])
    label(axes, WIDTH / 2, 168, "no part is longer than 128, so none loses more")
    return figure


def number_combs() -> Figure:
    """Draw all numbers of E4M3 from 1 to 4 as ticks, above those of BF16."""
    figure, axes = canvas(150)
    left, right = 20.0, WIDTH - 20.0

    def place(values: np.ndarray) -> np.ndarray:
        return left + (values - 1) / 3 * (right - left)

    for y, mantissa, name, color in (
        (30, 3, "E4M3", PALETTE["blue"]),
        (92, 7, "BF16", PALETTE["orange"]),
    ):
        values = np.array(
            [2.0**e * (1 + m / 2**mantissa) for e in (0, 1) for m in range(2**mantissa)] + [4.0]
        )
        axes.vlines(place(values), y, y + 26, color=color, linewidth=1.4 if mantissa == 3 else 0.6)
        label(
            axes, left, y - 11, f"{name}: {len(values)} numbers from 1 to 4", ha="left", color=color
        )
    for value in (1, 2, 3, 4):
        label(axes, float(place(np.array(value))), 132, str(value))
    return figure


# --- Think out loud ------------------------------------------------------------------------------


def shell_game() -> Figure:
    """Draw six cups, two balls and three swaps, with the state that a thought writes down."""
    figure, axes = canvas(228)
    swaps, balls = [(2, 6), (1, 4), (4, 6)], {2, 5}
    left, step, top, row = 34.0, 38.0, 26.0, 54.0
    for time in range(len(swaps) + 1):
        y = top + time * row
        for cup in range(1, 7):
            x = left + (cup - 1) * step
            color = PALETTE["blue"] if cup in balls else "none"
            axes.plot(x, y, "o", markersize=15, markerfacecolor=color, markeredgecolor=INK)
            if time == 0:
                label(axes, x, y - 18, str(cup))
        state = " and ".join(str(cup) for cup in sorted(balls))
        label(axes, 268, y, state, ha="left", weight="bold", color=PALETTE["blue"])
        if time == len(swaps):
            break
        a, b = swaps[time]
        for cup in range(1, 7):
            goal = {a: b, b: a}.get(cup, cup)
            ends = [left + (cup - 1) * step, left + (goal - 1) * step]
            carries = cup in balls
            axes.plot(
                ends,
                [y + 9, y + row - 9],
                color=PALETTE["blue"] if carries else INK,
                linewidth=2 if carries else 0.8,
                alpha=1 if carries else 0.5,
            )
        balls = {{a: b, b: a}.get(cup, cup) for cup in balls}
        label(axes, 268, y + row / 2, f"swap {a} and {b}", ha="left", fontsize=10)
    label(axes, WIDTH / 2, 214, "right: what a written thought says after each swap", fontsize=10.5)
    return figure


def distillation_steps() -> Figure:
    """Draw the four steps of distillation: sample, verify, keep, imitate."""
    steps = [
        ("sample", "the teacher writes a thought\nand an answer", "blue"),
        ("verify", "a program checks the answer,\nor every step", "orange"),
        ("keep", "what is right stays,\nthe rest goes", "green"),
        ("imitate", "the student learns to write\nwhat was kept", "violet"),
    ]
    high, gap = 42.0, 16.0
    figure, axes = canvas(8 + len(steps) * (high + gap))
    for i, (name, text, color) in enumerate(steps):
        y = 6 + i * (high + gap)
        box(axes, 20, y, WIDTH - 40, high, edgecolor=PALETTE[color], linewidth=1.6)
        look = {"color": PALETTE[color], "weight": "bold", "ha": "left"}
        label(axes, 32, y + high / 2, f"{i + 1}  {name}", **look)
        label(axes, 122, y + high / 2, text, ha="left")
        if i + 1 < len(steps):
            arrow(axes, (WIDTH / 2, y + high), (WIDTH / 2, y + high + gap))
    return figure


def grpo_clip() -> Figure:
    """Draw what a token contributes to GRPO's objective against its ratio, for both signs."""
    low, high = 0.2, 0.28
    with mpl.rc_context(RC):
        figure = Figure(figsize=(5.0, 2.9))
        for i, (advantage, color) in enumerate(((1.0, "blue"), (-1.0, "red"))):
            axes = figure.add_subplot(1, 2, i + 1)
            ratio = np.linspace(0, 2, 401)
            plain = ratio * advantage
            kept = np.minimum(plain, np.clip(ratio, 1 - low, 1 + high) * advantage)
            axes.plot(ratio, plain, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.plot(ratio, kept, color=PALETTE[color])
            flat = kept != plain
            axes.axvspan(*(ratio[flat][[0, -1]]), color=INK, alpha=0.12, linewidth=0)
            axes.plot(1, advantage, "o", color=PALETTE[color])
            axes.set_title(
                "answer above the mean" if advantage > 0 else "answer below it", fontsize=11
            )
            axes.set_xlabel("ratio, new to old", fontsize=11)
            axes.set_xticks([0, 1 - low if advantage < 0 else 1 + high, 2])
            axes.set_ylim(*((0, 2) if advantage > 0 else (-2, 0)))
            if i == 0:
                axes.set_ylabel("objective of a token", fontsize=11)
    return figure


def verifier_table() -> Figure:
    """Draw the four cases of a verifier: truth by verdict, each with what training makes of it."""
    figure, axes = canvas(182)
    left, top, wide, high = 82.0, 40.0, 124.0, 62.0
    label(axes, left + wide + 3, 10, "the verifier")
    cells = [
        [
            ("accepts", "reward well earned", "green"),
            ("refuses", "a good answer\nis unlearned", "orange"),
        ],
        [
            ("accepts", "a hole: training\nwill find it", "red"),
            ("refuses", "no reward, as it\nshould be", "green"),
        ],
    ]
    for row, name in enumerate(("answer\nis right", "answer\nis wrong")):
        y = top + row * (high + 6)
        label(axes, 40, y + high / 2, name)
        for column, (verdict, text, color) in enumerate(cells[row]):
            x = left + column * (wide + 6)
            box(axes, x, y, wide, high, facecolor=_tint(PALETTE[color]), edgecolor=PALETTE[color])
            label(axes, x + wide / 2, y + high / 2, text)
            if row == 0:
                label(axes, x + wide / 2, 28, verdict)
    return figure


# --- Move less memory ----------------------------------------------------------------------------


def cached_vectors() -> Figure:
    """Draw what one token leaves in one layer: by head, by group, once, and as one latent."""
    figure, axes = canvas(262)
    kinds = [("MHA", 8), ("GQA", 2), ("MQA", 1)]
    left, wide, gap = 92.0, 24.0, 5.0
    for row, (name, n_kept) in enumerate(kinds):
        y = 26 + row * 58
        label(axes, 8, y + 15, name, ha="left", weight="bold")
        for head in range(8):
            x = left + head * (wide + gap)
            axes.plot(x + wide / 2, y - 4, "o", markersize=5, color=INK)
            span = 8 // n_kept
            if head % span == 0:
                across = span * (wide + gap) - gap
                box(axes, x, y + 4, across, 11, facecolor=PALETTE["blue"], linewidth=0)
                box(axes, x, y + 19, across, 11, facecolor=PALETTE["orange"], linewidth=0)
    label(axes, left + 4 * (wide + gap), 8, "eight heads")
    y = 204
    label(axes, 8, y + 8, "MLA", ha="left", weight="bold")
    for head in range(8):
        x = left + head * (wide + gap) + wide / 2
        axes.plot(x, y - 4, "o", markersize=5, color=INK)
        axes.plot([x, left + 40], [y - 1, y + 14], color=PALETTE["green"], linewidth=0.8)
    box(axes, left, y + 14, 80, 11, facecolor=PALETTE["green"], linewidth=0)
    box(axes, left + 88, y + 14, 26, 11, facecolor=PALETTE["violet"], linewidth=0)
    label(axes, left, y + 42, "one latent", ha="left", color=PALETTE["green"])
    label(axes, left + 88, y + 42, "rotary key", ha="left", color=PALETTE["violet"])
    label(axes, 240, y + 18, "keys", ha="left", color=PALETTE["blue"])
    label(axes, 280, y + 18, "values", ha="left", color=PALETTE["orange"])
    return figure


def verified_draft() -> Figure:
    """Draw one step of speculative decoding: four guessed tokens, two kept, one of the model."""
    figure, axes = canvas(196)
    words = ["the", "cat", "sat", "on", "a"]
    own = ["cat", "sat", "in"]
    left, wide, step = 14.0, 54.0, 64.0
    label(axes, left, 10, "written", ha="left")
    label(axes, left + step, 10, "drafted, cheaply", ha="left", color=PALETTE["orange"])
    for i, word in enumerate(words):
        color = INK if i == 0 else PALETTE["orange"]
        box(axes, left + i * step, 22, wide, 24, edgecolor=color, linewidth=1.4)
        label(axes, left + i * step + wide / 2, 34, word, color=color)
        arrow(axes, (left + i * step + wide / 2, 46), (left + i * step + wide / 2, 66))
    box(axes, left, 66, 4 * step + wide, 24)
    label(axes, WIDTH / 2, 78, "the model reads all of them in one step")
    for i, word in enumerate(own):
        x = left + i * step
        arrow(axes, (x + wide / 2, 90), (x + wide / 2, 112))
        good = i < 2
        color = PALETTE["green"] if good else PALETTE["red"]
        box(axes, x, 112, wide, 24, edgecolor=color, linewidth=1.4)
        label(axes, x + wide / 2, 124, word, color=color)
        label(
            axes, x + wide / 2, 148, "as drafted" if good else "differs", color=color, fontsize=10
        )
    label(axes, left + 3 * step + 4, 124, "not used", ha="left")
    label(axes, WIDTH / 2, 178, "three tokens in one step; the next draft begins after them")
    return figure


DRAWINGS: Final = {
    "cached_vectors": Drawing(
        cached_vectors,
        "Four rows for what a token leaves. With MHA each of eight heads has a key and a value, "
        "with GQA four heads share one pair, with MQA all share one. With MLA all heads are "
        "joined to one short latent, and a small rotary key stands beside it.",
    ),
    "verified_draft": Drawing(
        verified_draft,
        "One written token and four drafted ones enter the model in one step. Below stand its own "
        "choices: the first two are as drafted, the third differs and replaces the draft, and "
        "what was drafted after it is not used.",
    ),
    "cost_left_out": Drawing(
        cost_left_out,
        "A solid rectangle, hours wide and dollars an hour high, is the final run with its bill. "
        "Around it stand dashed boxes for what the bill leaves out: research and trial runs, "
        "salaries, data, earlier models, and chips that are owned and not used here.",
    ),
    "nodes": Drawing(
        nodes,
        "Eight boxes, the nodes, with eight GPUs each. A thick bar joins the GPUs inside a node, "
        "NVLink; a thin line joins the nodes, InfiniBand, with less than a third of its bandwidth.",
    ),
    "mixture_layer": Drawing(
        mixture_layer,
        "A token goes to a router, which lights eight squares in a grid of two hundred and "
        "fifty-six; the others stay empty. A shared expert beside the grid always works. Lines "
        "from the lit squares and the shared one meet in a weighted sum.",
    ),
    "number_combs": Drawing(
        number_combs,
        "Two combs of ticks from 1 to 4. E4M3 has seventeen, and the gaps double after 2. BF16 "
        "has so many that they nearly touch.",
    ),
    "tiles": Drawing(
        tiles,
        "Three matrix products, one to a row. Activations and gradients are striped in tiles one "
        "number high, or one wide in the product for the weights; the weights are in squares.",
    ),
    "accumulator": Drawing(
        accumulator,
        "Products in four groups of a hundred and twenty-eight flow into four short accumulators "
        "of fourteen bits. Each is emptied into one long sum in float32.",
    ),
    "shell_game": Drawing(
        shell_game,
        "Six cups in four rows, with lines that follow them through three swaps. Two balls start "
        "under cups 2 and 5 and end under 4 and 5; the state after each swap is written beside.",
    ),
    "distillation_steps": Drawing(
        distillation_steps,
        "Four boxes, one below the other, joined by arrows: sample, verify, keep, imitate.",
    ),
    "grpo_clip": Drawing(
        grpo_clip,
        "Two curves of the objective against the ratio. For an answer above the mean it rises and "
        "is flat beyond 1.28; for one below the mean it is flat under 0.8 and falls after that.",
    ),
    "verifier_table": Drawing(
        verifier_table,
        "A table of two by two. Right and accepted: a reward well earned. Right and refused: a "
        "good answer is unlearned. Wrong and accepted: a hole that training will find. Wrong and "
        "refused: as it should be.",
    ),
}
"""All drawings by name."""
