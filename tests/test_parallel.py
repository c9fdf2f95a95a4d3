"""Experts on many processes equal one process; bytes counted are bytes predicted; no rank hangs."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from slingshot.moe import Experts, HashRouter, MoE, SwiGLU, TopKRouter, hash_table
from slingshot.parallel import (
    ExpertParallel,
    Placement,
    RankLostError,
    in_order,
    join,
    launch,
    place_experts,
)

# What one process does with all tokens, and what the ranks do with theirs.
PROGRAM = """
import json, sys, torch
import torch.distributed as dist
from slingshot.moe import Experts, MoE, SwiGLU, TopKRouter
from slingshot.parallel import ExpertParallel, Placement, join, place_experts

group = join(30)
rank, n_ranks = dist.get_rank(), dist.get_world_size()


def largest(values):
    return float(values.abs().max()) if values.numel() else 0.0


def compare(settings):
    dtype = getattr(torch, settings["dtype"])
    torch.manual_seed(0)
    E, d, T = settings["n_experts"], 24, settings["n_tokens"]
    router = TopKRouter(d, E, settings["top_k"])
    moe = MoE(router, Experts(E, d, 20), SwiGLU(d, 16) if settings["shared"] else None).to(dtype)
    x = torch.randn(n_ranks, T, d, dtype=dtype)
    g = torch.randn(n_ranks, T, d, dtype=dtype)
    if settings["hot"]:  # most tokens want expert 0
        with torch.no_grad():
            moe.router.expert_bias[0] = 0.4

    # One process. Its router sees the tokens of each rank apart: a product of other shape rounds
    # in another way; the experts see all tokens at once.
    ours = x.clone().requires_grad_()
    routings = [moe.router(tokens) for tokens in ours]
    experts = torch.cat([r.experts for r in routings])
    weights = torch.cat([r.weights for r in routings])
    flat = ours.flatten(0, 1)
    output = moe.experts(flat, experts, weights).view_as(x)
    if settings["shared"]:
        output = output + torch.stack([moe.shared(tokens) for tokens in ours])
    (output * g).sum().backward()
    wanted = {name: p.grad.clone() for name, p in moe.named_parameters()}
    moe.zero_grad()

    placement = None
    if settings["ranks"]:
        placement = Placement(E, tuple(map(tuple, settings["ranks"])))
    if settings["redundant"] is not None:
        load = experts.flatten().bincount(minlength=E)
        placement = place_experts(load, n_ranks, settings["redundant"])
    layer = ExpertParallel(moe, group, placement, once=settings["once"])
    mine = x[rank].clone().requires_grad_()
    found = layer(mine)
    (found.output * g[rank]).sum().backward()
    traffic = layer.traffic._asdict()
    layer.reduce_gradients()
    slots = list(layer.placement.ranks[rank])
    pairs = {
        "output": (found.output, output[rank]),
        "x": (mine.grad, ours.grad[rank]),
        "gate_up": (layer.experts.gate_up.grad, wanted["experts.gate_up"][slots]),
        "down": (layer.experts.down.grad, wanted["experts.down"][slots]),
        "router": (layer.router.weight.grad, wanted["router.weight"]),
    }
    if settings["shared"]:
        pairs["shared"] = layer.shared.down.weight.grad, wanted["shared.down.weight"]
    # What the routing says: pairs, or pairs of a token and a rank, whose rank is another one.
    homes = layer.placement.homes
    mine_experts = routings[rank].experts
    if settings["redundant"] is None:
        there = [[homes(int(e))[0] for e in row] for row in mine_experts]
        if settings["once"]:
            there = [sorted(set(row)) for row in there]
        away = sum(home != rank for row in there for home in row)
    else:
        away = None
    return {
        "same": {name: bool(torch.equal(a, b)) for name, (a, b) in pairs.items()},
        "off": {name: largest(a - b) for name, (a, b) in pairs.items()},
        "size": {name: largest(b) for name, (a, b) in pairs.items()},
        "traffic": traffic, "away": away, "bytes": d * x.element_size(),
        "received": traffic["work"],
    }


