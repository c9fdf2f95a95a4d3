"""Where Chromium is, and what keeps it to itself."""

import os
import shutil
from pathlib import Path

from playwright.sync_api import Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REMEDY = (
    "no Chromium found: `make test` installs it; by hand, `apt install chromium` or"
    " `python -m playwright install chromium`"
)


def find_chromium(playwright: Playwright | None = None) -> str:
    """Return the path of a Chromium; raise ``RuntimeError`` with the remedy if there is none."""
    for name in NAMES:
        path = shutil.which(name)
        if path:
            return path
    if playwright and Path(playwright.chromium.executable_path).exists():
        return playwright.chromium.executable_path
    raise RuntimeError(REMEDY)


def arguments() -> list[str]:
    """Switches that keep Chromium from asking the network for anything of its own."""
    quiet = (
        "--disable-gpu --disable-quic --no-first-run --disable-background-networking"
        " --disable-component-update --disable-sync"
    )
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # Windows has no such number
    return quiet.split() + (["--no-sandbox"] if root else [])
