"""The check of ``verify``."""

from collections.abc import Callable

import numpy as np
import torch

from slingshot.tasks import ANSWER, END, Problem, ShellGame
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
        Mistake("it accepts nothing", lambda answer, text: False),
        Mistake("it accepts everything", lambda answer, text: True),
    ],
    explain=_explain_verdict,
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
