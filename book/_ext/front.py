"""The front door: cards that lead to parts and chapters, where to start, and the first figure.

``{part-cards}`` writes a card for each part of the course, ``{chapter-cards}`` one for each chapter
that it names, ``{start-here}`` ways into the course by what a reader does. Titles, minutes and
counts come from the course itself; a page gives one sentence to each. ``{rent-figure}`` draws the
sums of the story at several rents. The roles ``{minutes}`` and ``{how-many}`` write one number.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib.pyplot as plt
import yaml
from docutils import nodes
from docutils.parsers.rst.states import Inliner
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from slingshot import facts
from slingshot.pages import drawings, emblems, sliders
from teaching import ASSIGNMENTS, Effort, Guide, chapters, effort, parts, source

ROOT: Final = Path(__file__).resolve().parents[2]
TIMES_THE_RENT: Final = (1, 1.25, 1.5, 2, 3, 4, 5)
"""The stops of the slider, as multiples of the rent that V3's report assumes."""


# --- what a card says ----------------------------------------------------------------------------


def parse_texts(content: str) -> dict[str, str]:
    """Read a text for each name; raise ``ValueError`` when they are anything else."""
    texts = yaml.safe_load(content)
    if not isinstance(texts, dict) or not all(isinstance(t, str) for t in texts.values()):
        raise ValueError("give a mapping of names to texts; quote a text that holds a colon")
    return texts


def parse_ways(content: str) -> list[tuple[str, str, list[str]]]:
    """Read who begins where: who, why, and the chapters; raise ``ValueError`` for another form."""
    ways = []
    for number, entry in enumerate(yaml.safe_load(content) or [], start=1):
        if not isinstance(entry, dict) or set(entry) != {"who", "why", "path"} or not entry["path"]:
            raise ValueError(f"way {number}: give who, why and path")
        ways.append((entry["who"], entry["why"], list(entry["path"])))
    return ways


def in_words(efforts: Mapping[str, Effort]) -> str:
    """How long some chapters take: "60 min, exercises 90 min"."""
    work = sum(each.exercises for each in efforts.values())
    rest = sum(each.minutes for each in efforts.values() if not each.exercises)
    said = [f"{rest} min"] if rest else []
    return ", ".join(said + [f"exercises {work} min"] * bool(work))


def notebooks(named: Sequence[str]) -> list[str]:
    """Those chapters that are notebooks and no assignments."""
    return [c for c in named if c.startswith("notebooks/") and not c.startswith(ASSIGNMENTS)]


def counts(root: Path) -> dict[str, int]:
    """What the course has, as a page counts it."""
    claims = yaml.safe_load((root / "book" / "claims.yml").read_text("utf-8"))
    return {"notebooks": len(notebooks(chapters(root))), "claims": len(claims)}


# --- directives ----------------------------------------------------------------------------------


class Cards(Guide):
    """What both kinds of cards share."""

    def card(self, emblem: str, link: str, text: str, last: str) -> nodes.list_item:
        """A card: the emblem, the link as its heading, what it is about, and how long it takes."""
        self.env.note_dependency(emblems.__file__)
        if emblem not in emblems.EMBLEMS:
            raise ValueError(f"{emblem} has no emblem; draw one in slingshot.pages.emblems")
        item = nodes.list_item("", nodes.raw("", emblems.emblem_svg(emblem), format="html"))
        for name, line in (("title", link), ("text", text), ("minutes", last)):
            item += nodes.container("", *self.parse([line]), classes=[f"card-{name}"])
        return item

    def chosen(self, named: Sequence[str]) -> dict[str, Effort]:
        """The effort of each chapter."""
        return {chapter: self.effort(chapter) for chapter in named}


class ChapterCards(Cards):
    """Cards for the chapters that are named, in their order."""

    def write(self) -> list[nodes.Node]:
        """Write the cards; a chapter that is not in the book is an error."""
        cards = nodes.bullet_list(classes=["cards"])
        for chapter, text in parse_texts("\n".join(self.content)).items():
            spent = self.chosen([chapter])
            cards += self.card(chapter, self.link(chapter), text, in_words(spent))
        return [cards]


