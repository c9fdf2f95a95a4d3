"""What every notebook does first, so that it looks the same and says the same on each machine."""

import json
from pathlib import Path
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


def course_file(name: str) -> Path:
    """Return the path of a file of the course, such as ``"experiments/results/mixture.json"``.

    It is looked for beside the folder of the notebook, and then where the course lies, so that a
    notebook that was moved still finds it. Raises ``FileNotFoundError`` when there is none.
    """
    places = [Path.cwd().parent, Path(__file__).resolve().parents[2]]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(
        f"{name} is neither in {places[0]} nor in {places[1]}; run the notebook from the course"
    )


def stored_results(experiment: str) -> dict[str, dict[str, Any]]:
    """Return what ``experiment`` stored: by run its ``"configuration"`` and its ``"result"``.

    The name of a run is followed by its seed, as in ``"dense/0"``. Raises ``FileNotFoundError``
    when there is no file; `make experiments` makes it.
    """
    file = course_file(f"experiments/results/{experiment}.json")
    results: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return results
