"""The check of ``idle_share``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from slingshot_exercises.checking import (
    UNIT_ROUNDOFF,
    Exercise,
    Learner,
    Mistake,
    Tolerance,
    number,
)
from slingshot_exercises.domain import Domain

Task = tuple[str, int]
Orders = Sequence[Sequence[Task]]
Done = Mapping[tuple[int, str, int], float]


def _times(forward: float, backward: float, weight: float) -> dict[str, float]:
    return {"F": forward, "B": backward, "b": backward - weight, "w": weight}


def _before(stage: int, task: Task, n_stages: int) -> list[tuple[int, str, int]]:
    """What a task needs from another stage; ``"b"`` stands for any backward that goes on."""
    kind, batch = task
    if kind == "F" and stage:
        return [(stage - 1, "F", batch)]
    if kind in ("B", "b") and stage < n_stages - 1:
        return [(stage + 1, "b", batch)]
    return []


def _clock(
    orders: Orders,
    seconds: Mapping[str, float],
    needs: Callable[[int, Task, int], list[tuple[int, str, int]]] = _before,
    gives: Mapping[str, str] = {"F": "F", "B": "b", "b": "b"},
) -> list[float]:
    """When each stage is done. Whatever waits in a circle is let go, for wrong needs."""
    done: dict[tuple[int, str, int], float] = {}
    free, at = [0.0] * len(orders), [0] * len(orders)
    while any(place < len(order) for place, order in zip(at, orders, strict=True)):
        moved = _advance(orders, seconds, needs, gives, done, free, at, stuck=False)
        if not moved:
            _advance(orders, seconds, needs, gives, done, free, at, stuck=True)
    return free


def _advance(
    orders: Orders,
    seconds: Mapping[str, float],
    needs: Callable[[int, Task, int], list[tuple[int, str, int]]],
    gives: Mapping[str, str],
    done: dict[tuple[int, str, int], float],
    free: list[float],
    at: list[int],
    *,
    stuck: bool,
) -> bool:
    """Do the next task of every stage that can; return whether any could."""
    moved = False
    for stage, order in enumerate(orders):
        if at[stage] == len(order):
            continue
        task = order[at[stage]]
        wanted = needs(stage, task, len(orders))
        if not stuck and any(need not in done for need in wanted):
            continue
        start = max([free[stage], *(done.get(need, 0.0) for need in wanted)])
        free[stage] = start + seconds[task[0]]
        if task[0] in gives:
            done[stage, gives[task[0]], task[1]] = free[stage]
        at[stage] += 1
        moved = True
    return moved


def _idle_with(
    times: Callable[[float, float, float], dict[str, float]] = _times,
    *,
    needs: Callable[[int, Task, int], list[tuple[int, str, int]]] = _before,
    gives: Mapping[str, str] = {"F": "F", "B": "b", "b": "b"},
    total: Callable[[list[float]], float] = max,
    share: Callable[[float, float], float] = lambda work, total: (total - work) / total,
) -> Callable[..., float]:
    """The share with one part exchanged; ``share(work, total)``, of a stage."""

    def idle_share(orders: Orders, forward: float, backward: float, weight: float) -> float:
        seconds = times(forward, backward, weight)
        ends = _clock(orders, seconds, needs, gives)
        return share(sum(seconds[kind] for kind, _ in orders[0]), total(ends))

    return idle_share


def _by_formula(bubble: Callable[[float, float], float]) -> Callable[..., float]:
    """The share by a formula, ``bubble(forward + backward, weight)`` for each stage but one."""

    def idle_share(orders: Orders, forward: float, backward: float, weight: float) -> float:
        n_microbatches = sum(kind == "F" for kind, _ in orders[0])
        idle = (len(orders) - 1) * bubble(forward + backward, weight)
        return idle / (idle + n_microbatches * (forward + backward))

    return idle_share


def _only(*kinds: str) -> Callable[[int, Task, int], list[tuple[int, str, int]]]:
    """Only these kinds wait for another stage."""
    return lambda stage, task, n: _before(stage, task, n) if task[0] in kinds else []


def _backward_from_before(stage: int, task: Task, n: int) -> list[tuple[int, str, int]]:
    if task[0] in ("B", "b"):
        return [(stage - 1, "b", task[1])] if stage else []
    return _before(stage, task, n)


def _weights_wait(stage: int, task: Task, n: int) -> list[tuple[int, str, int]]:
    if task[0] == "w" and stage < n - 1:
        return [(stage + 1, "w", task[1])]
    return _before(stage, task, n)


IDLE_SHARE = Exercise(
    "idle_share",
    _idle_with(),
    number,
    # Times are sums of eighths and so exact. What is left is a quotient, and a difference from 1.
    Tolerance(
        lambda case, expected: 8 * UNIT_ROUNDOFF,
        "eight roundings of numbers from 0 to 1; the times themselves are exact",
    ),
    [
        Mistake(
            "the full backward is taken for its half; `B` takes `backward`, of which `weight` is a "
            "part",
            _idle_with(
                lambda f, b, w: {"F": f, "B": b - w, "b": b - w, "w": w},
            ),
        ),
        Mistake(
            "`weight` comes on top of `backward`; it is a part of it, so `b` takes the difference",
            _idle_with(lambda f, b, w: {"F": f, "B": b, "b": b, "w": w}),
        ),
        Mistake(
            "`B` takes `backward` and `weight`; the second is a part of the first",
            _idle_with(lambda f, b, w: {"F": f, "B": b + w, "b": b, "w": w}),
        ),
        Mistake(
            "`b` and `w` take a half of `backward` each; `w` takes `weight`, and `b` the rest",
            _idle_with(lambda f, b, w: {"F": f, "B": b, "b": b / 2, "w": b / 2}),
        ),
        Mistake(
            "`b` and `w` are exchanged; `w` takes `weight`, and `b` the rest of `backward`",
            _idle_with(lambda f, b, w: {"F": f, "B": b, "b": w, "w": b - w}),
        ),
        Mistake(
            "no stage waits for another; a forward needs the stage before, a backward the one "
            "after",
            _idle_with(needs=_only()),
        ),
        Mistake(
            "a backward does not wait for the stage after it, or the last stage's end is taken for "
            "that of all; the `B` or `b` of the stage after it comes first",
            _idle_with(needs=_only("F")),
        ),
        Mistake(
            "a forward does not wait for the stage before it; that one's `F` comes first",
            _idle_with(needs=_only("B", "b")),
        ),
        Mistake(
            "only a full backward waits for the stage after it; `b` waits, too",
            _idle_with(needs=_only("F", "B")),
        ),
        Mistake(
            "a backward waits for the stage before it; it comes from the last stage, so it waits "
            "for the one after",
            _idle_with(needs=_backward_from_before),
        ),
        Mistake(
            "the stage before waits for `w`; nobody does, it waits for `b` or `B`",
            _idle_with(gives={"F": "F", "B": "b", "w": "b"}),
        ),
        Mistake(
            "a `w` waits for that of the stage after it; it needs its own `b` alone",
            _idle_with(needs=_weights_wait, gives={"F": "F", "B": "b", "b": "b", "w": "w"}),
        ),
        Mistake(
            "the pipeline is done when its first stage is; it is done when all stages are",
            _idle_with(total=lambda ends: ends[0]),
        ),
        Mistake(
            "the idle time is returned; return its share of the time until all are done",
            _idle_with(share=lambda work, total: total - work),
        ),
        Mistake(
            "the idle time is divided by the work; divide it by the time until all are done",
            _idle_with(share=lambda work, total: (total - work) / work),
        ),
        Mistake(
            "the share of work is returned; return the share of idle time, 1 less that",
            _idle_with(share=lambda work, total: work / total),
        ),
        Mistake(
            "the formula of 1F1B is used for every order; run the order that is given",
            _by_formula(lambda both, weight: both),
        ),
        Mistake(
            "the formula of ZB-H1 is used for every order; run the order that is given",
            _by_formula(lambda both, weight: both - 2 * weight),
        ),
    ],
    lesson="To the prediction: ZB-H1. With eight stages, eight microbatches, F = 1, B = 2 and "
    "W = 1, 1F1B is idle for 47% of the time. Twice the microbatches make that 30%, and ZB-H1 "
    "with eight makes it 23%.",
)


# --- orders --------------------------------------------------------------------------------------


def one_forward_one_backward(n_stages: int, n_microbatches: int) -> list[list[Task]]:
    """As many forwards as there are stages from here on, then one backward for one forward."""
    return _one_for_one(n_stages, n_microbatches, lambda stage, m: [("B", m)])


def zero_bubble(n_stages: int, n_microbatches: int) -> list[list[Task]]:
    """1F1B with weights that wait: ZB-H1 has stage p at most p of them behind."""

    def backward(stage: int, m: int) -> list[Task]:
        return [("b", m), *([("w", m - stage)] if m >= stage else [])]

    orders = _one_for_one(n_stages, n_microbatches, backward)
    for order in orders:
        done = {m for kind, m in order if kind == "w"}
        order += [("w", m) for m in range(n_microbatches) if m not in done]
    return orders


def _one_for_one(
    n_stages: int, n_microbatches: int, backward: Callable[[int, int], list[Task]]
) -> list[list[Task]]:
    orders = []
    for stage in range(n_stages):
        ahead = min(n_stages - stage, n_microbatches)
        order: list[Task] = [("F", m) for m in range(ahead)]
        for m in range(n_microbatches):
            order += backward(stage, m)
            if m + ahead < n_microbatches:
                order.append(("F", m + ahead))
        orders.append(order)
    return orders


def all_forward_first(
    n_stages: int, n_microbatches: int, *, last_first: bool = False, split: str = ""
) -> list[list[Task]]:
    """All forwards, then all backwards, in one piece or in two: weights at once or at the end."""
    batches = list(range(n_microbatches))
    back = batches[::-1] if last_first else batches
    order: list[Task] = [("F", m) for m in batches]
    if split == "at once":
        order += [(kind, m) for m in back for kind in ("b", "w")]
    elif split:
        order += [(kind, m) for kind in ("b", "w") for m in back]
    else:
        order += [("B", m) for m in back]
    return [list(order) for _ in range(n_stages)]


def mixed(n_stages: int, n_microbatches: int) -> list[list[Task]]:
    """1F1B in which every second stage splits its backward and does the weights at once."""
    plain = one_forward_one_backward(n_stages, n_microbatches)
    return [
        [
            each
            for kind, m in order
            for each in ([("b", m), ("w", m)] if kind == "B" and stage % 2 else [(kind, m)])
        ]
        for stage, order in enumerate(plain)
    ]


# --- the domain ----------------------------------------------------------------------------------

NAMES = ("orders", "forward", "backward", "weight")


def _case(orders: list[list[Task]], *times: float) -> dict[str, Any]:
    return dict(zip(NAMES, (orders, *times), strict=True))


def _timed(rng: np.random.Generator, orders: list[list[Task]]) -> dict[str, Any]:
    """An order with times of eighths: W is below F and far below the rest of B."""
    weight, more, most = (int(n) / 8 for n in rng.integers((4, 1, 3), (12, 6, 12)))
    return _case(orders, weight + more, 2 * weight + most, weight)


def _usual(rng: np.random.Generator) -> list[dict[str, Any]]:
    return [
        _case(one_forward_one_backward(2, 2), 1.0, 2.0, 0.75),
        _case(zero_bubble(2, 3), 1.0, 2.0, 0.75),
        _case(mixed(2, 2), 1.0, 2.0, 0.75),
        _timed(rng, one_forward_one_backward(4, 6)),
        _timed(rng, zero_bubble(4, 7)),
        _timed(rng, all_forward_first(3, 4, last_first=True)),
        _timed(rng, all_forward_first(3, 5, split="at the end")),
        _timed(rng, mixed(4, 5)),
    ]


def _whole(rng: np.random.Generator) -> list[dict[str, Any]]:
    times = [int(n) for n in rng.integers((2, 6, 1), (5, 9, 3))]
    return [_case(one_forward_one_backward(3, 4), *times), _case(zero_bubble(3, 4), *times)]


DOMAIN = Domain(
    "There is at least one stage and one microbatch. Every stage has each microbatch once, its `F` "
    "first, and then either `B`, or `b` and later `w`. Stages may differ in that. Orders can be "
    "done to their end. Times are above zero, and `weight` is below `backward`.",
    _usual,
    {
        "there is one stage": lambda rng: [
            _timed(rng, one_forward_one_backward(1, 3)),
            _timed(rng, zero_bubble(1, 3)),
        ],
        "there is one microbatch": lambda rng: [
            _timed(rng, one_forward_one_backward(4, 1)),
            _timed(rng, zero_bubble(4, 1)),
        ],
        "there are fewer microbatches than stages": lambda rng: [
            _timed(rng, one_forward_one_backward(5, 3)),
            _timed(rng, zero_bubble(5, 3)),
        ],
        "the weights take longer than a forward": lambda rng: [
            _case(zero_bubble(4, 8), 1.0, 3.0, 2.0),
            _case(zero_bubble(4, 8), 0.5, 4.0, 3.0 + int(rng.integers(1, 7)) / 8),
        ],
        "a forward takes longer than a backward": lambda rng: [
            _case(one_forward_one_backward(4, 6), 4.0, 1.5, 0.5),
            _case(zero_bubble(4, 6), 4.0, 1.5, 1.0),
        ],
        "the weights are done at once": lambda rng: [
            _timed(rng, all_forward_first(3, 4, split="at once")),
            _timed(rng, all_forward_first(4, 3, split="at once", last_first=True)),
        ],
        "only some stages split their backward": lambda rng: [
            _timed(rng, mixed(3, 4)),
            _timed(rng, mixed(5, 7)),
        ],
        "stages have different schedules": lambda rng: [
            _timed(rng, [*all_forward_first(2, 4), *one_forward_one_backward(4, 4)[2:]]),
            _timed(rng, [*all_forward_first(1, 3, split="at the end"), *zero_bubble(3, 3)[1:]]),
        ],
        "the pipeline is long": lambda rng: [_timed(rng, zero_bubble(8, 12))],
        "times are whole numbers": _whole,
        "the first stage is done before the last": lambda rng: [
            _case(
                [
                    [*zero_bubble(2, 2)[0]],
                    [("F", 0), ("F", 1), ("b", 0), ("b", 1), ("w", 0), ("w", 1)],
                ],
                1.0,
                8.0,
                7.0,
            )
        ],
    },
)


def check_idle_share(function: Learner, *, seed: int = 0) -> str:
    """Check ``idle_share(orders, forward, backward, weight)``: the bubble's share of the time.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2401.10241, §2, and
    arXiv 2412.19437, Table 2.
    """
    return DOMAIN.check(IDLE_SHARE, function, seed)
