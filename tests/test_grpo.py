"""GRPO: advantages, the clipped objective, three estimates of a divergence, and the loop.

The loss is compared with TRL's on the same tensors, with plain Python that goes from token to
token, and with an example done by hand.
"""

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from slingshot import completions, grpo, sizes
from slingshot.completions import token_log_probs
from slingshot.grpo import (
    KL,
    GRPOConfig,
    GRPOHistory,
    GRPOStep,
    Rollouts,
    Variant,
    aggregate,
    all_equal,
    clipped,
    group_advantages,
    grpo_loss,
    kl_estimate,
    sample_rollouts,
    train_grpo,
    worth_learning,
)
from slingshot.lm import DecoderLM, LMConfig
from slingshot.tasks import Problem, ShellGame
from slingshot.train import TrainConfig, make_optimizers

VARIANTS: tuple[Variant, ...] = get_args(Variant)
KINDS: tuple[KL, ...] = ("k1", "k2", "k3")

repeatable = settings(derandomize=True, deadline=None, max_examples=60)

# --- advantages --------------------------------------------------------------------------------


def test_one_right_answer_of_four_is_worth_this_much() -> None:
    # The mean is 1/4 and the squares add up to 9/16 + 3/16 = 3/4: divided by 3 that is a deviation
    # of 1/2, divided by 4 one of sqrt(3)/4.
    rewards = torch.tensor([[1.0, 0, 0, 0]])
    above = torch.tensor([[0.75, -0.25, -0.25, -0.25]])
    for correction, deviation in ((1, 0.5), (0, math.sqrt(3) / 4)):
        found = group_advantages(rewards, correction=correction)
        torch.testing.assert_close(found, above / (deviation + 1e-4))
    torch.testing.assert_close(group_advantages(rewards, scale="none"), above)


@pytest.mark.parametrize(
    ("correction", "deviation"), [(0, statistics.pstdev), (1, statistics.stdev)]
)
@repeatable
@given(groups=st.lists(st.lists(st.integers(-5, 5), min_size=4, max_size=4), max_size=5))
def test_advantages_are_standard_scores_of_each_group(
    correction: int, deviation: Callable[[list[int]], float], groups: list[list[int]]
) -> None:
    advantages = group_advantages(
        torch.tensor(groups, dtype=torch.float64).view(-1, 4), correction=correction, eps=0.01
    )
    by_hand = [
        [(r - statistics.fmean(group)) / (deviation(group) + 0.01) for r in group]
        for group in groups
    ]
    torch.testing.assert_close(advantages, torch.tensor(by_hand, dtype=torch.float64).view(-1, 4))


@repeatable
@given(value=st.floats(-1e3, 1e3, width=32), size=st.integers(2, 40))
@pytest.mark.parametrize("scale", ["group", "none"])
def test_a_group_of_equal_rewards_teaches_exactly_nothing(
    scale: Any,  # noqa: ANN401
    value: float,
    size: int,
) -> None:
    rewards = torch.full((2, size), value)
    rewards[1, 0] += 1  # its neighbor still learns
    advantages = group_advantages(rewards, scale=scale, eps=0.0)
    assert not advantages[0].any()
    assert advantages[1].all()
    assert all_equal(rewards).tolist() == [True, False]


def test_no_problems_have_no_advantages() -> None:
    assert group_advantages(torch.zeros(0, 8)).shape == (0, 8)
    assert all_equal(torch.zeros(0, 8)).shape == (0,)


def test_rewards_may_be_right_or_wrong() -> None:
    verdicts = torch.tensor([[True, False, False]])
    assert torch.equal(group_advantages(verdicts), group_advantages(verdicts.float()))
    assert torch.equal(group_advantages(verdicts.int()), group_advantages(verdicts.float()))


@pytest.mark.parametrize(
    ("rewards", "changes", "message"),
    [
        (
            torch.zeros(3, 0),
            {},
            r"rewards has shape \(3, 0\); pass \[problems, outputs\] with at l",
        ),
        (torch.zeros(3, 1), {}, r"rewards has shape \(3, 1\).* a group of one has nothing to comp"),
        (torch.zeros(4), {}, r"rewards has shape \(4,\); pass \[problems, outputs\]"),
        (torch.tensor([[0, math.nan]]), {}, "a reward is nan; each must be finite"),
        (torch.tensor([[-math.inf, 0]]), {}, "a reward is -inf; each must be finite"),
        (torch.zeros(1, 2), {"scale": "batch"}, "scale 'batch' is unknown; use group or none"),
        (torch.zeros(1, 2), {"correction": 2}, "correction is 2 and eps 0.0001; give 0 or 1, and"),
        (torch.zeros(1, 2), {"eps": -1.0}, "correction is 1 and eps -1.0; give 0 or 1, and 0 or a"),
    ],
)
def test_rewards_that_make_no_groups_are_named(
    rewards: Tensor, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        group_advantages(rewards, **changes)


# --- the loss, by hand and token by token ------------------------------------------------------


def by_hand() -> dict[str, Any]:
    """Two outputs, the better of two tokens, the worse of one; what is padded is nonsense."""
    ratio = torch.tensor([[1.5, 1.0], [0.5, 7.0]])
    log_old = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
    return {
        "log_p": log_old + ratio.log(),
        "advantages": torch.tensor([1.0, -1.0]),
        "mask": torch.tensor([[True, True], [True, False]]),
        "log_old": log_old,
    }


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        # min(1.5, 1.2) = 1.2 and min(1, 1) = 1; min(-0.5, -0.8) = -0.8.
        ("paper", -((1.2 + 1) / 2 - 0.8) / 2),
        ("dapo", -(1.2 + 1 - 0.8) / 3),
        ("dr_grpo", -(1.2 + 1 - 0.8) / (2 * 5)),
        # The root of 1.5 is 1.2247, cut to 1.2; the other output has one token.
        ("gspo", -(1.2 - 0.8) / 2),
        # Weights 1.2, 1 and 0.8 on log-probabilities -1 + log 1.5, -2 and -3 + log 0.5.
        ("cispo", -(1.2 * (math.log(1.5) - 1) - 2 - 0.8 * (math.log(0.5) - 3)) / 3),
    ],
)
def test_an_example_by_hand(variant: Variant, expected: float) -> None:
    loss = grpo_loss(**by_hand(), variant=variant, max_length=5)
    assert loss.item() == pytest.approx(expected)


def test_a_higher_clip_lets_a_good_token_rise_further() -> None:
    loss = grpo_loss(**by_hand(), variant="dapo", epsilon_high=0.28)
    assert loss.item() == pytest.approx(-(1.28 + 1 - 0.8) / 3)
    loss = grpo_loss(**by_hand(), variant="dapo", epsilon_low=0.3)
    assert loss.item() == pytest.approx(-(1.2 + 1 - 0.7) / 3)


