"""The experiment on who is kept together, on models and texts of a few tokens."""

import json
from dataclasses import replace

import mixture
import pytest
import routers
import torch
import why_tables
from _runner import Run

from slingshot import sizes
from slingshot.corpus import Corpus
from slingshot.moe import expert_load, hash_table
from test_routers_experiment import TEXT, make_model, small_corpus

__all__ = ["small_corpus"]  # a fixture

# Tokens 0 and 1 stand between 4 and 5, tokens 2 and 3 between 6 and 7.
PHRASES = torch.tensor([[4, 0, 5, 6, 2, 7], [4, 1, 5, 6, 3, 7]]).repeat(200, 1).flatten()


# --- the arms ------------------------------------------------------------------------------------


def test_each_arm_differs_from_its_other_half_in_what_it_is_named_for() -> None:
    others = {run.key: run.configuration for run in [*routers.runs(), *why_tables.runs()]}
    learned = {run.key: run.configuration for run in mixture.runs()}
    for run in why_tables.runs():
        ours = run.configuration
        assert json.loads(json.dumps(ours)) == ours
        if run.name == "alike by neighbors":
            theirs, allowed = others[f"hashed/{run.seed}"], {"router"}
        elif run.name in ("as a router learned", "by lot, unsteady"):
            theirs, allowed = others[f"hashed/{run.seed}"], {"router", "balancing"}  # the teacher's
            assert ours["balancing"] == learned[f"mixture 16/{run.seed}"]["balancing"]
        elif run.name.startswith("larger") and run.name.endswith("table"):
            twin = run.name.replace("table", "learned")
            theirs, allowed = others[f"{twin}/{run.seed}"], {"router", "balancing"}
        else:
            bias = learned[f"mixture 16/{run.seed}"]
            theirs = bias | {"router": "learned", "route_scale": 1.0}
            allowed = {"model", "train"} if "rate" in run.name else {"model"}
        about = why_tables.ABOUT.get(ours["router"], {})
        assert about.items() <= ours.items()
        differing = {key for key in ours if ours[key] != theirs.get(key)}
        assert differing - about.keys() <= allowed, run.key


def test_the_larger_model_is_twice_as_wide_and_deep() -> None:
    ours, theirs = why_tables.LARGER, mixture.MIXTURE
    assert ours.experts is not None
    assert theirs.experts is not None
    assert ours.d_model == 2 * theirs.d_model
    assert ours.n_layers == 2 * theirs.n_layers
    assert ours.experts.d_expert == 2 * theirs.experts.d_expert
    assert ours.width_of_head == theirs.width_of_head
    total, before = (sizes.count_parameters(c.sizes()).total for c in (ours, theirs))
    assert 5 < total / before < 8


# --- who is alike --------------------------------------------------------------------------------


def test_tokens_with_the_same_neighbors_are_alike() -> None:
    vectors = why_tables.by_neighbors(PHRASES, 9)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] == pytest.approx(1, abs=0.02)
    assert cosines[2, 3] == pytest.approx(1, abs=0.02)
    assert cosines[:2, 2:4].max() < 0.5
    assert bool((vectors[8] == 0).all())  # it does not occur
    assert vectors[:8].norm(dim=1) == pytest.approx(1)


def test_a_table_keeps_together_what_is_alike_and_is_even() -> None:
    counts = torch.tensor([50, 50, 50, 50])
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]]).double()
    found = []
    for seed in range(8):
        table = why_tables.keep_together(vectors, counts, n_experts=2, top_k=1, seed=seed)
        assert expert_load(table, 2).tolist() == [2, 2]
        found.append(bool(table[0] == table[2]))
    assert sum(found) >= 6  # with two middles on one side at first, groups can stay as they are


def test_on_a_text_it_is_as_even_as_one_by_lot_and_keeps_more_together(
    small_corpus: Corpus,
) -> None:
    tokens = small_corpus.train
    counts = tokens.bincount(minlength=300)
    vectors = why_tables.by_neighbors(tokens, 300)
    together = why_tables.keep_together(vectors, counts, 4, 2, seed=0)
    lot = hash_table(counts, 4, 2, seed=0)
    alike = [why_tables.likeness_within(t[:, 0], vectors, counts) for t in (together, lot)]
    assert alike[0] > alike[1] + 0.1
    assert bool((together[:, 0] != together[:, 1]).all())
    load = expert_load(together[tokens.long()], 4)
    assert load.max() - load.min() <= 2 * counts.max()


