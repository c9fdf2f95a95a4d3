"""What a learner has in the end: the attempt that counts, overrides, lateness, parts by hand."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from slingshot_grader.assignment import Assignment
from slingshot_grader.desk import Override, Rules
from slingshot_grader.files import Submission, same_name
from slingshot_grader.outcome import Report

Attempt = tuple[Submission, Report]


@dataclass
class Part:
    """An exercise, or what is graded by hand; ``points`` is ``None`` while nobody has graded it."""

    name: str
    points: float | None
    most: float
    outcome: str
    message: str = ""
    comment: str = ""
    excused: bool = False


@dataclass
class Standing:
    """A learner's row: what counts, and why."""

    submission: Submission
    report: Report
    parts: list[Part]
    attempts: int = 1
    days_late: int = 0
    penalty: float = 0.0
    comment: str = ""
    excused: bool = False
    fixed: float | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The status of what counts, or excused."""
        return "excused" if self.excused else self.report.status

    @property
    def has_grade(self) -> bool:
        """Whether the points are a grade: not where nothing could be run, unless it was decided."""
        decided = self.fixed is not None or self.excused
        return decided or self.report.status in ("graded", "stopped") or self.overridden

    @property
    def overridden(self) -> bool:
        """Whether somebody has decided on an exercise."""
        return any(part.outcome == "by the instructor" for part in self.parts)

    @property
    def most(self) -> float:
        """The most that this learner can have."""
        return sum(part.most for part in self.parts if not part.excused)

    @property
    def points(self) -> float:
        """The points in the end."""
        if self.fixed is not None:
            return self.fixed
        return max(0.0, self.before_penalty - self.penalty)

    @property
    def before_penalty(self) -> float:
        """The points of all parts."""
        return sum(part.points or 0.0 for part in self.parts if not part.excused)

    @property
    def open_parts(self) -> list[str]:
        """The parts that nobody has graded yet; none where there is nothing to grade."""
        nothing = self.report.status == "missing" and not self.overridden
        if nothing or self.excused or self.fixed is not None:
            return []
        return [part.name for part in self.parts if part.points is None and not part.excused]


def stand(
    attempts: Sequence[Attempt],
    assignment: Assignment | None,
    rules: Rules,
    overrides: Iterable[Override] = (),
) -> Standing:
    """Choose the attempt that counts, and apply what was decided."""
    each = [one(submission, report, assignment, rules) for submission, report in attempts]
    chosen = choose(each, rules)
    chosen.attempts = len(each)
    if len(each) > 1:
        texts = [f"{standing.submission.place}: {standing.points:g}" for standing in each[:10]]
        chosen.remarks.append(f"the {rules.attempts} of {len(each)} attempts ({'; '.join(texts)})")
    for override in overrides:
        apply(override, chosen)
    set_penalty(chosen, rules)
    return chosen


def choose(each: Sequence[Standing], rules: Rules) -> Standing:
    """The attempt that counts. A later one wins where two are equal."""
    usable = [standing for standing in each if standing.report.status != "not graded"] or each
    if rules.attempts == "last":
        return usable[-1]
    return max(reversed(usable), key=lambda standing: standing.points)


def one(
    submission: Submission, report: Report, assignment: Assignment | None, rules: Rules
) -> Standing:
    """What a single attempt is worth."""
    parts = [
        Part(grade.exercise, grade.points, grade.most, grade.outcome, grade.message)
        for grade in report.grades
    ]
    hand = [*(assignment.by_hand if assignment else ()), *rules.by_hand.items()]
    missing = report.status == "missing"
    if assignment and missing:  # what was handed in on paper is decided on part by part
        parts = [Part(test.exercise, None, test.points, "missing") for test in assignment.tests]
    if report.grades or missing:
        parts += [Part(name, None, most, "to be graded by hand") for name, most in hand]
    who = (submission.learner, submission.number)
    days = rules.days_late(submission.assignment, who, submission.handed_in)
    standing = Standing(submission, report, parts, days_late=days)
    set_penalty(standing, rules)
    return standing


def set_penalty(standing: Standing, rules: Rules) -> None:
    """A share of the points for each day."""
    share = min(1.0, standing.days_late * rules.late_percent_a_day / 100)
    standing.penalty = share * standing.before_penalty


def apply(override: Override, standing: Standing) -> None:
    """Let a decision stand in place of what was found, and beside what an earlier line decided."""
    if not override.exercise:
        standing.comment = override.comment or standing.comment
        standing.excused = override.excused or standing.excused
        standing.fixed = standing.fixed if override.points is None else override.points
        return
    for part in standing.parts:
        if part.name == override.exercise:
            part.comment = override.comment or part.comment
            part.excused = override.excused or part.excused
            if override.points is not None:
                part.points, part.outcome = override.points, "by the instructor"
            if part.excused:
                part.outcome = "excused"


def concerns(override: Override, submission: Submission) -> bool:
    """Whether a decision is about this learner and assignment."""
    names = {same_name(submission.learner), submission.number or same_name(submission.learner)}
    here = same_name(override.learner) in names or override.learner in names
    return here and override.assignment in ("", submission.assignment)


class Decisions:
    """The decisions of an instructor, found by learner: there may be thousands of both."""

    def __init__(self, overrides: Iterable[Override]) -> None:
        """Keep them in their order."""
        self.by_word: dict[str, list[Override]] = {}
        for each in overrides:
            for word in {each.learner, same_name(each.learner)}:
                self.by_word.setdefault(word, []).append(each)

    def on(self, submission: Submission) -> list[Override]:
        """Those on a learner and assignment."""
        words = {same_name(submission.learner), submission.number or same_name(submission.learner)}
        found = {each.line: each for word in words for each in self.by_word.get(word, ())}
        return [found[line] for line in sorted(found) if concerns(found[line], submission)]


def problems(
    overrides: Sequence[Override], standings: Iterable[Standing]
) -> Iterator[tuple[Override, str]]:
    """The decisions that have no effect, or cannot be meant so, and why."""
    decided, rows = Decisions(overrides), dict[int, list[Standing]]()
    for standing in standings:
        for override in decided.on(standing.submission):
            rows.setdefault(override.line, []).append(standing)
    for override in overrides:
        if why := problem(override, rows.get(override.line, [])):
            yield override, why


def problem(override: Override, mine: Sequence[Standing]) -> str:
    """Why a decision on these rows has no effect, or cannot be meant so; empty where it can."""
    if not mine:
        return f"nobody is called {override.learner!r}"
    if len(mine) > 1:
        return f"{override.learner!r} has {len(mine)} rows; name the assignment, or the number"
    parts = {part.name: part for part in mine[0].parts}
    if override.exercise and override.exercise not in parts:
        return f"there is no {override.exercise!r}; there are: {', '.join(parts)}"
    most = parts[override.exercise].most if override.exercise else mine[0].most
    if override.points is not None and override.points > most:
        return f"{override.points:g} points of at most {most:g}"
    return ""
