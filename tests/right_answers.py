"""Right answers in other styles than that of the solutions: loops, NumPy, torch, fractions."""

import heapq
import math
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slingshot.formats import E4M3

Time = namedtuple("Time", "hours days")


def utilization_in_fractions(
    flops: float, hours: float, peaks: Mapping[str, float], shares: Mapping[str, float]
) -> Fraction:
    times = [Fraction(shares[name]) / Fraction(peaks[name]) for name in peaks]
    return Fraction(flops) * sum(times) / (Fraction(hours) * 3600)


def price_by_formula(t: int, p: int, a: int, cost: Mapping[str, float], margin: float) -> float:
    old = (p + a) * t * (t - 1) / 2
    dollars = t * p * cost["input"] + t * a * cost["output"] + old * cost["cached"]
    return dollars / (1e6 * (1 - margin))


def room_by_divmod(m: int, w: int, n: int, a: Mapping[str, int], c: int, b: int) -> int:
    heads = "kv_heads" in a
    one = (2 * a["kv_heads"] * a["head_dim"] if heads else sum(a.values())) * n * c * b
    return 0 if m < w else divmod(m - w, one)[0]


def limit_by_sorting(
    rates: Mapping[int, float], die: float, rule: Sequence[tuple[float, float]]
) -> list[float]:
    tpps = sorted(bits * rate for bits, rate in rates.items())
    return [tpps[-1], sorted(max(pair[0], pair[1] * die) for pair in rule)[0]]


def gate_in_a_loop(scores: Tensor, k: int) -> Tensor:
    weights = torch.zeros_like(scores)
    for row, new in zip(scores.tolist(), weights, strict=True):
        chosen = sorted(range(len(row)), key=lambda e: -row[e])[:k]
        total = sum(row[e] for e in chosen)
        for expert in chosen:
            new[expert] = row[expert] / total if total else 0.0
    return weights


def gate_in_numpy(scores: Tensor, k: int) -> np.ndarray:
    s = scores.numpy()
    kept = np.zeros_like(s)
    chosen = np.argsort(s, axis=1, kind="stable")[:, ::-1][:, :k]
    np.put_along_axis(kept, chosen, np.take_along_axis(s, chosen, 1), 1)
    total = kept.sum(1, keepdims=True)
    weights: np.ndarray = np.divide(kept, total, out=np.zeros_like(s), where=total > 0)
    return weights


def bias_in_a_loop(bias: Tensor, load: Tensor, speed: float) -> Tensor:
    mean = sum(load.tolist()) / len(load)
    steps = [speed if each < mean else -speed if each > mean else 0.0 for each in load.tolist()]
    return bias + torch.tensor(steps, dtype=bias.dtype)


def loss_with_one_hot(scores: Tensor, experts: Tensor) -> Tensor:
    chosen = torch.nn.functional.one_hot(experts, scores.shape[1]).sum(1).to(scores.dtype)
    shares = scores / scores.sum(-1, keepdim=True)
    return scores.shape[1] * (chosen.mean(0) / experts.shape[1]) @ shares.mean(0)


def route_in_a_loop(
    x: Tensor, weight: Tensor, bias: Tensor, k: int, groups: int, kept: int, scale: float
) -> Tensor:
    scores = 1 / (1 + torch.exp(-(x @ weight.T)))
    result = torch.zeros_like(scores)
    size = len(weight) // groups
    for token, row in enumerate(scores.tolist()):
        biased = [s + b for s, b in zip(row, bias.tolist(), strict=True)]
        blocks = [range(g * size, (g + 1) * size) for g in range(groups)]
        ranks = [sum(sorted((biased[e] for e in block), reverse=True)[:2]) for block in blocks]
        best = sorted(range(groups), key=lambda g: -ranks[g])[:kept]
        open_to = [e for g in best for e in blocks[g]]
        chosen = sorted(open_to, key=lambda e: -biased[e])[:k]
        total = sum(row[e] for e in chosen)
        for e in chosen:
            result[token, e] = scale * row[e] / total if total else 0.0
    return result


def dispatch_in_a_loop(experts: Tensor, n_experts: int, capacity: int) -> Tensor:
    places, taken = torch.full_like(experts, -1), [0] * n_experts
    for k in range(experts.shape[1]):
        for t in range(len(experts)):
            expert = int(experts[t, k])
            if taken[expert] < capacity:
                places[t, k] = taken[expert]
                taken[expert] += 1
    return places


