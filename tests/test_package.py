"""The library as it is installed from its wheel: declared, complete, and enough for every chapter.

A chapter must run as a single file in an empty folder. Here the wheel is built and installed beside
the packages of the tests, in an environment that sees nothing of the course.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable, Sequence
from email import message_from_bytes
from importlib.metadata import packages_distributions, version
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import slingshot
from notebook_counts_plugin import course_notebooks, read

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
OURS = {"slingshot", "slingshot_exercises", "slingshot_grader", "tools"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NEEDED = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {
    name: [Requirement(text) for text in texts]
    for name, texts in PROJECT["optional-dependencies"].items()
}
CHAPTERS = [path.stem for path in course_notebooks()]
ENOUGH_SECONDS = 300  # for a process that takes some, on a machine that is busy

# --- what the code imports, and what is declared -----------------------------------------------


def imported(code: str) -> set[str]:
    """The packages that Python code imports, at the top or later, by their first name.

    The standard library and the library itself are left out.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names=aliases):
                names |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=str(module), level=0):
                names.add(module)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                names.add(module)
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - OURS


def optional(code: str) -> set[str]:
    """The packages that code imports under guard: where one is missing, it says how to install it.

    Such an import stands alone in a ``try`` whose handler of ``ImportError`` has a "pip install".
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Try(handlers=[ast.ExceptHandler(type=ast.Name(id="ImportError")) as handler]):
                if "pip install" in ast.unparse(handler) and len(node.body) == 1:
                    found |= imported(ast.unparse(node.body[0]))
    return found


def distributions(packages: Iterable[str]) -> set[str]:
    """The names under which these packages are installed."""
    known = packages_distributions()
    found = {name for package in packages for name in known.get(package, [package])}
    return {canonicalize_name(name) for name in found}


def names(requirements: Iterable[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def code_of(cell: NotebookNode) -> str:
    """A code cell as Python, in which a line such as %pip is a call."""
    return TransformerManager().transform_cell(cell.source)  # type: ignore[no-untyped-call]


def chapter(name: str) -> list[NotebookNode]:
    """The code cells of a chapter."""
    cells = read(ROOT / "notebooks" / f"{name}.ipynb").cells
    return [cell for cell in cells if cell.cell_type == "code"]


def test_the_library_declares_exactly_what_it_imports() -> None:
    code = [
        path.read_text("utf-8")
        for name in ("slingshot", "slingshot_exercises")
        for path in (ROOT / "src" / name).rglob("*.py")
    ]
    guarded = set().union(*map(optional, code))
    assert distributions(set().union(*map(imported, code)) - guarded) == names(NEEDED)
    assert distributions(guarded) == names(EXTRAS["gym"])


def test_grading_declares_exactly_what_it_imports_on_top() -> None:
    code = [path.read_text("utf-8") for path in (ROOT / "src/slingshot_grader").rglob("*.py")]
    packages = set().union(*map(imported, code))
    guarded = set().union(*map(optional, code))
    assert distributions(packages - guarded) - names(NEEDED) == names(EXTRAS["grader"])
    assert distributions(packages & guarded) == names(EXTRAS["cluster"])


def test_the_notebooks_declare_exactly_what_they_import_on_top() -> None:
    packages = {
        each for name in CHAPTERS for cell in chapter(name) for each in imported(code_of(cell))
    }
    assert distributions(packages) - names(NEEDED) == names(EXTRAS["notebooks"])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import numpy.linalg as la, os", {"numpy"}),
        ("from torch.nn import functional", {"torch"}),
        ("def draw():\n    if True:\n        import gguf", {"gguf"}),
        ("import importlib\nimportlib.import_module('scipy.stats')", {"scipy"}),
        ("from . import facts\nfrom slingshot.moe import MoE\nimport slingshot", set()),
    ],
)
def test_an_import_is_found_wherever_it_stands(code: str, expected: set[str]) -> None:
    assert imported(code) == expected


GUARDED = """
def create():
    try:
        import gguf
    except ImportError as error:
        error.add_note("pip install gguf")
        raise
