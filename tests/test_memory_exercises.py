"""The assignment on memory: its references stand beside the library, and its lessons are true."""

from collections import Counter
from fractions import Fraction
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exercise_counts_plugin import SOURCE, domain
from slingshot import facts, sizes
from slingshot.attention import LatentAttention, LatentCache, attend_to_all
from slingshot.parallel import place_experts
from slingshot.pipeline import bubble_formula, simulate
from slingshot.speculative import accept
from slingshot_exercises import CheckFailed
from slingshot_exercises.memory import CHECKS
from slingshot_exercises.memory.absorbed_query import ABSORBED_QUERY
from slingshot_exercises.memory.accept_draft import ACCEPT_DRAFT
from slingshot_exercises.memory.attend import ATTEND
from slingshot_exercises.memory.cache_bytes import CACHE_BYTES
from slingshot_exercises.memory.idle_share import (
    IDLE_SHARE,
    one_forward_one_backward,
    zero_bubble,
)
from slingshot_exercises.memory.place import PLACE

SEEDS = range(8)
V3 = {"heads": 128, "latent": 512, "rope": 64}


# --- the references beside the library -----------------------------------------------------------


def test_bytes_are_those_of_the_library_and_of_the_facts() -> None:
    layers = sizes.V3.n_layers
    assert CACHE_BYTES.reference(layers, V3) == facts.value("insights.kv_cache.v3")
    one = CACHE_BYTES.reference(1, V3, 128)
    assert one == facts.value("flashmla.kv_cache.layer")
    with_indexer = CACHE_BYTES.reference(1, {**V3, "indexer": 128}, 128)
    assert with_indexer - one == facts.value("v32.indexer.kv_cache.layer")
    llama = sizes.LLAMA_31_405B
    grouped = {"heads": 128, "kv_heads": 8, "head_dim": 128}
    bytes_of_llama = CACHE_BYTES.reference(llama.n_layers, grouped)
    assert bytes_of_llama == sizes.kv_cache_bytes_per_token(llama)


@pytest.mark.parametrize("seed", SEEDS)
def test_attention_is_that_of_the_library(seed: int) -> None:
    for case in domain("memory", "attend").cases(seed):
        query, key, value = case.values()
        library = attend_to_all(query[None, None], key[None, None], value[None, None])[0, 0]
        expected = ATTEND.reference(query, key, value)
        bound = ATTEND.tolerance.bound(case, expected)
        assert (library - expected).abs().max() <= bound < 1e-12


def test_an_absorbed_query_meets_the_cache_of_latent_attention() -> None:
    """Weights from the scores that it gives are those with which the library reads values."""
    torch.manual_seed(0)
    layer = LatentAttention(
        12,
        3,
        kv_lora_rank=5,
        q_lora_rank=None,
        qk_nope_head_dim=4,
        qk_rope_head_dim=6,
        v_head_dim=2,
    ).double()
    torch.nn.init.normal_(layer.output.weight)
    x, cache = torch.randn(1, 7, 12, dtype=torch.float64), LatentCache(room=7)
    layer.requires_grad_(False)
    layer(x[:, :6], cache)
    expected = layer(x[:, 6:], cache, absorbed=True)
    rows = cache.append(x[:, :0, :11])[0]
    query = layer.query(x[0, 6]).view(3, 10)
    unpack = layer.unpack.weight.view(3, 6, 5)
    absorbed = ABSORBED_QUERY.reference(query, 6 * layer.speeds.double(), unpack)
    weights = (absorbed @ rows.T).softmax(dim=1)
    values = torch.einsum("hr,hvr->hv", weights @ rows[:, :5], unpack[:, 4:])
    assert (layer.output(values.flatten()) - expected[0, 0]).abs().max() < 1e-12


@pytest.mark.parametrize("seed", SEEDS)
def test_a_draft_of_one_token_is_judged_as_the_library_judges_it(seed: int) -> None:
    """A replacement is drawn from what is left: as often as its share says, to the last number."""
    for case in domain("memory", "accept_draft").cases(seed):
        p, q, draft, uniform = case.values()
        kept, left = ACCEPT_DRAFT.reference(p, q, draft, uniform)
        if kept == len(draft):
            continue
        ratio = float(p[kept, draft[kept]] / q[kept, draft[kept]])
        ends = [ratio + (1 - ratio) * float(end) for end in left.cumsum(0)]
        middles = [(a + b) / 2 for a, b in zip([ratio, *ends], ends, strict=False)]
        wanted = [token for token in range(len(left)) if left[token] > 1e-6]
        numbers = torch.tensor([middles[token] for token in wanted], dtype=torch.float64)
        rows = torch.full((len(wanted),), draft[kept])
        library = accept(
            p[kept].expand(len(wanted), -1), q[kept].expand(len(wanted), -1), rows, numbers
        )
        assert library.tokens.tolist() == wanted
        assert not library.kept.any()


