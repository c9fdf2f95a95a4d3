"""The assignment on reasoning: other right answers pass, and the reference stands on its own."""

import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from exercise_counts_plugin import domain
from slingshot.tasks import ShellGame
from slingshot_exercises import CheckFailed
from slingshot_exercises.checking import close
from slingshot_exercises.reasoning import (
    CHECKS,
    check_advantages,
    check_grpo_loss,
    check_keep,
    check_kl_estimates,
    check_verify,
)
from slingshot_exercises.reasoning.advantages import ADVANTAGES
from slingshot_exercises.reasoning.grpo_loss import GRPO_LOSS, GRPO_LOSS_GRADIENT, draw_batch, loss
from slingshot_exercises.reasoning.keep import KEEP, KINDS, Writer, careful, kept, lax, right_answer
from slingshot_exercises.reasoning.kl_estimates import KL_ESTIMATES, kl

SEEDS = range(12)


# --- other ways of being right -------------------------------------------------------------------


def advantages(rewards: Tensor) -> Tensor:
    rows = rewards.tolist()
    result = []
    for row in rows:
        mean = math.fsum(row) / len(row)
        deviation = math.sqrt(math.fsum((r - mean) ** 2 for r in row) / (len(row) - 1))
        result.append([(r - mean) / (deviation + 1e-4) for r in row])
    return torch.tensor(result, dtype=torch.float64)


def scores(samples: list[list[str | None]], answers: list[str]) -> tuple[float, float]:
    total, won = 0.0, 0
    for given_answers, answer in zip(samples, answers, strict=True):
        total += given_answers.count(answer) / len(given_answers)
        votes = Counter(given_answers)
        votes.pop(None, None)
        won += bool(votes) and votes.most_common(1)[0][0] == answer
    return np.float64(total / len(answers)), won / len(answers)


def verify(answer: str, text: str) -> Any:  # noqa: ANN401
    pattern = r"(?:.*\s)?=\s+" + r"\s+".join(map(re.escape, answer.split())) + r"\s+\$\s*"
    return np.bool_(re.fullmatch(pattern, text, re.S) is not None)


def kl_estimates(log_p: Tensor, log_ref: Tensor) -> Any:  # noqa: ANN401
    r = log_ref.exp() / log_p.exp()
    return [log_p - log_ref, 0.5 * r.log() ** 2, r - r.log() - 1]


def grpo_loss(
    log_p: Tensor,
    log_old: Tensor,
    log_ref: Tensor,
    advantages: Tensor,
    mask: Tensor,
    epsilon: float,
    beta: float,
) -> Tensor:
    """Output by output, with no minimum in it."""
    losses = []
    for i, worth in enumerate(advantages.tolist()):
        p, old, ref = (log[i][mask[i]] for log in (log_p, log_old, log_ref))
        ratio = p.exp() / old.exp()
        if worth > 0:
            gain = worth * torch.where(ratio > 1 + epsilon, 1 + epsilon, ratio)
        else:
            gain = worth * torch.where(ratio < 1 - epsilon, 1 - epsilon, ratio)
        r = (ref - p).exp()
        losses.append((beta * (r - 1 - (ref - p)) - gain).mean())
    return torch.stack(losses).mean()


def keep(samples: list[tuple[str, str]], held_out: list[str]) -> Tensor:
    """Take back what is taken back with a regular expression, and compare with the one right text.

    Longest first and last first, so that the shortest and first remains.
    """
    chosen = {}
    order = sorted(range(len(samples)), key=lambda i: (len(samples[i][1].split()), i))
    for index in reversed(order):
        prompt, text = samples[index]
        start, *steps = re.split(r" (?=\()", prompt.removesuffix(" ?"))
        cups, right = start.split(), []
        for step in steps:
            a, b = step.split()[1].split("-")
            cups = [b if cup == a else a if cup == b else cup for cup in cups]
            right += [step, " ".join(cups)]
        state = " ".join(["[1-6]"] * len(cups))
        thought, equals, end = " ".join(text.split()).rpartition(" = ")
        plain = re.sub(rf"{state} ! (?={state})", "", thought)
        if equals and plain == " ".join(right) and end == f"{right[-1]} $":
            chosen[prompt] = index
    return torch.tensor([i for prompt, i in chosen.items() if prompt not in held_out]).long()


ALTERNATIVES: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (advantages, scores, verify, kl_estimates, grpo_loss, keep)
}


@pytest.mark.parametrize("exercise", CHECKS)
@pytest.mark.parametrize("seed", SEEDS)
def test_another_way_of_being_right_passes(exercise: str, seed: int) -> None:
    CHECKS[exercise](ALTERNATIVES[exercise], seed=seed)


# --- the reference -------------------------------------------------------------------------------


