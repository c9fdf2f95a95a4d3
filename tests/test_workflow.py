"""The workflow on GitHub: what it proves, and that nothing in it moves or may more than it should.

Nothing here runs it. The functions say what is wrong with the text of a workflow; one test asks
them about the real ones, and the others plant a fault for every rule. The page for contributors and
the Makefile are held to what they say about other systems.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import bootstrap  # noqa: E402

WORKFLOWS = ROOT / ".github" / "workflows"
BOOK = (WORKFLOWS / "book.yml").read_text("utf-8")
PROVE = (WORKFLOWS / "prove.yml").read_text("utf-8")
WEEKLY = (WORKFLOWS / "weekly.yml").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.M)
PROOF = "bash .ci/run"

USES = re.compile(r"^ *(?:- )?uses: (\S+)(?: +# (\S+))?$", re.M)
PINNED = re.compile(r"[\w.-]+(?:/[\w.-]+)+@[0-9a-f]{40}")
VERSION = re.compile(r"v\d+\.\d+\.\d+")
MAY_PUBLISH = {"pages": "write", "id-token": "write"}
MAY_REPORT = {"issues": "write"}
LEAST_MINUTES = 60
"""Three times what the tests took on two cores, for a slower machine and the installation."""


# --- what a workflow says ------------------------------------------------------------------------


def jobs(text: str) -> dict[str, dict[str, Any]]:
    """The jobs of a workflow by their names."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["jobs"]
    return found


def steps(text: str) -> list[dict[str, Any]]:
    """The steps of all jobs."""
    return [step for job in jobs(text).values() for step in job.get("steps", [])]


def command_lines(text: str) -> list[str]:
    """The lines of every ``run``."""
    return [line for step in steps(text) for line in step.get("run", "").splitlines()]


def callers() -> list[dict[str, Any]]:
    """The jobs that call prove.yml."""
    name = "./.github/workflows/prove.yml"
    return [job for job in jobs(BOOK).values() if job.get("uses") == name]


# --- the rules: each returns its complaints ------------------------------------------------------


def unpinned(text: str) -> Iterator[str]:
    """Whatever is used is pinned to a commit, with its version beside it, or lies here."""
    lines = USES.findall(text)
    every = [each["uses"] for each in [*jobs(text).values(), *steps(text)] if "uses" in each]
    if sorted(every) != sorted(name for name, _ in lines):
        yield "a `uses` is written in another form"
    for name, version in lines:
        if name.startswith("./"):
            if not (ROOT / name).is_file():
                yield f"{name} is not there"
        elif not PINNED.fullmatch(name) or not VERSION.fullmatch(version):
            yield f"{name} is not pinned to a commit with its version"


def endless(text: str) -> Iterator[str]:
    """Every job that runs on a machine has a limit, and the proof has time for its work."""
    for name, job in jobs(text).items():
        least = LEAST_MINUTES if any(s.get("run") == PROOF for s in job.get("steps", [])) else 1
        if "runs-on" in job and not least <= job.get("timeout-minutes", 0) < 360:
            yield f"{name} has no timeout, or a wrong one"


def too_much_allowed(text: str) -> Iterator[str]:
    """A workflow may read the repository; a job that may publish or report runs no code of it."""
    if yaml.safe_load(text).get("permissions") != {"contents": "read"}:
        yield "the workflow may do more than read"
    for name, job in jobs(text).items():
        used = [step.get("uses", "") for step in job.get("steps", [])]
        publishes = bool(used) and all(each.startswith("actions/deploy-pages@") for each in used)
        may = MAY_PUBLISH if publishes else MAY_REPORT if reports(job) else {}
        if job.get("permissions", {}) != may:
            yield f"{name} may do more or less than it must"
    if any("${{" in line for line in command_lines(text)):
        yield "a command has an expression in it, which another may fill"
    for step in steps(text):
        checkout = step.get("uses", "").startswith("actions/checkout@")
        if checkout and step.get("with", {}).get("persist-credentials") is not False:
            yield "a checkout leaves its credentials behind"


