"""The modules of book/_ext, for a tool that says what the book says."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / "book" / "_ext"


def load(name: str) -> ModuleType:
    """Return a module of the book's own extensions, such as ``citations``."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)
