"""The experts: many small SwiGLU networks, of which a token runs through the few it was sent to."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot import require
from slingshot.layers import draw
from slingshot.moe.dispatch import Dispatch, sort_by_expert
from slingshot.moe.fast import run_experts
from slingshot.moe.hashing import HashRouter
from slingshot.moe.routing import Routing, TopKRouter
from slingshot.tensors import (
    at_least_float32,
    check_input,
    check_output,
    check_shapes,
    real,
    usable,
)


class Experts(nn.Module):
    """``n_experts`` SwiGLU networks packed in two tensors, and the dispatch of tokens to them.

    ``gate_up [E, 2 * d_expert, d_model]`` (gate half first) and ``down [E, d_model, d_expert]``.
    Called on ``x [T, d_model]``, integer ``experts [T, k]`` and ``weights [T, k]``, it returns
    ``[T, d_model]``: for each token the sum of its experts' outputs times their weights. No token
    is dropped, an expert without tokens costs nothing, and T may be 0.

    Under autocast it does what ``F.linear`` does: inputs and weights are cast to autocast's dtype,
    which is also that of the output. Below float32 a token's experts are summed in float32.

    Source: DeepSeek-V3, arXiv 2412.19437, eq. 12, the sum over routed experts.
    """

    def __init__(self, n_experts: int, d_model: int, d_expert: int) -> None:
        """Draw the weights; raise ``ValueError`` for a size below 1."""
        super().__init__()
        require.counts(n_experts=n_experts, d_model=d_model, d_expert=d_expert)
        self.gate_up = nn.Parameter(torch.empty(n_experts, 2 * d_expert, d_model))
        self.down = nn.Parameter(torch.empty(n_experts, d_model, d_expert))
        draw(self.gate_up, self.down)

    def forward(
        self,
        x: Float[Tensor, "T d"],
        experts: Integer[Tensor, "T k"],
        weights: Float[Tensor, "T k"],
    ) -> Float[Tensor, "T d"]:
        """Run each token through its experts.

        Raises ``ValueError`` when shapes or dtypes do not fit, an expert does not exist, or results
        are not finite.
        """
        n_experts, d_model = len(self.gate_up), self.down.shape[1]
        remedy = f"pass [tokens, {d_model}], [tokens, k] and [tokens, k] of one Routing"
        check_shapes(remedy, x=x, experts=experts, weights=weights)
        dispatch = sort_by_expert(experts, n_experts)
        x, weights = usable(x), real("weights", weights)
        x, weights, gate_up, down = _as_autocast_would(x, weights, self.gate_up, self.down)
        if x.dtype != down.dtype:
            raise ValueError(
                f"x has dtype {x.dtype} and the experts {down.dtype}; cast one with .to()"
            )
        # A small weight would vanish in half precision, though what it multiplies is large.
        weights = weights.to(torch.promote_types(x.dtype, torch.float32))
        inputs = (x, weights, gate_up, down, dispatch)
        output = run_experts(*inputs)
        if output is None:
            output = _one_after_another(*inputs)
        check_output(output, x)
        return output

    def extra_repr(self) -> str:
        """Return the sizes, for ``print(experts)``."""
        n_experts, d_model, d_expert = self.down.shape
        return f"n_experts={n_experts}, d_model={d_model}, d_expert={d_expert}"


def _one_after_another(
    x: Float[Tensor, "T d"],
    weights: Float[Tensor, "T k"],
    gate_up: Float[Tensor, "E 2*h d"],
    down: Float[Tensor, "E d h"],
    dispatch: Dispatch,
) -> Float[Tensor, "T d"]:
    """Mix the answers of all experts: what `Experts` does, in plain steps.

    The packed tensors are taken apart once, by ``unbind``, whose gradient is one tensor. The
    gradient of ``gate_up[e]`` would be zeros as large as the whole with one slice filled, for each
    of E experts anew.
    """
    shares = weights.flatten()[dispatch.pairs]
    gates_ups, downs = gate_up.unbind(0), down.unbind(0)
    # In at least float32: a bfloat16 sum would round once an expert.
    output = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
    for e, block in dispatch.blocks():
        rows = dispatch.tokens[block]
        gate, up = at_least_float32(x[rows] @ gates_ups[e].T).chunk(2, dim=-1)
        hidden = F.silu(gate) * up * shares[block, None]
        answer = hidden.to(x.dtype) @ downs[e].T
        output = output.index_add(0, rows, answer.to(output.dtype))
    return output.to(x.dtype)


class MixtureOutput(NamedTuple):
    """What a mixture layer returns: ``output`` of the shape of its input, and its ``routing``."""

    output: Tensor
    routing: Routing


class MoE(nn.Module):
    """A mixture-of-experts layer: a router, routed experts, and perhaps a shared expert.

    The shared expert sees every token. The residual is added by whoever calls. The routing is
    returned too, because balancing needs it: ``update_expert_bias`` its load, a balance loss its
    scores. Source: DeepSeekMoE, arXiv 2401.06066, eq. 9; DeepSeek-V3, arXiv 2412.19437, eq. 12.
    """

    def __init__(
        self,
        router: TopKRouter | HashRouter,
        experts: Experts,
        shared: nn.Module | None = None,
    ) -> None:
        """Put the parts together; raise ``ValueError`` when the router knows other experts."""
        super().__init__()
        n_experts, d_model, _ = experts.down.shape
        if (router.n_experts, router.d_model) != (n_experts, d_model):
            raise ValueError(
                f"the router chooses among {router.n_experts} experts of width {router.d_model}, "
                f"but there are {n_experts} of width {d_model}; give both the same sizes"
            )
        self.router = router
        self.experts = experts
        self.shared = shared

    def forward(
        self, x: Float[Tensor, "*T d"], tokens: Integer[Tensor, "*T"] | None = None
    ) -> MixtureOutput:
        """Mix the experts' answers for ``x [..., d_model]``; the routing has one row per token.

        ``tokens [...]`` are the ids of the tokens, which only a `HashRouter` looks at. Raises
        ``ValueError`` as the router and `Experts` do, and when a `HashRouter` gets no ids.
        """
        x = check_input(x, self.router.d_model)
        rows = x.reshape(-1, x.shape[-1])
        routing = route(self.router, rows, tokens)
        output = self.experts(rows, routing.experts, routing.weights).reshape(x.shape)
        if self.shared is not None:
            output = output + self.shared(x)
            check_output(output, x)
        return MixtureOutput(output, routing)


def route(
    router: TopKRouter | HashRouter,
    x: Float[Tensor, "T d"],
    tokens: Integer[Tensor, "*shape"] | None = None,
) -> Routing:
    """Route ``x [T, d_model]``, by the ids ``tokens`` of any shape where the router goes by them.

    Raises ``ValueError`` as the router does, and when a `HashRouter` gets no ids.
    """
    if isinstance(router, TopKRouter):
        routing: Routing = router(x)
        return routing
    if tokens is None:
        raise ValueError("the router goes by ids and got no tokens; pass the id of each row of x")
    routing = router(x, tokens.flatten())
    return routing


def _as_autocast_would(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast as autocast casts the inputs of ``F.linear``: nothing if it is off, never float64."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors
    )
