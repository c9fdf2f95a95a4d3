"""The museum of bugs: its code prints what the page says, and each exhibit shows a mistake.

In each exhibit the wrong code must agree with the right code on the input that passes, and differ
from it on the input that fails. What is said to catch it must be a test of this suite.
"""

import re
from pathlib import Path

import pytest

from test_verifiers import different

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "museum.md"
EXHIBIT = re.compile(r"^## (?P<name>.+?)\n(?P<body>.*?)(?=^## |\Z)", re.M | re.S)
PRINTED = re.compile(r"^(passes|fails): wrong (.+), right (.+)$", re.M)


def exhibits(page: str) -> dict[str, str]:
    """The exhibits of a page by name; the last section is about all of them."""
    found = {match["name"]: match["body"] for match in EXHIBIT.finditer(page)}
    found.pop("What they have in common", None)
    return found


def with_output(page: str) -> str:
    """The page with what nothing prints below the code that prints nothing."""
    silent = re.compile(r"(^```python\n(?:(?!```).*\n)*```\n)(?!\n```text)", re.M)
    return silent.sub(r"\1\n```text\n```\n", page)


def faults(name: str, body: str, tests: str) -> list[str]:
    """What an exhibit lacks."""
    shown = {kind: (wrong, right) for kind, wrong, right in PRINTED.findall(body)}
    if shown.keys() != {"passes", "fails"}:
        return [f"{name}: prints {sorted(shown)}"]
    found = []
    if shown["passes"][0] != shown["passes"][1]:
        found.append(f"{name}: differs on the input that passes")
    if shown["fails"][0] == shown["fails"][1]:
        found.append(f"{name}: agrees on the input that fails")
    if not re.search(r"\]\(https://github\.com/[\w-]+/[\w-]+/(?:issues|pull)/\d+\)", body):
        found.append(f"{name}: has no report")
    caught = re.findall(r"`(test_\w+)`", body)
    if not caught or any(f"def {test}(" not in tests for test in caught):
        found.append(f"{name}: {caught} is no test")
    return found


def suite() -> str:
    return "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))


def test_the_page_prints_what_it_says() -> None:
    assert different(with_output(PAGE.read_text("utf-8"))) == []


def test_each_exhibit_passes_fails_and_has_its_report_and_its_test() -> None:
    found = exhibits(PAGE.read_text("utf-8"))
    assert len(found) >= 9
    tests = suite()
    assert [fault for name, body in found.items() for fault in faults(name, body, tests)] == []


GOOD = """
```text
passes: wrong 1, right 1
fails: wrong 2, right 1
```

Reported for [it](https://github.com/a/b/issues/1). Caught by `test_a`.
"""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("passes: wrong 1", "passes: wrong 2", "x: differs on the input that passes"),
        ("fails: wrong 2", "fails: wrong 1", "x: agrees on the input that fails"),
        ("fails: wrong 2, right 1\n", "", "x: prints ['passes']"),
        ("issues/1", "", "x: has no report"),
        ("`test_a`", "`test_b`", "x: ['test_b'] is no test"),
        ("`test_a`", "us", "x: [] is no test"),
    ],
)
def test_a_poor_exhibit_is_found(old: str, new: str, fault: str) -> None:
    assert faults("x", GOOD, "def test_a(") == []
    assert faults("x", GOOD.replace(old, new), "def test_a(") == [fault]


def test_a_mistake_that_is_mended_is_no_exhibit() -> None:
    """The right code in the place of the wrong one makes the page print something else."""
    page = with_output(PAGE.read_text("utf-8"))
    mended = page.replace("masked_fill(groups != best[:, None], 0.0)",
                          "masked_fill(groups != best[:, None], -torch.inf)")  # fmt: skip
    assert mended != page
    (fault,) = different(mended)
    assert "fails: wrong [0, 1], right [0, 1]" in fault
