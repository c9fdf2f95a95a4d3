"""The load: how evenly tokens spread over experts, and three ways to make them.

A loss can ask for balance (Switch, GShard, DeepSeek's per sequence), a bias can steer toward it
(DeepSeek-V3), or the experts can choose their tokens, which balances by construction.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64, Integer, Real
from torch import Tensor
from torch.nn import functional as F

from slingshot import require
from slingshot.moe.routing import TopKRouter
from slingshot.tensors import (
    at_least_float32,
    check_finite,
    check_shapes,
    check_within,
    first,
    real,
    whole,
)


def expert_load(experts: Integer[Tensor, "*shape"], n_experts: int) -> Int64[Tensor, "E"]:
    """Count how often each expert was chosen: ``experts [T, k]`` to counts ``[E]`` int64.

    Raises ``ValueError`` when ``experts`` is not integer or names an expert outside 0 to E - 1.
    """
    require.counts(n_experts=n_experts)
    experts = whole("experts", experts, "pass the integer Routing.experts")
    remedy = f"give the router's n_experts instead of {n_experts}"
    check_within("expert", experts, n_experts, remedy)
    return experts.flatten().bincount(minlength=n_experts)


def max_violation(load: Real[Tensor, "E"]) -> float:
    """Return by how much the busiest expert exceeds the mean: (max - mean) / mean of ``load [E]``.

    0 is perfect balance. The ceiling is E / k - 1, when every token takes the same k experts. It is
    MaxVio of Wang et al., arXiv 2408.15664. Raises ``ValueError`` when ``load`` is not a vector of
    counts with a positive sum.
    """
    check_shapes("pass the counts [E] of one layer", load=load, empty=False)
    counts = _counts(load)
    mean = counts.mean().item()
    if mean == 0:
        raise ValueError(
            f"load is {load.tolist()}; balance is undefined before any token is routed"
        )
    return (counts.max().item() - mean) / mean


def load_balancing_loss(
    scores: Float[Tensor, "T E"], experts: Integer[Tensor, "T k"], n_experts: int
) -> Float[Tensor, ""]:
    """Return E · Σ f_i P_i over the whole batch: 1.0 at balance for any k, E / k at collapse.

    ``f_i`` is the share of all ``experts [T, k]`` slots that went to expert i, ``P_i`` the mean of
    the ``scores [T, E]``, each row divided by its sum. Only P has a gradient: it pushes down the
    scores of the experts that are busy. With f counted per token instead of per slot, as in much
    code in use, the value at balance would be k. Multiply it by a small weight, 0.01 in Switch.

    Source: Fedus et al., arXiv 2101.03961, eqs. 4-6, for k = 1; f over k slots as in DeepSeekMoE,
    arXiv 2401.06066, eqs. 12-14. Raises ``ValueError`` when the shapes do not fit, T is 0 or a
    score is negative or not finite. Computed in at least float32.
    """
    scores = _check_scores(scores, n_experts)
    check_shapes(
        "pass [T, E] and [T, k] of one Routing", scores=scores, experts=experts, empty=False
    )
    share = expert_load(experts, n_experts).to(scores.dtype) / experts.numel()
    probability = _shares(scores).mean(dim=0)
    return n_experts * (share * probability).sum()


def sequence_balance_loss(scores: Float[Tensor, "B S E"], top_k: int) -> Float[Tensor, ""]:
    """Return DeepSeek-V3's loss for ``scores [B, S, E]``: the mean over B sequences of Σ f_i P_i.

    As `load_balancing_loss`, but each sequence must be balanced by itself, and f counts who would
    be chosen *without* the bias. 1.0 at balance. V3 multiplies it by 0.0001.

    Source: DeepSeek-V3, arXiv 2412.19437, eqs. 17-20. Raises ``ValueError`` when ``scores`` is not
    ``[B, S, E]`` with at least one token, ``top_k`` is not within 1 and E, or a score is negative
    or not finite. Computed in at least float32.
    """
    check_shapes("pass [sequences, tokens, E]", scores=scores)
    n_experts = scores.shape[-1]
    scores = _check_scores(scores.flatten(0, 1), n_experts).view(scores.shape)
    require.whole("top_k", top_k, 1, n_experts)
    chosen = torch.zeros_like(scores).scatter_(-1, scores.topk(top_k, dim=-1).indices, 1.0)
    frequency = n_experts / top_k * chosen.mean(dim=1)
    probability = _shares(scores).mean(dim=1)
    return (frequency * probability).sum(dim=-1).mean()


def router_z_loss(logits: Float[Tensor, "T E"]) -> Float[Tensor, ""]:
    """Return the mean over tokens of ``logsumexp(logits [T, E])`` squared: keeps logits small.

    It is (ln E)², not 0, when all logits are 0. Source: Zoph et al., arXiv 2202.08906, eq. 5, where
    its weight is 0.001. Raises ``ValueError`` unless ``logits`` is ``[T, E]`` with T at least 1,
    and when the loss is not finite. Computed in at least float32.
    """
    limit = torch.finfo(real("logits", logits).dtype).max
    logits = at_least_float32(real("logits", logits))
    check_shapes("pass [tokens, experts]", logits=logits, empty=False)
    largest = logits.logsumexp(dim=-1)
    loss = largest.square().mean()
    # The gradient, of the type of the logits, is twice the logsumexp, shared by T tokens.
    steepest = largest.detach().abs().max() * (2 / len(logits))
    if not (loss.isfinite() and steepest <= limit):
        check_finite("logits", logits, "check what feeds the router")
        raise ValueError(
            f"the loss or its gradient overflows with logits up to "
            f"{logits.abs().max().item():.3g}; normalize what feeds the router"
        )
    return loss


@torch.no_grad()
def update_expert_bias(router: TopKRouter, load: Real[Tensor, "E"], speed: float) -> None:
    """Move each expert's bias by ``speed`` toward balance: up if it was idle, down if it was busy.

    Call it once after each optimizer step with the ``load [E]`` of the whole batch, summed over all
    micro-batches and workers, and never in evaluation. An expert with exactly the mean load keeps
    its bias. V3 uses 0.001 over many thousand steps; the bias must be able to travel about one
    score in the steps there are.

    Source: DeepSeek-V3, arXiv 2412.19437, §2.1.2; Wang et al., arXiv 2408.15664. Raises
    ``ValueError`` when ``load`` is not the load of this router's experts, ``speed`` is below 0 or
    not finite, or the bias is of half precision, in which small steps would be lost.
    """
    if torch.finfo(router.expert_bias.dtype).bits < 32:
        raise ValueError(
            f"expert_bias has dtype {router.expert_bias.dtype}, in which small steps are lost; "
            "keep the router in float32, with router.float()"
        )
    if load.shape != router.expert_bias.shape:
        raise ValueError(
            f"load has shape {tuple(load.shape)} and the router {len(router.expert_bias)} experts; "
            "pass expert_load(routing.experts, router.n_experts)"
        )
    if not 0 <= speed < math.inf:
        raise ValueError(f"speed is {speed}; give 0 to stop, or a small positive number")
    counts = _counts(load)
    direction = torch.sign(counts.mean() - counts)
    moved = router.expert_bias + speed * direction.to(router.expert_bias.dtype)
    check_finite("expert_bias", moved, f"speed is {speed}, give a smaller one")
    router.expert_bias.copy_(moved)


class ExpertChoice(NamedTuple):
    """Each expert's tokens: ``tokens [E, C]`` int64 and their ``weights [E, C]``."""

    tokens: Int64[Tensor, "E C"]
    weights: Float[Tensor, "E C"]


