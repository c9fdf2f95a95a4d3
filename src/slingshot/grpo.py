"""Group relative policy optimization: reinforcement learning with a reward that is checked.

The model answers each problem G times. Whatever did better than its group becomes more likely,
whatever did worse less so. No second network predicts how good an answer will be: the mean of the
group is what it is measured against.

**The objective.** Of output i of a group let ``r_it`` be the probability of token t now over its
probability when it was sampled, ``A_i`` the advantage, ``k_it`` an estimate of how far the model is
from a reference. Each token gains

    ``min(r_it A_i, clip(r_it, 1 - low, 1 + high) A_i) - beta k_it``

and the variants differ in how tokens are added up, ``|o_i|`` being the length of output i:

- ``"paper"``: the mean over the tokens of each output, then over outputs (DeepSeekMath,
  arXiv 2402.03300, eq. 3). A token of a long output counts less.
- ``"dapo"``: the mean over all tokens of the batch (DAPO, arXiv 2503.14476, eq. 8).
- ``"dr_grpo"``: the sum over tokens divided by a constant, ``max_length``, then the mean over
  outputs (Dr. GRPO, arXiv 2503.20783, §3.2). The same paper does not divide advantages by the
  standard deviation. DAPO and Dr. GRPO both drop the term with beta.
- ``"gspo"``: one ratio for each output, the geometric mean of those of its tokens, which is clipped
  as a whole; then the mean over outputs (GSPO, arXiv 2507.18071, eqs. 5 and 7). Such a mean moves
  far less than a token does, and the bounds are narrower: 3e-4 and 4e-4 there (§5.1).
- ``"cispo"``: each token gains ``w_it A_i log p_it`` with the constant weight
  ``w_it = clip(r_it, 1 - low, 1 + high)``; then as ``"dapo"`` (MiniMax-M1, arXiv 2506.13585,
  eqs. 4 and 5). The clip bounds how much a token counts, and takes no gradient away.

**Papers and code differ.** DeepSeek-R1 (arXiv 2501.12948, eqs. 1-3) and DeepSeek-V3 (arXiv
2412.19437, eqs. 26-28) print one ratio for the whole output, the product of those of its tokens,
and no mean over tokens. DeepSeekMath prints a ratio for each token, which is what TRL and this
module compute. With one update per batch all ratios are 1 and nothing is clipped; the gradient of
what R1 prints is then that of ``"dr_grpo"``, times ``max_length``. The papers do not say whether
the standard deviation of a group divides by G or by G - 1; TRL takes G - 1 and adds 1e-4.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Float32, Int64, Real, Shaped
from torch import Tensor, nn

from slingshot import require, sizes
from slingshot.completions import token_log_probs
from slingshot.lm import DecoderLM, in_eval_mode
from slingshot.progress import progress_bar
from slingshot.sampling import sample_answers
from slingshot.tasks import Problem, Task
from slingshot.tensors import (
    at_least_float32,
    check_finite,
    check_learning,
    check_shapes,
    finite_number,
    first,
    real,
    usable,
)

Scale = Literal["group", "none"]
"""What an advantage is divided by: the standard deviation of its group, or nothing."""

Variant = Literal["paper", "dapo", "dr_grpo", "gspo", "cispo"]
"""What a token gains, and how tokens are added up; see the top of this module."""

KL = Literal["k1", "k2", "k3"]
"""The three estimators of `kl_estimate`."""

Reward = Callable[[Problem, str], float]
"""What a text that was written to a problem earns: ``task.verify``, or a function of your own."""


# --- the objective -----------------------------------------------------------------------------


def group_advantages(
    rewards: Shaped[Tensor, "P G"],
    *,
    scale: Scale = "group",
    correction: int = 1,
    eps: float = 1e-4,
) -> Float[Tensor, "P G"]:
    """Return by how much each of ``rewards [P, G]`` is above its group's mean, ``[P, G]`` float.

    With ``scale="group"`` in standard deviations of the group plus ``eps``; ``correction=1``
    divides the sum of squares by G - 1, as TRL does, 0 by G. A group whose rewards are all equal
    has advantages of exactly 0: it says nothing. No problems, P = 0, have none. Advantages are
    float32, or float64 if the rewards are.

    Sources: DeepSeekMath, arXiv 2402.03300, §4.1.2; DeepSeek-R1, arXiv 2501.12948, eq. 3; without
    the division: arXiv 2503.20783, §3.2. Raises ``ValueError`` for groups of fewer than two, a
    reward that is not finite, integers that float32 does not hold, a difference that overflows,
    and settings that cannot be meant.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(
            f"rewards has shape {tuple(rewards.shape)}; pass [problems, outputs] with at least 2 "
            "outputs, a group of one has nothing to compare with"
        )
    require.one_of(get_args(Scale), scale=scale)
    if correction not in (0, 1) or not 0 <= eps < math.inf:
        raise ValueError(
            f"correction is {correction} and eps {eps}; give 0 or 1, and 0 or a small number"
        )
    given, rewards = rewards, _as_floats(rewards)
    # A power of two for each group brings its rewards near 1, so that no square overflows or
    # vanishes. It rounds nothing.
    smallest = torch.finfo(rewards.dtype).tiny
    largest = rewards.detach().abs().amax(dim=1, keepdim=True).clamp(min=smallest)
    power = largest.frexp().mantissa / largest
    rewards = rewards * power
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    if scale == "group":
        squares = advantages.square().sum(dim=1, keepdim=True)
        deviation = (squares / (rewards.shape[1] - correction)).sqrt()
        advantages = advantages / (deviation + eps * power)
    else:
        advantages = advantages / power
    # The mean of equal floats may differ from them in the last bit; without eps that would be 1.
    advantages = advantages.masked_fill(all_equal(given)[:, None], 0.0)
    remedy = f"rewards are up to {largest.max().item() if len(given) else 0:.3g}, give smaller ones"
    check_finite("advantages", advantages, remedy)
    return advantages


