"""A router that never learns whom to ask, beside the learned one of the experiment mixture.

Model, text, order of batches and first weights are those of the run "mixture 16" there, seed by
seed; only the router differs. The notebook sparse_vs_dense reads the results.
"""

import sys
from typing import Any

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from mixture import MIXTURE, SEEDS, build, configuration, corpus, in_blocks
from torch import Tensor

from slingshot import sizes
from slingshot.lm import DecoderLM
from slingshot.moe import HashRouter, MoE, hash_table
from slingshot.train import token_losses, train_language_model


def runs() -> list[Run]:
    """One run for each seed."""
    return [
        Run("hashed", seed, configuration(MIXTURE, seed) | {"router": "token", "route_scale": 1.0})
        for seed in SEEDS
    ]


def execute(run: Run) -> dict[str, Any]:
    """Train one model and measure it on the held-out text."""
    text = corpus()
    settings = {name: run.configuration[name] for name in configuration(MIXTURE, run.seed)}
    model, train, balancing = build(settings)
    assert train is not None
    hash_tokens(model, text.train, run.seed)
    history = train_language_model(
        model, text.train, train, balancing=balancing, seed=run.seed, progress=False
    )
    assert history.loads is not None
    late = history.loads[int(0.7 * train.steps) :].double()
    losses = token_losses(model, text.held_out).double()
    count = sizes.count_parameters(model.config.sizes())
    return {
        "total": count.total,
        "active": count.active_without_embedding,
        "seconds": round(history.seconds, 1),
        "held_out_loss": round(losses.mean().item(), 5),
        "late_max_violation": [
            round(value, 3) for value in (late.amax(2) / late.mean(2) - 1).mean(0).tolist()
        ],
        "curve": in_blocks(torch.tensor(history.losses)),
    }


def hash_tokens(model: DecoderLM, text: Tensor, seed: int) -> None:
    """Give each mixture a table of its own, balanced on ``text``, and the learned router's gate."""
    counts = text.bincount(minlength=model.config.vocab_size)
    mixtures = [module for module in model.modules() if isinstance(module, MoE)]
    for layer, mixture in enumerate(mixtures):
        learned = mixture.router
        table = hash_table(counts, learned.n_experts, learned.top_k, seed=1000 * seed + layer)
        mixture.router = HashRouter(learned.d_model, learned.n_experts, table)
        mixture.router.load_state_dict({"weight": learned.weight}, strict=False)


if __name__ == "__main__":
    sys.exit(main("routers", runs(), execute))
