"""The check of ``place``."""

import ast
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import torch

from slingshot_exercises.checking import (
    EXACT,
    Answer,
    Case,
    Exercise,
    Learner,
    Mistake,
    UnusableError,
    describe_kind,
)
from slingshot_exercises.domain import Domain

Load = Sequence[float]
Ranks = list[list[int]]


class Placed(str):
    """The experts of each rank as a text, sorted within a rank; a failure shows it as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the lists, without quotes."""
        return str(self)


def ranks(answer: object) -> Placed:
    """Read the experts of each rank, in any order within a rank."""
    wanted = "return a list with a list of experts for each rank, such as [[0, 2], [0, 1]]"
    if isinstance(answer, torch.Tensor | np.ndarray) and answer.ndim == 2:
        answer = answer.tolist()
    if not isinstance(answer, list | tuple):
        raise UnusableError(f"it returns {describe_kind(answer)}; {wanted}")
    found: Ranks = []
    for rank in answer:
        experts = rank.tolist() if isinstance(rank, torch.Tensor | np.ndarray) else rank
        whole = isinstance(experts, list | tuple | set | frozenset) and all(
            isinstance(each, int | np.integer) and not isinstance(each, bool) for each in experts
        )
        if not whole:
            raise UnusableError(f"a rank of its list is {describe_kind(rank)}; {wanted}")
        found.append(sorted(int(expert) for expert in experts))
    return Placed(found)


def _most_a_replica(load: Load, copies: list[int], n_ranks: int) -> int:
    free = [e for e in range(len(load)) if copies[e] < n_ranks]
    return max(free, key=lambda e: load[e] / copies[e])


def _heaviest_first(shares: Load, replicas: list[int]) -> list[int]:
    return sorted(replicas, key=lambda e: -shares[e])


def _least_busy(shares: Load, open_to: Ranks) -> list[int]:
    return min(open_to, key=lambda rank: sum(shares[e] for e in rank))


def _place_with(
    pick: Callable[[Load, list[int], int], int] = _most_a_replica,
    *,
    share: Callable[[float, int], float] = lambda load, copies: load / copies,
    order: Callable[[Load, list[int]], list[int]] = _heaviest_first,
    choose: Callable[[Load, Ranks], list[int]] = _least_busy,
    apart: bool = True,
    full: bool = True,
) -> Callable[..., Ranks]:
    """The rule with one part exchanged; ``pick`` gets loads and replicas, ``share`` packs.

    Without ``apart`` a rank may hold an expert twice, and without ``full`` any number of them.
    """

    def place(load: Load, n_ranks: int, n_redundant: int) -> Ranks:
        copies = [1] * len(load)
        for _ in range(n_redundant):
            copies[pick(load, copies, n_ranks)] += 1
        shares = [share(load[e], copies[e]) for e in range(len(load))]
        replicas = [e for e in range(len(load)) for _ in range(copies[e])]
        slots = len(replicas) // n_ranks
        found: Ranks = [[] for _ in range(n_ranks)]
        for expert in order(shares, replicas):
            room = [rank for rank in found if len(rank) < slots or not full]
            open_to = [rank for rank in room if expert not in rank or not apart] or room
            choose(shares, open_to).append(expert)
        return found

    return place


def _explain(case: Case, expected: Answer, got: Answer) -> str:
    """Say what is wrong: ranks, slots, replicas, or which of them lies where."""
    load, n_ranks = case["load"], case["n_ranks"]
    found, right = ast.literal_eval(got), ast.literal_eval(expected)
    if len(found) != n_ranks:
        return f"it returns {len(found)} ranks; there are {n_ranks}"
    everything = [expert for rank in found for expert in rank]
    strange = [expert for expert in everything if not 0 <= expert < len(load)]
    if strange:
        return f"there is no expert {strange[0]}; they are 0 to {len(load) - 1}"
    for expert in range(len(load)):
        if expert not in everything:
            return f"expert {expert} is on no rank; each has at least one replica"
    for number, rank in enumerate(found):
        if len(set(rank)) < len(rank):
            twice = next(expert for expert, n in Counter(rank).items() if n > 1)
            return f"rank {number} holds expert {twice} twice; a second replica there is no help"
    sizes, slots = [len(rank) for rank in found], len(right[0])
    if set(sizes) != {slots}:
        wrong = next(number for number, size in enumerate(sizes) if size != slots)
        return f"rank {wrong} holds {sizes[wrong]} replicas; every rank holds {slots}"
    here, there = Counter(everything), Counter(e for rank in right for e in rank)
    if here != there:
        expert = next(e for e in range(len(load)) if here[e] != there[e])
        return f"expert {expert} has {here[expert]} replicas; by the first step {there[expert]}"
    if sorted(found) == sorted(right):
        return "the ranks are exchanged; of ranks that are equally busy the first takes a replica"
    return "each expert has its replicas, and the second step puts them on other ranks"


