"""The check of ``conversation_price``."""

from collections.abc import Callable, Mapping

import numpy as np

from slingshot_exercises.checking import Exercise, Learner, Mistake, number, roundings
from slingshot_exercises.claim.common import named

MILLION = 1e6


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
        named(names, 1, 1000, 500, {"input": 2.0, "cached": 0.5, "output": 8.0}, 0.0),
        named(names, 2, 1000, 500, {"input": 2.0, "cached": 0.5, "output": 8.0}, 0.0),
        named(names, 3, 1000, 500, {"input": 2.0, "cached": 0.5, "output": 8.0}, 0.5),
    ]
    for _ in range(4):
        base = int(rng.integers(1, 16)) / 8
        cost = {"input": 2 * base, "cached": base / 4, "output": 7 * base}
        sizes = [int(size) for size in rng.integers(20, 4000, 2)]
        margin = int(rng.integers(10, 90)) / 100
        cases.append(named(names, int(rng.integers(2, 13)), *sizes, cost, margin))
    CONVERSATION_PRICE.check(function, cases)
