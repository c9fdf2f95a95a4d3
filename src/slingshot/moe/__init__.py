"""Mixture of experts, one idea a module: who is asked, how they answer, and how the load is shared.

Read :mod:`slingshot.moe.routing` first, then :mod:`slingshot.moe.dispatch` and
:mod:`slingshot.moe.experts`, then :mod:`slingshot.moe.balance`. :mod:`slingshot.moe.hashing` is the
router that never learns whom to ask, and :mod:`slingshot.moe.fast` may be left out: it computes the
same in less time. All public names can be imported from here.
"""

from slingshot.layers import SwiGLU
from slingshot.moe.balance import (
    ExpertChoice,
    expert_choice,
    expert_load,
    load_balancing_loss,
    max_violation,
    router_z_loss,
    sequence_balance_loss,
    update_expert_bias,
)
from slingshot.moe.dispatch import Dispatch, sort_by_expert
from slingshot.moe.experts import Experts, MixtureOutput, MoE, route
from slingshot.moe.hashing import HashRouter, hash_table
from slingshot.moe.routing import (
    Routing,
    Score,
    TopKRouter,
    expert_scores,
    gate_weights,
    group_scores,
    mask_groups,
    router_logits,
    select_experts,
)

__all__ = [
    "Dispatch",
    "ExpertChoice",
    "Experts",
    "HashRouter",
    "MixtureOutput",
    "MoE",
    "Routing",
    "Score",
    "SwiGLU",
    "TopKRouter",
    "expert_choice",
    "expert_load",
    "expert_scores",
    "gate_weights",
    "group_scores",
    "hash_table",
    "load_balancing_loss",
    "mask_groups",
    "max_violation",
    "route",
    "router_logits",
    "router_z_loss",
    "select_experts",
    "sequence_balance_loss",
    "sort_by_expert",
    "update_expert_bias",
]