def all_equal(rewards: Shaped[Tensor, "P G"]) -> Bool[Tensor, "P"]:
    """Return which groups of ``rewards [P, G]`` have no two different ones: ``[P]`` bool.

    Raises ``ValueError`` for another shape and for NaN, which differs from itself.
    """
    check_shapes("pass [problems, outputs]", rewards=rewards)
    if (nan := rewards.isnan()).any():
        raise ValueError(f"{first('rewards', rewards, nan)}; each must be a number")
    return (rewards == rewards[:, :1]).all(dim=1)


def kl_estimate(
    log_p: Float[Tensor, "*shape"], log_ref: Float[Tensor, "*shape"], kind: KL = "k3"
) -> Float[Tensor, "*shape"]:
    """Estimate KL(p || ref) from log-probabilities of what was sampled from p, in nats.

    ``log_p`` and ``log_ref`` have one shape, which the result has too: an estimate for each sample.
    With ``x = log_ref - log_p``, k1 is ``-x``, k2 is ``x² / 2`` and k3 is ``exp(x) - x - 1``.

    *As numbers*: k1 and k3 have the KL as their mean, k2 only nearly. k1 can be negative, k2 and k3
    cannot. *As losses* they do something else, because the gradient does not see how the samples
    were drawn. For samples of p the mean gradient of k1 is zero, that of k2 is the gradient of
    KL(p || ref), and that of k3, which DeepSeek uses, is the gradient of KL(ref || p). This holds
    for one decision, or for a whole text as one sample. Added up token by token, as `grpo_loss`
    does, neither comes out: the sum leaves out that a token also decides which tokens follow.
    k1 as a part of the reward has the gradient of KL(p || ref), for a text too.

    Sources: Schulman, "Approximating KL Divergence" (2020); k3 as a loss: DeepSeekMath,
    arXiv 2402.03300, eq. 4, DeepSeek-R1, arXiv 2501.12948, eq. 2; its gradient: arXiv 2506.09477.
    Estimates are at least float32. Raises ``ValueError`` for an unknown ``kind`` or two shapes, and
    for log-probabilities that are not finite or so far apart that the estimate overflows.
    """
    log_p, log_ref = real("log_p", log_p), real("log_ref", log_ref)
    require.one_of(get_args(KL), kind=kind)
    if log_p.shape != log_ref.shape:
        raise ValueError(
            f"log_p has shape {tuple(log_p.shape)} and log_ref {tuple(log_ref.shape)}; "
            "pass the same tokens to both models"
        )
    x = at_least_float32(log_ref) - at_least_float32(log_p)
    estimate = -x  # k1
    if kind != "k1":
        estimate = x.square() / 2 if kind == "k2" else x.expm1() - x
    # A gradient is about as large, and has the type of log_p.
    if not (estimate.detach().abs() <= torch.finfo(log_p.dtype).max).all():
        check_finite("log_p", log_p, "give log-probabilities of tokens that can be sampled")
        check_finite("log_ref", log_ref, "the reference excludes what was sampled, give another")
        raise ValueError(
            f"log_ref - log_p is up to {x.abs().max().item():.3g} and {kind} overflows in "
            f"{log_p.dtype}; give a reference that is nearer, or mask the token"
        )
    return estimate


