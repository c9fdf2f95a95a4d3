"""Who is kept together, and size: two more tests of why a table of tokens beats a learned router.

A router that learns sends tokens that are alike to the same experts, and a table drawn by lot
scatters them. If scattering is the reason, a table that keeps them together falls behind. There are
two such tables. One goes by the neighbors that tokens have in the text. The other has for each
token the experts that a trained router chose for it most often, so it keeps together what that
router keeps together. A router also sends one token now to these experts and now to others. So a
third table is by lot and made unsteady: as often as the trained router leaves a token's usual
experts, it takes those of another token. The last arms repeat the comparison itself, learned router
against table by lot, in a model of twice the width and twice the layers, at the rate that was best
for the small one and at half of it.

All else is as in the experiment routers, seed by seed, whose arm "hashed" and "mixture 16" of the
experiment mixture are the other halves. The notebook sparse_vs_dense reads the results.
"""

import sys
from dataclasses import replace
from typing import Any, Final

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from mixture import BIAS, MIXTURE, SIXTEEN, build, configuration, corpus, held_out_choices
from routers import (
    WINDOW,
    described,
    hash_tokens,
    held_out_loss,
    learn,
    mixtures,
    replace_router,
)
from routers import execute as execute_router
from torch import Tensor
from torch.nn import functional as F

from slingshot.lm import DecoderLM
from slingshot.moe import HashRouter, Routing
from slingshot.train import Balancing

LARGER = replace(
    MIXTURE,
    d_model=128,
    n_layers=4,
    n_heads=4,
    d_ffn=298,
    experts=replace(SIXTEEN, d_expert=96),
)
HALF_RATE = 5e-3  # of what was best for the small model
PROBE = 512 * WINDOW  # training tokens whose choices make a table
DIMENSIONS = 16  # of what is known of a token by its neighbors
ROUNDS = 20  # of moving the middles of groups

# What a run depends on beside its settings, by router.
ABOUT: Final[dict[str, dict[str, Any]]] = {
    "neighbors": {"dimensions": DIMENSIONS, "rounds": ROUNDS},
    "as learned": {"probe": PROBE},
    "unsteady": {"probe": PROBE},
}
ARMS: Final[dict[str, tuple[int, dict[str, Any]]]] = {  # name: seeds, settings
    "alike by neighbors": (5, {"router": "neighbors"}),
    "as a router learned": (3, {"router": "as learned", "balancing": BIAS}),
    "by lot, unsteady": (3, {"router": "unsteady", "balancing": BIAS}),
    "larger, learned": (1, {"model": LARGER, "balancing": BIAS}),
    "larger, table": (1, {"model": LARGER, "router": "token"}),
    "larger, half the rate, learned": (
        2,
        {"model": LARGER, "balancing": BIAS, "rate": HALF_RATE},
    ),
    "larger, half the rate, table": (
        2,
        {"model": LARGER, "router": "token", "rate": HALF_RATE},
    ),
}


def runs() -> list[Run]:
    """All runs, seed after seed, so that stopping leaves whole comparisons."""
    return [
        Run(name, seed, told | ABOUT.get(told["router"], {}))
        for seed in range(5)
        for name, (seeds, settings) in ARMS.items()
        if seed < seeds
        for told in [described(seed=seed, seeds=seeds, **settings)]
    ]


def execute(run: Run) -> dict[str, Any]:
    """Train one model and measure it on the held-out text."""
    kind, text = run.configuration["router"], corpus()
    if kind not in ("neighbors", "as learned", "unsteady"):
        return execute_router(run)
    settings = {name: run.configuration[name] for name in configuration(MIXTURE, run.seed)}
    model, train, balancing = build(settings)
    assert train is not None
    measured: dict[str, Any] = {}
    counts = text.train.bincount(minlength=model.config.vocab_size)
    vectors = by_neighbors(text.train, model.config.vocab_size)
    hash_tokens(model, text.train, run.seed)
    measured["alike_by_lot"] = likenesses(model, vectors, counts)
    if kind == "neighbors":
        for layer, mixture in enumerate(mixtures(model)):
            seed = 1000 * run.seed + layer
            experts = mixture.router.n_experts
            table = keep_together(vectors, counts, experts, mixture.router.top_k, seed)
            replace_router(mixture, HashRouter(model.config.d_model, experts, table))
    else:
        teacher = build(settings)[0]
        learn(teacher, text.train, train, balancing, run.seed)
        measured["learned_held_out_loss"] = held_out_loss(teacher, text.held_out)
        tables, usual = usual_choices(teacher, text.train[:PROBE], run.seed)
        measured["usual"] = usual
        for layer, mixture in enumerate(mixtures(model)):
            sizes = model.config.d_model, mixture.router.n_experts
            if kind == "as learned":
                replace_router(mixture, HashRouter(*sizes, tables[layer]))
            else:
                by_lot = mixture.router.get_buffer("table")
                seed = 1000 * run.seed + layer
                replace_router(mixture, UnsteadyRouter(*sizes, by_lot, usual[layer], seed))
    if kind != "unsteady":
        measured["alike"] = likenesses(model, vectors, counts)
    history = learn(model, text.train, train, Balancing(), run.seed)
    assert history.loads is not None
    late = history.loads[int(0.7 * train.steps) :].double()
    loss = held_out_loss(model, text.held_out)
    if kind == "unsteady":  # is it learning that suffers, or only reading?
        for mixture in mixtures(model):
            assert isinstance(mixture.router, UnsteadyRouter)
            mixture.router.leaves = 0.0
        measured["read_steadily"] = held_out_loss(model, text.held_out)
    return {
        "held_out_loss": loss,
        "late_max_violation": [
            round(value, 3) for value in (late.amax(2) / late.mean(2) - 1).mean(0).tolist()
        ],
        **measured,
    }