class PartCards(Cards):
    """A card for each part of the course, which leads to its first page."""

    def write(self) -> list[nodes.Node]:
        """Write the cards; the parts must be those of the table of contents, in its order."""
        course = parts(self.root)
        texts = parse_texts("\n".join(self.content))
        if list(texts) != list(course):
            raise ValueError(f"the parts are {', '.join(course)}, in this order")
        cards = nodes.bullet_list(classes=["cards"])
        for part, text in texts.items():
            link = f"[{part}]{self.link(course[part][0]).removeprefix('[]')}"
            n_notebooks = len(notebooks(course[part]))
            said = [f"{n_notebooks} notebooks"] * bool(n_notebooks)
            said.append(in_words(self.chosen(course[part])))
            cards += self.card(part, link, text, ", ".join(said))
        return [cards]


class StartHere(Guide):
    """Ways into the course by what a reader does, each with its minutes."""

    def write(self) -> list[nodes.Node]:
        """Write an item for each way."""
        lines = []
        for who, why, path in parse_ways("\n".join(self.content)):
            total = sum(self.effort(chapter).minutes for chapter in path)
            links = ", then ".join(map(self.link, path))
            lines.append(f"- **{who}** {why} {links}: {total} min.")
        return [nodes.container("", *self.parse(lines), classes=["start-here"])]


class RentFigure(SphinxDirective):
    """The sums of the story at several rents, with a slider."""

    def run(self) -> list[nodes.Node]:
        """Return the figure, which needs no kernel."""
        self.env.note_dependency(drawings.__file__)
        plt.switch_backend("agg")
        rents = {dollars(rent): rent for rent in rents_of()}

        def draw(rent_an_hour: str) -> str:
            drawings.five_sums(rents[rent_an_hour], plt.figure())
            return sentence(rents[rent_an_hour])

        figure = sliders.explore(draw, rent_an_hour=list(rents))
        return [nodes.raw("", figure.html, format="html")]


def rents_of() -> list[float]:
    """The rents of the slider's stops, in dollars an hour."""
    assumed = facts.value("v3.price_per_gpu_hour")
    return [assumed * times for times in TIMES_THE_RENT]


def sentence(rent: float) -> str:
    """What the figure shows at a rent, in dollars an hour."""
    v3, llama = (facts.value(k) for k in ("v3.gpu_hours.total", "llama405b.gpu_hours"))
    return (
        f"At {dollars(rent)} an hour V3's run costs {dollars(v3 * rent)}, Llama's "
        f"{dollars(llama * rent)}: {llama / v3:.0f} times as much, at any rent. "
        "Only filled dots of one color may be divided."
    )


def dollars(amount: float) -> str:
    """A sum to three digits: ``$2.50``, ``$61.7 million``."""
    return facts.format_value(float(f"{amount:.3g}"), "USD")


# --- roles ---------------------------------------------------------------------------------------


def write_minutes(
    name: str, rawtext: str, text: str, line: int, inliner: Inliner, *rest: object
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """The minutes of a chapter: ``{minutes}`notebooks/training_cost` `` writes "38 min"."""
    try:
        inliner.document.settings.env.note_dependency(str(source(ROOT, text)))
        return [nodes.Text(f"{effort(ROOT, text).minutes} min")], []
    except ValueError as error:
        return [], [inliner.reporter.error(f"minutes: {error}", line=line)]


def write_count(
    name: str, rawtext: str, text: str, line: int, inliner: Inliner, *rest: object
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """How many the course has: ``{how-many}`claims` ``."""
    env = inliner.document.settings.env
    for file in ("_toc.yml", "book/claims.yml"):
        env.note_dependency(str(ROOT / file))
    found = counts(ROOT)
    if text not in found:
        known = ", ".join(found)
        return [], [inliner.reporter.error(f"how-many: {text!r} is not one of {known}", line=line)]
    return [nodes.Text(str(found[text]))], []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register directives and roles with Sphinx."""
    app.add_directive("part-cards", PartCards)
    app.add_directive("chapter-cards", ChapterCards)
    app.add_directive("start-here", StartHere)
    app.add_directive("rent-figure", RentFigure)
    app.add_role("minutes", write_minutes)
    app.add_role("how-many", write_count)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