PLACE = Exercise(
    "place",
    _place_with(),
    ranks,
    EXACT,
    [
        Mistake(
            "a rank may hold two replicas of one expert; the second is no help there. Each goes to "
            "a rank that has not yet this expert",
            _place_with(apart=False),
        ),
        Mistake(
            "the replicas of an expert do not share its load; each takes its part, load / replicas",
            _place_with(share=lambda load, copies: load),
        ),
        Mistake(
            "the most popular expert gets all slots; compare loads a replica, load / replicas",
            _place_with(
                lambda load, copies, n_ranks: max(
                    (e for e in range(len(load)) if copies[e] < n_ranks), key=lambda e: load[e]
                )
            ),
        ),
        Mistake(
            "a new replica goes where the load would then be largest, load / (replicas + 1); it "
            "goes where the load a replica is largest now",
            _place_with(
                lambda load, copies, n_ranks: max(
                    (e for e in range(len(load)) if copies[e] < n_ranks),
                    key=lambda e: load[e] / (copies[e] + 1),
                )
            ),
        ),
        Mistake(
            "the least popular expert gets a second replica; the most popular one needs it",
            _place_with(
                lambda load, copies, n_ranks: min(
                    (e for e in range(len(load)) if copies[e] < n_ranks),
                    key=lambda e: load[e] / copies[e],
                )
            ),
        ),
        Mistake(
            "the slots go round, to the first experts; each goes to the expert with the most load "
            "a replica",
            _place_with(lambda load, copies, n_ranks: copies.index(min(copies))),
        ),
        Mistake(
            "the lightest replicas are packed first; the heaviest first, as small ones fill gaps",
            _place_with(order=lambda shares, replicas: sorted(replicas, key=lambda e: shares[e])),
        ),
        Mistake(
            "the replicas are packed in the order of their numbers; the heaviest comes first",
            _place_with(order=lambda shares, replicas: replicas),
        ),
        Mistake(
            "replicas are dealt out by the number that a rank holds; they go to the rank that is "
            "least busy",
            _place_with(choose=lambda shares, open_to: min(open_to, key=len)),
        ),
        Mistake(
            "a rank takes replicas until it is full; each goes to the rank that is least busy",
            _place_with(choose=lambda shares, open_to: open_to[0]),
        ),
        Mistake(
            "ranks hold as many replicas as it happens; every rank has the same number of slots",
            _place_with(full=False),
        ),
        Mistake(
            "of equally busy ranks the last takes a replica; the first does",
            _place_with(choose=lambda shares, open_to: _least_busy(shares, open_to[::-1])),
        ),
        Mistake(
            "of equally heavy replicas the one with the higher number is packed first; the lower "
            "number comes first",
            _place_with(
                order=lambda shares, replicas: sorted(replicas, key=lambda e: (-shares[e], -e))
            ),
        ),
        Mistake(
            "of equally loaded experts the last gets a slot; the one with the lowest number does",
            _place_with(
                lambda load, copies, n_ranks: max(
                    (e for e in range(len(load)) if copies[e] < n_ranks),
                    key=lambda e: (load[e] / copies[e], e),
                )
            ),
        ),
    ],
    explain=_explain,
    lesson="To the prediction: yes, it can. Loads of 9, 5, 5 and 1 fill two ranks evenly, with 10 "
    "each. With two more slots the replicas of the 9 must lie apart, and so must those of a 5; the "
    "rule, which never looks back, then leaves 12 on one rank and 8 on the other.",
)


def _is_clear(load: Load, n_ranks: int, n_redundant: int) -> bool:
    """Whether the rule always finds a rank, and no rounding can decide between two.

    Totals of ranks are compared in fractions: they are equal, and then of shares that floats hold
    exactly, or far apart.
    """
    copies = [1] * len(load)
    for _ in range(n_redundant):
        copies[_most_a_replica(load, copies, n_ranks)] += 1
    shares = [Fraction(load[e]) / copies[e] for e in range(len(load))]
    dyadic = all(share.denominator & (share.denominator - 1) == 0 for share in shares)
    slots = sum(copies) // n_ranks
    found: Ranks = [[] for _ in range(n_ranks)]
    for expert in sorted(
        (e for e in range(len(load)) for _ in range(copies[e])), key=lambda e: -shares[e]
    ):
        open_to = [rank for rank in found if len(rank) < slots and expert not in rank]
        if not open_to:
            return False
        totals = {number: sum(shares[e] for e in rank) for number, rank in enumerate(open_to)}
        least = min(totals.values())
        if not dyadic:
            near = [n for n, t in totals.items() if t - least < Fraction(1, 1000) * max(1, least)]
            if any(sorted(open_to[n]) != sorted(open_to[near[0]]) for n in near):
                return False
        min(open_to, key=lambda rank: sum(shares[e] for e in rank)).append(expert)
    return True


def _case(load: Sequence[int], n_ranks: int, n_redundant: int) -> Case:
    return {"load": list(load), "n_ranks": n_ranks, "n_redundant": n_redundant}


