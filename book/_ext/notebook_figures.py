"""Put the notebooks' SVG figures into the page itself, so that they follow light and dark."""

import hashlib
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

from slingshot.pages.figures import embed_svg

logger = logging.getLogger(__name__)


class InlineFigures(SphinxPostTransform):
    """Replace each image that a notebook wrote as SVG by that SVG and its text alternative."""

    default_priority = 400
    formats = ("html",)

    def run(self, **options: object) -> None:
        """Visit the images of one page."""
        for image in list(self.document.findall(nodes.image)):
            path = Path(self.env.srcdir) / image["uri"]
            if path.suffix != ".svg" or "jupyter_execute" not in path.parts:
                continue
            if not image.get("alt", "").strip():
                logger.warning("a figure has no alt text (mystnb.image.alt)", location=image)
                continue
            text = path.read_text("utf-8")
            prefix = "figure-" + hashlib.sha256(text.encode()).hexdigest()[:8]
            svg = embed_svg(text, alt=image["alt"], prefix=prefix)
            image.replace_self(nodes.raw("", f'<div class="figure">{svg}</div>', format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform with Sphinx."""
    app.add_post_transform(InlineFigures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
