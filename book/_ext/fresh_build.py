"""Say beside a book what it was built from, so that the tests need not build it again.

The note is left only by a build that began with nothing, ended without a warning, and looked for
every reference: the tests ask for just such a build. It holds a digest of all that the pages are
made from, so a change of any of it makes the note worthless.
"""

import hashlib
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).resolve().parents[2]
NOTE = "built_from.sha256"
MADE_FROM = (
    "_config.yml", "_toc.yml", "book", "constraints.txt", "experiments", "notebooks",
    "pyproject.toml", "requirements.txt", "src",
)  # fmt: skip
LEFT_OUT = {"__pycache__", ".ipynb_checkpoints", ".ruff_cache", ".mypy_cache", ".pytest_cache"}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the two ends of a build with Sphinx."""
    app.connect("config-inited", begin)
    app.connect("build-finished", finish, priority=1000)  # after all that may warn
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def digest(root: Path = ROOT) -> str:
    """Hash the files that a book below ``root`` is made from, and the version of Python."""
    found = hashlib.sha256(sys.version.encode())
    for name in MADE_FROM:
        place = root / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and not LEFT_OUT & set(path.parts) and ".egg-info" not in str(path):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                found.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return found.hexdigest()


def note_of(pages: Path) -> Path:
    """Where the note about a folder of pages is."""
    return pages.parent / NOTE


def is_fresh(pages: Path, root: Path = ROOT) -> bool:
    """Whether a folder of pages was built, whole and without a warning, from what is there now."""
    note = note_of(pages)
    return note.is_file() and note.read_text("utf-8") == digest(root)


def begin(app: Sphinx, config: Config) -> None:
    """Forget what an earlier build has noted, and see what this one begins with."""
    pages = Path(app.outdir)
    note_of(pages).unlink(missing_ok=True)
    app.from_nothing = not any(pages.rglob("*.html"))  # type: ignore[attr-defined]
    app.built_from = digest()  # type: ignore[attr-defined]


def finish(app: Sphinx, error: Exception | None) -> None:
    """Leave the note."""
    whole = app.from_nothing and app.fresh_env_used  # type: ignore[attr-defined]
    if error is None and whole and not app._warncount and app.config.nitpicky:
        note_of(Path(app.outdir)).write_text(app.built_from, "utf-8")  # type: ignore[attr-defined]
