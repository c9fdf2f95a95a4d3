"""Schedules of a pipeline, simulated: who waits for whom, and how long.

A model is cut into stages, one a device, and a batch into microbatches that follow each other
through them. A microbatch goes forward through all stages and then backward. A device that has
nothing to do yet, or nothing any more, is a bubble. A schedule is the order in which each device
does its work; here it is a list, and the rest is arithmetic.

The backward of a stage is two products: the gradient of its input, for which the stage before
waits, and the gradient of its weights, for which nobody waits. That is what ZB-H1 and DualPipe use.
Times are in any unit; messages between devices take none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from slingshot import require

ScheduleName = Literal["1F1B", "ZB-H1", "DualPipe"]
"""1F1B: one forward, one backward (Narayanan et al., arXiv 2104.04473). ZB-H1: zero bubble, with
the memory of 1F1B (Qi et al., arXiv 2401.10241). DualPipe: from both ends (arXiv 2412.19437)."""

Kind = Literal["F", "B", "b", "w", "FB"]
"""Forward; full backward; backward for the input; backward for the weights; F and B overlapped."""


class Task(NamedTuple):
    """A piece of work: ``microbatch`` in ``direction`` 0 (from device 0) or 1 (from the last).

    In a task ``"FB"`` the forward is of this microbatch, and the full backward is of
    ``other``, which travels in the other direction.
    """

    kind: Kind
    microbatch: int
    direction: int = 0
    other: int = 0


class Span(NamedTuple):
    """A task and when a device worked on it."""

    task: Task
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """What `simulate` returns: for each device its `Span` objects, in order of time."""

    devices: tuple[tuple[Span, ...], ...]

    @property
    def seconds(self) -> float:
        """When the last device is done; the first began at 0."""
        return max(spans[-1].end for spans in self.devices)

    @property
    def idle(self) -> tuple[float, ...]:
        """The bubble of each device: the time until all are done in which it did nothing."""
        return tuple(
            self.seconds - sum(span.end - span.start for span in spans) for spans in self.devices
        )

    @property
    def bubble(self) -> float:
        """The largest idle time of a device."""
        return max(self.idle)

    @property
    def share(self) -> float:
        """The bubble as a share of the time."""
        return self.bubble / self.seconds


def simulate(
    schedule: ScheduleName,
    n_stages: int,
    n_microbatches: int,
    *,
    forward: float,
    backward: float,
    weight: float,
    overlapped: float | None = None,
) -> Timeline:
    """Return when each of ``n_stages`` devices works on what, in one batch.

    A stage takes ``forward`` for the forward of a microbatch and ``backward`` for its full
    backward, of which ``weight`` is the gradient of the weights. DualPipe works on a forward and a
    backward at once where it can; the two take ``overlapped``, by default their sum, which is no
    gain.

    Raises ``ValueError`` for a schedule that is unknown, for times that cannot be, and for too few
    microbatches: 1F1B and ZB-H1 need one a stage, DualPipe two, and even numbers of both.
    """
    both = _check(schedule, n_stages, n_microbatches, forward, backward, weight, overlapped)
    orders = {"1F1B": _one_forward_one_backward, "ZB-H1": _zero_bubble, "DualPipe": _dual_pipe}
    order = [orders[schedule](device, n_stages, n_microbatches) for device in range(n_stages)]
    seconds: dict[Kind, float] = {
        "F": forward,
        "B": backward,
        "b": backward - weight,
        "w": weight,
        "FB": both,
    }
    return _run(order, seconds)


def bubble_formula(
    schedule: ScheduleName,
    n_stages: int,
    *,
    forward: float,
    backward: float,
    weight: float,
    overlapped: float | None = None,
) -> float:
    """Return the published bubble, the idle time of a device in one batch.

    1F1B: (P - 1)(F + B). ZB-H1: (P - 1)(F + B - 2W). DualPipe: (P/2 - 1)(F&B + B - 3W), where F&B
    is ``overlapped``. B is the full backward, W a part of it. Source: DeepSeek-V3, arXiv
    2412.19437, Table 2.

    `simulate` finds these very numbers, whatever the number of microbatches, under conditions that
    the table does not state. 1F1B: always. ZB-H1: W is at most F and at most B - W, or there is
    more to do late than there are gaps. DualPipe: F = B - W, and W is at most F; with a gain from
    overlap it is the idle time of the devices in the middle, and the largest.

    Raises ``ValueError`` as `simulate` does, and where the formula is below 0, which no idle time
    is: ``weight`` is then too large for it.
    """
    n_stages = require.whole("n_stages", n_stages, 1)
    both = _check(schedule, n_stages, 2 * n_stages, forward, backward, weight, overlapped)
    if schedule == "1F1B":
        idle = (n_stages - 1) * (forward + backward)
    elif schedule == "ZB-H1":
        idle = (n_stages - 1) * (forward + backward - 2 * weight)
    else:
        idle = (n_stages / 2 - 1) * (both + backward - 3 * weight)
    if idle < 0:
        raise ValueError(
            f"weight is {weight} and the formula of {schedule} {idle:.3g}; it does not hold there, "
            "use simulate"
        )
    return idle


# --- the three orders ----------------------------------------------------------------------------


def _one_forward_one_backward(device: int, n_stages: int, n_microbatches: int) -> list[Task]:
    """As many forwards as there are stages from here on, then one backward for one forward."""
    ahead = n_stages - device
    tasks = [Task("F", m) for m in range(ahead)]
    for m in range(n_microbatches):
        tasks.append(Task("B", m))
        if m + ahead < n_microbatches:
            tasks.append(Task("F", m + ahead))
    return tasks


def _zero_bubble(device: int, n_stages: int, n_microbatches: int) -> list[Task]:
    """1F1B, in which the gradients of weights wait: device p is at most p of them behind."""
    ahead, held_back = n_stages - device, device
    tasks = [Task("F", m) for m in range(ahead)]
    for m in range(n_microbatches):
        tasks.append(Task("b", m))
        if m >= held_back:
            tasks.append(Task("w", m - held_back))
        if m + ahead < n_microbatches:
            tasks.append(Task("F", m + ahead))
    rest = range(n_microbatches - held_back, n_microbatches)
    return [*tasks, *(Task("w", m) for m in rest)]


class _Writer:
    """Writes down the order of one device of DualPipe, in which both directions are numbered."""

    def __init__(self, turned: bool) -> None:
        self.turned = turned
        self.tasks: list[Task] = []
        self.waiting: list[tuple[int, int]] = []  # whose gradients of weights are held back
        self.done = {"F": [0, 0], "B": [0, 0]}

    def _next(self, kind: str, near: int) -> tuple[int, int]:
        """The next microbatch of a direction; ``near`` 0 is the one that begins nearer to us."""
        direction = near ^ self.turned
        self.done[kind][direction] += 1
        return self.done[kind][direction] - 1, direction

    def forward(self, near: int) -> None:
        self.tasks.append(Task("F", *self._next("F", near)))

    def backward(self, near: int, *, split: bool = False) -> None:
        microbatch, direction = self._next("B", near)
        self.tasks.append(Task("b" if split else "B", microbatch, direction))
        if split:
            self.waiting.append((microbatch, direction))

    def weight(self) -> None:
        self.tasks.append(Task("w", *self.waiting.pop(0)))

    def both(self, forward: int) -> None:
        microbatch, direction = self._next("F", forward)
        other, _ = self._next("B", 1 - forward)
        self.tasks.append(Task("FB", microbatch, direction, other))


def _dual_pipe(device: int, n_stages: int, n_microbatches: int) -> list[Task]:
    """The eight phases of DualPipe. Source: DeepSeek-V3, arXiv 2412.19437, §3.2.1 and Figure 5."""
    turned = device >= n_stages // 2
    inner = min(device, n_stages - 1 - device)  # 0 at both ends, largest in the middle
    ahead = n_stages // 2 - inner - 1
    write = _Writer(turned)
    for _ in range(2 * ahead):
        write.forward(0)
    for _ in range(inner + 1):
        write.forward(0)
        write.forward(1)
    for _ in range(ahead):
        write.backward(1, split=True)
        write.weight()
        write.forward(1)
    for step in range(n_microbatches // 2 - n_stages + inner + 1):
        if step == 0 and ahead == 0:  # in the middle the two would wait for each other
            write.forward(0)
            write.backward(1)
        else:
            write.both(0)
        write.both(1)
    for _ in range(ahead):
        write.backward(1)
        write.both(1)
    for step in range(inner + 1):
        turn = (inner + 1) // 2
        write.backward(1, split=step > turn or (step == turn and inner % 2 == 1))
        write.backward(0, split=step >= turn)
    for _ in range(ahead):
        write.weight()
        write.backward(0, split=True)
    while write.waiting:
        write.weight()
    return write.tasks


# --- the clock -----------------------------------------------------------------------------------


def _run(order: Sequence[Sequence[Task]], seconds: dict[Kind, float]) -> Timeline:
    """Let every device do its list in order, each task as soon as what it needs is there."""
    n = len(order)
    done: dict[tuple[str, int, int, int], float] = {}  # (F or b, direction, microbatch, stage)
    spans: list[list[Span]] = [[] for _ in range(n)]
    left = sum(map(len, order))
    while left:
        moved = False
        for device, tasks in enumerate(order):
            while len(spans[device]) < len(tasks):
                task = tasks[len(spans[device])]
                needs = [done.get(need, -1.0) for need in _needs(task, device, n)]
                if any(time < 0 for time in needs):
                    break
                free = spans[device][-1].end if spans[device] else 0.0
                start = max([free, *needs])
                end = start + seconds[task.kind]
                spans[device].append(Span(task, start, end))
                done.update(dict.fromkeys(_gives(task, device, n), end))
                left -= 1
                moved = True
        if not moved:
            raise RuntimeError("the devices wait for each other in a circle")
    return Timeline(tuple(map(tuple, spans)))


def _stage(device: int, direction: int, n: int) -> int:
    """Which stage of a direction a device holds: in direction 1 the last device is the first."""
    return n - 1 - device if direction else device


def _parts(task: Task) -> list[tuple[str, int, int]]:
    """The forward and backward halves of a task: (F, B, b or w; direction; microbatch)."""
    if task.kind == "FB":
        return [("F", task.direction, task.microbatch), ("B", 1 - task.direction, task.other)]
    return [(task.kind, task.direction, task.microbatch)]


def _needs(task: Task, device: int, n: int) -> list[tuple[str, int, int, int]]:
    """What must be done before: the stage before in a forward, the one after in a backward."""
    needs = []
    for kind, direction, microbatch in _parts(task):
        stage = _stage(device, direction, n)
        if kind == "F" and stage:
            needs.append(("F", direction, microbatch, stage - 1))
        if kind in ("B", "b"):
            needs.append(("F", direction, microbatch, stage))
            if stage < n - 1:
                needs.append(("b", direction, microbatch, stage + 1))
        if kind == "w":
            needs.append(("b", direction, microbatch, stage))
    return needs


def _gives(task: Task, device: int, n: int) -> list[tuple[str, int, int, int]]:
    return [
        ("F" if kind == "F" else "b", direction, microbatch, _stage(device, direction, n))
        for kind, direction, microbatch in _parts(task)
        if kind != "w"
    ]


def _check(
    schedule: str,
    n_stages: int,
    n_microbatches: int,
    forward: float,
    backward: float,
    weight: float,
    overlapped: float | None,
) -> float:
    """Refuse what cannot be; return what a forward and a backward at once take."""
    if schedule not in get_args(ScheduleName):
        raise ValueError(
            f"schedule is {schedule!r}; give one of {', '.join(get_args(ScheduleName))}"
        )
    require.counts(n_stages=n_stages, n_microbatches=n_microbatches)
    require.positive(forward=forward, backward=backward)
    both = forward + backward if overlapped is None else overlapped
    require.positive(overlapped=both)
    require.not_negative(weight=weight)
    if weight > backward:
        raise ValueError(
            f"weight is {weight} and backward {backward}; weight is a part of backward, give less"
        )
    two = schedule == "DualPipe"
    if two and (n_stages % 2 or n_microbatches % 2):
        raise ValueError(
            f"DualPipe has {n_stages} stages and {n_microbatches} microbatches; it works from both "
            "ends, give even numbers"
        )
    least = 2 * n_stages if two else n_stages
    if n_microbatches < least:
        raise ValueError(
            f"n_microbatches is {n_microbatches} for {n_stages} stages; {schedule} needs at least "
            f"{least} to fill them"
        )
    return both