def reports(job: dict[str, Any]) -> bool:
    """Whether a job does nothing but open an issue: it has nothing of the repository."""
    each = job.get("steps", [])
    lines = [line for step in each for line in step.get("run", "").splitlines()]
    lone = [line for line in lines if re.match(r"gh issue |test -s open \|\| gh issue ", line)]
    return bool(lines) and lines == lone and not any("uses" in step for step in each)


def unknown_commands(text: str) -> Iterator[str]:
    """Every command is a target of the Makefile, a file, or one of the system's."""
    apart = [step for job in jobs(text).values() if reports(job) for step in job["steps"]]
    known = {line for step in apart for line in step["run"].splitlines()}
    for line in command_lines(text):
        if line in known:
            continue
        program, *arguments = shlex.split(line)
        arguments = [each for each in arguments if each != "PYTHON=python"]
        if program == "make":
            yield from (f"make {name}" for name in arguments if name not in TARGETS)
        elif program == "bash":
            yield from (line for name in arguments[:1] if not (ROOT / name).is_file())
        elif program not in ("sudo", "bwrap"):
            yield line


def loose_ends(text: str) -> Iterator[str]:
    """What a job refers to is there: ids of steps, keys of the matrix, jobs that it needs."""
    for name, job in jobs(text).items():
        said = yaml.safe_dump(job)
        ids = {step["id"] for step in job.get("steps", []) if "id" in step}
        matrix = job.get("strategy", {}).get("matrix", {})
        yield from set(re.findall(r"\bsteps\.([\w-]+)", said)) - ids
        yield from set(re.findall(r"\bmatrix\.([\w-]+)", said)) - matrix.keys()
        needs = job.get("needs", [])
        yield from {*([needs] if isinstance(needs, str) else needs)} - jobs(text).keys()
        if matrix and job["strategy"].get("fail-fast") is not False:
            yield f"the first failure in {name} ends its other runs"


RULES: list[Callable[[str], Iterator[str]]]
RULES = [unpinned, endless, too_much_allowed, unknown_commands, loose_ends]


@pytest.mark.parametrize("path", sorted(WORKFLOWS.iterdir()), ids=lambda path: path.name)
@pytest.mark.parametrize("rule", RULES)
def test_workflow(path: Path, rule: Callable[[str], Iterator[str]]) -> None:
    assert list(rule(path.read_text("utf-8"))) == []


SHA = "3d3c42e5aac5ba805825da76410c181273ba90b1"


