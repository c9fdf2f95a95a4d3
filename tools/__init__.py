"""The scripts behind the Makefile; each has ``--help``.

They are run by their path, from whatever folder: a learner's workspace, a shared installation. For
that each puts the root of the course on the path by itself; ``python -m tools.lab`` would find them
from the root alone.
"""
