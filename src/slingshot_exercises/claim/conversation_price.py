"""The check of ``conversation_price``."""

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations

import numpy as np

from slingshot_exercises.checking import Case, Exercise, Learner, Mistake, number, roundings
from slingshot_exercises.claim.common import named
from slingshot_exercises.domain import Domain

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


def _with_old_answers_at(price: str) -> Callable[..., float]:
    """A price in which the answers that are read again cost this."""

    def wrong(
        turns: int, prompt: int, answer: int, cost: Mapping[str, float], margin: float
    ) -> float:
        old = turns * (turns - 1) / 2 * answer / MILLION
        more = old * (cost[price] - cost["cached"]) / (1 - margin)
        return _price(turns, prompt, answer, cost, margin) + more

    return wrong


CONVERSATION_PRICE = Exercise(
    "conversation_price",
    _conversation_price,
    number,
    # At most 60 turns, each with three products and three sums, and the profit.
    roundings(370),
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
        Mistake(
            "what was said before is counted twice: from turn to turn it grows from nothing, so "
            "take half of turns times (turns - 1)",
            _wrong_price(remembered=lambda turn, p, a: 2 * turn * (p + a)),
        ),
        Mistake(
            "what was said before is billed as output; it is read, and from the cache",
            _wrong_price(read_at="output"),
        ),
        Mistake(
            "earlier answers are billed as output again; they are in the cache like the prompts",
            _with_old_answers_at("output"),
        ),
        Mistake(
            "earlier answers are billed as new input; they are in the cache like the prompts",
            _with_old_answers_at("input"),
        ),
    ],
)


NAMES = ("turns", "prompt_tokens", "answer_tokens", "cost", "margin")
ROUND = {"input": 2.0, "cached": 0.5, "output": 8.0}


def _usual(rng: np.random.Generator) -> Sequence[Case]:
    first = [(1, 0.0), (2, 0.0), (3, 0.5)]
    cases = [named(NAMES, turns, 1000, 500, ROUND, margin) for turns, margin in first]
    return cases + [_drawn(rng) for _ in range(4)]


def _drawn(rng: np.random.Generator, **given: object) -> dict[str, object]:
    """A conversation; what is given replaces what is drawn."""
    base = int(rng.integers(1, 16)) / 8
    cost = {"input": 2 * base, "cached": base / 4, "output": 7 * base}
    sizes = [int(size) for size in rng.integers(20, 4000, 2)]
    margin = int(rng.integers(10, 90)) / 100
    return {**named(NAMES, int(rng.integers(2, 13)), *sizes, cost, margin), **given}


def _with_prices(rng: np.random.Generator, *order: str) -> Case:
    """Prices in this order, all different, and the output not always the dearest."""
    prices = dict(zip(order, rng.permutation([0.25, 1.5, 4.0]).tolist(), strict=True))
    return _drawn(rng, cost=prices)


DOMAIN = Domain(
    "`turns` and both lengths are whole numbers, zero or more. `cost` has its three keys in any "
    "order and prices of zero or more, any of which may be the highest. `margin` is zero or more "
    "and below 1.",
    _usual,
    {
        "`cost` is in another order": lambda rng: [
            _with_prices(rng, *order) for order in permutations(("input", "cached", "output"))
        ],
        "there is one turn": lambda rng: [_drawn(rng, turns=1)],
        "there are no turns": lambda rng: [_drawn(rng, turns=0)],
        "a prompt or an answer is empty": lambda rng: [
            _drawn(rng, prompt_tokens=0),
            _drawn(rng, answer_tokens=0),
        ],
        "the cache costs nothing": lambda rng: [
            _drawn(rng, cost={"input": 2.0, "cached": 0.0, "output": 8.0})
        ],
        "the margin is zero": lambda rng: [_drawn(rng, margin=0.0)],
        "the margin is high": lambda rng: [_drawn(rng, margin=0.96875)],
        "there are many turns": lambda rng: [_drawn(rng, turns=60)],
    },
)


def check_conversation_price(function: Learner, *, seed: int = 0) -> str:
    """Check ``conversation_price(turns, prompt_tokens, answer_tokens, cost, margin)``, in dollars.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`.
    """
    return DOMAIN.check(CONVERSATION_PRICE, function, seed)