def clipped(
    ratio: Real[Tensor, "*shape"],
    advantages: Real[Tensor, "*other"],
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
) -> Bool[Tensor, "*shape"]:
    """Return where the clip takes the gradient away, bool of the shape of ``ratio``.

    That is where a token has moved as far as it may in the direction that its advantage asks for.
    One that has moved too far the other way may always come back. Raises ``ValueError`` for shapes
    that cannot be broadcast, for NaN, and for bounds that cannot be meant.
    """
    _check_settings(epsilon_low, epsilon_high, 0.0)
    for name, values in (("ratio", ratio), ("advantages", advantages)):
        if (nan := values.isnan()).any():
            raise ValueError(f"{first(name, values, nan)}; check the log-probabilities and rewards")
    pairs = zip(reversed(ratio.shape), reversed(advantages.shape), strict=False)
    if advantages.ndim > ratio.ndim or any(b not in (1, a) for a, b in pairs):
        raise ValueError(
            f"ratio has shape {tuple(ratio.shape)} and advantages {tuple(advantages.shape)}; "
            "pass one shape, or advantages[:, None] with [R, T]"
        )
    ratio = at_least_float32(ratio)
    risen = (ratio > 1 + epsilon_high) & (advantages > 0)
    return risen | ((ratio < 1 - epsilon_low) & (advantages < 0))


def aggregate(
    values: Float[Tensor, "R T"],
    mask: Bool[Tensor, "R T"],
    variant: Variant,
    max_length: int | None = None,
) -> Float[Tensor, ""]:
    """Add up ``values [R, T]`` where ``mask [R, T]`` is true, as ``variant`` does: a scalar.

    A row without any token adds 0, and counts as a row. Nothing at all gives 0. ``max_length`` is
    the most tokens that an output may have; only ``"dr_grpo"`` needs it. The sum is at least
    float32. Raises ``ValueError`` when it does not get it, for shapes that differ, and for a result
    that is not finite.
    """
    require.one_of(get_args(Variant), variant=variant)
    if values.ndim != 2 or mask.shape != values.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"values has shape {tuple(values.shape)} and mask {tuple(mask.shape)} with dtype "
            f"{mask.dtype}; pass [R, T] twice, bool for the mask"
        )
    if variant == "dr_grpo" and (max_length is None or max_length < 1):
        raise ValueError(f"max_length is {max_length}; dr_grpo divides by it, give max_new_tokens")
    # Not values * mask: a NaN behind the mask would come through.
    values = at_least_float32(values).masked_fill(~usable(mask), 0.0)
    rows = max(1, len(values))
    if variant in ("paper", "gspo"):
        total = (values.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).sum() / rows
    elif variant in ("dapo", "cispo"):
        total = values.sum() / mask.sum().clamp(min=1)
    else:
        total = values.sum() / (rows * (max_length or 1))
    if not total.isfinite():
        check_finite("values", values.detach(), "check what they were computed from")
        largest = values.detach().abs().max().item()
        raise ValueError(f"values are up to {largest:.3g} and their sum overflows; scale them down")
    return total


