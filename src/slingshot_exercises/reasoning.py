"""Checks of the assignment on reasoning: advantages, scores, verifiers, KL, the loss, a data set.

All tensors are float64, so that a bound on roundings is far below any mistake. No ratio of the loss
lies close to where it is clipped: a rounding cannot change which side it is on.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slingshot import grpo, stats
from slingshot.tasks import ANSWER, END, WAIT, Problem, ShellGame
from slingshot_exercises.checking import (
    EXACT,
    UNIT_ROUNDOFF,
    Answer,
    Case,
    CheckFailed,
    Exercise,
    Mistake,
    Tolerance,
    UnusableError,
    close,
    describe_case,
    describe_kind,
    number,
    numbers,
    roundings,
    tensor,
)

Learner = Callable[..., Any]
Sample = Sequence[str]
"""A prompt and a text that was written after it."""

EPS = 1e-4
"""What is added to the standard deviation of a group, as TRL does."""


@dataclass(frozen=True)
class Explained(Exercise):
    """An exercise that can say of each input why the expected answer is the right one.

    ``explain`` takes a case, what was expected and what came back, and is asked when no known
    mistake gives all answers. An empty text leaves the word to :func:`checking.difference`.
    """

    explain: Callable[[Case, Answer, Answer], str] = lambda case, expected, got: ""

    def diagnose(
        self, cases: Sequence[Case], answers: list[Answer], expected: list[Answer], first: int
    ) -> str:
        """Return the message of a known mistake, or why the first wrong answer is wrong."""
        message = super().diagnose(cases, answers, expected, first)
        if message in [mistake.message for mistake in self.mistakes]:
            return message
        return self.explain(cases[first], expected[first], answers[first]) or message


# --- advantages ------------------------------------------------------------------------------


def _wrong_advantages(
    scale: Callable[[Tensor], Tensor],
    center: Callable[[Tensor], Tensor] = lambda r: r - r.mean(dim=1, keepdim=True),
) -> Callable[[Tensor], Tensor]:
    """Advantages in which the centered rewards are divided by ``scale`` of the rewards."""
    return lambda rewards: center(rewards) / scale(rewards)


def _deviation(rewards: Tensor, correction: int = 1) -> Tensor:
    return rewards.std(dim=1, keepdim=True, correction=correction)


def _with_eps(eps: float) -> Callable[[Tensor], Tensor]:
    return _wrong_advantages(lambda rewards: _deviation(rewards) + eps)


def _advantages_bound(case: Case, expected: Answer) -> np.ndarray:
    """How far roundings can move an advantage.

    A mean of G rewards of size M is off by at most G u M, so a centered reward and the standard
    deviation s are off by (G + 2) u M each, and a quotient A by that, divided by s + eps, times
    1 + |A|.
    """
    rewards = case["rewards"].numpy()
    spread = rewards.std(axis=1, ddof=1, keepdims=True) + EPS
    error = (rewards.shape[1] + 4) * UNIT_ROUNDOFF * np.abs(rewards).max(axis=1, keepdims=True)
    return np.asarray(2 * 2 * error / spread * (1 + np.abs(expected)))


ADVANTAGES = Exercise(
    "advantages",
    lambda rewards: grpo.group_advantages(rewards, eps=EPS),
    tensor,
    Tolerance(
        _advantages_bound,
        "the roundings of a mean, a standard deviation and a quotient, in each of two formulas",
    ),
    [
        Mistake(
            "the standard deviation divides by G; it is taken over a sample, so divide by G - 1",
            _wrong_advantages(lambda r: _deviation(r, 0) + EPS),
        ),
        Mistake(
            "a group of equal rewards gets nan, from 0 / 0; add eps to the standard deviation",
            _wrong_advantages(_deviation),
        ),
        Mistake(
            "eps is not added to the standard deviation; it is, in every group",
            _wrong_advantages(
                lambda r: _deviation(r).masked_fill(grpo.all_equal(r)[:, None], 1.0),
                lambda r: grpo.group_advantages(r, scale="none"),
            ),
        ),
        *(Mistake("eps is smaller than 1e-4", _with_eps(eps)) for eps in (1e-5, 1e-6, 1e-8)),
        Mistake(
            "eps stands under the root; add it to the standard deviation",
            _wrong_advantages(lambda r: (_deviation(r).square() + EPS).sqrt()),
        ),
        Mistake(
            "the rewards are divided by their variance; take its root",
            _wrong_advantages(lambda r: _deviation(r).square() + EPS),
        ),
        Mistake(
            "nothing is divided by the standard deviation; Dr. GRPO does that, and this exercise "
            "does not",
            _wrong_advantages(lambda r: torch.ones(len(r), 1)),
        ),
        Mistake(
            "the mean goes over all groups; an output is compared with its own group",
            _wrong_advantages(lambda r: _deviation(r) + EPS, lambda r: r - r.mean()),
        ),
        Mistake(
            "the standard deviation goes over all groups; each group has its own",
            _wrong_advantages(lambda r: r.std() + EPS),
        ),
        Mistake(
            "mean and standard deviation go over all groups; each group has its own",
            _wrong_advantages(lambda r: r.std() + EPS, lambda r: r - r.mean()),
        ),
        Mistake(
            "the mean and the standard deviation go down the columns; a group is a row",
            lambda rewards: (rewards - rewards.mean(dim=0)) / (rewards.std(dim=0) + EPS),
        ),
        Mistake(
            "the sign is turned: what is better than its group has a positive advantage",
            _wrong_advantages(lambda r: -(_deviation(r) + EPS)),
        ),
        Mistake(
            "the mean is not taken away; an advantage says how far a reward is above it",
            _wrong_advantages(lambda r: _deviation(r) + EPS, lambda r: r),
        ),
    ],
)


def check_advantages(function: Learner, *, seed: int = 0) -> None:
    """Check ``advantages(rewards)``: ``[P, G]``, in standard deviations of each group.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2402.03300, §4.1.2;
    arXiv 2501.12948, eq. 3.
    """
    rng = np.random.default_rng([seed, 31])
    rows: list[list[list[float]]] = [
        [[1, 0, 0, 0], [1, 1, 1, 1]],
        [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]],
    ]
    # Eighths: a mean of 4, 8 or 16 of them is exact, so equal rewards are 0 apart from their mean.
    for n_problems, group in ((2, 4), (3, 8), (5, 16)):
        drawn = rng.integers(0, 9, (n_problems, group)) / 8
        drawn[:, 0], drawn[:, 1] = 1, 0
        rows.append(drawn.tolist())
    ADVANTAGES.check(function, [{"rewards": torch.tensor(r, dtype=torch.float64)} for r in rows])


# --- scores ----------------------------------------------------------------------------------

Given = Sequence[str | None]
"""The answers to one problem, ``None`` for a text that gives none."""


def _passed(given: Given, answer: str) -> float:
    return fmean(float(each == answer) for each in given)


def _won(given: Given, answer: str) -> float:
    return float(stats.majority_vote(given) == answer)


def _most_frequent(given: Given) -> list[str]:
    """The answers with the most votes, in the order in which they were given."""
    votes = [each for each in given if each is not None]
    return [each for each in dict.fromkeys(votes) if votes.count(each) == _most_votes(votes)]


def _most_votes(votes: Sequence[str | None]) -> int:
    return max((votes.count(each) for each in votes), default=0)


def _scores_with(
    passed: Callable[[Given, str], float] = _passed, won: Callable[[Given, str], float] = _won
) -> Callable[[Sequence[Given], Sequence[str]], tuple[float, float]]:
    """The two scores, each a mean over the problems."""

    def scores(samples: Sequence[Given], answers: Sequence[str]) -> tuple[float, float]:
        pairs = list(zip(samples, answers, strict=True))
        return fmean(passed(*pair) for pair in pairs), fmean(won(*pair) for pair in pairs)

    return scores


def _passed_of_given(given: Given, answer: str) -> float:
    votes = [each for each in given if each is not None]
    return _passed(votes, answer) if votes else 0.0


def _won_if_none_votes(given: Given, answer: str) -> float:
    first = next(each for each in given if given.count(each) == _most_votes(given))
    return float(first == answer)


def _won_by_rank(rank: Callable[[list[str]], str]) -> Callable[[Given, str], float]:
    """Whether the answer wins when ``rank`` decides between those with the most votes."""
    return lambda given, answer: float(
        bool(_most_frequent(given)) and rank(_most_frequent(given)) == answer
    )


def _won_by_last(given: Given, answer: str) -> float:
    reverse = _most_frequent(list(reversed(given)))
    return float(bool(reverse) and reverse[0] == answer)


def _explain_scores(case: Case, expected: Answer, got: Answer) -> str:
    if max(got) > 1:
        return "both numbers are shares of 1; divide by how many there are"
    if not close(got[0], expected[0], 1e-9):
        return ""
    tied = any(len(_most_frequent(given)) > 1 for given in case["samples"])
    if tied:
        return "pass@1 is right; of answers with equally many votes the one given first must win"
    return "pass@1 is right, and the vote is not: most votes win, None has none"


SCORES = Explained(
    "scores",
    _scores_with(),
    numbers("pass_at_1", "cons_at_k"),
    # Sums of at most 8 problems with 7 samples, and two quotients.
    roundings(72),
    [
        Mistake(
            "pass@1 counts a problem as solved when any sample is right; it is the mean over all "
            "samples",
            _scores_with(passed=lambda given, answer: float(answer in given)),
        ),
        Mistake(
            "pass@1 looks at the first sample alone; it is the mean over all samples",
            _scores_with(passed=lambda given, answer: float(given[0] == answer)),
        ),
        Mistake(
            "pass@1 leaves out samples without an answer; they are wrong, and they count",
            _scores_with(passed=_passed_of_given),
        ),
        Mistake(
            "None votes; a sample without an answer has no vote",
            _scores_with(won=_won_if_none_votes),
        ),
        Mistake(
            "the vote asks for more than half of the samples; the most votes are enough",
            _scores_with(won=lambda given, a: float(2 * given.count(a) > len(given))),
        ),
        Mistake(
            "a tie goes to the answer given last; the one given first wins",
            _scores_with(won=_won_by_last),
        ),
        Mistake(
            "a tie goes to the first in the alphabet; the one given first wins",
            _scores_with(won=_won_by_rank(min)),
        ),
        Mistake(
            "a tie is right when the right answer is among the best; the vote elects one, the one "
            "given first",
            _scores_with(won=lambda given, answer: float(answer in _most_frequent(given))),
        ),
        Mistake(
            "cons@k counts a problem as solved when any sample is right; the samples must vote",
            _scores_with(won=lambda given, answer: float(answer in given)),
        ),
        Mistake(
            "the two numbers are exchanged; return pass@1 first",
            lambda samples, answers: _scores_with()(samples, answers)[::-1],
        ),
    ],
    _explain_scores,
)


def check_scores(function: Learner, *, seed: int = 0) -> None:
    """Check ``scores(samples, answers)``: pass@1 and cons@k, each a share of 1.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2501.12948, §3;
    arXiv 2203.11171.
    """
    rng = np.random.default_rng([seed, 32])
    one: list[tuple[list[str | None], str]] = [
        (["6 5", "6 5", "1 2"], "6 5"),
        (["1 2", "6 5", "1 2"], "6 5"),
        ([None, None, "6 5"], "6 5"),
        ([None, None, None], "6 5"),
        (["6 5", "6 5", "1 2", "3 4", None], "6 5"),
        (["6 5", "1 2"], "6 5"),
        (["1 2", "6 5", "6 5", "1 2"], "6 5"),
        (["3 1", "2 3", "2 3", "3 1"], "2 3"),
        (["6 5", "1 2", "1 2", "6 5"], "1 2"),
    ]
    cases: list[Case] = [{"samples": [given], "answers": [answer]} for given, answer in one]
    for n_problems, k in ((3, 4), (6, 5), (8, 7)):
        known = [f"{a} {b}" for a, b in rng.integers(1, 7, (3, 2))] + [None]
        drawn = rng.choice(len(known), size=(n_problems, k), p=[0.3, 0.25, 0.25, 0.2])
        samples = [[known[index] for index in row] for row in drawn]
        answers = [known[int(rng.integers(3))] for _ in samples]
        cases.append({"samples": samples, "answers": answers})
    SCORES.check(function, cases)


# --- verify ----------------------------------------------------------------------------------

GAME = ShellGame(swaps=(2, 4))


def verdict(answer: object) -> bool:
    """Read True or False, and nothing that is only as good as one of them."""
    if isinstance(answer, bool | np.bool_):
        return bool(answer)
    raise UnusableError(f"it returns {describe_kind(answer)}; return True or False")


def _verify(answer: str, text: str) -> bool:
    return GAME.verify(Problem("", answer), text)


def _verify_words(
    accept: Callable[[list[str], list[str]], bool],
) -> Callable[[str, str], bool]:
    """A verifier that compares the words of the answer with those of the text."""
    return lambda answer, text: accept(answer.split(), text.split())


def _after(words: list[str], mark: str, *, last: bool = True) -> list[str]:
    """The words after the last, or the first, ``mark``; none if it does not stand there."""
    places = [place for place, word in enumerate(words) if word == mark]
    return words[places[-1 if last else 0] + 1 :] if places else []


def _explain_verdict(case: Case, expected: Answer, got: Answer) -> str:
    """Say why a text is right or wrong."""
    words, answer = case["text"].split(), case["answer"].split()
    if expected:
        return "it refuses a text that ends in `=`, the right answer and `$`"
    if not words or words[-1] != END:
        return "it accepts a text that does not end in `$`"
    if ANSWER not in words:
        return "it accepts a text without `=`; such a text gives no answer"
    given = _after(words, ANSWER)[:-1]
    if len(given) != len(answer):
        return "it accepts more or less than the answer between the last `=` and `$`"
    return "it accepts a wrong answer"


VERIFY = Explained(
    "verify",
    _verify,
    verdict,
    EXACT,
    [
        Mistake(
            "it looks for the answer anywhere in the text, like the leaky one; whoever writes down "
            "every possible answer is paid",
            lambda answer, text: answer in text,
        ),
        Mistake(
            "it looks for the answer anywhere in the text, like the leaky one; whole words do not "
            "help against one who writes down every possible answer",
            lambda answer, text: f" {answer} " in f" {text} ",
        ),
        Mistake(
            "`$` is not asked for; a text that was cut off has not ended",
            _verify_words(lambda a, w: [*_after(w, ANSWER)] in (a, [*a, END]) and ANSWER in w),
        ),
        Mistake(
            "`=` is not asked for; the last state of a thought is no answer yet",
            _verify_words(lambda a, w: w[-len(a) - 1 :] == [*a, END]),
        ),
        Mistake(
            "the first `=` counts; the last one does",
            _verify_words(lambda a, w: _after(w, ANSWER, last=False) == [*a, END]),
        ),
        Mistake(
            "any `=` counts; after the last one must stand the answer, and then the end",
            _verify_words(
                lambda a, w: (
                    w[-1:] == [END]
                    and any(
                        w[place : place + len(a) + 1] == [ANSWER, *a] for place in range(len(w))
                    )
                )
            ),
        ),
        Mistake(
            "more words may follow the answer; between the last `=` and `$` stands nothing else",
            _verify_words(lambda a, w: w[-1:] == [END] and _after(w, ANSWER)[:-1][: len(a)] == a),
        ),
        Mistake(
            "other words may stand before the answer; between the last `=` and `$` stands nothing "
            "else",
            _verify_words(lambda a, w: w[-len(a) - 1 :] == [*a, END] and ANSWER in w),
        ),
        Mistake(
            "what follows the first `$` is not looked at; `$` is the last word of a text",
            _verify_words(
                lambda a, w: END in w and _after(w[: w.index(END)], ANSWER) == a and ANSWER in w
            ),
        ),
        Mistake(
            "the order of the words is not looked at; `5 6` is another answer than `6 5`",
            _verify_words(
                lambda a, w: (
                    w[-1:] == [END] and ANSWER in w and sorted(_after(w, ANSWER)[:-1]) == sorted(a)
                )
            ),
        ),
        Mistake(
            "the end is compared letter by letter, without `=`: `17` and `-7` end like `7`",
            lambda answer, text: (
                ANSWER in text and " ".join(text.split()).endswith(f"{answer} {END}")
            ),
        ),
        Mistake(
            "it accepts only texts with single spaces; words may also stand on several lines",
            lambda answer, text: text.endswith(f"{ANSWER} {answer} {END}"),
        ),
        Mistake("it accepts nothing", lambda answer, text: False),
        Mistake("it accepts everything", lambda answer, text: True),
    ],
    _explain_verdict,
)

TEXTS = {
    "6 5": [
        "(1) 2-6 6 5 = 6 5 $",
        "= 6 5 $",
        "1 2 1 3 1 4 6 5 6 4 6 3 $",
        "2 5 (1) 2-6 ? 6 5",
        "(1) 2-6 6 5 $",
        "= 6 5",
        "= 1 2 $",
        "= 5 6 $",
        "= 6 5 1 2 $",
        "= 1 2 6 5 $",
        "= 6 5 = 1 2 $",
        "= 1 2 = 6 5 $",
        "= 1 2 = 6 5",
        "= 6 5 $ 1 2",
        "= 1 2 $ 6 5",
        "(1) 2-6 1 5 = 6 5 $",
        "(1) 2-6 6 5\n= 6 5 $\n",
        "6 5 = $",
        "= $",
        "$",
        "",
    ],
    "7": ["= 7 $", "= 17 $", "= -7 $", "= 3 7 $", "7 $", "= 6 > 7 $", "(1) > 6 = 7 $"],
}
"""Texts that a model might write, by the right answer."""


def check_verify(function: Learner, *, seed: int = 0) -> None:
    """Check ``verify(answer, text)``: whether a text ends in ``=``, the answer and ``$``.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`.
    """
    rng = np.random.default_rng([seed, 33])
    cases: list[Case] = [
        {"answer": answer, "text": text} for answer, texts in TEXTS.items() for text in texts
    ]
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    for _ in range(4):
        problem = GAME.sample(generator)
        right = GAME.trace(problem, "careful")
        slipped = GAME.trace(problem, "skip", slips=0.5, noticed=0.5, generator=generator)
        words = right.split()
        texts = [
            right,
            slipped,
            " ".join(words[:-1]),
            " ".join(words[:-4]),
            f"{problem.prompt} {problem.answer}",
            right.replace(END, f"{rng.integers(1, 7)} {END}"),
            right.replace(ANSWER, f"\n{ANSWER}"),
        ]
        cases += [{"answer": problem.answer, "text": text} for text in texts]
    VERIFY.check(function, cases)


# --- KL --------------------------------------------------------------------------------------


def three_tensors(answer: object) -> np.ndarray:
    """Read k1, k2 and k3 as one array with three rows."""
    wanted = "return three tensors (k1, k2, k3) of the shape of log_p"
    try:
        parts = [tensor(part) for part in answer] if isinstance(answer, list | tuple) else None
        rows = tensor(answer) if parts is None else np.stack(parts)
    except (UnusableError, ValueError):
        raise UnusableError(f"it returns {describe_kind(answer)}; {wanted}") from None
    if rows.ndim < 2 or len(rows) != 3:
        raise UnusableError(f"it returns {describe_kind(answer)}; {wanted}")
    return rows


def _kl_with(
    k1: Callable[[Tensor], Tensor] = lambda x: -x,
    k2: Callable[[Tensor], Tensor] = lambda x: x.square() / 2,
    k3: Callable[[Tensor], Tensor] = lambda x: x.expm1() - x,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The three estimators as functions of the log-ratio x, ``log_ref - log_p``."""
    return lambda log_p, log_ref: torch.stack([k(log_ref - log_p) for k in (k1, k2, k3)])


def _kl(log_p: Tensor, log_ref: Tensor) -> Tensor:
    return torch.stack([grpo.kl_estimate(log_p, log_ref, kind) for kind in ("k1", "k2", "k3")])


def _kl_bound(case: Case, expected: Answer) -> np.ndarray:
    """How far roundings can move an estimate.

    Whether x is a difference of logarithms or the logarithm of a quotient of probabilities, it is
    off by at most d = 4 u (1 + |log p| + |log ref|). So k1 is off by d, k2 by |x| d, k3 by
    (e^x + 1) d, and each by a few roundings of its terms.
    """
    log_p, log_ref = case["log_p"].numpy(), case["log_ref"].numpy()
    x = log_ref - log_p
    off = 4 * UNIT_ROUNDOFF * (1 + np.abs(log_p) + np.abs(log_ref))
    last = 4 * UNIT_ROUNDOFF * (np.exp(x) + 1 + np.abs(x))
    bounds = [off, np.abs(x) * off + 4 * UNIT_ROUNDOFF * x**2, (np.exp(x) + 1) * off + last]
    return np.asarray(2 * np.stack(bounds))


def _weighted_kl(log_p: Tensor, log_ref: Tensor) -> Tensor:
    return log_p.exp() * _kl(log_p, log_ref)


def _explain_kl(case: Case, expected: Answer, got: Answer) -> str:
    near = got.shape == expected.shape and np.allclose(got, expected, rtol=0, atol=1e-6)
    return "the result is close, but not as close as float64; is a step in float32?" if near else ""


KL_ESTIMATES = Explained(
    "kl_estimates",
    _kl,
    three_tensors,
    Tolerance(
        _kl_bound,
        "the roundings of the log-ratio, the exponential and the sum, in each of two formulas",
    ),
    [
        Mistake(
            "the ratio is turned over: x is log_ref - log_p, and k1 is -x. This estimates the KL "
            "of the other direction",
            lambda log_p, log_ref: _kl(log_ref, log_p),
        ),
        Mistake(
            "the sign of k1 is turned; it is log_p - log_ref",
            _kl_with(k1=lambda x: x),
        ),
        Mistake(
            "the ratio in k3 is turned over; r is the reference's probability, divided by the "
            "model's",
            _kl_with(k3=lambda x: (-x).expm1() + x),
        ),
        Mistake("the half is missing in k2", _kl_with(k2=torch.square)),
        Mistake(
            "the logarithm is added in k3; it is taken away, and so is 1",
            _kl_with(k3=lambda x: x.expm1() + x),
        ),
        Mistake(
            "k3 lacks its - 1; where both models agree it must be 0",
            _kl_with(k3=lambda x: x.exp() - x),
        ),
        Mistake(
            "k1 has lost its sign; it may be negative, and its mean is right only then",
            _kl_with(k1=torch.abs),
        ),
        Mistake(
            "the estimates are weighted with the probability of the token; the tokens were sampled "
            "from the model, so likely ones come up more often already",
            _weighted_kl,
        ),
        Mistake(
            "the logarithms are turned to base 2; the results are in nats",
            lambda log_p, log_ref: _kl_with(
                k1=lambda x: -x / math.log(2),
                k2=lambda x: (x / math.log(2)).square() / 2,
                k3=lambda x: x.expm1() - x / math.log(2),
            )(log_p, log_ref),
        ),
        Mistake(
            "the three are returned in another order; k1 comes first, k3 last",
            lambda log_p, log_ref: _kl(log_p, log_ref).flip(0),
        ),
    ],
    _explain_kl,
)


def check_kl_estimates(function: Learner, *, seed: int = 0) -> None:
    """Check ``kl_estimates(log_p, log_ref)``: k1, k2 and k3 of each token, in nats.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: Schulman, "Approximating KL
    Divergence" (2020); arXiv 2402.03300, eq. 4.
    """
    rng = np.random.default_rng([seed, 34])
    pairs: list[tuple[Any, Any]] = [
        ([[-1.0, -1.0, -1.0]], [[-1.0, -2.0, -0.5]]),
    ]
    for shape in ((2, 3), (3, 4), (4, 10)):
        pairs.append((-rng.uniform(0.1, 3, shape).round(3), -rng.uniform(0.1, 3, shape).round(3)))
    cases: list[Case] = [
        {
            "log_p": torch.tensor(np.asarray(log_p), dtype=torch.float64),
            "log_ref": torch.tensor(np.asarray(log_ref), dtype=torch.float64),
        }
        for log_p, log_ref in pairs
    ]
    KL_ESTIMATES.check(function, cases)


# --- the loss --------------------------------------------------------------------------------


def _loss(
    log_p: Tensor,
    log_old: Tensor,
    log_ref: Tensor,
    advantages: Tensor,
    mask: Tensor,
    epsilon: float,
    beta: float,
) -> Tensor:
    return grpo.grpo_loss(
        log_p,
        advantages,
        mask,
        log_old=log_old,
        log_ref=log_ref,
        variant="paper",
        epsilon_low=epsilon,
        epsilon_high=epsilon,
        beta=beta,
    )


def _ratio(log_p: Tensor, log_old: Tensor, mask: Tensor) -> Tensor:
    return (log_p - log_old).exp()


def _gain(ratio: Tensor, worth: Tensor, epsilon: float) -> Tensor:
    return torch.minimum(ratio * worth, ratio.clamp(1 - epsilon, 1 + epsilon) * worth)


def _k3(log_p: Tensor, log_ref: Tensor) -> Tensor:
    """As `grpo.kl_estimate`, which refuses the NaN that some mistakes let through."""
    return (log_ref - log_p).expm1() - (log_ref - log_p)


def _per_output(values: Tensor, mask: Tensor) -> Tensor:
    return (values.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1)).mean()


def _wrong_loss(
    *,
    ratio: Callable[[Tensor, Tensor, Tensor], Tensor] = _ratio,
    gain: Callable[[Tensor, Tensor, float], Tensor] = _gain,
    kl: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda p, ref, old: _k3(p, ref),
    total: Callable[[Tensor, Tensor], Tensor] = _per_output,
    signs: tuple[int, int] = (-1, 1),
    clean: bool = True,
) -> Callable[..., Tensor]:
    """A loss with one part exchanged. ``clean`` says that padding is set to 0 before all else."""

    def wrong(
        log_p: Tensor,
        log_old: Tensor,
        log_ref: Tensor,
        advantages: Tensor,
        mask: Tensor,
        epsilon: float,
        beta: float,
    ) -> Tensor:
        p, old, ref = (
            log.masked_fill(~mask, 0.0) if clean else log for log in (log_p, log_old, log_ref)
        )
        gained = gain(ratio(p, old, mask), advantages[:, None], epsilon)
        return total(signs[0] * gained + signs[1] * beta * kl(p, ref, old), mask)

    return wrong


def _sequence_ratio(log_p: Tensor, log_old: Tensor, mask: Tensor) -> Tensor:
    return (log_p - log_old).sum(dim=1, keepdim=True).exp().expand_as(log_p)


def _mean_ratio(log_p: Tensor, log_old: Tensor, mask: Tensor) -> Tensor:
    mean = (log_p - log_old).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)
    return mean.exp().expand_as(log_p)


def _errors(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes of a token's gain, of its KL, and the relative error of both exponentials, in u.

    A log-ratio is off by at most u (|log p| + |log q|), so its exponential by that share, and a few
    roundings.
    """
    keep = case["mask"].numpy()
    p, old, ref = (
        np.where(keep, case[name].numpy(), 0.0) for name in ("log_p", "log_old", "log_ref")
    )
    worth = np.abs(case["advantages"].numpy())[:, None]
    relative = np.abs(p) + np.maximum(np.abs(old), np.abs(ref)) + 8
    share = keep / keep.sum(axis=1, keepdims=True) / len(keep)
    gain = (np.exp(p - old) + 1 + case["epsilon"]) * worth * share
    distance = case["beta"] * (np.exp(ref - p) + 1 + np.abs(ref - p)) * share
    return gain, distance, relative


def _loss_bound(case: Case, expected: Answer) -> float:
    gain, distance, relative = _errors(case)
    terms = case["mask"].numel()  # as many additions, at most
    return float(2 * UNIT_ROUNDOFF * ((gain + distance) * (relative + terms)).sum())


def _gradient_bound(case: Case, expected: Answer) -> np.ndarray:
    """The gradient of a token's gain is at most as large as the gain, that of k3 is 1 - e^x."""
    gain, distance, relative = _errors(case)
    return np.asarray(2 * UNIT_ROUNDOFF * (gain + distance) * (relative + 8))


GRPO_LOSS = Exercise(
    "grpo_loss",
    _loss,
    number,
    Tolerance(_loss_bound, "the roundings of ratios, products and sums, in each of two formulas"),
    [
        Mistake(
            "the sign is turned: a loss is made smaller, so it is the objective times -1",
            _wrong_loss(signs=(1, -1)),
        ),
        Mistake(
            "the KL term has the wrong sign; being far from the reference must cost",
            _wrong_loss(signs=(-1, -1)),
        ),
        Mistake(
            "the gain has the wrong sign; a higher advantage must make the loss smaller",
            _wrong_loss(signs=(1, 1)),
        ),
        Mistake(
            "the mean goes over all tokens of the batch, as in DAPO; first take the mean of each "
            "output, then the mean of those",
            _wrong_loss(total=lambda v, mask: v[mask].mean()),
        ),
        Mistake(
            "the tokens of an output are added up; take their mean, so divide by its length",
            _wrong_loss(total=lambda v, m: v.masked_fill(~m, 0.0).sum(dim=1).mean()),
        ),
        Mistake(
            "padding counts in the length of an output; divide by the tokens that the mask lets "
            "through",
            _wrong_loss(total=lambda v, mask: v.masked_fill(~mask, 0.0).mean()),
        ),
        Mistake(
            "the mask has no effect; what stands behind it must not count",
            _wrong_loss(total=lambda v, mask: v.mean(), clean=False),
        ),
        Mistake(
            "padding comes through as nan: nan times 0 is nan. Set values behind the mask to 0 "
            "instead of multiplying them",
            _wrong_loss(
                total=lambda v, mask: ((v * mask).sum(dim=1) / mask.sum(dim=1)).mean(), clean=False
            ),
        ),
        Mistake(
            "the minimum is missing: the clipped gain alone forgives a ratio that moved the wrong "
            "way",
            _wrong_loss(gain=lambda r, w, e: r.clamp(1 - e, 1 + e) * w),
        ),
        Mistake(
            "the larger of both gains is taken; the objective takes the smaller",
            _wrong_loss(gain=lambda r, w, e: torch.maximum(r * w, r.clamp(1 - e, 1 + e) * w)),
        ),
        Mistake(
            "nothing is clipped; a gain ends where the ratio leaves 1 - epsilon to 1 + epsilon",
            _wrong_loss(gain=lambda r, w, e: r * w),
        ),
        Mistake(
            "the minimum is taken before the advantage is multiplied; with a negative one that is "
            "the larger gain",
            _wrong_loss(gain=lambda r, w, e: torch.minimum(r, r.clamp(1 - e, 1 + e)) * w),
        ),
        Mistake(
            "the ratio is upside down; it is the probability now, divided by that of the sampling",
            _wrong_loss(ratio=lambda p, old, mask: (old - p).exp()),
        ),
        Mistake(
            "the ratio lacks its exponential; a difference of logarithms is the logarithm of it",
            _wrong_loss(ratio=lambda p, old, mask: p - old),
        ),
        Mistake(
            "one ratio is taken for a whole output; each token has its own",
            _wrong_loss(ratio=_sequence_ratio),
        ),
        Mistake(
            "one ratio is taken for a whole output, a geometric mean; each token has its own",
            _wrong_loss(ratio=_mean_ratio),
        ),
        Mistake(
            "the ratio is always 1; log_old is what log_p was when the tokens were sampled",
            _wrong_loss(ratio=lambda p, old, mask: (p - p.detach()).exp()),
        ),
        Mistake(
            "the ratio in k3 is turned over; x is log_ref - log_p",
            _wrong_loss(kl=lambda p, ref, old: grpo.kl_estimate(ref, p)),
        ),
        Mistake(
            "the KL is taken to the old model; it is taken to the reference",
            _wrong_loss(kl=lambda p, ref, old: grpo.kl_estimate(p, old)),
        ),
        Mistake(
            "the KL is estimated with k1, whose gradient is 0 on average; take k3",
            _wrong_loss(kl=lambda p, ref, old: grpo.kl_estimate(p, ref, "k1")),
        ),
        Mistake(
            "beta has no effect; the loss grows by beta times k3 of each token",
            _wrong_loss(kl=lambda p, ref, old: torch.zeros_like(p)),
        ),
    ],
)


def _gradient_of(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def gradient(log_p: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401 tensors and numbers
        asked = log_p.clone().requires_grad_()
        return torch.autograd.grad(loss(asked, *rest), asked)[0]

    return gradient


def _late_mask(*arguments: Any) -> Tensor:  # noqa: ANN401
    return _wrong_loss(clean=False)(*arguments)


def _straight_through(ratio: Tensor, worth: Tensor, epsilon: float) -> Tensor:
    return ratio * worth + (_gain(ratio, worth, epsilon) - ratio * worth).detach()


GRPO_LOSS_GRADIENT = Exercise(
    "grpo_loss",
    _gradient_of(_loss),
    tensor,
    Tolerance(_gradient_bound, "the roundings of a gradient's terms, in each of two formulas"),
    [
        Mistake(
            "the loss is right, and its gradient is nan behind the mask: 0 times nan. Set padding "
            "to 0 before the exponential, and not after it",
            _gradient_of(_late_mask),
        ),
        Mistake(
            "the loss is right, and the KL term has no gradient; only log_ref is a constant",
            _gradient_of(_wrong_loss(kl=lambda p, ref, old: grpo.kl_estimate(p.detach(), ref))),
        ),
        Mistake(
            "the loss is right, and clipped tokens have a gradient; the clip takes it away",
            _gradient_of(_wrong_loss(gain=_straight_through)),
        ),
    ],
)


def check_grpo_loss(function: Learner, *, seed: int = 0) -> None:
    """Check ``grpo_loss(log_p, log_old, log_ref, advantages, mask, epsilon, beta)``, a scalar.

    The gradient by ``log_p`` is checked, too. Raises
    :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2402.03300, eqs. 3-4.
    """
    rng = np.random.default_rng([seed, 35])
    small = {
        "log_p": [[-1.0, -0.5]],
        "log_old": [[-1.0, -1.0]],
        "log_ref": [[-1.0, -1.0]],
        "advantages": [1.0],
    }
    first: Case = {
        **{name: torch.tensor(value, dtype=torch.float64) for name, value in small.items()},
        "mask": torch.tensor([[True, True]]),
        "epsilon": 0.2,
        "beta": 0.0,
    }
    cases = [first]
    for lengths, epsilon, beta, padding in (
        ([1, 4, 3], 0.2, 0.0, [-0.25]),
        ([4, 2, 3], 0.2, 0.5, [-0.25]),
        ([2, 4, 3], 0.2, 0.5, [math.nan, -math.inf]),
        ([8, 3, 1, 6, 5], 0.1, 0.04, [-math.inf, 0.0, math.nan]),
    ):
        cases.append(_draw_batch(rng, lengths, epsilon, beta, padding))
    GRPO_LOSS.check(function, cases)

    def gradient(log_p: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401 tensors and numbers
        asked = log_p.clone().requires_grad_()
        loss = function(asked, *rest)
        found = None
        if getattr(loss, "requires_grad", False):
            (found,) = torch.autograd.grad(loss, [asked], allow_unused=True)
        if found is None:
            raise CheckFailed(
                "grpo_loss",
                "no gradient reaches log_p; .detach(), .item(), .numpy() or torch.tensor() cuts "
                "it off",
                case=describe_case(first),
            )
        return found

    GRPO_LOSS_GRADIENT.check(gradient, cases)


def _draw_batch(
    rng: np.random.Generator,
    lengths: Sequence[int],
    epsilon: float,
    beta: float,
    padding: Sequence[float],
) -> Case:
    """Draw a batch in which both clips bite and both do not, none of them closely."""
    shape = len(lengths), max(lengths)
    mask = np.arange(shape[1]) < np.asarray(lengths)[:, None]
    worth = np.resize([1.0, -1.0], len(lengths))[:, None] * rng.uniform(0.3, 2, (shape[0], 1))
    while True:
        log_old, log_ref = (-rng.uniform(1, 3, shape).round(3) for _ in range(2))
        log_p = (log_old + rng.uniform(-0.8, 0.8, shape)).round(3)
        ratio = np.exp(log_p - log_old)
        edges = [ratio < 1 - epsilon, ratio > 1 + epsilon]
        far = np.abs(np.abs(ratio - 1) - epsilon) > 1e-3
        seen = [(edge & (sign * worth > 0) & mask).any() for edge in edges for sign in (1, -1)]
        if far.all() and all(seen):
            break
    filler = np.resize(padding, shape)
    logs = {"log_p": log_p, "log_old": log_old, "log_ref": log_ref}
    return {
        **{name: torch.from_numpy(np.where(mask, values, filler)) for name, values in logs.items()},
        "advantages": torch.from_numpy(worth[:, 0].round(3)),
        "mask": torch.from_numpy(mask),
        "epsilon": epsilon,
        "beta": beta,
    }


# --- a training set --------------------------------------------------------------------------


def kept(answer: object) -> np.ndarray:
    """Read the indices of samples, in any order."""
    wanted = "return a list of indices, such as [0, 2]"
    plain = tensor(answer).tolist() if isinstance(answer, torch.Tensor | np.ndarray) else answer
    whole = isinstance(plain, list | tuple) and all(
        isinstance(each, int | np.integer) and not isinstance(each, bool) for each in plain
    )
    if not whole:
        raise UnusableError(f"it returns {describe_kind(answer)}; {wanted}")
    return np.array(sorted(plain), dtype=np.int64)  # type: ignore[arg-type]


def _careful(prompt: str, text: str) -> bool:
    """Whether every swap has a state after it and all of it is right."""
    task, words = _game(prompt), text.split()
    swaps, labels = set(task.move_words()), set(task.words[-task.longest :])
    skips = any(a in swaps and b in labels for a, b in pairwise(words))
    return task.verify_steps(Problem(prompt, ""), text) and not skips


def _game(prompt: str) -> ShellGame:
    """The game of a prompt: as many balls as numbers stand before the first label."""
    return ShellGame(balls=prompt.split().index("(1)"))


def _moves_and_states(prompt: str) -> tuple[list[str], list[str]]:
    """The swaps of a prompt, and the right states, the first one included."""
    task = _game(prompt)
    state, moves = task.read(Problem(prompt, ""))
    states = [state]
    for move in moves:
        states.append(task.apply(states[-1], move))
    return moves, [" ".join(map(str, each)) for each in states]


def _right_answer(prompt: str, text: str) -> bool:
    return _game(prompt).verify(Problem(prompt, _moves_and_states(prompt)[1][-1]), text)


def _lax(
    *, copied: bool = True, wait: str = "replaces", ending: bool = True, silence: bool = False
) -> Callable[[str, str], bool]:
    """A verifier of steps without some of what it should ask for.

    ``wait`` says what a ``!`` does: what stands after it ``"replaces"`` the state, is an
    ``"unknown"`` word, is ``"believed"``, or the state before it ``"stays"``. Without ``copied``
    the trace may solve other swaps than those asked for, and with ``silence`` leave states out.
    """

    def sound(prompt: str, text: str) -> bool:
        task = _game(prompt)
        state, moves = task.read(Problem(prompt, ""))
        words, width = text.split(), len(state)
        for number_of_move, move in enumerate(moves, 1):
            label, written = [*words[:2], "", ""][:2]
            known = written in task.move_words() if not copied else written == move
            if label != f"({number_of_move})" or not known:
                return False
            state, words = task.apply(state, written), words[2:]
            if silence and words[:1] == [f"({number_of_move + 1})"]:
                continue
            said, words = words[:width], words[width:]
            while words[:1] == [WAIT] and wait != "unknown":
                said = said if wait == "stays" else words[1 : width + 1]
                said = said if wait != "believed" else [str(cup) for cup in state]
                words = words[width + 1 :]
            if said != [str(cup) for cup in state]:
                return False
        return not ending or words == [ANSWER, *map(str, state), END]

    return sound


def _keep_with(
    sound: Callable[[str, str], bool] = _careful,
    *,
    better: Callable[[int, int], bool] = lambda length, best: length < best,
    verified_first: bool = True,
    once: bool = True,
    aside: bool = True,
) -> Callable[[Sequence[Sample], Sequence[str]], list[int]]:
    """Choose samples; ``better(length, best)`` says when a later one replaces an earlier one."""

    def keep(samples: Sequence[Sample], held_out: Sequence[str]) -> list[int]:
        chosen: dict[Any, int] = {}
        for index, (prompt, text) in enumerate(samples):
            if (aside and prompt in held_out) or (verified_first and not sound(prompt, text)):
                continue
            key = prompt if once else index
            best = chosen.get(key)
            if best is None or better(len(text.split()), len(samples[best][1].split())):
                chosen[key] = index
        return [index for index in chosen.values() if sound(*samples[index])]

    return keep


def _explain_kept(case: Case, expected: Answer, got: Answer) -> str:
    """Say why the first sample that is wrongly kept, or missing, should not be."""
    if len(set(got.tolist())) < len(got):
        return "an index is returned twice"
    wrong = min(set(expected.tolist()) ^ set(got.tolist()))
    samples = case["samples"]
    if not 0 <= wrong < len(samples):
        return f"there is no sample {wrong}"
    prompt, text = samples[wrong]
    if wrong in expected:
        taken_back = ", what is taken back with `!` included" if WAIT in text else ""
        return f"sample {wrong} is missing; each of its steps is right{taken_back}"
    return f"sample {wrong} is kept, but {_why_not(prompt, text, case['held_out'])}"


def _why_not(prompt: str, text: str, held_out: Sequence[str]) -> str:
    if prompt in held_out:
        return "its problem is held out"
    if _careful(prompt, text):
        return "a shorter or an earlier sample of its problem is as right"
    if not _right_answer(prompt, text):
        return "it does not end in `=`, the right answer and `$`"
    if text.split()[0] == ANSWER:
        return "it is an answer without a thought"
    if not _lax(silence=True)(prompt, text):
        return "one of its steps is wrong, or is none of the problem's"
    return "a state is missing after a swap"


KEEP = Explained(
    "keep",
    _keep_with(),
    kept,
    EXACT,
    [
        Mistake(
            "only the answer is verified; a lucky guess and a wrong thought are kept, too",
            _keep_with(_right_answer),
        ),
        Mistake(
            "traces that leave a state out are kept; after each swap stands a state",
            _keep_with(_lax(silence=True)),
        ),
        Mistake(
            "a trace that takes a slip back is refused; after `!` stands the state that counts",
            _keep_with(_lax(wait="unknown")),
        ),
        Mistake(
            "what stands after `!` is not verified; it may be wrong as well",
            _keep_with(_lax(wait="believed")),
        ),
        Mistake(
            "the state before `!` counts; it is taken back, and the one after it counts",
            _keep_with(_lax(wait="stays")),
        ),
        Mistake(
            "the swaps are not compared with the prompt; a trace may solve another problem",
            _keep_with(_lax(copied=False)),
        ),
        Mistake(
            "the end is not verified; after the last state must stand `=`, that state and `$`",
            _keep_with(_lax(ending=False)),
        ),
        Mistake(
            "several samples of a problem are kept; keep one of each",
            _keep_with(once=False),
        ),
        Mistake(
            "the first sound sample of a problem is kept; keep the shortest",
            _keep_with(better=lambda length, best: False),
        ),
        Mistake(
            "the longest sound sample of a problem is kept; keep the shortest",
            _keep_with(better=lambda length, best: length > best),
        ),
        Mistake(
            "of equally short samples the last is kept; keep the first",
            _keep_with(better=lambda length, best: length <= best),
        ),
        Mistake(
            "the shortest sample is chosen before anything is verified; when it is wrong, its "
            "problem is lost",
            _keep_with(verified_first=False),
        ),
        Mistake(
            "problems that are held out are trained on; a test on them would say nothing",
            _keep_with(aside=False),
        ),
    ],
    _explain_kept,
)


class _Writer:
    """Writes traces of every kind for one problem."""

    def __init__(self, prompt: str, rng: np.random.Generator) -> None:
        self.prompt, self.rng = prompt, rng
        self.moves, self.states = _moves_and_states(prompt)
        self.task = _game(prompt)

    def write(self, kind: str) -> str:
        """Write a text of one of ``KINDS``."""
        moves, states = list(self.moves), self.states[1:]
        last = states[-1]
        at = int(self.rng.integers(len(moves)))
        if kind in ("slip", "slip, right answer"):
            states = self._slipped(at)
            last = states[-1] if kind == "slip" else last
        elif kind in ("taken back", "taken back twice"):
            slips = [self._other(states[at]) for _ in range(1 + ("twice" in kind))]
            states[at] = f" {WAIT} ".join([*slips, states[at]])
        elif kind == "taken back wrongly":
            states[at] = f"{states[at]} {WAIT} {self._other(states[at])}"
        elif kind == "slip, not taken back":
            states[at] = f"{self._other(states[at])} {WAIT} {self._other(states[at])}"
        elif kind == "another problem":
            moves = self._other_moves()
            states = self._follow(moves)
            last = states[-1]
        elif kind == "miscopied":
            moves = self._other_moves()
        elif kind == "said twice":
            states[at] = f"{states[at]} {states[at]}"
        elif kind == "wrong answer":
            last = self._other(last)
        elif kind == "answer taken back":
            last = f"{self._other(last)} {WAIT} {last}"
        elif kind == "direct":
            moves = states = []
        elif kind == "skip":
            states = [state if n % 2 else "" for n, state in enumerate(states)]
            states[-1] = last
        first = 2 if kind == "wrong label" else 1
        pairs = zip(moves, states, strict=True)
        lines = [f"({n}) {move} {state}" for n, (move, state) in enumerate(pairs, first)]
        return " ".join(" ".join([*lines, ANSWER, last, "" if kind == "cut off" else END]).split())

    def _other(self, state: str) -> str:
        cups = tuple(int(cup) for cup in state.split())
        return " ".join(map(str, self.task.mistaken(cups, self._generator())))

    def _slipped(self, at: int) -> list[str]:
        """The states after a slip that nobody notices."""
        wrong = self._other(self.states[at + 1])
        return [*self.states[1 : at + 1], wrong, *self._follow(self.moves[at + 1 :], wrong)]

    def _follow(self, moves: Sequence[str], start: str = "") -> list[str]:
        state = tuple(int(cup) for cup in (start or self.states[0]).split())
        states = []
        for move in moves:
            state = self.task.apply(state, move)
            states.append(" ".join(map(str, state)))
        return states

    def _other_moves(self) -> list[str]:
        """The swaps with one of them exchanged for one that leads elsewhere."""
        while True:
            moves = list(self.moves)
            words = self.task.move_words()
            moves[self.rng.integers(len(moves))] = words[int(self.rng.integers(len(words)))]
            if self._follow(moves)[-1] != self.states[-1]:
                return moves

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(int(self.rng.integers(2**31)))


KINDS = (
    "clean",
    "taken back",
    "direct",
    "skip",
    "slip",
    "slip, right answer",
    "wrong answer",
    "cut off",
    "taken back twice",
    "taken back wrongly",
    "slip, not taken back",
    "another problem",
    "miscopied",
    "said twice",
    "wrong label",
    "answer taken back",
)
"""What a sample can be; only the first two and ``"taken back twice"`` are right in every step."""

SAMPLES = (
    ("taken back", "direct", "clean", "slip"),
    ("slip, right answer", "taken back", "taken back", "skip"),
    ("direct", "skip", "cut off", "miscopied"),
    ("clean", "taken back", "clean", "another problem"),
    ("taken back wrongly", "clean", "taken back", "answer taken back"),
)
"""What is sampled for five problems. The fourth is held out."""


def check_keep(function: Learner, *, seed: int = 0) -> None:
    """Check ``keep(samples, held_out)``: indices of verified traces, one for each problem.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: rejection sampling,
    arXiv 2501.12948, §2.3.
    """
    rng = np.random.default_rng([seed, 36])
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))

    def problem(balls: int, swaps: int) -> _Writer:
        task = ShellGame(balls=balls, swaps=(swaps, swaps))
        return _Writer(task.sample(generator).prompt, rng)

    cases: list[Case] = [
        {"samples": [(writer.prompt, writer.write(kind))], "held_out": []}
        for balls, swaps in ((2, 3), (1, 2), (3, 4))
        for kind in KINDS
        for writer in [problem(balls, swaps)]
    ]
    writers = [problem(2, 3) for _ in SAMPLES]
    held_out = [writers[3].prompt]
    written = [
        [(writer.prompt, writer.write(kind)) for kind in kinds]
        for writer, kinds in zip(writers, SAMPLES, strict=True)
    ]
    cases += [{"samples": samples, "held_out": held_out} for samples in written]
    # Now with the samples of a problem apart from each other.
    apart = [sample for turn in zip(*written, strict=True) for sample in turn]
    cases.append({"samples": apart, "held_out": held_out})
    KEEP.check(function, cases)


CHECKS: dict[str, Callable[..., None]] = {
    "advantages": check_advantages,
    "scores": check_scores,
    "verify": check_verify,
    "kl_estimates": check_kl_estimates,
    "grpo_loss": check_grpo_loss,
    "keep": check_keep,
}
"""The exercises of the assignment in their order, each with its check."""
