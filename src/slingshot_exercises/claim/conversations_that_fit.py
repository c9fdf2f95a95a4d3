"""The check of ``conversations_that_fit``."""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from slingshot import facts
from slingshot_exercises.checking import EXACT, Case, Exercise, Learner, Mistake, number
from slingshot_exercises.claim.common import named
from slingshot_exercises.domain import Domain


def _elements(attention: Mapping[str, int]) -> int:
    if "latent" in attention:
        return attention["latent"] + attention["rope"]
    return 2 * attention["kv_heads"] * attention["head_dim"]


def _conversations(
    memory: int,
    weights: int,
    n_layers: int,
    attention: Mapping[str, int],
    context: int,
    bytes_per_element: int,
) -> int:
    one = n_layers * _elements(attention) * context * bytes_per_element
    return max(0, (memory - weights) // one)


def _wrong_room(
    elements: Callable[[Mapping[str, int]], float] = _elements,
    *,
    room: Callable[[int, int], int] = lambda memory, weights: max(0, memory - weights),
    layers: bool = True,
    context_counts: bool = True,
    bytes_count: bool = True,
    whole: Callable[[Any], float] = math.floor,
) -> Callable[..., float]:
    """A wrong number of conversations, with one part of the calculation exchanged."""

    def wrong(
        memory: int,
        weights: int,
        n_layers: int,
        attention: Mapping[str, int],
        context: int,
        bytes_per_element: int,
    ) -> float:
        one = elements(attention) * (bytes_per_element if bytes_count else 1)
        one *= n_layers if layers else 1
        one *= context if context_counts else 1
        return whole(Fraction(room(memory, weights)) / Fraction(one))

    return wrong


def _doubled_latent(attention: Mapping[str, int]) -> int:
    return _elements(attention) * (2 if "latent" in attention else 1)


def _keys_only(attention: Mapping[str, int]) -> float:
    return _elements(attention) * (1 if "latent" in attention else 0.5)


CONVERSATIONS_THAT_FIT = Exercise(
    "conversations_that_fit",
    _conversations,
    number,
    EXACT,
    [
        Mistake(
            "only the keys are counted; every head keeps a key and a value",
            _wrong_room(_keys_only),
        ),
        Mistake(
            "the latent vector is counted twice; keys and values are unpacked from the same one",
            _wrong_room(_doubled_latent),
        ),
        Mistake(
            "the rotary key is missing; it lies in the cache beside the latent vector",
            _wrong_room(lambda a: a["latent"] if "latent" in a else _elements(a)),
        ),
        Mistake("only one layer is counted; every layer has a cache", _wrong_room(layers=False)),
        Mistake(
            "the cache of one token is taken for that of a conversation",
            _wrong_room(context_counts=False),
        ),
        Mistake(
            "the numbers in the cache are taken for bytes; each has bytes_per_element of them",
            _wrong_room(bytes_count=False),
        ),
        Mistake(
            "the weights take no room; they lie in the same memory",
            _wrong_room(room=lambda memory, weights: memory),
        ),
        Mistake(
            "a part of a conversation is rounded up; it does not fit",
            _wrong_room(whole=math.ceil),
        ),
        Mistake(
            "a part of a conversation is counted; round down to whole ones",
            _wrong_room(whole=lambda count: count),
        ),
        Mistake(
            "the result is below 0 where the weights alone do not fit; it is 0 then",
            _wrong_room(room=lambda memory, weights: memory - weights),
        ),
    ],
)


NAMES = ("memory", "weights", "n_layers", "attention", "context", "bytes_per_element")
SMALL = {"kv_heads": 1, "head_dim": 8}, {"latent": 8, "rope": 2}
LARGE = {"kv_heads": 8, "head_dim": 128}, {"latent": 512, "rope": 64}


def _usual(rng: np.random.Generator) -> Sequence[Case]:
    v3 = {"latent": facts.value("v3.kv_latent"), "rope": facts.value("v3.kv_rope")}
    memory, weights = 16 * facts.value("chip.h800.memory"), facts.value("v3.parameters.total")
    cases = [named(NAMES, 100_000, 20_000, 2, small, 100, 2) for small in SMALL]
    cases.append(named(NAMES, memory, weights, facts.value("v3.layers"), v3, 4096, 2))
    for attention in (*LARGE, *LARGE):
        room = int(rng.integers(20, 400)) * 10**9
        cases.append(_drawn(rng, attention, room, room // 3))
    return cases


def _drawn(
    rng: np.random.Generator, attention: dict[str, int], memory: int, weights: int
) -> dict[str, object]:
    layers, context = int(rng.integers(16, 96)), int(rng.integers(1_000, 40_000))
    return named(NAMES, memory, weights, layers, attention, context, int(rng.integers(1, 5)))


def _next_to_whole(rng: np.random.Generator, count: int, weights: int) -> Sequence[Case]:
    """Memory for exactly so many conversations, and for one byte less."""
    cases: list[Case] = []
    for attention in LARGE:
        case = _drawn(rng, attention, 0, weights)
        _, _, layers, _, context, size = case.values()
        one = _elements(attention) * layers * context * size  # type: ignore[operator]
        cases += [{**case, "memory": weights + count * one - less} for less in (0, 1)]
    return cases


DOMAIN = Domain(
    "All arguments but `attention` are whole numbers above zero, and memory and weights may be of "
    "any size. The keys of `attention` may come in any order.",
    _usual,
    {
        "the weights alone do not fit": lambda rng: [
            _drawn(rng, attention, 2**33, 2**33 + more)
            for attention in LARGE
            for more in (2**33, 1)
        ],
        "the weights fill the memory": lambda rng: [_drawn(rng, LARGE[0], 2**36, 2**36)],
        "a whole number fits exactly, or would with one byte more": lambda rng: [
            *_next_to_whole(rng, int(rng.integers(2, 50)), 10**10),
            *_next_to_whole(rng, 1, 10**10),
        ],
        "memory is huge": lambda rng: _next_to_whole(rng, 10**12 + 3, 10**15),
        "`attention` is in another order": lambda rng: [
            _drawn(rng, dict(reversed(attention.items())), 2**38, 2**36) for attention in LARGE
        ],
        "a latent vector is shorter than its rotary key": lambda rng: [
            _drawn(rng, {"latent": 16, "rope": 64}, 2**38, 2**36)
        ],
        "every size is 1": lambda rng: [
            named(NAMES, 9, 2, 1, {"kv_heads": 1, "head_dim": 1}, 1, 1),
            named(NAMES, 9, 2, 1, {"latent": 1, "rope": 1}, 1, 1),
        ],
    },
)


def check_conversations_that_fit(function: Learner, *, seed: int = 0) -> str:
    """Check ``conversations_that_fit``: whole conversations in what the weights leave of memory.

    The arguments are ``memory, weights, n_layers, attention, context, bytes_per_element``.
    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2405.04434, Table 1.
    """
    return DOMAIN.check(CONVERSATIONS_THAT_FIT, function, seed)
