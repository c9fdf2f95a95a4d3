"""Ask every address that the book names whether it is still there.

Sphinx's builder of links asks; this sorts its answers. An address is *gone* when its host says so
or is no longer known, and then the exit code is 1. One that refused a program, or did not answer in
time, may be there for a person: it is listed, and fails nothing.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console  # noqa: E402

console.prepare("make setup")

from jupyter_book.cli.main import main as jupyter_book  # noqa: E402

# Apart from the book, whose note of what it was built from must stay.
TARGET = ROOT / "_build" / "links"
ANSWERS = TARGET / "_build" / "linkcheck" / "output.json"
GONE = re.compile(
    r"\b(?:404|410) Client Error|NameResolutionError|Name or service not known|getaddrinfo failed"
    r"|No address associated|nodename nor servname"
)


def sort(answers: Iterable[str]) -> tuple[list[str], list[str], int]:
    """What is gone, what could not be asked, and how many addresses answered as they should.

    ``answers`` are the lines of Sphinx's ``output.json``. An address is listed once, with the page
    that names it first. Raises ``ValueError`` for a line that is no answer.
    """
    gone: dict[str, str] = {}
    unsure: dict[str, str] = {}
    there = set()
    for line in filter(str.strip, answers):
        try:
            answer = json.loads(line)
            address, status, said = answer["uri"], answer["status"], answer["info"]
            line = f"{address} ({answer['filename']}): {status} {said}".strip()
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"no answer of Sphinx: {line.strip()[:80]!r}") from error
        if status in ("working", "redirected"):
            there.add(address)
        elif status in ("broken", "timeout"):
            (gone if GONE.search(said) else unsure).setdefault(address, line)
    return list(gone.values()), list(unsure.values()), len(there)


def verdict(answers: Iterable[str]) -> int:
    """Print what was found; return 1 when an address is gone, or when none answered at all."""
    gone, unsure, n_there = sort(answers)
    for title, lines in (("could not be asked", unsure), ("gone", gone)):
        print("\n".join([f"{len(lines)} {title}", *(f"  {line}" for line in lines)]))
    print(f"{n_there} there")
    if not n_there:
        print("links: no address answered; is there a network?", file=sys.stderr)
    return int(bool(gone) or not n_there)


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.parse_args(argv)
    os.chdir(ROOT)
    ANSWERS.unlink(missing_ok=True)
    try:
        command = ["build", ".", "--builder", "linkcheck", "--path-output", str(TARGET)]
        jupyter_book(command, standalone_mode=False)
    except KeyboardInterrupt:
        print("links: interrupted", file=sys.stderr)
        return 130
    except (RuntimeError, SystemExit):  # a broken link fails that build; the answers say which
        pass
    if not ANSWERS.is_file():
        print("links: the build did not come to asking; the lines above say why", file=sys.stderr)
        return 1
    return verdict(ANSWERS.read_text("utf-8").splitlines())


if __name__ == "__main__":
    sys.exit(main())
