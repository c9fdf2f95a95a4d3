"""The check of ``keep``."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from slingshot.tasks import ANSWER, END, WAIT, Problem, ShellGame
from slingshot_exercises.checking import (
    EXACT,
    Answer,
    Case,
    Exercise,
    Learner,
    Mistake,
    UnusableError,
    describe_kind,
    tensor,
)
from slingshot_exercises.domain import Domain, Draw

Sample = Sequence[str]
"""A prompt and a text that was written after it."""


def kept(answer: object) -> np.ndarray:
    """Read the indices of samples, in any order."""
    wanted = "return a list of indices, such as [0, 2]"
    plain = tensor(answer).tolist() if isinstance(answer, torch.Tensor | np.ndarray) else answer
    plain = list(plain) if isinstance(plain, set | frozenset | range | dict) else plain
    whole = isinstance(plain, list | tuple) and all(
        isinstance(each, int | np.integer) and not isinstance(each, bool) for each in plain
    )
    if not whole:
        raise UnusableError(f"it returns {describe_kind(answer)}; {wanted}")
    return np.array(sorted(plain), dtype=np.int64)  # type: ignore[arg-type]


CUPS = frozenset("123456")


def careful(prompt: str, text: str) -> bool:
    """Whether a text is sound: every step of it is right, and it has no other word."""
    return lax()(prompt, text)


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


def right_answer(prompt: str, text: str) -> bool:
    """Whether a text ends in ``=``, the right answer and ``$``, whatever stands before."""
    return _game(prompt).verify(Problem(prompt, _moves_and_states(prompt)[1][-1]), text)


def _equal(said: list[str], right: list[str]) -> bool:
    return said == right


def lax(
    *,
    copied: Callable[[str, str], bool] | None = str.__eq__,
    wait: str = "replaces",
    ending: bool = True,
    silence: bool = False,
    agrees: Callable[[list[str], list[str]], bool] = _equal,
    numbers: bool = True,
    early: bool = False,
) -> Callable[[str, str], bool]:
    """A verifier of steps; as given it asks for all that it should.

    ``wait`` says what a ``!`` does: what stands after it ``"replaces"`` the state, is an
    ``"unknown"`` word, is ``"believed"``, or the state before it ``"stays"``. ``copied`` compares a
    swap with that of the prompt; with None the trace may solve other swaps. ``agrees`` compares a
    state with the right one. With ``silence`` states may be left out, without ``numbers`` any
    words may be taken back, and with ``early`` a ``!`` may stand before any state.
    """

    def sound(prompt: str, text: str) -> bool:
        task = _game(prompt)
        state, moves = task.read(Problem(prompt, ""))
        words, width = text.split(), len(state)
        for number_of_move, move in enumerate(moves, 1):
            label, written = [*words[:2], "", ""][:2]
            known = written in task.move_words() if copied is None else copied(written, move)
            if label != f"({number_of_move})" or not known:
                return False
            state, words = task.apply(state, written if copied is None else move), words[2:]
            right = [str(cup) for cup in state]
            if silence and words[:1] == [f"({number_of_move + 1})"]:
                continue
            if early and words[:1] == [WAIT]:
                words = words[1:]
            said, words = words[:width], words[width:]
            while words[:1] == [WAIT] and wait != "unknown":
                if numbers and not CUPS.issuperset(said):
                    return False
                said = said if wait == "stays" else words[1 : width + 1]
                said = said if wait != "believed" else right
                words = words[width + 1 :]
            if not agrees(said, right):
                return False
        return not ending or words == [ANSWER, *map(str, state), END]

    return sound


def _keep_with(
    sound: Callable[[str, str], bool] = careful,
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
    if careful(prompt, text):
        return "a shorter or an earlier sample of its problem is as right"
    if not right_answer(prompt, text):
        return "it does not end in `=`, the right answer and `$`"
    if text.split()[0] == ANSWER:
        return "it is an answer without a thought"
    if not lax(silence=True)(prompt, text):
        return "one of its steps is wrong, or is none of the problem's"
    return "a state is missing after a swap"


KEEP = Exercise(
    "keep",
    _keep_with(),
    kept,
    EXACT,
    [
        Mistake(
            "only the answer is verified; a lucky guess and a wrong thought are kept, too",
            _keep_with(right_answer),
        ),
        Mistake(
            "traces that leave a state out are kept; after each swap stands a state",
            _keep_with(lax(silence=True)),
        ),
        Mistake(
            "a trace that takes a slip back is refused; after `!` stands the state that counts",
            _keep_with(lax(wait="unknown")),
        ),
        Mistake(
            "what stands after `!` is not verified; it may be wrong as well",
            _keep_with(lax(wait="believed")),
        ),
        Mistake(
            "the state before `!` counts; it is taken back, and the one after it counts",
            _keep_with(lax(wait="stays")),
        ),
        Mistake(
            "the swaps are not compared with the prompt; a trace may solve another problem",
            _keep_with(lax(copied=None)),
        ),
        Mistake(
            "the end is not verified; after the last state must stand `=`, that state and `$`",
            _keep_with(lax(ending=False)),
        ),
        Mistake(
            "the order of the balls is not compared; `5 6` is another state than `6 5`",
            _keep_with(lax(agrees=lambda said, right: sorted(said) == sorted(right))),
        ),
        Mistake(
            "a swap is taken for the same one turned about; copy it as it stands in the prompt",
            _keep_with(lax(copied=lambda written, move: sorted(written) == sorted(move))),
        ),
        Mistake(
            "a `!` before any state is let through; it stands after a state, which it takes back",
            _keep_with(lax(early=True)),
        ),
        Mistake(
            "anything may be taken back; a state is a number from 1 to 6 for each ball, and a text "
            "has no other word",
            _keep_with(lax(numbers=False)),
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
    explain=_explain_kept,
)


class Writer:
    """Writes traces of every kind for one problem."""

    def __init__(self, prompt: str, rng: np.random.Generator) -> None:
        """Solve the problem of a prompt."""
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
        elif kind in ODD:
            return ODD[kind](self, at)
        elif kind == "skip":
            states = [state if n % 2 else "" for n, state in enumerate(states)]
            states[-1] = last
        first = 2 if kind == "wrong label" else 1
        return self.put(moves, states, last, first=first, end="" if kind == "cut off" else END)

    def put(
        self,
        moves: Sequence[str],
        states: Sequence[str],
        last: str,
        *,
        first: int = 1,
        end: str = END,
    ) -> str:
        """Put a text together."""
        pairs = zip(moves, states, strict=True)
        lines = [f"({n}) {move} {state}" for n, (move, state) in enumerate(pairs, first)]
        return " ".join(" ".join([*lines, ANSWER, last, end]).split())

    def with_state(self, at: int, change: Callable[[str], str]) -> str:
        """A text of which one state is changed."""
        states = [
            change(state) if place == at else state for place, state in enumerate(self.states[1:])
        ]
        return self.put(self.moves, states, self.states[-1])

    def with_move(self, at: int, change: Callable[[str], str]) -> str:
        """A text of which one swap is changed."""
        moves = [change(move) if place == at else move for place, move in enumerate(self.moves)]
        return self.put(moves, self.states[1:], self.states[-1])

    @property
    def clean(self) -> str:
        """The text without a fault."""
        return self.put(self.moves, self.states[1:], self.states[-1])

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


ODD: dict[str, Callable[[Writer, int], str]] = {
    "the balls of a state are exchanged": lambda w, at: w.with_state(
        at, lambda state: " ".join(reversed(state.split()))
    ),
    "the balls of the last state are exchanged": lambda w, at: w.clean.replace(
        f"{ANSWER} {w.states[-1]}", f"{ANSWER} {' '.join(reversed(w.states[-1].split()))}"
    ),
    "a swap is turned about": lambda w, at: w.with_move(at, lambda move: move[::-1]),
    "`!` stands before a state": lambda w, at: w.with_state(at, lambda s: f"{WAIT} {s}"),
    "`!` stands after a state that nothing follows": lambda w, at: w.with_state(
        at, lambda s: f"{s} {WAIT}"
    ),
    "`!` stands twice": lambda w, at: w.with_state(at, lambda s: f"{s} {WAIT} {WAIT} {s}"),
    "`!` stands first": lambda w, at: f"{WAIT} {w.clean}",
    "other words are taken back": lambda w, at: w.with_state(
        at, lambda s: f"{' '.join(['foo'] * len(s.split()))} {WAIT} {s}"
    ),
    "marks are taken back": lambda w, at: w.with_state(
        at, lambda s: f"{' '.join([ANSWER] * len(s.split()))} {WAIT} {s}"
    ),
    "too many words are taken back": lambda w, at: w.with_state(at, lambda s: f"1 {s} {WAIT} {s}"),
    "too few words are taken back": lambda w, at: w.with_state(
        at, lambda s: f"{' '.join(s.split()[1:])} {WAIT} {s}"
    ),
    "a state is too long": lambda w, at: w.with_state(at, lambda s: f"{s} 1"),
    "a state is too short": lambda w, at: w.with_state(at, lambda s: " ".join(s.split()[1:])),
    "a state is glued": lambda w, at: w.with_state(at, lambda s: "".join(s.split()) + "1"),
    "a label is glued to its swap": lambda w, at: w.clean.replace("(1) ", "(1)"),
    "a label has no brackets": lambda w, at: w.clean.replace("(1)", "1"),
    "a swap has another mark": lambda w, at: w.with_move(at, lambda move: move.replace("-", "+")),
    "a step is said twice": lambda w, at: w.put(
        [w.moves[0], *w.moves], [w.states[1], *w.states[1:]], w.states[-1]
    ),
    "the last step is missing": lambda w, at: w.put(w.moves[:-1], w.states[1:-1], w.states[-1]),
    "a step too many follows": lambda w, at: w.put(
        [*w.moves, w.moves[-1]], [*w.states[1:], w.states[-2]], w.states[-2]
    ),
    "words stand before the first label": lambda w, at: f"{w.states[0]} {w.clean}",
    "the prompt is repeated": lambda w, at: f"{w.prompt} {w.clean}",
    "words follow the end": lambda w, at: f"{w.clean} {w.states[-1]}",
    "`$` stands twice": lambda w, at: f"{w.clean} {END}",
    "`$` is glued to the answer": lambda w, at: w.clean.replace(f" {END}", END),
    "`=` is missing": lambda w, at: w.clean.replace(f"{ANSWER} ", ""),
    "`=` stands twice": lambda w, at: w.clean.replace(ANSWER, f"{ANSWER} {ANSWER}"),
    "the answer is missing": lambda w, at: w.put(w.moves, w.states[1:], ""),
    "nothing follows the last state": lambda w, at: w.clean.partition(f" {ANSWER}")[0],
    "the text is empty": lambda w, at: "",
}
"""Texts that are not sound, each by one fault that few think of."""

SOUND: dict[str, Callable[[Writer, int], str]] = {
    "there is odd white space": lambda w, at: "  " + w.clean.replace(" ", " \n", 3) + "\t\n",
    "what is taken back is far from right": lambda w, at: w.with_state(
        at, lambda s: f"{' '.join('6' * len(s.split()))} {WAIT} {s}"
    ),
    "the right state is taken back and said again": lambda w, at: w.with_state(
        at, lambda s: f"{s} {WAIT} {s}"
    ),
    "the last state is taken back": lambda w, at: w.with_state(
        len(w.moves) - 1, lambda s: f"{' '.join('1' * len(s.split()))} {WAIT} {s}"
    ),
    "every state is taken back": lambda w, at: w.put(
        w.moves, [f"{s} {WAIT} {s}" for s in w.states[1:]], w.states[-1]
    ),
}
"""Texts that are sound, each in a way that few think of."""

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


def _writer(rng: np.random.Generator, balls: int, swaps: int) -> Writer:
    """Somebody who has a new problem before them."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    task = ShellGame(balls=balls, swaps=(swaps, swaps))
    return Writer(task.sample(generator).prompt, rng)


