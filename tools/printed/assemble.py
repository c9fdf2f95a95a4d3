"""Put the built pages together as one document to print; fold, slider and cell are settled.

Paper has no fold, no slider and no kernel. The code of a cell that is folded on its page is left
out; an output that is folded there, behind a prediction, stands open. Of a figure with sliders the
first frame is printed. The explanations of a question, and the hints of an exercise, are gathered
at the end of the chapter. A cell to try is code to read.
"""

import html
import posixpath
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urldefrag

import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parents[2]
STYLE = Path(__file__).with_name("print.css")
GONE = {
    "headerlink", "explore-controls", "explore-note", "ledger-controls", "quiz-aloud",
    "try-buttons", "try-output", "actions", "copybtn",
}  # fmt: skip
GONE_TAGS = {"script", "style", "link"}
ONE_ID = ("for", "aria-labelledby", "aria-describedby", "headers")
# A frame that is not shown holds a drawing and no division. They are half of all that is read.
_HIDDEN_FRAME = re.compile(r'<div class="explore-frame"[^>]*\bhidden\b[^>]*>.*?</div>', re.S)
# Spans that change nothing on paper: in a file with tags each would be a node of its own.
_PLAIN = re.compile(r'<span class="(?:p|n|o|w|nn|nx|pm|pre)">([^<]*)</span>|<span></span>')
_URL = re.compile(r"url\(#([^)]+)\)")
_PAGE_OF_CHAPTER = '<span class="toc-page" data-chapter="{0}"></span>'


@dataclass
class Chapter:
    """A page of the book: its place, the part it begins if it begins one, and its article."""

    number: int
    page: str
    part: str
    title: str
    article: Tag
    endnotes: list[Tag] = field(default_factory=list)

    @property
    def id(self) -> str:
        """What the ids of the chapter begin with."""
        return f"chapter-{self.number}"


def contents(root: Path = ROOT) -> list[tuple[str, str]]:
    """Every page in the order of the table of contents, with the part that it begins, or none."""
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    found = [(f"{toc['root']}.html", "")]
    for part in toc["parts"]:
        for i, chapter in enumerate(part["chapters"]):
            found.append((f"{chapter['file']}.html", "" if i else part["caption"]))
            found += [(f"{each['file']}.html", "") for each in chapter.get("sections", [])]
    return found


def assemble(book: Path, root: Path = ROOT) -> str:
    """Return the HTML of the whole book; raise ``ValueError`` naming a page that is missing."""
    chapters = [
        read(book, page, part, number) for number, (page, part) in enumerate(contents(root))
    ]
    numbers = {chapter.page: chapter.number for chapter in chapters}
    known = {chapter.page: ids_of(chapter.article) for chapter in chapters}
    for chapter in chapters:
        make_printable(chapter)
        address(chapter, book, numbers, known)
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    version = f"{project['name']} {project['version']}"
    head = head_of(book, chapters)
    body = [title_page(version), about(), contents_page(chapters)]
    body += [each for chapter in chapters for each in written(chapter)]
    return f"{head}<body>{''.join(body)}</body></html>\n"


def read(book: Path, page: str, part: str, number: int) -> Chapter:
    """Read the article of a page."""
    file = book / page
    if not file.is_file():
        raise ValueError(f"{page} is not in {book}; build the book first")
    text = file.read_text("utf-8")
    start, end = text.find("<article"), text.rfind("</article>")
    shown = _HIDDEN_FRAME.sub("", text[start : end + len("</article>")])
    article = BeautifulSoup(_PLAIN.sub(r"\1", shown), "html.parser").article
    heading = article.find("h1") if article else None
    if article is None or heading is None:
        raise ValueError(f"{page} has no heading")
    for each in heading.find_all("a", class_="headerlink"):
        each.decompose()
    return Chapter(number, page, part, " ".join(heading.get_text().split()), article)


def by_class(tag: Tag) -> dict[str, list[Tag]]:
    """Every tag below one by each of its classes, in the order of the page.

    A selector of CSS would look at two hundred thousand tags for each of a dozen classes.
    """
    found: dict[str, list[Tag]] = defaultdict(list)
    for each in tag.find_all(True):
        for name in each.get_attribute_list("class"):
            if name:
                found[str(name)].append(each)
    return found


def ids_of(article: Tag) -> set[str]:
    """All ids in a chapter, before anything of it is left out."""
    return {str(each["id"]) for each in article.find_all(id=True)}


# --- what is printed ------------------------------------------------------------------------------