def expert_choice(logits: Float[Tensor, "T E"], capacity: int) -> ExpertChoice:
    """Let each expert take the ``capacity`` tokens that score highest for it, of ``logits [T, E]``.

    The load is equal by construction. But the number of experts per token varies, down to none, and
    whether a token is taken depends on tokens that come after it. The choice is not causal: a model
    that writes one token after another cannot make it. Weights are at least float32.

    Source: Zhou et al., arXiv 2202.09368, §3.2. Raises ``ValueError`` unless ``logits`` is
    ``[T, E]`` with an expert and finite, and ``capacity`` is within 1 and T.
    """
    logits = at_least_float32(real("logits", logits))
    check_shapes("pass [tokens, experts]", logits=logits, empty=False)
    check_finite("logits", logits, "check what feeds the router")
    require.whole("capacity", capacity, 1, len(logits))
    best = F.softmax(logits, dim=-1).T.topk(capacity, dim=-1)
    return ExpertChoice(best.indices, best.values)


def _counts(load: Real[Tensor, "E"]) -> Float64[Tensor, "E"]:
    """The load in float64; raise ``ValueError`` unless it holds counts."""
    counts = load.double()
    if not counts.isfinite().all() or counts.min() < 0:
        raise ValueError(f"load is {load.tolist()}; pass counts, each finite and at least 0")
    if not counts.sum().isfinite():
        raise ValueError(f"load is {load.tolist()}, whose sum overflows; pass counts of tokens")
    return counts


def _shares(scores: Float[Tensor, "*T E"]) -> Float[Tensor, "*T E"]:
    """Divide each row by its sum; a row of zeros, where every sigmoid underflowed, stays zeros."""
    sums = scores.sum(dim=-1, keepdim=True)
    if not sums.isfinite().all():
        raise ValueError(
            f"scores are up to {scores.max().item():.3g} and their sum overflows; "
            "pass Routing.scores, which are from 0 to 1"
        )
    return scores / (sums + 1e-20)


def _check_scores(scores: Tensor, n_experts: int) -> Tensor:
    scores = real("scores", scores)
    check_shapes(f"pass [tokens, {n_experts}] with a token", scores=scores, empty=False)
    if not (good := (scores >= 0) & scores.isfinite()).all():
        raise ValueError(f"{first('scores', scores, ~good)}; pass Routing.scores, from 0 to 1")
    wide = at_least_float32(scores)
    # A gradient is up to E over the sum of a row, and has the type of the scores.
    smallest = n_experts / torch.finfo(scores.dtype).max
    if scores.requires_grad and (least := wide.detach().sum(dim=1).min().item()) + 1e-20 < smallest:
        raise ValueError(
            f"the scores of a token sum to {least:.3g}, for which a gradient overflows in "
            f"{scores.dtype}; pass Routing.scores, which are float32"
        )
    return wide
