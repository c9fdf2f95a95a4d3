"""What the weekly workflow runs: the sorting of links, and requirements without their versions."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import links, newest  # noqa: E402


def answer(address: str, status: str, info: str = "", page: str = "book/a.md") -> str:
    return json.dumps({"uri": address, "status": status, "info": info, "filename": page})


NO_HOST = (
    "HTTPSConnectionPool(host='a', port=443): Max retries exceeded with url: / (Caused by "
    "NameResolutionError(\"Failed to resolve 'a' ([Errno -2] Name or service not known)\"))"
)


@pytest.mark.parametrize(
    ("status", "info", "place"),
    [
        ("working", "", None),
        ("redirected", "https://b", None),
        ("unchecked", "", None),
        ("ignored", "", None),
        ("broken", "404 Client Error: Not Found for url: https://a", "gone"),
        ("broken", "410 Client Error: Gone for url: https://a", "gone"),
        ("broken", NO_HOST, "gone"),
        ("broken", "403 Client Error: Forbidden for url: https://a/404", "unsure"),
        ("broken", "429 Client Error: Too Many Requests for url: https://a", "unsure"),
        ("broken", "503 Server Error: Service Unavailable for url: https://a", "unsure"),
        ("timeout", "Read timed out.", "unsure"),
    ],
)
def test_an_address_is_gone_only_when_its_host_says_so(
    status: str, info: str, place: str | None
) -> None:
    gone, unsure, n_there = links.sort([answer("https://a", status, info)])
    assert (bool(gone), bool(unsure)) == (place == "gone", place == "unsure")
    assert n_there == (status in ("working", "redirected"))


def test_an_address_is_named_once_with_its_page_and_fails_the_check(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lost = [answer("https://a", "broken", "404 Client Error", page) for page in ("a.md", "b.md")]
    there = answer("https://b", "working")
    assert links.verdict([*lost, there]) == 1
    assert "1 gone\n  https://a (a.md): broken 404 Client Error\n1 there" in capsys.readouterr().out
    assert links.verdict([there, answer("https://c", "timeout"), ""]) == 0


def test_no_answer_at_all_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert links.verdict([answer("https://a", "timeout")]) == 1
    assert links.verdict([]) == 1
    assert "is there a network?" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["{", "[]", '{"uri": "https://a"}'])
def test_a_line_of_another_form_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="no answer of Sphinx"):
        links.sort([line])


def test_versions_go_and_what_is_held_back_stays() -> None:
    text = (
        "# a\n-r b.txt\nnumpy==2.4.6 # why\n\njupyter-book==1.0.4.post1\ntypes-PyYAML==6.0.12.1\n"
    )
    assert newest.without_versions(text) == ["numpy", "jupyter-book<2", "types-PyYAML"]
    with pytest.raises(ValueError, match="'numpy>=2' is not of the form"):
        newest.without_versions("numpy>=2")


def test_every_requirement_is_tried_once() -> None:
    found = newest.packages()
    assert len(found) == len(set(found)) > 25
    assert {"torch", "jupyter-book<2", "nbgrader", "pytest-xdist"} < set(found)
    names = [each.partition("<")[0] for each in found]
    assert set(newest.HELD_BACK) <= set(names)
