"""The common refusals, where what they say depends on what they are given."""

import pytest

from slingshot import require


@pytest.mark.parametrize(
    ("choices", "known"),
    [(["a"], "use a"), (["a", "b"], "use a or b"), (["a", "b", "c"], "use a, b or c")],
)
def test_the_choices_are_a_sentence_however_many_there_are(choices: list[str], known: str) -> None:
    require.one_of(choices, kind="a")
    with pytest.raises(ValueError, match=rf"^kind 'x' is unknown; {known}$"):
        require.one_of(choices, kind="x")
