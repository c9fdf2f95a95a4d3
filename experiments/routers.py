"""Why a table of tokens beats a learned router, what balance costs, and how fine to cut experts.

Model, text, order of batches and first weights are those of the experiment mixture, seed by seed;
only what an arm is named for differs. "mixture 16" there, with 16 experts of which 2 are asked and
one shared, is the other half of each comparison, and the notebooks sparse_vs_dense and
moe_balancing read both.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from mixture import (
    BIAS,
    MIXTURE,
    SIXTEEN,
    STEPS,
    build,
    configuration,
    corpus,
    held_out_choices,
    in_blocks,
)
from torch import Tensor, nn

from slingshot import sizes
from slingshot.lm import DecoderLM
from slingshot.moe import (
    HashRouter,
    MoE,
    Routing,
    TopKRouter,
    expert_scores,
    gate_weights,
    hash_table,
    router_logits,
)
from slingshot.train import Balancing, History, TrainConfig, token_losses, train_language_model

HALF = STEPS // 2
WINDOW = 128
PROBE = 64 * WINDOW  # held-out tokens whose experts are watched
LOOKS = 16  # as often over a training


def why() -> dict[str, dict[str, Any]]:
    """Routers that share some of what the table of tokens has: fixed, even, told the token."""
    return {
        "hashed by two tokens": {"router": "pair", "seeds": 5},
        "frozen half-way": {"router": "frozen half-way", "balancing": BIAS, "seeds": 5},
        "hashed, uneven": {"router": "uneven", "seeds": 5},
        "hashed by position": {"router": "position", "seeds": 5},
        "given the final choices": {"router": "given", "balancing": BIAS, "seeds": 5},
    }


def balance() -> dict[str, dict[str, Any]]:
    """Half-length runs with other strengths; those that mixture has are not made again."""
    return {
        "none, half the tokens": {"steps": HALF, "seeds": 3},
        **{
            f"auxiliary {weight:g}, half the tokens": {
                "balancing": Balancing("auxiliary", weight),
                "steps": HALF,
                "seeds": 3,
            }
            for weight in (1e-3, 1e-2, 1e-1, 1.0)
        },
        "bias 0.03, half the tokens": {
            "balancing": Balancing("bias", 0.03),
            "steps": HALF,
            "seeds": 3,
        },
    }


def finer() -> dict[str, dict[str, Any]]:
    """The same 816 channels in all and 144 for each token, cut finer, with and without sharing.

    The shared expert is 48 wide, or its channels are given to the routed ones. A token's weights
    sum to more where its experts are smaller, so that its channels together count the same.
    """
    cuts = {
        "32 of 4": (replace(SIXTEEN, n_routed=32, top_k=4, d_expert=24, n_shared=2), 2.0),
        "64 of 8": (replace(SIXTEEN, n_routed=64, top_k=8, d_expert=12, n_shared=4), 4.0),
        "17 of 3, none shared": (replace(SIXTEEN, n_routed=17, top_k=3, n_shared=0), 2.0),
        "34 of 6, none shared": (
            replace(SIXTEEN, n_routed=34, top_k=6, d_expert=24, n_shared=0),
            4.0,
        ),
        "68 of 12, none shared": (
            replace(SIXTEEN, n_routed=68, top_k=12, d_expert=12, n_shared=0),
            8.0,
        ),
        "64 of 8, weights sum to 1": (
            replace(SIXTEEN, n_routed=64, top_k=8, d_expert=12, n_shared=4),
            1.0,
        ),
    }
    return {
        name: {
            "model": replace(MIXTURE, experts=experts),
            "balancing": BIAS,
            "route_scale": scale,
            "seeds": 5,
        }
        for name, (experts, scale) in cuts.items()
    }


def runs() -> list[Run]:
    """All runs, seed after seed within a question, so that stopping leaves whole comparisons."""
    table: dict[str, dict[str, Any]] = {"hashed": {"router": "token", "seeds": 5}}
    questions = (table, why(), balance(), finer())
    return [
        Run(name, seed, described(seed=seed, **settings))
        for arms in questions
        for seed in range(5)
        for name, settings in arms.items()
        if seed < settings["seeds"]
    ]


def described(
    seed: int,
    seeds: int,
    router: str = "learned",
    route_scale: float = 1.0,
    **settings: Any,  # noqa: ANN401 those of mixture.configuration
) -> dict[str, Any]:
    """One run in words that JSON knows; ``seeds`` is how many the arm has, and no part of it."""
    told = configuration(seed=seed, **{"model": MIXTURE, **settings})
    return told | {"router": router, "route_scale": route_scale}


def execute(run: Run) -> dict[str, Any]:
    """Train one model and measure it on the held-out text."""
    settings = {name: run.configuration[name] for name in configuration(MIXTURE, run.seed)}
    kind, text = run.configuration["router"], corpus()
    model, train, balancing = build(settings)
    assert train is not None
    measured: dict[str, Any] = {}
    watch = None
    for router in model.routers:
        router.route_scale = run.configuration["route_scale"]
    if kind == "frozen half-way":
        watch = Watch(model, text.held_out[:PROBE], train.steps, freeze_at=train.steps // 2)
    elif kind == "given":
        teacher = build(settings)[0]
        watch = Watch(teacher, text.held_out[:PROBE], train.steps)
        learn(teacher, text.train, train, balancing, run.seed, watch)
        measured["learned_held_out_loss"] = held_out_loss(teacher, text.held_out)
        measured["moved"], watch = watch.moved, None
        give_choices(model, teacher)
        balancing = Balancing()
    elif kind != "learned":
        hash_tokens(model, text.train, run.seed, kind)
    history = learn(model, text.train, train, balancing, run.seed, watch)
    assert history.loads is not None
    late = history.loads[int(0.7 * train.steps) :].double()
    count = sizes.count_parameters(model.config.sizes())
    return {
        "total": count.total,
        "active": count.active_without_embedding,
        "seconds": round(history.seconds, 1),
        "held_out_loss": held_out_loss(model, text.held_out),
        "late_max_violation": [
            round(value, 3) for value in (late.amax(2) / late.mean(2) - 1).mean(0).tolist()
        ],
        "curve": in_blocks(torch.tensor(history.losses)),
        **measured,
        **({"moved": watch.moved} if watch else {}),
    }


def learn(
    model: DecoderLM,
    tokens: Tensor,
    train: TrainConfig,
    balancing: Balancing,
    seed: int,
    after_step: Callable[[], None] | None = None,
) -> History:
    """Train without a bar."""
    return train_language_model(
        model, tokens, train, balancing=balancing, seed=seed, after_step=after_step, progress=False
    )


def held_out_loss(model: DecoderLM, tokens: Tensor) -> float:
    """The loss on the whole held-out text, in nats per token."""
    return round(token_losses(model, tokens).double().mean().item(), 5)


class Watch:
    """Look at the experts of ``tokens`` `LOOKS` times in ``steps``, and freeze the routers once.

    ``moved`` has for each look after the first the share of tokens, by layer, that had another set
    of experts the time before. Frozen are the routers' vectors; their biases go on keeping balance.
    """

    def __init__(
        self, model: DecoderLM, tokens: Tensor, steps: int, freeze_at: int | None = None
    ) -> None:
        """Count from here."""
        self.model, self.tokens, self.freeze_at = model, tokens, freeze_at
        self.every, self.step = max(1, steps // LOOKS), 0
        self.last: list[Tensor] = []
        self.moved: list[list[float]] = []

    def __call__(self) -> None:
        """Count one step."""
        self.step += 1
        if self.step == self.freeze_at:
            for router in self.model.routers:
                router.weight.requires_grad_(False)
        if self.step % self.every == 0:
            now = [each.sort(dim=1).values for each in held_out_choices(self.model, self.tokens)]
            differing = [
                (new != old).any(dim=1).double().mean().item()
                for new, old in zip(now, self.last, strict=False)
            ]
            self.moved += [[round(share, 4) for share in differing]] if self.last else []
            self.last = now


def mixtures(model: DecoderLM) -> list[MoE]:
    """The mixture layers of a model, in order."""
    return [module for module in model.modules() if isinstance(module, MoE)]


def replace_router(mixture: MoE, router: HashRouter) -> None:
    """Put ``router`` in the place of the learned one; its gate starts from the same weights."""
    router.load_state_dict({"weight": mixture.router.weight}, strict=False)
    mixture.router = router


class PairRouter(HashRouter):
    """Goes by a token and the one before it: ``table [V * V, k]``."""

    def forward(self, x: Tensor, tokens: Tensor) -> Routing:
        """Route by pairs; the first token of a window has token 0 before it."""
        return super().forward(x, pairs(tokens, round(len(self.table) ** 0.5)))


def pairs(tokens: Tensor, vocabulary: int) -> Tensor:
    """Number each token with the one before it, within windows; the text's end may be shorter."""
    windows = tokens.view(-1, min(WINDOW, len(tokens)))
    before = torch.cat([torch.zeros_like(windows[:, :1]), windows[:, :-1]], dim=1)
    return (before * vocabulary + windows).flatten()


