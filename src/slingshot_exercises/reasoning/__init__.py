"""Checks of the assignment on reasoning: advantages, scores, verifiers, KL, the loss, a data set.

All tensors are float64, so that a bound on roundings is far below any mistake. No ratio of the loss
lies close to where it is clipped: a rounding cannot change which side it is on.
"""

from collections.abc import Callable

from slingshot_exercises.checking import Exercise
from slingshot_exercises.reasoning.advantages import ADVANTAGES, check_advantages
from slingshot_exercises.reasoning.grpo_loss import GRPO_LOSS, GRPO_LOSS_GRADIENT, check_grpo_loss
from slingshot_exercises.reasoning.keep import KEEP, check_keep
from slingshot_exercises.reasoning.kl_estimates import KL_ESTIMATES, check_kl_estimates
from slingshot_exercises.reasoning.scores import SCORES, check_scores
from slingshot_exercises.reasoning.verify import VERIFY, check_verify

CHECKS: dict[str, Callable[..., str]] = {
    "advantages": check_advantages,
    "scores": check_scores,
    "verify": check_verify,
    "kl_estimates": check_kl_estimates,
    "grpo_loss": check_grpo_loss,
    "keep": check_keep,
}
"""The exercises of the assignment in their order, each with its check."""

EXERCISES: tuple[Exercise, ...] = (
    ADVANTAGES,
    SCORES,
    VERIFY,
    KL_ESTIMATES,
    GRPO_LOSS,
    GRPO_LOSS_GRADIENT,
    KEEP,
)
"""The parts of the checks in the order in which they are tried; some exercises have several."""

__all__ = [
    "CHECKS",
    "EXERCISES",
    "check_advantages",
    "check_grpo_loss",
    "check_keep",
    "check_kl_estimates",
    "check_scores",
    "check_verify",
]