def make_printable(chapter: Chapter) -> None:
    """Leave out what only a screen can do, and open or gather what is folded."""
    article = chapter.article
    having = by_class(article)
    for each in [tag for name in GONE for tag in having[name]] + article.find_all([*GONE_TAGS]):
        each.extract()
    for cell in having["try-code"]:
        cell.name = "pre"
        cell.attrs = {"class": "try-code"}
    for figure in having["explore"]:
        figure.name = "div"  # the drawing in it is the figure that has words
    gather_answers(chapter, having)
    gather_hints(chapter)
    for fold in having["above-input"]:
        output = by_class(fold)["cell_output"]
        fold.replace_with(*output) if output else fold.extract()
    for fold in article.find_all("details"):
        open_fold(fold)
    for level in (5, 4, 3, 2, 1):
        for heading in article.find_all(f"h{level}"):
            heading.name = f"h{level + 1}"


def open_fold(fold: Tag) -> None:
    """Print what is folded, below its line; above an output that line says nothing."""
    summary = fold.find("summary")
    if summary is not None:
        if "hide" in fold.get_attribute_list("class"):
            summary.decompose()
        else:
            summary.name = "p"
            summary["class"] = "folded-title"
    fold.name = "div"
    fold["class"] = "folded"


def gather_answers(chapter: Chapter, having: dict[str, list[Tag]]) -> None:
    """Letter the answers of each question; take their explanations to the end of the chapter."""
    for number, quiz in enumerate(having["quiz"], 1):
        quiz["id"] = name = f"question-{number}"
        parts = by_class(quiz)
        (text,) = parts["quiz-text"]
        soup = BeautifulSoup("", "html.parser")
        note = soup.new_tag("div", attrs={"class": "endnote", "id": f"answer-{number}"})
        note.append(link(f"#{name}", f"Question {number}"))
        text.insert(0, link(f"#answer-{number}", f"Question {number}. "))
        for letter, button in zip("abcdefgh", quiz.find_all("input"), strict=False):
            mark = soup.new_tag("span", attrs={"class": "quiz-letter"}, string=f"{letter})")
            button.replace_with(mark)
        for letter, explanation in zip("abcdefgh", parts["quiz-explanation"], strict=False):
            explanation["class"] = "quiz-explained"
            mark = soup.new_tag("span", attrs={"class": "quiz-letter"}, string=f"{letter}) ")
            explanation.insert(0, mark)
            note.append(explanation.extract())
        chapter.endnotes.append(note)


def gather_hints(chapter: Chapter) -> None:
    """Take the hints of the exercises to the end of the chapter, under the exercise's name."""
    soup = BeautifulSoup("", "html.parser")
    for number, fold in enumerate(chapter.article.find_all("details", class_=False), 1):
        summary = fold.find("summary")
        if summary is None or not summary.get_text().startswith("Hint"):
            continue
        heading = fold.find_previous(["h2", "h3"])
        words = " ".join(summary.get_text().split())
        note = soup.new_tag("div", attrs={"class": "endnote", "id": f"hint-{number}"})
        where = " ".join(heading.get_text().split()) if heading else ""
        note.append(link(f"#hint-{number}-at", f"{where}. {words}."))
        summary.extract()
        for each in list(fold.contents):
            note.append(each.extract())
        pointer = soup.new_tag("p", attrs={"class": "hint-pointer", "id": f"hint-{number}-at"})
        pointer.append(link(f"#hint-{number}", words))
        pointer.append(" (at the end of this chapter)")
        fold.replace_with(pointer)
        chapter.endnotes.append(note)


def link(target: str, words: str) -> Tag:
    """A link."""
    return BeautifulSoup("", "html.parser").new_tag(
        "a", attrs={"href": target, "class": "print-link"}, string=words
    )


# --- addresses ------------------------------------------------------------------------------------


def address(
    chapter: Chapter, book: Path, numbers: dict[str, int], known: dict[str, set[str]]
) -> None:
    """Make ids unique in the whole document, and let links lead to them."""
    for root in (chapter.article, *chapter.endnotes):
        for tag in (root, *root.find_all(True)):
            if "id" in tag.attrs:
                tag["id"] = f"{chapter.id}-{tag['id']}"
            for name in list(tag.attrs):
                value = tag[name]
                if name in ONE_ID:
                    ids = " ".join(tag.get_attribute_list(name)).split()
                    tag[name] = " ".join(f"{chapter.id}-{each}" for each in ids)
                elif isinstance(value, str) and "url(#" in value:
                    tag[name] = _URL.sub(rf"url(#{chapter.id}-\1)", value)
            if "xlink:href" in tag.attrs and str(tag["xlink:href"]).startswith("#"):
                tag["xlink:href"] = f"#{chapter.id}-{str(tag['xlink:href'])[1:]}"
            if tag.name == "use" and str(tag.get("href", "")).startswith("#"):
                tag["href"] = f"#{chapter.id}-{str(tag['href'])[1:]}"
            elif tag.name == "a" and "href" in tag.attrs:
                lead(tag, chapter, numbers, known)
            if tag.name == "img" and not re.match(r"[a-z]+:", str(tag["src"])):
                file = (book / chapter.page).parent / unquote(urldefrag(str(tag["src"])).url)
                tag["src"] = file.resolve().as_uri()