def grpo_loss(
    log_p: Float[Tensor, "R T"],
    advantages: Real[Tensor, "R"],
    mask: Bool[Tensor, "R T"],
    *,
    log_old: Float[Tensor, "R T"] | None = None,
    log_ref: Float[Tensor, "R T"] | None = None,
    variant: Variant = "paper",
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    beta: float = 0.0,
    kl: KL = "k3",
    max_length: int | None = None,
) -> Float[Tensor, ""]:
    """Return the loss of a batch, a scalar: the objective at the top of this module, negated.

    ``log_p [R, T]`` are the log-probabilities of the tokens of R outputs, with a gradient;
    ``advantages [R]`` what each output is worth; ``mask [R, T]`` bool where there is a token.
    ``log_old [R, T]`` are the log-probabilities when the tokens were sampled; ``None`` says that
    the model has not moved since. ``log_ref [R, T]`` are those of the reference model, and needed
    with ``beta``. What stands behind the mask has no influence. The loss is at least float32.

    A ratio may be so large that it overflows. Where its advantage is positive it is clipped and its
    gradient is 0; where the advantage is 0 so is its part; where it is negative the loss itself
    overflows. With ``"cispo"`` it is clipped everywhere. ``epsilon_low=1`` sets no lower bound.

    Sources: PPO's clip: arXiv 1707.06347, eq. 7; two bounds for it: DAPO, arXiv 2503.14476, eq. 8,
    with 0.2 and 0.28. Raises ``ValueError`` for tensors that do not fit together, for settings that
    cannot be meant, for advantages or log-probabilities that are not numbers, and for a loss that
    overflows.
    """
    _check_batch(log_p, advantages, mask, log_old, log_ref)
    limit = torch.finfo(log_p.dtype).max  # a gradient is about as large, and of this type
    log_p, mask, worth = usable(at_least_float32(log_p)), usable(mask), usable(advantages.detach())
    _check_settings(epsilon_low, epsilon_high, beta)
    if beta and log_ref is None:
        raise ValueError(f"beta is {beta} but log_ref is None; score the tokens with a reference")
    old = log_p.detach() if log_old is None else log_old.detach()
    moved = _moved(log_p, old, mask)
    worth = at_least_float32(worth)[:, None]
    clip = (epsilon_low, epsilon_high)
    loss = _policy_losses(log_p.masked_fill(~mask, 0.0), moved, worth, mask, variant, clip)
    if beta and log_ref is not None:
        now, reference = log_p.masked_fill(~mask, 0.0), log_ref.detach().masked_fill(~mask, 0.0)
        loss = loss + beta * kl_estimate(now, reference, kl)
    if (over := ~(loss.detach().abs() <= limit)).any():
        row, place = over.nonzero()[0].tolist()
        from_reference = also = ""
        if beta and log_ref is not None:
            from_reference, also = f", log_ref {log_ref[row, place].item():.3g}", " or beta"
        raise ValueError(
            f"the loss of token [{row}, {place}] overflows: its log_p is "
            f"{log_p[row, place].item():.3g}, log_old {old[row, place].item():.3g}"
            f"{from_reference}, and its advantage {worth[row, 0].item():.3g}; make fewer updates "
            f"with one batch, mask the token, or scale rewards{also} down"
        )
    return aggregate(loss, mask, variant, max_length)


def _moved(
    log_p: Float[Tensor, "R T"], log_old: Float[Tensor, "R T"], mask: Bool[Tensor, "R T"]
) -> Float[Tensor, "R T"]:
    """Return ``log_p - log_old`` where there is a token, and 0 elsewhere; refuse NaN."""
    # Where nothing is, nothing can overflow either: inf times a zero gradient is NaN.
    moved = (log_p - log_old).masked_fill(~mask, 0.0)
    if (nan := moved.isnan()).any():
        raise ValueError(
            f"{first('log_p', log_p, nan)} and {first('log_old', log_old, nan)}; "
            "give log-probabilities of tokens that can be sampled"
        )
    return moved


def _policy_losses(
    log_p: Float[Tensor, "R T"],
    moved: Float[Tensor, "R T"],
    worth: Float[Tensor, "R 1"],
    mask: Bool[Tensor, "R T"],
    variant: Variant,
    clip: tuple[float, float],
) -> Float[Tensor, "R T"]:
    """Return what each token loses, without the pull towards a reference.

    ``moved`` is the logarithm of the ratio, ``worth`` the advantage.
    """
    low, high = clip
    # Above its clip a ratio has no influence where the output was good, and might overflow.
    ceiling = math.log1p(high) + 1
    if variant == "cispo":
        weight = moved.detach().clamp(max=ceiling).exp().clamp(1 - low, 1 + high)
        return -weight * worth * log_p
    if variant == "gspo":
        moved = _of_outputs(moved, mask)
    ratio = torch.where(worth < 0, moved, moved.clamp(max=ceiling)).exp()
    return -torch.minimum(ratio * worth, ratio.clamp(1 - low, 1 + high) * worth)


def _of_outputs(moved: Float[Tensor, "R T"], mask: Bool[Tensor, "R T"]) -> Float[Tensor, "R T"]:
    """Return for each token the mean of ``moved`` over the tokens of its output."""
    mean = moved.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return mean.expand_as(moved)


# --- the policy --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rollouts:
    """P problems and G outputs for each: what was asked, answered and earned in one step.

    ``sequences`` are P · G tensors of tokens, a prompt of ``n_prompt`` tokens and an output each,
    problem after problem; ``texts`` are the outputs as text. ``rewards [P, G]`` float32,
    ``lengths [P, G]`` int64 in tokens of output, the end token included, and ``ended [P, G]`` bool,
    false for an output that was truncated.
    """

    problems: list[Problem]
    sequences: list[Int64[Tensor, "_"]]
    n_prompt: list[int]
    texts: list[str]
    rewards: Real[Tensor, "P G"]
    lengths: Int64[Tensor, "P G"]
    ended: Bool[Tensor, "P G"]

    @property
    def tokens(self) -> int:
        """Tokens of all prompts and outputs: what the model had to read or write."""
        return sum(len(sequence) for sequence in self.sequences)


