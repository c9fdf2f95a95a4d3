"""The role {fact}`key` and the table of all facts.

``{fact}`v3.gpu_hours.total``` in prose prints the formatted number as a link to its row on the
facts page, with its source in a tooltip. A key that does not exist, a source that is not in the
bibliography, or an entry that does not parse is a warning, and so fails the strict build.
"""

import functools
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from pybtex.database import Entry, parse_file
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.writers.html5 import HTML5Translator

from citations import label_of as label_of_entry
from slingshot import facts

logger = logging.getLogger(__name__)

FACTS_FILE = Path(facts.__file__).with_name("facts.yml")
SUBJECTS = {
    "v3": "DeepSeek-V3",
    "v2": "DeepSeek-V2",
    "r1": "DeepSeek-R1",
    "benchmark": "Benchmarks",
    "claude37": "Claude 3.7 Sonnet",
    "claude45": "Claude Sonnet 4.5",
    "tinyzero": "TinyZero",
    "llama70b": "Llama 3.1 70B",
    "llama405b": "Llama 3.1 405B",
    "gpt4": "GPT-4",
    "rnd": "Final runs in research and development",
    "cottier": "Shares of what a model costs to develop",
    "o1": "o1",
    "stargate": "Stargate",
    "openai": "OpenAI",
    "highflyer": "High-Flyer",
    "fx": "Exchange rates",
    "fireflyer": "Fire-Flyer",
    "semianalysis": "Estimates of SemiAnalysis",
    "chip": "Chips",
    "rule": "Export rules",
    "inference": "DeepSeek's inference system",
    "price": "Prices",
    "talkie": "Talkie",
    "insights": "What V3's authors say of its hardware",
    "flashmla": "FlashMLA",
    "v32": "DeepSeek-V3.2",
    "v4": "DeepSeek-V4",
    "v41": "DeepSeek-V4.1",
    "qwen3": "Qwen3",
    "muon": "Muon",
    "mhc": "Hyper-connections",
    "fp4": "Training in four bits",
    "engram": "Engram",
    "since": "After the article",
    "dspark": "DSpark",
    "torchao": "FP8 training elsewhere: torchao",
    "fp8trillion": "FP8 training elsewhere: two trillion tokens",
    "hopper": "Sums in Hopper's tensor cores",
}
CONFIDENCE = {
    "verified": "read in the primary text",
    "secondary": "read in a page about it",
    "reported": "reported, not re-read",
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role, the table and the checks with Sphinx."""
    app.add_node(SourcedNumber, html=(open_sourced_number, close_sourced_number))
    app.add_role("fact", FactRole())
    app.add_directive("fact-table", FactTable)
    app.connect("builder-inited", check_facts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def check_facts(app: Sphinx) -> None:
    """Warn when facts.yml does not parse, or when a source is not in the bibliography."""
    try:
        sources = [(key, facts.get(key).source) for key in facts.keys()]  # noqa: SIM118 not a dict
    except ValueError as error:
        logger.warning("%s: %s", FACTS_FILE.name, error)
        return
    known = bibliography(app)
    for key, source in sources:
        if source not in known:
            logger.warning("fact %r: source %r is not in the bibliography", key, source)


@functools.cache
def bibliography(app: Sphinx) -> dict[str, Entry]:
    """Return the entries of the book's bibliography files by key."""
    files = bibliography_files(app)
    return {key: entry for file in files for key, entry in parse_file(str(file)).entries.items()}


def bibliography_files(app: Sphinx) -> list[Path]:
    """Return the book's bibliography files."""
    return [Path(app.srcdir) / name for name in app.config.bibtex_bibfiles]


def citation_label(app: Sphinx, key: str) -> str:
    """The label under which the bibliography lists a source; its key if it is not there."""
    entry = bibliography(app).get(key)
    return label_of_entry(entry) if entry else key


def label_of(key: str) -> str:
    """The anchor of a fact's row in the table."""
    return "fact-" + key.replace(".", "-").replace("_", "-")


class SourcedNumber(nodes.inline):
    """A link to a fact's row, wrapped so that it can carry the source as a tooltip."""


def open_sourced_number(writer: HTML5Translator, node: SourcedNumber) -> None:
    """Write the wrapper; the stylesheet shows ``data-source`` on hover and on keyboard focus."""
    writer.body.append(writer.starttag(node, "span", "", **{"data-source": node["note"]}))


def close_sourced_number(writer: HTML5Translator, node: SourcedNumber) -> None:
    """Close the wrapper."""
    writer.body.append("</span>")


class FactRole(SphinxRole):
    """Print a sourced number."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the number as a reference to its row, or warn and name what is wrong."""
        for file in (FACTS_FILE, *bibliography_files(self.env.app)):
            self.env.note_dependency(str(file))
        try:
            fact = facts.get(self.text)
        except ValueError as error:
            logger.warning("%s", error, location=self.get_location())
            return [nodes.problematic(self.rawtext, self.rawtext)], []
        source = citation_label(self.env.app, fact.source)
        note = f"{fact.label}. {source}, {fact.where}; {CONFIDENCE[fact.confidence]}."
        if fact.leaves_out:
            note += f" Leaves out {fact.leaves_out}."
        number = SourcedNumber(self.rawtext, note=note, classes=["fact", fact.confidence])
        reference = addnodes.pending_xref(
            self.rawtext,
            nodes.inline(fact.text, fact.text),
            refdomain="std",
            reftype="ref",
            reftarget=label_of(fact.key),
            refexplicit=True,
            refwarn=True,
            refdoc=self.env.docname,
        )
        self.set_source_info(reference)
        number += reference
        return [number], []


class FactTable(SphinxDirective):
    """All facts by subject, each row the target of its role."""

    def run(self) -> list[nodes.Node]:
        """Write the table as Markdown and let the page's own parser read it."""
        self.env.note_dependency(str(FACTS_FILE))
        try:
            keys = facts.keys()
        except ValueError:
            return []  # check_facts has named it
        lines: list[str] = []
        for subject in dict.fromkeys(key.partition(".")[0] for key in keys):
            if subject not in SUBJECTS:
                logger.warning("facts about %r have no heading in fact_role.SUBJECTS", subject)
            lines += ["", f"## {SUBJECTS.get(subject, subject)}", ""]
            for key in keys:
                if key.startswith(subject + "."):
                    lines += [*self.row(facts.get(key)), ""]
        node = nodes.section()
        node.document = self.state.document
        self.state.nested_parse(StringList(lines, str(FACTS_FILE)), 0, node, match_titles=True)
        return node.children

    @staticmethod
    def row(fact: facts.Fact) -> list[str]:
        """One entry of a definition list."""
        left_out = f" Leaves out {fact.leaves_out}." if fact.leaves_out else ""
        return [
            f"({label_of(fact.key)})=",
            "",
            f"**{fact.text}** `{fact.key}`",
            f": {fact.label}, as of {fact.as_of:%Y-%m-%d}. {{cite:p}}`{fact.source}`, {fact.where};"
            f" *{CONFIDENCE[fact.confidence]}*.{left_out}",
        ]
