"""The directive ``{drawing}``: one of the drawings of `slingshot.pages.drawings`, by its name."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from slingshot.pages import drawings
from slingshot.pages.figures import to_svg


class DrawingDirective(SphinxDirective):
    """The drawing as SVG that follows light and dark, and in words."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the drawing; an unknown name fails the build and lists those that there are."""
        name = self.arguments[0]
        if name not in drawings.DRAWINGS:
            known = ", ".join(drawings.DRAWINGS)
            raise self.error(f"drawing: {name!r} is not one of {known}")
        self.env.note_dependency(drawings.__file__)
        drawing = drawings.DRAWINGS[name]
        svg = to_svg(drawing.draw(), alt=drawing.alt, prefix="drawing-" + name.replace("_", "-"))
        return [nodes.raw("", f'<div class="figure">{svg}</div>', format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("drawing", DrawingDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
