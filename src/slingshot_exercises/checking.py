"""What the checks share: how a function is tried, and how a failure is told.

A check has cases, a reference and a list of known mistakes. Each known mistake is itself a
function: it computes what the wrong formula gives. When a learner's answers are wrong and equal
those of a known mistake on *every* case, the failure carries its name. Otherwise the failure says
how the answers differ. Either way it shows the first input that is answered wrongly, what was
expected, what came back, and how large a difference would have been let through and why.
"""

import copy
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

Case = Mapping[str, Any]
"""One input: the arguments by name, in the order of the function's parameters."""

Answer = Any
"""What a function returned, after ``read`` has turned it into floats, texts or NumPy arrays."""

Learner = Callable[..., Any]
"""What a learner wrote."""

UNIT_ROUNDOFF = 2.0**-53
"""The largest relative error of one rounding to float64."""

NOT_WRITTEN = "not written yet: replace `raise NotImplementedError()` by your own lines"


class CheckFailed(AssertionError):  # noqa: N818 it is what happened, and the learner reads it
    """A function that does not do what its exercise asks, and the likely reason.

    ``exercise`` is its name, ``mistake`` one sentence; ``case``, ``expected``, ``got`` and
    ``allowed`` are texts, empty where they do not apply. ``str()`` puts them together.
    """

    def __init__(
        self,
        exercise: str,
        mistake: str,
        *,
        case: str = "",
        expected: str = "",
        got: str = "",
        allowed: str = "",
    ) -> None:
        """Compose the message."""
        rows = {"input": case, "expected": expected, "got": got, "allowed": allowed}
        lines = [f"  {name:9} {_indent(text)}" for name, text in rows.items() if text]
        super().__init__("\n".join([f"{exercise}: {mistake}", *lines]))
        self.exercise = exercise
        self.mistake = mistake
        self.case = case
        self.expected = expected
        self.got = got
        self.allowed = allowed

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the message alone. The frames of a check say nothing to a learner."""
        return [f"{type(self).__name__}: {self}"]


class UnusableError(Exception):
    """An answer of the wrong kind, such as ``None`` or a text; the message says what to return."""


class NoAnswerError(Exception):
    """A call that came to no end. The grader raises it for a function that it had to stop."""


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer: the sentence that names it, and what it computes.

    ``function`` takes the arguments of the exercise. It may return what only *it* gets wrong; it is
    compared with the learner's answers on every case.
    """

    message: str
    function: Callable[..., Any]


@dataclass(frozen=True)
class Tolerance:
    """How far an answer may be from the expected one, by derivation and not by taste.

    ``bound(case, expected)`` is an absolute difference, of the shape of the answer or one for all;
    ``reason`` says where it comes from.
    """

    bound: Callable[[Case, Answer], Any]
    reason: str


EXACT = Tolerance(lambda case, expected: 0.0, "no difference: the answer is exact")


def roundings(count: int) -> Tolerance:
    """Allow for ``count`` roundings to float64 in the learner's formula, and as many in ours.

    A chain of n products, quotients and sums of numbers of one sign has a relative error of at most
    n u / (1 - n u), with u = 2^-53, in whatever order they are done (Higham, Accuracy and Stability
    of Numerical Algorithms, lemma 3.1).
    """
    relative = 2 * count * UNIT_ROUNDOFF / (1 - count * UNIT_ROUNDOFF)

    def bound(case: Case, expected: Answer) -> Any:  # noqa: ANN401 a float or an array
        return relative * np.abs(np.asarray(expected, dtype=float))

    return Tolerance(
        bound, f"a relative difference of {relative:.1e}, {count} roundings in each of two formulas"
    )


# --- reading an answer -----------------------------------------------------------------------


def number(answer: object) -> float:
    """Read one real number; NaN is a number here, and is then found to be the wrong one."""
    scalar = _plain(answer)
    if isinstance(scalar, np.ndarray) and scalar.ndim == 0:
        scalar = scalar.item()
    if isinstance(scalar, Real) and not isinstance(scalar, bool):
        try:
            return float(scalar)
        except OverflowError:
            return -math.inf if scalar < 0 else math.inf
    raise UnusableError(f"it returns {describe_kind(answer)}; return one number")


