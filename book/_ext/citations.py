"""Labels that a reader recognizes: [DeepSeek-V3 report], [Dai et al. 2024], [OpenAI 2025].

Half of the sources here have one corporate author and the same year, so author and year would not
tell them apart. An entry may give its own label in the field ``shorthand``.
"""

from collections import Counter
from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.richtext import Text
from pybtex.style.formatting.unsrt import Style as UnsrtStyle
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.sorting import BaseSortingStyle
from sphinx.application import Sphinx


class ReadableLabels(BaseLabelStyle):
    """Shorthand, or first author and year, with a letter where two would be equal."""

    def format_labels(self, sorted_entries: Sequence[Entry]) -> list[str]:
        """Return one label per entry."""
        labels = [label_of(entry) for entry in sorted_entries]
        total, seen = Counter(labels), Counter[str]()
        unique = []
        for label in labels:
            unique.append(label + (ascii_lowercase[seen[label]] if total[label] > 1 else ""))
            seen[label] += 1
        return unique


class ByLabel(BaseSortingStyle):
    """The order in which a reader looks a label up."""

    def sorting_key(self, entry: Entry) -> str:
        """Return the label without regard to case."""
        return label_of(entry).casefold()


class ReadableStyle(UnsrtStyle):
    """Entries as in a reference list, with these labels in this order."""

    default_label_style = ReadableLabels
    default_sorting_style = ByLabel


def address_of(entry: Entry) -> str:
    """Where a source can be read, as far as the bibliography knows."""
    fields = entry.fields
    if "url" in fields:
        return str(fields["url"])
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    return f"https://arxiv.org/abs/{fields['eprint']}" if "eprint" in fields else ""


def label_of(entry: Entry) -> str:
    """The label of one entry, before two equal ones are told apart.

    Raises ``ValueError`` naming an entry from which none can be made.
    """
    if "shorthand" in entry.fields:
        return str(entry.fields["shorthand"])
    if not entry.persons.get("author") or "year" not in entry.fields:
        raise ValueError(f"{entry.key} has no label: give it author and year, or a shorthand")
    authors = entry.persons["author"]
    name = str(Text.from_latex(" ".join([*authors[0].prelast_names, *authors[0].last_names])))
    if len(authors) == 2 and str(authors[1]) != "others":
        name += f" and {Text.from_latex(' '.join(authors[1].last_names))}"
    elif len(authors) > 1:
        name += " et al."
    return f"{name} {entry.fields['year']}"


def name_the_items(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Let the entries of the bibliography be items of its list.

    docutils gives them a role that ARIA has given up, so a screen reader found an empty list.
    """
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the style under the name that _config.yml uses, and the step for its list."""
    register_plugin("pybtex.style.formatting", "slingshot", ReadableStyle)
    app.connect("html-page-context", name_the_items)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
