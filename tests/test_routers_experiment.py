"""The experiment on routers, on models and texts of a few tokens."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import mixture
import pytest
import routers
import torch
from _runner import Run
from torch import Tensor, nn

from slingshot import sizes
from slingshot.corpus import Corpus, Document, encode, train_tokenizer
from slingshot.lm import DecoderLM, LMConfig
from slingshot.moe import HashRouter, expert_load
from slingshot.train import Balancing, TrainConfig

EXPERTS = sizes.ExpertConfig(n_routed=4, n_shared=1, top_k=2, d_expert=3)
CONFIG = LMConfig(8, d_model=6, n_layers=2, n_heads=1, d_ffn=4, experts=EXPERTS)
TEXT = torch.randint(0, 8, (4000,), generator=torch.Generator().manual_seed(0))
SHORT = TrainConfig(steps=6, batch_size=2, sequence_length=16, warmup=0)


def make_model(seed: int = 0) -> DecoderLM:
    """A model whose experts say something from the start."""
    torch.manual_seed(seed)
    model = DecoderLM(CONFIG)
    for layer in routers.mixtures(model):
        nn.init.normal_(layer.experts.down)
    return model


@pytest.fixture
def small_corpus(monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """Two short documents in place of the standard library."""
    source = Path(routers.__file__).read_text()
    documents = [Document("a", source[:4000]), Document("b", source[4000:6000])]
    tokenizer = train_tokenizer([source], 300)
    tokens, numbers = encode(tokenizer, documents)
    corpus = Corpus(tokens, tokens, numbers, ("a", "b"), tokenizer, bytes_per_token=2.0)
    monkeypatch.setattr(routers, "corpus", lambda: corpus)
    monkeypatch.setattr(routers, "PROBE", 4 * routers.WINDOW)
    return corpus


# --- the arms ------------------------------------------------------------------------------------


def test_each_arm_differs_from_its_other_half_in_what_it_is_named_for() -> None:
    other = {run.key: run.configuration for run in mixture.runs()}
    allowed = {
        "hashed": {"router", "balancing"},
        "hashed by two tokens": {"router", "balancing"},
        "hashed, uneven": {"router", "balancing"},
        "hashed by position": {"router", "balancing"},
        "frozen half-way": {"router"},
        "given the final choices": {"router"},
        **{name: {"balancing"} for name in routers.balance()},
        **{name: {"model", "route_scale"} for name in routers.finer()},
    }
    runs = routers.runs()
    assert len({run.key for run in runs}) == len(runs)
    for run in runs:
        base = "mixture 16" + (", half the tokens" if "half the tokens" in run.name else "")
        ours = run.configuration
        assert json.loads(json.dumps(ours)) == ours
        theirs = other[f"{base}/{run.seed}"] | {"router": "learned", "route_scale": 1.0}
        assert {key for key in ours if ours[key] != theirs[key]} <= allowed[run.name], run.key


@pytest.mark.parametrize("name", list(routers.finer()))
def test_finer_experts_hold_and_use_as_many_channels(name: str) -> None:
    arm = routers.finer()[name]
    experts = arm["model"].experts
    shared = experts.n_shared * experts.d_expert
    assert shared == (0 if "none" in name else 48)
    assert experts.n_routed * experts.d_expert + shared == 17 * 48
    assert experts.top_k * experts.d_expert + shared == 3 * 48
    # The shared expert counts whole and a token's routed channels sum to what is left of 96.
    if "sum to 1" not in name:
        assert arm["route_scale"] * experts.d_expert + shared == 96
    ours, theirs = (
        sizes.count_parameters(model.sizes()) for model in (arm["model"], mixture.MIXTURE)
    )
    per_layer = (experts.n_routed - 16) * 64  # what the router is larger by
    assert ours.total - theirs.total == 2 * per_layer
    both = (ours.active_without_embedding, theirs.active_without_embedding)
    assert both[0] - both[1] == 2 * per_layer


# --- tables --------------------------------------------------------------------------------------


def test_pairs_by_hand() -> None:
    assert routers.pairs(torch.tensor([3, 1, 2]), 10).tolist() == [3, 31, 12]
    two = torch.arange(2 * routers.WINDOW) % 7
    numbered = routers.pairs(two, 10)
    assert numbered[routers.WINDOW] == two[routers.WINDOW]  # a window begins again
    assert numbered[5] == 10 * two[4] + two[5]


def test_a_router_of_pairs_asks_by_both_tokens() -> None:
    model = make_model()
    routers.hash_tokens(model, TEXT, seed=1, kind="pair")
    tokens = torch.tensor([[1, 4, 4, 0], [7, 2, 3, 1]])
    routing = model(tokens[:1]).routings[0]
    table: Any = routers.mixtures(model)[0].router.table
    assert table.shape == (64, 2)
    assert torch.equal(routing.experts, table[torch.tensor([1, 12, 36, 32])])
    asked = {tuple(sorted(row)) for row in table[torch.arange(4, 64, 8)].tolist()}
    assert len(asked) > 1  # one token, other experts after another
    whole = TEXT[: len(TEXT) // routers.WINDOW * routers.WINDOW]
    numbered = routers.pairs(whole, 8)
    load = expert_load(table[numbered], 4)
    assert load.max() - load.min() <= numbered.bincount().max()
    history = routers.learn(model, TEXT, replace(SHORT, sequence_length=128), Balancing(), 0)
    assert history.losses[-1] < history.losses[0]


def test_an_uneven_table_is_drawn_without_a_look_at_the_text() -> None:
    tables = []
    for text in (TEXT, TEXT.clamp(max=3)):
        model = make_model()
        routers.hash_tokens(model, text, seed=2, kind="uneven")
        layers: list[Any] = [layer.router for layer in routers.mixtures(model)]
        tables.append([layer.table for layer in layers])
    assert torch.equal(tables[0][0], tables[1][0])
    assert not torch.equal(tables[0][0], tables[0][1])
    assert all(len(set(row)) == 2 for row in tables[0][0].tolist())
    # The real size: far from the evenness of a balanced table.
    big = mixture.build(routers.runs()[0].configuration)[0]
    text = TEXT * 64
    routers.hash_tokens(big, text, seed=0, kind="uneven")
    router: Any = routers.mixtures(big)[0].router
    load = expert_load(router.table[text], 16)
    assert load.max() - load.min() > text.bincount().max()


def test_a_router_of_positions_does_not_look_at_the_text() -> None:
    model = make_model()
    routers.hash_tokens(model, TEXT, seed=1, kind="position")
    first, other = TEXT[: 2 * routers.WINDOW].view(2, -1), TEXT[-2 * routers.WINDOW :].view(2, -1)
    chosen = [model(tokens).routings[0].experts for tokens in (first, other)]
    assert torch.equal(*chosen)
    one, two = chosen[0].view(2, routers.WINDOW, 2)
    assert torch.equal(one, two)
    load = expert_load(one, 4)
    assert load.max() - load.min() <= 1


@pytest.mark.parametrize("kind", ["token", "pair", "position", "uneven"])
def test_the_gate_starts_from_the_weights_of_the_learned_router(kind: str) -> None:
    hashed, learned = make_model(), make_model()
    routers.hash_tokens(hashed, TEXT, seed=1, kind=kind)
    ours, theirs = dict(hashed.named_parameters()), dict(learned.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- watching and freezing -----------------------------------------------------------------------


def test_vectors_freeze_half_way_and_biases_go_on() -> None:
    model = make_model()
    seen: list[tuple[Tensor, Tensor]] = []
    watch = routers.Watch(model, TEXT[:512], SHORT.steps, freeze_at=3)

    def after_step() -> None:
        watch()
        router = model.routers[0]
        seen.append((router.weight.detach().clone(), router.expert_bias.clone()))

    routers.learn(model, TEXT, SHORT, Balancing("bias", 0.01), 0, after_step)
    weights, biases = zip(*seen, strict=True)
    moved = [not torch.equal(a, b) for a, b in pairwise(weights)]
    assert moved == [True, True, False, False, False]
    assert not torch.equal(biases[-1], biases[2])


def test_moved_counts_tokens_with_another_set_of_experts() -> None:
    model = make_model()
    watch = routers.Watch(model, TEXT[:512], steps=3)
    watch()
    watch()
    assert watch.moved == [[0.0, 0.0]]
    with torch.no_grad():  # the favorites of all tokens, other ones than before
        before = mixture.held_out_choices(model, TEXT[:512])[0]
        model.routers[0].expert_bias[:] = torch.tensor([9.0, 9.0, 0.0, 0.0])
    watch()
    same = (before.sort(dim=1).values == torch.tensor([0, 1])).all(dim=1).double().mean().item()
    assert watch.moved[1][0] == pytest.approx(1 - same, abs=1e-4)
    assert 0 < watch.moved[1][0] <= 1


# --- given choices -------------------------------------------------------------------------------


def test_a_student_asks_whom_the_teacher_asks_and_leaves_it_alone() -> None:
    student, teacher = make_model(), make_model(seed=5)
    before = {name: each.clone() for name, each in teacher.state_dict().items()}
    routers.give_choices(student, teacher)
    assert all(isinstance(layer.router, HashRouter) for layer in routers.mixtures(student))
    routers.learn(student, TEXT, SHORT, Balancing(), 0)
    tokens = TEXT[:64].view(2, 32)
    for ours, theirs in zip(student(tokens).routings, teacher(tokens).routings, strict=True):
        assert torch.equal(ours.experts, theirs.experts)
        assert not torch.equal(ours.weights, theirs.weights)
    after = teacher.state_dict()
    assert all(torch.equal(after[name], each) for name, each in before.items())


# --- whole runs ----------------------------------------------------------------------------------


def short(name: str) -> Run:
    """The first run of an arm, with few and small steps."""
    run = next(run for run in routers.runs() if run.name == name)
    train = run.configuration["train"] | {"steps": 32, "batch_size": 2, "sequence_length": 16}
    return replace(run, configuration=run.configuration | {"train": train})


# A table of all pairs of 512 tokens takes long to make; a smaller one learns above.
NAMES = [
    *(name for name in routers.why() if name != "hashed by two tokens"),
    "auxiliary 1, half the tokens",
    "64 of 8",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_gives_what_json_can_store(name: str, small_corpus: Corpus) -> None:
    result = routers.execute(short(name))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert 0 < result["held_out_loss"] < 8
    assert len(result["late_max_violation"]) == 2
    watched = name in ("frozen half-way", "given the final choices")
    assert ("moved" in result) == watched
    if watched:
        assert len(result["moved"]) == routers.LOOKS - 1
        assert all(0 <= share <= 1 for look in result["moved"] for share in look)
    assert ("learned_held_out_loss" in result) == (name == "given the final choices")


def test_weights_that_sum_to_more_are_in_force(small_corpus: Corpus) -> None:
    scaled, plain = (
        routers.execute(short(name)) for name in ("64 of 8", "64 of 8, weights sum to 1")
    )
    assert scaled["held_out_loss"] != plain["held_out_loss"]
    assert scaled["total"] == plain["total"]


def test_the_teacher_is_the_learned_run_of_the_other_experiment(
    small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixture, "corpus", lambda: small_corpus)
    run = short("given the final choices")
    settings = {key: run.configuration[key] for key in mixture.configuration(mixture.MIXTURE, 0)}
    result = mixture.execute(Run("mixture 16", 0, settings))
    assert routers.execute(run)["learned_held_out_loss"] == result["held_out_loss"]
