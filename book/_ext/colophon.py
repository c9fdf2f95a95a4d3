"""What the book says of itself: its {version}, how long each notebook takes, what is stored.

The seconds of {notebook-seconds} are those that ``tools/notebooks.py`` recorded.
{experiment-seeds} counts the runs that experiments stored, and the seeds of each.
"""

import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst.states import Inliner
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("notebook-seconds", NotebookSeconds)
    app.add_directive("experiment-seeds", ExperimentSeeds)
    app.add_role("version", version_role)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def version_role(
    name: str, rawtext: str, text: str, lineno: int, inliner: Inliner, *_: object
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Write the version of a distribution, whose ``pyproject.toml`` is named relative to the root.

    The file is asked and not what is installed, which may be older.
    """
    env = inliner.document.settings.env
    file = Path(env.srcdir) / text
    env.note_dependency(str(file))
    project = tomllib.loads(file.read_text("utf-8"))["project"]
    return [nodes.literal(rawtext, f"{project['name']} {project['version']}")], []


class NotebookSeconds(SphinxDirective):
    """A table of the notebooks with their seconds; the file is named relative to the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the table as Markdown and let the parser of the page read it."""
        _, file = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(file)
        record: dict[str, Any] = json.loads(Path(file).read_text("utf-8"))
        lines = ["| notebook | seconds |", "| --- | ---: |"]
        for name, seconds in record["seconds"].items():
            lines.append(f"| [](../notebooks/{name}.ipynb) | {seconds:.0f} |")
        total = sum(record["seconds"].values())
        lines += [
            f"| all | {total:.0f} |",
            "",
            f"Measured on {record['date']} with {record['cores']} cores ({record['system']}), "
            f"Python {record['python']}, one after the other, the start of each kernel included.",
        ]
        if later := record.get("later"):  # until the next record of all
            titles = ", ".join(f"[](../notebooks/{name}.ipynb)" for name in later["notebooks"])
            lines[-1] += f" Measured later, on {later['date']} on a slower processor: {titles}."
        node = nodes.container()
        node.document = self.state.document
        self.state.nested_parse(StringList(lines, file), 0, node)
        return [node]


class ExperimentSeeds(SphinxDirective):
    """A table of the stored experiments; the folder is named relative to the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the table as Markdown and let the parser of the page read it."""
        _, folder = self.env.relfn2path(self.arguments[0])
        files = sorted(Path(folder).glob("*.json"))
        for file in files:
            self.env.note_dependency(str(file))
        node = nodes.container()
        node.document = self.state.document
        self.state.nested_parse(StringList(seeds_table(files), folder), 0, node)
        return [node]


def seeds_table(files: list[Path]) -> list[str]:
    """Return a table in Markdown: of each stored experiment, how many runs have how many seeds.

    Raises ``ValueError`` if there is no file.
    """
    if not files:
        raise ValueError("there are no stored experiments; name their folder")
    lines = [
        "| experiment | runs of one seed | of two to four | of five or more |",
        "| --- |" + 3 * " ---: |",
    ]
    for file in files:
        keys = json.loads(file.read_text("utf-8"))
        of_run = Counter(key.rpartition("/")[0] for key in keys).values()
        counts = [sum(low <= n <= high for n in of_run) for low, high in ((1, 1), (2, 4), (5, 99))]
        cells = " | ".join(str(count or "") for count in counts)
        lines.append(f"| `{file.stem}` | {cells} |")
    return lines
