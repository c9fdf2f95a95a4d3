"""Build the book in _build/html; every warning is a failure.

The same as the command ``jupyter-book build . -W --keep-going -n``, whose script stops working when
its folder moves.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console  # noqa: E402

console.prepare("make setup")

from jupyter_book.cli.main import main as jupyter_book  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    """Build; return 0 when there was no warning."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.parse_args(argv)
    os.chdir(ROOT)
    try:
        jupyter_book(["build", ".", "-W", "--keep-going", "-n"], standalone_mode=False)
    except KeyboardInterrupt:
        print("book: interrupted; the next build starts anew", file=sys.stderr)
        return 130
    except RuntimeError:  # jupyter-book has shown the warnings, and what stopped it
        failed = True
    except SystemExit as end:
        failed = bool(end.code)
    else:
        failed = False
    if failed:
        print("book: the build failed; the lines above say where", file=sys.stderr)
        return 1
    print("The book is ready: open _build/html/index.html in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