def lead(tag: Tag, chapter: Chapter, numbers: dict[str, int], known: dict[str, set[str]]) -> None:
    """Let a link lead to its place in this document; what is not in it is no link on paper."""
    href = str(tag["href"])
    if re.match(r"[a-z]+:", href):
        return
    target, fragment = urldefrag(unquote(href))
    page = posixpath.normpath(posixpath.join(posixpath.dirname(chapter.page), target))
    page = page if target else chapter.page
    if page not in numbers:
        tag.unwrap()
    elif fragment and (fragment in known[page] or page == chapter.page):
        tag["href"] = f"#chapter-{numbers[page]}-{fragment}"
    else:
        tag["href"] = f"#chapter-{numbers[page]}"


# --- the document ---------------------------------------------------------------------------------


def head_of(book: Path, chapters: list[Chapter]) -> str:
    """The head: the book's own styles, those of print, and mathematics."""
    first = book / chapters[0].page
    text = first.read_text("utf-8")
    tags = BeautifulSoup(text[: text.find("</head>")], "html.parser").find_all("link")
    sheets = [
        (first.parent / str(tag["href"]).partition("?")[0]).resolve().as_uri()
        for tag in tags
        if "stylesheet" in tag.get_attribute_list("rel")
    ]
    links = "".join(f'<link rel="stylesheet" href="{sheet}">' for sheet in dict.fromkeys(sheets))
    mathjax = (book / "_static" / "mathjax" / "tex-chtml.js").resolve().as_uri()
    pages = "".join(
        f".{chapter.id} {{ page: {chapter.id}; }}\n@page {chapter.id} {{ @top-right {{ content: "
        f"{css_text(chapter.title)}; }} }}\n"
        for chapter in chapters
    )
    return (
        '<!doctype html><html lang="en" data-theme="light" data-mode="light"><head>'
        '<meta charset="utf-8"><title>Slingshot</title>'
        f"{links}<style>{STYLE.read_text('utf-8')}\n{pages}</style>"
        '<script>window.MathJax = {"options": {"enableMenu": false, "processHtmlClass":'
        ' "tex2jax_process|mathjax_process|math|output_area"}}</script>'
        f'<script defer src="{mathjax}"></script></head>'
    )


def css_text(text: str) -> str:
    """A string of CSS."""
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'


def title_page(version: str) -> str:
    """The first page."""
    return (
        '<section class="title-page"><p class="book-title">Slingshot</p>'
        '<p class="book-subtitle">A course on efficient AI development that runs on a laptop</p>'
        f"<p>The Slingshot authors</p><p>{html.escape(version)}</p>"
        "<p>Code under the MIT license, text and figures under CC BY 4.0.</p></section>"
    )


def about() -> str:
    """What the print shows of what folds, slides or runs on a page."""
    return """<section class="about-print"><h2>About this print</h2>
<p>This is the whole book as its pages show it, in one file. Links work within it.</p>
<ul>
<li>Code that is folded on a page, since it draws or prepares, is left out. It stands in the
notebook of the chapter. What it draws or prints is here.</li>
<li>An output that is folded behind a prediction stands open below it. Cover the lower part of the
page while you predict.</li>
<li>Of a figure with sliders the first frame is printed, with the values in its caption.</li>
<li>The answers to the questions, and the hints of the exercises, stand at the end of their
chapter.</li>
<li>A cell to try is printed as code. It runs on the page of the book.</li>
<li>A long line of code is continued on the next one.</li>
</ul></section>"""


def contents_page(chapters: list[Chapter]) -> str:
    """The table of contents; the numbers of pages are filled in once they are known."""
    lines = []
    for chapter in chapters:
        if chapter.part:
            lines.append(f'<li class="toc-part">{html.escape(chapter.part)}</li>')
        lines.append(
            f'<li><a href="#{chapter.id}">{html.escape(chapter.title)}</a>'
            f"{_PAGE_OF_CHAPTER.format(chapter.id)}</li>"
        )
    return (
        '<section class="contents-page"><h2>Contents</h2>'
        f'<ol class="toc-print">{"".join(lines)}</ol></section>'
    )


def written(chapter: Chapter) -> Iterator[str]:
    """The heading of a part if one begins here, the chapter, and what is gathered at its end."""
    if chapter.part:
        yield f'<section class="part-page"><h1>{html.escape(chapter.part)}</h1></section>'
    yield f'<div class="chapter {chapter.id}" id="{chapter.id}">{chapter.article}'
    if chapter.endnotes:
        heading = "Hints" if "assignments/" in chapter.page else "Answers to the questions"
        yield f'<section class="endnotes"><h3>{heading}</h3>'
        yield from map(str, chapter.endnotes)
        yield "</section>"
    yield "</div>"
