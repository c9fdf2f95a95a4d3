"""What every script does before it imports a package: make sure that it can speak.

Standard library only, and no syntax newer than Python 3.6, for tools/bootstrap.py.
"""

import errno
import io
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TextIO

ROOT = Path(__file__).resolve().parents[2]
OURS = ("tools", "tests", "slingshot_exercises", "slingshot_grader")
# A pipe that nobody reads, the same on Windows, and a terminal that was closed.
GONE = (errno.EPIPE, errno.EINVAL, errno.EIO)


class Console(io.TextIOWrapper):
    """A stream that spells what it cannot show, and whose text is dropped once nobody reads it."""

    def write(self, text: str) -> int:
        """Write, or do nothing where the other end is gone."""
        try:
            return super().write(text)
        except OSError as error:
            self._leave(error)
            return len(text)

    def flush(self) -> None:
        """Flush, or do nothing where the other end is gone."""
        try:
            super().flush()
        except OSError as error:
            self._leave(error)

    def _leave(self, error: OSError) -> None:
        """Send all further text, that of child processes too, to nowhere; raise what is else."""
        if error.errno not in GONE:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def prepare(remedy: str) -> None:
    """Let the script that runs print on any console, and say in one line why it stops early.

    ``remedy`` is the command that brings a package that is missing. Nothing happens where the
    process is not one of this project's scripts: a test, or a notebook, keeps its own streams.
    """
    main = getattr(sys.modules["__main__"], "__file__", None)
    if not main or Path(main).resolve().parent.parent != ROOT:
        return
    if isinstance(sys.stdout, Console):
        return  # the script that runs has been here before a module that it imports
    # jsonschema compiles this grammar for a second and more, and no notebook needs it.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    sys.stdout, sys.stderr = speaking(sys.stdout), speaking(sys.stderr)

    def explain(
        kind: "type[BaseException]", error: BaseException, trace: "TracebackType | None"
    ) -> None:
        name = Path(main).name
        if issubclass(kind, KeyboardInterrupt):
            print(f"{name}: interrupted", file=sys.stderr)
        elif issubclass(kind, ModuleNotFoundError) and not is_ours(error):
            print(f"{name}: {missing(error, remedy)}", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = explain


def speaking(stream: "TextIO | None") -> "TextIO":
    """Return a stream in place of one that is closed, or that stops at a letter or a reader."""
    if stream is None:  # the script was started with it closed
        return open(os.devnull, "w", encoding="utf-8")
    return Console(
        stream.buffer,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=getattr(stream, "line_buffering", False),
        write_through=getattr(stream, "write_through", False),
    )


def missing(error: BaseException, remedy: str) -> str:
    """Say which package is missing and what brings it."""
    return f"{error}: run `{remedy}`, then start it with the Python of .venv"


def is_ours(error: BaseException) -> bool:
    """Whether the module that is missing is one of this project, which no set-up would bring."""
    name = getattr(error, "name", None) or ""
    return name.partition(".")[0] in OURS
