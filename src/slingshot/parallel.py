"""Experts on many processes: each token travels to where its experts live, and back.

Expert parallelism divides the experts of a layer among ranks. Every rank has tokens of its own and
routes them. It sends each chosen token to the rank of the expert, that rank computes, and sends the
result back. Both journeys are one collective, all-to-all, and the bytes that it moves are what
limits a model such as V3 on many machines.

Here ranks are processes on one machine that talk through gloo. What they compute equals one
process that had all tokens and all experts, bit for bit, for a matrix product sees the same rows in
the same order. A busy expert makes its rank late and all others wait, so `place_experts` gives it
several replicas and packs heavy experts with light ones.
"""

import datetime
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64, Integer, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from slingshot import require
from slingshot.moe import Experts, MixtureOutput, MoE, Routing, route, sort_by_expert
from slingshot.tensors import check_input, check_output

# --- which rank holds which expert -------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    """Which experts each rank holds: ``ranks[r]`` lists them, one for each of its slots.

    An expert that stands on several ranks has as many replicas, and its tokens are divided evenly
    among these.
    """

    n_experts: int
    ranks: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for an expert that is nowhere, unknown, or twice on one rank."""
        require.counts(n_experts=self.n_experts)
        for rank, slots in enumerate(self.ranks):
            unknown = [e for e in slots if e not in range(self.n_experts)]
            if unknown or len(set(slots)) < len(slots):
                raise ValueError(
                    f"rank {rank} holds {list(slots)}; give experts from 0 to "
                    f"{self.n_experts - 1}, each once"
                )
        if missing := set(range(self.n_experts)) - {e for slots in self.ranks for e in slots}:
            raise ValueError(f"expert {min(missing)} is on no rank; place every expert")

    @property
    def replicas(self) -> tuple[int, ...]:
        """How many replicas each expert has."""
        flat = [e for slots in self.ranks for e in slots]
        return tuple(flat.count(e) for e in range(self.n_experts))

    def homes(self, expert: int) -> list[int]:
        """The ranks that hold an expert, in order."""
        return [rank for rank, slots in enumerate(self.ranks) if expert in slots]

    def rank_load(self, load: Sequence[float] | Tensor) -> list[float]:
        """Return the tokens of each rank, when an expert's tokens are divided evenly.

        Raises ``ValueError`` for loads that `place_experts` refuses, or of other experts.
        """
        told, replicas = _loads(load), self.replicas
        if len(told) != self.n_experts:
            raise ValueError(
                f"load has {len(told)} experts and the placement {self.n_experts}; pass the load "
                "of the same experts"
            )
        return [sum(told[e] / replicas[e] for e in slots) for slots in self.ranks]

    def imbalance(self, load: Sequence[float] | Tensor) -> float:
        """Return the tokens of the busiest rank over the mean; 1 if all are as busy.

        Raises ``ValueError`` as `rank_load` does, and where no expert has a token.
        """
        loads = self.rank_load(load)
        busiest = max(loads)
        if not busiest:
            raise ValueError(
                f"load is {_loads(load)}; there is no imbalance before a token is routed"
            )
        # Shares of the busiest, whose sum is within the range of a float whatever the loads are.
        return len(loads) / sum(each / busiest for each in loads)


def in_order(n_experts: int, n_ranks: int) -> Placement:
    """Return the plain placement: rank 0 holds the first experts, and so on.

    Raises ``ValueError`` unless the ranks share the experts evenly.
    """
    require.counts(n_experts=n_experts, n_ranks=n_ranks)
    _check_divides("n_experts", n_experts, n_ranks)
    each = n_experts // n_ranks
    starts = range(0, n_experts, each)
    return Placement(n_experts, tuple(tuple(range(start, start + each)) for start in starts))


