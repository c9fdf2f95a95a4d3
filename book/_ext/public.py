"""What the book says once the course is public: launch buttons, cards for links, and a sitemap.

All of it hangs on one setting, ``public_repository`` in ``_config.yml``: the course's place on
GitHub as "owner/name", or nothing. Without it a build makes none of this, and a page names no host.
With it each notebook has buttons for Binder and, where its first cell installs the library, for
Colab; each page says in its head what it is about, with a picture (https://ogp.me); and
``sitemap.xml`` lists the pages. ``tools/address.py`` writes the setting, here and in the notebooks.
"""

import html
import re
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import matplotlib as mpl
from docutils import nodes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

from offline import FONTS, package_folder
from slingshot.pages.emblems import EMBLEMS, HEIGHT, WIDTH
from slingshot.pages.figures import RC
from teaching import ASSIGNMENTS, directive_bodies, parse_goals, parts

ROOT: Final = Path(__file__).resolve().parents[2]
SETTING: Final = "public_repository"
BRANCH: Final = "main"
REPOSITORY: Final = re.compile(r"[A-Za-z\d](?:[A-Za-z\d-]*[A-Za-z\d])?/[\w.-]+", re.ASCII)
CARDS: Final = "_static/cards"
CARD_SIZE: Final = (1200, 630)  # pixels, as most readers of such a card crop it
MOST_LETTERS: Final = 200
PAPER, DARK, QUIET, WARM = "#faf7f2", "#1c232d", "#55606e", "#a8451c"
OTHER: Final = (
    "A course on efficient AI development that runs on a laptop: one article about DeepSeek, taken "
    "apart claim by claim."
)
SITEMAP: Final = "sitemap.xml"


# --- the setting ---------------------------------------------------------------------------------


def base_url(repository: str) -> str:
    """Where GitHub publishes the pages of a repository."""
    owner, name = repository.split("/")
    own = f"{owner.lower()}.github.io"
    return f"https://{own}/" if name.lower() == own else f"https://{own}/{name}/"


def turn_on(app: Sphinx, config: Config) -> None:
    """Give the theme what its buttons need; raise ``ConfigError`` for what is no repository."""
    repository = config[SETTING]
    if not repository:
        return
    if not isinstance(repository, str) or not REPOSITORY.fullmatch(repository):
        raise ConfigError(f'{SETTING} is {repository!r}; give "owner/name", or nothing')
    config.html_baseurl = base_url(repository)
    config.html_theme_options = {
        **config.html_theme_options,
        "repository_url": f"https://github.com/{repository}",
        "repository_branch": BRANCH,
        "path_to_docs": "",
        "launch_buttons": {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        },
    }


def drop_colab(context: dict[str, Any], page: str) -> None:
    """Take Colab's button from an assignment: no cell of it installs the library."""
    for group in context.get("header_buttons", []):
        if group.get("label") == "launch-buttons" and page.startswith(ASSIGNMENTS):
            group["buttons"] = [each for each in group["buttons"] if each["text"] != "Colab"]


# --- what a page is about ------------------------------------------------------------------------


def goals() -> dict[str, list[str]]:
    """What a learner can do after each chapter, by the guide for teachers."""
    guide = (ROOT / "book" / "teaching.md").read_text("utf-8")
    bodies = directive_bodies(guide, "chapter-goals")
    return {c: texts for _, body in bodies for c, texts in parse_goals(body).items()}


def description(page: str, doctree: nodes.document, known: Mapping[str, list[str]]) -> str:
    """What a page is about, in at most 200 letters: its goals, or how its text begins.

    What the article says at the head of a page is not what the page says.
    """
    if page in known:
        text = f"After it you can: {' '.join(known[page])}"
    else:
        own = (
            paragraph.astext()
            for paragraph in doctree.findall(nodes.paragraph)
            if not isinstance(paragraph.parent, nodes.block_quote)
        )
        text = next((each for each in own if len(each.split()) > 7), OTHER)
    return textwrap.shorten(text, MOST_LETTERS, placeholder=" …")


