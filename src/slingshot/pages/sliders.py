"""Figures that the reader moves: sliders in Jupyter, and the same sliders on a page without it.

`explore` draws a figure at every point of a small grid. A live notebook shows it with ipywidgets.
The output that the notebook stores also holds a static twin: HTML with one SVG frame per point,
native range inputs and a short script. It needs no kernel, no network and no widget runtime.
"""

import functools
import hashlib
import importlib.resources
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from numpy.typing import NDArray

from slingshot.pages import figures

MAX_POINTS: Final = 60
"""A page carries every frame, and a frame weighs several kilobytes."""

# Stands for the figure's id until the id, which is a hash of the HTML, is known.
_ID: Final = "\ue000"


@dataclass(frozen=True)
class Axis:
    """One slider: its name, its values, and each value as the reader sees it."""

    name: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]

    @property
    def label(self) -> str:
        """The name as words: ``top_k`` reads "top k"."""
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class Frame:
    """The figure at one point, as matplotlib's SVG, and the sentence that says what it shows."""

    svg: str
    sentence: str

    def embed(self, prefix: str) -> str:
        """The frame as an ``<svg>`` element whose text alternative is the sentence."""
        return figures.embed_svg(self.svg, alt=self.sentence, prefix=prefix)


def explore(draw: Callable[..., str], /, **axes: Sequence[Any] | NDArray[Any]) -> "Explorer":
    """Draw a figure at every point of a grid, to be moved with one slider for each axis.

    ``draw(**point)`` opens one pyplot figure, draws, and returns a sentence that says what the
    figure shows at this point; the sentence is the text alternative. Each axis is a sequence of
    numbers, strings or booleans. Its keyword, with underscores as spaces, labels the slider:
    ``explore(plot_load, top_k=[1, 2, 4], balanced=[False, True])``.

    Let ``draw`` set the limits of its axes, or the picture jumps as the slider moves.

    Raises ``ValueError`` when an axis or the result of ``draw`` is not as said, or when the grid
    has more than 60 points.
    """
    if not axes:
        raise ValueError("explore needs an axis to move along, as in explore(draw, top_k=[1, 2])")
    grid = tuple(_axis(name, values) for name, values in axes.items())
    if (points := math.prod(len(axis.values) for axis in grid)) > MAX_POINTS:
        sizes = " × ".join(f"{len(axis.values)} ({axis.name})" for axis in grid)
        raise ValueError(f"{sizes} = {points} points, more than {MAX_POINTS}; give fewer values")
    return Explorer(draw, grid)


def _axis(name: str, values: Sequence[Any] | NDArray[Any]) -> Axis:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"axis {name} is {values!r}; give a sequence of values, such as a list")
    if not values:
        raise ValueError(f"axis {name} is empty ({values!r}); give at least one value")
    labels = tuple(_label(name, value) for value in values)
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"axis {name} shows two values as {repeated[0]!r}; let them differ")
    return Axis(name, tuple(values), labels)


def _label(name: str, value: object) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", "−")
    if isinstance(value, int):
        return str(value).replace("-", "−")
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError(f"axis {name} holds {value!r}; values are numbers, strings or booleans")