@pytest.mark.parametrize(
    ("rule", "text", "old", "new"),
    [
        (unpinned, PROVE, f"@{SHA} # v7.0.1", "@v7"),
        (unpinned, PROVE, f"@{SHA} # v7.0.1", f"@{SHA}"),
        (unpinned, PROVE, f"@{SHA} # v7.0.1", f"@{SHA} # latest"),
        (unpinned, PROVE, SHA, SHA[:12]),
        (unpinned, PROVE, "- uses: actions/checkout@", '- "uses": actions/checkout@'),
        (unpinned, BOOK, "workflows/prove.yml", "workflows/gone.yml"),
        (endless, PROVE, "    timeout-minutes: 60\n", ""),
        (endless, PROVE, "timeout-minutes: 60", "timeout-minutes: 30"),
        (endless, BOOK, "    timeout-minutes: 10\n", ""),
        (too_much_allowed, PROVE, "permissions:\n  contents: read\n", ""),
        (too_much_allowed, BOOK, "contents: read", "contents: write"),
        (too_much_allowed, BOOK, "      id-token: write # and", "      packages: write # and"),
        (
            too_much_allowed,
            BOOK,
            "        id: deployment",
            "        id: deployment\n      - run: ls",
        ),
        (too_much_allowed, PROVE, "persist-credentials: false", "persist-credentials: true"),
        (too_much_allowed, PROVE, "run: bash .ci/run", "run: bash .ci/run ${{ github.head_ref }}"),
        (unknown_commands, PROVE, "make setup-dev model", "make setup-dev mode"),
        (unknown_commands, PROVE, "bash .ci/run", "bash .ci/runs"),
        (unknown_commands, PROVE, "bash .ci/run", "curl https://example.org/a.sh"),
        (unpinned, WEEKLY, f"@{SHA} # v7.0.1", "@v7"),
        (endless, WEEKLY, "    timeout-minutes: 10\n", ""),
        (too_much_allowed, WEEKLY, "      issues: write", "      contents: write"),
        (
            too_much_allowed,
            WEEKLY,
            "    steps:\n      - run: |",
            f"    steps:\n      - uses: a/b@{SHA}\n      - run: |",
        ),
        (
            too_much_allowed,
            WEEKLY,
            "          test -s open",
            "          make newest\n          test -s open",
        ),
        (too_much_allowed, WEEKLY, "$GITHUB_RUN_ID says", "${{ github.ref }} says"),
        (unknown_commands, WEEKLY, "make links", "make linkz"),
        (unknown_commands, WEEKLY, "          gh issue list", "          gh api"),
        (loose_ends, WEEKLY, "needs: [links, newest]", "needs: [links, news]"),
        (loose_ends, PROVE, "id: cache\n", "id: cash\n"),
        (loose_ends, BOOK, "matrix.python == '3.11'", "matrix.pyton == '3.11'"),
        (loose_ends, BOOK, "needs: linux", "needs: test"),
        (loose_ends, BOOK, "      fail-fast: false\n", ""),
    ],
)
def test_a_fault_is_noticed(
    rule: Callable[[str], Iterator[str]], text: str, old: str, new: str
) -> None:
    assert old in text
    assert list(rule(text.replace(old, new, 1)))


# --- what is looked at every week ----------------------------------------------------------------


def unheard(text: str) -> list[str]:
    """What a weekly workflow leaves unsaid: a job whose failure opens no issue, or no schedule."""
    said = yaml.safe_load(text)
    complaints = [] if said[True].get("schedule") else ["it has no schedule"]
    telling = [job for job in jobs(text).values() if reports(job)]
    heard = {name for job in telling if job.get("if") == "failure()" for name in job["needs"]}
    return complaints + [
        n for n, job in jobs(text).items() if job not in telling and n not in heard
    ]


def test_every_weekly_failure_opens_an_issue() -> None:
    assert unheard(WEEKLY) == []
    assert {"make links PYTHON=python", "make newest PYTHON=python"} < {*command_lines(WEEKLY)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("needs: [links, newest]", "needs: [links]"),
        ("    if: failure()\n", ""),
        ("schedule:", "push:"),
        ("gh issue create", "gh pr create"),
    ],
)
def test_a_weekly_failure_that_nobody_hears_of_is_noticed(old: str, new: str) -> None:
    assert old in WEEKLY
    assert unheard(WEEKLY.replace(old, new, 1))


# --- what the workflows prove together -----------------------------------------------------------


def stated_pythons(readme: str) -> list[str]:
    """The Pythons from the first that the README's sentence names to the last: "3.11", "3.12"."""
    (sentence,) = re.findall(r"^You need Python .*$", readme, re.M)
    minors = [int(minor) for minor in re.findall(r"\b3\.(\d+)", sentence)]
    return [f"3.{minor}" for minor in range(min(minors), max(minors) + 1)]


def missing_pythons(text: str, stated: list[str]) -> list[str]:
    """What the matrix lacks of the stated Pythons, and of the oldest release of the oldest one."""
    linux = jobs(text)["linux"]["strategy"]["matrix"]["python"]
    elsewhere = jobs(text)["elsewhere"]["strategy"]["matrix"]["python"]
    lacks = [python for python in [*stated, f"{stated[0]}.0"] if python not in linux]
    return lacks + [python for python in (stated[0], stated[-1]) if python not in elsewhere]