def numbers(*names: str) -> Callable[[object], np.ndarray]:
    """Return a reader of a tuple of as many numbers as there are ``names``."""

    def read(answer: object) -> np.ndarray:
        wanted = f"return {len(names)} numbers, ({', '.join(names)})"
        parts = _plain(answer)
        if isinstance(parts, np.ndarray):
            parts = list(parts) if parts.ndim == 1 else None
        if not isinstance(parts, list | tuple) or len(parts) != len(names):
            raise UnusableError(f"it returns {describe_kind(answer)}; {wanted}")
        try:
            return np.array([number(part) for part in parts])
        except UnusableError as error:
            raise UnusableError(f"{error}, {wanted}".replace("; return one number", "")) from None

    return read


def tensor(answer: object) -> np.ndarray:
    """Read a tensor of floats or whole numbers; the shape is compared later."""
    values = _plain(answer)
    if not isinstance(values, np.ndarray):
        raise UnusableError(f"it returns {describe_kind(answer)}; return a tensor or an array")
    if values.dtype.kind not in "fiu":
        raise UnusableError(f"it returns a tensor of {values.dtype}; return numbers")
    return values


def _plain(value: object) -> object:
    """A tensor as a NumPy array, cut from its gradient; anything else as it is."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        values = value.detach().cpu()
        narrow = values.dtype == torch.bfloat16  # which NumPy does not have
        array: np.ndarray = (values.float() if narrow else values).numpy()
        return array
    return np.asarray(value) if isinstance(value, np.generic) else value


def describe_kind(value: object) -> str:
    """Say in a few words what a value is."""
    if value is None:
        return "None (is a `return` missing?)"
    if isinstance(value, str):
        return f"the text {_shorten(repr(value), 60)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    plain = _plain(value)
    if isinstance(plain, np.ndarray):
        return f"a tensor of shape {list(plain.shape)}"
    return f"{_repr(value, 60)}, of type {type(value).__name__}"


# --- trying a function -----------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """What was tried, in order: the cases, the answers, the right ones, and where each case lies.

    ``kinds`` is empty for a usual case, and names the edge otherwise.
    """

    cases: list[Case]
    answers: list[Answer]
    expected: list[Answer]
    kinds: list[str]


@dataclass(frozen=True)
class Exercise:
    """One exercise, or a part of one: its name, the truth, and what usually goes wrong.

    ``read`` turns what a function returns into an answer or raises :class:`UnusableError`. Where no
    known mistake gives all answers, ``explain`` is asked with a case, what was expected and what
    came back; an empty text leaves the word to :func:`difference`. ``part`` then says which of
    several results it is. ``reason`` is what is wrong whatever was computed: earlier parts were
    passed, and so only one thing is likely. ``settle`` brings answers that are equally right, such
    as those to a tie, into one form. ``lesson`` is told to whoever passes: the answer to what the
    exercise let them predict.
    """

    name: str
    reference: Callable[..., Any]
    read: Callable[[object], Answer]
    tolerance: Tolerance
    mistakes: Sequence[Mistake] = ()
    explain: Callable[[Case, Answer, Answer], str] = lambda case, expected, got: ""
    part: str = ""
    reason: str = ""
    settle: Callable[[Case, Answer], Answer] = lambda case, answer: answer
    lesson: str = ""

    def check(
        self,
        function: Callable[..., Any],
        cases: Sequence[Case],
        edges: Mapping[str, Sequence[Case]] | None = None,
    ) -> str:
        """Raise :class:`CheckFailed` unless ``function`` answers every case as the reference does.

        Cases are best ordered from the simplest to the largest: the first that fails is shown.
        ``edges`` are tried when all others are right, one after another, each under the words that
        say where it lies.
        Returns the sentence for a function that passes.
        """
        if not callable(function):
            raise CheckFailed(self.name, f"it is {describe_kind(function)}; write a function")
        tried = Trial([], [], [], [])
        for kind, drawn in [("", cases), *(edges or {}).items()]:
            for case in drawn:
                tried.cases.append(case)
                tried.answers.append(self.answer(function, case, kind))
                tried.expected.append(self.read(self.reference(*_copies(case))))
                tried.kinds.append(kind)
            self.judge(tried, len(tried.cases) - len(drawn))
        return "\n".join(filter(None, [f"{self.name}: passed", self.lesson]))

    def judge(self, tried: Trial, start: int) -> None:
        """Raise :class:`CheckFailed` for the first wrong answer from ``start`` on, if any is."""
        wrong = [
            index
            for index in range(start, len(tried.cases))
            if not self.accepts(tried.answers[index], tried.expected[index], tried.cases[index])
        ]
        if wrong:
            first = wrong[0]
            texts = [describe(each[first]) for each in (tried.expected, tried.answers)]
            if texts[0] == texts[1]:
                texts = [
                    describe(each[first], digits=17) for each in (tried.expected, tried.answers)
                ]
            raise CheckFailed(
                self.name,
                self.diagnose(tried, wrong),
                case=describe_case(tried.cases[first]),
                expected=texts[0],
                got=texts[1],
                allowed=self.tolerance.reason,
            )

    def answer(self, function: Callable[..., Any], case: Case, kind: str = "") -> Answer:
        """Call the function on copies of the arguments and read what it returns."""
        copies = _copies(case)
        try:
            result = function(*copies)
        except NotImplementedError:
            raise CheckFailed(self.name, NOT_WRITTEN) from None
        except CheckFailed:
            raise
        except NoAnswerError as error:
            raise self.failed(str(error), case, kind) from None
        except Exception as error:
            said = f"it raises {_describe_error(error, function)}"
            raise self.failed(said, case, kind) from error
        changed = [
            name for name, old in zip(case, copies, strict=True) if not same(case[name], old)
        ]
        if changed:
            raise self.failed(f"it changes its argument {changed[0]}; work on a copy", case, kind)
        try:
            return self.read(result)
        except UnusableError as error:
            raise self.failed(str(error), case, kind) from None

    def failed(self, mistake: str, case: Case, kind: str) -> CheckFailed:
        """Return the failure for a case in which no answer can be compared."""
        return CheckFailed(self.name, _only_where(mistake, kind), case=describe_case(case))

    def accepts(self, answer: Answer, expected: Answer, case: Case) -> bool:
        """Whether the answer is the expected one, up to rounding and what the statement leaves."""
        bound = self.tolerance.bound(case, expected)
        return close(self.settle(case, answer), self.settle(case, expected), bound)

    def diagnose(self, tried: Trial, wrong: Sequence[int]) -> str:
        """Return the message of the known mistake that gives these answers, or how they differ."""
        if self.reason:
            return self.reason
        known = self.recognize(tried)
        if known:
            return known
        first = wrong[0]
        said = self.explain(tried.cases[first], tried.expected[first], tried.answers[first])
        said = said or difference(tried.answers, tried.expected, first)
        said = _only_where(said, tried.kinds[first])
        return f"{self.part}: {said}" if self.part else said

    def recognize(self, tried: Trial) -> str:
        """Return the message of the known mistake that gives these answers on every case."""
        for mistake in self.mistakes:
            with np.errstate(all="ignore"):
                # A wrong formula rounds like the right one, so it gets the same bound.
                if all(
                    self.accepts(answer, self.read(mistake.function(*_copies(case))), case)
                    for answer, case in zip(tried.answers, tried.cases, strict=True)
                ):
                    return mistake.message
        return ""


def _only_where(mistake: str, kind: str) -> str:
    """Add where the answer is wrong, if it is at an edge only."""
    return f"{mistake}; only where {kind}" if kind else mistake


def same(a: object, b: object) -> bool:
    """Whether two arguments are equal in kind and value, NaN included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    a, b = _plain(a), _plain(b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return a == b or (a != a and b != b)


def close(a: Answer, b: Answer, bound: Any) -> bool:  # noqa: ANN401 a float or an array
    """Whether two answers have one shape and differ by at most ``bound``; NaN equals NaN."""
    if isinstance(a, str) or isinstance(b, str):
        return bool(a == b)
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    with np.errstate(invalid="ignore"):
        near = np.abs(a.astype(float) - b.astype(float)) <= bound
    return bool(np.all(near | (a == b) | (np.isnan(a) & np.isnan(b))))


def _copies(case: Case) -> list[Any]:
    return [copy.deepcopy(value) for value in case.values()]


# --- telling ---------------------------------------------------------------------------------


def difference(answers: list[Answer], expected: list[Answer], first: int) -> str:
    """Say how answers differ that no known mistake explains."""
    answer, right = answers[first], expected[first]
    if isinstance(right, str) or isinstance(answer, str):
        return "it returns the wrong text"
    answer, right = np.asarray(answer), np.asarray(right)
    if answer.shape != right.shape:
        return f"the result has shape {list(answer.shape)}; return {list(right.shape)}"
    if np.isnan(answer).any() and not np.isnan(right).any():
        return "the result holds nan: a division of 0 by 0, or a difference of infinities"
    factor = _common_factor(answers, expected)
    if factor is not None:
        return f"every result is {factor:.6g} times the right one"
    # A step in float32 costs a relative 6e-8. This only words the message; the answer is refused.
    far = sum(not close(a, b, 1e-6 * np.abs(b)) for a, b in zip(answers, expected, strict=True))
    if not far:
        return (
            "the result is close, but not as close as float64 is; is a step rounded, in float32, "
            "or is a small number added?"
        )
    return f"the result is wrong, on {far} of {len(answers)} inputs"


def _common_factor(answers: list[Answer], expected: list[Answer]) -> float | None:
    """The factor between all answers and the right ones, if there is one other than 1."""
    a = np.concatenate([np.ravel(np.asarray(answer, dtype=float)) for answer in answers])
    b = np.concatenate([np.ravel(np.asarray(answer, dtype=float)) for answer in expected])
    if a.shape != b.shape or not np.isfinite(a).all() or not b.any():
        return None
    factor = float(a[np.argmax(np.abs(b))] / b[np.argmax(np.abs(b))])
    fits = np.allclose(a, factor * b, rtol=1e-9, atol=0)
    return factor if fits and abs(factor - 1) > 1e-9 else None


def describe_case(case: Case) -> str:
    """Return the arguments as they would be typed, on a line each if a matrix is among them."""
    texts = []
    for name, value in case.items():
        text = describe(value).replace("\n", "\n" + " " * (len(name) + 1))
        texts.append(f"{name}={text}")
    return (",\n" if any("\n" in text for text in texts) else ", ").join(texts)


def describe(value: object, digits: int = 4) -> str:
    """Return a value as text: numbers in full, tensors with some digits and at most 40 numbers."""
    plain = _plain(value)
    if isinstance(plain, np.ndarray) and plain.ndim:
        if plain.size > 40:
            return f"a tensor of shape {list(plain.shape)}"
        return str(np.array2string(plain, precision=digits, separator=", ", max_line_width=88))
    if isinstance(plain, np.ndarray):
        plain = plain.item()
    if isinstance(plain, Mapping):
        inner = ", ".join(f"{name!r}: {describe(entry)}" for name, entry in plain.items())
        return f"{{{inner}}}"
    if isinstance(plain, list | tuple):
        inner = ", ".join(describe(entry) for entry in plain)
        return f"[{inner}]" if isinstance(plain, list) else f"({inner})"
    return _repr(plain, 200)


def _describe_error(error: Exception, function: Callable[..., Any]) -> str:
    """Kind and text of an error, and the line of the learner's file that it came from."""
    try:
        text = " ".join(_shorten(str(error), 300).split())
    except Exception:
        text = ""
    line = getattr(error, "line", "") or _line_in(function, error)
    kind = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{kind}, in the line `{line}`" if line else kind


def _line_in(function: Callable[..., Any], error: Exception) -> str:
    """The text of the innermost line that lies in the same file or cell as the function."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [
        frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file
    ]
    return (lines or [""])[-1] or ""


def _repr(value: object, length: int) -> str:
    """``repr``, cut to a length, of values whose own ``__repr__`` may raise."""
    try:
        return _shorten(repr(value), length)
    except Exception:
        return f"<{type(value).__name__}>"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _indent(text: str) -> str:
    return text.replace("\n", "\n" + " " * 12)
