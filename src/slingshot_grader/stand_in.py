"""What a learner's process finds under the name of the checks: functions that do nothing.

A notebook imports its checks by name, so the names must be there. The checks themselves hold
reference answers, so they are not: they run in another process (``session.py``), which calls the
learner's functions from there. Standard library only.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

CHECKS = "slingshot_exercises"
GIVEN = {f"{CHECKS}.low_precision": {"E4M3": "slingshot.formats"}}
"""What an assignment gives beside its checks, and the module of the library that has it."""


class StandIn(ModuleType):
    """A module in which every ``check_…`` is a function that accepts whatever it is given."""

    __path__: list[str] = []  # noqa: RUF012 as the import system wants it
    CheckFailed = type("CheckFailed", (AssertionError,), {})

    def __getattr__(self, name: str) -> object:
        """Return a check that does nothing, or what is given; ``AttributeError`` for the rest."""
        if name in GIVEN.get(self.__name__, {}):
            return getattr(importlib.import_module(GIVEN[self.__name__][name]), name)
        if not name.startswith("check_"):
            raise AttributeError(f"{self.__name__} has no {name!r} while a notebook is graded")

        def check(*arguments: object, **keywords: object) -> None:
            """Do nothing: the grader runs the check later, and elsewhere."""

        check.__name__ = name
        return check


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for the package of the checks and for each module in it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer for the checks alone."""
        if name.partition(".")[0] != CHECKS:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Make the module."""
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def install() -> None:
    """Stand in for the checks, and forget every folder from which they could be imported."""
    sys.meta_path.insert(0, Finder())
    sys.path[:] = [place for place in sys.path if not (Path(place or ".") / CHECKS).is_dir()]
    sys.path_importer_cache.clear()