def sample_rollouts(
    model: DecoderLM, task: Task, reward: Reward, config: "GRPOConfig", generator: torch.Generator
) -> Rollouts:
    """Let ``model`` answer ``config.n_problems`` new problems ``config.n_rollouts`` times each.

    It samples at temperature 1, where the probability of an output is what the model says it is.
    An output that has not ended after ``config.max_new_tokens`` tokens is truncated. It gets what
    ``reward`` gives for its text, like any other.
    """
    problems = [task.sample(generator) for _ in range(config.n_problems)]
    answers = sample_answers(
        model,
        task,
        problems,
        samples=config.n_rollouts,
        max_new_tokens=config.max_new_tokens,
        generator=generator,
    )
    rewards = [float(reward(answer.problem, answer.text)) for answer in answers]
    shape = (config.n_problems, config.n_rollouts)
    return Rollouts(
        problems=problems,
        sequences=[torch.cat([answer.prompt, answer.output]) for answer in answers],
        n_prompt=[len(answer.prompt) for answer in answers],
        texts=[answer.text for answer in answers],
        rewards=torch.tensor(rewards, dtype=torch.float32).view(shape),
        lengths=torch.tensor([len(answer.output) for answer in answers]).view(shape),
        ended=torch.tensor([int(answer.output[-1]) == task.end for answer in answers]).view(shape),
    )


# --- the loop ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class GRPOConfig:
    """How many problems, how many answers to each, and how fast to learn from them.

    A step asks ``n_problems`` problems ``n_rollouts`` times each and makes ``n_updates`` updates
    with the answers. In the first the ratio is 1 and nothing can be clipped.

    ``variant`` names the objective, with what its paper changes. ``scale=None`` divides advantages
    by the standard deviation of their group, but for ``"dr_grpo"``. ``epsilon_low=None`` is 3e-4
    for ``"gspo"``, 1 for ``"cispo"``, which sets no lower bound, and 0.2 for the others;
    ``epsilon_high=None`` is 4e-4, 4 (ScaleRL, arXiv 2510.13786), 0.28 for ``"dapo"``, and
    ``epsilon_low`` for the others. ``beta`` and ``kl`` are the pull towards a
    reference model. With ``mask_truncated`` an output that did not end teaches nothing, though its
    reward counts in its group (DAPO's overlong filtering, arXiv 2503.14476, §3.4).

    Groups whose rewards are all equal are left out, and so are truncated outputs if they are
    masked: means are over what is left. Equal groups would have no gradient but for ``beta``, so
    that leaving them out makes it longer and keeps its direction. DAPO samples on until the batch
    is full (eq. 11); here it becomes smaller, and a step may have nothing to learn from.

    The optimizer is AdamW without weight decay. Its rate climbs for ``warmup`` steps and falls in a
    line over the whole run, to the share ``final`` of ``learning_rate``. Gradients are cut to norm
    ``clip``. With ``max_flops`` the run ends after the step that has used them up, and the rate
    falls with the share of them that is spent, if that is more than the share of ``steps``.

    Raises ``ValueError`` for a value that cannot be meant.
    """

    steps: int
    n_problems: int = 16
    n_rollouts: int = 16
    max_new_tokens: int = 80
    n_updates: int = 1
    variant: Variant = "dapo"
    scale: Scale | None = None
    epsilon_low: float | None = None
    epsilon_high: float | None = None
    beta: float = 0.0
    kl: KL = "k3"
    mask_truncated: bool = False
    learning_rate: float = 2e-3
    warmup: int = 5
    final: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    max_flops: float | None = None

    def __post_init__(self) -> None:
        """Check each value."""
        require.fields(
            self,
            at_least_1=("steps", "n_problems", "max_new_tokens", "n_updates"),
            above_0=("learning_rate", "clip", "max_flops"),
            shares=("final",),
        )
        require.counts(least=0, warmup=self.warmup)
        if require.whole("n_rollouts", self.n_rollouts, 1) < 2:
            raise ValueError(
                f"n_rollouts is {self.n_rollouts}; give at least 2, to compare them with each other"
            )
        require.one_of(get_args(Variant), variant=self.variant)
        require.one_of(get_args(Scale), scale=self.advantage_scale)
        require.one_of(get_args(KL), kl=self.kl)
        _check_settings(self.lower_epsilon, self.upper_epsilon, self.beta)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}; give two shares, each below 1")

    @property
    def advantage_scale(self) -> Scale:
        """What ``scale`` comes to with this ``variant``."""
        return self.scale or ("none" if self.variant == "dr_grpo" else "group")

    @property
    def lower_epsilon(self) -> float:
        """What ``epsilon_low`` comes to with this ``variant``."""
        if self.epsilon_low is not None:
            return self.epsilon_low
        return {"gspo": 3e-4, "cispo": 1.0}.get(self.variant, 0.2)

    @property
    def upper_epsilon(self) -> float:
        """What ``epsilon_high`` comes to with this ``variant``."""
        if self.epsilon_high is not None:
            return self.epsilon_high
        return {"dapo": 0.28, "gspo": 4e-4, "cispo": 4.0}.get(self.variant, self.lower_epsilon)

    def rate(self, step: int, flops: float = 0.0) -> float:
        """Return the learning rate of ``step``, counted from 0, as a share of its peak.

        ``flops`` is what was spent before it.
        """
        spent = max(step / self.steps, flops / self.max_flops if self.max_flops else 0.0)
        rising = (step + 1) / (self.warmup + 1)
        return min(1.0, rising, self.final + (1 - self.final) * (1 - spent))


