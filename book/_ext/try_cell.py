"""The directive ``{try}``: a few lines of Python that a reader changes and runs in the page.

The code is a file of ``book/try``; its first line is a comment that says what it does::

    ```{try} router
    ```

Nothing is loaded until a reader presses Run. Then the page starts Brython, a Python that runs in a
browser, in a worker of its own: a loop without end can be stopped, and the page goes on. A page
that was opened from a folder may not fetch files, so the two files of Brython become one script
that holds them as text. They come out of the pinned package.
"""

import html
import importlib.util
import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

CELLS = Path(__file__).resolve().parent.parent / "try"
MOST_LINES = 30
PARTS = ("brython.js", "brython_stdlib.js")


class TryCell(nodes.General, nodes.Element):
    """A cell to try; attributes ``name``, ``title`` and ``code``."""


class TryDirective(SphinxDirective):
    """One cell, by its name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the cell; an unknown name or too long a cell fails the build and is named."""
        name = self.arguments[0]
        file = CELLS / f"{name}.py"
        if not file.is_file():
            known = ", ".join(sorted(each.stem for each in CELLS.glob("*.py")))
            raise self.error(f"try: there is no {name!r} in book/try; there are {known}")
        self.env.note_dependency(str(file))
        try:
            title, code = read(file)
        except ValueError as error:
            raise self.error(f"try: {error}") from error
        return [TryCell(name=name, title=title, code=code)]


def read(file: Path) -> tuple[str, str]:
    """Return what a cell does and its code; ``ValueError`` if it does not say so or is too long."""
    first, _, code = file.read_text("utf-8").partition("\n")
    if not first.startswith("# "):
        raise ValueError(f"{file.name} begins with {first!r}; begin with a comment that says what")
    lines = code.strip().count("\n") + 2
    if lines > MOST_LINES:
        raise ValueError(f"{file.name} has {lines} lines; at most {MOST_LINES} fit a page")
    return first.removeprefix("# "), code.strip() + "\n"


def visit(self: HTML5Translator, node: TryCell) -> None:
    """Write the whole cell. Without its script it is code to read."""
    name, title, code = (html.escape(node[key]) for key in ("name", "title", "code"))
    rows = node["code"].count("\n")
    self.body.append(
        f'<div class="try" id="try-{name}"><p class="try-title"><strong>Try it.</strong> {title}'
        f'</p>\n<textarea class="try-code" rows="{rows}" spellcheck="false" autocapitalize="off" '
        f'autocomplete="off" wrap="off" aria-label="Python code. {title}">\n{code}</textarea>\n'
        '<p class="try-buttons" hidden><button type="button" class="try-run">Run</button>'
        '<button type="button" class="try-reset">As it was</button>'
        '<span class="try-hint">or Control and Enter</span></p>\n'
        '<pre class="try-output" role="status" tabindex="0" aria-label="Output" hidden></pre></div>'
    )
    raise nodes.SkipNode


def add_script(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Load try.js, which is small, on pages with a cell."""
    if doctree is not None and next(doctree.findall(TryCell), None) is not None:
        app.add_js_file("try.js")


def add_brython(app: Sphinx) -> None:
    """Write Brython as text in a script, into a folder that Sphinx copies to ``_static``."""
    spec = importlib.util.find_spec("brython")
    if spec is None or spec.origin is None:
        raise ExtensionError("package 'brython' is missing; run: pip install -r requirements.txt")
    data = Path(spec.origin).parent / "data"
    folder = Path(app.doctreedir).parent / "try_assets"
    app.config.html_static_path.append(str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    sources = [(data / part).read_text("utf-8") for part in PARTS]
    script = f"self.brythonSources = {json.dumps(sources)};\n"
    target = folder / "brython_sources.js"
    if not target.exists() or target.read_text("utf-8") != script:
        target.write_text(script, "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive, its node and its script."""
    app.add_directive("try", TryDirective)
    app.add_node(TryCell, html=(visit, None))
    app.connect("builder-inited", add_brython)
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
