"""The check of ``accept_draft``."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slingshot_exercises.checking import (
    UNIT_ROUNDOFF,
    Answer,
    Case,
    Exercise,
    Learner,
    Mistake,
    Tolerance,
    UnusableError,
    describe_kind,
    number,
    tensor,
)
from slingshot_exercises.domain import Domain

Pair = tuple[float, Tensor]


def kept_and_shares(answer: object) -> np.ndarray:
    """Read how many tokens are kept and a distribution, as one array."""
    wanted = "return a pair, how many tokens are kept and a distribution [V]"
    if not isinstance(answer, list | tuple) or len(answer) != 2:
        raise UnusableError(f"it returns {describe_kind(answer)}; {wanted}")
    count, shares = answer
    try:
        if isinstance(shares, list | tuple):
            shares = np.array([number(share) for share in shares])
        found = tensor(shares)
        kept = number(count)
    except UnusableError as error:
        raise UnusableError(f"{str(error).partition(';')[0]} in its pair; {wanted}") from None
    if found.ndim != 1:
        shape = list(found.shape)
        raise UnusableError(f"it returns a distribution of shape {shape}; {wanted}")
    return np.concatenate([[kept], found.astype(float)])


def _ratio(p: Tensor, q: Tensor, x: int) -> Tensor:
    return p[x] / q[x]


def _rest(p: Tensor, q: Tensor, x: int) -> Tensor:
    left = (p - q).clamp(min=0)
    return left / left.sum()


def _accept_with(
    share: Callable[[Tensor, Tensor, int], Any] = _ratio,
    *,
    rest: Callable[[Tensor, Tensor, int], Tensor] = _rest,
    last: Callable[[Tensor, Tensor], Tensor] = lambda p, q: p[-1],
    keeps: Callable[[float, Any], bool] = lambda uniform, share: bool(uniform < share),
    count: Callable[[list[bool]], int] = lambda kept: [*kept, False].index(False),
    later: int = 0,
    rows: Callable[[int], int] = lambda place: place,
) -> Callable[..., Pair]:
    """The rule with one part exchanged.

    ``rest(p, q, x)`` replaces a refused token, of which ``share(p, q, x)`` are kept, and ``last``
    follows a draft that is kept. ``later`` rows of p are skipped, and ``rows`` exchanges them.
    """

    def accept_draft(p: Tensor, q: Tensor, draft: list[int], uniform: list[float]) -> Pair:
        at = [p[min(place + later, len(p) - 1)] for place in range(len(draft))]
        kept = [
            keeps(u, share(at[place], q[place], x))
            for place, (x, u) in enumerate(zip(draft, uniform, strict=True))
        ]
        found = count(kept)
        if found == len(draft):
            return found, last(p, q)
        place = rows(found)
        return found, rest(at[place], q[place], draft[place])

    return accept_draft


def _without_draft(p: Tensor, q: Tensor, x: int) -> Tensor:
    left = p.clone()
    left[x] = 0.0
    return left / left.sum()


def _last_of_draft(p: Tensor, q: Tensor) -> Tensor:
    return p[len(q) - 1] if len(q) else p[-1]


def _last_less_draft(p: Tensor, q: Tensor) -> Tensor:
    return _rest(p[-1], q[-1], 0) if len(q) else p[-1]


def _bound(case: Case, expected: Answer) -> np.ndarray:
    """No difference in the count; roundings in the distribution.

    Rows sum to 1 but for V roundings. What is left can be written as 1 - Σ min(p, q), and is then
    off by as much, which is a larger share of it the less is left.
    """
    kept = int(expected[0])
    p, q = case["p"], case["q"]
    left = 1.0
    if kept < len(q):
        left = (p[kept] - q[kept]).clamp(min=0).sum().item()
    relative = 2 * 2 * (p.shape[1] + 4) * UNIT_ROUNDOFF / left
    return np.asarray(np.concatenate([[0.0], relative * np.abs(expected[1:])]))


def _explain(case: Case, expected: Answer, got: Answer) -> str:
    """Say which of the two is wrong."""
    if len(got) != len(expected):
        return f"the distribution has {len(got) - 1} shares; return {len(expected) - 1}"
    if got[0] != expected[0]:
        return f"it keeps {got[0]:g} tokens of the draft; keep {expected[0]:g}"
    if not np.isfinite(got[1:]).all():
        return "the count is right, and the distribution holds nan or infinity"
    if abs(got[1:].sum() - 1) > 1e-6:
        return f"the count is right, and the distribution sums to {got[1:].sum():.8g}, not to 1"
    if (got[1:] < 0).any():
        return "the count is right, and a share of the distribution is below 0"
    if expected[0] == len(case["draft"]):
        return "the count is right, and the distribution after a draft that is kept is wrong"
    return "the count is right, and the distribution after a refused token is wrong"


ACCEPT_DRAFT = Exercise(
    "accept_draft",
    _accept_with(),
    kept_and_shares,
    Tolerance(
        _bound,
        "no difference in the count, which stands first here, and roundings in the distribution",
    ),
    [
        Mistake(
            "the replacement is drawn from p itself; what drafts have brought already would come "
            "twice. Draw it from what is left, max(p - q, 0)",
            _accept_with(rest=lambda p, q, x: p),
        ),
        Mistake(
            "what is left is not divided by its sum; a distribution sums to 1",
            _accept_with(rest=lambda p, q, x: (p - q).clamp(min=0)),
        ),
        Mistake(
            "the replacement is drawn from |p - q|; where q is larger nothing is left, so take 0",
            _accept_with(rest=lambda p, q, x: (p - q).abs() / (p - q).abs().sum()),
        ),
        Mistake(
            "p and q are exchanged in what is left; it is what the drafts lack, max(p - q, 0)",
            _accept_with(rest=lambda p, q, x: _rest(q, p, x)),
        ),
        Mistake(
            "the replacement is drawn from p without the drafted token; that is right only for a "
            "draft that was looked up. Draw it from max(p - q, 0)",
            _accept_with(rest=_without_draft),
        ),
        Mistake(
            "the replacement is drawn from q; it has the drafter's distribution, not the model's",
            _accept_with(rest=lambda p, q, x: q),
        ),
        Mistake(
            "a softmax is taken of what is left; it is a share already, so divide it by its sum",
            _accept_with(rest=lambda p, q, x: (p - q).clamp(min=0).softmax(dim=0)),
        ),
        Mistake(
            "tokens are kept after one that is refused; they were drafted behind it and fall with "
            "it",
            _accept_with(count=sum, rows=lambda place: place),
        ),
        Mistake(
            "the draft is unseen: a token is kept with probability p, without a look at q. Keep it "
            "with min(1, p / q)",
            _accept_with(lambda p, q, x: p[x]),
        ),
        Mistake(
            "the draft is unseen, and p without the token replaces it; that is right only for a "
            "draft that was looked up. Keep it with min(1, p / q), and replace from max(p - q, 0)",
            _accept_with(lambda p, q, x: p[x], rest=_without_draft),
        ),
        Mistake(
            "p and q are exchanged; a token is kept with min(1, p / q)",
            _accept_with(lambda p, q, x: q[x] / p[x]),
        ),
        Mistake(
            "a token is kept only where p is at least q; below that it is kept with probability "
            "p / q",
            _accept_with(keeps=lambda uniform, share: bool(share >= 1)),
        ),
        Mistake(
            "a token is kept only if it is the model's likeliest; that is the rule of temperature "
            "0. Keep it with min(1, p / q)",
            _accept_with(lambda p, q, x: p[x] == p.max(), keeps=lambda u, share: bool(share)),
        ),
        Mistake(
            "the uniform number decides the other way round; a token is kept where it is below "
            "p / q",
            _accept_with(keeps=lambda uniform, share: bool(1 - uniform < share)),
        ),
        Mistake(
            "a token is kept where the uniform number is above p / q; it is kept where it is below",
            _accept_with(keeps=lambda uniform, share: bool(uniform > share)),
        ),
        Mistake(
            "a token is judged by the row of p after it; row 0 of p is for the first drafted token",
            _accept_with(later=1),
        ),
        Mistake(
            "after a draft that is kept the last row of p is not used; it is the step's own token",
            _accept_with(last=_last_of_draft),
        ),
        Mistake(
            "after a draft that is kept a row of q is subtracted; nobody drafted that token, so it "
            "is drawn from the last row of p",
            _accept_with(last=_last_less_draft),
        ),
        Mistake(
            "a token that the model never writes is kept where the uniform number is 0; keep it "
            "where the number is below p / q, and not where it is equal",
            _accept_with(keeps=lambda uniform, share: bool(uniform <= share)),
        ),
    ],
    explain=_explain,
    lesson="To the prediction: the tokens that the drafter overrates. Drafts alone bring them up "
    "to p already, and a replacement from p then brings them a second time. What the drafter "
    "underrates most comes too seldom for it.",
)

NAMES = ("p", "q", "draft", "uniform")
CLOSEST = 1e-3
LEAST_LEFT = 0.02


def _shares(rng: np.random.Generator, rows: int, n_tokens: int) -> Tensor:
    drawn = torch.from_numpy(rng.dirichlet(np.full(n_tokens, 0.8), rows).round(3) + 0.002)
    return drawn / drawn.sum(dim=1, keepdim=True)


def _drawn(rng: np.random.Generator, keep: Sequence[bool], n_tokens: int = 4) -> dict[str, Any]:
    """A draft of which tokens are kept as told, and none is a close case.

    A token that is kept is kept by chance half of the time: p is below q there.
    """
    n_draft = len(keep)
    while True:
        p, q = _shares(rng, n_draft + 1, n_tokens), _shares(rng, n_draft, n_tokens)
        draft = [int(rng.choice(n_tokens, p=row.numpy())) for row in q]
        uniform = [float(value) for value in rng.random(n_draft).round(3)]
        ratios = [float(p[k, x] / q[k, x]) for k, x in enumerate(draft)]
        fits = all(
            (u < r - CLOSEST) if kept else (u > r + CLOSEST)
            for u, r, kept in zip(uniform, ratios, keep, strict=True)
        )
        left = (p[:n_draft] - q).clamp(min=0).sum(dim=1)
        if fits and bool((left > LEAST_LEFT).all()):
            return dict(zip(NAMES, (p, q, draft, uniform), strict=True))


def _looked_up(rng: np.random.Generator, keep: Sequence[bool]) -> Case:
    """A draft that was looked up: q is 1 at its tokens, and 0 elsewhere."""
    case = _drawn(rng, keep)
    case["q"] = torch.eye(4, dtype=torch.float64)[case["draft"]]
    for place, kept in enumerate(keep):
        share = float(case["p"][place, case["draft"][place]])
        case["uniform"][place] = share / 2 if kept else (1 + share) / 2
    return case


def _never_written(rng: np.random.Generator, uniform: float) -> Case:
    """A first token that the model never writes, and a second one that would be kept."""
    case = _drawn(rng, [False, True])
    row = case["p"][0].clone()
    row[case["draft"][0]] = 0.0
    case["p"][0] = row / row.sum()
    case["uniform"] = [uniform, *case["uniform"][1:]]
    return case


def _equal_rows(rng: np.random.Generator) -> Case:
    """A drafter that is the model: everything is kept, and nothing is left."""
    case = _drawn(rng, [True, True, True])
    case["q"] = case["p"][:-1].clone()
    case["uniform"] = [0.0, 0.5, 0.999]
    return case


def _one_left(rng: np.random.Generator) -> Case:
    """What is left is one token."""
    p = torch.tensor([[0.1, 0.2, 0.7], [0.2, 0.5, 0.3]], dtype=torch.float64)
    q = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    return dict(zip(NAMES, (p, q, [int(rng.integers(2))], [0.9]), strict=True))


def _tiny(rng: np.random.Generator, p_at: float, q_at: float, uniform: float) -> Case:
    """A drafted token that both models hardly ever write."""
    case = _drawn(rng, [True])
    x = case["draft"][0]
    for rows, share in ((case["p"], p_at), (case["q"], q_at)):
        rows[0, x] = 0.0
        rows[0] *= (1 - share) / rows[0].sum()
        rows[0, x] = share
    case["uniform"] = [uniform]
    return case


def _usual(rng: np.random.Generator) -> Sequence[Case]:
    kept = [[False], [True], [True, False], [False, True], [True, True, True]]
    kept += [[True, False, True, False], [True, True, False], [False, False]]
    return [_drawn(rng, keep) for keep in kept] + [
        _drawn(rng, [True, True, False, True], 12),
        _drawn(rng, [False, True, True], 7),
    ]


DOMAIN = Domain(
    "Rows of `p` and `q` have no number below zero and sum to 1. `q` is above zero at every "
    "drafted token, and `p` may be zero there. There may be no drafted token; `q` then has no row. "
    "Uniform numbers are from 0 to below 1, and none is so near to a quotient that rounding "
    "decides.",
    _usual,
    {
        "nothing is drafted": lambda rng: [_drawn(rng, [])],
        "the draft was looked up": lambda rng: [
            _looked_up(rng, keep) for keep in ([True], [False], [True, False], [True, True])
        ],
        "the model never writes the drafted token": lambda rng: [
            _never_written(rng, 0.4),
            _never_written(rng, 0.0),
        ],
        "the uniform number is 0": lambda rng: [
            {**_drawn(rng, [True, True]), "uniform": [0.0, 0.0]}
        ],
        "the drafter is the model": lambda rng: [_equal_rows(rng), _equal_rows(rng)],
        "one token is left": lambda rng: [_one_left(rng), _one_left(rng)],
        "there are two tokens": lambda rng: [
            _drawn(rng, keep, 2) for keep in ([False], [True], [True, False])
        ],
        "the drafted token is rare": lambda rng: [
            _tiny(rng, 1e-12, 1e-9, 0.5),
            _tiny(rng, 1e-12, 1e-14, 0.999),
            _tiny(rng, 1e-200, 1e-199, 0.05),
            _tiny(rng, 1e-200, 1e-199, 0.2),
        ],
        "the whole draft is refused or kept": lambda rng: [
            _drawn(rng, [False] * 4),
            _drawn(rng, [True] * 4),
        ],
    },
)


def check_accept_draft(function: Learner, *, seed: int = 0) -> str:
    """Check ``accept_draft(p, q, draft, uniform)``: how many tokens are kept, and what follows.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: arXiv 2211.17192, alg. 1.
    """
    return DOMAIN.check(ACCEPT_DRAFT, function, seed)
