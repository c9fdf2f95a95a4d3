"""What every notebook does first, and the stored results and measurements that it reads."""

import importlib.resources
import json
from typing import Any

import numpy as np
import torch

from slingshot import figures


def setup(threads: int = 1) -> None:
    """Fix the look of figures, the number of threads and the way numbers are printed.

    A sum of floats depends on how it is split over threads, so ``threads`` is fixed and not taken
    from the machine. One is the default: the models here are small, and a thread that waits for
    another costs more than it gains. Raises ``ValueError`` when it is below 1.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}; give at least 1")
    figures.style()
    torch.set_num_threads(threads)
    np.set_printoptions(precision=3, suppress=True, linewidth=100)
    torch.set_printoptions(precision=3, sci_mode=False, linewidth=100)  # type: ignore[no-untyped-call]


def stored_results(experiment: str) -> dict[str, dict[str, Any]]:
    """Return what ``experiment`` stored: by run its ``"configuration"`` and its ``"result"``.

    The name of a run is followed by its seed, as in ``"dense/0"``. Raises ``ValueError`` naming the
    experiments that are stored when this one is not.
    """
    return _stored("experiments", experiment)


def stored_benchmark(name: str) -> dict[str, Any]:
    """Return what a benchmark measured: its ``"machine"``, its ``"rounds"`` and its ``"rows"``.

    Raises ``ValueError`` naming the benchmarks that are stored when this one is not.
    """
    return _stored("benchmarks", name)


def _stored(kind: str, name: str) -> dict[str, Any]:
    """Read a file of ``stored``, which is part of the package and so is there without a course."""
    files = (importlib.resources.files("slingshot") / "stored" / kind).iterdir()
    known = {file.name.removesuffix(".json"): file for file in files if file.name.endswith(".json")}
    if name not in known:
        raise ValueError(f"{name!r} is none of the stored {kind}; give {', '.join(sorted(known))}")
    content: dict[str, Any] = json.loads(known[name].read_text("utf-8"))
    return content
