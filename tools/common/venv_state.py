"""What state an environment is in: whether it can be used, and whether its packages are whole.

Standard library only, and no syntax newer than Python 3.6, for tools/bootstrap.py.
"""

import csv
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tools.common import inherited

LIBRARY = "slingshot-course"


def venv_python(venv: Path) -> Path:
    """Return the path of the environment's interpreter."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def site_packages(venv: Path) -> Path:
    """Return the folder of the environment's packages."""
    if os.name == "nt":
        return venv / "Lib" / "site-packages"
    return next(iter(sorted(venv.glob("lib/python3*/site-packages"))), venv / "none")


def may_be_emptied(venv: Path, default: Path) -> bool:
    """Whether a folder is an environment or the rest of one, and nobody's documents."""
    if venv == default and not venv.is_symlink():
        return True
    names = os.listdir(str(venv))
    return not names or "pyvenv.cfg" in names or ".creating" in names


# --- Python --------------------------------------------------------------------------------------


def why_unusable(venv: Path, oldest: "tuple[int, int]", newest: "tuple[int, int]") -> str:
    """Return in a few words why an environment must be made anew; nothing if it need not be."""
    python = venv_python(venv)
    if not python.exists():
        if python.is_symlink():
            return f"the Python that it was made with, {os.path.realpath(str(python))}, is gone"
        return "it has no python"
    probe = "import sys, pip; print(*sys.version_info[:2])"
    try:
        run = subprocess.run(
            [str(python), "-c", probe],
            capture_output=True,
            env=inherited.environment(),
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "its python does not run"
    if b"No module named 'pip" in run.stderr:
        return "pip is missing in it"
    if run.returncode != 0:
        return f"its python ends with exit code {run.returncode}"
    version = tuple(int(part) for part in run.stdout.split())
    if not oldest <= version <= newest:
        return "its Python is {}.{}, and {}.{} to {}.{} is needed".format(
            *version, *oldest, *newest
        )
    if not (venv / "pyvenv.cfg").is_file():
        return "its pyvenv.cfg is missing"
    if not belongs_here(venv):
        return "it was made in another folder"
    faults = dict(damage(venv, {"pip"}))
    return f"pip is damaged: {faults['pip']}" if faults else ""


def belongs_here(venv: Path) -> bool:
    """Whether the environment was made where it is; a copy's scripts start another Python."""
    configuration = (venv / "pyvenv.cfg").read_bytes()
    made = re.search(rb"^command = .*? -m venv (?:--\S+ )*(.+?)\r?$", configuration, re.MULTILINE)
    # Bytes, since this process may spell a path in another encoding than the one that wrote it.
    return made is None or os.path.realpath(made.group(1)) == os.path.realpath(
        os.fsencode(str(venv))
    )


# --- Packages ------------------------------------------------------------------------------------


def normal(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(text: str) -> "dict[str, str]":
    """Return the version of each package that a requirements file pins."""
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    return {normal(name): version for name, version in pins}


def records(venv: Path, names: "set[str]") -> "Iterator[tuple[str, str, Path]]":
    """Give name, version and folder of metadata of each package among ``names``."""
    for folder in sorted(site_packages(venv).glob("*.dist-info")):
        name, _, version = folder.name[: -len(".dist-info")].partition("-")
        if normal(name) in names:
            yield normal(name), version, folder


def versions(venv: Path, names: "set[str]") -> "dict[str, str]":
    """Return the versions of those packages among ``names`` that are installed."""
    return {name: version for name, version, _ in records(venv, names)}


def damage(venv: Path, names: "set[str]") -> "Iterator[tuple[str, str]]":
    """Give each package among ``names`` that is not as pip installed it, and what is wrong."""
    seen = set()  # type: set[str]
    for name, _, folder in records(venv, names):
        fault = "it is there twice" if name in seen else fault_of(folder)
        seen.add(name)
        if fault:
            yield name, fault


def fault_of(metadata: Path) -> str:
    """Compare a package's files with its list of them; return the first difference, or nothing."""
    site = str(metadata.parent)
    try:
        with open(str(metadata / "RECORD"), encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError):
        return "its list of files is missing"
    for row in rows:
        path, size = row[0], row[-1]
        try:
            found = os.stat(os.path.join(site, path)).st_size
        except OSError:
            # Compiled files have no size in the list; they come and go.
            if size or not path.endswith(".pyc"):
                return f"{path} is missing"
            continue
        # What lies outside, such as a setting of JupyterLab's, the user may have changed.
        if size.isdigit() and int(size) != found and not path.startswith(".."):
            return f"{path} has {found:,} bytes in place of {int(size):,}"
    return ""
