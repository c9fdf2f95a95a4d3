"""Dependencies run one way: the contracts of pyproject.toml, and no private name crosses a file."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("slingshot", "slingshot_exercises", "slingshot_grader")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]


def lint(source: Path) -> "subprocess.CompletedProcess[str]":
    """Apply the contracts to the packages in a folder."""
    command = "from importlinter.cli import lint_imports_command as lint; lint()"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache", "--no-logo", str(ROOT / "pyproject.toml")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
        check=False,
    )


def test_every_room_depends_on_those_below_it() -> None:
    run = lint(ROOT / "src")
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(
    ("module", "line", "named"),
    [
        ("slingshot/sizes.py", "from slingshot import lm", "sizes is not allowed to import"),
        ("slingshot/moe/routing.py", "import slingshot.costs", "moe is not allowed to import"),
        ("slingshot/stats.py", "def f():\n    import slingshot_exercises", "slingshot_exercises"),
        ("slingshot/pages/tables.py", "from slingshot import train", "slingshot.train"),
    ],
)  # fmt: skip
def test_a_dependency_the_other_way_is_named(
    module: str, line: str, named: str, tmp_path: Path
) -> None:
    for package in PACKAGES:
        ignore = shutil.ignore_patterns("stored", "__pycache__")
        shutil.copytree(ROOT / "src" / package, tmp_path / package, ignore=ignore)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    run = lint(tmp_path)
    assert run.returncode != 0
    assert named in run.stdout


def rooms(lines: list[str]) -> set[str]:
    """The modules of the library that lines of a contract name."""
    return set(re.findall(r"slingshot\.(\w+)", " ".join(lines)))


def test_every_module_of_the_library_has_its_place() -> None:
    """One that no contract names could import what it likes."""
    layers, prices, pages = SETTINGS["contracts"]
    there = {path.stem for path in (ROOT / "src/slingshot").iterdir() if path.stem[0] != "_"}
    there -= {"stored", "assets", "py"}  # and a file py.typed
    alone = {"costs", "serving", "rules"}  # nothing may import them; they take what is below
    shown = rooms(pages["source_modules"])
    placed = rooms(layers["layers"])
    assert placed == there - alone - shown
    assert rooms(prices["source_modules"]) == placed
    assert rooms(prices["forbidden_modules"]) == alone
    usable = {"facts", "stats", "progress", "tensors", "require"}  # no model is among them
    assert rooms(pages["forbidden_modules"]) == placed - usable | alone


def private_names(path: Path) -> list[str]:
    """The names with one leading underscore that a file imports from another of ours."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno} imports {alias.name} of {node.module}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]


def test_no_private_name_crosses_a_file() -> None:
    found = [
        text
        for package in PACKAGES
        for path in (ROOT / "src" / package).rglob("*.py")
        for text in private_names(path)
    ]
    assert not found


# --- and what one reads at once fits on a screen --------------------------------------------------

SCREEN = 57  # lines


def long_functions(code: str) -> list[str]:
    """The functions with more lines than a screen, docstring included."""
    return [
        f"{node.name} has {lines} lines"
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > SCREEN
    ]


def test_every_function_fits_on_a_screen() -> None:
    folders = [*(ROOT / "src" / package for package in PACKAGES), ROOT / "tools"]
    found = {
        str(path.relative_to(ROOT)): long
        for folder in [*folders, ROOT / "experiments"]
        for path in folder.rglob("*.py")
        if (long := long_functions(path.read_text("utf-8")))
    }
    assert not found


def test_a_line_too_many_is_found() -> None:
    body = "    x = 1\n" * (SCREEN - 1)
    assert long_functions(f"def f():\n{body}") == []
    assert long_functions(f"class A:\n  def f():\n{body}    y = 1") == ["f has 58 lines"]


def shadowed_annotations(source: str) -> list[tuple[str, str]]:
    """Names in the annotations of a class that the class gives another meaning, with the class.

    From Python 3.14 on annotations are evaluated when somebody asks for them, and within the class:
    ``sizes.Config`` then finds the method ``sizes`` and not the module.
    """
    found = []
    for each in ast.walk(ast.parse(source)):
        if not isinstance(each, ast.ClassDef):
            continue
        bound: set[str] = set()
        annotations: list[ast.expr | None] = []
        for line in each.body:
            if isinstance(line, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                bound.add(line.name)
            if isinstance(line, ast.Assign):
                bound |= {place.id for place in line.targets if isinstance(place, ast.Name)}
            if isinstance(line, ast.AnnAssign):
                annotations.append(line.annotation)
                if line.value is not None and isinstance(line.target, ast.Name):
                    bound.add(line.target.id)
            if isinstance(line, (ast.FunctionDef, ast.AsyncFunctionDef)):
                annotations += [
                    line.returns,
                    *(a.annotation for a in ast.walk(line.args) if isinstance(a, ast.arg)),
                ]
        names = {n.id for a in annotations if a for n in ast.walk(a) if isinstance(n, ast.Name)}
        found += [(each.name, name) for name in sorted(names & bound)]
    return found


def test_no_class_shadows_what_its_annotations_name() -> None:
    python = [
        path
        for folder in ("src", "tools", "book", "experiments")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(python) > 100
    assert {
        path: found for path in python if (found := shadowed_annotations(path.read_text("utf-8")))
    } == {}


@pytest.mark.parametrize(
    "body",
    [
        "size: sizes.Size\n    def sizes(self): ...",
        "def sizes(self) -> sizes.Size: ...",
        "sizes = 1\n    def of(self, x: list[sizes.Size]): ...",
        "sizes: int = 1\n    async def of(self, *, x: sizes.Size): ...",
    ],
)
def test_a_shadowed_annotation_is_found(body: str) -> None:
    assert shadowed_annotations(f"class Model:\n    {body}\n") == [("Model", "sizes")]
