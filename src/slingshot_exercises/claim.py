"""Checks of the assignment on the claim: operations, hours, utilization, prices, memory, rules.

Every check calls the function with round cases, with the figures of DeepSeek-V3, and with cases
drawn from ``seed``. An answer may differ from ours by the roundings of two formulas and no more.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from slingshot import costs, facts, rules
from slingshot_exercises.checking import (
    EXACT,
    Case,
    Exercise,
    Mistake,
    number,
    numbers,
    roundings,
)

Learner = Callable[..., object]
MILLION = 1e6


# --- operations ------------------------------------------------------------------------------


def _training_flops(n_active: float, n_tokens: float, recompute: bool) -> float:
    flops = costs.training_flops(n_active, n_tokens)
    # A third of 6ND is the forward pass, and recomputing does it once more.
    return flops * 4 / 3 if recompute else flops


def _per_pair(plain: float, recomputed: float) -> Callable[[float, float, bool], float]:
    """A wrong count of operations per parameter and token."""
    return lambda n, d, recompute: (recomputed if recompute else plain) * n * d


TRAINING_FLOPS = Exercise(
    "training_flops",
    _training_flops,
    number,
    # Three products; the reference has two more operations for the third of 6ND.
    roundings(6),
    [
        Mistake("the backward pass is missing; it takes two products a weight", _per_pair(2, 4)),
        Mistake(
            "the backward pass is counted like a forward pass; it takes twice as much, for the "
            "gradient of the weights and for that of their inputs",
            _per_pair(4, 6),
        ),
        Mistake(
            "a multiplication with an addition is counted as one operation; they are two",
            _per_pair(3, 4),
        ),
        Mistake(
            "recompute=True changes nothing; the forward pass is then done twice",
            _per_pair(6, 6),
        ),
        Mistake(
            "recompute=True repeats the whole step; only the forward pass is done again",
            _per_pair(6, 12),
        ),
        Mistake(
            "recompute=True adds one operation a weight; a forward pass takes two",
            _per_pair(6, 7),
        ),
    ],
)


def check_training_flops(function: Learner, *, seed: int = 0) -> None:
    """Check ``training_flops(n_active, n_tokens, recompute)``: 6ND, and 8ND with recomputing.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2001.08361, §2.1; for
    recomputing, arXiv 2205.05198.
    """
    rng = np.random.default_rng([seed, 1])
    sizes = [(1, 1), (facts.value("v3.parameters.active"), facts.value("v3.tokens"))]
    sizes += [
        (int(n), int(d))
        for n, d in zip(_round(rng, 1e9, 4e11, 3), _round(rng, 1e11, 2e13, 3), strict=True)
    ]
    cases = [
        {"n_active": n, "n_tokens": d, "recompute": recompute}
        for n, d in sizes
        for recompute in (False, True)
    ]
    TRAINING_FLOPS.check(function, cases)


# --- hours and days --------------------------------------------------------------------------


def _run_time(
    flops: float, n_gpus: int, peak_flops: float, mfu: float, uptime: float
) -> tuple[float, float]:
    hours = costs.gpu_hours(flops, peak_flops, mfu) / uptime
    return hours, costs.days(hours, n_gpus)


def _wrong_time(
    hours: Callable[[float, float, float, float], float],
    days: Callable[[float, float, int], float] = lambda h, _uptime, n: h / n / 24,
) -> Callable[..., tuple[float, float]]:
    """A wrong pair: hours of (flops, peak, mfu, uptime), days of (hours, uptime, n_gpus)."""

    def wrong(
        flops: float, n_gpus: int, peak_flops: float, mfu: float, uptime: float
    ) -> tuple[float, float]:
        total = hours(flops, peak_flops, mfu, uptime)
        return total, days(total, uptime, n_gpus)

    return wrong


def _right_hours(flops: float, peak: float, mfu: float, uptime: float) -> float:
    return flops / (peak * mfu * uptime) / 3600


RUN_TIME = Exercise(
    "run_time",
    _run_time,
    numbers("gpu_hours", "days"),
    # Seven products and quotients; we allow ten.
    roundings(10),
    [
        Mistake(
            "the peak is per second, and the result is called hours: divide by 3600",
            _wrong_time(lambda f, p, m, u: f / (p * m * u)),
        ),
        Mistake(
            "the utilization multiplies; a lower utilization must take longer",
            _wrong_time(lambda f, p, m, u: f / (p * u) * m / 3600),
        ),
        Mistake(
            "the uptime multiplies; chips that stand still part of the time must take longer",
            _wrong_time(lambda f, p, m, u: f / (p * m) * u / 3600),
        ),
        Mistake(
            "the uptime does nothing; the run takes longer, by 1 / uptime",
            _wrong_time(lambda f, p, m, u: f / (p * m) / 3600),
        ),
        Mistake(
            "the uptime lengthens the days and not the hours; a chip that waits is paid for",
            _wrong_time(lambda f, p, m, u: f / (p * m) / 3600, lambda h, u, n: h / u / n / 24),
        ),
        Mistake(
            "all chips work at the same time: the days are hours of one chip, divided by 24",
            _wrong_time(_right_hours, lambda h, u, n: h / 24),
        ),
        Mistake(
            "the second result is in hours; a day has 24",
            _wrong_time(_right_hours, lambda h, u, n: h / n),
        ),
        Mistake(
            "the first result is the time of the cluster; GPU hours are summed over the chips",
            lambda f, n, p, m, u: (_right_hours(f, p, m, u) / n, _right_hours(f, p, m, u) / n / 24),
        ),
    ],
)


def check_run_time(function: Learner, *, seed: int = 0) -> None:
    """Check ``run_time(flops, n_gpus, peak_flops, mfu, uptime)``: GPU hours paid, and days.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`.
    """
    rng = np.random.default_rng([seed, 2])
    cases: list[Case] = [
        _named(RUN_ARGUMENTS, 7.2e15, 2, 1e12, 0.5, 1.0),
        _named(
            RUN_ARGUMENTS,
            costs.training_flops(facts.value("v3.parameters.active"), facts.value("v3.tokens")),
            facts.value("v3.gpus"),
            facts.value("chip.h800.bf16"),
            0.375,
            0.9375,
        ),
    ]
    for _ in range(4):
        flops, peak = _round(rng, 1e22, 1e25, 1)[0], _round(rng, 1e14, 2e15, 1)[0]
        mfu, uptime = rng.integers(20, 60) / 100, rng.integers(50, 99) / 100
        cases.append(_named(RUN_ARGUMENTS, flops, int(rng.integers(8, 4096)), peak, mfu, uptime))
    RUN_TIME.check(function, cases)


RUN_ARGUMENTS = ("flops", "n_gpus", "peak_flops", "mfu", "uptime")


# --- utilization -----------------------------------------------------------------------------


def _utilization(
    flops: float, gpu_hours: float, peaks: Mapping[str, float], shares: Mapping[str, float]
) -> float:
    at_best = sum(flops * share / peaks[name] for name, share in shares.items())
    return at_best / (gpu_hours * 3600)


def _wrong_peak(
    peak: Callable[[Mapping[str, float], Mapping[str, float]], float],
) -> Callable[..., float]:
    """A utilization against one wrong peak for all operations."""
    return lambda flops, hours, peaks, shares: flops / (hours * 3600 * peak(peaks, shares))


UTILIZATION = Exercise(
    "utilization",
    _utilization,
    number,
    # Per format a product, a quotient and a sum, then two more.
    roundings(16),
    [
        Mistake(
            "the peaks are averaged; average the times instead, since what is slow takes longer",
            _wrong_peak(lambda peaks, shares: sum(peaks[n] * s for n, s in shares.items())),
        ),
        Mistake(
            "everything is held against the highest peak; a part of the work cannot reach it",
            _wrong_peak(lambda peaks, shares: max(peaks.values())),
        ),
        Mistake(
            "everything is held against the lowest peak; a part of the work has a higher one",
            _wrong_peak(lambda peaks, shares: min(peaks.values())),
        ),
        Mistake(
            "the shares are not used; a format that does more of the work counts for more",
            _wrong_peak(lambda peaks, shares: len(peaks) / sum(1 / p for p in peaks.values())),
        ),
        Mistake(
            "the hours are taken for seconds; an hour has 3600",
            lambda flops, hours, peaks, shares: 3600 * _utilization(flops, hours, peaks, shares),
        ),
        Mistake(
            "the ratio is upside down; at best is less than what it took, so the result is below 1",
            lambda flops, hours, peaks, shares: 1 / _utilization(flops, hours, peaks, shares),
        ),
    ],
)


def check_utilization(function: Learner, *, seed: int = 0) -> None:
    """Check ``utilization(flops, gpu_hours, peaks, shares)`` of a run in several formats.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`.
    """
    rng = np.random.default_rng([seed, 3])
    peaks = {"bf16": facts.value("chip.h800.bf16"), "fp8": facts.value("chip.h800.fp8")}
    v3 = (
        costs.training_flops(facts.value("v3.parameters.active"), facts.value("v3.tokens")),
        facts.value("v3.gpu_hours.pretraining"),
    )
    names = ("flops", "gpu_hours", "peaks", "shares")
    cases = [
        _named(names, 3.6e15, 2, {"bf16": 1e12}, {"bf16": 1.0}),
        _named(names, *v3, peaks, {"bf16": 0.25, "fp8": 0.75}),
    ]
    for _ in range(4):
        slow = _round(rng, 1e14, 1e15, 1)[0]
        share = int(rng.integers(5, 45)) / 100
        three = {"bf16": slow, "fp8": 2 * slow, "fp4": 3.5 * slow}
        split = {"bf16": share, "fp8": 0.5 * (1 - share), "fp4": 0.5 * (1 - share)}
        cases.append(_named(names, _round(rng, 1e23, 4e23, 1)[0], 1e6, three, split))
    UTILIZATION.check(function, cases)


# --- the price of a conversation -------------------------------------------------------------


def _conversation_price(
    turns: int, prompt: int, answer: int, cost: Mapping[str, float], margin: float
) -> float:
    return _price(turns, prompt, answer, cost, margin)


def _price(
    turns: int,
    prompt: int,
    answer: int,
    cost: Mapping[str, float],
    margin: float,
    *,
    remembered: Callable[[int, int, int], float] = lambda turn, p, a: turn * (p + a),
    read_at: str = "cached",
    profit: Callable[[float, float], float] = lambda dollars, margin: dollars / (1 - margin),
    unit: float = MILLION,
) -> float:
    """The price with one step exchanged: tokens remembered, their cost, or the profit."""
    history = sum(remembered(turn, prompt, answer) for turn in range(turns))
    dollars = (
        turns * (prompt * cost["input"] + answer * cost["output"]) + history * cost[read_at]
    ) / unit
    return profit(dollars, margin)


def _wrong_price(**changed: object) -> Callable[..., float]:
    return lambda *arguments: _price(*arguments, **changed)  # type: ignore[arg-type]


CONVERSATION_PRICE = Exercise(
    "conversation_price",
    _conversation_price,
    number,
    # At most 12 turns, each with three products and three sums, and the profit.
    roundings(80),
    [
        Mistake(
            "the cost is raised by the margin: that is a markup, a share of the cost; a margin is "
            "a share of the price",
            _wrong_price(profit=lambda dollars, margin: dollars * (1 + margin)),
        ),
        Mistake(
            "there is no profit in the price",
            _wrong_price(profit=lambda dollars, margin: dollars),
        ),
        Mistake(
            "the margin is taken off; the price must be above the cost",
            _wrong_price(profit=lambda dollars, margin: dollars * (1 - margin)),
        ),
        Mistake(
            "every turn is billed as if it were the first; a turn reads all that was said before",
            _wrong_price(remembered=lambda turn, p, a: 0),
        ),
        Mistake(
            "what was said before is billed as new input; it is in the cache",
            _wrong_price(read_at="input"),
        ),
        Mistake(
            "the answers are not read again; the history holds prompts and answers",
            _wrong_price(remembered=lambda turn, p, a: turn * p),
        ),
        Mistake(
            "only the turn before is read again; the history grows with every turn",
            _wrong_price(remembered=lambda turn, p, a: (turn > 0) * (p + a)),
        ),
        Mistake(
            "the turn itself is billed from the cache, too; it is new",
            _wrong_price(remembered=lambda turn, p, a: (turn + 1) * (p + a)),
        ),
        Mistake("the costs are per million tokens", _wrong_price(unit=1.0)),
    ],
)


def check_conversation_price(function: Learner, *, seed: int = 0) -> None:
    """Check ``conversation_price(turns, prompt_tokens, answer_tokens, cost, margin)``, in dollars.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`.
    """
    rng = np.random.default_rng([seed, 4])
    names = ("turns", "prompt_tokens", "answer_tokens", "cost", "margin")
    cases = [
        _named(names, 1, 1000, 500, {"input": 2.0, "cached": 0.5, "output": 8.0}, 0.0),
        _named(names, 2, 1000, 500, {"input": 2.0, "cached": 0.5, "output": 8.0}, 0.0),
        _named(names, 3, 1000, 500, {"input": 2.0, "cached": 0.5, "output": 8.0}, 0.5),
    ]
    for _ in range(4):
        base = int(rng.integers(1, 16)) / 8
        cost = {"input": 2 * base, "cached": base / 4, "output": 7 * base}
        sizes = [int(size) for size in rng.integers(20, 4000, 2)]
        margin = int(rng.integers(10, 90)) / 100
        cases.append(_named(names, int(rng.integers(2, 13)), *sizes, cost, margin))
    CONVERSATION_PRICE.check(function, cases)


# --- memory ----------------------------------------------------------------------------------


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
        _named(names, 100_000, 20_000, 2, {"kv_heads": 1, "head_dim": 8}, 100, 2),
        _named(names, 100_000, 20_000, 2, {"latent": 8, "rope": 2}, 100, 2),
        _named(names, 2**33, 2**34, 16, grouped, 1024, 2),
        _named(names, memory, weights, facts.value("v3.layers"), v3, 4096, 2),
    ]
    for attention in (grouped, latent, grouped, latent):
        room = int(rng.integers(20, 400)) * 10**9
        layers, context = int(rng.integers(16, 96)), int(rng.integers(1_000, 40_000))
        size = int(rng.integers(1, 3))
        cases.append(_named(names, room, room // 3, layers, attention, context, size))
    CONVERSATIONS_THAT_FIT.check(function, cases)


# --- the rule --------------------------------------------------------------------------------

Pairs = Sequence[tuple[float, float]]


def _export_limit(rates: Mapping[int, float], die_mm2: float, rule: Pairs) -> tuple[float, float]:
    tpp = max(rules.total_processing_performance(rate, bits) for bits, rate in rates.items())
    return tpp, _limit(die_mm2, rule)


def _tpp(rates: Mapping[int, float]) -> float:
    return max(bits * rate for bits, rate in rates.items())


def _limit(die_mm2: float, rule: Pairs) -> float:
    return min(max(least, density * die_mm2) for least, density in rule)


def _wrong_limit(
    tpp: Callable[[Mapping[int, float]], float] = _tpp,
    limit: Callable[[float, Pairs], float] = _limit,
) -> Callable[..., tuple[float, float]]:
    """A wrong pair, with the measure or the limit exchanged."""
    return lambda rates, die_mm2, rule: (tpp(rates), limit(die_mm2, rule))


EXPORT_LIMIT = Exercise(
    "export_limit",
    _export_limit,
    numbers("tpp", "limit"),
    # One product in either result; comparisons are exact.
    roundings(2),
    [
        Mistake(
            "the rate is not multiplied by the bits of its format",
            _wrong_limit(tpp=lambda rates: max(rates.values())),
        ),
        Mistake(
            "the formats are added; the TPP of a chip is the largest over its formats",
            _wrong_limit(tpp=lambda rates: sum(b * r for b, r in rates.items())),
        ),
        Mistake(
            "the bits of one format meet the rate of another; multiply first, then take the most",
            _wrong_limit(tpp=lambda rates: max(rates) * max(rates.values())),
        ),
        Mistake(
            "the density is left out; a pair catches a chip that reaches both of its numbers",
            _wrong_limit(limit=lambda die, rule: min(t for t, _ in rule)),
        ),
        Mistake(
            "only the pair without a density counts; the others catch smaller chips",
            _wrong_limit(limit=lambda die, rule: next(t for t, d in rule if d == 0)),
        ),
        Mistake(
            "one number of a pair is enough for you; a pair catches a chip that reaches both",
            _wrong_limit(limit=lambda die, rule: min(min(t, d * die) for t, d in rule)),
        ),
        Mistake(
            "all pairs must be reached for you; one pair is enough to be caught",
            _wrong_limit(limit=lambda die, rule: max(max(t, d * die) for t, d in rule)),
        ),
    ],
)


def check_export_limit(function: Learner, *, seed: int = 0) -> None:
    """Check ``export_limit(rates, die_mm2, rule)``: a chip's TPP, and the least that is caught.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. The rule is that of 2023-10-17, see
    ``slingshot.rules.rule_2023``.
    """
    rng = np.random.default_rng([seed, 6])
    rule = [
        (facts.value("rule.2023.performance"), 0.0),
        (facts.value("rule.2023.performance_with_density"), facts.value("rule.2023.density")),
        (facts.value("rule.2023.b.performance"), facts.value("rule.2023.b.density")),
    ]
    h20 = {16: facts.value("chip.h20.bf16") / 1e12, 8: facts.value("chip.h20.fp8") / 1e12}
    names = ("rates", "die_mm2", "rule")
    cases = [
        _named(names, {16: 100.0, 8: 220.0}, 1000.0, [(5000.0, 0.0), (2000.0, 2.5)]),
        _named(names, {16: 100.0, 8: 150.0, 4: 500.0}, 100.0, [(5000.0, 0.0), (2000.0, 2.5)]),
        _named(names, h20, facts.value("chip.h100.die"), rule),
        _named(names, h20, 3200.0, rule),
    ]
    for area in (50, 400, 900, 1800):
        scale = int(rng.integers(8, 24)) / 8
        scaled = [(scale * tpp, density) for tpp, density in rule]
        die = float(area + int(rng.integers(0, 100)))
        rates = {16: float(rng.integers(100, 900)), 8: float(rng.integers(100, 1900))}
        cases.append(_named(names, rates, die, scaled))
    EXPORT_LIMIT.check(function, cases)


# --- helpers ---------------------------------------------------------------------------------


def _named(names: Sequence[str], *values: object) -> dict[str, object]:
    return dict(zip(names, values, strict=True))


def _round(rng: np.random.Generator, low: float, high: float, count: int) -> list[float]:
    """Numbers of three digits between low and high, evenly spread over their logarithms."""
    drawn = np.exp(rng.uniform(math.log(low), math.log(high), count))
    return [float(f"{value:.2e}") for value in drawn]


CHECKS: dict[str, Callable[..., None]] = {
    "training_flops": check_training_flops,
    "run_time": check_run_time,
    "utilization": check_utilization,
    "conversation_price": check_conversation_price,
    "conversations_that_fit": check_conversations_that_fit,
    "export_limit": check_export_limit,
}
"""The exercises of the assignment in their order, each with its check."""