@given(st.lists(st.integers(1, 20), min_size=3, max_size=6), st.data())
@settings(max_examples=40)
def test_what_is_written_has_the_distribution_of_the_model(
    weights: list[int], data: st.DataObject
) -> None:
    """Exactly: drafts that are kept, and what is left, sum to p."""
    n = len(weights)
    others = data.draw(st.lists(st.integers(1, 20), min_size=n, max_size=n))
    p, q = (torch.tensor([row], dtype=torch.float64) / sum(row) for row in (weights, others))
    written = torch.zeros(n, dtype=torch.float64)
    for x in range(n):
        kept = min(1.0, float(p[0, x] / q[0, x]))
        written[x] += q[0, x] * kept
        if kept < 1 - 1e-12:
            _, left = ACCEPT_DRAFT.reference(torch.cat([p, p]), q, [x], [(1 + kept) / 2])
            written += q[0, x] * (1 - kept) * left
    assert (written - p[0]).abs().max() < 1e-14


def busiest(load: list[int], ranks: list[list[int]]) -> Fraction:
    """The load of the busiest rank, whose replicas share equally."""
    replicas = Counter(expert for rank in ranks for expert in rank)
    shares = [[Fraction(load[e], replicas[e]) for e in rank] for rank in ranks]
    return max(sum(rank, Fraction(0)) for rank in shares)


def test_places_are_those_of_the_library_where_no_two_shares_are_equal() -> None:
    """The two rules differ in ties alone."""
    compared = 0
    for seed in SEEDS:
        for case in domain("memory", "place").cases(seed):
            load, n_ranks, n_redundant = case.values()
            ranks = PLACE.reference(load, n_ranks, n_redundant)
            replicas = Counter(expert for rank in ranks for expert in rank)
            library = place_experts(load, n_ranks, n_redundant)
            shares = {Fraction(load[e], replicas[e]) for e in replicas}
            # Of equal loads a replica the library takes another one.
            if len(shares) == len(load) and list(library.replicas) == [
                *map(replicas.get, range(len(load)))
            ]:
                assert [sorted(rank) for rank in ranks] == [sorted(r) for r in library.ranks]
                compared += 1
    assert compared >= 30


@pytest.mark.parametrize("n_stages", [1, 2, 5, 8])
@pytest.mark.parametrize("times", [(1, 2, 1), (2, 5, 1.5), (1, 3, 2), (3, 4, 2.5)])
def test_the_share_of_both_schedules_is_that_of_the_library(
    n_stages: int, times: tuple[float, float, float]
) -> None:
    for name, make in (("1F1B", one_forward_one_backward), ("ZB-H1", zero_bubble)):
        for n_microbatches in (n_stages, 2 * n_stages + 1):
            forward, backward, weight = times
            found = IDLE_SHARE.reference(make(n_stages, n_microbatches), *times)
            library = simulate(
                name,  # type: ignore[arg-type]
                n_stages,
                n_microbatches,
                forward=forward,
                backward=backward,
                weight=weight,
            )
            assert found == pytest.approx(library.share, abs=1e-15)


# --- the lessons ---------------------------------------------------------------------------------


def test_absorbing_pays_where_one_query_meets_many_tokens() -> None:
    """Products of a head of V3, with T tokens cached and as many queries."""
    nope, rope, rank = 128, 64, 512

    def unpacked(n_queries: int, n_tokens: int) -> int:
        return n_tokens * nope * rank + n_queries * n_tokens * (nope + rope)

    def absorbed(n_queries: int, n_tokens: int) -> int:
        return n_queries * nope * rank + n_queries * n_tokens * (rank + rope)

    assert absorbed(1, 1000) < unpacked(1, 1000) / 50
    assert absorbed(1000, 1000) > unpacked(1000, 1000)


def test_a_replacement_from_p_writes_overrated_tokens_too_often() -> None:
    p, q = np.random.default_rng(0).dirichlet(np.ones(6), (2, 50))
    kept = np.minimum(p, q)
    written = kept + (1 - kept.sum(axis=1, keepdims=True)) * p
    assert (written > p)[q > p].all()
    worst = (np.arange(50), (q / p).argmin(axis=1))
    assert (written[worst] < p[worst]).all()


def test_more_slots_can_make_a_rank_busier() -> None:
    load = [9, 5, 5, 1]
    plain, more = (PLACE.reference(load, 2, n_redundant) for n_redundant in (0, 2))
    assert busiest(load, plain) == 10
    assert busiest(load, more) == 12
    assert busiest(load, more[1:]) != busiest(load, more)
    assert "9, 5, 5 and 1" in PLACE.lesson


