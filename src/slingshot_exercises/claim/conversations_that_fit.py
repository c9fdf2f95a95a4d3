"""The check of ``conversations_that_fit``."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from slingshot import facts
from slingshot_exercises.checking import EXACT, Exercise, Learner, Mistake, number
from slingshot_exercises.claim.common import named


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
    whole: Callable[[float], float] = math.floor,
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
        one = elements(attention) * bytes_per_element
        one *= n_layers if layers else 1
        one *= context if context_counts else 1
        return whole(room(memory, weights) / one)

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


def check_conversations_that_fit(function: Learner, *, seed: int = 0) -> None:
    """Check ``conversations_that_fit``: whole conversations in what the weights leave of memory.

    The arguments are ``memory, weights, n_layers, attention, context, bytes_per_element``.
    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2405.04434, Table 1.
    """
    rng = np.random.default_rng([seed, 5])
    names = ("memory", "weights", "n_layers", "attention", "context", "bytes_per_element")
    grouped, latent = {"kv_heads": 8, "head_dim": 128}, {"latent": 512, "rope": 64}
    v3 = {"latent": facts.value("v3.kv_latent"), "rope": facts.value("v3.kv_rope")}
    memory = 16 * facts.value("chip.h800.memory")
    weights = facts.value("v3.parameters.total")
    cases = [
        named(names, 100_000, 20_000, 2, {"kv_heads": 1, "head_dim": 8}, 100, 2),
        named(names, 100_000, 20_000, 2, {"latent": 8, "rope": 2}, 100, 2),
        named(names, 2**33, 2**34, 16, grouped, 1024, 2),
        named(names, memory, weights, facts.value("v3.layers"), v3, 4096, 2),
    ]
    for attention in (grouped, latent, grouped, latent):
        room = int(rng.integers(20, 400)) * 10**9
        layers, context = int(rng.integers(16, 96)), int(rng.integers(1_000, 40_000))
        size = int(rng.integers(1, 3))
        cases.append(named(names, room, room // 3, layers, attention, context, size))
    CONVERSATIONS_THAT_FIT.check(function, cases)