"""


def test_an_import_is_optional_only_where_the_remedy_is_said() -> None:
    assert optional(GUARDED) == {"gguf"}
    assert optional(GUARDED.replace("pip install", "no")) == set()
    assert optional(GUARDED.replace("except ImportError", "except ValueError")) == set()


@pytest.mark.parametrize("needed", [*NEEDED, *EXTRAS["notebooks"]], ids=str)
def test_each_has_a_lowest_release_and_what_is_pinned_is_above(needed: Requirement) -> None:
    assert [each.operator for each in needed.specifier] == [">="]
    assert needed.specifier.contains(version(needed.name))


# --- the wheel and the source distribution -----------------------------------------------------

BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # which setuptools overwrites
build_meta.build_wheel(folder)
build_meta.build_sdist(folder)
"""


class Built(NamedTuple):
    """Where the two distributions lie."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both distributions, built as pip does it without isolation, from a copy of the course."""
    folder = tmp_path_factory.mktemp("build")
    copy, made = folder / "course", folder / "made"
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    made.mkdir()
    run([sys.executable, "-c", BUILD, str(made)], copy)
    return Built(*made.glob("*.whl"), *made.glob("*.tar.gz"))


def run(command: Sequence[str], folder: Path, **variables: str) -> str:
    """Run a command in a folder, away from the course; return what it prints."""
    steered_by = ("PYTHON", "PYTEST", "PIP_", "JUPYTER", "COV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steered_by)}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**kept, "PYTHONUTF8": "1", **variables},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=ENOUGH_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def files_of_the_library() -> set[str]:
    files = (path.relative_to(SOURCE) for path in SOURCE.rglob("*") if path.is_file())
    return {
        path.as_posix()
        for path in files
        if "__pycache__" not in path.parts and not path.parts[0].endswith(".egg-info")
    }


def test_the_wheel_holds_the_library_with_its_data_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == files_of_the_library()
    assert {"slingshot/facts.yml", "slingshot/stored/experiments/mixture.json"} < held


def test_the_source_distribution_holds_the_library_and_no_test_that_cannot_run(
    built: Built,
) -> None:
    with tarfile.open(built.sdist) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"src/{name}" for name in files_of_the_library()} < held
    assert {"pyproject.toml", "README.md", "LICENSE"} < held
    assert [name for name in held if name.startswith("tests")] == []


