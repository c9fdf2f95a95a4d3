"""Time slingshot.formats against the casts of torch and ml_dtypes.

All convert the same float32 numbers to codes, codes back to float32, and there and back. A ratio
above 1 means that slingshot is faster. It is NumPy; torch's casts are vectorized for the processor.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import timing  # first, since it explains a missing package

# isort: split
import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray

from slingshot.formats import BF16, E4M3, E5M2, FloatFormat

N_ELEMENTS = 1_000_000
CONVERSIONS = ("encode", "decode", "round trip")


class Peers(NamedTuple):
    """One format, and the types that stand for it elsewhere."""

    fmt: FloatFormat
    torch: torch.dtype
    numpy: type


PEERS = (
    Peers(E4M3, torch.float8_e4m3fn, ml_dtypes.float8_e4m3fn),
    Peers(E5M2, torch.float8_e5m2, ml_dtypes.float8_e5m2),
    Peers(BF16, torch.bfloat16, ml_dtypes.bfloat16),
)


def main() -> None:
    """Measure every conversion, print the table, write the file if asked."""
    arguments = timing.parse_arguments("Time the number formats against other casts.", rounds=31)
    timing.print_machine()
    print(
        f"NumPy: {np.__version__}\nml_dtypes: {ml_dtypes.__version__}\n"
        f"{N_ELEMENTS:,} numbers from N(0, 1), float32, median of {arguments.rounds} rounds, "
        "milliseconds of CPU time per call\n"
    )
    print(
        f"{'format':>6} {'conversion':>10} | {'slingshot':>9} {'torch':>9} {'ml_dtypes':>9} | "
        f"{'ratio: torch':>12} {'ml_dtypes':>9}"
    )
    rows = []
    for peers in PEERS:
        for conversion in CONVERSIONS:
            rows.append(row := measure(peers, conversion, arguments.rounds))
            print(
                f"{row['format']:>6} {conversion:>10} | {row['slingshot']:>9.2f} "
                f"{row['torch']:>9.2f} {row['ml_dtypes']:>9.2f} | "
                f"{row['ratio_torch']:>12.2f} {row['ratio_ml_dtypes']:>9.2f}"
            )
    timing.write_report(arguments.json, arguments.rounds, rows)


def measure(peers: Peers, conversion: str, rounds: int) -> dict[str, Any]:
    """Time one conversion by all three, after checking that they give the same answer."""
    contestants = make_contestants(peers, conversion)
    check_same_answer(peers, conversion, contestants)
    seconds = timing.interleave(contestants, rounds)
    millis = {name: 1e3 * duration.cpu for name, duration in seconds.items()}
    ratios = {
        f"ratio_{name}": millis[name] / millis["slingshot"] for name in ("torch", "ml_dtypes")
    }
    return {"format": peers.fmt.name, "conversion": conversion, **millis, **ratios}


def make_contestants(peers: Peers, conversion: str) -> dict[str, Callable[[], Any]]:
    """Return one call for each contestant."""
    x = np.random.default_rng(timing.SEED).standard_normal(N_ELEMENTS, dtype=np.float32)
    tensor = torch.from_numpy(x)
    codes = peers.fmt.encode(x)
    if conversion == "encode":
        return {
            "slingshot": partial(peers.fmt.encode, x),
            "torch": partial(tensor.to, peers.torch),
            "ml_dtypes": partial(x.astype, peers.numpy),
        }
    if conversion == "decode":
        return {
            "slingshot": partial(peers.fmt.decode, codes),
            "torch": torch.from_numpy(codes).view(peers.torch).float,
            "ml_dtypes": partial(codes.view(peers.numpy).astype, np.float32),
        }
    return {
        "slingshot": partial(peers.fmt.round, x),
        "torch": lambda: tensor.to(peers.torch).float(),
        "ml_dtypes": lambda: x.astype(peers.numpy).astype(np.float32),
    }


def check_same_answer(
    peers: Peers, conversion: str, contestants: dict[str, Callable[[], Any]]
) -> None:
    """Exit unless all three return the same bits."""
    ours, *others = (as_bits(call()) for call in contestants.values())
    if any((other != ours).any() for other in others):
        sys.exit(f"{peers.fmt.name}, {conversion}: the answers differ; nothing was timed")


def as_bits(result: Any) -> NDArray[Any]:  # noqa: ANN401
    """View codes or numbers as integers, whoever made them."""
    if isinstance(result, torch.Tensor):
        kinds = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32}
        result = result.view(kinds[result.itemsize]).numpy()
    bits: NDArray[Any] = result.view(f"u{result.itemsize}")
    return bits


if __name__ == "__main__":
    main()
