"""The process that runs a learner's code. It is told what to do and trusted with nothing.

It runs cells as a notebook would and calls functions that the cells have defined. It holds no test,
no check, no reference, no expected value and no points. Whatever the learner's code does to this
process, to its modules or to its pipes, it can only change the answers that it gives, and a wrong
answer is a wrong answer.
"""

import argparse
import contextlib
import io
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type

from slingshot_grader import stand_in, wire
from slingshot_grader.confine import confine
from slingshot_grader.wire import (
    MOST_IMAGE,
    MOST_OUTPUTS,
    MOST_TEXT,
    gradient_ends,
    needs_gradient,
)

MOST_IMAGES = 4_000_000  # of all pictures of a cell together
KEPT_TYPES = ("text/plain", "image/png")


class OutOfTime(BaseException):
    """The time is over. It is no ``Exception``, so that a learner's ``except`` lets it pass."""


class Outputs:
    """What a cell shows, in order, and never more than a bounded amount."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.items: list[dict[str, Any]] = []
        self.text_left = MOST_TEXT
        self.images_left = MOST_IMAGES

    def add(self, item: dict[str, Any]) -> None:
        """Keep an output if there is room."""
        if len(self.items) < MOST_OUTPUTS:
            self.items.append(item)

    def write(self, name: str, text: str) -> None:
        """Append text to the last output if it is the same stream; cut it where too much came."""
        if self.text_left <= 0:
            return
        kept = text[: self.text_left]
        self.text_left -= len(kept)
        if self.text_left <= 0:
            kept += "\n[more was printed; it is left out]\n"
        last = self.items[-1] if self.items else {}
        if last.get("stream") == name:
            last["text"] += kept
        else:
            self.add({"stream": name, "text": kept})

    def show(self, data: dict[str, Any], result: bool) -> None:
        """Keep the text and the picture of a shown object."""
        kept = {kind: data[kind] for kind in KEPT_TYPES if isinstance(data.get(kind), str)}
        size = len(kept.get("image/png", ""))
        if size > min(MOST_IMAGE, self.images_left):
            del kept["image/png"]
        else:
            self.images_left -= size
        text = kept.get("text/plain", "")
        kept["text/plain"] = text[: max(self.text_left, 0)]
        self.text_left -= len(text)
        self.add({"result" if result else "display": kept})


class Stream(io.TextIOBase):
    """Standard output or error of a cell."""

    def __init__(self, name: str, shell: "Shell") -> None:
        """Belong to a shell, whose outputs change from cell to cell."""
        self.stream_name = name
        self.shell = shell

    def write(self, text: str) -> int:
        """Keep the text as an output of the cell."""
        self.shell.outputs.write(self.stream_name, str(text))
        return len(text)


class Hook(DisplayHook):
    """Keeps the value of a cell's last line."""

    def write_output_prompt(self) -> None:
        """Nobody sees a prompt."""

    def write_format_data(
        self,
        format_dict: dict[str, Any],
        md_dict: object = None,
    ) -> None:
        """Keep the value."""
        if isinstance(self.shell, Shell):
            self.shell.outputs.show(format_dict, True)

    def finish_displayhook(self) -> None:
        """Nothing was opened."""


class Publisher(DisplayPublisher):
    """Keeps what ``display`` shows."""

    def publish(self, data: dict[str, Any], *arguments: object, **keywords: object) -> None:
        """Keep it."""
        if isinstance(self.shell, Shell):
            self.shell.outputs.show(data, False)


class Shell(InteractiveShell):
    """IPython without a terminal and without a kernel: magics, ``display`` and tracebacks."""

    displayhook_class = Type(Hook)
    display_pub_class = Type(Publisher)
    outputs = Outputs()

    @contextlib.contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        """Keep no second copy of what is printed: IPython's has no bound."""
        yield

    def ask_exit(self) -> None:
        """Do nothing: ``exit()`` in a notebook has nobody to ask."""

    def _showtraceback(self, etype: type, evalue: BaseException, stb: list[str]) -> None:
        if etype is OutOfTime:  # the grader says it in its own words
            return
        text = "\n".join(stb)[-MOST_TEXT:]
        self.outputs.add({"error": [etype.__name__, str(evalue)[:1000], text]})