def spacing_by_halving(x: float, mantissa_bits: int, bias: int) -> float:
    power: float = 2.0 ** (1 - bias)
    while power * 2 <= abs(x):
        power *= 2
    return float(power / 2**mantissa_bits)


def round_in_fractions(x: float, mantissa_bits: int, bias: int, largest: float) -> float:
    if x != x:
        return x
    if abs(x) >= largest:
        return largest if x > 0 else -largest
    step = Fraction(spacing_by_halving(x, mantissa_bits, bias))
    return float(round(Fraction(x) / step) * step)


def quantize_padded(x: np.ndarray, block: tuple[int, int]) -> tuple[Tensor, Tensor]:
    (rows, columns), (h, w) = x.shape, block
    padded = np.pad(x, ((0, -rows % h), (0, -columns % w)))
    tiles = padded.reshape(len(padded) // h, h, -1, w)
    amax = np.abs(tiles).max(axis=(1, 3))
    scales = np.where(amax == 0, 1.0, amax / 448)
    values = E4M3.round(tiles / scales[:, None, :, None]).reshape(padded.shape)[:rows, :columns]
    return torch.from_numpy(values.copy()), torch.from_numpy(scales)


def exponent_by_search(amax: float, largest: float, rule: str) -> int:
    def floor(value: float) -> int:
        return math.frexp(value)[1] - 1

    if not amax:
        return -127
    if rule == "floor":
        return max(-127, min(127, floor(amax) - floor(largest)))
    for exponent in range(-127, 127):
        if Fraction(amax) <= Fraction(largest) * Fraction(2) ** exponent:
            return exponent
    return 127


def int8_in_int32(
    q: np.ndarray, s: np.ndarray, z: np.ndarray, r: np.ndarray, t: np.ndarray
) -> np.ndarray:
    codes = q.astype(np.int32) - z.astype(np.int32)[:, None]
    sums = codes @ r.astype(np.int32).T
    return sums * np.outer(s, t)


def int8_in_torch(
    q: np.ndarray, s: np.ndarray, z: np.ndarray, r: np.ndarray, t: np.ndarray
) -> Tensor:
    codes, zero, weights = (torch.from_numpy(each).long() for each in (q, z, r))
    sums = (codes - zero[:, None]) @ weights.T
    return sums * torch.from_numpy(s)[:, None] * torch.from_numpy(t)


def fp8_in_a_loop(
    q: np.ndarray,
    q_scale: np.ndarray,
    r: np.ndarray,
    r_scale: np.ndarray,
    block: int,
    group: int,
    bits: int,
) -> np.ndarray:
    result = np.zeros((len(q), len(r)))
    for m, row in enumerate(q.tolist()):
        for n, column in enumerate(r.tolist()):
            for k in range(q.shape[1] // block):
                total = 0.0
                for start in range(k * block, (k + 1) * block, group):
                    stop = start + group
                    pairs = zip(row[start:stop], column[start:stop], strict=True)
                    terms = [total, *(a * b for a, b in pairs)]
                    step = 2.0 ** (math.frexp(max(map(abs, terms)))[1] - bits)
                    total = sum(int(term / step) * step for term in terms)
                result[m, n] += total * q_scale[m, k] * r_scale[n // block, k]
    return result


def bytes_vector_by_vector(
    n_layers: int, attention: Mapping[str, int], block: int | None = None
) -> Fraction:
    def of(length: int) -> int:
        if block is None:
            return 2 * length
        full, rest = divmod(length, block)
        return full * (block + 4) + (rest + 4 if rest else 0)

    total = Fraction(0)
    for name, length in attention.items():
        if name in ("latent", "indexer"):
            total += of(length)
        elif name == "rope":
            total += 2 * length
        elif name == "head_dim":
            total += of(length) * attention["kv_heads"] * 2
    return total * n_layers


def attend_in_a_loop(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    found = []
    for i, q in enumerate(query):
        seen = len(key) - len(query) + i + 1
        scores = [float(q @ k) / math.sqrt(len(q)) for k in key[:seen]]
        weights = [math.exp(score - max(scores)) for score in scores]
        row = sum((w * v for w, v in zip(weights, value[:seen], strict=True)), 0 * value[0])
        found.append(row / math.fsum(weights))
    return torch.stack(found)


def attend_by_torch(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    places = torch.arange(len(key))
    visible = places <= places[-len(query) :, None]
    return torch.nn.functional.scaled_dot_product_attention(
        query[None], key[None], value[None], attn_mask=visible
    )[0]


def attend_in_numpy(query: Tensor, key: Tensor, value: Tensor) -> np.ndarray:
    q, k, v = (each.numpy() for each in (query, key, value))
    n_new, n = len(q), len(k)
    scores = np.where(np.tri(n_new, n, n - n_new), q @ k.T / np.sqrt(k.shape[1]), -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: np.ndarray = weights / weights.sum(axis=1, keepdims=True) @ v
    return result


def absorbed_in_complex_numbers(query: Tensor, angles: Tensor, unpack: Tensor) -> np.ndarray:
    q, w, half = query.numpy(), unpack.numpy(), len(angles)
    nope, heads = q.shape[1] - 2 * half, []
    for head, matrix in zip(q, w, strict=True):
        x, y = head[nope : nope + half], head[nope + half :]
        turned = (x + 1j * y) * np.exp(1j * angles.numpy())
        heads.append(np.concatenate([matrix[:nope].T @ head[:nope], turned.real, turned.imag]))
    return np.array(heads) / math.sqrt(q.shape[1])


def absorbed_by_rotation_matrix(query: Tensor, angles: Tensor, unpack: Tensor) -> Tensor:
    nope = query.shape[1] - 2 * len(angles)
    cos, sin = torch.diag(angles.cos()), torch.diag(angles.sin())
    rotation = torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)])
    scaled = query * query.shape[1] ** -0.5
    folded = torch.bmm(scaled[:, None, :nope], unpack[:, :nope])[:, 0]
    return torch.cat([folded, scaled[:, nope:] @ rotation.T], dim=1)


def judge_with_a_row_of_zeros(
    p: Tensor, q: Tensor, draft: list[int], uniform: list[float]
) -> list[Any]:
    places = torch.arange(len(draft))
    ratios = p[places, draft] / q[places, draft]
    refused = torch.tensor(uniform, dtype=torch.float64) >= ratios
    kept = int((refused.long().cumsum(0) == 0).sum())
    padded = torch.cat([q, torch.zeros_like(p[:1])])
    left = torch.relu(p[kept] - padded[kept])
    return [torch.tensor(kept), left / left.sum()]


def judge_in_lists(
    p: Tensor, q: Tensor, draft: list[int], uniform: list[float]
) -> tuple[int, list[float]]:
    rows, guesses = p.tolist(), q.tolist()
    for place, (x, u) in enumerate(zip(draft, uniform, strict=True)):
        if not u * guesses[place][x] < rows[place][x]:
            both = [min(pair) for pair in zip(rows[place], guesses[place], strict=True)]
            chance = 1 - math.fsum(both)
            return place, [(a - b) / chance for a, b in zip(rows[place], both, strict=True)]
    return len(draft), rows[-1]


def place_by_heaps(load: Sequence[int], n_ranks: int, n_redundant: int) -> list[set[int]]:
    waiting = [(-Fraction(each), e, 1) for e, each in enumerate(load)]
    heapq.heapify(waiting)
    replicas, done = [1] * len(load), n_redundant
    while done:
        _, e, n = heapq.heappop(waiting)
        if n < n_ranks:
            replicas[e] = n + 1
            heapq.heappush(waiting, (-Fraction(load[e], n + 1), e, n + 1))
            done -= 1
    slots = sum(replicas) // n_ranks
    ranks: list[set[int]] = [set() for _ in range(n_ranks)]
    busy = [Fraction(0)] * n_ranks
    shares = sorted((-Fraction(load[e], n), e, n) for e, n in enumerate(replicas))
    for share, e, n in shares:
        for _ in range(n):
            taken = min(
                (r for r in range(n_ranks) if len(ranks[r]) < slots and e not in ranks[r]),
                key=lambda r: (busy[r], r),
            )
            ranks[taken].add(e)
            busy[taken] -= share
    return ranks


def place_in_an_array(load: Sequence[int], n_ranks: int, n_redundant: int) -> np.ndarray:
    return np.array([sorted(rank) for rank in place_by_heaps(load, n_ranks, n_redundant)])


def idle_by_longest_path(
    orders: Sequence[Sequence[tuple[str, int]]], forward: float, backward: float, weight: float
) -> Fraction:
    takes = {"F": forward, "B": backward, "b": backward - weight, "w": weight}
    where = {
        ("F" if kind == "F" else "back", m, stage): (stage, place)
        for stage, order in enumerate(orders)
        for place, (kind, m) in enumerate(order)
        if kind != "w"
    }

    @cache
    def end(stage: int, place: int) -> Fraction:
        kind, m = orders[stage][place]
        starts = [end(stage, place - 1)] if place else [Fraction(0)]
        before = ("F", m, stage - 1) if kind == "F" else ("back", m, stage + 1)
        if kind != "w" and before in where:
            starts.append(end(*where[before]))
        return max(starts) + Fraction(takes[kind])

    total = max(end(stage, len(order) - 1) for stage, order in enumerate(orders))
    work = sum((Fraction(takes[kind]) for kind, _ in orders[-1]), Fraction(0))
    return (total - work) / total


RIGHT_ANSWERS: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "flops of two factors": (
        "claim",
        "training_flops",
        lambda n, d, recompute=False: (n * d) * (8 if recompute else 6),
    ),
    "flops by NumPy": (
        "claim",
        "training_flops",
        lambda n, d, recompute=False: np.float64(6 + 2 * recompute) * n * d,
    ),
    "flops by Fraction": (
        "claim",
        "training_flops",
        lambda n, d, recompute=False: Fraction(n) * Fraction(d) * (8 if recompute else 6),
    ),
    "a list of hours and days": (
        "claim",
        "run_time",
        lambda f, n, p, m, u=1: [f / p / m / u / 3600, np.float64(f / p / m / u) / 86400 / n],
    ),
    "a named tuple of hours and days": (
        "claim",
        "run_time",
        lambda f, n, p, m, u=1.0: Time(f / (p * m * u * 3600), f / (p * m * u * n) / 86400),
    ),
    "a harmonic mean of peaks": (
        "claim",
        "utilization",
        lambda f, h, peaks, shares: f / h / 3600 / (1 / sum(shares[k] / peaks[k] for k in peaks)),
    ),
    "utilization in fractions": ("claim", "utilization", utilization_in_fractions),
    "the price by a formula": ("claim", "conversation_price", price_by_formula),
    "room by divmod": ("claim", "conversations_that_fit", room_by_divmod),
    "the limit by sorting": ("claim", "export_limit", limit_by_sorting),
    "a gate in a loop": ("moe", "gate", gate_in_a_loop),
    "a gate in NumPy": ("moe", "gate", gate_in_numpy),
    "a bias in a loop": ("moe", "update_bias", bias_in_a_loop),
    "a loss with one_hot": ("moe", "balance_loss", loss_with_one_hot),
    "a router in a loop": ("moe", "route", route_in_a_loop),
    "places in a loop": ("moe", "dispatch", dispatch_in_a_loop),
    "a spacing by doubling": ("low_precision", "spacing", spacing_by_halving),
    "rounding in fractions": ("low_precision", "round_to", round_in_fractions),
    "blocks that are filled up": ("low_precision", "quantize", quantize_padded),
    "an exponent by search": ("low_precision", "scale_exponent", exponent_by_search),
    "integers of 32 bits": ("low_precision", "int8_product", int8_in_int32),
    "integers in torch": ("low_precision", "int8_product", int8_in_torch),
    "a short sum in a loop": ("low_precision", "fp8_product", fp8_in_a_loop),
    "bytes vector by vector": ("memory", "cache_bytes", bytes_vector_by_vector),
    "attention in a loop": ("memory", "attend", attend_in_a_loop),
    "attention by torch": ("memory", "attend", attend_by_torch),
    "attention in NumPy": ("memory", "attend", attend_in_numpy),
    "a turn in complex numbers": ("memory", "absorbed_query", absorbed_in_complex_numbers),
    "a turn by a matrix": ("memory", "absorbed_query", absorbed_by_rotation_matrix),
    "a draft beside a row of zeros": ("memory", "accept_draft", judge_with_a_row_of_zeros),
    "a draft judged in lists": ("memory", "accept_draft", judge_in_lists),
    "sets of experts by heaps": ("memory", "place", place_by_heaps),
    "experts in an array": ("memory", "place", place_in_an_array),
    "a bubble by the longest path": ("memory", "idle_share", idle_by_longest_path),
}
"""By a name: assignment, exercise and function. Those on reasoning are in their own test."""
