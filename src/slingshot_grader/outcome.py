"""What came of a submission, as the grader keeps it; read with suspicion where it comes in."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from slingshot_grader.assignment import Assignment
from slingshot_grader.session import Run

STATUSES = ("graded", "stopped", "unreadable", "not graded")
OUTCOMES = ("passed", "wrong", "not written", "stopped", "unreadable")
LONGEST_TEXT = 20_000
MOST_REMARKS = 40
LONGEST_REMARK = 500
LONGEST_NAME = 200
LARGEST_PAGE = 8_000_000


@dataclass
class Grade:
    """What came of one test; ``outcome`` is passed, wrong, not written, stopped or unreadable."""

    exercise: str
    grade_id: str
    points: float
    most: float
    outcome: str
    message: str = ""

    @property
    def mistake(self) -> str:
        """The first line of the message, without the name of the exercise."""
        return self.message.split("\n")[0].removeprefix(f"{self.exercise}: ")


@dataclass
class Report:
    """What came of one submission; ``status`` is one of ``STATUSES``.

    ``notebook`` is the notebook as it ran, as HTML without anything active; ``digest`` is the hash
    of what was graded, and ``answers`` a hash of what the learner wrote, by exercise.
    """

    status: str
    remarks: list[str] = field(default_factory=list)
    grades: list[Grade] = field(default_factory=list)
    cells: list[Run] = field(default_factory=list)
    seconds: float = 0.0
    notebook: str = ""
    digest: str = ""
    answers: dict[str, list[int]] = field(default_factory=dict)

    @property
    def points(self) -> float:
        """The sum of all points."""
        return sum(grade.points for grade in self.grades)

    def message(self) -> dict[str, Any]:
        """The report as JSON, without the cells, which the page shows already."""
        data = asdict(self)
        del data["cells"]
        return data


def read_report(data: Any) -> Report:  # noqa: ANN401 from a process that has met a stranger
    """Return the report that JSON holds; raise ``ValueError`` where it is none."""
    content = expect(data, dict)
    status = expect(content.get("status"), str)
    if status not in STATUSES:
        raise ValueError(f"no status: {status[:40]!r}")
    remarks = [text(each, LONGEST_REMARK) for each in expect(content.get("remarks"), list)]
    return Report(
        status,
        remarks[:MOST_REMARKS],
        [read_grade(each) for each in expect(content.get("grades"), list)[:200]],
        [],
        round(number(content.get("seconds")), 1),
        text(content.get("notebook"), LARGEST_PAGE),
        text(content.get("digest"), 64),
        read_answers(content.get("answers")),
    )


def report_on(assignment: Assignment, data: Any) -> Report:  # noqa: ANN401
    """Return the report if it is one on this assignment; raise ``ValueError`` otherwise."""
    report = read_report(data)
    due = [(test.exercise, test.grade_id, test.points) for test in assignment.tests]
    if [(each.exercise, each.grade_id, each.most) for each in report.grades] != due:
        raise ValueError("it is on another assignment")
    if not report.answers.keys() <= assignment.answers:
        raise ValueError("it has answers of another assignment")
    return report


def read_grade(data: Any) -> Grade:  # noqa: ANN401
    """Return one grade; raise ``ValueError``."""
    content: Mapping[str, Any] = expect(data, dict)
    exercise, grade_id, outcome, message = (
        text(content.get(name), LONGEST_TEXT)
        for name in ("exercise", "grade_id", "outcome", "message")
    )
    points, most = number(content.get("points")), number(content.get("most"))
    if outcome not in OUTCOMES or not 0 <= points <= most:
        raise ValueError(f"no grade: {outcome[:40]!r} with {points} of {most}")
    return Grade(exercise, grade_id, points, most, outcome, message)


def read_answers(data: Any) -> dict[str, list[int]]:  # noqa: ANN401
    """Return what similarity is told by; raise ``ValueError``."""
    found = expect(data, dict)
    return {
        text(name, LONGEST_NAME): [expect(each, int) for each in expect(marks, list)[:500]]
        for name, marks in list(found.items())[:100]
    }


def number(value: Any) -> float:  # noqa: ANN401
    """Return a finite number; raise ``ValueError``."""
    if type(value) not in (int, float) or not abs(value) < 1e9:
        raise ValueError("no number")
    return float(value)


def expect(value: Any, kind: type) -> Any:  # noqa: ANN401
    """Return a value of that very type; raise ``ValueError`` for any other."""
    if type(value) is not kind:
        raise ValueError(f"no {kind.__name__}")
    return value


def text(value: Any, longest: int) -> str:  # noqa: ANN401
    """Return a text that can be written, cut; raise ``ValueError`` for anything else."""
    return clean(expect(value, str)[:longest])


def clean(text: str) -> str:
    """A text that can be written as UTF-8: halves of letters become a sign for a missing one."""
    return text.encode("utf-8", "replace").decode("utf-8")
