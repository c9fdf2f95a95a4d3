"""Tables: what is shown as HTML is what is stored as text, and what cannot be shown is named."""

import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
import torch

from slingshot.pages import Table, table

ROWS = [["dense", 3, 0.1234, "12 (10-14)"], ["mixture <16>", 1200, -0.5, None]]
HEADER = ["model", "runs", "gain", "right, %"]


def sample() -> Table:
    return table(ROWS, header=HEADER, caption="Gain & loss", formats=["", ",d", "+.2f"])


def test_text_is_aligned() -> None:
    assert repr(sample()).splitlines() == [
        "Gain & loss",
        "model          runs   gain    right, %",
        "dense             3  +0.12  12 (10-14)",
        "mixture <16>  1,200  \u22120.50           \u2013",
    ]


def test_html_has_the_same_cells_a_caption_and_headers() -> None:
    root = ET.fromstring(sample()._repr_html_())
    assert root.get("role") == "region"
    assert root.get("aria-label") == root.find(".//caption").text == "Gain & loss"  # type: ignore[union-attr]
    assert "overflow-x:auto" in str(root.get("style"))
    assert [cell.text for cell in root.findall(".//thead//th[@scope='col']")] == HEADER
    rows = root.findall(".//tbody/tr")
    assert [cell.text for cell in rows[1]] == ["mixture <16>", "1,200", "\u22120.50", "\u2013"]
    assert [row[0].get("scope") for row in rows] == ["row", "row"]
    aligned = ["right" in str(cell.get("style")) for cell in rows[0]]
    assert aligned == [False, True, True, True]


@pytest.mark.parametrize(
    "cell", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), torch.tensor([0.5])[0]]
)
def test_numbers_of_any_library_are_written_alike(cell: object) -> None:
    made = table([["a", cell]], header=["", "x"], caption="c", formats=["", ".2f"])
    assert made.rows == (("a", "0.50"),)


def test_true_is_no_number() -> None:
    assert table([["a", True], ["b", False]], header=["", "x"], caption="c").rows[0][1] == "yes"


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([["a"]], {}, r"the row \['a'\] has 1 cells and the header 2"),
        ([["a", 1, 2]], {}, "has 3 cells and the header 2"),
        ([["a", 0.5]], {}, "the cell 0.5 is a float; give its column a format"),
        ([["a", np.float32(0.5)]], {}, "is a float"),
        ([], {"caption": " "}, "caption is ' '"),
        ([], {"formats": ["", "", ""]}, "3 formats for 2 columns"),
    ],
)
def test_what_cannot_be_shown_is_named(
    rows: list[list[Any]], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        table(rows, **{"header": ["", "x"], "caption": "c", **changes})