def test_a_reference_adds_its_estimate() -> None:
    batch = by_hand()
    # The reference finds the first token twice as likely, and agrees about the others.
    log_ref = batch["log_p"] + torch.tensor([[math.log(2), 0], [0, 9.0]])
    distances: dict[KL, float] = {
        "k1": -math.log(2),
        "k2": math.log(2) ** 2 / 2,
        "k3": 2 - math.log(2) - 1,
    }
    for kl, distance in distances.items():
        loss = grpo_loss(**batch, log_ref=log_ref, beta=0.5, kl=kl, variant="paper")
        assert loss.item() == pytest.approx(-0.15 + 0.5 * distance / 2 / 2)


def make_batch(seed: int, rows: int = 6, places: int = 7) -> dict[str, Any]:
    """Random outputs of 0 to ``places`` tokens in float64, ratios on both sides of a clip."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    log_old = -normal(rows, places).abs()
    lengths = torch.randint(1, places + 1, (rows,), generator=draw)
    lengths[seed % rows] = 0
    return {
        "log_p": (log_old + 0.3 * normal(rows, places)).requires_grad_(),
        "advantages": normal(rows),
        "mask": torch.arange(places) < lengths[:, None],
        "log_old": log_old,
        "log_ref": log_old + 0.3 * normal(rows, places),
    }


def token_by_token(
    batch: dict[str, Any], variant: str, low: float, high: float, beta: float, max_length: int
) -> float:
    """The loss as the papers write it, with Python's numbers."""
    rows: list[list[float]] = []
    for row in range(len(batch["advantages"])):
        worth, gains = batch["advantages"][row].item(), list[float]()
        places = [place for place in range(batch["mask"].shape[1]) if batch["mask"][row, place]]
        tokens = [
            [batch[name][row, place].item() for name in ("log_p", "log_old", "log_ref")]
            for place in places
        ]
        of_output = math.prod(math.exp(now - old) for now, old, _ in tokens)
        for now, old, ref in tokens:
            ratio = math.exp(now) / math.exp(old)
            if variant == "gspo":
                ratio = of_output ** (1 / len(tokens))
            near = min(max(ratio, 1 - low), 1 + high)
            gain = near * worth * now if variant == "cispo" else min(ratio * worth, near * worth)
            k3 = math.exp(ref) / math.exp(now) - math.log(math.exp(ref) / math.exp(now)) - 1
            gains.append(gain - beta * k3)
        rows.append(gains)
    if variant in ("paper", "gspo"):
        return -statistics.fmean(sum(gains) / max(1, len(gains)) for gains in rows)
    if variant in ("dapo", "cispo"):
        return -statistics.fmean(itertools.chain(*rows))
    return -sum(itertools.chain(*rows)) / (len(rows) * max_length)


