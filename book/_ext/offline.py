"""Make every page self-contained: no request leaves the reader's machine.

MathJax and the fonts come out of pinned packages. The theme's live-code button is taken out, since
it names a third-party host on every page. Fonts are cut down to the characters that the book uses
and packed as WOFF, so that a page loads tens of kilobytes and not a megabyte.
"""

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

from fontTools import subset
from sphinx.application import Sphinx

FONTS = {
    "serif-semibold": ("font_source_serif_pro", "SourceSerifPro-Semibold.ttf"),
    "serif-italic": ("font_source_serif_pro", "SourceSerifPro-It.ttf"),
    "sans-regular": ("font_source_sans_pro", "SourceSansPro-Regular.ttf"),
    "sans-italic": ("font_source_sans_pro", "SourceSansPro-It.ttf"),
    "sans-semibold": ("font_source_sans_pro", "SourceSansPro-Semibold.ttf"),
}
# Latin with accents, punctuation, super- and subscripts, arrows, mathematical operators.
CHARACTERS = [
    *range(0x20, 0x180), *range(0x2010, 0x2040), *range(0x2070, 0x20A0), 0x20AC,
    *range(0x2190, 0x2194), 0x2212, 0x2248, 0x2260, 0x2264, 0x2265,
]  # fmt: skip
MATHJAX_PARTS = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions", "ui", "a11y", "sre")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the steps with Sphinx."""
    app.connect("builder-inited", add_assets)
    app.connect("html-page-context", remove_live_code, priority=900)
    app.config["mathjax_path"] = "mathjax/tex-chtml.js"
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_assets(app: Sphinx) -> None:
    """Collect MathJax and the fonts in a folder that Sphinx copies to ``_static``."""
    folder = Path(app.doctreedir).parent / "offline_assets"
    app.config.html_static_path.append(str(folder))
    for name, (package, file) in FONTS.items():
        target = folder / "fonts" / f"{name}.woff"
        if not target.exists():
            pack_font(package_folder(package) / "files" / file, target)
    source = package_folder("sphinx-mathjax-offline") / "static" / "mathjax"
    for part in MATHJAX_PARTS:
        target = folder / "mathjax" / part
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        # In two steps: a copy that was interrupted would stand for a whole one from then on.
        unfinished = target.with_name(f"{target.name}.part")
        if (source / part).is_dir():
            shutil.copytree(source / part, unfinished, dirs_exist_ok=True)
        else:
            shutil.copy(source / part, unfinished)
        unfinished.rename(target)


def pack_font(source: Path, target: Path) -> None:
    """Write the font's Latin part as WOFF."""
    target.parent.mkdir(parents=True, exist_ok=True)
    options = subset.Options(flavor="woff", layout_features=["*"], notdef_outline=True)
    font = subset.load_font(str(source), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=CHARACTERS)
    subsetter.subset(font)
    subset.save_font(font, str(target), options)


def remove_live_code(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Drop what sphinx-thebe adds to each page: it names a third-party host."""
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind, []) if not _is_live_code(file)]
    if "body" in context:
        body = re.sub(
            r'<script type="text/x-thebe-config">.*?</script>', "", context["body"], flags=re.S
        )
        context["body"] = re.sub(r"<script>kernelName = .*?</script>", "", body, flags=re.S)


def _is_live_code(file: object) -> bool:
    inline = getattr(file, "attributes", {}).get("body") or ""
    return "thebe" in f"{getattr(file, 'filename', file)} {inline}".lower()


def package_folder(name: str) -> Path:
    """The folder of an installed package; raise ``RuntimeError`` with the remedy without it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"package {name!r} is missing; run: pip install -r requirements.txt")
    return Path(spec.origin).parent