@dataclass(frozen=True)
class GRPOStep:
    """What happened in one step.

    ``reward`` is the mean over all rollouts and ``length`` that of their tokens. ``truncated`` is
    the share that did not end, ``equal`` the share of groups whose rewards are all equal.
    ``loss``, ``kl`` (nats per token, from ``config.kl``) and ``clipped`` (the share of tokens whose
    gradient the clip takes away; with ``"cispo"``, whose weight it changes) are means over the
    updates; ``None`` where there was nothing to learn from or no reference.
    ``tokens_sampled`` and ``tokens_trained`` count prompts and outputs, not padding, the latter
    once for each update. ``flops`` are those of this step, ``seconds`` its CPU seconds without
    ``on_step``.
    """

    step: int
    reward: float
    length: float
    truncated: float
    equal: float
    loss: float | None
    kl: float | None
    clipped: float | None
    tokens_sampled: int
    tokens_trained: int
    flops: float
    seconds: float


@dataclass
class GRPOHistory:
    """The steps of a run, in their order."""

    steps: list[GRPOStep] = field(default_factory=list)

    @property
    def rewards(self) -> list[float]:
        """Mean reward of each step."""
        return [step.reward for step in self.steps]

    @property
    def lengths(self) -> list[float]:
        """Mean tokens of output of each step."""
        return [step.length for step in self.steps]

    @property
    def equal(self) -> list[float]:
        """Share of groups without variance in each step."""
        return [step.equal for step in self.steps]

    @property
    def tokens_sampled(self) -> int:
        """Tokens of all prompts and outputs that were sampled."""
        return sum(step.tokens_sampled for step in self.steps)

    @property
    def tokens_trained(self) -> int:
        """Tokens of all prompts and outputs that were learned from, once for each update."""
        return sum(step.tokens_trained for step in self.steps)

    @property
    def flops(self) -> float:
        """2 N per token sampled, 6 N per token trained, 2 N per token that a reference scored."""
        return sum(step.flops for step in self.steps)

    @property
    def seconds(self) -> float:
        """CPU seconds of all steps."""
        return sum(step.seconds for step in self.steps)


