"""Fixtures that several test modules share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import nbformat
import pytest
from nbclient import NotebookClient
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

import clean_run_plugin
import shapes  # noqa: F401 checks the library that is imported after it
import share_plugin
from browser import Watch, arguments, find_chromium
from built_book import find_book
from exercise_counts_plugin import pytest_terminal_summary  # noqa: F401 pytest finds it here

# The same examples in every run, however busy the machine is. `--hypothesis-profile search` looks
# for others.
hypothesis.settings.register_profile("search", deadline=None, print_blob=True)
hypothesis.settings.register_profile(
    "same",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(clean_run_plugin)
    config.pluginmanager.register(share_plugin)


# --- the browser -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium. Without one the tests fail, with the remedy; they are never skipped."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=find_chromium(playwright), args=arguments()
        )
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages, with the options of a browser context; at the end each must have been quiet."""
    watches: list[Watch] = []
    contexts: list[BrowserContext] = []

    def open_page(**options: Any) -> Page:  # noqa: ANN401
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        watches.append(watch := Watch())
        watch.attach(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    for watch in watches:
        watch.assert_quiet()


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """An empty page that must ask no other host for anything and report no error."""
    return new_page()


# --- the book ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the HTML of a whole and strict build of the course as it is."""
    own = tmp_path_factory.getbasetemp()
    return find_book(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


# --- notebooks ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def run_notebook() -> Callable[..., nbformat.NotebookNode]:
    """Runs a notebook of the given code cells in a fresh kernel; returns it with its outputs."""

    def run(*code: str) -> nbformat.NotebookNode:
        cells = [nbformat.v4.new_code_cell(source) for source in code]  # type: ignore[no-untyped-call]
        notebook = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
        client = NotebookClient(notebook, timeout=60, kernel_name="python3", record_timing=False)
        executed: nbformat.NotebookNode = client.execute()
        return executed

    return run
