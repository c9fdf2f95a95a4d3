"""Answers that have much in common: hints of who may have worked together, and no more.

Names and layout are left out, so that renaming hides nothing. Of all runs of ``LENGTH`` tokens some
are kept as fingerprints, by winnowing: two texts that share a long run share a fingerprint, and few
need be kept (Schleimer, Wilkerson and Aiken, Winnowing, SIGMOD 2003).
"""

import io
import keyword
import math
import tokenize
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

LENGTH = 8
WINDOW = 6
MOST_MARKS = 400
FEWEST_MARKS = 4
"""An answer of a line or two is the same for everybody, and says nothing."""

COMMON, MOST_COMMON = 0.25, 50
"""A run that more than this share of the class, or so many, have is the exercise's own."""

BESIDE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


@dataclass(frozen=True)
class Pair:
    """Two learners, and which share of the rarer runs of an answer they have in common."""

    first: str
    second: str
    exercise: str
    share: float


def fingerprint(source: str) -> list[int]:
    """The fingerprints of an answer; none where it cannot be read."""
    words = list(tokens(source))
    runs = [
        zlib.crc32(" ".join(words[i : i + LENGTH]).encode("utf-8", "replace"))
        for i in range(len(words) - LENGTH + 1)
    ]
    if not runs:
        return []
    windows = [runs[i : i + WINDOW] for i in range(max(1, len(runs) - WINDOW + 1))]
    return sorted({min(window) for window in windows})[:MOST_MARKS]


def tokens(source: str) -> Iterator[str]:
    """What Python reads, with every name the same."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(source[:100_000]).readline):
            if token.type in BESIDE or (token.type == tokenize.STRING and len(token.string) > 40):
                continue
            own = token.type == tokenize.NAME and not keyword.iskeyword(token.string)
            yield "name" if own else token.string
    except (tokenize.TokenError, SyntaxError, ValueError):  # the last: half a letter
        return


def pairs(answers: Mapping[str, Mapping[str, Iterable[int]]], least: float = 0.8) -> list[Pair]:
    """The pairs of learners whose answers share at least so much, the closest first.

    ``answers`` holds the fingerprints by learner and exercise. What many have counts for nobody.
    """
    found = []
    for exercise in sorted({name for each in answers.values() for name in each}):
        mine = {who: set(each[exercise]) for who, each in answers.items() if exercise in each}
        count = Counter(mark for marks in mine.values() for mark in marks)
        most = min(max(2, COMMON * len(mine)), MOST_COMMON)
        common = {mark for mark, number in count.items() if number > most}
        rare = {who: marks - common for who, marks in mine.items()}
        rare = {who: marks for who, marks in sorted(rare.items()) if len(marks) >= FEWEST_MARKS}
        for a, b in candidates(rare, count, least):
            share = len(rare[a] & rare[b]) / min(len(rare[a]), len(rare[b]))
            if share >= least:
                found.append(Pair(a, b, exercise, share))
    return sorted(found, key=lambda pair: (-pair.share, pair.exercise, pair.first, pair.second))


def candidates(
    rare: Mapping[str, set[int]], count: Mapping[int, int], least: float
) -> list[tuple[str, str]]:
    """The pairs that can share so much, without a look at all pairs of a class of thousands.

    Whoever has at least ``needed`` of the ``n`` runs of an answer lacks at most ``n - needed``, and
    so has one of any ``n - needed + 1`` of them. The rarest are looked up, which few have.
    """
    holders: dict[int, list[str]] = {}
    for who, marks in rare.items():
        for mark in marks:
            holders.setdefault(mark, []).append(who)
    found = set()
    for who, marks in rare.items():
        needed = math.ceil(least * len(marks) - 1e-9)
        rarest = sorted(marks, key=lambda mark: (count[mark], mark))
        for mark in rarest[: len(marks) - needed + 1]:
            found |= {(min(who, other), max(who, other)) for other in holders[mark] if other != who}
    return sorted(found)
