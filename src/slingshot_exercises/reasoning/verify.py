"""The check of ``verify``."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from slingshot.tasks import ANSWER, END, ShellGame
from slingshot_exercises.checking import (
    EXACT,
    Answer,
    Case,
    Exercise,
    Learner,
    Mistake,
    UnusableError,
    describe_kind,
)
from slingshot_exercises.domain import Domain, Draw

GAME = ShellGame(swaps=(2, 4))


def verdict(answer: object) -> bool:
    """Read True or False, and nothing that is only as good as one of them."""
    if isinstance(answer, bool | np.bool_):
        return bool(answer)
    raise UnusableError(f"it returns {describe_kind(answer)}; return True or False")


def _verify(answer: str, text: str) -> bool:
    ending = [ANSWER, *answer.split(), END]
    return text.split()[-len(ending) :] == ending


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


VERIFY = Exercise(
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
        Mistake(
            "the end is compared letter by letter: `=` may be the end of another word, as in `6 != "
            "7 $`",
            lambda answer, text: " ".join(text.split()).endswith(f"{ANSWER} {answer} {END}"),
        ),
        Mistake(
            "the text is cut at the letter `=`, which may be a part of another word, as in `x= 7 "
            "$`; cut it into words first",
            lambda answer, text: (
                ANSWER in text and text.rpartition(ANSWER)[2].split() == [*answer.split(), END]
            ),
        ),
        Mistake(
            "the letters `$` are taken off the end; neither `= 7$` nor `= 7 $ $` ends in one word "
            "`$` after the answer",
            lambda answer, text: (
                ANSWER in text
                and END in text.rpartition(ANSWER)[2]
                and text.rpartition(ANSWER)[2].strip().strip(END).split() == answer.split()
            ),
        ),
        Mistake(
            "white space is removed altogether; `65` is one word, and `6 5` are two",
            lambda answer, text: "".join(text.split()).endswith(
                "".join([ANSWER, *answer.split(), END])
            ),
        ),
        Mistake(
            "the text is split at every single space; several spaces in a row separate two words",
            lambda answer, text: (
                text.replace("\n", " ").strip().split(" ")[-len(answer.split()) - 2 :]
                == [ANSWER, *answer.split(), END]
            ),
        ),
        Mistake("it accepts nothing", lambda answer, text: False),
        Mistake("it accepts everything", lambda answer, text: True),
    ],
    explain=_explain_verdict,
    lesson="To the prediction: all answers that there are, one after another, without any thought. "
    "It costs the same on every problem and is always paid.",
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


def _usual(rng: np.random.Generator) -> Sequence[Case]:
    cases = [{"answer": answer, "text": text} for answer, texts in TEXTS.items() for text in texts]
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
    return cases


ANSWERS = "7", "6 5", "3 1 4"


def _made(*changes: str, answers: Sequence[str] = ANSWERS) -> Draw:
    """Texts in which ``{0}`` is the answer and ``{1}`` stands for it with other white space."""

    def draw(rng: np.random.Generator) -> list[Case]:
        spaces = ["  ", "\t", "\n", " \n ", "\r\n"]
        return [
            {"answer": answer, "text": change.format(answer, space.join(answer.split()))}
            for change in changes
            for answer in answers
            for space in [spaces[int(rng.integers(len(spaces)))]]
        ]

    return draw


DOMAIN = Domain(
    "`answer` has one word or more, with single spaces between them, and neither `=` nor `$` in "
    "it. `text` is any text. White space is a space, a tab or a line end, one or several; marks "
    "that are glued to a word, as in `7$`, are a part of that word.",
    _usual,
    {
        "there is odd white space": _made(
            "=  {0}  $",
            "=\t{0}\t$",
            "=\n{0}\n$",
            "= {0} $\n",
            "  = {0} $  ",
            "\n= {0} $\n\n",
            "(1) 2-6 6 5\t= {0}\n$",
            "x\r\n= {0}\r\n$\r\n",
        ),
        "there is odd white space within the answer": _made("= {1} $", "x = {1}\n$"),
        "the words of the answer are glued": _made("= 65 $", "= 6,5 $", "= 6 5$", answers=["6 5"]),
        "`=` is glued to a word": _made("={0} $", "x= {0} $", "6 ={0} $", "x={0} $", "== {0} $"),
        "`=` is a part of another word": _made("!= {0} $", "6 != {0} $", ">= {0} $", "= x= {0} $"),
        "`$` is glued to a word": _made("= {0}$", "= {0} $x", "= {0} x$", "= {0}$ $", "= {0} $."),
        "`$` stands twice": _made(
            "= {0} $ $", "= {0} $$", "$ = {0} $", "= $ {0} $", "= 1 $ = {0} $"
        ),
        "`=` stands twice": _made("= = {0} $", "= {0} = $", "= {0} = {0} $", "= {0} $ = {0} $"),
        "the answer is glued to others": _made("= 1{0} $", "= {0}1 $", "= -{0} $", "= {0}. $"),
        "the answer stands twice": _made("= {0} {0} $", "{0} = {0} $", "{0} $ {0}"),
        "only a part of the answer is there": _made("= 6 $", "= 5 $", "= $", answers=["6 5"]),
        "the text is short": _made("", " ", "\n", "=", "$", "= $", "{0}", "{0} $", "= {0}"),
        "the answer is no number": _made(
            "= {0} $", "= 3x5 $", "= 35 $", "= 3.55 $", "= A $", answers=["3.5", "a", "x+1", "(2)"]
        ),
    },
)


def check_verify(function: Learner, *, seed: int = 0) -> str:
    """Check ``verify(answer, text)``: whether a text ends in ``=``, the answer and ``$``.

    Raises :class:`~slingshot_exercises.checking.CheckFailed`.
    """
    return DOMAIN.check(VERIFY, function, seed)
