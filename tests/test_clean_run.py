"""What keeps the tests apart from the machine, and the tests themselves: which hosts they name."""

import ast
import ipaddress
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import clean_run_plugin
import share_plugin
from clean_run_plugin import OWN_SETTINGS, OtherMachineError, differences, is_here

TESTS = Path(__file__).resolve().parent

# --- the working tree and skipped tests: a small course with the plugin --------------------------

LEAN = {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
ONE, TWO = (), ("-p", "xdist", "-n", "2")
CONFTEST = """
import clean_run_plugin
def pytest_configure(config):
    config.pluginmanager.register(clean_run_plugin)
"""


def run_tests(
    course: Path, test: str, *options: str, git: bool = True, ci: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run one file of tests in a course of its own."""
    (course / "tests").mkdir()
    shutil.copy(clean_run_plugin.__file__, course / "tests")
    (course / "tests" / "conftest.py").write_text(CONFTEST)
    (course / "tests" / "test_it.py").write_text(test)
    (course / "library.py").write_text("x = 1\n")
    (course / "old.py").write_text("y = 1\n")
    (course / ".gitignore").write_text("__pycache__/\n")
    (course / "pytest.ini").write_text("[pytest]\n")
    if git:
        subprocess.run(["git", "init", "-q", str(course)], check=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "tests"]
    env = {name: text for name, text in os.environ.items() if name != "CI"}
    return subprocess.run(
        command,
        cwd=course,
        env={**env, **LEAN} | ({"CI": ci} if ci else {}),
        capture_output=True,
        text=True,
        check=False,
    )


CHANGES = """
from pathlib import Path
def test_writes():
    Path("library.py").open("a").write("# was here")
    Path("new file.py").write_text("")
    Path("old.py").unlink()
"""


@pytest.mark.parametrize(("options", "git"), [(ONE, True), (TWO, False)])
def test_a_test_that_changes_the_course_fails_the_run_and_the_files_are_named(
    tmp_path: Path, options: tuple[str, ...], git: bool
) -> None:
    run = run_tests(tmp_path, CHANGES, *options, git=git)
    assert run.returncode == 1
    assert "1 passed" in run.stdout
    named = [line for line in run.stdout.splitlines() if re.match("(new|gone|changed): ", line)]
    assert named == ["changed: library.py", "new: new file.py", "gone: old.py"]


def test_a_test_that_changes_nothing_passes(tmp_path: Path) -> None:
    test = "from pathlib import Path\ndef test_reads():\n    Path('library.py').read_text()\n"
    run = run_tests(tmp_path, test)
    assert run.returncode == 0
    assert "working tree" not in run.stdout


def test_nothing_is_a_difference_but_a_difference() -> None:
    assert differences({"a": "1", "b": "2"}, {"b": "2", "a": "1"}) == []
    assert differences({"a": "1"}, {"a": "2"}) == ["changed: a"]


SKIPS = """
import pytest
@pytest.mark.parametrize("n", range(3))
@pytest.mark.skipif(True, reason="no such program here")
def test_a(n): ...
def test_b(): pytest.skip("another reason")
def test_c(): pytest.importorskip("no_such_module", reason="optional: pip install it")
"""
WHOLE_FILE = "import pytest\npytest.skip('the whole file', allow_module_level=True)"


def test_each_reason_for_skipping_is_said_once(tmp_path: Path) -> None:
    run = run_tests(tmp_path, SKIPS)
    assert run.returncode == 0
    assert [line for line in run.stdout.splitlines() if line.startswith("skipped ")] == [
        "skipped 1 test: another reason",
        "skipped 3 tests: no such program here",
        "skipped 1 test: optional: pip install it",
    ]


@pytest.mark.parametrize("options", [ONE, TWO])
def test_ci_skips_nothing_but_what_is_optional(tmp_path: Path, options: tuple[str, ...]) -> None:
    run = run_tests(tmp_path, SKIPS, *options, ci="true")
    assert run.returncode == 1
    assert "1 failed, 1 skipped, 3 errors" in run.stdout  # pytest's word for a test not begun
    assert "skipped 1 test: optional" in run.stdout


def test_ci_skips_no_file(tmp_path: Path) -> None:
    run = run_tests(tmp_path, WHOLE_FILE, ci="1")
    assert run.returncode != 0
    assert "CI skips no file, and this one was skipped: the whole file" in run.stdout


def test_a_run_has_a_temporary_folder_and_settings_of_its_own() -> None:
    folder = Path(os.environ["TMPDIR"])
    assert Path(tempfile.gettempdir()) == folder
    assert {Path(os.environ[name]).parent for name in OWN_SETTINGS} == {folder.parent}


# --- other machines ------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", b"::1", None, ""])
def test_the_loopback_is_here(host: object) -> None:
    assert is_here(host)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.org", b"example.org"])
def test_what_would_reach_another_machine_is_stopped(host: object) -> None:
    """The event alone is raised, as Python raises it before it sends; nothing is sent."""
    assert not is_here(host)
    with pytest.raises(OtherMachineError, match="tests stay on the loopback"):
        sys.audit("socket.connect", None, (host, 53))
    with pytest.raises(OtherMachineError):
        sys.audit("socket.sendto", None, (host, 53))
    with pytest.raises(OtherMachineError):
        sys.audit("socket.getaddrinfo", host, 53, 0, 0, 0)
    sys.audit("socket.connect", None, "/a/socket/in/the/file/system")


# --- which tests are slow, and how they are shared ------------------------------------------------


def test_slow_tests_are_named_once_and_begin_first(request: pytest.FixtureRequest) -> None:
    named = share_plugin.SLOW_FILES | share_plugin.SPREAD_FILES | {*share_plugin.LONGEST}
    assert [name for name in named if not (TESTS / name).exists()] == []
    items = request.session.items
    ranks = [share_plugin.rank(item) for item in items]
    assert ranks == sorted(ranks)
    for item in items:
        in_browser = "browser" in getattr(item, "fixturenames", ())
        assert not in_browser or item.get_closest_marker("slow"), item


def test_a_process_and_what_it_starts_have_their_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    for workers, share in ((2, 3), (4, 1), (8, 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        config: Any = SimpleNamespace(workerinput={"workercount": workers})
        share_plugin.pytest_configure(config)
        assert (given.pop(), os.environ["OMP_NUM_THREADS"]) == (share, str(share))
    alone: Any = SimpleNamespace()
    share_plugin.pytest_configure(alone)  # has all
    assert given == []


def test_the_longest_notebook_begins_first() -> None:
    """The last to begin is short, so that no process waits long for the other at the end."""
    recorded = share_plugin.seconds()
    stems = ["unheard_of", *recorded]
    items = [SimpleNamespace(path=Path(f"{stem}.ipynb")) for stem in stems]
    order = [item.path.stem for item in sorted(items, key=share_plugin.rank)]  # type: ignore[arg-type]
    assert order[0] == "unheard_of"
    assert [recorded[stem] for stem in order[1:]] == sorted(recorded.values(), reverse=True)


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("notebooks/moe_gating.ipynb::Cell 3", "notebooks/moe_gating.ipynb"),
        ("tests/test_moe.py::test_x[a::b]", "tests/test_moe.py"),
        ("tests/test_grade.py::test_nothing_is_lost", "tests/test_grade.py graded"),
        ("tests/test_grade.py::test_output_is_bounded", "tests/test_grade.py graded"),
        ("tests/test_grade.py::test_new[x]", "tests/test_grade.py::test_new[x]"),
    ],
)
def test_what_stays_together_is_known(nodeid: str, group: str) -> None:
    assert share_plugin.group_of(nodeid) == group


@pytest.mark.parametrize(
    ("name", "markers", "left_out"),
    [
        ("test_pdf.py", "not slow", True),
        ("test_routers_experiment.py", "not slow", True),
        ("moe_gating.ipynb", "not slow", True),
        ("test_moe.py", "not slow", None),  # pytest goes on to ask others
        ("test_experiments.py", "not slow", None),
        ("test_pdf.py", "slow", None),
        ("test_pdf.py", "", None),
    ],
)
def test_what_is_slow_is_not_read_where_nothing_slow_is_wanted(
    name: str, markers: str, left_out: bool | None
) -> None:
    config: Any = SimpleNamespace(option=SimpleNamespace(markexpr=markers))
    assert share_plugin.pytest_ignore_collect(TESTS / name, config) is left_out


FILE_OF_TESTS = """
import time
def test_one():
    time.sleep(0.2)
def test_two():
    time.sleep(0.2)
def test_three():
    time.sleep(0.2)
"""


def test_a_file_stays_in_one_process(tmp_path: Path) -> None:
    """Two files and two processes, which without the plugin would get two tests at a time."""
    for name in ("test_first.py", "test_second.py"):
        (tmp_path / name).write_text(FILE_OF_TESTS, "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "share_plugin", "-p", "no:cacheprovider"]
    options = [
        "-p",
        "xdist",
        "-v",
        "-n2",
        "--dist=load",
        "--no-loadscope-reorder",
        f"--rootdir={tmp_path}",
    ]
    run = subprocess.run(
        [*command, *options, str(tmp_path)],
        env={**os.environ, **LEAN, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    dealt = re.findall(r"\[(gw\d)\].* PASSED \S*(test_\w+)\.py", run.stdout)
    assert len(dealt) == 6, run.stdout + run.stderr
    assert len(set(dealt)) == 2, dealt


# --- hosts in the tests --------------------------------------------------------------------------

NEVER_CONTACTED = {
    "ast.in": "an operator of Python's grammar",
    "socket.ipynb": "a socket in the file system, which nobody opens",
    "github": "the same as a pattern: the address of a report that the museum links",
    "github.com": "the address of a report that the museum links, read and not opened",
    '^"': "the end of an address in a pattern, which a chapter's first cell is read with",
    "a": "links that a list of links is made from; nothing is opened",
    "b": "links that a list of links is made from; nothing is opened",
    "c": "links that a list of links is made from; nothing is opened",
    "6.0.12.1": "the version of a package",
    "colab.research.google.com": "the address of a button on a page, read and not opened",
    "mybinder.org": "the address of a button on a page, read and not opened",
    "somebody.github.io": "a made-up address of the book, read in its pages",
    "some-body.github.io": "a made-up address of the book, read in its pages",
    "www.sitemaps.org": "the name space of a sitemap",
    "example.com": "a page names it, and the browser's request is aborted before it is sent",
    "example.org": "text of links, and what the checks of this file must find",
    "www.w3.org": "the name space of SVG",
    "192.0.2.1": "of an event that sends nothing, and what the checks of this file must find",
    "2001:db8::1": "of an event that sends nothing, and what the checks of this file must find",
    "manifest.in": "the file that says what a source distribution holds",
    "mirror": "what the checks of this file must find",
    "x.org": "text of a link in a page that is read and not opened",
}
TOP = "com|org|net|io|dev|ai|edu|gov|info|app|cloud|co|eu|de|fr|uk|cn|jp|in|us"
URL_HOST = re.compile(
    r"\b(?:https?|ftp|wss?|ssh|git)://(?:[^\s/@'\"]*@)?(\[[^\]\s]*\]|[^\s/:'\"<>\\?#,)]+)"
)
NAMED_HOST = re.compile(rf"(?<![\w.@/-])((?:[a-z0-9-]+\.)+(?:{TOP}))(?![\w(.=\[-])", re.IGNORECASE)
NUMERIC = re.compile(r"(?<![\w.:])[0-9a-f:.]+(?![\w.:])", re.IGNORECASE)
SENDERS = {
    "connect", "connect_ex", "create_connection", "create_server", "bind", "sendto", "getaddrinfo",
    "gethostbyname", "HTTPConnection", "HTTPSConnection", "open_connection", "SMTP", "FTP",
}  # fmt: skip


def hosts(source: str) -> set[str]:
    """The hosts and addresses that a Python file names, also in the programs within its texts."""
    found = set(URL_HOST.findall(source)) | set(NAMED_HOST.findall(source))
    found |= {text for text in NUMERIC.findall(source) if is_address(text)}
    found |= set(in_calls(source))
    return {host.strip("[]").lower() for host in found} - {""}


def is_address(text: str) -> bool:
    """Whether a text is an address, and long enough not to be a slice such as ``1::2``."""
    try:
        return bool(ipaddress.ip_address(text)) and len(text.replace(":", "")) >= 4
    except ValueError:
        return False


def in_calls(source: str) -> Iterator[str]:
    """The first texts that calls which send something, or listen, are given."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            yield from in_calls(node.value)
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            if isinstance(first, ast.Tuple) and first.elts:
                first = first.elts[0]
            if name in SENDERS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def foreign(source: str) -> set[str]:
    """The hosts in a file that are not this machine."""
    return {host for host in hosts(source) if "{" not in host and not is_here(host)}


def test_the_tests_name_no_other_machine() -> None:
    files = sorted(TESTS.rglob("*.py"))
    assert len(files) > 100
    named = {path.relative_to(TESTS).as_posix(): foreign(path.read_text("utf-8")) for path in files}
    unknown = {name: found - NEVER_CONTACTED.keys() for name, found in named.items()}
    assert {name: found for name, found in unknown.items() if found} == {}
    assert NEVER_CONTACTED.keys() - set.union(*named.values()) == set()


@pytest.mark.parametrize(
    ("source", "host"),
    [
        ("a = [('192.0.2.1', 53)]", "192.0.2.1"),
        ("connect(('2001:db8::1', 53))", "2001:db8::1"),
        ("urlopen('http://[2001:db8::1]:80/x')", "2001:db8::1"),
        ("urlopen('https://example.org/x')", "example.org"),
        ("urlopen('http://me:word@mirror:3141/x')", "mirror"),
        ("socket.create_connection(('mirror', 80))", "mirror"),
        ("gethostbyname('mirror')", "mirror"),
        ("CODE = '''\nimport socket\nsocket.connect(('mirror', 80))\n'''", "mirror"),
        ("subprocess.run(['curl', 'example.org'])", "example.org"),
    ],
)
def test_another_machine_is_found(source: str, host: str) -> None:
    assert foreign(source) == {host}


@pytest.mark.parametrize(
    "source",
    [
        "socket.create_server(('127.0.0.1', 0))",
        "urlopen(f'http://127.0.0.1:{port}/x')",
        "urlopen('http://[::1]:80/')",
        "versions = ['1.2.3', '3.11.2']; a[::2], a[1::2]; x = 'std::map'",
        "import io; io.StringIO; self.io(1); Path('a.py'); 'a.ipynb'",
        "page.go_back(); connect(result, leaves)",
    ],
)
def test_what_is_no_other_machine_is_left_alone(source: str) -> None:
    assert foreign(source) == set()