def test_the_readme_and_the_package_name_the_same_oldest_python() -> None:
    stated = stated_pythons((ROOT / "README.md").read_text("utf-8"))
    assert len(stated) > 1
    assert stated[0] == "{}.{}".format(*bootstrap.OLDEST)
    assert stated[-1] == "{}.{}".format(*bootstrap.NEWEST)
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert re.findall(r'^requires-python = ">=([\d.]+)', project, re.M) == [stated[0]]


def test_every_python_that_the_readme_names_is_in_the_matrix() -> None:
    stated = stated_pythons((ROOT / "README.md").read_text("utf-8"))
    assert missing_pythons(BOOK, stated) == []


@pytest.mark.parametrize("python", ["3.11.0", "3.12", "3.14"])
def test_a_python_that_is_missing_is_noticed(python: str) -> None:
    assert python in missing_pythons(
        BOOK.replace(f'"{python}"', '"3.10"'), ["3.11", "3.12", "3.14"]
    )
    assert stated_pythons("A\nYou need Python 3.11 to 3.13 and make. No GPU.\n3.15") == [
        "3.11",
        "3.12",
        "3.13",
    ]


def test_linux_macos_and_windows_have_their_runs() -> None:
    systems = [job["with"]["os"] for job in callers() if "matrix" not in job["with"]["os"]]
    systems += jobs(BOOK)["elsewhere"]["strategy"]["matrix"]["os"]
    assert [name.partition("-")[0] for name in systems] == ["ubuntu", "macos", "windows"]


def test_the_callers_give_what_is_asked_for() -> None:
    inputs = yaml.safe_load(PROVE)[True]["workflow_call"]["inputs"]  # YAML reads `on` as true
    required = {name for name, told in inputs.items() if told.get("required")}
    assert len(callers()) == 2
    for job in callers():
        assert required <= job["with"].keys() <= inputs.keys()
    assert set(re.findall(r"\binputs\.(\w+)", PROVE)) == set(inputs)


def test_one_run_makes_the_book_that_is_published() -> None:
    linux = jobs(BOOK)["linux"]
    (python,) = re.findall(r"matrix\.python == '([\d.]+)'", linux["with"]["site"])
    assert linux["strategy"]["matrix"]["python"].count(python) == 1
    assert jobs(BOOK)["publish"]["needs"] == "linux"
    (upload,) = [s for s in steps(PROVE) if "upload-pages-artifact@" in s.get("uses", "")]
    assert upload["if"] == f"inputs.site && {jobs(BOOK)['publish']['if']}"


def order(text: str) -> list[str]:
    """What the job does, in its order, as far as these tests know it."""
    kinds: dict[str, Callable[[dict[str, Any]], bool]] = {
        "restore": lambda step: "actions/cache/restore@" in step.get("uses", ""),
        "sandbox": lambda step: "bubblewrap" in step.get("run", ""),
        "install": lambda step: step.get("run", "").startswith("make setup-dev"),
        "save": lambda step: "actions/cache/save@" in step.get("uses", ""),
        "proof": lambda step: step.get("run") == PROOF,
        "upload": lambda step: "upload-pages-artifact@" in step.get("uses", ""),
    }
    return [name for step in steps(text) for name, is_it in kinds.items() if is_it(step)]


def test_the_cache_is_saved_and_the_sandbox_allowed_before_anything_can_fail() -> None:
    wanted = ["restore", "sandbox", "install", "save", "proof", "upload"]
    assert order(PROVE) == wanted
    proof = f"      - run: {PROOF}\n"
    early = PROVE.replace(proof, "").replace(
        "      - uses: actions/cache/save", proof + "      - uses: actions/cache/save"
    )
    assert order(early) != wanted
    sandbox = next(step for step in steps(PROVE) if "bubblewrap" in step.get("run", ""))
    assert sandbox["if"] == "runner.os == 'Linux'"
    assert "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" in sandbox["run"]
    assert sandbox["run"].splitlines()[-1].startswith("bwrap ")  # it is tried at once