for settings in json.loads(CASES):
    print(json.dumps(compare(settings)))
dist.destroy_process_group()
"""

PLAIN = ["output", "x", "gate_up", "down"]


DEFAULT = {
    "n_experts": 8,
    "top_k": 2,
    "n_tokens": 33,
    "dtype": "float32",
    "once": False,
    "ranks": None,
    "redundant": None,
    "hot": False,
    "shared": False,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "float64": {"dtype": "float64"},
    "another placement": {"ranks": [[5, 0], [7, 2], [1, 6], [4, 3]]},
    "one expert each, most to the first": {"hot": True, "top_k": 1},
    "no tokens": {"n_tokens": 0},
    "one token, all experts": {"n_tokens": 1, "top_k": 8},
    "more experts": {"top_k": 3, "n_experts": 16},
    "shared": {"shared": True},
    "four experts each": {"top_k": 4},
    "four experts each, once": {"top_k": 4, "once": True},
    "hot": {"hot": True},
    "hot, replicas": {"hot": True, "redundant": 4},
    "hot, replicas, once": {"hot": True, "redundant": 4, "once": True},
}

Told = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def four() -> Told:
    """What four ranks say of each case; they are started once."""
    return told_by(4, CASES)


def told_by(n_ranks: int, cases: dict[str, dict[str, Any]]) -> Told:
    given = json.dumps([DEFAULT | changes for changes in cases.values()])
    texts = launch(f"CASES = {given!r}\n{PROGRAM}", n_ranks, seconds=300)
    lines = [[json.loads(line) for line in text.splitlines()] for text in texts]
    by_case = dict(zip(cases, zip(*lines, strict=True), strict=True))
    return lambda case: list(by_case[case])


def check(told: list[dict[str, Any]], same: list[str], dtype: str = "float32") -> None:
    """Those named are equal bit for bit; the others differ by roundings of sums."""
    # Sums of at most a few hundred terms in another order: 2^9 roundings of the largest.
    bound = 2**9 * torch.finfo(getattr(torch, dtype)).eps
    for rank in told:
        assert [name for name in same if not rank["same"][name]] == []
        for name, off in rank["off"].items():
            assert off <= bound * max(1.0, rank["size"][name]), name
        if rank["away"] is not None:
            traffic = rank["traffic"]
            one_way = rank["away"] * rank["bytes"]
            assert traffic["rows"] == rank["away"]
            assert traffic["dispatch"] == traffic["formula"] == one_way
    sent, returned = (sum(rank["traffic"][way] for rank in told) for way in ("dispatch", "combine"))
    assert sent == returned


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "plain",
        "float64",
        "another placement",
        "one expert each, most to the first",
        "no tokens",
        "one token, all experts",
        "more experts",
        "four experts each",
        "hot",
    ],
)
def test_the_plain_form_equals_one_process_bit_for_bit(case: str, four: Told) -> None:
    check(four(case), PLAIN, CASES[case].get("dtype", "float32"))


@pytest.mark.slow
def test_two_ranks_do_too() -> None:
    check(told_by(2, {"plain": {}})("plain"), PLAIN)


@pytest.mark.slow
def test_a_shared_expert_stays_where_its_tokens_are(four: Told) -> None:
    """x has three gradients then, of router, experts and shared expert, summed in any order."""
    check(four("shared"), ["output", "gate_up", "down"])


@pytest.mark.slow
def test_sending_once_a_rank_is_less_and_rounds_differently(four: Told) -> None:
    plain, once = four("four experts each"), four("four experts each, once")
    check(once, [])
    rows = [sum(rank["traffic"]["rows"] for rank in told) for told in (plain, once)]
    assert rows[1] < rows[0]


@pytest.mark.slow
def test_replicas_share_the_tokens_of_a_hot_expert(four: Told) -> None:
    check(four("hot, replicas"), [])
    check(four("hot, replicas, once"), [])
    busiest = [max(rank["received"] for rank in four(case)) for case in ("hot", "hot, replicas")]
    assert busiest[1] < 0.75 * busiest[0]


# --- a rank that is gone -------------------------------------------------------------------------

DIES = """
import os, signal, torch
import torch.distributed as dist
from slingshot.moe import Experts, MoE, TopKRouter
from slingshot.parallel import ExpertParallel, join
group = join(20)
torch.manual_seed(0)
layer = ExpertParallel(MoE(TopKRouter(8, 4, 2), Experts(4, 8, 8)), group)
layer(torch.randn(5, 8))
if dist.get_rank() == 1:
    {fault}