def test_the_shares_of_the_lesson_and_of_the_closing_question() -> None:
    times = 1, 2, 1

    def plain(n: int) -> float:
        share: float = IDLE_SHARE.reference(one_forward_one_backward(8, n), *times)
        return share

    other: float = IDLE_SHARE.reference(zero_bubble(8, 8), *times)
    for share in (plain(8), plain(16), other):
        assert f"{share:.0%}" in IDLE_SHARE.lesson
    assert other == pytest.approx(7 / 31, abs=1e-15)
    assert bubble_formula("ZB-H1", 8, forward=1, backward=2, weight=1) == 7
    reached = next(n for n in range(8, 60) if plain(n) <= other + 1e-15)
    notebook: Any = nbformat.read(SOURCE / "memory.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    assert reached == 24
    assert "\nTwenty-four, three times as many." in notebook.cells[-3].source


# --- tolerances ----------------------------------------------------------------------------------


@pytest.mark.parametrize("exercise", ["attend", "absorbed_query"])
def test_an_error_of_a_billionth_is_refused_and_bounds_are_far_below_it(exercise: str) -> None:
    part = {"attend": ATTEND, "absorbed_query": ABSORBED_QUERY}[exercise]
    for case in domain("memory", exercise).cases(0):
        expected = part.read(part.reference(*case.values()))
        assert np.max(part.tolerance.bound(case, expected)) < 1e-12
    with pytest.raises(CheckFailed):
        CHECKS[exercise](lambda *arguments: part.reference(*arguments) * (1 + 1e-9))


def test_a_distribution_that_is_off_by_a_billionth_is_refused() -> None:
    def nearly(*arguments: Any) -> Any:  # noqa: ANN401
        kept, left = ACCEPT_DRAFT.reference(*arguments)
        return kept, left * (1 + 1e-9)

    with pytest.raises(CheckFailed, match="the count is right"):
        CHECKS["accept_draft"](nearly)


@pytest.mark.parametrize("off", [1e-12, -1e-12])
def test_a_share_that_is_off_is_refused(off: float) -> None:
    with pytest.raises(CheckFailed):
        CHECKS["idle_share"](lambda *arguments: IDLE_SHARE.reference(*arguments) + off)


# --- what an answer may be -----------------------------------------------------------------------


def test_ranks_may_come_as_lists_tuples_sets_and_arrays_in_any_order_within() -> None:
    right = PLACE.reference
    for form in (tuple, set, frozenset, np.array, torch.tensor, reversed_list):
        CHECKS["place"](lambda *arguments, form=form: [form(rank) for rank in right(*arguments)])


def reversed_list(rank: list[int]) -> list[int]:
    return rank[::-1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([[0, 0, 1], [1, 2, 3]], "expert 0 twice"),
        ([[0, 1, 2], [0, 1, 2]], "expert 3 is on no rank"),
        ([[0, 1, 2, 3], [0, 1]], "rank 0 holds 4 replicas; every rank holds 3"),
        ([[0, 1, 2], [3, 1, 2]], "expert 0 has 1 replicas; by the first step 2"),
        ([[0, 1, 4], [0, 2, 3]], "there is no expert 4"),
        ([[0, 1, 2, 3, 0, 1]], "it returns 1 ranks; there are 2"),
        ([[0, 2, 3], [0, 1, 3]], "the ranks are exchanged"),
        ([[0, 1, 2], [0, 3, 3]], "rank 1 holds expert 3 twice"),
        ([[0.0, 1.0, 3.0], [0, 2, 3]], "a rank of its list is a list of 3"),
        ({0: [0, 1]}, "return a list with a list of experts for each rank"),
    ],
)
def test_what_is_wrong_with_a_placement_is_said(answer: object, said: str) -> None:
    with pytest.raises(CheckFailed, match=said):
        CHECKS["place"](lambda *arguments: answer)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda kept, left: left, "return a pair"),
        (lambda kept, left: (kept, left, 0), "return a pair"),
        (lambda kept, left: (kept, left[None]), "distribution of shape"),
        (lambda kept, left: (None, left), "in its pair; return a pair"),
        (lambda kept, left: (kept + 1, left), "tokens of the draft; keep"),
        (lambda kept, left: (kept, left[:-1]), "the distribution has"),
        (lambda kept, left: (kept, left * torch.nan), "the distribution holds nan"),
        (lambda kept, left: (kept, left.flip(0)), "the distribution after a refused token"),
    ],
)
def test_which_of_a_pair_is_wrong_is_said(change: Any, said: str) -> None:  # noqa: ANN401
    with pytest.raises(CheckFailed, match=said):
        CHECKS["accept_draft"](lambda *arguments: change(*ACCEPT_DRAFT.reference(*arguments)))
