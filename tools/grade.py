"""Grade a folder of submissions; see ``slingshot_grader``, which does it."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console  # noqa: E402

console.prepare("make setup-instructor")

import nbgrader  # noqa: E402, F401 so that a set-up without it is noticed at once

from slingshot_grader.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