for _ in range(50):
    layer(torch.randn(5, 8))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", rf"^rank 1 ended with code -{signal.SIGKILL}, so"),
        ("raise ValueError('lost its mind')", r"rank 1 ended with code 1, so all 4 .*its mind$"),
    ],
)
@pytest.mark.parametrize("dying", [1, 3])  # and whatever rank sees it first
def test_a_rank_that_dies_ends_all_with_one_line(fault: str, message: str, dying: int) -> None:
    program = DIES.format(fault=fault).replace("get_rank() == 1", f"get_rank() == {dying}")
    with pytest.raises(RankLostError, match=message.replace("rank 1", f"rank {dying}")) as caught:
        launch(program, 4, seconds=90)
    assert "\n" not in str(caught.value)


def test_ranks_that_were_started_are_stopped_when_another_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def one_only(*words: Any, **more: Any) -> Any:  # noqa: ANN401
        if started:
            raise BlockingIOError("no more processes")
        started.append(start(*words, **more))
        return started[0]

    monkeypatch.setattr("slingshot.parallel.subprocess.Popen", one_only)
    with pytest.raises(BlockingIOError):
        launch("import time; time.sleep(600)", 2)
    assert started[0].poll() is not None


def test_an_imbalance_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"load is \[0.0, 0.0\]; there is no imbalance"):
        in_order(2, 2).imbalance([0, 0])


@pytest.mark.parametrize(
    ("load", "expected"),
    [([1.5e308, 1e307], 1.875), ([1e308, 0], 2), ([5e-324, 0], 2), ([0.1] * 2, 1)],
)
def test_an_imbalance_is_within_the_range_of_a_float(load: list[float], expected: float) -> None:
    assert in_order(2, 2).imbalance(load) == pytest.approx(expected, rel=1e-15)


@pytest.mark.slow
def test_a_rank_that_sleeps_is_named() -> None:
    sleeps = DIES.format(fault="import time; time.sleep(600)").replace("join(20)", "join(3)")
    with pytest.raises(RankLostError, match=r"another rank is gone or does not answer"):
        launch(sleeps, 2, seconds=90)


@pytest.mark.slow
def test_a_program_that_does_not_end_is_stopped() -> None:
    with pytest.raises(RankLostError, match=r"rank 0 did not end within 2 s, so all 2 were stop"):
        launch("import time; time.sleep(600)", 2, seconds=2)


def test_a_program_that_was_not_launched_is_told_so() -> None:
    with pytest.raises(ValueError, match=r"not started by slingshot\.parallel\.launch"):
        join()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            "import sys; sys.exit(3)",
            "rank 0 ended with code 3, so all 1 were stopped: it said nothing",
        ),
        ("raise SystemExit('enough')", "rank 0 ended with code 1, so all 1 were stopped: enough"),
        (
            "1 / 0",
            "rank 0 ended with code 1, so all 1 were stopped: ZeroDivisionError: division by",
        ),
        ("import os; os.abort()", "rank 0 ended with code -6"),
    ],
)
def test_how_a_rank_ended_is_told(program: str, message: str) -> None:
    with pytest.raises(RankLostError, match=message):
        launch(program, 1)


@pytest.mark.parametrize("ending", ["", "sys.exit()", "sys.exit(0)", "raise SystemExit"])
def test_a_rank_that_is_done_ends_without_being_taken_down(ending: str) -> None:
    assert launch(DONE + ending, 1) == ["a thread\na last word\n"]


