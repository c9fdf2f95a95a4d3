import copy
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from browser import REMEDY, Watch, find_chromium
from slingshot.pages import figures
from slingshot.pages.sliders import Explorer, explore

LIGHT = "color: #1f2328; background: #ffffff; color-scheme: light"
DARK = "color: #e6e8eb; background: #14181f; color-scheme: dark"
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(autouse=True)
def fresh_matplotlib() -> Iterator[None]:
    with mpl.rc_context():
        figures.style()
        yield
    plt.close("all")


def wave(top_k: int, decay: bool = False) -> str:
    axes = plt.subplots()[1]
    x = np.linspace(0, 1, 50)
    axes.plot(x, np.sin(top_k * 6 * x) * (np.exp(-2 * x) if decay else 1), label=f"k = {top_k}")
    axes.set(xlabel="token", ylabel="load", ylim=(-1.1, 1.1))
    axes.legend(loc="upper right")
    return f'With top k {top_k} the load {"fades" if decay else "stays"} <& "swings">.'


def sample() -> Explorer:
    return explore(wave, top_k=[1, 2, 8], decay=[False, True])


def document(*bodies: str, theme: str = LIGHT) -> str:
    inner = "\n".join(bodies)
    return f"""<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Sample</title>
<meta name="viewport" content="width=device-width">
<style>body {{ {theme}; font: 16px/1.5 system-ui, sans-serif; margin: 1rem }}</style>
<main><h1>Sample</h1>
{inner}</main></html>"""


@pytest.fixture(scope="module")
def html() -> str:
    with mpl.rc_context():
        figures.style()
        return sample().html


@pytest.fixture
def visit(tmp_path: Path) -> Callable[..., None]:
    """Opens HTML from a file, as a reader without a server does."""

    def go(page: Page, *bodies: str, theme: str = LIGHT) -> None:
        file = tmp_path / "sample.html"
        file.write_text(document(*bodies, theme=theme), encoding="utf-8")
        page.goto(file.as_uri())

    return go


def slider(place: Page | Locator, name: str) -> Locator:
    return place.get_by_role("slider", name=name, exact=True)


def assert_shows(page: Page, frame: int, top_k: int, decay: bool, nth: int = 0) -> None:
    """Exactly frame ``frame`` is visible, and everything said about it is true."""
    figure = page.locator("figure.explore").nth(nth)
    frames = figure.locator(".explore-frame")
    visible = [i for i in range(frames.count()) if frames.nth(i).is_visible()]
    assert visible == [frame]
    sentence = f'With top k {top_k} the load {"fades" if decay else "stays"} <& "swings">.'
    svg = frames.nth(frame).locator("svg")
    assert svg.get_attribute("aria-label") == sentence
    assert f"k = {top_k}" in svg.text_content().replace("\n", "")  # type: ignore[union-attr]
    expect(figure.locator("figcaption")).to_have_text(sentence)
    for control, output, value in zip(
        figure.get_by_role("slider").all(),
        figure.locator("output").all(),
        (str(top_k), "yes" if decay else "no"),
        strict=True,
    ):
        expect(control).to_have_attribute("aria-valuetext", value)
        expect(output).to_have_text(value)


# --- the static twin, in a browser -------------------------------------------------------------


def test_arrow_keys_move_the_figure(page: Page, visit: Callable[..., None], html: str) -> None:
    visit(page, html)
    assert_shows(page, 0, 1, False)
    assert not page.get_by_text("sliders need JavaScript").is_visible()
    page.keyboard.press("Tab")
    expect(slider(page, "top k")).to_be_focused()
    page.keyboard.press("ArrowRight")
    assert_shows(page, 2, 2, False)
    page.keyboard.press("End")
    assert_shows(page, 4, 8, False)
    page.keyboard.press("Tab")
    expect(slider(page, "decay")).to_be_focused()
    page.keyboard.press("ArrowUp")
    assert_shows(page, 5, 8, True)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Home")
    assert_shows(page, 1, 1, True)


