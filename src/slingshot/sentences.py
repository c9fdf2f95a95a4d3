"""The shell game in English sentences, for a model that has learned to read English.

A real language model has its own tokens. So the words of `slingshot.tasks.ShellGame` become
sentences, and what a model writes is read back, so that the game's own verifiers can judge it::

    prompt    There are 6 cups in a row, A to F, with balls under B and E. Swap B and F, A and D.
              Where are the balls?
    direct     The balls are under F and E.<|im_end|>
    careful    Swap B and F: F and E. Swap A and D: F and E. The balls are under F and E.<|im_end|>
    a slip     Swap B and F: F and A. No: F and E. ...

Cups have letters, since a letter and the space before it are one token of SmolLM2, and a digit is
two. The order of the balls counts: the first letter is the ball that was named first.
"""

import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import torch
from jaxtyping import Int64, Integer
from tokenizers import Tokenizer
from torch import Tensor

from slingshot.tasks import ANSWER, ASK, END, WAIT, Opening, Problem, ShellGame, Style
from slingshot.tensors import whole

END_OF_TEXT: Final = "<|im_end|>"
"""What SmolLM2 writes at the end of an answer: one token."""

_CUPS: Final = r"[A-Z](?: and [A-Z])*"
_MOVES: Final = r"[A-Z] and [A-Z](?:, [A-Z] and [A-Z])*"
_PROMPT: Final = re.compile(
    rf"There are (\d+) cups in a row, A to ([A-Z]), with balls? under ({_CUPS})\. "
    rf"Swap ({_MOVES})\. Where (?:are the balls|is the ball)\?"
)
_STEP: Final = re.compile(rf" Swap ({_MOVES}): ({_CUPS})\.((?: No: {_CUPS}\.)*)")
_ANSWER: Final = re.compile(rf"The balls? (?:are|is) under ({_CUPS})\.")