def test_no_name_of_a_program_stands_in_the_way_of_its_end() -> None:
    names = ["atexit", "os", "sys", "threading", "program", "status", "distributed", "thread"]
    taken = f"print('done')\n{' = '.join(names)} = 'taken'"
    assert launch(taken, 1) == ["done\n"]


# What the program holds would abort the process if Python took it down.
DONE = """
import atexit, os, sys, threading, time
class Gloo:
    def __del__(self, abort=os.abort):
        abort()
held = Gloo()
threading.Thread(target=lambda: (time.sleep(0.2), print("a thread"))).start()
atexit.register(print, "a last word")
"""


def test_what_ranks_print_comes_back_in_their_order() -> None:
    program = "import os; print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])"
    assert launch(program, 3) == [f"rank {rank} of 3\n" for rank in range(3)]
    with pytest.raises(ValueError, match="n_ranks is 0; give a whole number"):
        launch(program, 0)


# --- placement -----------------------------------------------------------------------------------

EPLB = [
    (
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    ),
    (
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ),
]


@pytest.mark.parametrize(("load", "slots"), EPLB)
def test_the_worked_example_of_deepseeks_balancer(load: list[int], slots: list[int]) -> None:
    """The README of EPLB by deepseek-ai: 12 experts in 4 groups, 2 nodes, 8 GPUs, 16 slots."""
    placement = place_experts(load, 8, 4, n_nodes=2, n_groups=4)
    assert [expert for rank in placement.ranks for expert in rank] == slots


loads = st.lists(st.floats(0, 1e6), min_size=1, max_size=24)


