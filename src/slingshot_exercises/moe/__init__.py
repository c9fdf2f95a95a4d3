"""Checks of the assignment on mixture of experts: gate, balance, route and dispatch.

All tensors are float64, so that a bound on roundings is far below any mistake. Where experts are
chosen the inputs are drawn so that no two scores between which a choice is made lie close together:
a rounding cannot change who is chosen.
"""

from collections.abc import Callable

from slingshot_exercises.checking import Exercise
from slingshot_exercises.moe.balance_loss import (
    BALANCE_LOSS,
    BALANCE_LOSS_GRADIENT,
    check_balance_loss,
)
from slingshot_exercises.moe.dispatch import DISPATCH, check_dispatch
from slingshot_exercises.moe.gate import GATE, check_gate
from slingshot_exercises.moe.route import ROUTE, check_route
from slingshot_exercises.moe.update_bias import UPDATE_BIAS, check_update_bias

CHECKS: dict[str, Callable[..., str]] = {
    "gate": check_gate,
    "update_bias": check_update_bias,
    "balance_loss": check_balance_loss,
    "route": check_route,
    "dispatch": check_dispatch,
}
"""The exercises of the assignment in their order, each with its check."""

EXERCISES: tuple[Exercise, ...] = (
    GATE,
    UPDATE_BIAS,
    BALANCE_LOSS,
    BALANCE_LOSS_GRADIENT,
    ROUTE,
    DISPATCH,
)
"""The parts of the checks in the order in which they are tried; some exercises have several."""

__all__ = [
    "CHECKS",
    "EXERCISES",
    "check_balance_loss",
    "check_dispatch",
    "check_gate",
    "check_route",
    "check_update_bias",
]