def test_who_comes_last_takes_where_there_is_room() -> None:
    likeness = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.9]])
    table = why_tables.deal(likeness, torch.tensor([3, 2, 1]), top_k=2)
    # Room is 3: the first fills expert 0, the others go to expert 1, and second choices are others.
    assert table.tolist() == [[0, 1], [1, 0], [1, 0]]


def test_a_token_larger_than_any_room_goes_where_there_is_least() -> None:
    table = why_tables.deal(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([9, 1]), top_k=1)
    assert sorted(table.flatten().tolist()) == [0, 1]


def test_likeness_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]).double()
    # Pairs within groups: 0 with 1 in 2 * 3 pairs of places; the third is alone.
    group, counts = torch.tensor([0, 0, 1]), torch.tensor([2, 3, 5])
    assert why_tables.likeness_within(group, vectors, counts) == 0.6
    together = why_tables.likeness_within(torch.zeros(3).long(), vectors, counts)
    assert together == pytest.approx((6 * 0.6 + 10 * 0 + 15 * 0.8) / 31, abs=1e-4)


# --- a learned router's table --------------------------------------------------------------------


def test_a_table_has_the_experts_that_were_chosen_most_often() -> None:
    teacher = make_model(seed=5)
    tokens = TEXT[:1024].long()
    tables, shares = why_tables.usual_choices(teacher, tokens, seed=0)
    choices = mixture.held_out_choices(teacher, tokens)
    for table, share, chosen in zip(tables, shares, choices, strict=True):
        for token in range(8):
            often = chosen[tokens == token].flatten().bincount(minlength=4)
            assert sorted(often[table[token]].tolist()) == often.sort().values[-2:].tolist()
        inside = (chosen[:, :, None] == table[tokens][:, None]).any(2).double().mean()
        assert share == pytest.approx(float(inside), abs=1e-4)
        assert 0.5 < share <= 1


@pytest.mark.parametrize("usual", [1.0, 0.8, 0.5])
def test_an_unsteady_table_is_left_as_often_as_it_should_be(usual: float) -> None:
    counts = TEXT.bincount(minlength=8)
    table = hash_table(counts, 16, 2, seed=3)
    router = why_tables.UnsteadyRouter(6, 16, table, usual, seed=0)
    tokens = TEXT.long()
    x = torch.randn(len(tokens), 6, generator=torch.Generator().manual_seed(1))
    routing = router(x, tokens)
    own = (routing.experts[:, :, None] == table[tokens][:, None]).any(2).double().mean()
    # With 8 tokens rows meet more often than k / E says; so the share is a little larger.
    if usual == 1:
        assert own == 1
    else:
        assert usual - 0.03 < float(own) < usual + (1 - usual) * 0.3
    assert not usual < 1 or not torch.equal(router(x, tokens).experts, routing.experts)
    load, even = (expert_load(e, 16) for e in (routing.experts, table[tokens]))
    assert (load - even).abs().max() < 0.15 * even.max()


# --- whole runs ----------------------------------------------------------------------------------


def short(name: str) -> Run:
    """The first run of an arm, with few and small steps."""
    run = next(run for run in why_tables.runs() if run.name == name)
    train = run.configuration["train"] | {"steps": 32, "batch_size": 2, "sequence_length": 16}
    return replace(run, configuration=run.configuration | {"train": train})


@pytest.mark.parametrize("name", list(why_tables.ARMS))
def test_a_run_gives_what_json_can_store(
    name: str, small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(why_tables, "corpus", lambda: small_corpus)
    monkeypatch.setattr(why_tables, "PROBE", 4 * routers.WINDOW)
    result = why_tables.execute(short(name))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert 0 < result["held_out_loss"] < 8
    if "larger" not in name:
        shares = (*result.get("alike", []), *result["alike_by_lot"])
        assert all(-1 <= each <= 1 for each in shares)
        assert ("alike" in result) == ("unsteady" not in name)
        assert ("read_steadily" in result) == ("unsteady" in name)
        if "unsteady" in name:
            assert result["read_steadily"] != result["held_out_loss"]
    if name in ("as a router learned", "by lot, unsteady"):
        assert len(result["usual"]) == 2
        assert all(0 < share <= 1 for share in result["usual"])
    if name == "alike by neighbors":
        assert min(result["alike"]) > max(result["alike_by_lot"])
