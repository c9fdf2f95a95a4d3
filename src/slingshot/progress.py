"""A progress bar that leaves the same text behind after each run."""

from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import display
from tqdm import tqdm
from tqdm.notebook import tqdm_notebook


def progress_bar(total: int, unit: str, text: str, show: bool = True) -> Any:  # noqa: ANN401
    """Return a bar of ``tqdm`` over ``total`` of ``unit``: a widget in a notebook, else a line.

    On a page without a kernel the widget is ``text``, which should say how much there is to do.
    Where nobody watches, and with ``show=False``, there is no bar.
    """
    settings: dict[str, Any] = {"total": total, "unit": f" {unit}", "unit_scale": True}
    if not show or get_ipython() is None:
        return tqdm(**settings, leave=False, disable=None if show else True)
    bar = tqdm_notebook(**settings, display=False)
    bundle = bar.container._repr_mimebundle_()
    bundle["text/plain"] = text
    display(bundle, raw=True)  # type: ignore[no-untyped-call]
    return bar
