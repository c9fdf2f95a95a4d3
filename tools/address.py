"""Write where the course is public: ``python tools/address.py owner/name``, or ``none``.

The setting in ``_config.yml`` turns on the launch buttons, the cards for links and the sitemap.
The first cell of each chapter then installs the library from that repository, and no longer from
the package index.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console, sphinx_extensions  # noqa: E402
from tools.common.files import write_atomically  # noqa: E402

console.prepare("make setup")

SETTING = re.compile(r'^( +public_repository: )"([^"\n]*)"$', re.M)
# As it stands in the JSON of a notebook.
INSTALLS = re.compile(r'(%pip install --quiet \\"slingshot-course\[notebooks\])[^"\\]*(\\")')


def requirement(repository: str) -> str:
    """What the first cell of a chapter asks pip for."""
    return "slingshot-course[notebooks]" + (
        f" @ git+https://github.com/{repository}" if repository else ""
    )


def setting(root: Path = ROOT) -> str:
    """The repository that ``_config.yml`` names, or nothing."""
    found = SETTING.findall((root / "_config.yml").read_text("utf-8"))
    if len(found) != 1:
        raise ValueError('_config.yml must have one line `public_repository: "..."`')
    return str(found[0][1])


def write(repository: str, root: Path = ROOT) -> list[Path]:
    """Write the repository into the configuration and the chapters; return the changed files."""
    setting(root)
    address = requirement(repository).removeprefix("slingshot-course[notebooks]")
    changes = [(root / "_config.yml", SETTING, rf'\g<1>"{repository}"')]
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        changes.append((path, INSTALLS, rf"\g<1>{address}\g<2>"))
    changed = []
    for path, pattern, new in changes:
        old = path.read_text("utf-8")
        text, count = pattern.subn(new, old)
        if count != 1:
            raise ValueError(f"{path.name} installs the library in {count} places, and not in one")
        if text != old:
            write_atomically(path, text)
            changed.append(path)
    return changed


def main(argv: Sequence[str] | None = None) -> int:
    """Write it; return 1 after one line that says what is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "repository", help='"owner/name" on GitHub, or "none" to turn all of it off'
    )
    repository = parser.parse_args(argv).repository
    form = sphinx_extensions.load("public").REPOSITORY
    if repository != "none" and not form.fullmatch(repository):
        print(f"address: {repository!r} is not of the form owner/name", file=sys.stderr)
        return 1
    try:
        changed = write("" if repository == "none" else repository)
    except (OSError, ValueError) as error:
        print(f"address: {error}", file=sys.stderr)
        return 1
    print(f"{len(changed)} files changed; `make book` builds the book anew.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