class PositionRouter(HashRouter):
    """Goes by the place in the window, and so by nothing that the text says."""

    def forward(self, x: Tensor, tokens: Tensor) -> Routing:
        """Route by place: ``table [WINDOW, k]``."""
        return super().forward(x, positions(tokens))


def positions(tokens: Tensor) -> Tensor:
    """Number the places in each window; the text's end may be shorter."""
    return torch.arange(len(tokens)) % WINDOW


def hash_tokens(model: DecoderLM, text: Tensor, seed: int, kind: str = "token") -> None:
    """Give each mixture a table of its own, and the learned router's gate.

    By ``token``, ``pair`` and ``position`` the table is balanced on ``text``; ``uneven`` draws the
    experts of each token without a look at how often it comes.
    """
    vocabulary, whole = model.config.vocab_size, text[: len(text) // WINDOW * WINDOW].long()
    ids, size, router = text, vocabulary, HashRouter
    if kind == "pair":
        ids, size, router = pairs(whole, vocabulary), vocabulary**2, PairRouter
    elif kind == "position":
        ids, size, router = positions(whole), WINDOW, PositionRouter
    counts = ids.bincount(minlength=size)
    for layer, mixture in enumerate(mixtures(model)):
        learned, draw = mixture.router, 1000 * seed + layer
        if kind == "uneven":
            generator = torch.Generator().manual_seed(draw)
            drawn = torch.rand(size, learned.n_experts, generator=generator)
            table = drawn.topk(learned.top_k).indices
        else:
            table = hash_table(counts, learned.n_experts, learned.top_k, seed=draw)
        replace_router(mixture, router(learned.d_model, learned.n_experts, table))


class GivenRouter(HashRouter):
    """Asks whom it is told to ask: ``given [T, k]`` is set before each batch."""

    given: Tensor

    def __init__(self, learned: TopKRouter) -> None:
        """Take the sizes of a learned router."""
        nothing = torch.arange(learned.top_k)[None]
        super().__init__(learned.d_model, learned.n_experts, nothing)

    def forward(self, x: Tensor, tokens: Tensor) -> Routing:
        """Weigh the experts that were given."""
        scores = expert_scores(router_logits(x, self.weight))
        return Routing(gate_weights(scores, self.given), self.given, scores)


def give_choices(model: DecoderLM, teacher: DecoderLM) -> None:
    """Let ``model`` ask for each token the experts that the trained ``teacher`` asks."""
    for mixture in mixtures(model):
        assert isinstance(mixture.router, TopKRouter)
        replace_router(mixture, GivenRouter(mixture.router))
    teacher.eval()

    @torch.no_grad()
    def ask(student: nn.Module, inputs: tuple[Tensor]) -> None:
        routers = [each for each in student.modules() if isinstance(each, GivenRouter)]
        for router, routing in zip(routers, teacher(inputs[0]).routings, strict=True):
            router.given = routing.experts

    model.register_forward_pre_hook(ask)


if __name__ == "__main__":
    sys.exit(main("routers", runs(), execute))
