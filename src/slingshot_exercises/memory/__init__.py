"""Checks of the assignment on memory: a cache, absorbed and masked attention, drafts, machines.

Tensors are float64, so that a bound on roundings is far below any mistake. Where something is
chosen, inputs are drawn so that no rounding decides; ties are exact, and the statement says who
wins.
"""

from collections.abc import Callable

from slingshot_exercises.checking import Exercise
from slingshot_exercises.memory.absorbed_query import ABSORBED_QUERY, check_absorbed_query
from slingshot_exercises.memory.accept_draft import ACCEPT_DRAFT, check_accept_draft
from slingshot_exercises.memory.attend import ATTEND, check_attend
from slingshot_exercises.memory.cache_bytes import CACHE_BYTES, check_cache_bytes
from slingshot_exercises.memory.idle_share import IDLE_SHARE, check_idle_share
from slingshot_exercises.memory.place import PLACE, check_place

CHECKS: dict[str, Callable[..., str]] = {
    "cache_bytes": check_cache_bytes,
    "attend": check_attend,
    "absorbed_query": check_absorbed_query,
    "accept_draft": check_accept_draft,
    "place": check_place,
    "idle_share": check_idle_share,
}
"""The exercises of the assignment in their order, each with its check."""

EXERCISES: tuple[Exercise, ...] = (
    CACHE_BYTES,
    ATTEND,
    ABSORBED_QUERY,
    ACCEPT_DRAFT,
    PLACE,
    IDLE_SHARE,
)
"""The parts of the checks in the order in which they are tried."""

__all__ = [
    "CHECKS",
    "EXERCISES",
    "check_absorbed_query",
    "check_accept_draft",
    "check_attend",
    "check_cache_bytes",
    "check_idle_share",
    "check_place",
]