def test_every_point_of_a_grid_of_unequal_axes(page: Page, visit: Callable[..., None]) -> None:
    def draw(a: int, b: int, c: int) -> str:
        plt.subplots()
        return f"At {a} {b} {c}."

    visit(page, explore(draw, a=range(2), b=range(4), c=range(3)).html)
    for a, b, c in itertools.product(range(2), range(4), range(3)):
        for name, value in {"a": a, "b": b, "c": c}.items():
            slider(page, name).fill(str(value))
        shown = page.locator(".explore-frame:visible svg")
        expect(shown).to_have_attribute("aria-label", f"At {a} {b} {c}.")


def test_the_picture_changes_on_the_screen(
    page: Page, visit: Callable[..., None], html: str
) -> None:
    visit(page, html)
    picture = page.locator(".explore-frame:visible")
    before = picture.screenshot()
    slider(page, "top k").press("ArrowRight")
    assert picture.screenshot() != before
    slider(page, "top k").press("ArrowLeft")
    assert picture.screenshot() == before


def test_the_page_asks_nobody_for_anything(
    page: Page, visit: Callable[..., None], html: str
) -> None:
    watch = Watch()
    watch.attach(page)
    visit(page, html)
    slider(page, "top k").press("End")
    assert len(watch.requests) == 1, watch.requests
    watch.assert_quiet()


def test_two_figures_and_one_of_them_twice(
    page: Page, visit: Callable[..., None], html: str
) -> None:
    other = explore(wave, top_k=[1, 2, 8], decay=[True, False]).html
    visit(page, html, other, html, html)
    for nth in (0, 2, 3):
        slider(page.locator("figure.explore").nth(nth), "top k").press("ArrowRight")
        assert_shows(page, 2, 2, False, nth=nth)
    assert_shows(page, 0, 1, True, nth=1)
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids)) > 0
    page.get_by_text("decay").nth(3).click()
    expect(slider(page, "decay").nth(3)).to_be_focused()


def test_coming_back_shows_what_the_sliders_say(
    page: Page, visit: Callable[..., None], html: str
) -> None:
    # On "back" a browser sets the sliders as they were left: after the scripts have run, before
    # `pageshow`, without an event. Chromium does it only if one of its processes has told another
    # in time, which is luck, so the page does it here.
    restore = "document.querySelector('figure.explore input').value = 2"
    visit(page, html, f"<script>addEventListener('load', () => {{ {restore} }})</script>")
    assert slider(page, "top k").input_value() == "2"
    assert_shows(page, 4, 8, False)


def test_without_javascript_the_first_frame_shows(
    new_page: Callable[..., Page], visit: Callable[..., None], html: str
) -> None:
    page = new_page(java_script_enabled=False)
    visit(page, html)
    frames = page.locator(".explore-frame").all()
    assert [frame.is_visible() for frame in frames] == [True] + [False] * 5
    assert page.locator("figcaption").is_visible()
    assert page.get_by_text("sliders need JavaScript").is_visible()
    assert not page.locator("input").first.is_visible(), "a slider that does nothing"


def test_jupyterlab_inserts_html_and_runs_the_script_afterwards(page: Page, html: str) -> None:
    page.set_content(document("<div id='cell'></div>"))
    page.evaluate(
        """html => {
            const host = document.createElement("div");
            host.innerHTML = html;
            for (const old of host.querySelectorAll("script")) {
                const script = document.createElement("script");
                script.textContent = old.textContent;
                old.replaceWith(script);
            }
            document.querySelector("#cell").append(host);
        }""",
        html,
    )
    slider(page, "top k").press("ArrowRight")
    assert_shows(page, 2, 2, False)


def test_running_the_script_again_keeps_the_readers_place(
    page: Page, visit: Callable[..., None], html: str
) -> None:
    visit(page, html)
    slider(page, "top k").press("End")
    page.add_script_tag(content=html.partition("<script>")[2].partition("</script>")[0])
    assert_shows(page, 4, 8, False)


