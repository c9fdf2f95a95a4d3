"""Test the library with the newest releases of all that is pinned, in an environment of its own.

It installs what the requirements name without their versions, in ``.venv-newest``, and runs the
tests that ``make test-fast`` runs. What the newest release is known not to be made for is held back
in ``HELD_BACK``, with the reason.
"""

import argparse
import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import bootstrap  # noqa: E402
from tools.common import console  # noqa: E402
from tools.common.venv_state import venv_python  # noqa: E402

console.prepare("make setup")

FOLDER = ROOT / ".venv-newest"
PINNED = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[\w.]+)$")
HELD_BACK = {
    "jupyter-book": "<2",  # the second is another program: it knows no extension of Sphinx
}
"""By name, the releases that are tried."""


def without_versions(text: str) -> list[str]:
    """The packages of a file of requirements, without their versions.

    Raises ``ValueError`` for a line that pins nothing.
    """
    found = []
    for line in text.splitlines():
        entry = line.partition("#")[0].strip()
        if not entry or entry.startswith("-r "):
            continue
        match = PINNED.match(entry)
        if match is None:
            raise ValueError(f"{entry!r} is not of the form name==version")
        found.append(match["name"] + HELD_BACK.get(match["name"], ""))
    return found


def packages(root: Path = ROOT) -> list[str]:
    """All that the tests need, without versions."""
    files = bootstrap.requirement_files("requirements-dev.txt")
    named = [each for file in files for each in without_versions(file.read_text("utf-8"))]
    return list(dict.fromkeys(named))


def main(argv: Sequence[str] | None = None) -> int:
    """Install and test; return the first exit code that is not 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.parse_args(argv)
    venv.create(FOLDER, with_pip=True, clear=True)
    python = str(venv_python(FOLDER))
    install = [python, "-m", "pip", "install", "--upgrade", *packages(), "--editable", str(ROOT)]
    tests = [python, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-m", "not slow", "tests"]
    if index := bootstrap.torch_index():
        install += ["--extra-index-url", index]
    model = [python, "-m", "slingshot.pretrained"]
    for command in (install, [python, "-m", "pip", "freeze"], model, tests):
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
