"""Checks of the assignment on the claim: operations, hours, utilization, prices, memory, rules.

Every check calls the function with round cases, with the figures of DeepSeek-V3, and with cases
drawn from ``seed``. An answer may differ from ours by the roundings of two formulas and no more.
"""

from collections.abc import Callable

from slingshot_exercises.checking import Exercise
from slingshot_exercises.claim.conversation_price import (
    CONVERSATION_PRICE,
    check_conversation_price,
)
from slingshot_exercises.claim.conversations_that_fit import (
    CONVERSATIONS_THAT_FIT,
    check_conversations_that_fit,
)
from slingshot_exercises.claim.export_limit import EXPORT_LIMIT, check_export_limit
from slingshot_exercises.claim.run_time import RUN_TIME, check_run_time
from slingshot_exercises.claim.training_flops import TRAINING_FLOPS, check_training_flops
from slingshot_exercises.claim.utilization import UTILIZATION, check_utilization

CHECKS: dict[str, Callable[..., str]] = {
    "training_flops": check_training_flops,
    "run_time": check_run_time,
    "utilization": check_utilization,
    "conversation_price": check_conversation_price,
    "conversations_that_fit": check_conversations_that_fit,
    "export_limit": check_export_limit,
}
"""The exercises of the assignment in their order, each with its check."""

EXERCISES: tuple[Exercise, ...] = (
    TRAINING_FLOPS,
    RUN_TIME,
    UTILIZATION,
    CONVERSATION_PRICE,
    CONVERSATIONS_THAT_FIT,
    EXPORT_LIMIT,
)
"""The parts of the checks in the order in which they are tried; some exercises have several."""

__all__ = [
    "CHECKS",
    "EXERCISES",
    "check_conversation_price",
    "check_conversations_that_fit",
    "check_export_limit",
    "check_run_time",
    "check_training_flops",
    "check_utilization",
]