def test_the_key_of_the_cache_hashes_what_decides_the_installation() -> None:
    restore, save = (s for s in steps(PROVE) if "actions/cache/" in s.get("uses", ""))
    assert save["with"]["key"] == "${{ steps.cache.outputs.cache-primary-key }}"
    assert save["with"]["path"] == restore["with"]["path"] == ".venv"
    patterns = re.findall(r"'([^']+)'", restore["with"]["key"])
    files = [path.name for path in bootstrap.requirement_files("requirements-dev.txt")]
    for name in [*files, "constraints.txt", "pyproject.toml", "tools/bootstrap.py"]:
        assert any(fnmatch(name, pattern) for pattern in patterns), name
    assert all(list(ROOT.glob(pattern)) for pattern in patterns)
    assert "steps.python.outputs.python-version" in restore["with"]["key"]


# --- other systems -------------------------------------------------------------------------------


@pytest.mark.parametrize(("system", "folder"), [("Windows_NT", "Scripts"), ("", "bin")])
def test_make_finds_the_programs_of_the_environment(system: str, folder: str) -> None:
    # Nothing of the make that runs these tests.
    outer = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    told = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *TARGETS],
        cwd=ROOT,
        env={**outer, "OS": system},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout
    assert set(re.findall(r"\.venv/(\w+)/", told)) == {folder}


def test_a_checkout_on_windows_keeps_the_ends_of_lines() -> None:
    assert "* text=auto eol=lf" in (ROOT / ".gitattributes").read_text("utf-8").splitlines()
    for name in ("Makefile", ".ci/run", ".gitattributes"):
        assert b"\r" not in (ROOT / name).read_bytes()


# --- the page for contributors -------------------------------------------------------------------

PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def dead_names(page: str) -> list[str]:
    """The commands and the files that a page names and that are not there."""
    code = re.findall(r"(?<!`)`([^`\n]+)`", page)
    named = [words.split() for words in code]
    makes = [f"make {words[1]}" for words in named if words[0] == "make" and len(words) > 1]
    path = re.compile(r"[\w.-]*/[\w./-]*|[\w-]+\.(?:yml|md|bib|py)")
    paths = [words[0] for words in named if path.fullmatch(words[0])]
    return [
        *(command for command in makes if command.split()[1] not in TARGETS),
        *(name for name in paths if name != "action.yml" and not (ROOT / name).exists()),
    ]


def test_what_the_page_names_is_there() -> None:
    assert dead_names(PAGE) == []
    dead = ["make boot", "tols/", "book/no.md", ".ci/runs", "experiments/_run.py", "_tok.yml"]
    alive = ["make book", "tools/", ".ci/run", "_toc.yml", "facts.value", "{fact}`its.key`"]
    assert dead_names(" ".join(f"`{name}`" for name in dead + alive)) == dead


def test_the_page_says_where_nothing_was_run() -> None:
    (nowhere,) = re.findall(r"^Run nowhere so far: .*$", PAGE, re.M)
    _, table = PAGE.split("## Where this was run\n")
    rows = "\n".join(re.findall(r"^\|.*\|$", table, re.M))
    for name in ("macOS", "Windows", "ARM", "GitHub workflow"):
        assert (name in nowhere) != (name in rows), f"{name}: either it was run, or it was not"


def test_a_commit_is_checked_as_make_test_checks() -> None:
    """What pre-commit runs is what the two targets of the Makefile run before pytest."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0][
        "hooks"
    ]
    commands = [hook["entry"].removeprefix(".venv/bin/python -m ") for hook in hooks]
    for target in ("test", "test-fast"):
        recipe = MAKEFILE.partition(f"\n{target}: ")[2].partition("\n\n")[0]
        run = re.findall(r"^\t\$\(VENV_PYTHON\) -m (.+)$", recipe, re.M)
        assert [line for line in run if not line.startswith("pytest")] == commands