def place_experts(
    load: Sequence[float] | Tensor,
    n_ranks: int,
    n_redundant: int = 0,
    *,
    n_nodes: int = 1,
    n_groups: int | None = None,
) -> Placement:
    """Return a placement in which ranks are about as busy, for experts with this ``load [E]``.

    ``n_redundant`` slots hold a second replica, or third, of experts: one after the other goes to
    the expert with the most tokens a replica. Then replicas are packed, the heaviest first, each on
    the least busy rank that has a free slot and not yet this expert. All ranks have as many slots.

    With ``n_nodes`` the experts come in ``n_groups`` of neighbors (default: every expert is one),
    and whole groups are packed on nodes first, as V3's router sends a token to few groups; each
    node replicates and packs its own.

    Source: DeepSeek's expert parallelism load balancer (EPLB), which may put two replicas on one
    rank; this one never does. Raises ``ValueError`` for loads that are not finite and at least 0,
    or whose sum is not finite, sizes that do not divide, and more redundant slots than the ranks
    can use.
    """
    told = _loads(load)
    n_experts, groups = len(told), len(told) if n_groups is None else n_groups
    require.counts(n_experts=n_experts, n_ranks=n_ranks, n_nodes=n_nodes, n_groups=groups)
    require.counts(least=0, n_redundant=n_redundant)
    _check_divides("n_experts + n_redundant", n_experts + n_redundant, n_ranks)
    _check_divides("n_experts", n_experts, groups)
    for name, size in (("n_ranks", n_ranks), ("n_groups", groups), ("n_redundant", n_redundant)):
        _check_divides(name, size, n_nodes)
    size = n_experts // groups
    members = [list(range(start, start + size)) for start in range(0, n_experts, size)]
    weights = [sum(told[e] for e in group) for group in members]
    per_node, slots = n_ranks // n_nodes, (n_experts + n_redundant) // n_ranks
    ranks: list[tuple[int, ...]] = []
    for node in _pack(list(range(groups)), weights, n_nodes, groups // n_nodes):
        experts = [e for group in node for e in members[group]]
        items = _replicate([told[e] for e in experts], n_redundant // n_nodes, per_node)
        shares = [told[e] / items.count(i) for i, e in enumerate(experts)]
        packed = _pack(items, shares, per_node, slots)
        ranks += [tuple(experts[i] for i in rank) for rank in packed]
    return Placement(n_experts, tuple(ranks))


def _replicate(load: list[float], n_redundant: int, most: int) -> list[int]:
    """The experts, and once more those with the most tokens a replica, up to ``most`` replicas."""
    items, counts = list(range(len(load))), [1] * len(load)
    for _ in range(n_redundant):
        free = [e for e in range(len(load)) if counts[e] < most]
        if not free:
            raise ValueError(
                f"n_redundant is {n_redundant} on a node, where {len(load)} experts on {most} "
                f"ranks have room for {len(load) * (most - 1)}; give fewer"
            )
        busiest = max(free, key=lambda e: load[e] / counts[e])
        counts[busiest] += 1
        items.append(busiest)
    return items


def _pack(items: list[int], weights: list[float], n_packs: int, size: int) -> list[list[int]]:
    """Put items in packs of a size, the heaviest first, each in the lightest that may take it.

    ``weights[i]`` is that of item i. One that comes several times, at most once a pack, stands
    nowhere twice.
    """
    packs: list[list[int]] = [[] for _ in range(n_packs)]

    def total(pack: list[int]) -> float:
        return math.fsum(weights[item] for item in pack)

    for item in sorted(items, key=lambda item: -weights[item]):
        without = [pack for pack in packs if item not in pack]
        free = [pack for pack in without if len(pack) < size]
        lightest = min(free or without, key=total)
        if not free:
            # Whatever has room holds the item already. It takes something from the lightest pack
            # that is full, which holds more than it and so an item that it does not hold.
            roomy = next(pack for pack in packs if len(pack) < size)
            moving = min((i for i in lightest if i not in roomy), key=lambda i: weights[i])
            lightest.remove(moving)
            roomy.append(moving)
        lightest.append(item)
    return packs


def _loads(load: Sequence[float] | Tensor) -> list[float]:
    """The load as floats; raise ``ValueError`` unless it holds counts, one for each expert."""
    told = load.tolist() if hasattr(load, "tolist") else load  # a number, if it is no vector
    told = list(told) if isinstance(told, Iterable) else told
    counted = isinstance(told, list) and all(require.is_finite(e) and e >= 0 for e in told)
    if not counted or not told:
        raise ValueError(
            f"load is {told}; give a number for each expert, its tokens, finite and at least 0"
        )
    loads = [float(each) for each in told]
    if not require.is_finite(sum(loads)):
        raise ValueError(f"load is {loads}, whose sum overflows; pass counts of tokens")
    return loads


def _check_divides(name: str, size: int, n: int) -> None:
    if size % n:
        raise ValueError(f"{name} is {size}, not a multiple of {n}; change one")


# --- the layer -----------------------------------------------------------------------------------


class Traffic(NamedTuple):
    """What a rank sent to *other* ranks in one forward, in bytes unless said otherwise.

    ``dispatch`` are vectors of its tokens on their way to experts, ``combine`` results for tokens
    of others on their way back, both counted on the tensors that are handed to the collective.
    ``metadata`` are the weights and expert numbers beside the dispatch. ``formula`` is what the
    routing says of the dispatch beforehand: (token, expert) pairs whose expert lives elsewhere, or
    (token, rank) pairs when a token goes once to a rank; times channels; times bytes of a number.
    ``rows`` is the number of vectors in the dispatch, ``work`` that of (token, expert) pairs that
    this rank computed, its own included.
    """

    dispatch: int
    combine: int
    metadata: int
    formula: int
    rows: int
    work: int


class ExpertParallel(nn.Module):
    """A mixture layer whose experts are divided among the ranks of ``group``; called like `MoE`.

    Every rank is given the same ``moe``, keeps the experts of its own slots and all of the router
    and the shared expert. ``placement`` says which slots those are, by default `in_order`. Each
    rank calls it with its own tokens, all at the same time.

    ``once`` chooses what travels. ``False``, the plain form: a vector for every (token, expert)
    pair, so that results equal `MoE`'s bit for bit. ``True``: a vector for every (token, rank), and
    the sum of that rank's experts comes back, which is less to send and rounds in another order.

    After backward the experts' gradients are complete where an expert has one replica. Those of the
    router, of the shared expert and of replicas are each rank's part: `reduce_gradients` sums them.

    Raises ``ValueError`` for a placement that does not fit. Source: Lepikhin et al., GShard,
    arXiv 2006.16668, §3; the deployment in DeepSeek-V3, arXiv 2412.19437, §3.2.2 and §3.4.
    """

    _homes: Tensor
    _n_homes: Tensor

    def __init__(
        self,
        moe: MoE,
        group: dist.ProcessGroup,
        placement: Placement | None = None,
        *,
        once: bool = False,
    ) -> None:
        """Take this rank's share of the experts."""
        super().__init__()
        self.group, self.once = group, once
        self.rank, self.n_ranks = dist.get_rank(group), dist.get_world_size(group)
        n_experts, self.d_model, d_expert = moe.experts.down.shape
        self.placement = placement or in_order(n_experts, self.n_ranks)
        if (self.placement.n_experts, len(self.placement.ranks)) != (n_experts, self.n_ranks):
            raise ValueError(
                f"placement has {self.placement.n_experts} experts on {len(self.placement.ranks)} "
                f"ranks; there are {n_experts} on {self.n_ranks}"
            )
        self.router, self.shared = moe.router, moe.shared
        mine = list(self.placement.ranks[self.rank])
        self.experts = Experts(len(mine), self.d_model, d_expert).to(moe.experts.down)
        with torch.no_grad():
            self.experts.gate_up.copy_(moe.experts.gate_up[mine])
            self.experts.down.copy_(moe.experts.down[mine])
        self.traffic: Traffic | None = None
        self.register_buffer("_homes", _table(self.placement), persistent=False)
        replicas = torch.tensor(self.placement.replicas)
        self.register_buffer("_n_homes", replicas, persistent=False)

    def forward(
        self, x: Float[Tensor, "*T d"], tokens: Integer[Tensor, "*T"] | None = None
    ) -> MixtureOutput:
        """Mix the experts' answers for this rank's ``x [..., d_model]``, as `MoE` does.

        Raises ``ValueError`` as `MoE` does, and `RankLostError` when another rank is gone; so do
        the backward pass and `reduce_gradients`.
        """
        x = check_input(x, self.d_model)
        rows = x.reshape(-1, self.d_model)
        routing = route(self.router, rows, tokens)
        output = self._exchange(rows, routing).reshape(x.shape)
        if self.shared is not None:
            output = output + self.shared(x)
            check_output(output, x)
        return MixtureOutput(output, routing)

    def _exchange(self, x: Float[Tensor, "T d"], routing: Routing) -> Float[Tensor, "T d"]:
        """Send, compute, send back, and sum for each token in the order of its experts."""
        dispatch = sort_by_expert(routing.experts, self.placement.n_experts)
        slots = self._choose_homes(routing.experts.flatten()[dispatch.pairs])
        # By rank, and within a rank by expert: stable, so that tokens keep their order.
        ranks, order = slots[:, 0].sort(stable=True)
        pairs, tokens, local = dispatch.pairs[order], dispatch.tokens[order], slots[order, 1]
        # The rows that travel: one for each token that a rank sees at all, or one a pair.
        if self.once:
            rows = torch.stack([ranks, tokens])
            (row_ranks, row_tokens), row_of_pair = rows.unique(dim=1, return_inverse=True)  # type: ignore[no-untyped-call]
            leaving = x.index_select(0, row_tokens)
        else:
            row_ranks, row_of_pair = ranks, torch.arange(len(pairs))
            # Two gathers, for the gradient of the first adds in the order of experts.
            leaving = x.index_select(0, dispatch.tokens).index_select(0, order)
        sent_rows = row_ranks.bincount(minlength=self.n_ranks)
        sent_pairs = ranks.bincount(minlength=self.n_ranks)
        starts = (sent_rows.cumsum(0) - sent_rows)[ranks]
        notes = torch.stack([local, row_of_pair - starts], dim=1)
        got_rows, got_pairs = self._counts(sent_rows, sent_pairs)
        received = all_to_all(leaving, sent_rows, got_rows, self.group)
        sent_weights = routing.weights.flatten()[pairs]
        weights = all_to_all(sent_weights, sent_pairs, got_pairs, self.group)
        got_notes = all_to_all(notes, sent_pairs, got_pairs, self.group)
        results = self._compute(received, weights, got_notes, got_rows, got_pairs)
        back = all_to_all(results, got_rows, sent_rows, self.group)
        self.traffic = Traffic(
            dispatch=_leaving(leaving, sent_rows, self.rank),
            combine=_leaving(results, got_rows, self.rank),
            metadata=_leaving(sent_weights, sent_pairs, self.rank)
            + _leaving(notes, sent_pairs, self.rank),
            formula=self._predict(ranks, tokens) * x.shape[1] * x.element_size(),
            rows=int(sent_rows.sum() - sent_rows[self.rank]),
            work=len(got_notes),
        )
        if not self.once:  # in the order of experts, as one process adds them
            back, row_tokens = back[order.argsort()], dispatch.tokens
        sums = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
        return sums.index_add(0, row_tokens, back.to(sums.dtype)).to(x.dtype)

    def _choose_homes(self, experts: Int64[Tensor, "pairs"]) -> Int64[Tensor, "pairs 2"]:
        """The rank and slot of each of ``experts``, which are sorted: replicas take turns."""
        counts = experts.bincount(minlength=self.placement.n_experts)
        turn = torch.arange(len(experts)) - (counts.cumsum(0) - counts)[experts]
        # Replica after replica in blocks, so that one with a single replica keeps its order.
        which = turn * self._n_homes[experts] // counts[experts]
        return self._homes[experts, which]

    def _counts(
        self, rows: Int64[Tensor, "ranks"], pairs: Int64[Tensor, "ranks"]
    ) -> tuple[Int64[Tensor, "ranks"], Int64[Tensor, "ranks"]]:
        """Tell every rank how much comes from here; return how much comes from each."""
        told = torch.stack([rows, pairs], dim=1)
        heard = torch.empty_like(told)
        with _others_answer(self.group):
            dist.all_to_all_single(heard, told, group=self.group)
        return heard[:, 0].contiguous(), heard[:, 1].contiguous()

    def _compute(
        self,
        rows: Float[Tensor, "rows d"],
        weights: Float[Tensor, "pairs"],
        notes: Int64[Tensor, "pairs 2"],
        got_rows: Int64[Tensor, "ranks"],
        got_pairs: Int64[Tensor, "ranks"],
    ) -> Float[Tensor, "rows d"]:
        """Run what came through the experts of this rank; return a result for each row."""
        starts = (got_rows.cumsum(0) - got_rows).repeat_interleave(got_pairs)
        row_of_pair = notes[:, 1] + starts
        x = rows.index_select(0, row_of_pair) if self.once else rows
        results: Tensor = self.experts(x, notes[:, :1], weights[:, None])
        if not self.once:
            return results
        return torch.zeros_like(rows).index_add(0, row_of_pair, results)

    def _predict(self, ranks: Int64[Tensor, "pairs"], tokens: Int64[Tensor, "pairs"]) -> int:
        """Vectors that must leave this rank: of pairs, or of a token and a rank, not this one."""
        away = ranks != self.rank
        pairs = set(zip(ranks[away].tolist(), tokens[away].tolist(), strict=True))
        return len(pairs) if self.once else int(away.sum())

    def reduce_gradients(self) -> None:
        """Sum over all ranks the gradients of what several ranks hold: call it after backward."""
        shared = [*self.router.parameters()]
        if self.shared is not None:
            shared += self.shared.parameters()
        for parameter in shared:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            self._sum(parameter.grad)
        if max(self.placement.replicas) > 1:
            for parameter in (self.experts.gate_up, self.experts.down):
                self._reduce_replicas(parameter)

    def _reduce_replicas(self, parameter: nn.Parameter) -> None:
        """Sum the gradients of an expert's replicas, and give the sum to each."""
        mine = list(self.placement.ranks[self.rank])
        whole = parameter.new_zeros(self.placement.n_experts, *parameter.shape[1:])
        if parameter.grad is not None:
            whole[mine] = parameter.grad
        self._sum(whole)
        parameter.grad = whole[mine].clone()

    def _sum(self, part: Tensor) -> None:
        """Replace ``part`` by the sum of what all ranks have."""
        with _others_answer(self.group):
            dist.all_reduce(part, group=self.group)


def _leaving(rows: Shaped[Tensor, "rows *rest"], sent: Int64[Tensor, "ranks"], rank: int) -> int:
    """The bytes of ``rows`` that go to other ranks, when ``sent[r]`` of them go to rank r."""
    to_others = [part for r, part in enumerate(rows.split(sent.tolist())) if r != rank]  # type: ignore[no-untyped-call]
    return sum(part.nbytes for part in to_others)


def _table(placement: Placement) -> Int64[Tensor, "E most_replicas 2"]:
    """The rank and the slot of each replica."""
    table = torch.zeros(placement.n_experts, max(placement.replicas), 2, dtype=torch.int64)
    for expert in range(placement.n_experts):
        for i, rank in enumerate(placement.homes(expert)):
            table[expert, i] = torch.tensor([rank, placement.ranks[rank].index(expert)])
    return table


# --- the collective, with a gradient -------------------------------------------------------------


class _AllToAll(torch.autograd.Function):
    """Rows to other ranks. The gradient of a row travels back the way that the row came."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 torch's own context object has no public type
        rows: Shaped[Tensor, "leaving *rest"],
        sent: list[int],
        received: list[int],
        group: dist.ProcessGroup,
    ) -> Shaped[Tensor, "coming *rest"]:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _send(rows, sent, received, group)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 as above
        grad: Shaped[Tensor, "coming *rest"],
    ) -> tuple[Tensor, None, None, None]:
        return _send(grad, ctx.received, ctx.sent, ctx.group), None, None, None


def all_to_all(
    rows: Shaped[Tensor, "leaving *rest"],
    sent: Int64[Tensor, "ranks"],
    received: Int64[Tensor, "ranks"],
    group: dist.ProcessGroup,
) -> Shaped[Tensor, "coming *rest"]:
    """Send the first ``sent[0]`` of ``rows`` to rank 0, the next to rank 1; return what comes.

    ``received [P]`` says how many rows come from each rank, and they stand in that order.
    """
    out: Tensor = _AllToAll.apply(  # type: ignore[no-untyped-call]
        rows, sent.tolist(), received.tolist(), group
    )
    return out


def _send(rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    out = rows.new_empty(sum(received), *rows.shape[1:])
    with _others_answer(group):
        dist.all_to_all_single(out, rows.contiguous(), received, sent, group=group)
    return out


# --- processes -----------------------------------------------------------------------------------


class RankLostError(RuntimeError):
    """A rank ended, or did not answer in time, and the others cannot go on without it."""


@contextmanager
def _others_answer(group: dist.ProcessGroup) -> Iterator[None]:
    """Raise `RankLostError` where gloo says that a connection is closed or took too long."""
    try:
        yield
    except RuntimeError as error:
        told = str(error).strip() or type(error).__name__
        raise RankLostError(
            f"rank {dist.get_rank(group)}: another rank is gone or does not answer "
            f"({told.splitlines()[0]})"
        ) from error


def join(seconds: float = 60.0) -> dist.ProcessGroup:
    """Join the ranks that `launch` started, in a program that it runs; return their group.

    A collective for which a rank waits longer than ``seconds`` is an error. Raises ``ValueError``
    where `launch` did not start the program.
    """
    if "SLINGSHOT_RENDEZVOUS" not in os.environ:
        raise ValueError("this process was not started by slingshot.parallel.launch; start it so")
    torch.set_num_threads(1)
    n_ranks = int(os.environ["WORLD_SIZE"])
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(os.environ["SLINGSHOT_RENDEZVOUS"], n_ranks),  # type: ignore[attr-defined]
        rank=int(os.environ["RANK"]),
        world_size=n_ranks,
        timeout=datetime.timedelta(seconds=seconds),
    )
    group = dist.group.WORLD
    assert group is not None  # for mypy: it was made a moment ago
    sys.excepthook = _end_at_once
    return group


def _end_at_once(kind: type[BaseException], error: BaseException, trace: Any) -> None:  # noqa: ANN401
    """Say what was raised and end: to leave a group that others wait in may abort, unexplained."""
    sys.__excepthook__(kind, error, trace)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


# A rank that was done once ended with an abort of its own threads ("terminate called without an
# active exception", on Python 3.13, its cause not found). So a rank leaves its group, says what it
# has to say, and ends without being taken down. In a function, so that no name of the program's
# stands in its way.
_PROGRAM_AND_END = """
def _program_and_end(names):
    import atexit, os, sys, threading
    program, sys.argv, status = sys.argv[1], ["-c"], 0
    try:
        exec(compile(program, "<string>", "exec"), names)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if status and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    for thread in set(threading.enumerate()) - {threading.main_thread()}:
        if not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_initialized():
        distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

_program_and_end(globals())
"""


def launch(program: str, n_ranks: int, *, seconds: float = 120.0) -> list[str]:
    """Run a Python ``program`` in ``n_ranks`` processes; return what each printed, by rank.

    The program calls `join` to find the others. It is what one would give to ``torchrun``; here it
    needs no file and no port, and works from a notebook. When a process fails the others are
    stopped.

    Raises `RankLostError` with the last line of the process that failed first, or for one that is
    not done within ``seconds``; ``ValueError`` for fewer than one rank.
    """
    require.counts(n_ranks=n_ranks)
    require.positive(seconds=seconds)
    with tempfile.TemporaryDirectory() as folder:
        ranks: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(n_ranks):  # one by one: what was started is stopped in any case
                ranks.append(_start(program, rank, n_ranks, Path(folder)))
            failed = _wait(ranks, time.monotonic() + seconds)
        finally:
            for each in ranks:
                each.kill()
                each.wait()
        texts = [(Path(folder) / f"{rank}.out").read_text("utf-8") for rank in range(n_ranks)]
        errors = [(Path(folder) / f"{rank}.err").read_text("utf-8") for rank in range(n_ranks)]
    if not failed:
        return texts
    # A rank that ends takes the others with it: name the one that a signal ended, or that did not
    # itself complain of another.
    first, code = min(
        failed, key=lambda each: ((each[1] or 0) > 0, RankLostError.__name__ in errors[each[0]])
    )
    last = (errors[first].strip().splitlines() or ["it said nothing"])[-1]
    why = f"did not end within {seconds:g} s" if code is None else f"ended with code {code}"
    raise RankLostError(f"rank {first} {why}, so all {n_ranks} were stopped: {last}")


def _start(program: str, rank: int, n_ranks: int, folder: Path) -> "subprocess.Popen[bytes]":
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    environment = {
        "GLOO_SOCKET_IFNAME": loopback,
        **os.environ,
        "RANK": str(rank),
        "WORLD_SIZE": str(n_ranks),
        "OMP_NUM_THREADS": "1",
        "SLINGSHOT_RENDEZVOUS": str(folder / "rendezvous"),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    with (folder / f"{rank}.out").open("wb") as out, (folder / f"{rank}.err").open("wb") as err:
        command = [sys.executable, "-c", _PROGRAM_AND_END, program]
        return subprocess.Popen(command, stdout=out, stderr=err, env=environment)


def _wait(ranks: "list[subprocess.Popen[bytes]]", deadline: float) -> list[tuple[int, int | None]]:
    """Wait for all; return those that failed with their codes soon after one has, or one late."""
    while True:
        codes = [rank.poll() for rank in ranks]
        if any(codes):
            time.sleep(0.2)  # for those that the first takes with it, or it is luck who is seen
            return [each for each in enumerate(rank.poll() for rank in ranks) if each[1]]
        if all(code == 0 for code in codes):
            return []
        if time.monotonic() > deadline:
            return [(codes.index(None), None)]
        time.sleep(0.02)
