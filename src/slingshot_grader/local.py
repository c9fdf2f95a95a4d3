"""A submission graded on this machine: asked of an examiner, and its answer read with suspicion."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slingshot_grader.assignment import Assignment
from slingshot_grader.files import Submission
from slingshot_grader.outcome import Report, report_on
from slingshot_grader.pool import Job, LostError, Pool
from slingshot_grader.sandbox import Sandbox
from slingshot_grader.session import Limits


@dataclass(frozen=True)
class Local:
    """Grades with the examiners of a pool."""

    pool: Pool
    sandbox: Sandbox
    limits: Limits
    secrets: Sequence[Path] = ()

    def __call__(self, submission: Submission, assignment: Assignment) -> Report:
        """Return the report; raise ``LostError`` when there is none."""
        arguments = {
            "submission": submission,
            "assignment": assignment,
            "sandbox": self.sandbox,
            "limits": self.limits,
            "secrets": list(self.secrets),
        }
        clock = 2 * self.limits.total * self.limits.patience + 600
        answer = self.pool.ask(Job("examine", arguments, clock))
        try:
            report = report_on(assignment, answer.get("report"))
        except ValueError as error:
            raise LostError(f"the examiner answered what is no report: {error}") from error
        if not answer.get("whole"):
            report.remarks.append("the notebook is not shown: that would have taken too much")
        return report