@given(loads, st.integers(1, 6), st.integers(0, 12))
def test_a_placement_is_one(load: list[float], n_ranks: int, n_redundant: int) -> None:
    """Every expert somewhere, none twice on a rank, all ranks with as many slots."""
    if (len(load) + n_redundant) % n_ranks:
        return
    if n_redundant > len(load) * (n_ranks - 1):
        with pytest.raises(
            ValueError, match=r"n_redundant is .* on a node, where .* have room for .*; give fewer"
        ):
            place_experts(load, n_ranks, n_redundant)
        return
    placement = place_experts(load, n_ranks, n_redundant)  # its __post_init__ refuses the rest
    assert {len(slots) for slots in placement.ranks} == {(len(load) + n_redundant) // n_ranks}
    assert sum(placement.replicas) == len(load) + n_redundant
    assert sum(placement.rank_load(load)) == pytest.approx(sum(load))


def test_zipf_loads_need_replicas_and_not_only_packing() -> None:
    load = [1 / (e + 1) for e in range(256)]
    plain = in_order(256, 32).imbalance(load)
    packed, replicated = (place_experts(load, 32, n).imbalance(load) for n in (0, 32))
    assert plain > packed > 32 * load[0] / sum(load) * 0.999  # one expert is more than a share
    assert replicated < 1.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1), "load is"),
        (([1, -1], 1), "finite and at least 0"),
        (([1, float("nan")], 1), "finite"),
        ((3, 1), "load is 3; give a number for each expert"),
        ((torch.tensor(3.0), 1), r"load is 3\.0; give a number for each expert"),
        ((np.array(3), 1), "load is 3; give a number for each expert"),
        (([[1, 2]], 1), r"load is \[\[1, 2\]\]; give a number for each expert"),
        (([1e308, 1e308], 1), r"load is \[1e\+308, 1e\+308\], whose sum overflows; pass counts"),
        (([1, 2, 3], 2), r"n_experts \+ n_redundant is 3, not a multiple of 2"),
        (([1, 2], 0), "n_ranks is 0"),
        (([1, 2], 2, -2), "n_redundant is -2"),
        (([1, 2], 2, 4), "n_redundant is .* give fewer"),
    ],
)
def test_what_cannot_be_placed_is_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        place_experts(*arguments)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (torch.tensor(2.0), "load is 2.0; give a number for each expert"),
        ([1e308, 1e308], "whose sum overflows"),
        ([1, 2, 3], "load has 3 experts and the placement 2; pass"),
    ],
)
def test_a_load_that_is_none_of_a_placement_is_named(load: Any, message: str) -> None:  # noqa: ANN401
    for ask in (in_order(2, 2).rank_load, in_order(2, 2).imbalance):
        with pytest.raises(ValueError, match=message):
            ask(load)


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        (((0, 0), (1, 2)), r"rank 0 holds \[0, 0\]; give experts from 0 to 2, each once"),
        (((0, 3), (1, 2)), "from 0 to 2"),
        (((0, 1), (0.5, 2)), r"rank 1 holds \[0\.5, 2\]; give experts from 0 to 2"),
        (((0,), (1,)), "expert 2 is on no rank"),
    ],
)
def test_a_placement_that_is_none_is_named(
    ranks: tuple[tuple[int, ...], ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Placement(3, ranks)
    with pytest.raises(ValueError, match=r"n_experts is 2\.5; give a whole number"):
        Placement(2.5, ranks)  # type: ignore[arg-type]


# --- one rank, in this process -------------------------------------------------------------------


@pytest.fixture
def alone() -> Iterator[dist.ProcessGroup]:
    """A group of one rank."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    group = dist.group.WORLD
    assert group is not None
    yield group
    dist.destroy_process_group()


def test_a_placement_for_other_ranks_is_named(alone: dist.ProcessGroup) -> None:
    moe = MoE(TopKRouter(8, 4, 2), Experts(4, 8, 8))
    with pytest.raises(ValueError, match="placement has 4 experts on 2 ranks; there are 4 on 1"):
        ExpertParallel(moe, alone, in_order(4, 2))
    with pytest.raises(ValueError, match="placement has 8 experts on 1 ranks; there are 4 on 1"):
        ExpertParallel(moe, alone, in_order(8, 1))


@pytest.mark.parametrize("once", [False, True])
def test_a_router_that_goes_by_ids_gets_them(once: bool, alone: dist.ProcessGroup) -> None:
    torch.manual_seed(0)
    table = hash_table(torch.ones(10, dtype=torch.int64), 4, 2)
    moe = MoE(HashRouter(8, 4, table), Experts(4, 8, 8), SwiGLU(8, 8))
    layer = ExpertParallel(moe, alone, once=once)
    x, tokens = torch.randn(2, 5, 8), torch.randint(10, (2, 5))
    found, expected = layer(x, tokens).output, moe(x, tokens).output
    torch.testing.assert_close(found, expected)
    assert torch.equal(found, expected) or once
    with pytest.raises(ValueError, match="goes by ids and got no tokens"):
        layer(x)


def test_another_error_is_not_blamed_on_a_rank(
    alone: dist.ProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise RuntimeError("no memory")

    layer = ExpertParallel(MoE(TopKRouter(8, 4, 2), Experts(4, 8, 8)), alone)
    monkeypatch.setattr(layer.experts, "forward", no_memory)
    with pytest.raises(RuntimeError, match="no memory") as caught:
        layer(torch.randn(3, 8))
    assert not isinstance(caught.value, RankLostError)


def test_a_rank_that_is_lost_in_backward_is_named(
    alone: dist.ProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object, **__: object) -> None:
        raise RuntimeError("Connection closed by peer\nand a trace")

    layer = ExpertParallel(MoE(TopKRouter(8, 4, 2), Experts(4, 8, 8)), alone)
    output = layer(torch.randn(3, 8)).output.sum()
    monkeypatch.setattr(dist, "all_to_all_single", closed)
    monkeypatch.setattr(dist, "all_reduce", closed)
    message = r"^rank 0: another rank is gone or does not answer \(Connection closed by peer\)$"
    for call in (output.backward, layer.reduce_gradients):
        with pytest.raises(RankLostError, match=message):
            call()
