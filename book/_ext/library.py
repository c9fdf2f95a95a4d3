"""Leave the fields of named tuples out of the library's reference: the class's text has them."""

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the filter with Sphinx."""
    app.connect("autodoc-skip-member", skip_tuple_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def skip_tuple_fields(
    app: Sphinx, what: str, name: str, member: object, skip: bool, options: object
) -> bool | None:
    """Skip a member whose only documentation is "Alias for field number 0"."""
    return True if type(member).__name__ == "_tuplegetter" else None
