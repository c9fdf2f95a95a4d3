"""The page on which a workspace opens: the course in its order, with minutes and progress."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from tools import copies
from tools.common import sphinx_extensions

NAME = "START.md"
HEAD = """\
# Slingshot: where to start

Work from top to bottom. A **notebook** is a copy of your own: change it, run it, keep it; what you
have worked in is never overwritten. A **page** belongs to the book and opens in a tab beside
this one, once `make book` has built it.

An **assignment** has functions to write and checks that answer at once. `make progress` in the
course's folder shows which exercises pass, and `make lab` brings this page up to date.
"""
ROW = "| {kind} | {link} | {minutes} | {state} |"


def text(root: Path, begun: Collection[str], standing: Mapping[str, str]) -> str:
    """The page as Markdown.

    ``begun`` names the copies that are not as they were handed out, and ``standing`` says of
    assignments how many exercises pass.
    """
    teaching = sphinx_extensions.load("teaching")
    course = copies.Course(root)
    lines = [HEAD]
    for part, chapters in teaching.parts(root).items():
        lines += ["", f"## {part}", "", "| | | minutes | yours |", "| --- | --- | ---: | --- |"]
        for chapter in chapters:
            effort = teaching.effort(root, chapter)
            home = copies.home_of(chapter)
            title = re.sub(r"\{\w+\}|`", "", course.title(chapter))
            link = f"[{title}]({home})" if home else copies.in_the_book(title, chapter)
            state = standing.get(home) or ("begun" if home in begun else "")
            minutes = effort.minutes
            lines.append(ROW.format(kind=kind(chapter), link=link, minutes=minutes, state=state))
    reference = copies.in_the_book("the facts and their sources", "book/facts")
    library = copies.in_the_book("the library", "book/library")
    lines += ["", f"To look up: {reference}, {library}.", ""]
    return "\n".join(lines)


def kind(chapter: str) -> str:
    """What a chapter is to a learner."""
    if chapter.startswith(copies.ASSIGNMENTS):
        return "assignment"
    return "notebook" if copies.home_of(chapter) else "page"
