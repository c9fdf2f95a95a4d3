"""Bring the pretrained model of the course: the same as ``python -m slingshot.pretrained``."""

import sys

from slingshot.pretrained import main

if __name__ == "__main__":
    sys.exit(main())
