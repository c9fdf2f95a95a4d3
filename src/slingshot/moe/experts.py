"""The experts: many small SwiGLU networks, of which each token runs through the few it was sent to.

The work is dense matrix multiplication once the tokens of one expert stand together. So the layer
sorts the (token, expert) pairs by expert, once, and hands each expert its rows as one block.
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from slingshot.moe.hashing import HashRouter
from slingshot.moe.routing import Routing, TopKRouter
from slingshot.tensors import (
    at_least_float32,
    check_input,
    check_output,
    check_within,
    usable,
    whole,
)

# The derivative that autograd itself uses for F.silu, in one pass over memory. torch gives it no
# public name, as it does for that of no activation.
_silu_backward = torch.ops.aten.silu_backward.grad_input


class SwiGLU(nn.Module):
    """One gated feed-forward network, ``down(silu(gate(x)) * up(x))``: dense, or a shared expert.

    Two linear layers: ``gate_up.weight [2 * d_hidden, d_model]``, the gate in its first half, and
    ``down.weight [d_model, d_hidden]``. Called on ``x [..., d_model]``. Source: Shazeer,
    arXiv 2002.05202, eq. 6.
    """

    d_model: int

    def __init__(self, d_model: int, d_hidden: int) -> None:
        """Draw the weights; raise ``ValueError`` for a size below 1."""
        super().__init__()
        _check_sizes(d_model=d_model, d_hidden=d_hidden)
        self.d_model = d_model
        self.gate_up = _undrawn_linear(d_model, 2 * d_hidden)
        self.down = _undrawn_linear(d_hidden, d_model)
        _draw(self.gate_up.weight, self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of ``x [..., d_model]``.

        Raises ``ValueError`` for an ``x`` of another width or type, and for results that are not
        finite.
        """
        x = check_input(x, self.d_model, self.gate_up)
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        output: Tensor = self.down(F.silu(gate) * up)
        check_output(output, x)
        return output


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
        _check_sizes(n_experts=n_experts, d_model=d_model, d_expert=d_expert)
        self.gate_up = nn.Parameter(torch.empty(n_experts, 2 * d_expert, d_model))
        self.down = nn.Parameter(torch.empty(n_experts, d_model, d_expert))
        _draw(self.gate_up, self.down)

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """Run each token through its experts.

        Raises ``ValueError`` when shapes or dtypes do not fit, an expert does not exist, or results
        are not finite.
        """
        n_experts, d_model = len(self.gate_up), self.down.shape[1]
        _check_routed(x, experts, weights, d_model)
        dispatch = sort_by_expert(experts, n_experts)
        x, weights = usable(x), usable(weights)
        x, weights, gate_up, down = _as_autocast_would(x, weights, self.gate_up, self.down)
        if x.dtype != down.dtype:
            raise ValueError(
                f"x has dtype {x.dtype} and the experts {down.dtype}; cast one with .to()"
            )
        # A small weight would vanish in half precision, though what it multiplies is large.
        weights = weights.to(torch.promote_types(x.dtype, torch.float32))
        inputs = (x, weights, gate_up, down, dispatch)
        output: Tensor
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs[:4]):
            output = _RunExperts.apply(*inputs)  # type: ignore[no-untyped-call]
        else:
            output = _mix(*inputs)
        check_output(output, x)
        return output

    def extra_repr(self) -> str:
        """Return the sizes, for ``print(experts)``."""
        n_experts, d_model, d_expert = self.down.shape
        return f"n_experts={n_experts}, d_model={d_model}, d_expert={d_expert}"


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

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> MixtureOutput:
        """Mix the experts' answers for ``x [..., d_model]``; the routing has one row per token.

        ``tokens [...]`` are the ids of the tokens, which only a `HashRouter` looks at. Raises
        ``ValueError`` as the router and `Experts` do, and when a `HashRouter` gets no ids.
        """
        x = check_input(x, self.router.d_model)
        rows = x.reshape(-1, x.shape[-1])
        if isinstance(self.router, TopKRouter):
            routing = self.router(rows)
        elif tokens is None:
            raise ValueError(
                "the router goes by the token and got none; pass tokens of x.shape[:-1]"
            )
        else:
            routing = self.router(rows, tokens.flatten())
        output = self.experts(rows, routing.experts, routing.weights).reshape(x.shape)
        if self.shared is not None:
            output = output + self.shared(x)
            check_output(output, x)
        return MixtureOutput(output, routing)


