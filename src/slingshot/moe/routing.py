"""The router: which few experts see a token, and with what weight.

The router of DeepSeek-V3 (arXiv 2412.19437, §2.1.2, eqs. 12-16), one step per function. A score
says how well each expert fits a token. A bias is added that steers the choice and nothing else. The
best experts of the best groups are chosen. Their unbiased scores become their weights.
"""

import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot import require
from slingshot.tensors import at_least_float32, check_finite, check_within, first, real, whole

Score = Literal["sigmoid", "softmax"]
"""How a logit becomes a score: V3 takes the sigmoid (eq. 15), DeepSeekMoE and V2 the softmax."""

# Keeps the division, and its gradient, finite when every chosen score underflows to 0. It is
# transformers' value, below the float32 rounding of any sum above 1e-12; DeepSeek's own inference
# code divides without it.
_EPSILON = 1e-20


class Routing(NamedTuple):
    """Where T tokens go: k of E experts each.

    ``weights [T, k]`` multiply the outputs of ``experts [T, k]`` int64, which stand in descending
    order of biased score; ``scores [T, E]`` are the unbiased scores of all. Weights and scores are
    float32, or float64 in a float64 model.
    """

    weights: Float[Tensor, "T k"]
    experts: Int64[Tensor, "T k"]
    scores: Float[Tensor, "T E"]


