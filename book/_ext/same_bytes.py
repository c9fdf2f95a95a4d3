"""Let a build of the same files be the same to the byte, in whatever folder it is made.

Sphinx leaves a hash of its configuration beside the pages, in ``.buildinfo``, to know when all of
them must be written anew. In it are the folders that static files come from, and extensions name
theirs by where they are installed. Here the hash takes the last two names of such a folder.
"""

from pathlib import PurePath

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the step with Sphinx."""
    app.connect("builder-inited", forget_places, priority=1000)  # after all that add a folder
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def forget_places(app: Sphinx) -> None:
    """Hash the configuration anew, without the places of absolute paths."""
    if not hasattr(app.builder, "create_build_info"):
        return  # it writes no pages
    places = app.config.html_static_path
    app.config.html_static_path = [without_place(place) for place in places]
    try:
        app.builder.build_info = app.builder.create_build_info()  # type: ignore[attr-defined]
    finally:
        app.config.html_static_path = places


def without_place(place: str) -> str:
    """Return a relative path as it is, and the last two names of an absolute one."""
    path = PurePath(place)
    return "/".join(path.parts[-2:]) if path.is_absolute() else place
