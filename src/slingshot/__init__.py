"""Slingshot: the small library behind a course on efficient AI development.

Each module is one idea and is read from top to bottom. Import the module you need, for example
``from slingshot.moe import TopKRouter``; importing the package itself does nothing.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("slingshot-course")
except PackageNotFoundError:  # run from its source, without being installed
    __version__ = "unknown"