@repeatable
@given(
    seed=st.integers(0, 10**6), low=st.floats(0, 0.9), high=st.floats(0, 2), beta=st.floats(0, 1)
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loss_is_that_of_one_token_after_another(
    variant: Variant, seed: int, low: float, high: float, beta: float
) -> None:
    batch = make_batch(seed)
    loss = grpo_loss(
        **batch, variant=variant, epsilon_low=low, epsilon_high=high, beta=beta, max_length=9
    )
    expected = token_by_token(batch, variant, low, high, beta, 9)
    # About 100 terms of size 10 or less: float64 leaves 1e-13 of them.
    assert loss.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


# --- the loss against TRL ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def trl() -> Any:  # noqa: ANN401
    """TRL's trainer of GRPO; its import takes seconds, so only these tests pay for it."""
    from trl.trainer import grpo_trainer

    return grpo_trainer


def trl_loss(
    trl: Any,  # noqa: ANN401
    batch: dict[str, Any],
    loss_type: str,
    *,
    epsilon_low: float,
    epsilon_high: float,
    beta: float,
    max_length: int,
    level: str = "token",
) -> Tensor:
    """Call the loss of TRL's trainer on an object that has nothing but what the loss looks at."""

    class Trainer(trl.GRPOTrainer):  # type: ignore[misc]
        def __init__(self) -> None:
            self.loss_type, self.beta = loss_type, beta
            self.epsilon_low, self.epsilon_high = epsilon_low, epsilon_high
            self.max_completion_length = max_length
            self.args = SimpleNamespace(
                use_bias_correction_kl=False, delta=None, steps_per_generation=1
            )
            self.model = SimpleNamespace(training=True)
            self.accelerator = SimpleNamespace(
                num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
            )
            self.importance_sampling_level = level
            self.current_gradient_accumulation_steps = 1
            self.top_entropy_quantile = 1.0
            self.off_policy_mask_threshold = None
            self.aux_loss_enabled = self.use_vllm = self._entropy_bonus_enabled = False
            self._metrics: Any = {"train": defaultdict(list)}

        def _get_per_token_logps_and_entropies(
            self, *args: object, **options: object
        ) -> tuple[Tensor, Tensor, None]:
            return batch["log_p"], torch.zeros_like(batch["log_p"]), None

    mask = batch["mask"].int()
    inputs = {
        "prompt_ids": torch.zeros(len(mask), 1),
        "prompt_mask": torch.ones(len(mask), 1),
        "completion_ids": torch.zeros_like(mask),
        "completion_mask": mask,
        "advantages": batch["advantages"],
        "old_per_token_logps": batch["log_old"],
        "ref_per_token_logps": batch["log_ref"],
        "num_items_in_batch": mask.sum(),
    }
    loss: Tensor = Trainer()._compute_loss(None, inputs)
    return loss


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("epsilons", [(0.2, 0.2), (0.2, 0.28), (0.05, 0.6)])
@pytest.mark.parametrize(
    ("loss_type", "variant"),
    [("grpo", "paper"), ("dapo", "dapo"), ("bnpo", "dapo"), ("dr_grpo", "dr_grpo")],
)
def test_loss_and_gradient_are_those_of_trl(
    trl: Any,  # noqa: ANN401
    loss_type: str,
    variant: Variant,
    epsilons: tuple[float, float],
    beta: float,
    seed: int,
) -> None:
    batch = make_batch(seed)
    options: dict[str, Any] = {
        "epsilon_low": epsilons[0],
        "epsilon_high": epsilons[1],
        "beta": beta,
        "max_length": 9,
    }
    theirs = trl_loss(trl, batch, loss_type, **options)
    ours = grpo_loss(**batch, variant=variant, **options)
    torch.testing.assert_close(ours, theirs)
    (expected,) = torch.autograd.grad(theirs, batch["log_p"])
    (found,) = torch.autograd.grad(ours, batch["log_p"])
    torch.testing.assert_close(found, expected)
    assert expected.count_nonzero() > 5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize(
    ("loss_type", "level", "variant", "low", "high"),
    [
        ("grpo", "sequence", "gspo", 0.03, 0.04),
        ("grpo", "sequence", "gspo", 0.1, 0.15),
        # TRL's CISPO has no lower bound, and names the upper one itself.
        ("cispo", "token", "cispo", 1.0, 4.0),
        ("cispo", "token", "cispo", 1.0, 0.2),
    ],
)
def test_later_objectives_are_those_of_trl(
    trl: Any,  # noqa: ANN401
    loss_type: str,
    level: str,
    variant: Variant,
    low: float,
    high: float,
    moved: bool,
    seed: int,
) -> None:
    batch = make_batch(seed) | ({} if moved else {"log_old": None})
    upper = 1 + high if loss_type == "cispo" else high
    options: dict[str, Any] = {"epsilon_low": low, "beta": 0.0}
    theirs = trl_loss(
        trl, batch, loss_type, **options, epsilon_high=upper, max_length=9, level=level
    )
    ours = grpo_loss(**batch, variant=variant, **options, epsilon_high=high)
    torch.testing.assert_close(ours, theirs)
    expected, found = (torch.autograd.grad(loss, batch["log_p"])[0] for loss in (theirs, ours))
    torch.testing.assert_close(found, expected)
    assert found.any()


def test_without_old_log_probabilities_the_loss_is_that_of_trl(trl: Any) -> None:  # noqa: ANN401
    batch = make_batch(1) | {"log_old": None}
    options: dict[str, Any] = {"epsilon_low": 0.2, "epsilon_high": 0.2, "beta": 0.1}
    theirs = trl_loss(trl, batch, "grpo", **options, max_length=9)
    ours = grpo_loss(**batch, variant="paper", **options)
    torch.testing.assert_close(ours, theirs)
    expected, found = (torch.autograd.grad(loss, batch["log_p"])[0] for loss in (theirs, ours))
    torch.testing.assert_close(found, expected)


def test_the_deviation_of_a_group_is_that_of_trl(trl: Any) -> None:  # noqa: ANN401
    rewards = torch.rand(5, 8, generator=torch.Generator().manual_seed(0))
    deviation = trl.nanstd(rewards, dim=1)[:, None]
    expected = (rewards - rewards.mean(dim=1, keepdim=True)) / (deviation + 1e-4)
    torch.testing.assert_close(group_advantages(rewards), expected)


# --- what the parts of the loss do -------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "weights"),
    [
        ("paper", [[1 / 2 / 3] * 2 + [0, 0], [1 / 4 / 3] * 4, [0] * 4]),
        ("dapo", [[1 / 6] * 2 + [0, 0], [1 / 6] * 4, [0] * 4]),
        ("dr_grpo", [[1 / 3 / 10] * 2 + [0, 0], [1 / 3 / 10] * 4, [0] * 4]),
        ("gspo", [[1 / 3 / 2] * 2 + [0, 0], [1 / 3 / 4] * 4, [0] * 4]),
        ("cispo", [[1 / 6] * 2 + [0, 0], [1 / 6] * 4, [0] * 4]),
    ],
)
def test_how_much_each_token_weighs(variant: Variant, weights: list[list[float]]) -> None:
    values = torch.ones(3, 4, requires_grad=True)
    mask = torch.tensor([[True] * 2 + [False] * 2, [True] * 4, [False] * 4])
    total = aggregate(values, mask, variant, max_length=10)
    total.backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.tensor(weights))
    spoiled = values.detach().masked_fill(~mask, math.nan)
    assert aggregate(spoiled, mask, variant, max_length=10).item() == total.item()


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0), (2, 3)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_without_a_token_has_a_loss_of_zero(
    variant: Variant, shape: tuple[int, int]
) -> None:
    log_p = torch.full(shape, math.nan, requires_grad=True)
    loss = grpo_loss(
        log_p,
        torch.ones(shape[0]),
        torch.zeros(shape, dtype=torch.bool),
        log_ref=torch.zeros(shape),
        beta=1.0,
        variant=variant,
        max_length=3,
    )
    assert loss.item() == 0
    loss.backward()  # type: ignore[no-untyped-call]
    assert log_p.grad is not None
    assert not log_p.grad.any()


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf, 1e4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_padded_has_no_influence(variant: Variant, nonsense: float) -> None:
    batch = make_batch(3)
    options: dict[str, Any] = {"variant": variant, "beta": 0.3, "max_length": 9}
    loss = grpo_loss(**batch, **options)
    (expected,) = torch.autograd.grad(loss, batch["log_p"])
    outside = ~batch["mask"]
    spoiled = batch | {
        name: batch[name].detach().masked_fill(outside, nonsense)
        for name in ("log_p", "log_old", "log_ref")
    }
    spoiled["log_p"].requires_grad_()
    again = grpo_loss(**spoiled, **options)
    assert again.item() == loss.item()
    (found,) = torch.autograd.grad(again, spoiled["log_p"])
    assert torch.equal(found, expected)


@repeatable
@given(seed=st.integers(0, 10**6))
def test_a_token_has_no_gradient_exactly_where_it_is_clipped(seed: int) -> None:
    batch = make_batch(seed)
    loss = grpo_loss(**batch | {"log_ref": None}, epsilon_low=0.1, epsilon_high=0.3)
    (gradient,) = torch.autograd.grad(loss, batch["log_p"])
    ratio = (batch["log_p"] - batch["log_old"]).detach().exp()
    cut = clipped(ratio, batch["advantages"][:, None], 0.1, 0.3)
    assert torch.equal(gradient == 0, cut | ~batch["mask"])


@repeatable
@given(seed=st.integers(0, 10**6))
def test_an_output_is_clipped_as_a_whole(seed: int) -> None:
    batch = make_batch(seed) | {"log_ref": None}
    loss = grpo_loss(**batch, variant="gspo", epsilon_low=0.05, epsilon_high=0.1)
    (gradient,) = torch.autograd.grad(loss, batch["log_p"])
    moved = (batch["log_p"] - batch["log_old"]).detach() * batch["mask"]
    ratio = (moved.sum(dim=1) / batch["mask"].sum(dim=1).clamp(min=1)).exp()
    cut = clipped(ratio, batch["advantages"], 0.05, 0.1)
    assert torch.equal(gradient == 0, cut[:, None] | ~batch["mask"])


@repeatable
@given(seed=st.integers(0, 10**6))
def test_a_bounded_weight_takes_no_gradient_away(seed: int) -> None:
    batch = make_batch(seed) | {"log_ref": None}
    loss = grpo_loss(**batch, variant="cispo", epsilon_low=0.1, epsilon_high=0.3)
    (gradient,) = torch.autograd.grad(loss, batch["log_p"])
    weight = (batch["log_p"] - batch["log_old"]).detach().exp().clamp(0.9, 1.3)
    share = batch["mask"] / batch["mask"].sum()
    torch.testing.assert_close(gradient, -weight * batch["advantages"][:, None] * share)