def train_grpo(
    model: DecoderLM,
    task: Task,
    reward: Reward,
    config: GRPOConfig,
    *,
    seed: int = 0,
    reference: DecoderLM | None = None,
    optimizers: Sequence[torch.optim.Optimizer] | None = None,
    on_step: Callable[[GRPOStep, Rollouts], None] | None = None,
    progress: bool = True,
) -> GRPOHistory:
    """Train ``model`` to earn more ``reward`` on problems of ``task``.

    ``seed`` fixes the problems and what is sampled, and nothing else is random. ``reference`` is
    the model that ``config.beta`` pulls towards, usually a copy of what ``model`` was; without
    ``beta`` its distance is only measured. ``optimizers`` move the weights in place of AdamW, at
    rates of their own that ``config.rate`` scales. ``on_step`` is called when the weights have
    moved, with what happened and with the rollouts it happened to, for a figure that grows. A bar
    shows the step, the reward and the length; ``progress=False`` hides it.

    Ctrl-C stops between two operations: the model keeps what it has learned, and what ``on_step``
    has collected stays. Raises ``ValueError`` when there is nothing to train, gradients are
    switched off, the weights are float16, ``beta`` has no reference or as `grpo_loss` does, and
    ``FloatingPointError`` when the loss or a gradient is not finite; no weight has moved by it.
    """
    if config.beta and reference is None:
        raise ValueError(f"beta is {config.beta} but reference is None; pass a copy of the model")
    weights = [p for p in model.parameters() if p.requires_grad]
    check_learning(weights)
    optimizers = optimizers or [_adamw(weights, config)]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    n_active = sizes.count_parameters(model.config.sizes()).active_without_embedding
    generator = torch.Generator().manual_seed(seed)
    history = GRPOHistory()
    shown = progress_bar(config.steps, "steps", f"{config.steps:,} steps", progress)
    with _in_train_mode(model), _rates_back(groups) as peaks, shown as bar:
        for step in range(config.steps):
            if config.max_flops and history.flops >= config.max_flops:
                break
            started = time.process_time()
            for group, peak in zip(groups, peaks, strict=True):
                group["lr"] = peak * config.rate(step, history.flops)
            rollouts = sample_rollouts(model, task, reward, config, generator)
            update = _learn(model, optimizers, rollouts, config, reference, step)
            seconds = time.process_time() - started
            done = _record(step, rollouts, update, n_active, seconds)
            history.steps.append(done)
            if on_step:
                on_step(done, rollouts)
            length = f"{done.length:.1f}"
            bar.set_postfix(reward=f"{done.reward:.2f}", length=length, refresh=False)
            bar.update()
    return history


@contextmanager
def _rates_back(groups: list[dict[str, Any]]) -> Iterator[list[float]]:
    """Tell the rates of the groups, and give them back: the optimizers may be the caller's."""
    rates = [group["lr"] for group in groups]
    try:
        yield rates
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


