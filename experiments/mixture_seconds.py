"""How long a training step of each model takes, in one interleaved run on an otherwise idle core.

The seconds in the results of the experiment mixture were measured while another run had the other
core. Here the models take turns, so that a machine that slows down slows all alike. The notebook
sparse_vs_dense reads the result.
"""

import sys
from itertools import islice
from typing import Any

from _runner import Run, main
from mixture import arms, build, configuration, corpus

from slingshot.train import TrainConfig, train_language_model

MODELS = ("dense", "mixture 16", "mixture 32", "dense wide")
ROUNDS = 9
STEPS = 20  # a round: half a second to two seconds of each model


def runs() -> list[Run]:
    """One run, in which all models are timed."""
    settings = {name: configuration(seed=0, **arms()[name]) for name in MODELS}
    return [Run("interleaved", 0, {"models": settings, "rounds": ROUNDS, "steps": STEPS})]


def execute(run: Run) -> dict[str, Any]:
    """Train each model for a few steps in turn; CPU seconds per step, by model and round."""
    text = corpus().train
    built = {name: build(each) for name, each in run.configuration["models"].items()}
    seconds: dict[str, list[float]] = {name: [] for name in built}
    order = list(built)
    for _ in range(ROUNDS + 1):
        for name in order:
            model, _, balancing = built[name]
            history = train_language_model(
                model, text, TrainConfig(STEPS), balancing=balancing, progress=False
            )
            seconds[name].append(history.seconds / STEPS)
        order.reverse()
    # The first round warms caches and allocators.
    return {name: [round(s, 5) for s in islice(each, 1, None)] for name, each in seconds.items()}


if __name__ == "__main__":
    sys.exit(main("mixture_seconds", runs(), execute))
