"""Which tests are slow, and how two processes share all of them evenly.

``conftest.py`` registers this plugin. ``pytest -m "not slow"`` leaves out what needs a browser, a
kernel, a build of pages or processes of its own. With ``--dist loadgroup`` a file stays in one
process, as its fixtures want, except where its tests are long and independent; with
``--no-loadscope-reorder`` what takes long begins first, and the short files fill the gaps.
"""

import pytest

SLOW_FILES = {
    "test_book.py", "test_book_browser.py", "test_book_builds.py", "test_clean_run.py",
    "test_grade.py", "test_lab.py", "test_timeline.py", "test_tools.py",
}  # fmt: skip
SLOW_FIXTURES = {"book", "browser", "live_notebook", "run_notebook"}
SPREAD_FILES = {"test_book_browser.py", "test_grade.py"}
MADE_ONCE = ("graded", "open_class")
"""What takes long to make, in a file that is spread: the tests that use it stay together."""


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by marker, and before they are shared out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test, and put the long ones first."""
    for item in items:
        if is_slow(item):
            item.add_marker(pytest.mark.slow)
        if group := group_of(item):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=rank)


def is_slow(item: pytest.Item) -> bool:
    """Whether a test is slow: said to be, a notebook's cell, by its file or by what it asks for."""
    fixtures = set(getattr(item, "fixturenames", ()))
    said = item.get_closest_marker("slow") is not None or item.path.suffix == ".ipynb"
    return said or item.path.name in SLOW_FILES or bool(fixtures & SLOW_FIXTURES)


def group_of(item: pytest.Item) -> str:
    """The name of what stays in one process, empty for a test that may run in any."""
    if item.path.name not in SPREAD_FILES:
        return item.path.name
    fixtures = getattr(item, "fixturenames", ())
    return next((name for name in MADE_ONCE if name in fixtures), "")


def rank(item: pytest.Item) -> int:
    """Notebooks first: none of their cells can be moved. Then what is slow, then the rest."""
    if item.path.suffix == ".ipynb":
        return 0
    return 1 if is_slow(item) else 2