def _case(samples: Sequence[Sample], held_out: Sequence[str] = ()) -> Case:
    return {"samples": list(samples), "held_out": list(held_out)}


def _usual(rng: np.random.Generator) -> list[Case]:
    cases = [
        _case([(writer.prompt, writer.write(kind))])
        for balls, swaps in ((2, 3), (1, 2), (3, 4))
        for kind in KINDS
        for writer in [_writer(rng, balls, swaps)]
    ]
    writers = [_writer(rng, 2, 3) for _ in SAMPLES]
    held_out = [writers[3].prompt]
    written = [
        [(writer.prompt, writer.write(kind)) for kind in kinds]
        for writer, kinds in zip(writers, SAMPLES, strict=True)
    ]
    cases += [_case(samples, held_out) for samples in written]
    # Now with the samples of a problem apart from each other.
    apart = [sample for turn in zip(*written, strict=True) for sample in turn]
    return [*cases, _case(apart, held_out)]


def _odd(kind: str, write: Callable[[Writer, int], str]) -> Draw:
    """A sample of this kind alone, for one ball, two and three."""

    def draw(rng: np.random.Generator) -> list[Case]:
        cases = []
        for balls, swaps in ((1, 2), (2, 1), (2, 3), (3, 3)):
            writer = _writer(rng, balls, swaps)
            text = write(writer, int(rng.integers(swaps)))
            if text != writer.clean:  # a single ball cannot be exchanged
                cases.append(_case([(writer.prompt, text)]))
        return cases

    return draw


