"""Reasoning problems whose answers, and whose every step, a few lines of code can check.

A task makes problems at random, writes out how to solve them, and verifies what anyone else wrote.
In the two tasks of this module, `ShellGame` and `Walk`, something has a state and a list of moves
changes it; the question is the last state. A trace writes the states in between::

    prompt      2 5 (1) 2-6 (2) 1-4 (3) 2-3 ?
    direct      = 6 5 $
    skip        (1) 2-6 (2) 1-4 6 5 (3) 2-3 6 5 = 6 5 $
    careful     (1) 2-6 6 5 (2) 1-4 6 5 (3) 2-3 6 5 = 6 5 $
    with slips  (1) 2-6 6 5 (2) 1-4 6 1 ! 6 5 (3) 2-3 6 5 = 6 5 $

There are six cups in a row and balls under cups 2 and 5. ``(1) 2-6`` is the first swap: cups 2 and
6 change places, and the balls are under 6 and 5. A slip is a wrong state; ``!`` takes it back.
``$`` ends the text. All words stand apart, and each is one token.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, combinations, pairwise
from typing import Any, Final, Literal, NamedTuple, Protocol, get_args

import torch
from jaxtyping import Int64, Integer
from torch import Tensor

from slingshot import require
from slingshot.tensors import whole

Style = Literal["direct", "skip", "careful"]
"""How much of a thought is written down: none of it, every second state, or every state."""

State = tuple[int, ...]
"""What a trace writes after a move: the cups of all balls, or a place on the number line."""

END: Final = "$"
ASK: Final = "?"
ANSWER: Final = "="
WAIT: Final = "!"

_STRIDE: Final = {"skip": 2, "careful": 1}


@dataclass(frozen=True)
class Problem:
    """A question, and the answer that a verifier accepts. ``entry`` is what its source adds."""

    prompt: str
    answer: str
    entry: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)


class Trace(NamedTuple):
    """A problem and a text that somebody, or some model, wrote after its prompt."""

    problem: Problem
    text: str


class Opening(NamedTuple):
    """The first steps of a trace, and the answer that follows from the last state in them."""

    text: str
    answer: str


class Task(Protocol):
    """What training, sampling and verifying need to know of a kind of problem.

    ``end`` is the token at which a text is over. `verify` looks at the answer alone.
    """

    @property
    def vocabulary_size(self) -> int:
        """Tokens are from 0 to this, exclusive."""

    @property
    def end(self) -> int:
        """The token that ends a text."""

    def sample(self, generator: torch.Generator) -> Problem:
        """Draw a problem."""

    def trace(
        self,
        problem: Problem,
        style: Style,
        *,
        slips: float = 0.0,
        noticed: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> str:
        """Write a solution in a style that the task knows; see `StateTask.trace`."""

    def extract(self, text: str) -> str | None:
        """Return the answer that a text gives, or ``None`` if it gives none."""

    def verify(self, problem: Problem, text: str) -> bool:
        """Say whether the answer that ``text`` gives is right."""

    def encode(self, text: str) -> Int64[Tensor, "N"]:
        """Return the tokens ``[N]`` int64 of a prompt or a trace."""

    def decode(self, tokens: Integer[Tensor, "N"]) -> str:
        """Return the text of tokens ``[N]``."""


def write_traces(
    task: Task,
    n: int,
    styles: Mapping[Style, float],
    *,
    slips: float = 0.0,
    noticed: float = 0.5,
    generator: torch.Generator,
) -> list[Trace]:
    """Return ``n`` problems, each solved in one of ``styles``, chosen as often as its weight says.

    ``slips`` and ``noticed`` are those of `StateTask.trace`. Raises ``ValueError`` for weights that
    choose nothing and an ``n`` below 0.
    """
    if n < 0:
        raise ValueError(f"n is {n}; give 0 or more traces")
    weights = torch.tensor(list(styles.values()), dtype=torch.float64)
    if not len(weights) or bool((weights < 0).any()) or not 0 < weights.sum().item() < torch.inf:
        raise ValueError(f"styles are {dict(styles)}; give weights from 0 on, one of them above")
    names = list(styles)
    chosen = weights.multinomial(n, replacement=True, generator=generator).tolist() if n else []
    traces = []
    for index in chosen:
        problem = task.sample(generator)
        text = task.trace(problem, names[index], slips=slips, noticed=noticed, generator=generator)
        traces.append(Trace(problem, text))
    return traces


# --- tasks with a state ------------------------------------------------------------------------


class StateTask(ABC):
    """A task in which moves change a state, and the question is the last one.

    A subclass says what a state is, which moves there are and what they do; texts, tokens and both
    verifiers are the same for all. The tokens depend on ``longest``, the moves that a problem may
    have at most, and not on ``lengths``: train on many lengths and measure on one.
    """

    longest: int

    @property
    @abstractmethod
    def lengths(self) -> tuple[int, int]:
        """The fewest and the most moves of the problems that are drawn."""

    @abstractmethod
    def start(self, generator: torch.Generator) -> State:
        """Draw the first state."""

    @abstractmethod
    def move_words(self) -> Sequence[str]:
        """All moves, each of which is as likely."""

    @abstractmethod
    def states(self) -> Sequence[int]:
        """All numbers that can stand in a state."""

    @abstractmethod
    def can_start(self, state: State) -> bool:
        """Say whether a problem can begin with ``state``."""

    @abstractmethod
    def apply(self, state: State, move: str) -> State:
        """Return the state after a move."""

    @abstractmethod
    def mistaken(self, state: State, generator: torch.Generator) -> State:
        """Return a state that one could mistake for ``state``."""

    # Words and tokens ------------------------------------------------------------------------

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The vocabulary: the word of each token."""
        states = [str(number) for number in self.states()]
        labels = [_label(number + 1) for number in range(self.longest)]
        return (END, ASK, ANSWER, WAIT, *states, *self.move_words(), *labels)

    @cached_property
    def _tokens(self) -> dict[str, int]:
        return {word: token for token, word in enumerate(self.words)}

    @property
    def vocabulary_size(self) -> int:
        """Tokens are from 0 to this, exclusive."""
        return len(self.words)

    @property
    def end(self) -> int:
        """The token that ends a text, that of ``$``."""
        return self._tokens[END]

    def encode(self, text: str) -> Int64[Tensor, "N"]:
        """Return the tokens ``[N]`` int64 of a text; ``ValueError`` for an unknown word."""
        try:
            return torch.tensor([self._tokens[word] for word in text.split()], dtype=torch.int64)
        except KeyError as error:
            raise ValueError(
                f"{error.args[0]!r} is no word of this task; it knows {' '.join(self.words)}"
            ) from None

    def decode(self, tokens: Integer[Tensor, "N"]) -> str:
        """Return the text of tokens ``[N]``; ``ValueError`` for what is no token."""
        numbers = _numbers(tokens)
        if outside := [token for token in numbers if not 0 <= token < len(self.words)]:
            raise ValueError(
                f"token {outside[0]} is not within 0 to {len(self.words) - 1}; "
                "decode with the task whose problems the model has learned"
            )
        return " ".join(self.words[token] for token in numbers)

    # Problems and solutions ------------------------------------------------------------------

    def sample(self, generator: torch.Generator) -> Problem:
        """Draw a problem: a number of moves, each as likely, a first state, and the moves."""
        low, high = self.lengths
        words = self.move_words()
        length = _integer(low, high + 1, generator)
        start = self.start(generator)
        moves = [words[i] for i in torch.randint(len(words), (length,), generator=generator)]
        labeled = (f"{_label(n)} {move}" for n, move in enumerate(moves, 1))
        last = list(self._follow(start, moves))[-1]
        return Problem(" ".join([_written(start), *labeled, ASK]), _written(last))

    def trace(
        self,
        problem: Problem,
        style: Style = "careful",
        *,
        slips: float = 0.0,
        noticed: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> str:
        """Solve a problem in one of the styles, and make mistakes on the way.

        Each state that is written is wrong with probability ``slips``. Of these slips a share
        ``noticed`` is taken back at once with ``!``; the others are believed, and what follows is
        right but for them. A direct answer has no step in which to slip. Without a ``generator``
        there are no slips.

        Raises ``ValueError`` for an unknown style, a share that is none, a prompt of another task,
        or slips without a ``generator``.
        """
        require.one_of(get_args(Style), style=style)
        if not 0 <= slips <= 1 or not 0 <= noticed <= 1:
            raise ValueError(f"slips is {slips} and noticed {noticed}; give shares from 0 to 1")
        if slips and generator is None:
            raise ValueError(f"slips is {slips} but there is no generator; pass one")
        start, moves = self.read(problem)
        if style == "direct":
            return f"{ANSWER} {problem.answer} {END}"
        state, text = start, []
        stride = _STRIDE[style]
        for done in range(0, len(moves), stride):
            taken = moves[done : done + stride]
            text += [f"{_label(done + n)} {move}" for n, move in enumerate(taken, 1)]
            state = list(self._follow(state, taken))[-1]
            if generator is not None and _chance(slips, generator):
                wrong = self.mistaken(state, generator)
                if _chance(noticed, generator):
                    text += [_written(wrong), WAIT]
                else:
                    state = wrong
            text.append(_written(state))
        return " ".join([*text, ANSWER, _written(state), END])

    def read(self, problem: Problem) -> tuple[State, list[str]]:
        """Return the first state and the moves of a problem; ``ValueError`` if it is no such."""
        words = problem.prompt.split()
        labels = [place for place, word in enumerate(words) if word == _label(1)]
        width = labels[0] if labels else 0
        moves = words[width + 1 : -1 : 2]
        expected = [word for n, move in enumerate(moves, 1) for word in (_label(n), move)]
        start = tuple(int(word) for word in words[:width] if word.isdecimal())
        written = [*map(str, start), *expected, ASK] == words  # so 03 is no number here
        known = set(self.move_words())
        if not (moves and written and known.issuperset(moves) and self.can_start(start)):
            raise ValueError(
                f"the prompt {problem.prompt!r} is not one of this task; "
                f"it is written like {self.sample(torch.Generator().manual_seed(0)).prompt!r}"
            )
        return start, moves

    def opening(
        self, problem: Problem, step: int, *, generator: torch.Generator | None = None
    ) -> Opening:
        """Write a careful trace as far as the state after move ``step``, for a model to continue.

        With a ``generator`` that last state is wrong, as a slip that nobody notices. ``answer`` is
        what the moves that are left make of it: the problem's own without a generator, and with one
        what a writer ends with who trusts what is written.

        Raises ``ValueError`` for a step that the problem does not have, and as `read` does.
        """
        start, moves = self.read(problem)
        if not 1 <= step <= len(moves):
            raise ValueError(f"step is {step}; the problem has steps 1 to {len(moves)}")
        states = list(self._follow(start, moves))[1 : step + 1]
        if generator is not None:
            states[-1] = self.mistaken(states[-1], generator)
        lines = zip(range(1, step + 1), moves, states, strict=False)
        text = " ".join(f"{_label(n)} {move} {_written(state)}" for n, move, state in lines)
        last = list(self._follow(states[-1], moves[step:]))[-1]
        return Opening(text, _written(last))

    def style(self, text: str) -> Style:
        """Say in which style somebody answered, be it right or wrong.

        ``"direct"`` when no move stands before the answer, ``"skip"`` when somewhere a move follows
        another with no state in between, ``"careful"`` otherwise.
        """
        words = text.split()
        thought = words[: words.index(ANSWER)] if ANSWER in words else words
        labels, moves = set(self.words[-self.longest :]), set(self.move_words())
        if moves.isdisjoint(thought):
            return "direct"
        together = any(a in moves and b in labels for a, b in pairwise(thought))
        return "skip" if together else "careful"

    # Verifiers -------------------------------------------------------------------------------

    def extract(self, text: str) -> str | None:
        """Return what stands between the last ``=`` and a final ``$``; ``None`` without them."""
        words = text.split()
        if ANSWER not in words or words[-1] != END:
            return None
        last = max(place for place, word in enumerate(words) if word == ANSWER)
        return " ".join(words[last + 1 : -1])

    def verify(self, problem: Problem, text: str) -> bool:
        """Say whether ``text`` ends in ``=``, the right answer, and ``$``, however it got there."""
        return self.extract(text) == problem.answer

    def verify_steps(self, problem: Problem, text: str) -> bool:
        """Say whether `first_wrong_step` finds nothing, and the answer is right."""
        return self.first_wrong_step(problem, text) is None

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """Check every step; return the number of the first move that goes wrong, or ``None``.

        A move goes wrong when it is not copied from the prompt, when no state is written after it
        or after the next one, or when that state is wrong and not taken back. One more than the
        number of moves means that all steps are right and the end is not: the answer differs, or
        something stands where the text should be over. A direct answer goes wrong at move 1: it
        shows nothing that could be checked.
        """
        start, moves = self.read(problem)
        truth = [_written(state).split() for state in self._follow(start, moves)]
        words, width, done = text.split(), len(start), 0
        while done < len(moves):
            taken = 0
            for move in moves[done : done + 2]:
                if words[:2] != [_label(done + taken + 1), move]:
                    break
                words, taken = words[2:], taken + 1
            if not taken:
                return done + 1
            done += taken
            written, words = words[:width], words[width:]
            while words[:1] == [WAIT]:
                written, words = words[1 : 1 + width], words[1 + width :]
            if written != truth[done]:
                return done
        return None if words == [ANSWER, *truth[-1], END] else len(moves) + 1

    def _follow(self, start: State, moves: Sequence[str]) -> Iterator[State]:
        return accumulate(moves, self.apply, initial=start)


@dataclass(frozen=True)
class ShellGame(StateTask):
    """Cups are swapped two at a time; under which cups are the balls?

    ``swaps`` are the fewest and the most. A guess is right once in cups · (cups - 1) · ..., a
    factor for each ball: once in 30 for two balls and six cups.

    From five cups on, the swaps generate a group whose word problem is complete for NC¹
    (Barrington, JCSS 38, 1989): a transformer of fixed depth that answers at once is believed
    unable to follow any number of them, while a written state makes each swap easy.

    Raises ``ValueError`` for numbers that make no game.
    """

    cups: int = 6
    balls: int = 2
    swaps: tuple[int, int] = (1, 12)
    longest: int = 12

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.cups < 2:
            raise ValueError(f"cups is {self.cups}; give at least 2, so that there is a swap")
        if not 0 < self.balls < self.cups:
            raise ValueError(f"balls is {self.balls}; give 1 to {self.cups - 1}, one cup is free")
        _check_lengths("swaps", self.swaps, self.longest)

    @property
    def lengths(self) -> tuple[int, int]:
        """The fewest and the most swaps of a problem."""
        return self.swaps

    def states(self) -> Sequence[int]:
        """The cups, counted from 1."""
        return range(1, self.cups + 1)

    def move_words(self) -> Sequence[str]:
        """All pairs of cups, the smaller number first: ``1-2``, ``1-3``, ..."""
        return [f"{a}-{b}" for a, b in combinations(self.states(), 2)]

    def start(self, generator: torch.Generator) -> State:
        """Put each ball under a cup of its own."""
        cups: list[int] = torch.randperm(self.cups, generator=generator)[: self.balls].tolist()
        return tuple(cup + 1 for cup in cups)

    def can_start(self, state: State) -> bool:
        """Say whether each ball is under a cup of its own."""
        return len(state) == len({*state} & {*self.states()}) == self.balls

    def apply(self, state: State, move: str) -> State:
        """Swap two cups, with what is under them."""
        a, b = (int(cup) for cup in move.split("-"))
        return tuple({a: b, b: a}.get(cup, cup) for cup in state)

    def mistaken(self, state: State, generator: torch.Generator) -> State:
        """Return ``state`` with one ball under a cup that is free."""
        free = [cup for cup in self.states() if cup not in state]
        ball = _integer(0, len(state), generator)
        wrong = free[_integer(0, len(free), generator)]
        return (*state[:ball], wrong, *state[ball + 1 :])


@dataclass(frozen=True)
class Walk(StateTask):
    """Someone walks on the number line; where do they arrive?

    They start at a place from 0 to 9. A move is one or two places to the right, ``>`` or ``>>``, or
    to the left; ``moves`` are the fewest and the most. The order of the moves does not matter, as
    it does in the `ShellGame`: the answer is a sum, which needs no state in between.

    Raises ``ValueError`` for numbers of moves that cannot be.
    """

    moves: tuple[int, int] = (1, 12)
    longest: int = 12

    def __post_init__(self) -> None:
        """Check the numbers."""
        _check_lengths("moves", self.moves, self.longest)

    @property
    def lengths(self) -> tuple[int, int]:
        """The fewest and the most moves of a problem."""
        return self.moves

    def states(self) -> Sequence[int]:
        """All places that can be reached, if each move also slips by one."""
        reach = 3 * self.longest
        return range(-reach, 9 + reach + 1)

    def move_words(self) -> Sequence[str]:
        """Two or one to the left, one or two to the right."""
        return ["<<", "<", ">", ">>"]

    def start(self, generator: torch.Generator) -> State:
        """Start at a place from 0 to 9."""
        return (_integer(0, 10, generator),)

    def can_start(self, state: State) -> bool:
        """Say whether it is one place from 0 to 9."""
        return len(state) == 1 and state[0] in range(10)

    def apply(self, state: State, move: str) -> State:
        """Go as many places as the word has arrows."""
        return (state[0] + (len(move) if ">" in move else -len(move)),)

    def mistaken(self, state: State, generator: torch.Generator) -> State:
        """Return a neighbor of ``state``."""
        return (state[0] + (1 if _chance(0.5, generator) else -1),)


# --- tasks of others ---------------------------------------------------------------------------


class ReasoningGym:
    """A generator of reasoning-gym, behind the protocol of this module, read byte by byte.

    ``settings`` are those of the generator. A prompt is its question, and the answer is scored as
    the generator says, which may accept answers that differ from its own. There are no steps, so
    the only style is a direct answer. Texts end with the control character ETX.

    Source: Stojanovski et al., arXiv 2505.24760. Needs the package reasoning-gym; raises
    ``ImportError`` without it, and ``ValueError`` for a generator that it does not have.
    """

    vocabulary_size: Final = 256
    end: Final = 3

    def __init__(self, name: str, **settings: Any) -> None:  # noqa: ANN401 the generator's own
        """Look the generator up."""
        try:
            gym: Any = importlib.import_module("reasoning_gym")
        except ImportError as error:
            error.add_note("install it with: pip install reasoning-gym==0.1.25")
            raise
        if name not in gym.factory.DATASETS:
            known = ", ".join(sorted(gym.factory.DATASETS))
            raise ValueError(f"reasoning-gym has no generator {name!r}; it has {known}")
        self.name, self.settings = name, settings
        self._create: Callable[..., Any] = gym.create_dataset

    def sample(self, generator: torch.Generator) -> Problem:
        """Draw a problem; its ``entry`` is all that the generator tells about it."""
        seed = _integer(0, 2**31, generator)
        entry = self._create(self.name, seed=seed, size=1, **self.settings)[0]
        return Problem(entry["question"], entry["answer"] or "", entry)

    def trace(
        self,
        problem: Problem,
        style: Style = "direct",
        *,
        slips: float = 0.0,
        noticed: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> str:
        """Return the answer; ``ValueError`` if steps or slips are asked for, or none is known."""
        if style != "direct" or slips:
            raise ValueError(
                f"style is {style!r} and slips is {slips}, but there are no steps; use direct and 0"
            )
        if not problem.answer:
            raise ValueError(f"{self.name} has no answer of its own for {problem.prompt!r}")
        return problem.answer + self.decode(torch.tensor([self.end]))

    def extract(self, text: str) -> str | None:
        """Return the text without its end, or ``None`` if it has not ended."""
        answer, end, after = text.partition(self.decode(torch.tensor([self.end])))
        return answer.strip() if end and not after else None

    def verify(self, problem: Problem, text: str) -> bool:
        """Say whether the generator gives the answer its full score."""
        return self.score(problem, text) >= 1

    def score(self, problem: Problem, text: str) -> float:
        """Return the generator's own score from 0 to 1; ``ValueError`` for another's problem."""
        if problem.entry is None:
            raise ValueError("the problem has no entry to score against; draw it with sample")
        dataset = self._create(self.name, seed=0, size=1, **self.settings)
        return float(dataset.score_answer(self.extract(text), problem.entry))

    def encode(self, text: str) -> Int64[Tensor, "N"]:
        """Return the bytes ``[N]`` of a text in UTF-8, as int64."""
        return torch.tensor(list(text.encode()), dtype=torch.int64)

    def decode(self, tokens: Integer[Tensor, "N"]) -> str:
        """Return the text of bytes ``[N]``; what is not UTF-8 becomes U+FFFD.

        Raises ``ValueError`` for what is no byte.
        """
        numbers = _numbers(tokens)
        if outside := [number for number in numbers if not 0 <= number < 256]:
            raise ValueError(
                f"token {outside[0]} is no byte, from 0 to 255; decode what was read so"
            )
        return bytes(numbers).decode(errors="replace")


# --- details -----------------------------------------------------------------------------------


def _numbers(tokens: Tensor) -> list[int]:
    tokens = whole("tokens", tokens, "pass int64 [N]")
    if tokens.ndim != 1:
        raise ValueError(f"tokens has shape {tuple(tokens.shape)}; pass [N]")
    numbers: list[int] = tokens.tolist()
    return numbers


def _label(number: int) -> str:
    return f"({number})"


def _written(state: State) -> str:
    return " ".join(map(str, state))


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))


def _chance(share: float, generator: torch.Generator) -> bool:
    # Not in torch's default type: another would draw other numbers.
    return bool(torch.rand((), generator=generator, dtype=torch.float32) < share)


def _check_lengths(name: str, lengths: tuple[int, int], longest: int) -> None:
    low, high = lengths
    if not 1 <= low <= high:
        raise ValueError(f"{name} is {lengths}; give the fewest and the most, such as (1, 12)")
    if high > longest:
        raise ValueError(f"{name} is {lengths} but longest is {longest}; give longest={high}")