def by_neighbors(tokens: Tensor, vocabulary: int) -> Tensor:
    """Say of each token who stands beside it: unit vectors ``[V, DIMENSIONS]``.

    Counts of the token before and the one after become positive pointwise mutual information, of
    which the largest directions are kept. A token that never occurs has zeros.
    """
    both = tokens[:-1].long() * vocabulary + tokens[1:].long()
    after = both.bincount(minlength=vocabulary**2).view(vocabulary, vocabulary).double()
    beside = torch.cat([after, after.T], dim=1)
    expected = beside.sum(1, keepdim=True) * beside.sum(0) / beside.sum()
    information = torch.where(beside > 0, beside / expected, 1.0).log().clamp(min=0)
    left, sizes, _ = torch.linalg.svd(information, full_matrices=False)
    return F.normalize(left[:, :DIMENSIONS] * sizes[:DIMENSIONS])


def keep_together(vectors: Tensor, counts: Tensor, n_experts: int, top_k: int, seed: int) -> Tensor:
    """Give tokens that are alike the same experts, about as evenly as a table by lot: ``[V, k]``.

    Groups are those of k-means on the sphere, weighted by how often a token occurs. The most
    frequent tokens choose first, and an expert that is full takes no more.
    """
    generator = torch.Generator().manual_seed(seed)
    start = torch.multinomial(counts.double(), n_experts, generator=generator)
    middles = vectors[start]
    for _ in range(ROUNDS):
        first = deal(vectors @ middles.T, counts, 1)[:, 0]
        sums = torch.zeros_like(middles).index_add_(0, first, vectors * counts[:, None])
        middles = F.normalize(sums)
    return deal(vectors @ middles.T, counts, top_k)


def deal(likeness: Tensor, counts: Tensor, top_k: int) -> Tensor:
    """Give each token the experts of the largest ``likeness [V, E]`` that have room: ``[V, k]``.

    Each of a token's experts is from its own round, in which an expert has room for an even share.
    If no expert but the token's own has room left, the likest takes more.
    """
    n_experts = likeness.shape[1]
    room = counts.sum().double() / n_experts
    load = torch.zeros(top_k, n_experts, dtype=torch.float64)
    table = torch.empty(len(counts), top_k, dtype=torch.int64)
    for token in counts.argsort(descending=True, stable=True).tolist():
        for place in range(top_k):
            wanted = likeness[token].clone()
            wanted[load[place] + counts[token] > room] -= 10  # beyond all that has room
            if bool((load[place] + counts[token] > room).all()):
                wanted = -load[place]
            wanted[table[token, :place]] = -torch.inf
            expert = int(wanted.argmax())
            table[token, place] = expert
            load[place, expert] += counts[token]
    return table


def usual_choices(
    teacher: DecoderLM, tokens: Tensor, seed: int
) -> tuple[list[Tensor], list[float]]:
    """Return for each layer the experts that the ``teacher`` chose most often for each token.

    Beside the tables ``[V, k]`` stand the shares of all its choices that are in them.
    """
    generator = torch.Generator().manual_seed(seed)
    tables, shares = [], []
    vocabulary = teacher.config.vocab_size
    for router, chosen in zip(teacher.routers, held_out_choices(teacher, tokens), strict=True):
        experts = router.n_experts
        pairs = tokens[: len(chosen), None].long() * experts + chosen
        often = pairs.flatten().bincount(minlength=vocabulary * experts).view(vocabulary, experts)
        lot = torch.rand(often.shape, generator=generator)  # decides where none is ahead
        tables.append((often + lot).topk(router.top_k).indices)
        shares.append(round(float(often.gather(1, tables[-1]).sum() / often.sum()), 4))
    return tables, shares


class UnsteadyRouter(HashRouter):
    """Goes by a table, but now and then by the row of another token of the batch.

    So often that a share ``usual`` of all choices is in the token's own row. The load stays even.
    """

    def __init__(
        self, d_model: int, n_experts: int, table: Tensor, usual: float, seed: int
    ) -> None:
        """Take the table, and how often it is followed."""
        super().__init__(d_model, n_experts, table)
        # Another row has each of the own experts with a chance of k / E.
        self.leaves = (1 - usual) / (1 - table.shape[1] / n_experts)
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, x: Tensor, tokens: Tensor) -> Routing:
        """Route by the table, or by that of another token."""
        others = tokens[torch.randperm(len(tokens), generator=self.generator)]
        leaves = torch.rand(tokens.shape, generator=self.generator) < self.leaves
        return super().forward(x, torch.where(leaves, others, tokens))


def likenesses(model: DecoderLM, vectors: Tensor, counts: Tensor) -> list[float]:
    """For each layer, how alike tokens of the text are that share their first expert.

    The mean cosine over pairs of places in the text, without pairs of a token with itself.
    """
    return [
        likeness_within(mixture.router.get_buffer("table")[:, 0], vectors, counts)
        for mixture in mixtures(model)
    ]


def likeness_within(group: Tensor, vectors: Tensor, counts: Tensor) -> float:
    """The mean cosine of two tokens of one group, weighted by how often they occur."""
    weights = counts.double()
    same = (group[:, None] == group).double().fill_diagonal_(0) * weights * weights[:, None]
    return round(float((same * (vectors @ vectors.T)).sum() / same.sum()), 4)


if __name__ == "__main__":
    sys.exit(main("why_tables", runs(), execute))
