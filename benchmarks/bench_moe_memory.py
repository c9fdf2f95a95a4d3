"""Measure the memory that slingshot.moe.Experts needs beside its inputs and weights, and its peers.

The contestants and the work are those of bench_experts.py. Each allocation and release that torch
makes during one pass is recorded by its profiler; the peak is the largest sum of what is live.
Outputs count, and in training the gradients of tokens and weights, which every contestant must
return. What a matrix library allocates for itself does not count, for any of them.
"""

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

# The profiler otherwise announces each start and stop. It reads this when torch is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import bench_experts
import timing
import torch
from torch.profiler import ProfilerActivity, profile

MIB = 2**20


def main() -> None:
    """Check the measurement, measure every shape, print the table, write the file if asked."""
    arguments = timing.parse_arguments("Measure the memory of the experts.", rounds=1)
    timing.print_machine()
    check_known_allocations()
    names = [name for name in bench_experts.NAMES if name != "batched_mm"]
    print("\nfloat32, MiB at the peak of one pass, above inputs and weights; ratio to slingshot\n")
    print(f"{'tokens: d, E, k, width':>24} {'pass':>8} | " + " ".join(f"{n:>10}" for n in names))
    rows = []
    for (n_tokens, shape), backward in itertools.product(shapes(), (False, True)):
        row = measure(n_tokens, shape, backward)
        rows.append(row)
        label = f"{n_tokens}: {', '.join(map(str, shape))}"
        figures = " ".join(f"{row[name] / MIB:>10.1f}" for name in names)
        ratios = " ".join(f"{row[name] / row['slingshot']:>10.2f}" for name in names)
        print(f"{label:>24} {row['pass']:>8} | {figures}\n{'':>24} {'ratio':>8} | {ratios}")
    timing.write_report(arguments.json, arguments.rounds, rows)


def shapes() -> Iterator[tuple[int, bench_experts.Shape]]:
    """The shapes that bench_experts.py times; then the first with fewer tokens, E or k doubled."""
    many = bench_experts.MANY
    yield from ((many, shape) for shape in bench_experts.SHAPES)
    d_model, n_experts, top_k, width = bench_experts.SHAPES[0]
    yield many // 2, bench_experts.SHAPES[0]
    yield many, (d_model, 2 * n_experts, top_k, width)
    yield many, (d_model, n_experts, 2 * top_k, width)


def measure(n_tokens: int, shape: bench_experts.Shape, backward: bool) -> dict[str, Any]:
    """Return the peak bytes of every contestant on one shape."""
    modules = bench_experts.contestants(n_tokens, shape, backward)
    run = bench_experts.forward_and_backward if backward else bench_experts.forward
    peaks = {}
    for name, (module, call) in modules.items():
        for tensor in call.args:  # shared by all, so it may hold the gradient of the one before
            tensor.grad = None
        peaks[name] = peak_bytes(partial(run, module, call))
    label = "training" if backward else "forward"
    return {"n_tokens": n_tokens, "shape": shape, "pass": label, **peaks}


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the largest number of bytes that are live at one moment of the call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    assert record.profiler is not None
    events = record.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    changes.sort(key=lambda change: change[0])
    live: Iterator[int] = itertools.accumulate((size for _, size in changes), initial=0)
    return max(live)


def check_known_allocations() -> None:
    """Exit unless the peak of a few tensors of known size and life is what it must be."""

    def call() -> None:
        first = torch.empty(MIB, dtype=torch.uint8)
        del first
        second = torch.empty(3 * MIB, dtype=torch.uint8)
        third = second.clone()
        del second, third

    if (peak := peak_bytes(call)) != 6 * MIB:
        sys.exit(f"6 MiB were measured as {peak / MIB} MiB; nothing was measured")


if __name__ == "__main__":
    main()
