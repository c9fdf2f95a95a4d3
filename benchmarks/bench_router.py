"""Time slingshot.moe.TopKRouter against DeepseekV3TopkRouter of transformers, forward pass only.

Both route the same tokens with the same weights in the same process. Rounds alternate between the
two and swap who goes first, so that a machine that slows down slows both; the median over the
rounds is printed. CPU time shows the work, wall time what a user waits. A ratio above 1 means that
slingshot takes longer; it checks its input for NaN, which the reference does not.
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from torch import Tensor
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

from slingshot.moe import TopKRouter

D_MODEL = 512
TOP_K = 8
N_GROUPS = 8
TOPK_GROUPS = 4
ROUTE_SCALE = 2.5
SEED = 0
THREADS = 1
# Each timing repeats the call until this many tokens are routed: long against the clock's step.
TOKENS_PER_TIMING = 16384


class Seconds(NamedTuple):
    """Duration of one call."""

    cpu: float
    wall: float


class Row(NamedTuple):
    """Median duration of one call of each router, in microseconds, for one shape."""

    n_tokens: int
    n_experts: int
    ours_cpu_us: float
    theirs_cpu_us: float
    cpu_ratio: float
    ours_wall_us: float
    theirs_wall_us: float
    wall_ratio: float


def main() -> None:
    """Parse the arguments, measure every shape, print the table, write the file if asked."""
    arguments = parse_arguments()
    torch.set_num_threads(THREADS)
    machine = describe_machine()
    print("\n".join(f"{name}: {value}" for name, value in machine.items()))
    print(
        f"d_model {D_MODEL}, top-{TOP_K} in {TOPK_GROUPS} of {N_GROUPS} groups, float32, no "
        f"gradients, median of {arguments.rounds} rounds, microseconds per call\n"
    )
    print(
        f"{'tokens':>6} {'experts':>7} | "
        f"{'CPU: slingshot':>14} {'transformers':>12} {'ratio':>6} | "
        f"{'wall: slingshot':>15} {'transformers':>12} {'ratio':>6}"
    )
    rows = []
    for n_experts in (64, 256):
        for n_tokens in (256, 2048):
            row = measure(n_tokens, n_experts, arguments.rounds)
            rows.append(row)
            print(
                f"{n_tokens:>6} {n_experts:>7} | {row.ours_cpu_us:>14.0f} "
                f"{row.theirs_cpu_us:>12.0f} {row.cpu_ratio:>6.2f} | {row.ours_wall_us:>15.0f} "
                f"{row.theirs_wall_us:>12.0f} {row.wall_ratio:>6.2f}"
            )
    if arguments.json:
        report = {
            "machine": machine,
            "rounds": arguments.rounds,
            "rows": [row._asdict() for row in rows],
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """Read ``--rounds`` and ``--json``; a bad value ends the program with one line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=positive, default=21, help="timings of each (default: 21)")
    parser.add_argument(
        "--json", type=writable, metavar="FILE", help="also write the results to FILE"
    )
    return parser.parse_args()


def positive(text: str) -> int:
    """Return ``text`` as an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds; give at least 1")
    return int(text)


def writable(text: str) -> Path:
    """Return ``text`` as the path of a file in a directory that exists."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a directory; give a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{str(path.parent)!r} does not exist; create it first")
    return path


def measure(n_tokens: int, n_experts: int, rounds: int) -> Row:
    """Time both routers on one shape, after checking that they give the same answer."""
    ours, theirs = make_routers(n_experts)
    x = torch.randn(n_tokens, D_MODEL, generator=torch.Generator().manual_seed(SEED))
    calls = max(1, TOKENS_PER_TIMING // n_tokens)
    with torch.inference_mode():
        check_same_answer(ours, theirs, x)
        timings: dict[str, list[Seconds]] = {"ours": [], "theirs": []}
        contestants: list[tuple[str, Callable[[Tensor], object]]] = [
            ("ours", ours),
            ("theirs", theirs),
        ]
        for _, router in contestants:
            time_calls(router, x, calls)
        for _ in range(rounds):
            for name, router in contestants:
                timings[name].append(time_calls(router, x, calls))
            contestants.reverse()
    cpu = {name: 1e6 * statistics.median(t.cpu for t in times) for name, times in timings.items()}
    wall = {name: 1e6 * statistics.median(t.wall for t in times) for name, times in timings.items()}
    return Row(
        n_tokens,
        n_experts,
        cpu["ours"],
        cpu["theirs"],
        cpu["ours"] / cpu["theirs"],
        wall["ours"],
        wall["theirs"],
        wall["ours"] / wall["theirs"],
    )


def make_routers(n_experts: int) -> tuple[TopKRouter, DeepseekV3TopkRouter]:
    """Return the two routers with the same random weight and bias."""
    torch.manual_seed(SEED)
    ours = TopKRouter(
        D_MODEL,
        n_experts,
        TOP_K,
        n_groups=N_GROUPS,
        topk_groups=TOPK_GROUPS,
        route_scale=ROUTE_SCALE,
    )
    torch.nn.init.normal_(ours.expert_bias, std=0.01)
    config = DeepseekV3Config(
        hidden_size=D_MODEL,
        n_routed_experts=n_experts,
        num_experts_per_tok=TOP_K,
        n_group=N_GROUPS,
        topk_group=TOPK_GROUPS,
        norm_topk_prob=True,
        routed_scaling_factor=ROUTE_SCALE,
    )
    theirs = DeepseekV3TopkRouter(config)
    theirs.load_state_dict({"weight": ours.weight, "e_score_correction_bias": ours.expert_bias})
    return ours, theirs


def check_same_answer(ours: TopKRouter, theirs: DeepseekV3TopkRouter, x: Tensor) -> None:
    """Exit unless both send nearly every token to the same experts with the same weights."""
    routing = ours(x)
    _, weights, experts = theirs(x)
    empty = torch.zeros_like(routing.scores)
    gap = empty.scatter(1, routing.experts, routing.weights) - empty.scatter(1, experts, weights)
    differing = int((gap.abs().amax(dim=1) > 1e-6).sum())
    # One token in a thousand may sit on a tie, which the two may break differently.
    if differing > len(x) / 1000:
        sys.exit(f"the two routers disagree on {differing} of {len(x)} tokens; nothing was timed")


def time_calls(router: Callable[[Tensor], object], x: Tensor, calls: int) -> Seconds:
    """Return the mean duration of one of ``calls`` calls."""
    gc.collect()
    gc.disable()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        router(x)
    seconds = Seconds((time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls)
    gc.enable()
    return seconds


def describe_machine() -> dict[str, str | int]:
    """Return what the figures depend on: processor, threads and versions."""
    return {
        "CPU": cpu_name(),
        "threads": torch.get_num_threads(),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
