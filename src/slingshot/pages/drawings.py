"""Drawings of the ideas of the course: a layer, a node, a tile, a clip; drawn by code.

Each function draws one, with the numbers that it is given, and returns the figure. ``DRAWINGS``
holds them by name, each with the words that say what is seen.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from slingshot import facts
from slingshot.pages.figures import INK, PALETTE, RC
from slingshot.results import stored_results

# Units are points. A phone shows a drawing of this width at nearly its size.
WIDTH: Final = 340.0


@dataclass(frozen=True)
class Drawing:
    """A drawing: the function that draws it, and what is seen in words."""

    draw: Callable[[], Figure]
    alt: str


def canvas(height: float, figure: Figure | None = None) -> tuple[Figure, Axes]:
    """Return an empty figure, ``WIDTH`` by ``height`` points, and its axes; y runs down.

    A ``figure`` that is given becomes so large, and is drawn on.
    """
    with mpl.rc_context({**RC, "figure.constrained_layout.use": False}):
        figure = figure or Figure()
        figure.set_size_inches(WIDTH / 72, height / 72)
        figure.set_facecolor("none")
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


def balance_loop() -> Figure:
    """Draw how a busy expert becomes busier, and the bias that works against it."""
    figure, axes = canvas(214)
    orange, blue = PALETTE["orange"], PALETTE["blue"]
    wide, high = 112.0, 26.0
    places = {
        "is asked more": (114.0, 16.0),
        "learns more": (218.0, 76.0),
        "scores higher": (114.0, 136.0),
    }
    for text, (x, y) in places.items():
        box(axes, x, y, wide, high, edgecolor=orange, linewidth=1.4)
        label(axes, x + wide / 2, y + high / 2, text)
    bend = {"color": orange, "connectionstyle": "arc3,rad=-0.3", "linewidth": 1.6}
    arrow(axes, (226, 29), (274, 76), **bend)
    arrow(axes, (274, 102), (226, 149), **bend)
    arrow(axes, (150, 136), (150, 42), color=orange, linewidth=1.6)
    box(axes, 8, 76, 96, high, edgecolor=blue, linewidth=1.4)
    label(axes, 56, 89, "bias", color=blue)
    arrow(axes, (114, 34), (56, 76), color=blue, connectionstyle="arc3,rad=0.3")
    arrow(axes, (56, 102), (114, 144), color=blue, connectionstyle="arc3,rad=0.3")
    label(axes, WIDTH / 2, 184, "left alone: more makes more", color=orange)
    label(axes, WIDTH / 2, 202, "too busy: the bias lowers the score", color=blue)
    return figure


def packed_gradient() -> Figure:
    """Draw the gradient of an index into packed weights, and that of weights taken apart."""
    n_experts, side, gap = 6, 20.0, 4.0
    figure, axes = canvas(306)
    orange, blue = PALETTE["orange"], PALETTE["blue"]
    left = (WIDTH - n_experts * (side + gap)) / 2

    def row(y: float, lit: set[int], color: str) -> None:
        for expert in range(n_experts):
            face = color if expert in lit else "none"
            box(axes, left + expert * (side + gap), y, side, side - 4, facecolor=face)

    label(axes, WIDTH / 2, 12, "gate_up[e]: a gradient for each expert,")
    label(axes, WIDTH / 2, 28, "as large as all of them, nearly all zeros")
    for expert in range(n_experts):
        row(44 + expert * 22, {expert}, orange)
    label(axes, WIDTH / 2, 190, "and all must be added up", color=orange)
    label(axes, WIDTH / 2, 228, "unbind: each gradient as large as its expert,")
    label(axes, WIDTH / 2, 244, "stacked once")
    row(262, set(range(n_experts)), blue)
    label(axes, WIDTH / 2, 292, "nothing to clear, nothing to add", color=blue)
    return figure


def loss_axis() -> Figure:
    """Draw the losses of five seeds for four models, a row each, on one axis."""
    mixture, routers = stored_results("mixture"), stored_results("routers")
    rows = {
        "dense, as many operations": (mixture.of("dense"), PALETTE["green"]),
        "mixture, learned router": (mixture.of("mixture 16"), PALETTE["orange"]),
        "dense, as many weights": (mixture.of("dense wide"), PALETTE["green"]),
        "mixture, a table of tokens": (routers.of("hashed"), PALETTE["blue"]),
    }
    high, left, right, least, most = 42.0, 20.0, WIDTH - 20.0, 2.62, 2.86
    figure, axes = canvas(len(rows) * high + 44)

    def place(loss: Any) -> Any:  # noqa: ANN401 a number or an array
        return left + (loss - least) / (most - least) * (right - left)

    for number, (name, (results, color)) in enumerate(rows.items()):
        losses = np.array([result["held_out_loss"] for result in results])
        y = 28 + number * high
        mean = float(losses.mean())
        label(axes, left, y - 16, f"{name}: {mean:.3f}", ha="left", color=color)
        axes.plot([left, right], [y, y], color=INK, linewidth=0.5, alpha=0.5)
        axes.plot(place(losses), np.full(len(losses), y), "o", color=color, markersize=4, alpha=0.5)
        axes.plot([place(mean)] * 2, [y - 7, y + 7], color=color, linewidth=2.4)
    foot = len(rows) * high + 6
    for tick in (2.65, 2.7, 2.75, 2.8, 2.85):
        label(axes, place(tick), foot + 10, f"{tick:.2f}", fontsize=10)
    label(axes, WIDTH / 2, foot + 28, "held-out loss, nats per token; lower is better", fontsize=10)
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


def _money(axes: Axes, rows: list[tuple[str, float, str]], top: float) -> None:
    """Draw sums of money on one logarithmic axis; filled dots of one color may be divided.

    A row is its words, its dollars, and a color, or "orange ring" for a sum at a price of its own.
    """
    left, right, step = 30.0, WIDTH - 30.0, 27.0

    def place(dollars: float) -> float:
        return left + float(np.log10(dollars / 1e6)) / 6 * (right - left)

    bottom = top + step * len(rows) + 4
    axes.plot([left, right], [bottom, bottom], color=INK, linewidth=0.8)
    for power in (1e6, 1e9, 1e12):
        x = place(power)
        axes.plot([x, x], [bottom - 6, bottom], color=INK, linewidth=0.8)
        label(axes, x, bottom + 12, facts.format_value(int(power), "USD").replace(".00", ""))
    for row, (text, dollars, color) in enumerate(rows):
        x, y = place(dollars), top + step * row + 6
        side = "left" if x < WIDTH / 2 else "right"
        own = color.endswith(" ring")
        color = PALETTE[color.removesuffix(" ring")]
        inside = "none" if own else color
        axes.plot(x, y, "o", color=color, markersize=9, markerfacecolor=inside)
        label(axes, x + (9 if side == "left" else -9), y, text, ha=side, color=color)


def three_sums() -> Figure:
    """Draw the three sums of the story on one axis: a rent, a lower bound, a plan."""
    figure, axes = canvas(126)
    rows = [
        ("V3's run: a rent", facts.value("v3.cost.total"), "orange"),
        ("GPT-4: a lower bound", facts.value("gpt4.cost.altman"), "green"),
        ("Stargate: a plan", facts.value("stargate.pledge"), "blue"),
    ]
    _money(axes, rows, 14)
    return figure


def five_sums(rent: float, figure: Figure | None = None) -> Figure:
    """Draw five sums of the story on one axis, those that are rented at ``rent`` dollars an hour.

    Sums of one kind have one color. The estimate for GPT-4 has a rent of its own, and is a ring.
    """
    figure, axes = canvas(168, figure)
    gpus = facts.value("v3.gpus") * facts.value("chip.h100.price")
    rows = [
        ("V3's run, rented", facts.value("v3.gpu_hours.total") * rent, "orange"),
        ("Llama 405B's run, rented", facts.value("llama405b.gpu_hours") * rent, "orange"),
        ("GPT-4's run, its own rent", facts.value("gpt4.cost.cloud"), "orange ring"),
        ("V3's chips, bought", gpus, "violet"),
        ("Stargate, planned", facts.value("stargate.pledge"), "blue"),
    ]
    _money(axes, rows, 6)
    return figure


def chip_family() -> Figure:
    """Draw how chips were made to fit a rule: the link cut first, then the arithmetic."""
    figure, axes = canvas(196)
    x = {"the chip": 62.0, "2022": 172.0, "2023": 282.0}
    for name, at in x.items():
        words = name if name == "the chip" else f"for the rule\nof {name}"
        label(axes, at, 16, words)
    chips = [("A100", 72, "the chip"), ("A800", 72, "2022"), ("H100", 132, "the chip")]
    chips += [("H800", 132, "2022"), ("H20", 132, "2023")]
    for name, y, column in chips:
        color = PALETTE["green" if column == "2023" else "blue"]
        box(axes, x[column] - 29, y - 16, 58, 32, edgecolor=color, facecolor=_tint(color))
        label(axes, x[column], y, name, weight="bold")
    for y, start, end in [(72, "the chip", "2022"), (132, "the chip", "2022")]:
        arrow(axes, (x[start] + 30, y), (x[end] - 30, y))
        label(axes, (x[start] + x[end]) / 2, y - 9, "link cut", fontsize=10)
    arrow(axes, (x["2022"] + 30, 132), (x["2023"] - 30, 132))
    label(axes, (x["2022"] + x["2023"]) / 2, 123, "less", fontsize=10)
    label(axes, (x["2022"] + x["2023"]) / 2, 142, "arithmetic", fontsize=10)
    label(axes, WIDTH / 2, 182, "the rule of 2023 catches all but the last", fontsize=11)
    return figure


def price_slopes() -> Figure:
    """Draw the price of input before and after each cut, on a logarithmic axis."""
    figure, axes = canvas(190)
    value = facts.value
    rate = value("fx.cny_per_usd.2023")
    cuts = [
        ("Qwen-Long", value("price.qwen_long.input.before"), value("price.qwen_long.input.after")),
        (
            "DeepSeek, cached",
            value("price.v25.input") * rate,
            value("price.v25.input.cached") * rate,
        ),
        (
            "DeepSeek, V3",
            value("price.v25.input") * rate,
            value("price.v3.input") * rate,
        ),
    ]

    def height(price: float) -> float:
        return 36 + float(np.log10(30 / price)) / 2.6 * 130

    for text, before, after in cuts:
        color = PALETTE["orange" if after > before else "blue"]
        axes.plot([120, 214], [height(before), height(after)], "o-", color=color)
        label(axes, 223, height(after), text, ha="left", color=color)
    for price in (20, 1, 0.1):
        label(axes, 82, height(price), f"RMB {price:g}", ha="right")
        axes.plot([88, 96], [height(price)] * 2, color=INK, linewidth=0.8)
    label(axes, 120, 14, "before")
    label(axes, 214, 14, "after")
    return figure


def paired_runs() -> Figure:
    """Draw why runs are compared in pairs: the seeds differ more than the two ways do."""
    figure, axes = canvas(178)
    seeds = [(52.0, "seed 0", 96.0), (120.0, "seed 1", 66.0), (188.0, "seed 2", 110.0)]
    gaps = [17.0, 20.0, 16.0]
    for (x, name, y), gap in zip(seeds, gaps, strict=True):
        axes.plot([x, x], [y, y + gap], color=INK, linewidth=1.2)
        axes.plot(x, y, "o", color=PALETTE["blue"], markersize=9)
        axes.plot(x, y + gap, "o", color=PALETTE["orange"], markersize=9)
        label(axes, x, 150, name)
    axes.plot([224, 224], [36, 140], color=INK, linewidth=0.8, alpha=0.4)
    for row, gap in enumerate(gaps):
        x = 262.0 + 20 * row
        axes.plot([x, x], [112, 112 - gap], color=INK, linewidth=3)
    axes.plot([242, 322], [112, 112], color=INK, linewidth=0.8)
    label(axes, 120, 16, "one run each:")
    label(axes, 120, 32, "the seeds lie far apart")
    label(axes, 282, 16, "their differences:")
    label(axes, 282, 32, "nearly equal")
    label(axes, 282, 126, "0")
    label(axes, 82, 170, "way A", color=PALETTE["blue"])
    label(axes, 158, 170, "way B", color=PALETTE["orange"])
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
    label(axes, 246, 101, "promoted", color=PALETTE["green"], fontsize=10)
    box(axes, 14, 118, 304, 28, edgecolor=PALETTE["green"], linewidth=1.6)
    label(axes, WIDTH / 2, 132, "sum of the parts in float32", color=PALETTE["green"])
    label(axes, WIDTH / 2, 168, "each part loses no more than 128 products can")
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


def eight_bits() -> Figure:
    """Draw the eight bits of one number of E4M3 in three colors, and what they say."""
    figure, axes = canvas(128)
    colors = [INK, *[PALETTE["blue"]] * 4, *[PALETTE["orange"]] * 3]
    side, left, gap = 30.0, 24.0, 12.0
    for i, (bit, color) in enumerate(zip("00111011", colors, strict=True)):
        x = left + i * side + gap * ((i > 0) + (i > 4))
        box(axes, x, 12, side, side, edgecolor=color, linewidth=1.6)
        label(axes, x + side / 2, 27, bit, color=color, fontsize=15)
    for x, name, meaning, color in (
        (left + side / 2, "sign", "+", INK),
        (left + gap + 3 * side, "exponent", "7 − 7 = 0", PALETTE["blue"]),
        (left + 2 * gap + 6.5 * side, "mantissa", "3 eighths", PALETTE["orange"]),
    ):
        label(axes, x, 56, name, color=color, fontsize=10.5)
        label(axes, x, 74, meaning, color=color, fontsize=10.5)
    label(axes, WIDTH / 2, 108, "+ (1 + 3/8) × 2⁰ = 1.375", fontsize=13)
    return figure


def two_outliers() -> Figure:
    """Draw two kinds of outliers in the input of a layer, and one that was spread by a rotation."""
    figure, axes = canvas(196)
    side, top, n_tokens, n_channels = 12.0, 40.0, 8, 7
    red, blue = PALETTE["red"], PALETTE["blue"]
    for i, (first, second) in enumerate(
        (("a channel,", "all tokens"), ("one token,", "one channel"), ("after a", "rotation"))
    ):
        left = 12 + i * 112
        label(axes, left, 12, first, ha="left", fontsize=10.5)
        label(axes, left, 27, second, ha="left", fontsize=10.5)
        for token in range(n_tokens):
            for channel in range(n_channels):
                large = (i == 0 and channel == 4) or (i == 1 and (token, channel) == (0, 4))
                color = _tint(red, 0.9) if large else _tint(blue, 0.18)
                if i == 2 and token == 0:
                    color = _tint(red, 0.4)
                x, y = left + channel * side, top + token * side
                box(axes, x, y, side - 1.5, side - 1.5, facecolor=color, linewidth=0)
    bottom = top + n_tokens * side
    for i, (first, second) in enumerate(
        (
            ("mended by", "SmoothQuant"),
            ("mended by a scale", "for each token"),
            ("64 numbers,", "an eighth as large"),
        )
    ):
        label(axes, 12 + i * 112, bottom + 14, first, ha="left", fontsize=10)
        label(axes, 12 + i * 112, bottom + 29, second, ha="left", fontsize=10)
    label(axes, 12, bottom + 50, "a row is a token, a column a channel", ha="left", fontsize=10)
    return figure


def nats_lost() -> Figure:
    """Draw what each way to round a pretrained model lost, as it is stored, on a log axis."""
    schemes = {
        "INT8, one scale": ("INT8 tensor", "red"),
        "INT8, a scale a token": ("INT8 row, token", "green"),
        "INT8, groups of 128": ("INT8 groups of 128", "blue"),
        "FP8, one scale": ("FP8 tensor", "red"),
        "FP8, a scale a token": ("FP8 row, token", "green"),
        "FP8, blocks of 128": ("FP8 blocks", "blue"),
        "NVFP4, blocks of 16": ("NVFP4", "blue"),
        "MXFP4, blocks of 32": ("MXFP4", "blue"),
    }
    stored = stored_results("quantized_llm")
    base = np.array(stored.of("float32")[0]["losses"])
    figure, axes = canvas(254)
    left, right, top, row = 136.0, WIDTH - 14.0, 20.0, 23.0

    def place(nats: float) -> float:
        return left + (math.log10(nats) + 2.3) / 2.6 * (right - left)

    bottom = top + len(schemes) * row
    for value, text in ((0.01, "0.01"), (0.1, "0.1"), (1.0, "1")):
        axes.plot([place(value)] * 2, [top - 8, bottom], color=INK, linewidth=0.5, alpha=0.4)
        label(axes, place(value), bottom + 12, text, fontsize=10)
    for i, (name, (run, color)) in enumerate(schemes.items()):
        lost = float((np.array(stored.of(run)[0]["losses"]) - base).mean())
        y = top + i * row
        label(axes, left - 8, y, name, ha="right", fontsize=10)
        axes.plot(place(lost), y, "o", color=PALETTE[color], markersize=8)
    label(axes, WIDTH - 14, bottom + 30, "nats lost per token (log scale)", ha="right", fontsize=10)
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
        y = 26.0 + row * 58
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


# --- Think out loud, continued -------------------------------------------------------------------


def two_threads() -> Figure:
    """Draw how a wrong state in a thought tells who follows the thought from who ignores it."""
    figure, axes = canvas(206)
    red, green = PALETTE["red"], PALETTE["green"]
    rows = [("start", "2 5"), ("swap 2 and 6", "6 5"), ("swap 1 and 4", "6 5")]
    rows.append(("swap 2 and 3", "6 5"))
    wrong = {1: "6 1", 2: "6 4", 3: "6 4"}
    for row, (name, state) in enumerate(rows):
        y = 20 + row * 38
        label(axes, 12, y, name, ha="left")
        label(axes, 160, y, state, color=green, weight="bold")
        if row in wrong:
            label(axes, 262, y, wrong[row], color=red, weight="bold")
        if row + 1 < len(rows):
            arrow(axes, (160, y + 9), (160, y + 28), color=green)
            start = (172, y + 6) if row == 0 else (262, y + 9)
            arrow(axes, start, (262, y + 28) if row else (250, y + 30), color=red)
    label(axes, 262, 40, "a wrong state", ha="left", fontsize=10, color=red)
    label(axes, 160, 164, "who ignores\nthe thought", color=green)
    label(axes, 262, 164, "who follows\nthe thought", color=red)
    label(axes, WIDTH / 2, 196, "the answer tells the two apart", fontsize=10.5)
    return figure


def thirty_squares() -> Figure:
    """Draw AIME's thirty problems as squares, and how much of one the models' gap is."""
    first, second = (facts.value(f"benchmark.aime2024.{m}") for m in ("r1", "o1"))
    n = int(facts.value("benchmark.aime2024.problems"))
    share = n * (first - second) / 100  # of one problem
    side, gap, left, top = 24.0, 6.0, 22.0, 14.0
    figure, axes = canvas(152)
    for problem in range(n):
        row, column = divmod(problem, 10)
        x, y = left + column * (side + gap), top + row * (side + gap)
        box(axes, x, y, side, side)
        if problem == n - 1:
            width = share * side
            box(axes, x, y, width, side, facecolor=PALETTE["red"], linewidth=0)
    label(axes, WIDTH / 2, 118, f"{n} squares: the problems of AIME 2024")
    text = f"red: the gap between R1 and o1, {share:.2f} of one"
    label(axes, WIDTH / 2, 138, text, color=PALETTE["red"])
    return figure


def ways_and_costs() -> Figure:
    """Draw what each way of teaching a student costs, and how many answers are then right."""
    results = stored_results("reasoning")
    budget = results.of("student, RL")[0]["budget"]
    ways = [
        ("distilled", "traces 3000", "green", "o"),
        ("RL", "student, RL", "orange", "s"),
        ("RL, teacher's bill", "student, RL, whole bill", "orange", "D"),
        ("RL, long base", "student, RL, better base", "blue", "^"),
    ]
    with mpl.rc_context({**RC, "figure.constrained_layout.use": False}):
        figure = Figure(figsize=(WIDTH / 72, 214 / 72))
        axes = figure.add_axes((0.15, 0.2, 0.82, 0.75))
    places = {"distilled": (1.25, 91), "RL": (1.25, 12), "RL, long base": (1.25, 77)}
    places["RL, teacher's bill"] = (3.0, 12)
    for name, run, color, mark in ways:
        for result, count in zip(results.of(run), results.counts(run), strict=True):
            cost = (result.get("rl_flops", 0.0) + result["flops"]) / budget
            axes.plot(cost, 100 * count.share, mark, color=PALETTE[color], markersize=7)
        axes.text(*places[name], name, color=PALETTE[color], fontsize=11)
    axes.set(xscale="log", xlim=(0.8, 20), ylim=(-3, 105), ylabel="percent right")
    axes.set_xlabel("operations after the base, in budgets of a student")
    axes.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.minorticks_off()
    for text in (axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels()):
        text.set_fontsize(10)
    return figure


def claim_paths() -> Figure:
    """Draw how a claim is sorted by two questions, and the verdicts that it can get."""
    figure, axes = canvas(286)
    blue, green, orange = PALETTE["blue"], PALETTE["green"], PALETTE["orange"]
    box(axes, 8, 8, 132, 26)
    label(axes, 74, 21, "a sentence")
    questions = [
        (66, "Can a reader\nredo the sum?", "computable", blue),
        (138, "Can a source\nsettle it?", "checkable", green),
    ]
    above = 34.0
    for y, question, kind, color in questions:
        arrow(axes, (74, above), (74, y))
        box(axes, 8, y, 132, 42, edgecolor=color, linewidth=1.6)
        label(axes, 74, y + 21, question, fontsize=10.5)
        arrow(axes, (140, y + 21), (206, y + 21), color=color)
        label(axes, 172, y + 13, "yes", fontsize=10, color=color)
        label(axes, 212, y + 21, kind, ha="left", color=color, weight="bold")
        above = y + 42
    arrow(axes, (74, above), (74, 210))
    label(axes, 86, 195, "no", ha="left", fontsize=10)
    label(axes, 86, 123, "no", ha="left", fontsize=10)
    label(axes, 74, 221, "opinion", color=orange, weight="bold")
    label(axes, WIDTH / 2, 250, "the verdict, as worded: confirmed, nuanced,", fontsize=10.5)
    label(axes, WIDTH / 2, 268, "contradicted or not checkable", fontsize=10.5)
    return figure


def decoding_step() -> Figure:
    """Draw one step of generation for a batch: weights read once, a cache for each."""
    n_conversations = 4
    figure, axes = canvas(268)
    blue, orange = PALETTE["blue"], PALETTE["orange"]
    box(axes, 8, 30, 324, 34, facecolor=_tint(orange), edgecolor=orange, linewidth=1.6)
    label(axes, WIDTH / 2, 16, "the weights: read once for all", color=orange)
    label(axes, WIDTH / 2, 47, "weights of the experts and of attention", fontsize=10.5)
    wide, gap = 72.0, 12.0
    for conversation in range(n_conversations):
        x = 8 + conversation * (wide + gap)
        middle = x + wide / 2
        arrow(axes, (middle, 64), (middle, 88), color=orange)
        box(axes, x, 88, wide, 26)
        label(axes, middle, 101, "a token", fontsize=10.5)
        # Caches of unlike length: conversations are.
        high = (52.0, 24.0, 40.0, 62.0)[conversation]
        arrow(axes, (middle, 142), (middle, 116), color=blue)
        box(axes, x + 14, 142, wide - 28, high, facecolor=_tint(blue, 0.4), edgecolor=blue)
    label(axes, WIDTH / 2, 220, "the caches: each read for its own token", color=blue)
    label(axes, WIDTH / 2, 242, "A larger batch shares the weights among more", fontsize=10.5)
    label(axes, WIDTH / 2, 258, "tokens. It shares no cache.", fontsize=10.5)
    return figure


DRAWINGS: Final = {
    "claim_paths": Drawing(
        claim_paths,
        "A sentence meets two questions, one below the other. If a reader can redo the sum it is "
        "computable; if not, but a source can settle it, checkable; if neither, an opinion. The "
        "verdict is confirmed, nuanced, contradicted or not checkable.",
    ),
    "decoding_step": Drawing(
        decoding_step,
        "A wide bar, the weights, has an arrow to each of four boxes, a token of each of four "
        "conversations. From below each box is reached by one arrow of its own, from its own "
        "cache; the caches are of unlike length.",
    ),
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
    "three_sums": Drawing(
        three_sums,
        "Three dots in three colors on a logarithmic axis of money: the rent of V3's run, a lower "
        "bound for GPT-4's training, and the plan of Stargate.",
    ),
    "chip_family": Drawing(
        chip_family,
        "Arrows lead from the A100 to the A800 and from the H100 to the H800, each with its link "
        "cut to fit the rule of 2022, and on to the H20, with less arithmetic to fit that of 2023.",
    ),
    "price_slopes": Drawing(
        price_slopes,
        "Slopes from the price of input before to that after, on a logarithmic axis. Qwen-Long "
        "falls steeply, DeepSeek's cached input less steeply, and V3's input rises a little.",
    ),
    "paired_runs": Drawing(
        paired_runs,
        "For each of three seeds a blue and an orange dot, close together, at heights that differ "
        "much from seed to seed. Beside them the three differences, bars of nearly equal length.",
    ),
    "loss_axis": Drawing(
        loss_axis,
        "Four rows of five dots on one axis of loss. The dense model with as many operations is "
        "highest. The mixture with a learned router is lower by about a tenth, the dense model "
        "with as many weights a little lower still, and the mixture with a table lowest.",
    ),
    "balance_loop": Drawing(
        balance_loop,
        "A circle of three boxes: an expert that is asked more learns more, scores higher and is "
        "asked more again. Beside it a box, the bias, reads how often the expert is asked and "
        "lowers its score.",
    ),
    "packed_gradient": Drawing(
        packed_gradient,
        "Above, six rows of six squares, each row with one filled square: the gradient of an index "
        "is as large as all weights. Below, one row of six filled squares: taken apart, each "
        "expert has a gradient of its own size.",
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
    "eight_bits": Drawing(
        eight_bits,
        "Eight boxes in a row: one for the sign, four for the exponent, three for the mantissa. "
        "They hold 0, 0111 and 011, and the number is 1.375.",
    ),
    "two_outliers": Drawing(
        two_outliers,
        "Three grids, a row for each token and a column for each channel. In the first one column "
        "is dark in all rows; in the second a single cell; in the third the whole first row is of "
        "a middle shade.",
    ),
    "nats_lost": Drawing(
        nats_lost,
        "Dots on a logarithmic axis of nats lost. INT8 with one scale, NVFP4 and MXFP4 lie far to "
        "the right; INT8 and FP8 with finer scales, and FP8 with one, lie at a few hundredths.",
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
    "two_threads": Drawing(
        two_threads,
        "A thought of three swaps as two threads. From the right state after the first swap one "
        "goes on to 6 5. From a wrong state the other goes on, rightly, to 6 4. An answer of 6 5 "
        "ignores the thought, one of 6 4 follows it.",
    ),
    "thirty_squares": Drawing(
        thirty_squares,
        "Thirty squares in three rows, one for each problem of AIME 2024. A strip of less than a "
        "fifth of the last square is red: the gap between R1 and o1.",
    ),
    "ways_and_costs": Drawing(
        ways_and_costs,
        "Points for three seeds each, percent right by operations. At one budget, distillation "
        "is near a hundred, reinforcement from a long base at ninety and from the short base at a "
        "guess; with the teacher's whole bill, thirteen budgets, still a guess.",
    ),
}
"""All drawings by name."""