@dataclass(frozen=True)
class SpokenGame:
    """A shell game whose problems and texts are sentences: a `slingshot.tasks.Task`.

    ``game`` draws the problems, writes the traces and judges; ``tokenizer`` is that of the model
    that reads, whose token for `END_OF_TEXT` ends a text. Raises ``ValueError`` for more cups than
    there are letters, and for a tokenizer without that token.
    """

    tokenizer: Tokenizer = field(repr=False, compare=False)
    game: ShellGame = field(default_factory=ShellGame)

    def __post_init__(self) -> None:
        """Check that each cup has a letter, and a text an end."""
        if self.game.cups > 26:
            raise ValueError(f"cups is {self.game.cups}; give at most 26, one for each letter")
        if self.tokenizer.token_to_id(END_OF_TEXT) is None:
            raise ValueError(f"the tokenizer has no {END_OF_TEXT}; give that of load_smollm2")

    @property
    def vocabulary_size(self) -> int:
        """Tokens are from 0 to this, exclusive."""
        return self.tokenizer.get_vocab_size()

    @cached_property
    def end(self) -> int:
        """The token that ends a text."""
        token = self.tokenizer.token_to_id(END_OF_TEXT)
        assert token is not None
        return token

    def with_swaps(self, fewest: int, most: int) -> "SpokenGame":
        """Return the same with another number of swaps; ``ValueError`` if there can be none."""
        return replace(self, game=replace(self.game, swaps=(fewest, most)))

    # From words to sentences ------------------------------------------------------------------

    def say(self, problem: Problem) -> Problem:
        """Return a problem of the game in sentences; ``ValueError`` if it is of another."""
        start, moves = self.game.read(problem)
        last = _letter(self.game.cups)
        many = len(start) > 1
        balls, question = ("balls", "are the balls") if many else ("ball", "is the ball")
        prompt = (
            f"There are {self.game.cups} cups in a row, A to {last}, with {balls} under "
            f"{_cups(start)}. Swap {', '.join(map(_pair, moves))}. Where {question}?"
        )
        return Problem(prompt, _cups(problem.answer.split()))

    def say_text(self, text: str) -> str:
        """Return a text of the game in sentences, be it right or wrong, whole or an opening.

        Raises ``ValueError`` for what has no sentence: a label that is not the next one, a move
        that is none of the game or has no state after it, or a state of another number of balls.
        """
        words, done = text.split(), 0
        said: list[str] = []
        while words and words[0] not in (ANSWER, END):
            moves: list[str] = []
            while words[:1] == [f"({done + 1})"] and len(words) > 1:
                moves.append(self._move(text, words[1]))
                words, done = words[2:], done + 1
            state, words = self._state(text, words)
            if not moves:
                raise ValueError(f"{text!r} has no sentence: a state has no swap before it")
            said.append(f" Swap {', '.join(moves)}: {state}.")
            while words[:1] == [WAIT]:
                state, words = self._state(text, words[1:])
                said.append(f" No: {state}.")
        if words[:1] == [ANSWER]:
            state, words = self._state(text, words[1:])
            verb = "balls are" if self.game.balls > 1 else "ball is"
            said.append(f" The {verb} under {state}.")
        if words not in ([], [END]):
            raise ValueError(f"{text!r} has no sentence for {' '.join(words)!r}")
        return "".join(said) + (END_OF_TEXT if words else "")

    def _move(self, text: str, word: str) -> str:
        """Return a move in letters."""
        if word not in self.game.move_words():
            raise ValueError(
                f"{text!r} has no sentence: {word!r} should be two of {self.game.cups} cups, as 1-2"
            )
        return _pair(word)

    def _state(self, text: str, words: list[str]) -> tuple[str, list[str]]:
        """Return a state in letters, and the words after it."""
        state, left = words[: self.game.balls], words[self.game.balls :]
        known = {str(cup) for cup in self.game.states()}
        if len(state) < self.game.balls or not known.issuperset(state):
            raise ValueError(
                f"{text!r} has no sentence: {' '.join(state)!r} should be the cups of "
                f"{self.game.balls} balls"
            )
        return _cups(state), left

    # And back ---------------------------------------------------------------------------------

    def unsay(self, problem: Problem) -> Problem:
        """Return a problem in sentences as one of the game; ``ValueError`` if it is none."""
        if found := _PROMPT.fullmatch(problem.prompt):
            moves = [f"({n}) {move}" for n, move in enumerate(_moves(found[4]), 1)]
            prompt = " ".join([_numbers(found[3]), *moves, ASK])
            asked = Problem(prompt, _numbers(problem.answer))
            with suppress(ValueError):  # balls or swaps that cannot be
                self.game.read(asked)
                # Said again it is the same: so many cups, and as many balls as the verb says.
                if self.say(asked).prompt == problem.prompt:
                    return asked
        raise ValueError(
            f"the prompt {problem.prompt!r} is not one of this game; it is written like "
            f"{self.sample(torch.Generator().manual_seed(0)).prompt!r}"
        )

    def unsay_text(self, text: str) -> str | None:
        """Return a text in sentences as the game writes it; ``None`` if it says anything else."""
        place, words, done = 0, [], 0
        while step := _STEP.match(text, place):
            for move in _moves(step[1]):
                done += 1
                words += [f"({done})", move]
            words.append(_numbers(step[2]))
            words += [f"{WAIT} {_numbers(each)}" for each in re.findall(rf"No: ({_CUPS})", step[3])]
            place = step.end()
        if text[place : place + 1] == " " and (answer := _ANSWER.match(text, place + 1)):
            words += [ANSWER, _numbers(answer[1])]
            place = answer.end()
        if text[place:] not in ("", END_OF_TEXT):
            return None
        return " ".join([*words, END] if text[place:] else words)

    # A task -----------------------------------------------------------------------------------

    def sample(self, generator: torch.Generator) -> Problem:
        """Draw a problem, as the game does."""
        return self.say(self.game.sample(generator))

    def trace(
        self,
        problem: Problem,
        style: Style = "careful",
        *,
        slips: float = 0.0,
        noticed: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> str:
        """Solve a problem in one of the styles; see `slingshot.tasks.StateTask.trace`."""
        asked = self.unsay(problem)
        return self.say_text(
            self.game.trace(asked, style, slips=slips, noticed=noticed, generator=generator)
        )

    def opening(
        self, problem: Problem, step: int, *, generator: torch.Generator | None = None
    ) -> Opening:
        """Write the first steps of a trace; see `slingshot.tasks.StateTask.opening`."""
        opening = self.game.opening(self.unsay(problem), step, generator=generator)
        return Opening(self.say_text(opening.text), _cups(opening.answer.split()))

    def extract(self, text: str) -> str | None:
        """Return the cups in the last sentence that names the answer, whatever stands around it."""
        answers = _ANSWER.findall(text)
        return answers[-1] if answers else None

    def verify(self, problem: Problem, text: str) -> bool:
        """Say whether the answer is right, however the text got there."""
        return self.extract(text) == problem.answer

    def verify_steps(self, problem: Problem, text: str) -> bool:
        """Say whether every step is right, and the answer."""
        return self.first_wrong_step(problem, text) is None

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """Check every step as `slingshot.tasks.StateTask.first_wrong_step` does.

        What is no text of the game goes wrong at move 1.
        """
        written = self.unsay_text(text)
        return 1 if written is None else self.game.first_wrong_step(self.unsay(problem), written)

    def encode(self, text: str) -> Int64[Tensor, "N"]:
        """Return the tokens ``[N]`` int64 of a prompt or a text."""
        return torch.tensor(self.tokenizer.encode(text).ids, dtype=torch.int64)

    def decode(self, tokens: Integer[Tensor, "N"]) -> str:
        """Return the text of tokens ``[N]``, the end included."""
        ids = whole("tokens", tokens).tolist()
        return self.tokenizer.decode(ids, skip_special_tokens=False)


def _letter(cup: int) -> str:
    return chr(ord("A") + cup - 1)


def _cups(numbers: "tuple[int, ...] | list[str]") -> str:
    return " and ".join(_letter(int(number)) for number in numbers)


def _pair(move: str) -> str:
    return _cups(move.split("-"))


def _numbers(cups: str) -> str:
    """Return the numbers of cups that are named by letters, as the game writes them."""
    return " ".join(str(ord(letter) - ord("A") + 1) for letter in re.findall("[A-Z]", cups))


def _moves(text: str) -> list[str]:
    return [_numbers(pair).replace(" ", "-") for pair in text.split(", ")]