class Worker:
    """Does what the grader asks, one message after another."""

    def __init__(self) -> None:
        """Start the shell."""
        self.shell = Shell.instance(colors="nocolor", history_length=0)
        self.limit = (0.0, 0.0)
        self.waiting: dict[int, tuple[list[Any], list[Any]]] = {}

    def run(self, source: str) -> dict[str, Any]:
        """Run one cell and return what it showed."""
        self.shell.outputs = outputs = Outputs()
        streams = Stream("stdout", self.shell), Stream("stderr", self.shell)
        sys.stdout, sys.stderr = streams
        late = ""
        try:
            with time_limit(*self.limit):
                ran = self.shell.run_cell(source, store_history=True)  # type: ignore[no-untyped-call]
                if isinstance(ran.error_in_exec, OutOfTime):
                    late = str(ran.error_in_exec)
        except OutOfTime as error:
            late = str(error)
        except Exception as error:  # IPython itself fails, at a text that is no UTF-8 for example
            outputs.add({"error": [type(error).__name__, str(error)[:1000], ""]})
        self.shell.outputs = Outputs()
        return {"outputs": outputs.items, "late": late, "library": library()}

    def look_up(self, name: str) -> dict[str, Any]:
        """Say what a name stands for."""
        if name not in self.shell.user_ns:
            return {"kind": "missing"}
        value = self.shell.user_ns[name]
        if callable(value):
            return {"kind": "function"}
        return {"kind": "value", "value": wire.encode(value)}

    def call(
        self,
        name: str,
        arguments: Any,  # noqa: ANN401 JSON
        keywords: Any,  # noqa: ANN401
        call: int,
    ) -> dict[str, Any]:
        """Call a function of the learner, and return what it returned and what it changed."""
        values, named = wire.decode(arguments), wire.decode(keywords)
        before = [wire.encode(value) for value in values]
        leaves = [value for value in values if needs_gradient(value)]
        try:
            with time_limit(*self.limit):
                result = self.shell.user_ns[name](*values, **named)
        except OutOfTime as error:
            return {"late": str(error)}
        except BaseException as error:
            return {"raised": describe_error(error)}
        if leaves:
            self.waiting[call] = (gradient_ends(result), leaves)
        after = [wire.encode(value) for value in values]
        changed = [[i, new] for i, new in enumerate(after) if repr(new) != repr(before[i])]  # nan
        return {"result": wire.encode(result), "changed": changed}

    def backward(self, call: int, gradients: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the gradients of a call by its arguments, given those of its result."""
        import torch

        ends, leaves = self.waiting[call]
        try:
            with time_limit(*self.limit):
                found = torch.autograd.grad(
                    ends, leaves, wire.decode(gradients), allow_unused=True, retain_graph=True
                )
        except OutOfTime as error:
            return {"late": str(error)}
        except BaseException as error:
            return {"raised": describe_error(error)}
        return {"gradients": wire.encode(list(found))}


def library() -> list[str]:
    """The modules of the course's library that have been imported, however that was written."""
    return sorted(name for name in list(sys.modules) if str(name).startswith("slingshot."))[:200]


def describe_error(error: BaseException) -> list[str]:
    """Kind, text and innermost line, in the learner's cells, of an error."""
    lines = [
        frame.line or ""
        for frame in traceback.extract_tb(error.__traceback__)
        if "ipykernel" in frame.filename or "<ipython-input" in frame.filename
    ]
    try:
        text = str(error)
    except Exception:
        text = ""
    return [type(error).__name__, text[:1000], (lines or [""])[-1][:200]]


@contextlib.contextmanager
def time_limit(seconds: float, clock: float) -> Iterator[None]:
    """Raise ``OutOfTime`` in the learner's code after seconds of computing, or on the clock.

    It is raised once. Code that catches it is ended by the grader.
    """
    if not hasattr(signal, "setitimer"):  # Windows: the grader ends the process instead
        yield
        return
    messages = {
        signal.SIGPROF: f"took more than {seconds:.0f} s of computing",
        signal.SIGALRM: f"took more than {clock:.0f} s",
    }

    def raise_it(number: int, frame: FrameType | None) -> None:
        raise OutOfTime(messages[signal.Signals(number)])

    for number in messages:
        signal.signal(number, raise_it)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, clock)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes to the grader, and give the learner's code streams that lead nowhere."""
    requests, replies = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    sys.stdin = os.fdopen(0)
    return os.fdopen(requests, "rb"), os.fdopen(replies, "wb")


def serve(worker: Worker, requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until the grader closes its end."""
    while True:
        try:
            request = wire.receive(requests)
        except EOFError:
            return
        action = getattr(worker, request.pop("do"))
        number = request.pop("number")
        worker.limit = request.pop("seconds"), request.pop("clock")
        wire.send(replies, {"number": number, **action(**request)})


def main() -> None:
    """Set the limits, copy the learner's files to a place of their own, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--here", type=Path, required=True)
    parser.add_argument("--open", action="store_true", help="there is no sandbox")
    arguments = parser.parse_args()
    requests, replies = take_pipes()
    stand_in.install()
    confine(arguments.memory, arguments.seconds, signals=not arguments.open)
    shutil.copytree(arguments.files, arguments.here, symlinks=True, dirs_exist_ok=True)
    os.chdir(arguments.here)
    sys.path.insert(0, "")
    serve(Worker(), requests, replies)


if __name__ == "__main__":
    main()