class TopKRouter(nn.Module):
    """Send each token to the ``top_k`` of ``n_experts`` experts whose biased score is highest.

    Parameter ``weight [E, d_model]`` holds one direction per expert. Buffer ``expert_bias [E]``
    (float32, zeros at first) is added to the scores for the choice only and gets no gradient; a
    load-balancing rule moves it from outside. Keep the router in float32 when the model around it
    is cast down: bfloat16 would round a bias of 0.5 plus V3's step of 0.001 back to 0.5.

    With ``n_groups > 1`` a token may use experts of ``topk_groups`` groups only, which bounds the
    number of machines it travels to. With ``normalize`` the weights of a token sum to
    ``route_scale``, otherwise they are its scores times ``route_scale``. V3 has 256 experts in 8
    groups, keeps 4 groups and 8 experts, and scales by 2.5. That scale stands in its released
    configuration, not in its equations.

    Gradients reach ``weight`` through the returned weights and scores, never through the choice.

    Raises ``ValueError`` for a size below 1, for ``top_k``, ``n_groups`` or ``topk_groups`` that
    cannot be satisfied, for an unknown ``score`` and for a ``route_scale`` that is not a positive
    number of float32.

    Source: DeepSeek-V3, arXiv 2412.19437, §2.1.2, eqs. 12-16.
    """

    expert_bias: Tensor

    def __init__(
        self,
        d_model: int,
        n_experts: int,
        top_k: int,
        *,
        score: Score = "sigmoid",
        n_groups: int = 1,
        topk_groups: int = 1,
        normalize: bool = True,
        route_scale: float = 1.0,
    ) -> None:
        """Draw ``weight`` and set ``expert_bias`` to zero."""
        super().__init__()
        require.counts(d_model=d_model)
        _check_selection(n_experts, top_k, n_groups, topk_groups)
        require.one_of(get_args(Score), score=score)
        _check_route_scale(route_scale)
        self.d_model = d_model
        self.n_experts = n_experts
        self.top_k = top_k
        self.score: Score = score
        self.n_groups = n_groups
        self.topk_groups = topk_groups
        self.normalize = normalize
        self.route_scale = route_scale
        self.weight = nn.Parameter(torch.empty(n_experts, d_model))
        self.register_buffer("expert_bias", torch.zeros(n_experts, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw ``weight`` from a normal distribution, std 0.5 / √d_model; zero ``expert_bias``."""
        # V3 draws with std 0.006 at d_model 7168, where 0.5 / √d_model is 0.0059. Scaling with the
        # width gives inputs of unit variance the same spread of logits (0.5) in a small model.
        # Zeros would make every score equal, and a tie is broken in no useful order.
        nn.init.normal_(self.weight, std=0.5 / math.sqrt(self.d_model))
        nn.init.zeros_(self.expert_bias)

    def forward(self, x: Float[Tensor, "T d"]) -> Routing:
        """Route the tokens ``x [T, d_model]``; T may be 0.

        Raises ``ValueError`` when ``x`` has another shape or is not floating point, or when ``x``,
        ``weight`` or ``expert_bias`` holds NaN or infinity.
        """
        _check_tokens(x, self.d_model)
        logits = router_logits(x, self.weight)
        check_finite("expert_bias", self.expert_bias, "reset it to 0")
        scores = _scores(logits, self.score)
        biased = scores.detach() + self.expert_bias.to(scores.dtype)
        experts = select_experts(biased, self.top_k, self.n_groups, self.topk_groups)
        weights = _weights(scores, experts, self.normalize, self.route_scale)
        return Routing(weights, experts, scores)

    def extra_repr(self) -> str:
        """Return the arguments, for ``print(router)``."""
        return (
            f"d_model={self.d_model}, n_experts={self.n_experts}, top_k={self.top_k}, "
            f"score={self.score!r}, n_groups={self.n_groups}, topk_groups={self.topk_groups}, "
            f"normalize={self.normalize}, route_scale={self.route_scale}"
        )


def router_logits(x: Float[Tensor, "*T d"], weight: Float[Tensor, "E d"]) -> Float[Tensor, "*T E"]:
    """Return the dot products ``[T, E]`` of tokens ``x [T, d]`` with ``weight [E, d]``.

    They are float32, or float64 when ``x`` or ``weight`` is. Raises ``ValueError`` when the widths
    differ, and for NaN and infinity in ``x``, in ``weight`` or in a product.
    """
    x, weight = real("x", x), real("weight", weight)
    if x.ndim < 1 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and weight {tuple(weight.shape)}; pass [T, d] and [E, d]"
        )
    # The choice is a comparison: a rounding error does not shrink an output a little, it sends the
    # token to another expert. So the router is float32 even where the model around it is not, and
    # autocast, which would make this product bfloat16, is off.
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
        logits = F.linear(x.to(dtype), weight.to(dtype))
    if not logits.isfinite().all():
        raise ValueError(_explain_non_finite(x, weight))
    return logits


def expert_scores(logits: Float[Tensor, "*T_E"], score: Score = "sigmoid") -> Float[Tensor, "*T_E"]:
    """Turn ``logits [T, E]`` into scores between 0 and 1: how well each expert fits each token.

    ``"sigmoid"`` judges every expert on its own (V3, eq. 15), ``"softmax"`` shares 1 among all E
    (DeepSeekMoE, arXiv 2401.06066, eq. 11). A logit of minus infinity gets 0. Raises ``ValueError``
    for another ``score``, and for logits that have none: NaN, and where 1 is shared, infinity or
    nothing above minus infinity.
    """
    require.one_of(get_args(Score), score=score)
    logits = real("logits", logits)
    if score == "softmax" and (logits.ndim < 1 or not logits.shape[-1]):
        raise ValueError(f"logits has shape {tuple(logits.shape)}; pass [T, E] with an expert")
    scores = _scores(logits, score)
    if scores.isnan().any():
        raise ValueError(f"{first('logits', logits, scores.isnan())}; pass finite logits")
    return scores


def group_scores(biased: Float[Tensor, "*T E"], n_groups: int) -> Float[Tensor, "*T G"]:
    """Return ``[T, n_groups]``: the sum of the two best of ``biased [T, E]`` in each group.

    Group g holds the experts from g * E / n_groups up to the next group. V3's text ranks groups by
    affinity, its released code by biased score; this follows the code. Sums are at least float32.
    Raises ``ValueError`` when E does not divide into groups of at least 2, and for sums that are
    not finite.
    """
    biased = _check_biased(biased)
    _check_groups(biased.shape[-1], n_groups)
    if biased.shape[-1] // n_groups < 2:
        raise ValueError(f"1 expert in {n_groups} group has no two best; give at least 2 experts")
    best_two = at_least_float32(_by_group(biased, n_groups).topk(2, dim=-1).values)
    sums = best_two.sum(dim=-1)
    if not sums.isfinite().all():
        largest = biased.flatten()[biased.abs().argmax()].item()
        check_finite("biased", biased, "give scores without nan or infinity")
        raise ValueError(
            f"biased holds {largest:.3g} and sums of two overflow; give smaller scores"
        )
    return sums


def mask_groups(
    biased: Float[Tensor, "*T E"], n_groups: int, topk_groups: int
) -> Float[Tensor, "*T E"]:
    """Return ``biased [T, E]`` with -inf outside each token's best ``topk_groups`` groups.

    The fill is -inf and not 0: a bias may push every kept score below 0, and then a masked expert
    at 0 would win. Raises ``ValueError`` when ``topk_groups`` is not within 1 and ``n_groups``, and
    for a score that is not finite: it could not be told from a masked one.
    """
    check_finite("biased", biased := _check_biased(biased), "give scores without nan or infinity")
    _check_groups(biased.shape[-1], n_groups, topk_groups)
    kept = group_scores(biased, n_groups).topk(topk_groups, dim=-1).indices
    dropped = torch.ones(*biased.shape[:-1], n_groups, dtype=torch.bool, device=biased.device)
    dropped.scatter_(-1, kept, False)
    return _by_group(biased, n_groups).masked_fill(dropped.unsqueeze(-1), -math.inf).flatten(-2)


def select_experts(
    biased: Float[Tensor, "*T E"], top_k: int, n_groups: int = 1, topk_groups: int = 1
) -> Int64[Tensor, "*T k"]:
    """Choose the ``top_k`` highest of ``biased [T, E]`` within each token's best groups.

    Returns ``experts [T, k]`` int64 in descending order of biased score; equal scores come in no
    particular order. Raises ``ValueError`` for a choice that cannot be made, for NaN, and with
    groups for infinity.
    """
    biased = _check_biased(biased)
    _check_selection(biased.shape[-1], top_k, n_groups, topk_groups)
    # Keeping every group is keeping every expert, so the grouping costs nothing then.
    candidates = mask_groups(biased, n_groups, topk_groups) if topk_groups < n_groups else biased
    best = candidates.topk(top_k, dim=-1, sorted=True)
    # topk ranks NaN above every number, so a row's first value shows it.
    if best.values[..., 0].isnan().any():
        raise ValueError(f"{first('biased', biased, biased.isnan())}; give scores without nan")
    return best.indices


def gate_weights(
    scores: Float[Tensor, "*T E"],
    experts: Integer[Tensor, "*T k"],
    *,
    normalize: bool = True,
    route_scale: float = 1.0,
) -> Float[Tensor, "*T k"]:
    """Return the weights ``[T, k]`` of the chosen ``experts [T, k]`` from unbiased ``scores``.

    Those are ``[T, E]``. With ``normalize`` weights are divided by their sum plus 1e-20 (V3,
    eq. 13), so that a token's weights sum to ``route_scale``; if all its chosen scores are 0 its
    weights are 0, not NaN. They are at least float32. Raises ``ValueError`` for a ``route_scale``
    that is not a positive number of float32, for experts that do not exist, and for scores that are
    not from 0 to infinity.
    """
    _check_route_scale(route_scale)
    scores, experts = real("scores", scores), whole("experts", experts, "pass Routing.experts")
    if scores.ndim < 1 or experts.ndim != scores.ndim or experts.shape[:-1] != scores.shape[:-1]:
        raise ValueError(
            f"scores has shape {tuple(scores.shape)} and experts {tuple(experts.shape)}; "
            "pass [T, E] and [T, k]"
        )
    check_within("expert", experts, scores.shape[-1], "choose among those that have a score")
    if not (good := (scores >= 0) & scores.isfinite()).all():
        raise ValueError(f"{first('scores', scores, ~good)}; give finite scores, each at least 0")
    scores = at_least_float32(scores)
    weights = _weights(scores, experts, normalize, route_scale)
    sums = scores.gather(-1, experts).sum(dim=-1)  # divided by an infinite one they would be 0
    if not (weights.isfinite().all() and sums.isfinite().all()):
        raise ValueError(
            f"scores are up to {scores.max().item():.3g} and route_scale is {route_scale}, which "
            "overflows; give scores from 0 to 1"
        )
    return weights


def _scores(logits: Float[Tensor, "*T_E"], score: Score) -> Float[Tensor, "*T_E"]:
    return logits.sigmoid() if score == "sigmoid" else logits.softmax(dim=-1)


def _weights(
    scores: Float[Tensor, "*T E"],
    experts: Int64[Tensor, "*T k"],
    normalize: bool,
    route_scale: float,
) -> Float[Tensor, "*T k"]:
    weights = scores.gather(-1, experts)
    if normalize:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + _EPSILON)
    return weights * route_scale


def _by_group(values: Float[Tensor, "*T E"], n_groups: int) -> Float[Tensor, "*T G n"]:
    """View ``[T, E]`` as ``[T, n_groups, E / n_groups]``, with sizes given so that T may be 0."""
    return values.reshape(*values.shape[:-1], n_groups, values.shape[-1] // n_groups)


def _check_groups(n_experts: int, n_groups: int, topk_groups: int = 1) -> None:
    """Raise ``ValueError`` unless E experts split into groups of which some can be kept."""
    require.counts(n_experts=n_experts, n_groups=n_groups, topk_groups=topk_groups)
    if n_experts % n_groups:
        raise ValueError(
            f"{n_experts} experts do not divide into {n_groups} groups; "
            "make n_experts a multiple of n_groups"
        )
    if n_groups > 1 and n_experts // n_groups < 2:
        raise ValueError(
            f"{n_experts} experts in {n_groups} groups leave 1 in each, and a group's score is the "
            f"sum of its two best; give at most {max(1, n_experts // 2)} groups"
        )
    if topk_groups > n_groups:
        raise ValueError(
            f"topk_groups {topk_groups} exceeds n_groups {n_groups}; keep at most all groups"
        )


def _check_selection(n_experts: int, top_k: int, n_groups: int, topk_groups: int) -> None:
    """Raise ``ValueError`` unless k experts can be chosen from the groups that are kept."""
    _check_groups(n_experts, n_groups, topk_groups)
    require.counts(top_k=top_k)
    if top_k > n_experts:
        raise ValueError(f"top_k {top_k} exceeds n_experts {n_experts}; choose at most all experts")
    kept = n_experts // n_groups * topk_groups
    if top_k > kept:
        raise ValueError(
            f"top_k {top_k} exceeds the {kept} experts in topk_groups {topk_groups} of "
            f"{n_groups} groups; lower top_k or keep more groups"
        )


def _check_biased(biased: Tensor) -> Tensor:
    biased = real("biased", biased)
    if biased.ndim < 1:
        raise ValueError(f"biased has shape {tuple(biased.shape)}; pass [T, E]")
    return biased


def _check_route_scale(route_scale: float) -> None:
    limits = torch.finfo(torch.float32)
    if not limits.tiny <= route_scale <= limits.max:
        raise ValueError(
            f"route_scale is {route_scale}; give a positive finite number of float32, 1.0 is "
            "neutral"
        )


def _check_tokens(x: Tensor, d_model: int) -> None:
    """Raise ``ValueError`` unless ``x`` is a floating-point tensor ``[T, d_model]``."""
    if not x.is_floating_point():
        raise ValueError(f"x has dtype {x.dtype}; pass floating point, for example x.float()")
    if x.ndim == 2 and x.shape[1] == d_model:
        return
    if x.ndim and x.shape[-1] == d_model:
        remedy = f"make it [tokens, {d_model}] with x.reshape(-1, {d_model})"
    else:
        remedy = f"pass [tokens, d_model] with d_model {d_model}"
    raise ValueError(f"x has shape {tuple(x.shape)}; {remedy}")


def _explain_non_finite(x: Tensor, weight: Tensor) -> str:
    """Say which input made a logit NaN or infinite.

    Looking at the logits alone is enough to know that there is one: a non-finite ``x[t, j]`` makes
    every logit of token t non-finite, whatever it is multiplied with, zero included.
    """
    if not (finite := x.isfinite()).all():
        return f"input holds NaN or infinity: {first('x', x, ~finite)}; check what feeds the router"
    if not (finite := weight.isfinite()).all():
        return f"{first('weight', weight, ~finite)}; training diverged, reload or lower its rate"
    return (
        f"a logit overflows with |x| up to {x.abs().max().item():.3g} and |weight| up to "
        f"{weight.abs().max().item():.3g}; normalize x first"
    )