def _choices(rng: np.random.Generator) -> list[Case]:
    """Samples of equal and unequal lengths, the shortest last, first and not sound."""
    writers = [_writer(rng, 2, 2) for _ in range(2)]
    cases = []
    for kinds in (
        ("taken back", "clean", "clean"),
        ("clean", "taken back", "taken back twice"),
        ("direct", "taken back twice", "taken back"),
        ("skip", "slip", "direct"),
    ):
        cases.append(_case([(w.prompt, w.write(kind)) for kind in kinds for w in writers]))
    # Fewer words and more letters.
    writer = writers[0]
    wide = writer.clean.replace(" ", "     ")
    cases.append(_case([(writer.prompt, writer.write("taken back")), (writer.prompt, wide)]))
    return cases


def _held_out(rng: np.random.Generator) -> list[Case]:
    writers = [_writer(rng, 2, 2) for _ in range(3)]
    samples = [(writer.prompt, writer.clean) for writer in writers]
    prompts = [prompt for prompt, _ in samples]
    return [
        _case(samples, prompts),
        _case(samples, prompts[1:]),
        _case(samples, [prompts[0], prompts[0]]),
        _case(samples, [f"{prompts[0]} x", prompts[1][:-2]]),
    ]


DOMAIN = Domain(
    "There may be no sample at all, and any prompt may be held out. A text is any text, even an "
    "empty one, and its words are separated by white space, as in the third exercise.",
    _usual,
    {
        **{kind: _odd(kind, write) for kind, write in (SOUND | ODD).items()},
        "there is no sample": lambda rng: [_case([]), _case([], ["2 5 (1) 2-6 ?"])],
        "several samples of a problem are sound": _choices,
        "problems are held out": _held_out,
    },
)


def check_keep(function: Learner, *, seed: int = 0) -> str:
    """Check ``keep(samples, held_out)``: indices of verified traces, one for each problem.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`. Source: rejection sampling,
    arXiv 2501.12948, §2.3.
    """
    return DOMAIN.check(KEEP, function, seed)
