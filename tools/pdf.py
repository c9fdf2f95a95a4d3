"""Print the whole book as one PDF, _build/slingshot.pdf, with Chromium.

The pages are those of ``make book``, which is called where they are not fresh.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console  # noqa: E402

console.prepare("make setup-dev")

from playwright.sync_api import Error as BrowserError  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from tools.common import sphinx_extensions  # noqa: E402
from tools.printed.assemble import assemble  # noqa: E402
from tools.printed.chromium import find_chromium  # noqa: E402
from tools.printed.press import print_document  # noqa: E402

PAGES = ROOT / "_build" / "html"
TARGET = ROOT / "_build" / "slingshot.pdf"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the book; return 0 if nothing in it is cut off or left undrawn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=TARGET, help="the file to write")
    target = parser.parse_args(argv).output.resolve()
    try:
        with sync_playwright() as playwright:
            find_chromium(playwright)  # before a book is built that nothing can print
        if not is_built():
            return 1
        wrong = print_pages(PAGES, target)
    except KeyboardInterrupt:
        print("pdf: interrupted; no file was changed", file=sys.stderr)
        return 130
    except (BrowserError, OSError, RuntimeError, ValueError) as error:
        print(f"pdf: {error}", file=sys.stderr)
        return 1
    for line in wrong:
        print(f"pdf: {line}", file=sys.stderr)
    if wrong:
        return 1
    print(f"The printed book is ready: {target}")
    return 0


def is_built() -> bool:
    """Whether the pages are those of the course as it is, after a build where they were not."""
    if sphinx_extensions.load("fresh_build").is_fresh(PAGES):
        return True
    print("pdf: building the pages first", flush=True)
    build = [sys.executable, str(ROOT / "tools" / "book.py")]
    return subprocess.run(build, check=False).returncode == 0


def print_pages(pages: Path, target: Path) -> list[str]:
    """Print the pages of a built book; return what is wrong on paper.

    The file is replaced only by a whole one without a fault.
    """
    with tempfile.TemporaryDirectory() as folder:
        document, printed = Path(folder, "book.html"), Path(folder, "book.pdf")
        document.write_text(assemble(pages), "utf-8")
        wrong = print_document(document, printed)
        if not wrong:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(printed, target)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
