"""The table of attacks has a line for each submission that the tests of the grader hand in."""

from pathlib import Path

import attack_table
from made_up_class import points_of_kinds
from slingshot_grader.files import clean_name
from test_grade import ATTACKS, NFC, NFD

EITHER = {"two", "Two", NFC, NFD, "=1+1"}
"""Of two under one name either may get the number; and a name that would be a formula."""


def test_no_submission_is_left_out(tmp_path: Path) -> None:
    for kind in (attack_table.usual, attack_table.hostile):
        (tmp_path / kind.__name__).mkdir()
    lines = {line.learner for line in attack_table.usual(tmp_path / "usual")}
    assert lines == {clean_name(name) for name in points_of_kinds() if name not in EITHER}
    assert lines >= {clean_name(name) for name in ATTACKS}
    hostile = {line.learner for line in attack_table.hostile(tmp_path / "hostile")}
    assert hostile >= set(attack_table.TRIES)
