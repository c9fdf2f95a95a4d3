"""How the comparisons of this directory are timed.

All contestants do the same work in one process. Rounds go through them in turn, each round in the
opposite order of the last, so that a machine that slows down slows all alike. The median over the
rounds counts. CPU time shows the work, wall time what a user waits.
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.common import console

console.prepare("make setup-dev")

import torch  # noqa: E402
import transformers  # noqa: E402

SEED = 0


class Seconds(NamedTuple):
    """Duration of one call."""

    cpu: float
    wall: float


def interleave(
    contestants: Mapping[str, Callable[[], object]], rounds: int, calls: int = 1
) -> dict[str, Seconds]:
    """Return each contestant's median duration over ``rounds`` of ``calls`` calls."""
    timers = {name: partial(time_calls, call, calls) for name, call in contestants.items()}
    for timer in timers.values():
        timer()  # warm caches and allocators
    return {name: median(times) for name, times in in_turn(timers, rounds).items()}


def in_turn(timers: Mapping[str, Callable[[], Seconds]], rounds: int) -> dict[str, list[Seconds]]:
    """Return what each timer says in ``rounds``, each in the opposite order of the last."""
    times: dict[str, list[Seconds]] = {name: [] for name in timers}
    order = list(timers)
    for _ in range(rounds):
        for name in order:
            times[name].append(timers[name]())
        order.reverse()
    return times


def median(times: Sequence[Seconds]) -> Seconds:
    """Return the median of CPU time, and that of wall time."""
    return Seconds(
        statistics.median(each.cpu for each in times),
        statistics.median(each.wall for each in times),
    )


def beside(times: Sequence[Seconds], ours: Sequence[Seconds]) -> dict[str, Any]:
    """Return medians in seconds, and of the ratios of ``times`` to ``ours`` of the same round."""
    ratios = [
        Seconds(each.cpu / own.cpu, each.wall / own.wall)
        for each, own in zip(times, ours, strict=True)
    ]
    of_cpu = [ratio.cpu for ratio in ratios]
    return {
        **median(times)._asdict(),
        "ratio": median(ratios).cpu,
        "spread": (min(of_cpu), max(of_cpu)),
        "wall_ratio": median(ratios).wall,
    }


def time_calls(call: Callable[[], object], calls: int) -> Seconds:
    """Return the mean duration of one of ``calls`` calls."""
    gc.collect()
    gc.disable()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    seconds = Seconds((time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls)
    gc.enable()
    return seconds


def parse_arguments(description: str, rounds: int) -> argparse.Namespace:
    """Read ``--rounds``, ``--threads`` and ``--json``; a bad value ends the program in one line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--rounds", type=_positive, default=rounds, help="timings of each (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=_positive, default=1, help="torch's threads (default: %(default)s)"
    )
    parser.add_argument(
        "--json",
        type=_writable,
        metavar="FILE",
        help="also write the results to FILE; a notebook reads those in src/slingshot/stored",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments


def machine_limits(rounds: int) -> dict[str, float]:
    """Return how many bytes a second a core reads, and how many operations it does in float32."""
    matrix, vector = torch.randn(8192, 8192), torch.randn(8192)
    square = torch.randn(1024, 1024)
    times = interleave(
        {"bandwidth": lambda: matrix @ vector, "flops": lambda: square @ square}, rounds
    )
    return {
        "bandwidth": matrix.numel() * 4 / times["bandwidth"].cpu,
        "flops": 2 * 1024**3 / times["flops"].cpu,
    }


def describe_machine() -> dict[str, str | int]:
    """Return what the figures depend on: processor, threads and versions."""
    return {
        "CPU": _cpu_name(),
        "threads": torch.get_num_threads(),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def print_machine() -> None:
    """Print `describe_machine`, a line each."""
    print("\n".join(f"{name}: {value}" for name, value in describe_machine().items()))


def write_report(file: Path | None, rounds: int, rows: list[dict[str, Any]]) -> None:
    """Write the rows with the machine that they were measured on, if ``file`` is given."""
    if file:
        report = {"machine": describe_machine(), "rounds": rounds, "rows": rows}
        file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _writable(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a directory; give a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{str(path.parent)!r} does not exist; create it first")
    return path


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
