"""Schedules of a pipeline: the published bubbles, from a clock that knows nothing of formulas."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slingshot import pipeline
from slingshot.pipeline import Span, Task, Timeline, bubble_formula, simulate

NAMES: list[pipeline.ScheduleName] = ["1F1B", "ZB-H1", "DualPipe"]
times = st.integers(1, 9)  # whole, so that sums are exact


def test_the_table_of_v3s_sizes() -> None:
    """P = 8, F = W = 1, B = 2, no gain from overlap: 21, 7 and 6 units, on every device."""
    for name, bubble in zip(NAMES, [21, 7, 6], strict=True):
        line = simulate(name, 8, 20, forward=1, backward=2, weight=1)
        assert set(line.idle) == {bubble}
        assert bubble == bubble_formula(name, 8, forward=1, backward=2, weight=1)


@given(st.integers(1, 9), st.integers(0, 9), times, times, times)
def test_1f1b_is_its_formula(n: int, more: int, f: int, b: int, w: int) -> None:
    line = simulate("1F1B", n, n + more, forward=f, backward=b + w, weight=w)
    assert set(line.idle) == {bubble_formula("1F1B", n, forward=f, backward=b + w, weight=w)}


@given(st.integers(1, 9), st.integers(0, 9), times, times, st.data())
def test_zb_h1_is_its_formula(n: int, more: int, f: int, b: int, data: st.DataObject) -> None:
    w = data.draw(st.integers(0, min(f, b)))
    line = simulate("ZB-H1", n, n + more, forward=f, backward=b + w, weight=w)
    assert set(line.idle) == {bubble_formula("ZB-H1", n, forward=f, backward=b + w, weight=w)}


@given(st.integers(1, 5), st.integers(0, 5), times, st.data())
def test_dualpipe_is_its_formula(half: int, more: int, f: int, data: st.DataObject) -> None:
    n, w = 2 * half, data.draw(st.integers(0, f))
    line = simulate("DualPipe", n, 2 * n + 2 * more, forward=f, backward=f + w, weight=w)
    assert set(line.idle) == {bubble_formula("DualPipe", n, forward=f, backward=f + w, weight=w)}


@given(st.integers(2, 5), times, st.data())
def test_with_a_gain_the_formula_is_the_largest(half: int, f: int, data: st.DataObject) -> None:
    w = data.draw(st.integers(0, f))
    both = data.draw(st.integers(f + w, 2 * f + w))
    sizes = {"forward": f, "backward": f + w, "weight": w, "overlapped": both}
    line = simulate("DualPipe", 2 * half, 4 * half, **sizes)
    assert line.bubble == pytest.approx(bubble_formula("DualPipe", 2 * half, **sizes), abs=1e-9)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("ZB-H1", (1, 2.5, 1.1)), ("DualPipe", (1, 3, 1)), ("DualPipe", (2, 2, 1))],
)
def test_where_the_formula_does_not_hold(
    name: pipeline.ScheduleName, sizes: tuple[float, float, float]
) -> None:
    """Unstated conditions: so the docstring names them, and this is why."""
    keywords = dict(zip(("forward", "backward", "weight"), sizes, strict=True))
    line = simulate(name, 8, 20, **keywords)
    assert abs(line.bubble - bubble_formula(name, 8, **keywords)) > 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [2, 4, 8])
def test_every_microbatch_passes_every_stage_in_order(name: pipeline.ScheduleName, n: int) -> None:
    line = simulate(name, n, 2 * n + 4, forward=3, backward=5, weight=2)
    ends: dict[tuple[str, int, int, int], tuple[float, float]] = {}
    for device, spans in enumerate(line.devices):
        assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
        for span in spans:
            for kind, direction, microbatch in parts(span.task):
                stage = n - 1 - device if direction else device
                key = (kind, direction, microbatch, stage)
                assert key not in ends
                ends[key] = span.start, span.end
    halves = 2 if name == "DualPipe" else 1
    for direction in range(halves):
        for microbatch in range((2 * n + 4) // halves):
            for stage in range(n):
                check_one(ends, direction, microbatch, stage, n)


def parts(task: Task) -> list[tuple[str, int, int]]:
    if task.kind == "FB":
        return [("F", task.direction, task.microbatch), ("B", 1 - task.direction, task.other)]
    return [(task.kind, task.direction, task.microbatch)]


def check_one(
    ends: dict[tuple[str, int, int, int], tuple[float, float]],
    direction: int,
    microbatch: int,
    stage: int,
    n: int,
) -> None:
    """One forward and one whole backward, each after what it needs."""

    def at(kind: str, stage: int) -> tuple[float, float] | None:
        return ends.get((kind, direction, microbatch, stage))

    forward, full = at("F", stage), at("B", stage)
    inputs, weights = at("b", stage), at("w", stage)
    assert forward
    assert bool(full) != bool(inputs and weights)
    back = full or inputs
    assert back
    assert back[0] >= forward[1]
    if weights and inputs:
        assert weights[0] >= inputs[1]
    if stage:
        before = at("F", stage - 1)
        assert before
        assert forward[0] >= before[1]
    if stage < n - 1:
        after = at("B", stage + 1) or at("b", stage + 1)
        assert after
        assert back[0] >= after[1]


def test_memory_of_activations_is_that_of_1f1b() -> None:
    """ZB-H1 holds no more microbatches than 1F1B; a device of DualPipe one more than all stages."""
    n = 8
    for name, most in [("1F1B", n), ("ZB-H1", n), ("DualPipe", n + 1)]:
        line = simulate(name, n, 24, forward=1, backward=2, weight=1)  # type: ignore[arg-type]
        assert max(map(in_flight, line.devices)) == most


def in_flight(spans: tuple[Span, ...]) -> int:
    """The most microbatches whose forward is done, or begun, and whose backward is not."""
    held, most = 0, 0
    for span in spans:
        held += span.task.kind in ("F", "FB")
        most = max(most, held)
        held -= span.task.kind in ("B", "w", "FB")
    return most


def test_a_timeline_counts_what_is_idle() -> None:
    task = Task("F", 0)
    line = Timeline(((Span(task, 0, 2),), (Span(task, 1, 2), Span(task, 3, 4))))
    assert (line.seconds, line.idle, line.bubble, line.share) == (4, (2, 2), 2, 0.5)
    assert replace(line, devices=line.devices[:1]).bubble == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "GPipe"}, "schedule is 'GPipe'; give one of 1F1B, ZB-H1, DualPipe"),
        ({"n_stages": 0}, "n_stages is 0; give a whole number, at least 1"),
        ({"n_stages": 2.5}, "n_stages is 2.5; give a whole number"),
        ({"forward": 0}, "forward is 0; give a finite number above 0"),
        ({"backward": float("nan")}, "backward is nan"),
        ({"weight": -1}, "weight is -1; give a finite number, at least 0"),
        ({"weight": 3}, "weight is 3 and backward 2; weight is a part of backward"),
        ({"n_microbatches": 7}, "n_microbatches is 7 for 8 stages; 1F1B needs at least 8"),
        ({"schedule": "DualPipe", "n_microbatches": 14}, "DualPipe needs at least 16"),
        ({"schedule": "DualPipe", "n_stages": 7}, "DualPipe has 7 stages and 20 microbatches"),
        ({"schedule": "DualPipe", "n_microbatches": 21}, "even numbers"),
        ({"overlapped": 0}, "overlapped is 0"),
    ],
)
def test_what_cannot_be_is_named(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "schedule": "1F1B",
        "n_stages": 8,
        "n_microbatches": 20,
        "forward": 1,
        "backward": 2,
        "weight": 1,
    } | changes
    with pytest.raises(ValueError, match=message):
        simulate(**given)


@pytest.mark.parametrize(
    ("schedule", "weight", "overlapped"),
    [("ZB-H1", 2, None), ("DualPipe", 2, None), ("DualPipe", 1, 1e-6)],
)
def test_a_formula_below_zero_is_no_idle_time(
    schedule: pipeline.ScheduleName, weight: float, overlapped: float | None
) -> None:
    with pytest.raises(ValueError, match=f"the formula of {schedule} -"):
        bubble_formula(schedule, 8, forward=1, backward=2, weight=weight, overlapped=overlapped)


def test_a_time_is_checked_before_it_is_added() -> None:
    with pytest.raises(ValueError, match="forward is None"):
        bubble_formula("1F1B", 4, forward=None, backward=2, weight=1)  # type: ignore[arg-type]
    sizes = {"forward": 1, "backward": 2, "weight": 1}
    assert bubble_formula("1F1B", np.int8(100), **sizes) == 297  # type: ignore[arg-type]
