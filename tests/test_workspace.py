"""Every copy, in a real JupyterLab as `make lab` starts it."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import lab  # noqa: E402

KEYS = re.compile(r"\{[a-z]+(:[a-z]+)?\}|:::|\([a-z]+-\d+\)=|Unknown|!\[")
PATIENCE = 120_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace in which everything was handed out."""
    folder = tmp_path_factory.mktemp("lab")
    command = [sys.executable, str(ROOT / "tools/lab.py"), "--prepare-only", "--workspace"]
    env = surroundings(folder)
    subprocess.run([*command, str(folder / "workspace")], check=True, env=env, capture_output=True)
    return folder


def surroundings(folder: Path) -> dict[str, str]:
    """The environment in which JupyterLab keeps to a folder."""
    places = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("DATA", "CONFIG", "RUNTIME")}
    return {**os.environ, **places, "JUPYTER_CONFIG_PATH": str(lab.CONFIG)}


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """Where that JupyterLab answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
        "--allow-root",
    ]
    args = lab.parse_arguments(["--no-browser", "--", *options, "--expose-app-in-browser"])
    with open(home / "log", "w") as log:
        server = subprocess.Popen(
            lab.command_of(args),
            cwd=home / "workspace",
            env=surroundings(home),
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(PATIENCE // 500):
            try:
                urllib.request.urlopen(f"{url}/api").close()
                break
            except OSError:
                assert server.poll() is None, (home / "log").read_text()
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def jupyter(browser: Browser, address: str) -> Iterator[Page]:
    """JupyterLab at its start page."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}/")
    page.wait_for_selector(".jp-MarkdownViewer .myst h1")
    yield page
    context.close()


OPEN = """async path => {
  const app = window.jupyterapp;
  const widget = await app.commands.execute('docmanager:open', {path, factory: 'Notebook'});
  // Nothing is run: a kernel for each notebook would take longer than all that is looked at.
  const wanted = widget.context.sessionContext.kernelPreference;
  widget.context.sessionContext.kernelPreference = {...wanted, shouldStart: false};
  await widget.context.ready;
  const seen = {texts: [], errors: [], links: [], dead: [], unknown: []};
  const ids = new Set();
  const cells = widget.content.widgets;
  for (let number = 0; number < cells.length; number++) {
    if (cells[number].model.type !== 'markdown') continue;
    const shown = () => cells[number].node.querySelector('.myst');
    // JupyterLab draws a cell when it comes into view, and may drop it when it leaves.
    for (let tries = 0; tries < 3000 && !shown()?.textContent.trim(); tries++) {
      if (tries % 100 === 0) await widget.content.scrollToItem(number);
      await new Promise(done => setTimeout(done, 10));
    }
    // It looks links up after it has drawn them.
    const open = () => [...shown()?.querySelectorAll('a[href]') ?? []].filter(
      link => !/^([a-z]+:|\\/|#)/.test(link.getAttribute('href')));
    for (let tries = 0; tries < 500 && open().length; tries++) {
      await new Promise(done => setTimeout(done, 10));
    }
    const copy = shown()?.cloneNode(true);
    for (const node of copy?.querySelectorAll('[id]') ?? []) ids.add(node.id);
    for (const link of shown()?.querySelectorAll('a[href]') ?? []) {
      seen.links.push([link.getAttribute('href'), link.href, link.target]);
    }
    seen.errors.push(...[...copy?.querySelectorAll('.katex-error') ?? []].map(e => e.textContent));
    copy?.querySelectorAll('code, .katex').forEach(node => node.remove());
    // A role that it does not know becomes a span with nothing but the key in it.
    const unknown = [...copy?.querySelectorAll('span') ?? []].filter(
      span => span.textContent.trim() && !span.attributes.length && !span.children.length
        || span.title === 'Cross Reference Not Found');
    seen.unknown.push(...unknown.map(span => span.textContent));
    seen.texts.push(copy?.textContent ?? '');
  }
  seen.dead = seen.links.map(link => link[0]).filter(
    href => href.startsWith('#') && !ids.has(decodeURIComponent(href.slice(1))));
  await widget.context.sessionContext.shutdown();
  widget.context.model.dirty = false;
  widget.close();
  return seen;
}"""


def test_every_copy_reads_like_the_book(jupyter: Page, home: Path, address: str) -> None:
    answers: dict[str, int] = {}
    paths = sorted((home / "workspace").rglob("*.ipynb"))
    assert len(paths) > 20
    for path in paths:
        name = path.relative_to(home / "workspace").as_posix()
        seen = jupyter.evaluate(OPEN, name)
        assert seen["errors"] == [], name
        assert seen["dead"] == [], name
        assert seen["unknown"] == [], name
        assert all(text.strip() for text in seen["texts"]), name
        assert [m[0] for text in seen["texts"] if (m := KEYS.search(text))] == [], name
        for written, resolved, target in seen["links"]:
            if written.startswith("#") or not resolved.startswith(address):
                continue
            assert target == "_blank" or "/files/" in resolved, (name, written)
            where = resolved.partition("#")[0].partition("?")[0]
            if where not in answers:
                # With its query: the server serves a file to a page of its own only.
                answers[where] = jupyter.request.get(resolved.partition("#")[0]).status
            assert answers[where] == 200 or "/book/" in where, (name, written)
    assert any("/files/assignments/" in where or "/files/" in where for where in answers)


def test_lab_shows_a_learner_nothing_for_instructors_and_no_news(jupyter: Page) -> None:
    plugins = jupyter.evaluate("[...window.jupyterapp.listPlugins()]")
    assert [name for name in plugins if "nbgrader" in name] == []
    assert (
        jupyter.get_by_text("Would you like to get notified about official Jupyter news").count()
        == 0
    )
    assert "Slingshot" in jupyter.locator(".jp-MarkdownViewer h1").inner_text()
    font = "getComputedStyle(document.querySelector('.jp-MarkdownViewer h1')).fontFamily"
    assert "Slingshot Serif" in jupyter.evaluate(font)


def test_a_page_that_is_not_built_says_how_to_build_it(jupyter: Page, address: str) -> None:
    answer = jupyter.request.get(f"{address}/book/no-such-page.html")
    assert answer.status == 404
    assert "make book" in answer.text()


RUN = """async path => {
  const app = window.jupyterapp;
  const widget = await app.commands.execute('docmanager:open', {path, factory: 'Notebook'});
  await widget.context.ready;
  await widget.context.sessionContext.ready;
  app.shell.activateById(widget.id);
  await app.commands.execute('notebook:run-all-cells');
  const texts = widget.content.widgets.map(cell => cell.model.sharedModel.source);
  const last = widget.content.widgets.filter(cell => cell.model.type === 'code').pop();
  for (let tries = 0; tries < 600 && !last.model.outputs.length; tries++) {
    await new Promise(done => setTimeout(done, 100));
  }
  const outputs = last.model.outputs.toJSON();
  await widget.context.sessionContext.shutdown();
  return {texts, said: outputs.map(output => [].concat(output.text ?? []).join('')).join('')};
}"""


def test_run_all_reaches_the_end_and_undoes_nothing(jupyter: Page, home: Path) -> None:
    path = home / "workspace" / "assignments" / "claim.ipynb"
    before = [cell["source"] for cell in json.loads(path.read_text())["cells"]]
    seen = jupyter.evaluate(RUN, "assignments/claim.ipynb")
    assert seen["texts"] == ["".join(source) for source in before]
    assert seen["said"].startswith("Still to be written: training_flops, run_time, utilization, ")
