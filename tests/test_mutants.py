"""A sample of small changes to the solutions: both checks refuse each that changes an answer.

``python tests/mutants.py`` tries all of them.
"""

import ast

import pytest

from exercise_counts_plugin import cells, exercises
from mutants import HIDDEN_SEED, accepted, survivors

EACH = 20
"""Every twentieth mutant is tried here."""

EQUAL = {
    "utilization": {
        "seconds = sum((flops * shares[name] / peaks[name] for name in peaks))",
    },
    "conversation_price": {
        "for turn in list(range(turns))[::-1]:",
        "for turn in range(turns)[::-1]:",
    },
    "conversations_that_fit": {
        "return max(1, memory - weights) // conversation",
        "return max(memory - weights, 0) // conversation",
    },
    "export_limit": {
        "limit = min((max(density * die_mm2, least) for least, density in rule))",
        "tpp = max((bits * rate for rate, bits in rates.items()))",
    },
    "spacing": {
        "size = max(2.0 ** (1 - bias), abs(x))",
    },
    "round_to": {
        "gap = -2.0 ** (math.frexp(normal)[1] - 1 - mantissa_bits)",
        "if abs(x) > largest:",
        "normal = max(2.0 ** (1 - bias), abs(x))",
    },
    "quantize": {
        "for i in list(range(tall))[::-1]:",
        "for i in range(tall)[::-1]:",
        "for j in list(range(wide))[::-1]:",
        "for j in range(wide)[::-1]:",
        "values = np.ones(x.shape)",
    },
    "scale_exponent": {
        "if amax <= 0:",
        "if rule <= 'ceil' and mantissa > largest_mantissa:",
        "return min(127, max(exponent, -127))",
        "return min(max(-127, exponent), 127)",
    },
    "int8_product": {
        "q, x_zero, r = (codes.astype(np.int32) for codes in (q, x_zero, r))",
    },
    "fp8_product": {
        "for k in list(range(q_scale.shape[1]))[::-1]:",
        "for k in range(q_scale.shape[1])[::-1]:",
        "for k in range(r_scale.shape[1]):",
        "here = slice(k * block, (k + 2) * block)",
        "parts = [products[..., start:start + group], short[..., None]]",
        "step = -2.0 ** (np.frexp(largest)[1] - bits)",
        "total = np.zeros((len(q_scale), len(r)))",
    },
    "gate": {
        "best = scores.topk(k)",
        "weights = best.values / torch.where(total > 0, total, -1.0)",
        "weights = best.values / torch.where(total > 0, total, 0.5)",
        "weights = best.values / torch.where(total > 0, total, 2.0)",
    },
    "route": {
        "experts = masked.reshape(biased.shape).topk(top_k).indices",
        "kept = rank.topk(topk_groups).indices",
        "rank = grouped.topk(2).values.sum(dim=2)",
        "rank = grouped.topk(2, dim=2).values.mean(dim=2)",
        "weights = route_scale * chosen / torch.where(total > 0, total, -1.0)",
        "weights = route_scale * chosen / torch.where(total > 0, total, 0.5)",
        "weights = route_scale * chosen / torch.where(total > 0, total, 2.0)",
    },
    "dispatch": {
        "places = served.gather(1, order[:, None])[:, -1] - 1",
    },
    "cache_bytes": {
        "vectors = [attention.get('indexer', 0), attention['latent']]",
    },
    "attend": {
        "n_new, n_tokens = (len(query), len(value))",
        "scores = query @ key.T / query.shape[1] ** 0.5",
    },
    "absorbed_query": {
        "folded = torch.einsum('hn,hnr->hr ', plain, unpack[:, :nope])",
    },
    "accept_draft": {
        "if kept >= len(draft):",
        "if kept == len(q):",
        "if kept == len(uniform):",
    },
    "place": {
        "for _ in list(range(n_redundant))[::-1]:",
        "for _ in range(n_redundant)[::-1]:",
        "items = [e for e in experts for _ in range(replicas[e])[::-1]]",
        "ranks = [[] for _ in range(n_ranks)[::-1]]",
        "slots = sum(replicas) / n_ranks",
    },
    "idle_share": {
        "ends, free, at = ({}, [-1 for _ in orders], [0 for _ in orders])",
        "for _ in list(range(sum(map(len, orders))))[::-1]:",
        "for _ in range(sum(map(len, orders)))[::-1]:",
        "for stage, order in list(enumerate(orders))[::-1]:",
        "free[stage] = max(ends.get(need, 0), free[stage]) + takes[kind]",
        "free[stage] = max(free[stage], ends.get(need, -1)) + takes[kind]",
        "if at[stage] >= len(order):",
        "if kind in ('b', 'B') and stage < len(orders) - 1:",
        "if kind <= 'F' and stage > 0:",
        "if kind >= 'F' and stage > 0:",
        "if stage > 0 and stage > 0:",
        "name = 'back' if kind in ('b', 'B') else kind",
        "work = sum((takes[kind] for kind, _ in orders[-1]))",
    },
    "scores": {
        "for given, answer in list(zip(samples, answers, strict=True))[::-1]:",
        "for given, answer in zip(samples, answers):",
        "for given, answer in zip(samples, answers, strict=False):",
        "won, hits = ([], [])",
    },
    "verify": {
        "ending = ['=', *answer.rsplit(), '$']",
        "return text.rsplit()[-len(ending):] == ending",
    },
    "grpo_loss": {
        "gain = torch.minimum(bounded * worth, ratio * worth)",
        "now, old, reference = (log.masked_fill(~mask, -0.0) for log in (log_p, log_old, log_ref))",
        "per_output = cost.masked_fill(~mask, -0.0).sum(dim=1) / mask.sum(dim=1)",
    },
    "keep": {
        "a, b = swap.rsplit('-')",
        "b, a = swap.split('-')",
        "for label, swap in zip(steps[::2], steps[1::2]):",
        "for label, swap in zip(steps[::2], steps[1::2], strict=False):",
        "if not set(said) < set('123456'):",
        "if not set(said) <= set('123456 '):",
        "if not set(said) <= set('123456123456'):",
        "length = len(text.rsplit())",
        "words, rest = (prompt.rsplit(), text.split())",
        "words, rest = (prompt.split(), text.rsplit())",
    },
}
"""The changed lines of mutants that compute the same for whatever their statement allows.

Arguments of max, min and minimum are exchanged; a sum is taken in another order, or another part of
the same length is counted; what is overwritten or divided into zero begins as another number; two
dictionaries have the same keys; a step has the other sign, on both sides of a rounding; a mean of
two is taken for their sum, where only the order counts; the last dimension is named or not; zip
meets lists of one length; text is split from the right, at white space.
"""


@pytest.mark.slow
@pytest.mark.parametrize(("assignment", "exercise"), exercises())
def test_a_small_change_to_a_solution_is_refused(assignment: str, exercise: str) -> None:
    made, found = survivors(assignment, exercise, EACH)
    assert made >= 2
    solution = ast.unparse(ast.parse(cells("source", assignment)[f"{assignment}-{exercise}"]))
    for seen, said, source in found:
        (new,) = (line.strip() for line in source.splitlines() if line not in solution)
        assert new in EQUAL.get(exercise, set()), (seen, said, new)


@pytest.mark.parametrize(("assignment", "exercise"), exercises())
@pytest.mark.parametrize("seed", [0, HIDDEN_SEED])
def test_a_solution_is_accepted_where_its_mutants_are_tried(
    assignment: str, exercise: str, seed: int
) -> None:
    solution = cells("source", assignment)[f"{assignment}-{exercise}"]
    assert accepted(assignment, exercise, solution, seed)


def test_a_mutant_that_survives_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mutants.accepted", lambda *arguments: True)
    made, found = survivors("claim", "training_flops")
    assert made == len(found) > 20