def _drawn(
    rng: np.random.Generator,
    n_experts: int,
    n_ranks: int,
    n_redundant: int,
    power: float = 1.2,
    multiple: int = 1,
) -> Case:
    """Loads that fall off as a power, in any order, until every choice is clear."""
    while True:
        sizes = 1000 / np.arange(1, n_experts + 1) ** power * rng.uniform(0.7, 1.3, n_experts)
        load = [multiple * int(size / multiple + 1) for size in rng.permutation(sizes)]
        if _is_clear(load, n_ranks, n_redundant):
            return _case(load, n_ranks, n_redundant)


def _usual(rng: np.random.Generator) -> list[Case]:
    return [
        _case([8, 1, 1, 2], 2, 2),
        _drawn(rng, 4, 2, 0),
        _drawn(rng, 6, 2, 2),
        _drawn(rng, 8, 4, 4),
        _drawn(rng, 10, 3, 5),
        _drawn(rng, 16, 4, 8),
        _drawn(rng, 12, 4, 8, 0.6),
    ]


def _clear(*cases: tuple[Sequence[int], int, int]) -> list[Case]:
    """Cases as given, all of them clear."""
    unclear = [case for case in cases if not _is_clear(*case)]
    assert not unclear, unclear
    return [_case(*case) for case in cases]


def _hot(rng: np.random.Generator, n_experts: int, n_ranks: int, n_redundant: int) -> Case:
    """One expert with nearly all load; it gets a replica on every rank, and others get more."""
    while True:
        load = [12 * int(each) for each in rng.integers(1, 30, n_experts)]
        load[int(rng.integers(n_experts))] = 12 * int(rng.integers(10**5, 10**6))
        if _is_clear(load, n_ranks, n_redundant):
            return _case(load, n_ranks, n_redundant)


def _in_parts(rng: np.random.Generator, n_experts: int, n_ranks: int, n_redundant: int) -> Case:
    """Small loads whose shares are no whole numbers, and whoever rounds them errs."""
    rounded = [
        _place_with(share=lambda load, copies: load // copies),
        _place_with(
            lambda load, copies, n_ranks: max(
                (e for e in range(len(load)) if copies[e] < n_ranks),
                key=lambda e: load[e] // copies[e],
            )
        ),
    ]
    while True:
        case = _case([int(each) for each in rng.integers(1, 12, n_experts)], n_ranks, n_redundant)
        if _is_clear(*case.values()):
            right = [set(rank) for rank in PLACE.reference(*case.values())]
            found = [[set(rank) for rank in wrong(*case.values())] for wrong in rounded]
            if right not in found:
                return case


DOMAIN = Domain(
    "Loads are whole numbers, zero or more, in any order. Ranks are at least one, `n_redundant` "
    "may be zero, and experts and redundant slots together fill the ranks evenly. There are never "
    "more slots than the first step can fill, and in the second step there always is a rank that "
    "may take a replica.",
    _usual,
    {
        "there are no redundant slots": lambda rng: [_drawn(rng, 8, 4, 0), _drawn(rng, 9, 3, 0)],
        "there is one rank": lambda rng: [_drawn(rng, 5, 1, 0)],
        "an expert has a replica on every rank": lambda rng: [
            _hot(rng, 3, 2, 1),
            _hot(rng, 5, 4, 7),
            _hot(rng, 6, 3, 3),
        ],
        "all loads are equal": lambda rng: _clear(
            ([7] * 4, 2, 0), ([12] * 6, 3, 3), ([8] * 4, 4, 4)
        ),
        "loads are equal in part": lambda rng: _clear(
            ([4, 8, 8, 4, 2, 2], 2, 2), ([6, 6, 3, 3, 3, 3], 3, 0), ([2, 8, 4, 4, 8, 2], 4, 2)
        ),
        "a load is 0": lambda rng: _clear(([40, 0, 0, 0], 2, 0), ([0, 8, 0, 8, 1, 3], 2, 2)),
        "all loads are 0": lambda rng: _clear(([0] * 4, 2, 2), ([0] * 3, 3, 0)),
        "a rank has one slot": lambda rng: _clear(([9, 4, 7, 1], 4, 0), ([12, 3], 4, 2)),
        "there are more redundant slots than experts": lambda rng: [
            _drawn(rng, 4, 4, 8, 0.5),
            _drawn(rng, 5, 4, 11, 0.4),
        ],
        "shares are no whole numbers": lambda rng: [
            _in_parts(rng, 5, 3, 4),
            _in_parts(rng, 7, 3, 5),
        ],
        "an expert has three replicas": lambda rng: [_drawn(rng, 8, 4, 4, 2.0)],
        "loads are large": lambda rng: _clear(([2**52, 2**51, 2**50 + 4, 2**50], 2, 2)),
    },
)


def check_place(function: Learner, *, seed: int = 0) -> str:
    """Check ``place(load, n_ranks, n_redundant)``: the experts of each rank.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: the public description of
    DeepSeek's expert parallelism load balancer, and arXiv 2412.19437, §3.4.
    """
    return DOMAIN.check(PLACE, function, seed)