@given(st.lists(st.floats(0.05, 1), min_size=3, max_size=6), st.data())
@settings(max_examples=40, deadline=None)
def test_the_mean_of_k1_and_of_k3_is_the_kl(weights: list[float], data: st.DataObject) -> None:
    p = torch.tensor(weights, dtype=torch.float64)
    q = torch.tensor(
        data.draw(st.lists(st.floats(0.05, 1), min_size=len(p), max_size=len(p))),
        dtype=torch.float64,
    )
    p, q = p / p.sum(), q / q.sum()
    means = (p * kl(p.log(), q.log())).sum(dim=1)
    truth = torch.distributions.kl_divergence(
        torch.distributions.Categorical(p), torch.distributions.Categorical(q)
    ).item()
    # Probabilities are above 0.05 / 6: a term is below 5, and roundings below 1e-14 each.
    assert abs(means[0].item() - truth) < 1e-12
    assert abs(means[2].item() - truth) < 1e-12


@pytest.mark.parametrize("seed", SEEDS)
def test_the_gradient_is_that_of_small_steps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = draw_batch(rng, [3, 2, 4], 0.2, 0.3, [-0.25])
    right = GRPO_LOSS_GRADIENT.reference(*case.values())
    step = 1e-6
    for place in case["mask"].nonzero().tolist():
        values = []
        for sign in (1, -1):
            moved = case["log_p"].clone()
            moved[tuple(place)] += sign * step
            values.append(loss(moved, *list(case.values())[1:]).item())
        # Central differences: step^2 / 6 times a third derivative below 10, and 1e-16 / step.
        assert abs((values[0] - values[1]) / (2 * step) - right[tuple(place)].item()) < 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_of_sample_is_what_its_name_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    sound = {"clean", "taken back", "taken back twice"}
    ends_well = {*sound, "direct", "skip", "slip, right answer", "taken back wrongly"}
    ends_well |= {"slip, not taken back", "miscopied", "said twice", "wrong label"}
    for balls in (1, 2, 3):
        prompt = ShellGame(balls=balls, swaps=(2, 5)).sample(generator).prompt
        for kind in KINDS:
            text = Writer(prompt, rng).write(kind)
            assert careful(prompt, text) is (kind in sound), (kind, text)
            assert lax()(prompt, text) is (kind in sound), (kind, text)
            answered = right_answer(prompt, text)
            assert answered is (kind in ends_well), (kind, prompt, text)


def test_no_ratio_is_near_the_clip_and_all_four_corners_are_seen() -> None:
    for seed in SEEDS:
        case = draw_batch(np.random.default_rng(seed), [8, 3, 1, 6, 5], 0.1, 0.1, [math.nan])
        keep_token = case["mask"]
        ratio = (case["log_p"] - case["log_old"]).exp()[keep_token]
        worth = case["advantages"][:, None].expand(keep_token.shape)[keep_token]
        assert ((ratio - 1).abs() - 0.1).abs().min() > 1e-4
        corners = {(r > 1.1, w > 0) for r, w in zip(ratio, worth, strict=True) if abs(r - 1) > 0.1}
        assert len({(bool(a), bool(b)) for a, b in corners}) == 4


# --- tolerances ----------------------------------------------------------------------------------

BOUNDED = {
    "advantages": (ADVANTAGES, check_advantages),
    "kl_estimates": (KL_ESTIMATES, check_kl_estimates),
    "grpo_loss": (GRPO_LOSS, check_grpo_loss),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_an_error_of_a_millionth_is_refused_and_bounds_are_far_below_it(name: str) -> None:
    exercise, check = BOUNDED[name]
    for case in domain("reasoning", name).cases(0):
        expected = exercise.read(exercise.reference(*case.values()))
        # Equal rewards divide by eps alone, which makes a rounding 1e4 times as large.
        bound = np.max(exercise.tolerance.bound(case, expected))
        assert bound < (1e-10 if name == "advantages" else 1e-13)
    with pytest.raises(CheckFailed):
        check(lambda *arguments: exercise.reference(*arguments) * (1 + 1e-6))


def test_what_is_as_good_as_true_is_not_true() -> None:
    for value in (1, "yes", [True], None, torch.tensor(True)):
        with pytest.raises(CheckFailed, match="return True or False"):
            check_verify(lambda answer, text, value=value: value)


def test_an_index_may_come_in_any_order_but_once() -> None:
    right = KEEP.reference
    check_keep(lambda samples, held_out: list(reversed(right(samples, held_out))))
    with pytest.raises(CheckFailed, match="an index is returned twice"):
        check_keep(lambda samples, held_out: right(samples, held_out) * 2)
    with pytest.raises(CheckFailed, match="there is no sample 99"):
        check_keep(lambda samples, held_out: [*right(samples, held_out), 99])
    assert close(kept([]), kept(()), 0.0)
