"""What every notebook does first."""

import numpy as np
import torch

from slingshot.pages import figures


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