class Explorer:
    """What `explore` returns: a notebook displays it, and ``html`` is the static twin."""

    def __init__(self, draw: Callable[..., str], axes: tuple[Axis, ...]) -> None:
        """Draw every frame, the last axis moving fastest."""
        self.draw = draw
        self.axes = axes
        points = itertools.product(*(axis.values for axis in axes))
        self.frames = tuple(self._draw(point) for point in points)

    def _draw(self, point: tuple[Any, ...]) -> Frame:
        return _draw_frame(self.draw, dict(zip((a.name for a in self.axes), point, strict=True)))

    @functools.cached_property
    def html(self) -> str:
        """The static twin: the same bytes for the same frames, with ids that begin with a hash."""
        template = _page(self.axes, self.frames)
        digest = hashlib.sha256(template.encode()).hexdigest()[:10]
        return template.replace(_ID, f"explore-{digest}")

    def widget(self) -> ipywidgets.VBox:
        """The live figure. A point is drawn when the slider first reaches it, then remembered."""
        sliders = [
            ipywidgets.SelectionSlider(
                options=list(zip(axis.labels, range(len(axis.labels)), strict=True)),
                description=axis.label,
                style={"description_width": "initial"},
                layout={"width": "min(100%, 34rem)"},
            )
            for axis in self.axes
        ]
        picture = ipywidgets.HTML(layout={"width": "min(100%, 34rem)"})

        @functools.cache
        def picture_at(*position: int) -> str:
            # Drawn again, not taken from the twin: live, the figure follows the kernel's state.
            places = zip(self.axes, position, strict=True)
            frame = self._draw(tuple(axis.values[index] for axis, index in places))
            svg = frame.embed("-".join(["explore-live", picture.model_id, *map(str, position)]))
            return f"{svg}<p>{escape(frame.sentence)}</p>"

        def update(_change: object = None) -> None:
            picture.value = picture_at(*(slider.value for slider in sliders))

        for slider in sliders:
            slider.observe(update, names="value")
        update()
        return ipywidgets.VBox([*sliders, picture])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        names = ", ".join(f"{axis.label}: {', '.join(axis.labels)}" for axis in self.axes)
        bundle = {
            "text/plain": f"Figure to explore ({names}). {self.frames[0].sentence}",
            "text/html": self.html,
        }
        if getattr(get_ipython(), "kernel", None) is not None:
            live = self.widget()._repr_mimebundle_()
            bundle |= {mime: data for mime, data in live.items() if mime not in bundle}
        return bundle


def _draw_frame(draw: Callable[..., str], point: dict[str, Any]) -> Frame:
    """Call ``draw`` once, collect its figure and close it; leave other figures alone."""
    before = set(plt.get_fignums())
    try:
        sentence = draw(**point)
        opened = [number for number in plt.get_fignums() if number not in before]
        if len(opened) != 1:
            raise ValueError(
                f"draw opened {len(opened)} figures at {point}; it must open one, as with"
                " plt.subplots(), and neither show nor close it"
            )
        if not isinstance(sentence, str) or not sentence.strip():
            raise ValueError(
                f"draw returned {sentence!r} at {point}; return a sentence that says what the"
                " figure shows, for readers who cannot see it"
            )
        return Frame(figures.raw_svg(plt.figure(opened[0])), " ".join(sentence.split()))
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def _page(axes: tuple[Axis, ...], frames: tuple[Frame, ...]) -> str:
    """The HTML of the twin, with `_ID` where the figure's id goes."""
    controls = "\n".join(_control(axis, number) for number, axis in enumerate(axes))
    pictures = "\n".join(
        f'<div class="explore-frame"{" hidden" if number else ""}>{svg}</div>'
        for number, svg in enumerate(frame.embed(f"{_ID}-{n}") for n, frame in enumerate(frames))
    )
    # The script swaps the note for the controls: without it, dead sliders would be a riddle.
    return f"""<figure class="explore" data-explore="{_ID}">
<style>{_asset("explore.css")}</style>
<div class="explore-controls" hidden>
{controls}
</div>
{pictures}
<figcaption aria-live="polite">{escape(frames[0].sentence)}</figcaption>
<p class="explore-note">This is the first of {len(frames)} frames. The sliders need JavaScript; in
Jupyter, run the cell or trust the notebook.</p>
</figure>
<script>{_asset("explore.js")}</script>"""


def _control(axis: Axis, number: int) -> str:
    name = f"{_ID}-axis-{number}"
    labels = escape(json.dumps(axis.labels, ensure_ascii=False))
    first = escape(axis.labels[0])
    return (
        f'<label for="{name}">{escape(axis.label)}</label>'
        f'<input type="range" id="{name}" min="0" max="{len(axis.labels) - 1}" step="1" value="0"'
        f' aria-valuetext="{first}" data-labels="{labels}">'
        f'<output for="{name}" aria-live="off">{first}</output>'
    )


@functools.cache
def _asset(name: str) -> str:
    return (importlib.resources.files("slingshot") / "assets" / name).read_text("utf-8").strip()