def test_fits_a_phone_and_a_thumb(
    new_page: Callable[..., Page], visit: Callable[..., None]
) -> None:
    page = new_page(viewport={"width": 360, "height": 640})
    long = explore(wave, top_k=[1, 2]).html
    visit(page, long.replace(">top k<", ">experts that each token is routed to<"))
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    box = page.get_by_role("slider").bounding_box()
    assert box
    assert box["height"] >= 24
    assert box["width"] >= 80


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_axe_finds_no_violation(
    page: Page, visit: Callable[..., None], html: str, theme: str
) -> None:
    visit(page, html, theme=theme)
    slider(page, "decay").press("End")
    result = Axe().run(page).response
    passed = {rule["id"] for rule in result["passes"]}
    assert {"color-contrast", "label", "svg-img-alt"} <= passed
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in result["violations"]] == []


def test_text_takes_the_color_of_the_page(
    page: Page, visit: Callable[..., None], html: str
) -> None:
    visit(page, html, theme=DARK)
    fill = "document.querySelector('.explore-frame text').computedStyleMap().get('fill').toString()"
    assert page.evaluate(fill) == "rgb(230, 232, 235)"


def test_the_watch_sees_foreign_requests_and_errors(browser: Browser) -> None:
    page = browser.new_page()
    watch = Watch()
    watch.attach(page)
    page.route("https://example.com/**", lambda route: route.abort())
    page.set_content("<img src='https://example.com/a.png'><script>throw Error('oops')</script>")
    with pytest.raises(AssertionError, match="example"):
        watch.assert_quiet()
    watch.requests.clear()
    with pytest.raises(AssertionError, match="oops"):
        watch.assert_quiet()
    page.close()


def test_a_missing_browser_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match=re.escape(REMEDY)):
        find_chromium()


# --- the stored bytes --------------------------------------------------------------------------


def test_twin_is_light_and_complete(html: str) -> None:
    frames = re.findall(r"<svg.*?</svg>", html)
    assert len(frames) == 6
    assert max(len(frame.encode()) for frame in frames) <= 12_000
    assert "\ue000" not in html, "an id was left unfilled"
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")


def test_id_follows_the_content(html: str) -> None:
    name = re.compile(r'data-explore="(explore-[0-9a-f]{10})"')
    (same,) = name.findall(sample().html)
    (other,) = name.findall(explore(wave, top_k=[1, 2, 4], decay=[False, True]).html)
    assert name.findall(html) == [same]
    assert other != same


@pytest.mark.slow
def test_same_bytes_in_another_process(html: str) -> None:
    program = "import test_explore as t; t.figures.style(); print(t.sample().html)"
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "MPLBACKEND": "agg"},
            cwd=Path(__file__).parent,
            capture_output=True,
            check=True,
        )
        assert run.stdout.decode() == html + "\n"


# --- what explore asks of its arguments --------------------------------------------------------


