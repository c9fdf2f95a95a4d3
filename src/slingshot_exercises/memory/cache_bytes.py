"""The check of ``cache_bytes``."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from slingshot_exercises.checking import EXACT, Case, Exercise, Learner, Mistake, number
from slingshot_exercises.domain import Domain
from slingshot_exercises.memory.common import named

Attention = Mapping[str, int]


def _vectors(attention: Attention) -> list[int]:
    """The lengths of the vectors that a token leaves in a layer, without a rotary key."""
    if "latent" in attention:
        return [attention["latent"], *([attention["indexer"]] if "indexer" in attention else [])]
    return [attention["head_dim"]] * (2 * attention["kv_heads"])


def _rotary(attention: Attention) -> int:
    return attention.get("rope", 0)


def _scales(vectors: Sequence[int], block: int) -> int:
    return sum(-(-length // block) for length in vectors)


def _cache_with(
    vectors: Callable[[Attention], Sequence[int]] = _vectors,
    *,
    rotary: Callable[[Attention], float] = _rotary,
    scales: Callable[[Sequence[int], int], float] = _scales,
    rotary_bytes: int = 2,
    layers: bool = True,
    wide: int = 2,
) -> Callable[..., float]:
    """The bytes of a token, with one part of the calculation exchanged."""

    def cache_bytes(n_layers: int, attention: Attention, block: int | None = None) -> float:
        found = list(vectors(attention))
        if block is None:
            stored = wide * (sum(found) + rotary(attention))
        else:
            stored = sum(found) + 4 * scales(found, block) + rotary_bytes * rotary(attention)
        return stored * (n_layers if layers else 1)

    return cache_bytes


def _without(name: str) -> Callable[[Attention], Sequence[int]]:
    return lambda attention: _vectors({n: v for n, v in attention.items() if n != name})


def _all_heads(attention: Attention) -> Sequence[int]:
    return _vectors({**attention, "kv_heads": attention["heads"]})


def _keys_alone(attention: Attention) -> Sequence[int]:
    found = _vectors(attention)
    return found if "latent" in attention else found[::2]


def _latent_twice(attention: Attention) -> Sequence[int]:
    return [*([attention["latent"]] if "latent" in attention else []), *_vectors(attention)]


def _unpacked(attention: Attention) -> Sequence[int]:
    latents = [attention.get("latent", 0)] * (attention["heads"] - 1)
    return [*(latents if "latent" in attention else []), *_vectors(attention)]


CACHE_BYTES = Exercise(
    "cache_bytes",
    _cache_with(),
    number,
    EXACT,
    [
        Mistake(
            "all heads are counted; heads that share a key and a value leave one pair, so count "
            "kv_heads",
            _cache_with(_all_heads),
        ),
        Mistake(
            "only the keys are counted; every key-value head keeps a key and a value",
            _cache_with(_keys_alone),
        ),
        Mistake(
            "the latent is counted twice; keys and values are unpacked from the same one",
            _cache_with(_latent_twice),
        ),
        Mistake(
            "every head has a latent of its own; all heads unpack the same one",
            _cache_with(_unpacked),
        ),
        Mistake(
            "the rotary key is missing; it lies in the cache beside the latent",
            _cache_with(rotary=lambda attention: 0),
        ),
        Mistake(
            "every head has a rotary key of its own; they share one",
            _cache_with(rotary=lambda attention: _rotary(attention) * attention["heads"]),
        ),
        Mistake(
            "the key of the indexer is missing; it lies in the cache, too",
            _cache_with(_without("indexer")),
        ),
        Mistake("only one layer is counted; every layer has a cache", _cache_with(layers=False)),
        Mistake("without FP8 a number is taken for one byte; BF16 takes two", _cache_with(wide=1)),
        Mistake(
            "the rotary key is stored in FP8; it stays in BF16, two bytes a number",
            _cache_with(rotary_bytes=1),
        ),
        Mistake(
            "the scales are missing; each block of a vector in FP8 has one, of four bytes",
            _cache_with(scales=lambda vectors, block: 0),
        ),
        Mistake(
            "a vector has one scale, however long it is; each of its blocks has one",
            _cache_with(scales=lambda vectors, block: len(vectors)),
        ),
        Mistake(
            "a block that is begun and not full has no scale; it needs one, too",
            _cache_with(scales=lambda vectors, block: sum(length // block for length in vectors)),
        ),
        Mistake(
            "a part of a scale is counted; a block that is begun has a whole one",
            _cache_with(scales=lambda vectors, block: sum(vectors) / block),
        ),
        Mistake(
            "blocks reach from one vector into the next; each vector begins a block of its own",
            _cache_with(scales=lambda vectors, block: _scales([sum(vectors)], block)),
        ),
    ],
)

NAMES = ("n_layers", "attention", "block")
SHARED = {"heads": 8, "kv_heads": 2, "head_dim": 16}
LATENT = {"heads": 8, "latent": 24, "rope": 6}
INDEXED = {**LATENT, "indexer": 12}
KINDS = SHARED, LATENT, INDEXED
V3 = {"heads": 128, "latent": 512, "rope": 64}


def _drawn(rng: np.random.Generator, kind: Attention) -> dict[str, int]:
    """Other sizes for the same keys, where heads are shared if there are such."""
    found = {name: int(rng.integers(9, 700)) for name in kind}
    if "kv_heads" in found:
        found["kv_heads"] = int(rng.integers(2, 9))
        found["heads"] = found["kv_heads"] * int(rng.integers(2, 9))
    return found


def _usual(rng: np.random.Generator) -> Sequence[Case]:
    cases: list[Case] = [named(NAMES, 2, kind) for kind in KINDS]
    cases += [named(NAMES, 2, kind, 8) for kind in KINDS]
    cases += [named(NAMES, 61, V3, 128), named(NAMES, 61, {**V3, "indexer": 128}, 128)]
    for kind in KINDS * 2:
        layers, block = int(rng.integers(2, 90)), int(rng.integers(5, 200))
        cases.append(named(NAMES, layers, _drawn(rng, kind), block))
    return cases


def _each(*blocks: int | None, **sizes_of: int) -> Callable[[np.random.Generator], list[Case]]:
    """All kinds with other sizes, and some of them given, behind each block."""

    def draw(rng: np.random.Generator) -> list[Case]:
        found: list[Case] = []
        for kind in KINDS:
            given = {name: size for name, size in sizes_of.items() if name in kind}
            layers = int(rng.integers(2, 90))
            sized = {**_drawn(rng, kind), **given}
            found += [named(NAMES, layers, sized, block) for block in blocks]
        return found

    return draw


def _turned_about(rng: np.random.Generator) -> list[Case]:
    return [
        named(NAMES, 3, dict(reversed(_drawn(rng, kind).items())), block)
        for kind in KINDS
        for block in (None, 32)
    ]


DOMAIN = Domain(
    "All numbers are whole and above zero. The keys of `attention` may come in any order, and "
    '`"indexer"` only beside `"latent"`. `block` may be left out or `None`; it may be longer than '
    "a vector, and need not divide one.",
    _usual,
    {
        "`block` is not given": lambda rng: [named(NAMES, 5, _drawn(rng, kind)) for kind in KINDS],
        "`block` is `None`": _each(None),
        "`attention` is in another order": _turned_about,
        "a block is longer than every vector": _each(1024),
        "a block has one number": _each(1),
        "a block fits exactly": _each(16, head_dim=64, latent=512, indexer=128),
        "a vector is one longer or shorter than a block": lambda rng: [
            *_each(64, head_dim=65, latent=65, indexer=63)(rng),
            *_each(64, head_dim=63, latent=63, indexer=65)(rng),
        ],
        "every head has a key and a value": lambda rng: [
            named(NAMES, 3, {"heads": 16, "kv_heads": 16, "head_dim": 48}, block)
            for block in (None, 32)
        ],
        "all heads share one key and one value": lambda rng: [
            named(NAMES, 3, {"heads": 16, "kv_heads": 1, "head_dim": 48}, block)
            for block in (None, 32)
        ],
        "every size is 1": lambda rng: [
            named(NAMES, 1, dict.fromkeys(kind, 1), block) for kind in KINDS for block in (None, 1)
        ],
        "sizes are huge": _each(2**20 + 1, head_dim=2**40, latent=2**60 + 1, indexer=2**41),
    },
)


def check_cache_bytes(function: Learner, *, seed: int = 0) -> str:
    """Check ``cache_bytes(n_layers, attention, block)``: what one token leaves behind.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2405.04434, Table 1;
    the blocks and scales are those of FlashMLA's FP8 cache and of V3.2's indexer.
    """
    return DOMAIN.check(CACHE_BYTES, function, seed)