@pytest.mark.parametrize("worth", [1.0, -1.0])
def test_a_ratio_that_overflows_has_a_bounded_weight(worth: float) -> None:
    log_p = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    log_old = torch.tensor([[-900.0, -2.0]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss = grpo_loss(
        log_p, torch.tensor([worth]), mask, log_old=log_old, variant="cispo", epsilon_high=4.0
    )
    assert loss.item() == pytest.approx(worth * (5 * 1 + 2) / 2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_before_the_model_moves_the_gradient_is_that_of_the_policy(
    variant: Variant, epsilon: float
) -> None:
    batch = make_batch(2) | {"log_old": None, "log_ref": None}
    loss = grpo_loss(
        **batch, variant=variant, max_length=9, epsilon_low=epsilon, epsilon_high=epsilon
    )
    plain = -batch["advantages"][:, None] * batch["log_p"]  # REINFORCE with a baseline
    expected = torch.autograd.grad(aggregate(plain, batch["mask"], variant, 9), batch["log_p"])[0]
    (found,) = torch.autograd.grad(loss, batch["log_p"])
    torch.testing.assert_close(found, expected)


def test_the_ratio_that_r1_prints_has_the_gradient_of_dr_grpo() -> None:
    batch = make_batch(4) | {"log_old": None, "log_ref": None}
    log_p, mask = batch["log_p"], batch["mask"]
    whole_output = ((log_p - log_p.detach()) * mask).sum(dim=1).exp()
    printed = -(whole_output * batch["advantages"]).mean()
    expected = torch.autograd.grad(printed, log_p)[0]
    found = torch.autograd.grad(grpo_loss(**batch, variant="dr_grpo", max_length=9), log_p)[0]
    torch.testing.assert_close(9 * found, expected)


@repeatable
@given(seed=st.integers(0, 10**6))
@pytest.mark.parametrize("variant", VARIANTS)
def test_leaving_out_what_is_worth_nothing_changes_only_the_length_of_the_gradient(
    variant: Variant, seed: int
) -> None:
    batch = make_batch(seed) | {"log_ref": None}
    batch["advantages"][1::2] = 0
    whole = grpo_loss(**batch, variant=variant, max_length=9)
    (all_rows,) = torch.autograd.grad(whole, batch["log_p"])
    kept = {name: value[::2] for name, value in batch.items() if value is not None}
    (some,) = torch.autograd.grad(grpo_loss(**kept, variant=variant, max_length=9), batch["log_p"])
    tokens = batch["mask"].sum() / batch["mask"][::2].sum()
    torch.testing.assert_close(some, all_rows * (tokens if variant in ("dapo", "cispo") else 2.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"log_p": torch.zeros(6)},
            r"log_p has shape \(6,\), advantages \(6,\), .*; pass \[outputs",
        ),
        ({"advantages": torch.zeros(5)}, r"log_p has shape \(6, 7\), advantages \(5,\), "),
        ({"mask": torch.ones(6, 7)}, "mask has dtype torch.float32; pass bool, True where there"),
        ({"mask": torch.ones(6, 1) > 0}, r"log_p has shape \(6, 7\), .* mask \(6, 1\), "),
        (
            {"log_old": torch.zeros(6)},
            r"log_p has shape \(6, 7\), .* log_old \(6,\) and log_ref ",
        ),
        (
            {"log_ref": torch.zeros(7)},
            r"log_p has shape \(6, 7\), .* and log_ref \(7,\); pass",
        ),
        ({"log_ref": None, "beta": 0.1}, "beta is 0.1 but log_ref is None; score the tokens with"),
        ({"epsilon_low": 1.1}, "epsilon_low is 1.1 and epsilon_high 0.2; give how far a ratio may"),
        ({"epsilon_high": math.nan}, "epsilon_low is 0.2 and epsilon_high nan; give how far"),
        ({"beta": -0.1}, "beta is -0.1; give 0 or a small positive number"),
        ({"variant": "ppo"}, "variant 'ppo' is unknown; use paper, dapo, dr_grpo, gspo or cispo"),
        ({"variant": "dr_grpo"}, "max_length is None; dr_grpo divides by it, give max_new_tokens"),
        ({"kl": "k4", "beta": 0.1}, "kind 'k4' is unknown; use k1, k2 or k3"),
    ],
)
def test_a_batch_that_does_not_fit_together_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grpo_loss(**make_batch(0) | changes)


# --- what the estimates estimate ---------------------------------------------------------------


def two_distributions() -> tuple[Tensor, Tensor]:
    """Scores of eight choices, and a reference's log-probabilities of them, in float64."""
    draw = torch.Generator().manual_seed(0)
    scores, reference = torch.randn(2, 8, generator=draw, dtype=torch.float64)
    return scores.requires_grad_(), reference.log_softmax(dim=0)


def divergence(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum()


def test_as_numbers_k1_and_k3_have_the_divergence_as_their_mean() -> None:
    scores, log_ref = two_distributions()
    log_p = scores.detach().log_softmax(dim=0)
    truth = divergence(log_p, log_ref).item()
    mean = {k: (log_p.exp() * kl_estimate(log_p, log_ref, k)).sum().item() for k in KINDS}
    assert mean["k1"] == pytest.approx(truth)
    assert mean["k3"] == pytest.approx(truth)
    assert abs(mean["k2"] - truth) > 0.01 * truth
    assert (kl_estimate(log_p, log_ref, "k1") < 0).any()
    for kind in ("k2", "k3"):
        assert (kl_estimate(log_p, log_ref, kind) >= 0).all()


def test_as_losses_each_has_a_gradient_of_its_own() -> None:
    scores, log_ref = two_distributions()
    log_p = scores.log_softmax(dim=0)
    # What samples of p give on average: how they were drawn carries no gradient.
    share = log_p.detach().exp()
    loss = {k: (share * kl_estimate(log_p, log_ref, k)).sum() for k in KINDS}
    gradient = {k: torch.autograd.grad(loss[k], scores, retain_graph=True)[0] for k in KINDS}
    forward, backward = divergence(log_p, log_ref), divergence(log_ref, log_p)
    (to_reference,) = torch.autograd.grad(forward, scores, retain_graph=True)
    (from_reference,) = torch.autograd.grad(backward, scores)
    torch.testing.assert_close(gradient["k1"], torch.zeros_like(scores))
    torch.testing.assert_close(gradient["k2"], to_reference)
    torch.testing.assert_close(gradient["k3"], from_reference)
    # The two are far from each other: k3 pulls somewhere else, and not only a little.
    assert (to_reference - from_reference).norm() > to_reference.norm() / 4


def test_a_small_distance_is_not_lost_to_rounding() -> None:
    # exp(x) - x - 1 is about x²/2, which float32 loses when it computes exp(x) first.
    log_p = torch.tensor([-1.0])
    log_ref = log_p - 2.0**-12
    x = (log_ref - log_p).double()
    expected = x.square() / 2 + x**3 / 6
    assert kl_estimate(log_p, log_ref).item() == pytest.approx(expected.item(), rel=1e-3)


def test_an_estimate_of_two_shapes_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"log_p has shape \(2,\) and log_ref \(3,\); pass the sam"
    ):
        kl_estimate(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="kind 'k0' is unknown; use k1, k2 or k3"):
        kl_estimate(torch.zeros(2), torch.zeros(2), "k0")  # type: ignore[arg-type]


# --- a small policy ----------------------------------------------------------------------------


class Capital:
    """Say the last letter of the prompt as a capital and stop: a task for a new model."""

    words = ("$", "a", "b", "c", "A", "B", "C")
    vocabulary_size = len(words)
    end = 0

    def sample(self, generator: torch.Generator) -> Problem:
        letters = torch.randint(1, 4, (3,), generator=generator)
        length = int(torch.randint(1, 4, (), generator=generator))
        prompt = self.decode(letters[:length])
        return Problem(prompt, prompt[-1].upper())

    def trace(self, problem: Problem, *args: object, **options: object) -> str:
        return f"{problem.answer} $"

    def extract(self, text: str) -> str | None:
        return text.removesuffix(" $") if text.endswith(" $") else None

    def verify(self, problem: Problem, text: str) -> bool:
        return self.extract(text) == problem.answer

    def encode(self, text: str) -> Tensor:
        return torch.tensor([self.words.index(word) for word in text.split()])

    def decode(self, tokens: Tensor) -> str:
        return " ".join(self.words[token] for token in tokens.tolist())


CAPITAL = Capital()
SMALL = LMConfig(vocab_size=7, d_model=16, n_layers=1, n_heads=2, d_ffn=16)
SHORT = GRPOConfig(3, n_problems=4, n_rollouts=8, max_new_tokens=4, learning_rate=1e-2, warmup=0)


def make_model(seed: int = 0) -> DecoderLM:
    """A model whose matrices all have a say."""
    torch.manual_seed(seed)
    model = DecoderLM(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return model


def said(problem: Problem, text: str) -> float:
    """A reward that a new model often earns: the answer is somewhere in the text."""
    return float(problem.answer in text.split())


def train(
    model: DecoderLM,
    config: GRPOConfig = SHORT,
    reward: grpo.Reward = said,
    **options: Any,  # noqa: ANN401
) -> GRPOHistory:
    return train_grpo(model, CAPITAL, reward, config, progress=False, **options)


def weights(model: DecoderLM) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def rollouts_of(model: DecoderLM, config: GRPOConfig = SHORT, seed: int = 0) -> Rollouts:
    generator = torch.Generator().manual_seed(seed)
    return sample_rollouts(model, CAPITAL, said, config, generator)


# --- log-probabilities -------------------------------------------------------------------------


def one_by_one(model: DecoderLM, sequence: Tensor, n_prompt: int) -> Tensor:
    """The log-probability of each token of an output, without a batch and without padding."""
    log_p = model(sequence[None]).logits[0].log_softmax(dim=-1)
    return torch.stack([log_p[i - 1, sequence[i]] for i in range(n_prompt, len(sequence))])


@pytest.mark.parametrize("tokens_per_pass", [1, 11, 2048])
def test_log_probabilities_are_those_of_one_sequence_after_another(
    tokens_per_pass: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "TOKENS_PER_PASS", tokens_per_pass)
    model = make_model()
    draw = torch.Generator().manual_seed(0)
    lengths, n_prompt = [3, 9, 2, 6, 6, 5], [1, 2, 1, 5, 1, 3]
    sequences = [torch.randint(5, (length,), generator=draw) for length in lengths]
    log_p, mask = token_log_probs(model, sequences, n_prompt)
    assert log_p.shape == mask.shape == (6, 7)
    weight = torch.rand(log_p.shape, generator=draw)
    by_hand = torch.zeros(6, 7)
    for row, (sequence, prompt) in enumerate(zip(sequences, n_prompt, strict=True)):
        count = len(sequence) - prompt
        by_hand[row, :count] = one_by_one(model, sequence, prompt)
        assert mask[row].tolist() == [True] * count + [False] * (7 - count)
    torch.testing.assert_close(log_p, by_hand)
    expected = torch.autograd.grad((weight * by_hand).sum(), list(model.parameters()))
    found = torch.autograd.grad((weight * log_p).sum(), list(model.parameters()))
    torch.testing.assert_close(found, expected)


def test_a_pass_is_padded_to_no_more_than_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completions, "TOKENS_PER_PASS", 40)
    model, seen = make_model(), []
    model.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    lengths = [20, 3, 4, 19, 3, 12, 50]
    token_log_probs(model, [torch.ones(n, dtype=torch.int64) for n in lengths], [1] * 7)
    # A row that is longer than the budget goes alone; the others fill it, long ones first.
    assert seen == [(1, 49), (2, 19), (3, 11), (1, 2)]


def test_no_sequences_have_no_log_probabilities() -> None:
    log_p, mask = token_log_probs(make_model(), [], [])
    assert log_p.shape == mask.shape == (0, 0)
    assert mask.dtype == torch.bool


@pytest.mark.parametrize(
    ("n_prompt", "message"),
    [
        ([1], "2 sequences have 1 prompts; give one each"),
        ([1, 0], "n_prompt is 0 in a sequence of 3; give at least 1, since nothing predicts"),
        ([3, 1], "n_prompt is 3 in a sequence of 3; .* leave at least one token of output"),
        ([1, 1.9], r"n_prompt is \[1, 1\.9\]; give a whole number for each prompt"),
        (torch.tensor([1.0, 1.9]), r"n_prompt is tensor\(.*; give a whole number for each"),
        (1, "n_prompt is 1; give a whole number for each prompt"),
    ],
)
def test_prompts_that_do_not_fit_their_sequences_are_named(
    n_prompt: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        token_log_probs(make_model(), [torch.ones(3, dtype=torch.int64)] * 2, n_prompt)


@pytest.mark.parametrize("lengths", [torch.tensor([1, 2]), np.array([1, 2]), (1, torch.tensor(2))])
def test_lengths_of_prompts_may_be_whole_numbers_of_any_kind(lengths: Any) -> None:  # noqa: ANN401
    model, sequences = make_model(), [torch.ones(3, dtype=torch.int64)] * 2
    expected = token_log_probs(model, sequences, [1, 2])
    for found, part in zip(token_log_probs(model, sequences, lengths), expected, strict=True):
        assert torch.equal(found, part)


# --- rollouts ----------------------------------------------------------------------------------


def test_rollouts_are_problems_answers_and_what_they_earn() -> None:
    seen: list[tuple[Problem, str]] = []

    def reward(problem: Problem, text: str) -> float:
        seen.append((problem, text))
        return len(text)

    generator = torch.Generator().manual_seed(0)
    rollouts = sample_rollouts(make_model(), CAPITAL, reward, SHORT, generator)
    assert len(rollouts.problems) == 4
    assert [problem for problem, _ in seen] == [p for p in rollouts.problems for _ in range(8)]
    assert [text for _, text in seen] == rollouts.texts
    assert rollouts.rewards.flatten().tolist() == [len(text) for text in rollouts.texts]
    for row, sequence in enumerate(rollouts.sequences):
        prompt, output = sequence.tensor_split([rollouts.n_prompt[row]])
        assert CAPITAL.decode(prompt) == rollouts.problems[row // 8].prompt
        assert CAPITAL.decode(output) == rollouts.texts[row]
        assert len(output) == rollouts.lengths.flatten()[row] <= SHORT.max_new_tokens
        assert rollouts.ended.flatten()[row] == rollouts.texts[row].endswith("$")
    assert not rollouts.ended.all()
    assert (rollouts.lengths[~rollouts.ended] == 4).all()
    assert rollouts.tokens == sum(map(len, rollouts.sequences))


def made_up(rewards: list[list[float]], ended: list[list[bool]]) -> Rollouts:
    """Rollouts with these rewards, of which only some have ended."""
    table = torch.tensor(rewards)
    return Rollouts([], [], [], [], table, torch.ones_like(table).long(), torch.tensor(ended))


def test_groups_without_variance_and_masked_outputs_teach_nothing() -> None:
    rollouts = made_up(
        [[1, 1, 1], [0, 1, 0], [0, 0, 1]],
        [[True] * 3, [True, True, False], [False, False, False]],
    )
    rows, advantages = worth_learning(rollouts, SHORT)
    assert rows == [3, 4, 5, 6, 7, 8]
    assert torch.equal(advantages, group_advantages(rollouts.rewards).flatten()[3:])
    # What is masked still counts in its group: the advantages of the others stay.
    rows, masked = worth_learning(rollouts, replace(SHORT, mask_truncated=True))
    assert rows == [3, 4]
    assert torch.equal(masked, advantages[:2])
    rows, unscaled = worth_learning(rollouts, replace(SHORT, variant="dr_grpo"))
    assert torch.equal(unscaled, group_advantages(rollouts.rewards, scale="none").flatten()[rows])
    rows, none = worth_learning(made_up([[0.5] * 3], [[True] * 3]), SHORT)
    assert rows == []
    assert none.shape == (0,)


# --- the configuration -------------------------------------------------------------------------


def test_the_rate_climbs_and_falls_with_steps_or_flops() -> None:
    config = GRPOConfig(10, warmup=3, final=0.1, max_flops=200.0)
    rates = [config.rate(step) for step in range(10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 0.73, 0.64, 0.55, 0.46, 0.37, 0.28, 0.19])
    assert config.rate(4, 150.0) == pytest.approx(0.1 + 0.9 / 4)
    assert config.rate(4, 50.0) == config.rate(4)


@pytest.mark.parametrize(
    ("variant", "scale", "low", "high"),
    [
        ("paper", "group", 0.2, None),
        ("dapo", "group", 0.2, 0.28),
        ("dr_grpo", "none", 0.2, None),
        ("gspo", "group", 3e-4, 4e-4),
        ("cispo", "group", 1.0, 4.0),
    ],
)
def test_a_variant_brings_what_its_paper_changes(
    variant: Variant, scale: str, low: float, high: float | None
) -> None:
    config = GRPOConfig(1, variant=variant)
    assert (config.advantage_scale, config.lower_epsilon) == (scale, low)
    assert config.upper_epsilon == (low if high is None else high)
    other = replace(config, scale="group", epsilon_low=0.1)
    assert (other.lower_epsilon, other.upper_epsilon) == (0.1, high or 0.1)
    other = replace(other, epsilon_high=0.5)
    assert (other.advantage_scale, other.upper_epsilon) == ("group", 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0; give a whole number, at least 1"),
        ({"n_problems": 0}, "n_problems is 0; give a whole number, at least 1"),
        ({"n_rollouts": 1}, "n_rollouts is 1; give at least 2, to compare them with each other"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; give a whole number, at least 1"),
        ({"n_updates": 0}, "n_updates is 0; give a whole number, at least 1"),
        ({"variant": "grpo"}, "variant 'grpo' is unknown; use paper, dapo, dr_grpo, gspo or cispo"),
        ({"scale": "batch"}, "scale 'batch' is unknown; use group or none"),
        ({"kl": "k0"}, "kl 'k0' is unknown; use k1, k2 or k3"),
        ({"epsilon_low": 1.5}, "epsilon_low is 1.5 and epsilon_high 0.28; give how far a ratio"),
        ({"beta": math.inf}, "beta is inf; give 0 or a small positive number"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; give a finite number above 0"),
        ({"clip": -1.0}, "clip is -1.0; give a finite number above 0"),
        ({"max_flops": 0.0}, "max_flops is 0.0; give a finite number above 0"),
        ({"warmup": -1}, "warmup is -1; give a whole number, at least 0"),
        ({"final": 1.1}, "final is 1.1; give a share between 0 and 1"),
        ({"n_rollouts": 2.5}, "n_rollouts is 2.5; give a whole number"),
        ({"betas": (0.9,)}, r"betas are \(0.9,\); give two shares, each below 1"),
        ({"betas": (1.0, 0.9)}, r"betas are \(1.0, 0.9\); give two shares, each below 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHORT, **changes)


# --- the loop ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_that_knows_nothing_learns_from_rewards_alone(variant: Variant) -> None:
    config = replace(SHORT, steps=60, n_problems=16, variant=variant)
    history = train(make_model(), config, CAPITAL.verify)
    assert statistics.fmean(history.rewards[:3]) < 0.2
    assert statistics.fmean(history.rewards[-5:]) > 0.9
    assert history.lengths[-1] < history.lengths[0]
    assert len(history.steps) == len(history.equal) == 60
    assert history.seconds > 0


def test_it_runs_on_the_shell_game() -> None:
    task = ShellGame(swaps=(1, 2))
    torch.manual_seed(0)
    model = DecoderLM(replace(SMALL, vocab_size=task.vocabulary_size))
    config = replace(SHORT, steps=2)
    # A new model is never right here, so it is rewarded for a word.
    history = train_grpo(model, task, lambda p, text: text.count("="), config, progress=False)
    assert history.tokens_trained > 0
    assert train_grpo(model, task, task.verify, config, progress=False).rewards == [0, 0]


def test_other_optimizers_move_the_weights_at_their_own_rates() -> None:
    default, given, plain = make_model(), make_model(), make_model()
    train(default, SHORT, CAPITAL.verify)
    same = TrainConfig(1, learning_rate=1e-2, betas=SHORT.betas, weight_decay=0.0)
    train(given, SHORT, CAPITAL.verify, optimizers=make_optimizers(given, same))
    for ours, theirs in zip(given.parameters(), default.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    muon = make_optimizers(plain, replace(same, muon_rate=0.5, learning_rate=0.25))
    train(plain, SHORT, CAPITAL.verify, optimizers=muon)
    # They are the caller's: the rates of the last step do not stay in them.
    assert SHORT.rate(2) < 1
    rates = [group["lr"] for each in muon for group in each.param_groups]
    assert rates == [0.25, 0.25, 0.5]
    assert not torch.equal(plain.embedding.weight, default.embedding.weight)


def test_a_step_is_the_gradient_by_hand() -> None:
    model = make_model()
    before = rollouts_of(model)
    groups = before.rewards.tolist()
    total, count = torch.zeros(()), 0
    for row, sequence in enumerate(before.sequences):
        group = groups[row // 8]
        if len(set(group)) > 1:
            score = (group[row % 8] - statistics.fmean(group)) / (statistics.stdev(group) + 1e-4)
            log_p = one_by_one(model, sequence, before.n_prompt[row])
            total, count = total - score * log_p.sum(), count + len(log_p)
    assert count
    expected = torch.autograd.grad(total / count, list(model.parameters()))
    found: list[Tensor] = []

    def keep(step: GRPOStep, rollouts: Rollouts) -> None:
        assert rollouts.texts == before.texts
        found.extend(p.grad.clone() for p in model.parameters() if p.grad is not None)

    train(model, replace(SHORT, steps=1, clip=1e6), on_step=keep)
    torch.testing.assert_close(tuple(found), expected)


def test_a_gradient_is_cut_to_its_norm() -> None:
    model, norms = make_model(), []

    def keep(step: GRPOStep, rollouts: Rollouts) -> None:
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        norms.append(torch.cat(gradients).norm().item())

    train(model, replace(SHORT, clip=1e-3), on_step=keep)
    assert norms == pytest.approx([1e-3] * 3, rel=1e-4)


def test_each_step_moves_by_its_own_rate() -> None:
    # The first update of Adam is the rate, whatever the gradient; later ones are close to it.
    model = make_model()
    start = weights(model)
    places: list[Tensor] = []
    config = replace(SHORT, steps=1, warmup=4, learning_rate=1e-3)
    train(model, config, on_step=lambda step, rollouts: places.append(weights(model)))
    assert (places[0] - start).abs().max().item() == pytest.approx(1e-3 / 5, rel=1e-2)


def test_the_same_seed_repeats_a_run_bit_for_bit() -> None:
    models = [make_model() for _ in range(3)]
    first, second, other = (
        train(model, seed=seed) for model, seed in zip(models, (1, 1, 2), strict=True)
    )
    assert first.rewards == second.rewards
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert first.tokens_sampled != other.tokens_sampled


def test_the_seed_leaves_other_randomness_alone() -> None:
    model = make_model()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train(model)
    assert torch.equal(torch.rand(1), expected)


def test_equal_rewards_move_nothing() -> None:
    model = make_model()
    before = weights(model)
    history = train(model, reward=lambda problem, text: 0.1)
    assert torch.equal(weights(model), before)
    assert history.equal == [1, 1, 1]
    assert history.tokens_trained == 0
    assert [(step.loss, step.clipped) for step in history.steps] == [(None, None)] * 3
    assert history.rewards == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("mask_truncated", [False, True])
@pytest.mark.parametrize("n_updates", [1, 3])
def test_tokens_are_counted_by_hand(mask_truncated: bool, n_updates: int) -> None:
    # With room for two tokens some outputs end and some do not.
    config = replace(SHORT, max_new_tokens=2, mask_truncated=mask_truncated, n_updates=n_updates)
    by_hand: list[int] = []

    def count(step: GRPOStep, rollouts: Rollouts) -> None:
        groups = rollouts.rewards.tolist()
        learned = [
            len(sequence)
            for row, sequence in enumerate(rollouts.sequences)
            if len(set(groups[row // 8])) > 1
            and (rollouts.texts[row].endswith("$") or not mask_truncated)
        ]
        by_hand.append(sum(learned))
        assert step.tokens_trained == n_updates * by_hand[-1]
        assert step.tokens_sampled == sum(map(len, rollouts.sequences))
        assert step.length == statistics.fmean(len(text.split()) for text in rollouts.texts)
        assert step.truncated == statistics.fmean("$" not in text for text in rollouts.texts)
        assert step.equal == statistics.fmean(len(set(group)) == 1 for group in groups)
        assert step.reward == pytest.approx(statistics.fmean(itertools.chain(*groups)))

    def reward(problem: Problem, text: str) -> float:
        return text.count("A") if len(problem.prompt) == 1 else 0.5  # groups without variance

    history = train(make_model(), config, reward, on_step=count)
    assert history.tokens_trained == n_updates * sum(by_hand)
    assert 0 < sum(by_hand) < history.tokens_sampled
    assert [step.step for step in history.steps] == [0, 1, 2]


@pytest.mark.parametrize("mask_truncated", [False, True])
def test_an_output_that_never_ends_teaches_unless_it_is_masked(mask_truncated: bool) -> None:
    model = make_model()
    with torch.no_grad():  # every token says that the end is out of the question
        model.embedding.weight[:, 0] = 10
        model.head.weight[CAPITAL.end, 0] = -1e4
    before = weights(model)
    config = replace(SHORT, mask_truncated=mask_truncated)
    history = train(model, config, lambda problem, text: text.count("A"))
    assert [step.truncated for step in history.steps] == [1, 1, 1]
    assert max(history.rewards) > 0  # what is truncated earns what its text is worth
    assert torch.equal(weights(model), before) == mask_truncated
    assert (history.tokens_trained == 0) == mask_truncated


@pytest.mark.parametrize(("epsilon", "cut"), [(1e-6, True), (0.9, False)])
def test_a_second_update_can_be_clipped(epsilon: float, cut: bool) -> None:
    config = replace(SHORT, n_updates=2, epsilon_low=epsilon, epsilon_high=epsilon)
    config = replace(config, learning_rate=1e-3)
    for step in train(make_model(), config).steps:
        assert step.clipped is not None
        # The first update clips nothing. It goes along its gradient, so that some tokens have moved
        # where they should, and further than a millionth: the second clips these.
        assert (0 < step.clipped <= 0.5) if cut else step.clipped == 0
    for step in train(make_model(), replace(config, n_updates=1)).steps:
        assert step.clipped == 0


def batch_of(rollouts: Rollouts, config: GRPOConfig) -> tuple[list[Tensor], list[int], Tensor]:
    """What is learned from: sequences, their prompts' lengths, and advantages."""
    rows, advantages = worth_learning(rollouts, config)
    sequences = [rollouts.sequences[row] for row in rows]
    return sequences, [rollouts.n_prompt[row] for row in rows], advantages


@pytest.mark.parametrize(
    ("variant", "high"),
    [("paper", 0.01), ("dapo", 0.28), ("dr_grpo", 0.01), ("gspo", 4e-4), ("cispo", 0.02)],
)
def test_the_second_update_remembers_who_sampled(variant: Variant, high: float) -> None:
    config = replace(SHORT, steps=1, clip=1e6, variant=variant, epsilon_low=0.01, final=1.0)
    config = replace(config, epsilon_high=high)
    sequences, n_prompt, advantages = batch_of(rollouts_of(make_model()), config)
    middle, model = make_model(), make_model()
    train(middle, config)  # one update is what two of them begin with
    log_old, _ = token_log_probs(make_model(), sequences, n_prompt)
    log_p, mask = token_log_probs(middle, sequences, n_prompt)
    loss = grpo_loss(
        log_p,
        advantages,
        mask,
        log_old=log_old,
        variant=variant,
        epsilon_low=0.01,
        epsilon_high=high,
        max_length=4,
    )
    expected = torch.autograd.grad(loss, list(middle.parameters()))
    (step,) = train(model, replace(config, n_updates=2)).steps
    found = tuple(p.grad for p in model.parameters() if p.grad is not None)
    torch.testing.assert_close(found, expected)
    moved = (log_p - log_old).detach()
    if variant == "gspo":
        moved = (moved.sum(dim=1) / mask.sum(dim=1))[:, None].expand_as(moved)
    if variant == "cispo":
        cut = moved.exp() != moved.exp().clamp(0.99, 1 + high)
    else:
        cut = clipped(moved.exp(), advantages[:, None], 0.01, high)
    assert 0 < cut[mask].float().mean().item() / 2 == pytest.approx(step.clipped)


# --- a reference -------------------------------------------------------------------------------


@pytest.mark.slow
def test_beta_keeps_a_model_near_its_reference() -> None:
    reference, last = make_model(), {}
    config = replace(SHORT, steps=20)
    for beta in (0.0, 3.0):
        history = train(make_model(), replace(config, beta=beta), reference=reference)
        distance = [step.kl for step in history.steps if step.kl is not None]
        assert distance[0] == 0  # a copy
        last[beta] = distance[-1]
    assert last[3.0] < last[0.0] / 4
    assert torch.equal(weights(reference), weights(make_model()))
    assert [step.kl for step in train(make_model()).steps] == [None] * 3


@pytest.mark.parametrize("kl", KINDS)
def test_the_pull_towards_a_reference_is_the_one_asked_for(kl: KL) -> None:
    reference, model, copied = make_model(1), make_model(), make_model()
    config = replace(SHORT, steps=1, clip=1e6, beta=1.0, kl=kl)
    sequences, n_prompt, advantages = batch_of(rollouts_of(model), config)
    log_ref = token_log_probs(reference, sequences, n_prompt)[0].detach()
    log_p, mask = token_log_probs(copied, sequences, n_prompt)
    loss = grpo_loss(log_p, advantages, mask, log_ref=log_ref, variant="dapo", beta=1.0, kl=kl)
    expected = torch.autograd.grad(loss, list(copied.parameters()))
    (step,) = train(model, config, reference=reference).steps
    torch.testing.assert_close(tuple(p.grad for p in model.parameters()), expected)
    assert step.loss == pytest.approx(loss.item())
    assert step.kl == pytest.approx(kl_estimate(log_p, log_ref, kl)[mask].mean().item())


def test_beta_without_a_reference_is_named() -> None:
    with pytest.raises(ValueError, match=r"beta is 0\.1 but reference is None; pass a copy of"):
        train(make_model(), replace(SHORT, beta=0.1))


# --- a budget ----------------------------------------------------------------------------------


@pytest.mark.parametrize("with_reference", [False, True])
def test_flops_are_two_for_what_is_read_and_six_for_what_is_learned(with_reference: bool) -> None:
    n = sizes.count_parameters(SMALL.sizes()).active_without_embedding
    reference = make_model() if with_reference else None
    history = train(make_model(), replace(SHORT, n_updates=2), reference=reference)
    referred = history.tokens_trained / 2 if with_reference else 0
    assert history.tokens_trained > 0
    assert history.flops == pytest.approx(
        2 * n * (history.tokens_sampled + referred) + 6 * n * history.tokens_trained
    )


def test_a_budget_of_flops_ends_the_run_and_the_decay() -> None:
    whole = train(make_model(), replace(SHORT, steps=12))
    budget = sum(step.flops for step in whole.steps[:4])
    config = replace(SHORT, steps=12, max_flops=budget, final=0.0)
    history = train(make_model(), config)
    spent = [step.flops for step in history.steps]
    assert len(history.steps) < 12
    assert sum(spent[:-1]) < budget <= sum(spent) == history.flops
    assert config.rate(len(spent) - 1, sum(spent[:-1])) < 0.5 < config.rate(len(spent) - 1)


# --- how it stops ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["reward", "callback"])
def test_ctrl_c_keeps_what_was_learned(place: str) -> None:
    model = make_model().eval()
    places = [weights(model)]

    def reward(problem: Problem, text: str) -> float:
        if place == "reward" and len(places) == 3:
            raise KeyboardInterrupt
        return said(problem, text)

    def on_step(step: GRPOStep, rollouts: Rollouts) -> None:
        places.append(weights(model))
        if place == "callback" and len(places) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, replace(SHORT, steps=9), reward, on_step=on_step)
    assert len(places) == 3
    assert not torch.equal(places[2], places[0])
    assert torch.equal(weights(model), places[2])
    assert not model.training
    assert rollouts_of(model).tokens > 0
    assert len(train(model).steps) == 3


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_left(training: bool) -> None:
    model = make_model().train(training)
    train(model)
    assert model.training is training


def test_what_is_frozen_stays() -> None:
    model = make_model()
    model.embedding.requires_grad_(False)
    before = model.embedding.weight.clone()
    train(model)
    assert torch.equal(model.embedding.weight, before)
    with pytest.raises(ValueError, match="no parameter of the model requires a gradient; unfreeze"):
        train(model.requires_grad_(False))


def test_a_reward_that_is_not_finite_is_named() -> None:
    with pytest.raises(ValueError, match="a reward is nan; each must be finite"):
        train(make_model(), reward=lambda problem, text: math.nan)


def infinite_loss(log_p: Tensor, *args: object, **options: object) -> Tensor:
    return log_p.sum() * math.inf


def infinite_slope(log_p: Tensor, *args: object, **options: object) -> Tensor:
    root: Tensor = (0.0 * log_p.sum()).sqrt()  # 0, with an infinite slope
    return root


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (infinite_loss, "the loss is -?inf at step 0; lower learning_rate or"),
        (infinite_slope, "the norm of the gradient is nan at step 0; lower learning_rate or"),
    ],
)
def test_what_is_not_finite_is_named_and_spoils_no_weight(
    loss: Callable[..., Tensor], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpo, "grpo_loss", loss)
    model = make_model()
    before = weights(model)
    with pytest.raises(FloatingPointError, match=message):
        train(model)
    assert torch.equal(weights(model), before)


def test_nothing_is_printed_where_nobody_watches(capfd: pytest.CaptureFixture[str]) -> None:
    train_grpo(make_model(), CAPITAL, CAPITAL.verify, SHORT, progress=True)
    assert capfd.readouterr() == ("", "")