def test_points_reach_draw_as_given_and_labels_read_well() -> None:
    seen = []

    def draw(**point: Any) -> str:  # noqa: ANN401
        seen.append(point)
        plt.subplots()
        return "Nothing."

    explorer = explore(draw, draw=np.array([0.1, 0.1 + 0.2]), with_bias=(True,), name=["a<b"])
    assert seen == [
        {"draw": 0.1, "with_bias": True, "name": "a<b"},
        {"draw": 0.1 + 0.2, "with_bias": True, "name": "a<b"},
    ]
    assert [axis.label for axis in explorer.axes] == ["draw", "with bias", "name"]
    assert [axis.labels for axis in explorer.axes] == [("0.1", "0.3"), ("yes",), ("a<b",)]
    assert "a&lt;b" in explorer.html


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "needs an axis"),
        ({"k": []}, r"axis k is empty \(\[\]\)"),
        ({"k": 3}, "axis k is 3"),
        ({"k": "abc"}, "axis k is 'abc'"),
        ({"k": {1, 2}}, r"axis k is \{1, 2\}"),
        ({"k": [1, None]}, "axis k holds None"),
        ({"k": [" "]}, "axis k holds ' '"),
        ({"k": np.eye(2)}, r"axis k holds \[1.0, 0.0\]"),
        ({"k": [1, 2, 1]}, "axis k shows two values as '1'"),
        ({"k": range(7), "n": range(9)}, r"7 \(k\) × 9 \(n\) = 63 points, more than 60"),
    ],
)
def test_wrong_axes_are_named(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explore(wave, **axes)


def draws_two(k: int) -> str:
    plt.subplots()
    plt.subplots()
    return "Two."


def draws_none(k: int) -> str:
    return "None."


def returns_nothing(k: int) -> None:
    plt.subplots()


def returns_blank(k: int) -> str:
    plt.subplots()
    return " "


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (draws_two, r"opened 2 figures at \{'k': 1\}"),
        (draws_none, r"opened 0 figures at \{'k': 1\}"),
        (returns_nothing, r"returned None at \{'k': 1\}"),
        (returns_blank, r"returned ' ' at \{'k': 1\}"),
    ],
)
def test_wrong_draw_is_named_and_leaves_no_figure(draw: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explore(draw, k=[1])
    assert plt.get_fignums() == []


def test_the_readers_own_figure_is_left_alone() -> None:
    own, axes = plt.subplots()
    explore(wave, top_k=[1, 2])
    assert plt.gcf() is own
    assert not axes.lines


# --- live --------------------------------------------------------------------------------------


def test_moving_a_widget_draws_again_and_remembers() -> None:
    drawn = []

    def draw(top_k: int, decay: bool) -> str:
        drawn.append((top_k, decay))
        return wave(top_k, decay)

    widget = explore(draw, top_k=[1, 2, 8], decay=[False, True]).widget()
    drawn.clear()
    top_k, decay, picture = widget.children
    first = picture.value
    assert "With top k 1 the load stays &lt;&amp; &quot;swings&quot;&gt;.</p>" in first
    top_k.value = 2
    decay.value = 1
    assert "With top k 8 the load fades" in picture.value
    assert drawn == [(8, False), (8, True)]
    top_k.value, decay.value = 0, 0
    assert picture.value == first
    assert drawn == [(8, False), (8, True), (1, True)], "a visited point was drawn again"
    assert plt.get_fignums() == []


def test_plain_python_gets_the_twin_only() -> None:
    bundle = explore(wave, top_k=[1, 2])._repr_mimebundle_()
    assert bundle.keys() == {"text/plain", "text/html"}
    assert bundle["text/plain"] == (
        'Figure to explore (top k: 1, 2). With top k 1 the load stays <& "swings">.'
    )


@pytest.fixture(scope="module")
def live_notebook(run_notebook: Callable[..., nbformat.NotebookNode]) -> nbformat.NotebookNode:
    return run_notebook(
        "import matplotlib.pyplot as plt\n"
        "from slingshot.pages import explore, figures\nfigures.style()",
        "def draw(k):\n    plt.subplots()[1].plot([0, k])\n    return f'A line up to {k}.'\n"
        "explore(draw, k=[1, 2, 3])",
    )


def test_a_live_notebook_gets_widget_and_twin_in_one_output(
    live_notebook: nbformat.NotebookNode,
) -> None:
    (output,) = live_notebook.cells[1].outputs
    assert output.data.keys() == {WIDGET, "text/html", "text/plain"}
    assert output.data["text/html"].count("<svg") == 3
    models = live_notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert output.data[WIDGET]["model_id"] in models


@pytest.mark.parametrize("fault", [False, True])
def test_nbval_accepts_a_stored_twin_without_its_widget(
    live_notebook: nbformat.NotebookNode, tmp_path: Path, fault: bool
) -> None:
    notebook = copy.deepcopy(live_notebook)
    data = notebook.cells[1].outputs[0].data
    del notebook.metadata["widgets"], data[WIDGET]
    if fault:
        data["text/html"] = data["text/html"].replace("A line up to 3", "A line up to 4")
    file = tmp_path / "stored.ipynb"
    file.write_text(json.dumps(notebook), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, *f"-m pytest -c {os.devnull} --nbval --nbval-current-env".split(), file],
        capture_output=True,
        text=True,
        check=False,
    )
    expected = "1 failed, 1 passed" if fault else "2 passed"
    assert expected in run.stdout, run.stdout