def add_tags(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Write what a page is about into its head, and draw its card."""
    if not app.config[SETTING] or doctree is None:
        return
    drop_colab(context, page)
    title = app.env.titles[page].astext()
    part = next((name for name, pages in parts(ROOT).items() if page in pages), "")
    picture = f"{CARDS}/{page.replace('/', '-')}.png"
    draw_card(title, part, page).savefig(
        place_for(Path(app.outdir) / picture), metadata={"Software": None}
    )
    said = description(page, doctree, goals())
    base = app.config.html_baseurl
    tags = {
        "og:title": title,
        "og:type": "article" if part else "website",
        "og:site_name": "Slingshot",
        "og:url": base + app.builder.get_target_uri(page),
        "og:description": said,
        "og:image": base + picture,
        "og:image:alt": f"{title}: a card with the title and a small drawing",
        "og:image:width": str(CARD_SIZE[0]),
        "og:image:height": str(CARD_SIZE[1]),
    }
    lines = [f'<meta property="{name}" content="{html.escape(t)}">' for name, t in tags.items()]
    lines.append(f'<meta name="description" content="{html.escape(said)}">')
    lines.append('<meta name="twitter:card" content="summary_large_image">')
    context["metatags"] = context.get("metatags", "") + "\n".join(["", *lines, ""])


def place_for(file: Path) -> Path:
    """Make the folder of a file that is to be written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


# --- the card ------------------------------------------------------------------------------------


def draw_card(title: str, part: str, page: str) -> Figure:
    """Draw the picture for a link to a page: its title, its part, and an emblem if it has one."""
    width, height = CARD_SIZE
    with mpl.rc_context({**RC, "figure.constrained_layout.use": False}):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=PAPER)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        axes.add_patch(Rectangle((0, 0), 22, height, color=WARM))
        lines = textwrap.wrap(title, 27)
        size = 54 if len(lines) < 4 else 42
        look: dict[str, Any] = {"ha": "left", "va": "top", "color": DARK}
        heading = "Slingshot" if part or title != "Slingshot" else "A course on efficient AI"
        axes.text(
            90, 76, heading, fontproperties=font("sans-semibold", 27), **look | {"color": WARM}
        )
        axes.text(
            90, 140, "\n".join(lines), fontproperties=font("serif-semibold", size),
            linespacing=1.15, **look,
        )  # fmt: skip
        axes.text(
            90, 552, part or "Recompute the story, claim by claim",
            fontproperties=font("sans-regular", 25), **look | {"va": "center", "color": QUIET},
        )  # fmt: skip
        draw = EMBLEMS.get(page) or EMBLEMS.get(part or "The claim")
        if draw:
            inset = figure.add_axes((0.56, 0.06, 0.4, 0.4 * HEIGHT / WIDTH * width / height))
            inset.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
            inset.axis("off")
            draw(inset)
    return figure


def font(name: str, size: float) -> FontProperties:
    """A font of the book, in points of a card."""
    package, file = FONTS[name]
    # A card has 100 pixels to an inch, and an inch 72 points.
    return FontProperties(fname=str(package_folder(package) / "files" / file), size=size * 0.9)


# --- the whole site ------------------------------------------------------------------------------


def write_sitemap(app: Sphinx, error: Exception | None) -> None:
    """List every page for search engines, or take away what an earlier build has left."""
    outdir = Path(app.outdir)
    if not app.config[SETTING]:
        (outdir / SITEMAP).unlink(missing_ok=True)
        shutil.rmtree(outdir / CARDS, ignore_errors=True)
    elif error is None and app.builder.format == "html":
        base = app.config.html_baseurl
        pages = (base + app.builder.get_target_uri(page) for page in sorted(app.env.found_docs))
        lines = "\n".join(f"<url><loc>{escape(page)}</loc></url>" for page in pages)
        (outdir / SITEMAP).write_text(
            '<?xml version="1.0" encoding="utf-8"?>\n'
            f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{lines}\n</urlset>\n',
            "utf-8",
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the setting and what hangs on it with Sphinx."""
    app.add_config_value(SETTING, "", "html")
    app.connect("config-inited", turn_on)
    app.connect("html-page-context", add_tags, priority=900)  # after the theme's buttons
    app.connect("build-finished", write_sitemap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
