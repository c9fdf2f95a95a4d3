"""Make a warning count in every build until it is gone.

Sphinx shows the warnings of a page when it reads or writes that page. A second build finds the page
unchanged, shows nothing and succeeds (sphinx-doc/sphinx#725); so does one after an interruption. So
a build says beside its stored pages that it was clean, once it is finished without a warning, and
what it was built with. Without that, the next one reads every page anew. And when there is another
set of targets, all pages are resolved anew: one that has not changed may refer to what is gone.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from sphinx.application import ENV_PICKLE_FILENAME, Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

NOTE = "clean_build"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the steps with Sphinx."""
    app.connect("config-inited", forget_unless_clean)
    app.connect("env-get-outdated", note_targets)
    app.connect("env-get-updated", resolve_all)
    app.connect("build-finished", note_if_clean, priority=1000)  # after all that may warn
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def forget_unless_clean(app: Sphinx, config: Config) -> None:
    """Read every page anew, unless the last build was clean and made as this one."""
    note = Path(app.doctreedir) / NOTE
    if not note.is_file() or note.read_text("utf-8") != made_with(config):
        (Path(app.doctreedir) / ENV_PICKLE_FILENAME).unlink(missing_ok=True)
    note.unlink(missing_ok=True)


def note_if_clean(app: Sphinx, error: Exception | None) -> None:
    """Leave the note after a build without warnings."""
    if error is None and not app._warncount:
        (Path(app.doctreedir) / NOTE).write_text(made_with(app.config), "utf-8")


def made_with(config: Config) -> str:
    """Return what decides which warnings there are, besides the pages."""
    return f"Python {sys.version}\nnitpicky {config.nitpicky}\n"


def note_targets(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Remember what can be referred to before pages are read; ask for no further page."""
    app.targets_before = targets(env)  # type: ignore[attr-defined]
    return []


def resolve_all(app: Sphinx, env: BuildEnvironment) -> Iterable[str]:
    """Resolve the references of all pages if what they can refer to has changed."""
    return [] if targets(env) == app.targets_before else env.found_docs  # type: ignore[attr-defined]


def targets(env: BuildEnvironment) -> set[tuple[str, ...]]:
    """Return all that can be referred to: domain, name, kind, page and anchor."""
    found = {
        (domain, name, kind, page, anchor)
        for domain, each in env.domains.items()
        for name, _, kind, page, anchor, _ in each.get_objects()
    }
    labels = env.get_domain("std").data["anonlabels"].items()
    return found | {("std", name, "label", page, anchor) for name, (page, anchor) in labels}
