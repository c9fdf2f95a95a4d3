"""The inputs that an exercise allows, written down once.

The visible check, the hidden check and the tests of the wrong answers draw from the same domain,
each with seeds of its own. Its usual cases differ from seed to seed; the edges are always among
them. What the domain allows is said in the statement of the exercise, in the same words.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from slingshot_exercises.checking import Case, Exercise, Learner

Draw = Callable[[np.random.Generator], Sequence[Case]]
"""Draws the cases of one kind."""


@dataclass(frozen=True, eq=False)  # one of each, so that what was drawn is kept under it
class Domain:
    """All that the statement of an exercise allows as input.

    ``allows`` stands word for word in the statement. ``usual`` draws cases from the middle of the
    domain, simplest first. ``edges`` has its corners, each under words that end the sentence "the
    answer is wrong where ..."; they are tried after the usual ones, in this order.
    """

    allows: str
    usual: Draw
    edges: Mapping[str, Draw]

    @cache  # noqa: B019 a domain lives as long as the module that declares it
    def cases(self, seed: int) -> Sequence[Case]:
        """Draw the usual cases, once: whoever tries a function hands it copies."""
        return self.usual(_stream(seed, ""))

    @cache  # noqa: B019
    def at_edges(self, seed: int) -> Mapping[str, Sequence[Case]]:
        """Draw the cases of every edge."""
        return {where: draw(_stream(seed, where)) for where, draw in self.edges.items()}

    def check(self, exercise: Exercise, function: Learner, seed: int) -> str:
        """Let an exercise try a function on all kinds; return what it says of one that passes."""
        return exercise.check(function, self.cases(seed), self.at_edges(seed))


def _stream(seed: int, kind: str) -> np.random.Generator:
    """Random numbers of one kind, so that a new kind does not change what others draw."""
    return np.random.default_rng([seed, zlib.crc32(kind.encode())])
