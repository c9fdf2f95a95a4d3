"""Finds Chromium, and watches what a page asks for while a test looks at it."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.printed.chromium import REMEDY, arguments, find_chromium  # noqa: E402

__all__ = ["REMEDY", "Watch", "arguments", "find_chromium"]


@dataclass
class Watch:
    """Everything that a page requested, and every error that it reported."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def attach(self, page: Page) -> None:
        """Listen to ``page`` from now on."""
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._console)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def foreign(self) -> list[str]:
        """The requests that left this machine."""
        return [url for url in self.requests if not _is_local(url)]

    def assert_quiet(self) -> None:
        """Fail if the page asked another host for anything, or reported an error."""
        assert not self.foreign(), f"the page asked other hosts for {self.foreign()}"
        assert not self.errors, f"the page reported {self.errors}"


def _is_local(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("file", "data", "blob") or parts.hostname in ("127.0.0.1", "localhost")
