"""A question that marks itself: {quiz}, with an explanation for every answer.

The body is the question, then a list of answers. One begins with ``[x]`` and is right, the others
with ``[ ]``; what follows an answer's first paragraph explains it::

    ```{quiz}
    What is kept?

    - [ ] The weights.

      They are dropped first.
    - [x] The scales.

      One for each block.
    ```

Answers are radio buttons, so the keyboard and screen readers know them. A style sheet shows the
explanation of the one that is chosen, without a script. A few lines of script only read it aloud.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

RIGHT, WRONG = "[x] ", "[ ] "


def add_script(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Load quiz.js on pages with a question."""
    if doctree is not None and next(doctree.findall(QuizQuestion), None) is not None:
        app.add_js_file("quiz.js")


class QuizQuestion(nodes.container):
    """The question with its answers; attribute ``name`` sets its buttons apart from others."""


class QuizText(nodes.container):
    """What is asked."""


class QuizAnswer(nodes.container):
    """One answer's words; attributes ``name`` and ``right``."""


class QuizExplanation(nodes.container):
    """Why the answer before it is right or wrong; attribute ``right``."""


class Quiz(SphinxDirective):
    """One question; a body that is not of the form above fails the build and is named."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Parse the body as Markdown and give each part its role."""
        parsed = nodes.container()
        parsed.document = self.state.document
        self.state.nested_parse(self.content, self.content_offset, parsed)
        try:
            return [self.question(parsed)]
        except ValueError as error:
            raise self.error(f"quiz: {error}") from error

    def question(self, parsed: nodes.Element) -> nodes.Node:
        """Return the question of a parsed body."""
        lists = [node for node in parsed.children if isinstance(node, nodes.bullet_list)]
        if len(lists) != 1 or parsed.children[-1] is not lists[0] or len(parsed.children) < 2:
            raise ValueError("write the question, then one list of answers, and nothing after it")
        name = f"quiz-{self.env.new_serialno('quiz')}"
        question = QuizQuestion(name=name)
        question += QuizText("", *parsed.children[:-1], name=name)
        for item in lists[0].children:
            assert isinstance(item, nodes.list_item)
            question += answer(item, name)
        marks = [part["right"] for part in question.children if isinstance(part, QuizAnswer)]
        if marks.count(True) != 1 or len(marks) < 3:
            raise ValueError(
                f"{len(marks)} answers of which {marks.count(True)} begin with [x]; give three or "
                "more, one of them right"
            )
        return question


def answer(item: nodes.list_item, name: str) -> list[nodes.Node]:
    """Return an answer and its explanation; raise ``ValueError`` when one is missing."""
    first = item.children[0] if item.children else None
    text = first.astext() if isinstance(first, nodes.paragraph) else ""
    if not isinstance(first, nodes.paragraph) or not text.startswith((RIGHT, WRONG)):
        raise ValueError(f"the answer {text!r} begins neither with [x] nor with [ ]")
    if len(item.children) < 2:
        raise ValueError(f"the answer {text!r} has no explanation: add a paragraph below it")
    right = text.startswith(RIGHT)
    mark = first.children[0]
    assert isinstance(mark, nodes.Text)
    words = [nodes.Text(mark.astext().removeprefix(RIGHT if right else WRONG)), *first.children[1:]]
    return [
        QuizAnswer("", *words, name=name, right=right),
        QuizExplanation("", *item.children[1:], right=right),
    ]


# --- as HTML -------------------------------------------------------------------------------------


def visit_question(self: HTML5Translator, node: QuizQuestion) -> None:
    """Open the group of buttons."""
    self.body.append(f'<div class="quiz" role="radiogroup" aria-labelledby="{node["name"]}">\n')


def visit_text(self: HTML5Translator, node: QuizText) -> None:
    """Open what is asked, which names the group."""
    self.body.append(f'<div class="quiz-text" id="{node["name"]}">')


def visit_answer(self: HTML5Translator, node: QuizAnswer) -> None:
    """Write the button and open its label."""
    number = f"{node['name']}-{len(self.body)}"
    self.body.append(f'<input type="radio" name="{node["name"]}" id="{number}">')
    self.body.append(f'<label for="{number}">')


def depart_answer(self: HTML5Translator, _: QuizAnswer) -> None:
    """Close the label."""
    self.body.append("</label>\n")


def visit_explanation(self: HTML5Translator, node: QuizExplanation) -> None:
    """Open the explanation with the mark."""
    kind, word = ("right", "Right.") if node["right"] else ("wrong", "No.")
    self.body.append(f'<div class="quiz-explanation {kind}"><strong>{word}</strong>\n')


def depart_question(self: HTML5Translator, _: QuizQuestion) -> None:
    """Close the group, with the place that a screen reader listens to."""
    self.body.append('<div class="quiz-aloud" role="status"></div></div>\n')


def close(self: HTML5Translator, _: nodes.Element) -> None:
    """Close a part."""
    self.body.append("</div>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive, its nodes, and the script that reads aloud."""
    app.add_directive("quiz", Quiz)
    app.add_node(QuizQuestion, html=(visit_question, depart_question))
    app.add_node(QuizText, html=(visit_text, close))
    app.add_node(QuizAnswer, html=(visit_answer, depart_answer))
    app.add_node(QuizExplanation, html=(visit_explanation, close))
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