def test_the_wheel_says_what_it_needs(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        (file,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(wheel.read(file))
    needs = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    assert {str(each) for each in needs if each.marker is None} == set(map(str, NEEDED))
    assert names(each for each in needs if each.marker) == names(chain(*EXTRAS.values()))
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["Version"] == PROJECT["version"]


def test_the_readme_names_the_wheel(built: Built) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert f'pip install "./{built.wheel.name}[notebooks]"' in text


def test_the_version_to_cite_is_that_of_the_library() -> None:
    version_to_cite = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert version_to_cite == project["version"]
    assert f"## {version_to_cite.partition('.dev')[0]}" in (ROOT / "CHANGELOG.md").read_text(
        "utf-8"
    )


def test_the_library_knows_its_version() -> None:
    # That of the environment: the set-up installs anew when pyproject.toml has changed.
    assert slingshot.__version__ == version(PROJECT["name"]) == PROJECT["version"]


# --- the library alone -------------------------------------------------------------------------


class Alone(NamedTuple):
    """An environment without the course: its Python, and where it installs."""

    python: str
    site: Path


def environment(folder: Path, wheel: Path | None = None) -> Alone:
    """Make an environment with the packages of this one, and with the wheel where one is given."""
    venv.create(folder)
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run([python, "-c", where], folder).strip())
    if wheel:
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
        run([*pip, "--no-deps", "--no-index", str(wheel)], folder)
    # A folder named here is searched, but the .pth files in it are not read, and one of those is
    # how the set-up puts the course's own source on the path.
    others = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (site / "packages_of_the_tests.pth").write_text("\n".join(others) + "\n", "utf-8")
    return Alone(python, site)


@pytest.fixture(scope="module")
def alone(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """An environment in which the wheel is installed."""
    return environment(tmp_path_factory.mktemp("alone") / "environment", built.wheel)


def probe(site: Path) -> NotebookNode:
    """A cell that must say that the library is the one installed in ``site``."""
    text = f"{site / 'slingshot' / '__init__.py'}\n"
    output = nbformat.v4.new_output("stream", name="stdout", text=text)  # type: ignore[no-untyped-call]
    source = "import slingshot\n\nprint(slingshot.__file__)"
    cell: NotebookNode = nbformat.v4.new_code_cell(  # type: ignore[no-untyped-call]
        source, outputs=[output], execution_count=1
    )
    return cell


def compare(alone: Alone, notebook: Path, **variables: str) -> str:
    """Execute a notebook as `make test` does, and compare its outputs with the stored ones."""
    # A path in an argument of its own would make pytest take the course's settings for this run.
    sanitize = f"--nbval-sanitize-with={ROOT / 'tests' / 'nbval_sanitize.cfg'}"
    nbval = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=120", sanitize]
    quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command = [alone.python, "-m", "pytest", *quiet, *nbval, notebook.name]
    return run(command, notebook.parent, **variables)


READS_ALL = "kv_cache"
"""A chapter that reads facts, results and measurements."""


def test_a_chapter_runs_in_an_empty_folder(alone: Alone, tmp_path: Path) -> None:
    notebook = read(ROOT / "notebooks" / f"{READS_ALL}.ipynb")
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert all(f"{read_by}(" in code for read_by in ("facts.value", *READERS))
    notebook.cells.append(probe(alone.site))
    copy = tmp_path / f"{READS_ALL}.ipynb"
    nbformat.write(notebook, copy)  # type: ignore[no-untyped-call]
    n_cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    assert re.search(rf"^{n_cells} passed", compare(alone, copy), re.M)
    assert list(tmp_path.iterdir()) == [copy]


# --- every chapter: its first cell, its imports, and what it reads -------------------------------

READERS = ("stored_results", "stored_benchmark")

# A chapter reads through the library, which knows where things are. These would go past it.
MODULES_OF_FILES = {"glob", "io", "os", "pathlib", "shutil", "subprocess", "urllib"}
CALLS_OF_FILES = {"open", "load", "loadtxt", "genfromtxt", "fromfile", "imread", "read_text"}
CALLS_OF_FILES |= {"read_bytes", "get_ipython"}


def name_of(function: ast.expr) -> str:
    """The last name of what is called."""
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def reads(code: str) -> list[str]:
    """The calls that read what is stored, as code; ``ValueError`` for a name that is computed."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    found = [call for call in calls if name_of(call.func) in READERS]
    for call in found:
        if not all(isinstance(arg, ast.Constant) for arg in call.args) or call.keywords:
            raise ValueError(f"{ast.unparse(call)}: give a name in quotes")
    return [ast.unparse(call) for call in found]


def past_the_library(code: str) -> list[str]:
    """What reads a file, or may, and does not ask the library for it."""
    complaints = []
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names=aliases):
                roots = {alias.name.split(".")[0] for alias in aliases}
            case ast.ImportFrom(module=str(module)):
                roots = {module.split(".")[0]}
            case _:
                roots = set()
        complaints += [f"imports {root}" for root in sorted(roots & MODULES_OF_FILES)]
        if isinstance(node, ast.Call) and name_of(node.func) in CALLS_OF_FILES:
            complaints.append(ast.unparse(node))
    return complaints


# One process for all chapters, since each would import torch anew.
TRY = """
import json, sys, traceback
from pathlib import Path
import slingshot
failed = {}
for name, pieces in json.loads(Path(sys.argv[1]).read_text("utf-8")).items():
    space = {"__name__": name}
    try:
        for piece in pieces:
            exec(piece, space)
    except BaseException:
        failed[name] = traceback.format_exc()
print(json.dumps({"library": slingshot.__file__, "failed": failed}))
"""


@pytest.fixture(scope="module")
def failed(alone: Alone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By chapter what went wrong when it imported and read, in an empty folder."""
    pieces = {}
    for name in CHAPTERS:
        install, imports, *others = map(code_of, chapter(name))
        pieces[name] = [install, imports, *(call for code in others for call in reads(code))]
    folder = tmp_path_factory.mktemp("empty")
    told = folder.parent / "pieces.json"
    told.write_text(json.dumps(pieces), "utf-8")
    report = json.loads(run([alone.python, "-c", TRY, str(told)], folder).splitlines()[-1])
    assert report["library"] == str(alone.site / "slingshot" / "__init__.py")
    assert list(folder.iterdir()) == []
    return dict(report["failed"])


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_imports_and_reads_in_an_empty_folder(name: str, failed: dict[str, str]) -> None:
    assert name not in failed, failed.get(name)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_reads_through_the_library_only(name: str) -> None:
    _, *others = map(code_of, chapter(name))
    assert [complaint for code in others for complaint in past_the_library(code)] == []


@pytest.mark.parametrize(
    "code",
    [
        "open('../experiments/results/a.json')",
        "from pathlib import Path",
        "import os.path",
        "torch.load('a.pt')",
        "np.load('a.npy')",
        "file.read_text()",
        "get_ipython().run_line_magic('run', 'a.py')",
    ],
)
def test_a_file_that_is_read_past_the_library_is_caught(code: str) -> None:
    assert len(past_the_library(code)) == 1


def test_what_is_read_must_be_named() -> None:
    assert reads("a = stored_results('mixture')['dense/0']") == ["stored_results('mixture')"]
    assert reads("notebook.stored_benchmark('quant')") == ["notebook.stored_benchmark('quant')"]
    with pytest.raises(ValueError, match=r"stored_results\(name\): give a name in quotes"):
        reads("stored_results(name)")


def first_cells() -> list[tuple[str, NotebookNode]]:
    """The first code cell of each chapter."""
    return [(name, chapter(name)[0]) for name in CHAPTERS]


def test_the_first_cell_is_the_same_in_all_chapters() -> None:
    first = chapter(CHAPTERS[0])[0]
    assert [name for name, cell in first_cells() if cell != first] == []
    for name in CHAPTERS:
        kinds = [cell.cell_type for cell in read(ROOT / "notebooks" / f"{name}.ipynb").cells[:2]]
        assert kinds == ["markdown", "code"], name


def test_the_first_cell_says_what_it_installs_and_is_not_on_the_page() -> None:
    _, cell = first_cells()[0]
    assert cell.metadata.tags == ["remove-cell"]
    assert cell.outputs == []
    comment = "".join(line for line in cell.source.splitlines() if line.startswith("#"))
    for installed in (PROJECT["name"], *names(EXTRAS["notebooks"])):
        assert installed in comment
    assert f'%pip install --quiet "{PROJECT["name"]}[notebooks]' in cell.source


def test_the_first_cell_installs_the_library(built: Built, tmp_path: Path) -> None:
    """In an environment without it, with the wheel beside: pip needs no network then."""
    bare = environment(tmp_path / "environment")
    _, cell = first_cells()[0]
    cell.metadata.tags = ["nbval-ignore-output"]  # pip says that one may have to restart
    # Once the course is public, the cell names its repository, which is on the network.
    cell.source = re.sub(r' @ git\+https://[^"]+', "", cell.source)
    notebook = nbformat.v4.new_notebook(cells=[cell, probe(bare.site)])  # type: ignore[no-untyped-call]
    empty = tmp_path / "empty"
    empty.mkdir()
    nbformat.write(notebook, empty / "first.ipynb")  # type: ignore[no-untyped-call]
    # What the library needs is there, and so is, for pip, the library of the course's own source.
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_IGNORE_INSTALLED": "1"}
    compare(bare, empty / "first.ipynb", PIP_FIND_LINKS=str(built.wheel.parent), **offline)
