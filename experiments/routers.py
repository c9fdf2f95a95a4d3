"""What a router learns, how fine experts should be, and what balance costs.

The models and the text are those of the experiment mixture, whose runs are the other half of each
comparison: what is called "mixture 16" there has 16 experts of which 2 are asked, and one shared.
The notebooks sparse_vs_dense and moe_balancing read the results.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import torch
from mixture import BIAS, MIXTURE, SIXTEEN, STEPS, build, configuration, corpus, in_blocks
from torch import Tensor, nn

from slingshot import sizes
from slingshot.lm import DecoderLM, LMConfig
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

FIVE, THREE = range(5), range(3)
HALF = STEPS // 2
WINDOW = 128
WEIGHTS = (1e-3, 1e-2, 1e-1)  # of a balance loss

# The same 816 channels in all and 144 for each token, cut finer; the shared expert is 48 wide, or
# its channels are given to the routed ones.
FINER = {
    "32 of 4": replace(SIXTEEN, n_routed=32, top_k=4, d_expert=24, n_shared=2),
    "64 of 8": replace(SIXTEEN, n_routed=64, top_k=8, d_expert=12, n_shared=4),
    "17 of 3, none shared": replace(SIXTEEN, n_routed=17, top_k=3, n_shared=0),
    "34 of 6, none shared": replace(SIXTEEN, n_routed=34, top_k=6, d_expert=24, n_shared=0),
    "68 of 12, none shared": replace(SIXTEEN, n_routed=68, top_k=12, d_expert=12, n_shared=0),
}


def arms() -> dict[str, dict[str, Any]]:
    """By name, what is trained: model, router, balancing, steps and seeds."""
    deep = replace(MIXTURE, n_layers=4)
    return {
        "hashed": {"router": "token"},
        "hashed by two tokens": {"router": "pair", "seeds": THREE},
        "frozen half-way": {"router": "frozen half-way", "balancing": BIAS, "seeds": THREE},
        "given the final choices": {"router": "given", "balancing": BIAS, "seeds": THREE},
        "hashed, half the tokens": {"router": "token", "steps": HALF, "seeds": THREE},
        "four layers, learned": {"model": deep, "balancing": BIAS, "seeds": THREE},
        "four layers, hashed": {"model": deep, "router": "token", "seeds": THREE},
        **{
            name: {"model": replace(MIXTURE, experts=experts), "balancing": BIAS, "seeds": THREE}
            for name, experts in FINER.items()
        },
        "64 of 8, weights times 4": {
            "model": replace(MIXTURE, experts=FINER["64 of 8"]),
            "balancing": BIAS,
            "route_scale": 4.0,
            "seeds": THREE,
        },
        "none, half the tokens": {"steps": HALF, "seeds": THREE},
        **{
            f"{method} {weight:g}, half the tokens": {
                "balancing": Balancing(method, weight),
                "steps": HALF,
                "seeds": THREE,
            }
            for method in ("auxiliary", "sequence")
            for weight in WEIGHTS
        },
    }


def runs() -> list[Run]:
    """All runs, in the order in which they are stored."""
    return [
        Run(name, seed, described(seed=seed, **settings))
        for name, settings in arms().items()
        for seed in settings.get("seeds", FIVE)
    ]


def described(
    seed: int,
    model: LMConfig = MIXTURE,
    router: str = "learned",
    route_scale: float = 1.0,
    seeds: range = FIVE,
    **settings: Any,  # noqa: ANN401 those of mixture.configuration
) -> dict[str, Any]:
    """One run in words that JSON knows."""
    told = configuration(model, seed, **settings)
    return told | {"router": router, "route_scale": route_scale}


def execute(run: Run) -> dict[str, Any]:
    """Train one model and measure it on the held-out text."""
    settings = dict(run.configuration)
    router, route_scale = settings.pop("router"), settings.pop("route_scale")
    text = corpus()
    model, train, balancing = build(settings)
    assert train is not None
    for each in model.routers:
        each.route_scale = route_scale
    measured: dict[str, Any] = {}
    after_step = None
    if router == "frozen half-way":
        after_step = FreezeAt(model, train.steps // 2)
    elif router == "given":
        teacher = build(settings)[0]
        learn(teacher, text.train, train, balancing, run.seed)
        measured["teacher_held_out_loss"] = held_out_loss(teacher, text.held_out)
        give_choices(model, teacher)
        balancing = Balancing()
    elif router != "learned":
        hash_tokens(model, text.train, router == "pair", run.seed)
    history = learn(model, text.train, train, balancing, run.seed, after_step)
    assert history.loads is not None
    late = history.loads[int(0.7 * train.steps) :].double()
    count = sizes.count_parameters(model.config.sizes())
    return {
        "total": count.total,
        "active": count.active_without_embedding,
        "seconds": round(history.seconds, 1),
        "held_out_loss": held_out_loss(model, text.held_out),
        **measured,
        "late_max_violation": [
            round(value, 3) for value in (late.amax(2) / late.mean(2) - 1).mean(0).tolist()
        ],
        "curve": in_blocks(torch.tensor(history.losses)),
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


class FreezeAt:
    """Stop the routers' learning after so many steps; their biases go on keeping balance."""

    def __init__(self, model: DecoderLM, steps: int) -> None:
        """Count from here."""
        self.routers, self.left = model.routers, steps

    def __call__(self) -> None:
        """Count one step."""
        self.left -= 1
        if not self.left:
            for router in self.routers:
                router.weight.requires_grad_(False)


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


def hash_tokens(model: DecoderLM, text: Tensor, by_pair: bool, seed: int) -> None:
    """Give each mixture a table of its own, balanced on the training text."""
    vocabulary = model.config.vocab_size
    ids, size, kind = text, vocabulary, HashRouter
    if by_pair:
        windows = text[: len(text) // WINDOW * WINDOW]
        ids, size, kind = pairs(windows, vocabulary), vocabulary**2, PairRouter
    counts = ids.bincount(minlength=size)
    for layer, mixture in enumerate(mixtures(model)):
        learned = mixture.router
        table = hash_table(counts, learned.n_experts, learned.top_k, seed=1000 * seed + layer)
        replace_router(mixture, kind(learned.d_model, learned.n_experts, table))


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
