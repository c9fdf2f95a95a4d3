"""``python -m slingshot_grader``."""

import sys

from slingshot_grader.cli import main

if __name__ == "__main__":
    sys.exit(main())