class Dispatch(NamedTuple):
    """The (token, choice) pairs in the order of their experts.

    ``pairs [T * k]`` int64 are indices into the flattened choices, ``tokens [T * k]`` int64 the
    rows of x that they stand for, and ``bounds`` the E + 1 places where one expert's pairs end and
    the next one's begin.
    """

    pairs: Tensor
    tokens: Tensor
    bounds: list[int]


def sort_by_expert(experts: Tensor, n_experts: int) -> Dispatch:
    """Sort ``experts [T, k]`` once, so that the tokens of each expert are one slice.

    Raises ``ValueError`` unless they are integers from 0 to ``n_experts - 1`` in two dimensions.
    """
    _check_sizes(n_experts=n_experts)
    experts = whole("experts", experts, "pass Routing.experts of the same tokens")
    if experts.ndim != 2:
        raise ValueError(f"experts has shape {tuple(experts.shape)}; pass [T, k]")
    check_within("expert", experts, n_experts, "route among the experts that there are")
    flat = experts.flatten()
    # Stable, so that an expert meets its tokens in their own order: gathers then run forward
    # through memory, and sums come out the same on every run.
    pairs = flat.argsort(stable=True)
    bounds = [0, *flat.bincount(minlength=n_experts).cumsum(0).tolist()]
    return Dispatch(pairs, pairs // max(1, experts.shape[1]), bounds)


class _RunExperts(torch.autograd.Function):
    """Forward and backward of all experts, block by block.

    Written by hand for one reason. Autograd sees ``gate_up[e]`` as an index into a large tensor,
    and the gradient of an index is a tensor of zeros as large as the whole with one slice filled:
    E experts, E such tensors. Here each expert's gradient is written into its slice of one tensor.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 torch's own context object has no public type
        x: Tensor,
        weights: Tensor,
        gate_up: Tensor,
        down: Tensor,
        dispatch: Dispatch,
    ) -> Tensor:
        hidden = x.new_empty(len(dispatch.pairs), gate_up.shape[1])
        ctx.save_for_backward(x, weights, gate_up, down, hidden)
        ctx.dispatch = dispatch
        return _mix(x, weights, gate_up, down, dispatch, hidden)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 as above
        grad_output: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        # Whoever calls backward may do so within autocast, whatever forward was called in.
        with torch.autocast(grad_output.device.type, enabled=False):
            x, weights, gate_up, down, hidden = ctx.saved_tensors
            return *_unmix(grad_output, x, weights, gate_up, down, ctx.dispatch, hidden), None


def _mix(
    x: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    dispatch: Dispatch,
    hidden: Tensor | None = None,
) -> Tensor:
    """Run the experts; leave in ``hidden [T * k, 2 * d_expert]``, if given, what backward needs."""
    ordered = weights.flatten().index_select(0, dispatch.pairs)
    output = _zeros_to_add_to(x)
    # All experts use the same two buffers in turn, so that these stay in the processor's cache.
    wide, middle = _scratch(dispatch, x, gate_up)
    for e, block in _blocks(dispatch):
        rows = dispatch.tokens[block]
        wide_rows = wide[: len(rows)]
        hidden_rows = middle[: len(rows)] if hidden is None else hidden[block]
        # index_select(0, rows) is x[rows], and about three times as fast.
        torch.index_select(x, 0, rows, out=wide_rows)
        gate, up = torch.mm(wide_rows, gate_up[e].T, out=hidden_rows).chunk(2, dim=-1)
        # The weight is applied to the narrow hidden row and not to the wide output: less to do. The
        # product of gate and up may be too large for half precision, and is not with its weight.
        gate, up = at_least_float32(gate), at_least_float32(up)
        narrow = F.silu(gate, inplace=hidden is None).mul_(up).mul_(ordered[block, None])
        torch.mm(narrow.to(x.dtype), down[e].T, out=wide_rows)
        output.index_add_(0, rows, wide_rows.to(output.dtype))
    return output.to(x.dtype)


def _unmix(
    grad_output: Tensor,
    x: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    dispatch: Dispatch,
    hidden: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of `_mix` by x, weights, gate_up and down, in their shapes."""
    ordered = weights.flatten().index_select(0, dispatch.pairs)
    grad_x, grad_ordered = _zeros_to_add_to(x), torch.empty_like(ordered)
    grad_gate_up, grad_down = torch.empty_like(gate_up), torch.empty_like(down)
    for e in _without_tokens(dispatch):
        grad_gate_up[e].zero_()
        grad_down[e].zero_()
    wide, middle = _scratch(dispatch, x, gate_up)
    for e, block in _blocks(dispatch):
        rows, weight = dispatch.tokens[block], ordered[block, None]
        # wide_rows holds the outputs' gradients, then the tokens, then the tokens' gradients.
        wide_rows, grad_hidden = wide[: len(rows)], middle[: len(rows)]
        gate, up = at_least_float32(hidden[block]).chunk(2, dim=-1)
        grad_hidden = at_least_float32(grad_hidden)
        grad_gate, grad_up = grad_hidden.chunk(2, dim=-1)
        silu = F.silu(gate)
        narrow = silu * up
        torch.index_select(grad_output, 0, rows, out=wide_rows)
        grad_narrow = at_least_float32(wide_rows @ down[e])
        torch.sum(grad_narrow * narrow, dim=-1, out=grad_ordered[block])
        torch.mm(wide_rows.T, narrow.mul_(weight).to(x.dtype), out=grad_down[e])
        grad_narrow.mul_(weight)
        torch.mul(grad_narrow, silu, out=grad_up)
        _silu_backward(grad_narrow.mul_(up), gate, grad_input=grad_gate)
        torch.index_select(x, 0, rows, out=wide_rows)
        grad_hidden = grad_hidden.to(x.dtype)
        torch.mm(grad_hidden.T, wide_rows, out=grad_gate_up[e])
        torch.mm(grad_hidden, gate_up[e], out=wide_rows)
        grad_x.index_add_(0, rows, wide_rows.to(grad_x.dtype))
    grad_weights = torch.empty_like(ordered)
    grad_weights[dispatch.pairs] = grad_ordered
    return grad_x.to(x.dtype), grad_weights.view_as(weights), grad_gate_up, grad_down


def _scratch(dispatch: Dispatch, x: Tensor, gate_up: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the rows of the busiest expert, ``[most, d_model]`` and ``[most, 2 * d_expert]``."""
    most = max(end - start for start, end in pairwise(dispatch.bounds))
    return x.new_empty(most, x.shape[1]), x.new_empty(most, gate_up.shape[1])


def _zeros_to_add_to(x: Tensor) -> Tensor:
    """Zeros of the shape of x, in at least float32: a bfloat16 sum would round once an expert."""
    return torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))


def _as_autocast_would(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast as autocast casts the inputs of ``F.linear``: nothing if it is off, never float64."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors
    )


def _blocks(dispatch: Dispatch) -> list[tuple[int, slice]]:
    """The experts that have tokens, each with the slice of its pairs."""
    ends = enumerate(pairwise(dispatch.bounds))
    return [(e, slice(start, end)) for e, (start, end) in ends if start < end]


def _without_tokens(dispatch: Dispatch) -> list[int]:
    return [e for e, (start, end) in enumerate(pairwise(dispatch.bounds)) if start == end]


def _undrawn_linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer without bias whose weight is not drawn yet; random numbers are kept."""
    layer: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Linear, inputs, outputs, bias=False
    )
    return layer


def _draw(gate_up: Tensor, down: Tensor) -> None:
    """Draw each matrix with std 1 / √(its inputs), so that outputs are about as large as inputs."""
    nn.init.normal_(gate_up, std=1 / math.sqrt(gate_up.shape[-1]))
    nn.init.normal_(down, std=1 / math.sqrt(down.shape[-1]))


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; give at least 1")


def _check_routed(x: Tensor, experts: Tensor, weights: Tensor, d_model: int) -> None:
    """Raise ``ValueError`` unless tokens, choices and weights belong together."""
    if x.ndim != 2 or x.shape[1] != d_model:
        raise ValueError(f"x has shape {tuple(x.shape)}; pass [tokens, {d_model}]")
    if experts.ndim != 2 or len(experts) != len(x):
        raise ValueError(
            f"experts has shape {tuple(experts.shape)} for {len(x)} tokens; "
            "pass Routing.experts of the same tokens"
        )
    if not weights.is_floating_point():
        raise ValueError(f"weights has dtype {weights.dtype}; pass Routing.weights")
    if weights.shape != experts.shape:
        raise ValueError(
            f"weights has shape {tuple(weights.shape)} and experts {tuple(experts.shape)}; "
            "pass both of one Routing"
        )
