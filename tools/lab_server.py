"""JupyterLab as the course starts it: with its look, without panels for instructors and news.

It also answers for the pages of the book at /book/, so that a link in a copy opens the page itself.
While the book is not built, it says how to build it.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tornado.web import StaticFileHandler  # noqa: E402

BUILT = ROOT / "_build" / "html"
CONFIG = ROOT / "tools" / "lab_config"
NOT_BUILT = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Not built yet</title>
<style>body { font: 1.1rem/1.6 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto }</style>
<h1>This page of the book is not there yet</h1>
<p>Type <code>make book</code> in the folder of the course. It takes a few minutes, once. Then load
this page again.</p>
</html>
"""


class BookHandler(StaticFileHandler):
    """A file of the built book, or a page that says how to build it. The book holds no secrets."""

    def write_error(self, status_code: int, **details: Any) -> None:  # noqa: ANN401 tornado's
        """Say what to do about a page that is not there."""
        if status_code == 404:
            self.set_header("Content-Type", "text/html; charset=UTF-8")
            self.finish(NOT_BUILT)
        else:
            super().write_error(status_code, **details)


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """What Jupyter Server asks of an extension."""
    return [{"module": "tools.lab_server"}]


def _link_jupyter_server_extension(server: Any) -> None:  # noqa: ANN401 an untyped package's
    """Give JupyterLab the style sheet of the workspace."""
    server.static_custom_path = [str(CONFIG / "custom"), *server.static_custom_path]


def _load_jupyter_server_extension(server: Any) -> None:  # noqa: ANN401 an untyped package's
    """Answer for the pages of the book."""
    pattern = f"{server.base_url.rstrip('/')}/book/(.*)"
    options = {"path": str(BUILT), "default_filename": "index.html"}
    server.web_app.add_handlers(".*$", [(pattern, BookHandler, options)])


if __name__ == "__main__":
    from jupyterlab.labapp import main

    sys.exit(main())