@contextmanager
def _in_train_mode(model: DecoderLM) -> Iterator[None]:
    """Put ``model`` in training mode, and each of its modules back in its own afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class _Update(NamedTuple):
    """Means over the updates of one batch, and the tokens that went through the models for it."""

    loss: float | None = None
    kl: float | None = None
    clipped: float | None = None
    tokens_trained: int = 0
    tokens_referred: int = 0


def _learn(
    model: DecoderLM,
    optimizers: Sequence[torch.optim.Optimizer],
    rollouts: Rollouts,
    config: GRPOConfig,
    reference: DecoderLM | None,
    step: int,
) -> _Update:
    """Make ``config.n_updates`` updates with the rollouts that teach something."""
    rows, advantages = worth_learning(rollouts, config)
    if not rows:
        return _Update()
    sequences = [rollouts.sequences[row] for row in rows]
    n_prompt = [rollouts.n_prompt[row] for row in rows]
    with torch.no_grad():
        log_ref = (
            None
            if reference is None
            else token_log_probs(in_eval_mode(reference), sequences, n_prompt)[0]
        )
    log_old: Tensor | None = None
    losses, distances, shares = [], [], []
    for _ in range(config.n_updates):
        log_p, mask = token_log_probs(model, sequences, n_prompt)
        # Nothing has moved before the first update, so these are the old log-probabilities.
        log_old = log_p.detach() if log_old is None else log_old
        loss = grpo_loss(
            log_p,
            advantages,
            mask,
            log_old=log_old,
            log_ref=log_ref,
            variant=config.variant,
            epsilon_low=config.lower_epsilon,
            epsilon_high=config.upper_epsilon,
            beta=config.beta,
            kl=config.kl,
            max_length=config.max_new_tokens,
        )
        losses.append(finite_number("loss", loss, step))
        _move(model, optimizers, loss, config.clip, step)
        shares.append(_share_clipped(log_p.detach() - log_old, advantages, mask, config))
        if log_ref is not None:
            distances.append(kl_estimate(log_p.detach(), log_ref, config.kl)[mask].mean().item())
    n_tokens = sum(len(sequence) for sequence in sequences)
    return _Update(
        loss=fmean(losses),
        kl=fmean(distances) if distances else None,
        clipped=fmean(shares),
        tokens_trained=n_tokens * config.n_updates,
        tokens_referred=0 if reference is None else n_tokens,
    )


def _share_clipped(
    moved: Float[Tensor, "R T"],
    advantages: Float[Tensor, "R"],
    mask: Bool[Tensor, "R T"],
    config: GRPOConfig,
) -> float:
    """Return the share of tokens at which the clip of ``config.variant`` does something."""
    low, high = config.lower_epsilon, config.upper_epsilon
    if config.variant == "gspo":
        moved = _of_outputs(moved, mask)
    ratio = moved.exp()
    if config.variant == "cispo":
        cut = (ratio < 1 - low) | (ratio > 1 + high)
    else:
        cut = clipped(ratio, advantages[:, None], low, high)
    return cut[mask].float().mean().item()


def _adamw(weights: list[nn.Parameter], config: GRPOConfig) -> torch.optim.Optimizer:
    rate, betas = config.learning_rate, config.betas
    return torch.optim.AdamW(weights, lr=rate, betas=betas, weight_decay=0.0, fused=True)


def _move(
    model: DecoderLM,
    optimizers: Sequence[torch.optim.Optimizer],
    loss: Tensor,
    clip: float,
    step: int,
) -> None:
    """Move the weights down the gradient of ``loss``, cut to norm ``clip``."""
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    weights = [p for p in model.parameters() if p.requires_grad]
    norm = nn.utils.clip_grad_norm_(weights, clip)
    finite_number("norm of the gradient", norm, step)
    for optimizer in optimizers:
        optimizer.step()


def worth_learning(
    rollouts: Rollouts, config: GRPOConfig
) -> tuple[list[int], Float32[Tensor, "rows"]]:
    """Return which rollouts teach something, as rows of ``sequences``, and their advantages."""
    rewards = rollouts.rewards
    advantages = group_advantages(rewards, scale=config.advantage_scale)
    keep = ~all_equal(rewards)[:, None].expand_as(rewards)
    if config.mask_truncated:
        keep = keep & rollouts.ended
    rows: list[int] = keep.flatten().nonzero().flatten().tolist()
    return rows, advantages.flatten()[rows]


# --- details -----------------------------------------------------------------------------------


def _record(
    step: int, rollouts: Rollouts, update: _Update, n_active: int, seconds: float
) -> GRPOStep:
    forward = rollouts.tokens + update.tokens_referred
    return GRPOStep(
        step=step,
        reward=rollouts.rewards.mean().item(),
        length=rollouts.lengths.float().mean().item(),
        truncated=1 - rollouts.ended.float().mean().item(),
        equal=all_equal(rollouts.rewards).float().mean().item(),
        loss=update.loss,
        kl=update.kl,
        clipped=update.clipped,
        tokens_sampled=rollouts.tokens,
        tokens_trained=update.tokens_trained,
        flops=2.0 * n_active * forward + 6.0 * n_active * update.tokens_trained,
        seconds=seconds,
    )


def _as_floats(rewards: Shaped[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """Return rewards in at least float32; ``ValueError`` unless they are finite and fit in it."""
    if rewards.is_complex():
        raise ValueError(f"rewards has dtype {rewards.dtype}; pass numbers")
    if not rewards.is_floating_point() and bool((large := rewards.double().abs() > 2**24).any()):
        raise ValueError(
            f"a reward is {rewards[large][0].item()}; float32 does not hold all integers beyond "
            "2**24, pass them with .double()"
        )
    if not bool(rewards.isfinite().all()):
        bad = rewards[~rewards.isfinite()][0].item()
        raise ValueError(f"a reward is {bad}; each must be finite")
    return at_least_float32(rewards)


def _check_settings(epsilon_low: float, epsilon_high: float, beta: float) -> None:
    if not 0 <= epsilon_low <= 1 or not 0 <= epsilon_high < math.inf:
        raise ValueError(
            f"epsilon_low is {epsilon_low} and epsilon_high {epsilon_high}; "
            "give how far a ratio may fall, at most 1, and rise, such as 0.2 and 0.28"
        )
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta is {beta}; give 0 or a small positive number")


def _check_batch(
    log_p: Tensor,
    advantages: Tensor,
    mask: Tensor,
    log_old: Tensor | None,
    log_ref: Tensor | None,
) -> None:
    check_shapes(
        "pass [outputs, tokens], [outputs], [outputs, tokens], and if any [outputs, tokens] twice",
        log_p=log_p,
        advantages=advantages,
        mask=mask,
        log_old=log_old,
        log_ref=log_ref,
    )
    for name, tensor in (("log_p", log_p), ("log_old", log_old), ("log_ref", log_ref)):
        if tensor is not None:
            real(name, tensor)
    if advantages.is_complex() or not advantages.isfinite().all():
        raise ValueError(
            f"advantages hold {advantages[~advantages.isfinite()].tolist()[:1]} in "
            f"{advantages.dtype}; each must be a finite number"
        )
    if mask.dtype != torch.bool:
        raise ValueError(f"mask has dtype {mask.dtype}; pass bool, True where there is a token")
