"""A learner's notebook at work: its cells run in a worker, and its functions callable from here."""

import base64
import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from slingshot_exercises.checking import NoAnswerError
from slingshot_grader import wire
from slingshot_grader.link import Link, WorkerGoneError

MOST_RESTARTS = 8
MOST_MODULES = 200


@dataclass(frozen=True)
class Limits:
    """What one submission may use: seconds for a cell, a call and in all, and bytes of memory.

    The seconds are of computing, so that points do not depend on what else the machine does. On the
    clock ``patience`` times as much may pass, which bounds a notebook that sleeps.
    """

    cell: float = 30.0
    call: float = 10.0
    total: float = 120.0
    memory: int = 4_000_000_000
    patience: float = 3.0


@dataclass
class Run:
    """A cell, what it showed, and why it was stopped if it was.

    ``number`` is its place among the code cells of the learner's file, 0 if it is not there.
    """

    source: str
    grade_id: str
    number: int = 0
    outputs: list[Any] = field(default_factory=list)
    stopped: str = ""
    done: bool = False


class SessionOverError(Exception):
    """The submission has used up its time or its restarts."""


class RemoteError(Exception):
    """An exception that the learner's function raised. Subclasses carry its name."""

    line = ""


class Session:
    """Runs cells, and starts the worker again without a cell that ended it."""

    def __init__(self, start: Callable[[], Link], cells: Sequence[Run], limits: Limits) -> None:
        """Take the cells in their order; nothing runs yet."""
        self.start = start
        self.cells = cells
        self.limits = limits
        self.deadline = time.monotonic() + limits.total * limits.patience
        self.starts = 0
        self.last_call = 0
        self.library: list[str] = []
        self.link: Link | None = None

    def run_all(self) -> None:
        """Run every cell once; raise ``SessionOverError`` when that takes too long."""
        self.restart()
        for cell in self.cells:
            if not cell.done:
                self.run(cell)

    def restart(self) -> None:
        """Start a worker and run again what has run, without what ended a worker."""
        interrupted = self.link is not None and self.link.stop.is_set()
        self.close()
        if interrupted:
            raise SessionOverError("grading was interrupted")
        if self.starts > MOST_RESTARTS:
            raise SessionOverError(f"its process had to be started {self.starts} times")
        self.starts += 1
        self.link = self.start()
        for cell in self.cells:
            if cell.done and not cell.stopped:
                try:
                    self.ask(self.limits.cell, do="run", source=cell.source)
                except WorkerGoneError as error:
                    cell.stopped = str(error)
                    return self.restart()
        return None

    def run(self, cell: Run) -> None:
        """Run one cell and keep what it shows."""
        try:
            reply = self.ask(self.limits.cell, do="run", source=cell.source)
        except WorkerGoneError as error:
            cell.done, cell.stopped = True, str(error)
            self.restart()
        else:
            cell.done, cell.stopped = True, read_text(reply.get("late"), 100)
            cell.outputs = list(read_outputs(reply.get("outputs")))
            library = reply.get("library")
            if isinstance(library, list):
                self.library = [read_text(each, 100) for each in library[:MOST_MODULES]]

    def ask(self, seconds: float, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask the worker, within what is left of the time."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise SessionOverError("the time for a submission is over")
        if self.link is None:
            raise SessionOverError("it has no process")
        clock = min(seconds * self.limits.patience, left)
        return self.link.ask(seconds, clock, **request)

    def look_up(self, name: str) -> Any:  # noqa: ANN401
        """Return what a name of the learner stands for; raise ``KeyError`` if for nothing."""
        try:
            reply = self.ask(self.limits.call, do="look_up", name=name)
            kind = reply.get("kind")
            if kind == "value":
                return wire.decode(reply.get("value"))
        except (WorkerGoneError, wire.WireError) as error:
            self.restart()
            raise NoAnswerError(f"the process of the notebook {error}") from error
        if kind == "function":
            return RemoteFunction(self, name)
        raise KeyError(name)

    def call(self, name: str, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call a function of the learner; what it changes in its arguments is changed here."""
        encoded = wire.encode(tuple(arguments)), wire.encode(keywords)
        reply = self.ask_for_answer(
            do="call", name=name, arguments=encoded[0], keywords=encoded[1], call=self.next_call()
        )
        try:
            result = wire.decode(reply["result"])
            for index, content in reply["changed"]:
                write_back(arguments[index], wire.decode(content))
        except (wire.WireError, KeyError, TypeError, ValueError, IndexError) as error:
            raise self.no_answer("it sends what is no answer") from error
        return result

    def backward(self, call: int, gradients: list[Any]) -> list[Any]:
        """Return the gradients of an earlier call by its arguments."""
        reply = self.ask_for_answer(do="backward", call=call, gradients=wire.encode(gradients))
        try:
            return list(wire.decode(reply["gradients"]))
        except (wire.WireError, KeyError, TypeError) as error:
            raise self.no_answer("it sends what is no gradient") from error

    def next_call(self) -> int:
        """Return the number by which ``backward`` names the call that follows."""
        self.last_call += 1
        return self.last_call

    def ask_for_answer(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask for what a function of the learner does; raise what it raises."""
        try:
            reply = self.ask(self.limits.call, **request)
        except WorkerGoneError as error:
            raise self.no_answer(f"it {error}") from error
        if late := read_text(reply.get("late"), 100):
            raise NoAnswerError(f"it {late}")
        if "raised" in reply:
            raise remote_error(reply["raised"])
        return reply

    def no_answer(self, why: str) -> NoAnswerError:
        """Start the worker again for the tests that follow, and return the error to raise."""
        with contextlib.suppress(SessionOverError):
            self.restart()
        return NoAnswerError(why)

    def close(self) -> None:
        """End the worker."""
        if self.link is not None:
            self.link.end()
            self.link = None


class RemoteFunction:
    """A function of the learner, called in the worker. To a check it is like any other function."""

    def __init__(self, session: Session, name: str) -> None:
        """Stand for the function of that name."""
        self.session = session
        self.__name__ = name

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        """Send the arguments, and return what comes back, with gradients if there are any."""
        result = self.session.call(self.__name__, arguments, keywords)
        leaves = [value for value in arguments if wire.needs_gradient(value)]
        if not leaves:
            return result
        return connect(result, leaves, self.session, self.session.last_call)


def connect(result: Any, leaves: list[Any], session: Session, call: int) -> Any:  # noqa: ANN401
    """Return the result with its tensors tied to the ``leaves`` by the worker's gradients."""
    import torch

    class Remote(torch.autograd.Function):
        """Forward has happened elsewhere, and backward does, too."""

        @staticmethod
        def forward(ctx: Any, *values: Any) -> Any:  # noqa: ANN401
            return tuple(end.detach().clone() for end in ends)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:  # noqa: ANN401
            return tuple(session.backward(call, list(gradients)))

    ends = wire.gradient_ends(result)
    if not ends:
        return result
    tied = iter(Remote.apply(*leaves))  # type: ignore[no-untyped-call]
    return replace_ends(result, tied)


def replace_ends(result: Any, tied: Any) -> Any:  # noqa: ANN401
    """The result with each such tensor replaced by the next of ``tied``."""
    if isinstance(result, list | tuple):
        return type(result)(replace_ends(part, tied) for part in result)
    return next(tied) if wire.needs_gradient(result) else result


# --- what a worker that was taken over may have made up ------------------------------------------


def read_text(value: Any, longest: int) -> str:  # noqa: ANN401 a stranger's JSON
    """A text, cut; empty where it is none."""
    return value[:longest] if isinstance(value, str) else ""


def read_outputs(data: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """The outputs of a cell, each in one of the forms that ``worker.Outputs`` has; no others."""
    for item in data[: wire.MOST_OUTPUTS] if isinstance(data, list) else ():
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            yield read_output(item)


def read_output(item: Any) -> dict[str, Any]:  # noqa: ANN401
    """One output; raise of several kinds where it is none."""
    longest = 2 * wire.MOST_TEXT  # the worker keeps to one, and says that it cut
    if "stream" in item:
        return {name: read_text(item[name], longest) for name in ("stream", "text")}
    if "error" in item:
        name, value, trace = item["error"]
        return {"error": [read_text(part, longest) for part in (name, value, trace)]}
    kind = "result" if "result" in item else "display"
    shown = {"text/plain": read_text(item[kind].get("text/plain"), longest)}
    picture = item[kind].get("image/png")
    if isinstance(picture, str) and len(picture) <= wire.MOST_IMAGE:
        shown["image/png"] = re.sub(r"[^A-Za-z0-9+/=]", "", picture)
        base64.b64decode(shown["image/png"])
    return {kind: shown}


def remote_error(content: Any) -> Exception:  # noqa: ANN401 a stranger's JSON
    """Return an exception of the name, the text and the line that the worker reports."""
    try:
        name, text, line = (read_text(part, 1000) for part in content)
    except (TypeError, ValueError):
        name, text, line = "Exception", "", ""
    if name == "NotImplementedError":
        return NotImplementedError(text)
    kind = type(name if name.isidentifier() else "Exception", (RemoteError,), {"line": line})
    error: Exception = kind(text)
    return error


def write_back(old: Any, new: Any) -> None:  # noqa: ANN401
    """Make ``old`` what the learner's function has made of its copy."""
    if isinstance(old, dict) and isinstance(new, dict):
        old.clear()
        old.update(new)
    elif isinstance(old, list) and isinstance(new, list):
        old[:] = new
    elif hasattr(old, "shape") and hasattr(new, "shape") and old.shape == new.shape:
        if hasattr(old, "detach"):
            old.detach().copy_(new)
        else:
            old[...] = new
    else:
        raise NoAnswerError("it changes the kind or the shape of an argument")
