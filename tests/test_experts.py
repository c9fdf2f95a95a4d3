"""The mixture layer against transformers' layer, a plain loop, and finite differences."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

from slingshot.layers import SwiGLU
from slingshot.moe import Experts, MoE, TopKRouter, fast
from slingshot.moe import experts as experts_module
from slingshot.moe.dispatch import sort_by_expert

# Two float32 sums of n products in different orders differ by at most about n * 2^-24 of the sum
# of magnitudes; n is at most 2 * 64 here, and the layer chains two such sums: below 1e-5.
RELATIVE = 1e-5


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    """Compare relative to the largest entry, which is what the bound above is about."""
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=0, atol=RELATIVE * theirs.abs().max().item())


def run_naively(module: Experts, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    """One token after the other, one expert after the other."""
    rows = []
    for token, chosen, shares in zip(x, experts, weights, strict=True):
        total = torch.zeros_like(token)
        for expert, share in zip(chosen.tolist(), shares, strict=True):
            gate, up = (module.gate_up[expert] @ token).chunk(2)
            total = total + share * (module.down[expert] @ (F.silu(gate) * up))
        rows.append(total)
    return torch.stack(rows) if rows else torch.zeros_like(x)


def make_case(
    n_tokens: int, n_experts: int, top_k: int, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Experts, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    module = Experts(n_experts, d_model=12, d_expert=8).to(dtype)
    x = torch.randn(n_tokens, 12, dtype=dtype, requires_grad=True)
    experts = torch.rand(n_tokens, n_experts).topk(top_k).indices
    weights = torch.rand(n_tokens, top_k, dtype=dtype, requires_grad=True)
    return module, x, experts, weights


def gradients(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    seed = torch.Generator().manual_seed(1)
    return torch.autograd.grad(output, inputs, torch.randn(output.shape, generator=seed))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    n_tokens=st.integers(1, 40),
    n_experts=st.integers(1, 12),
    data=st.data(),
    seed=st.integers(0, 99),
)
def test_it_equals_a_loop_and_so_do_its_gradients(
    n_tokens: int, n_experts: int, data: st.DataObject, seed: int
) -> None:
    top_k = data.draw(st.integers(1, n_experts))
    module, x, experts, weights = make_case(n_tokens, n_experts, top_k, seed)
    inputs = (x, weights, module.gate_up, module.down)
    ours, loop = module(x, experts, weights), run_naively(module, x, experts, weights)
    assert_equal(ours, loop)
    for mine, theirs in zip(gradients(ours, *inputs), gradients(loop, *inputs), strict=True):
        assert_equal(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_plain_loop_and_the_fast_path_agree(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, x, experts, weights = make_case(40, 6, 2, dtype=dtype)
    inputs = (x, weights, module.gate_up, module.down)
    fast = module(x, experts, weights)
    monkeypatch.setattr(experts_module, "run_experts", lambda *_: None)
    plain = module(x, experts, weights)
    # A term rounds a few times on its way, in another order here; bfloat16 keeps 8 bits.
    relative = {torch.float64: 1e-14, torch.float32: RELATIVE, torch.bfloat16: 2**-6}[dtype]
    everything = zip(
        (fast, *gradients(fast.double(), *inputs)),
        (plain, *gradients(plain.double(), *inputs)),
        strict=True,
    )
    for mine, other in everything:
        bound = relative * other.abs().max().item()
        torch.testing.assert_close(mine, other, rtol=0, atol=bound)


def test_derivatives_forward_are_those_backward() -> None:
    # The fast path has none, and hands over to the loop: <g, J v> must be <J^T g, v>.
    module, x, experts, weights = make_case(5, 4, 2, dtype=torch.float64)
    direction = torch.randn(5, 12, dtype=torch.float64)
    ad: Any = forward_ad
    with ad.dual_level():
        output = module(ad.make_dual(x.detach(), direction), experts, weights)
        tangent = ad.unpack_dual(output).tangent
    assert tangent is not None
    upward = torch.randn(5, 12, dtype=torch.float64)
    (grad,) = torch.autograd.grad(module(x, experts, weights), x, upward)
    torch.testing.assert_close((upward * tangent).sum(), (grad * direction).sum())


@pytest.mark.slow
def test_the_gradients_are_those_of_finite_differences() -> None:
    module, x, experts, weights = make_case(5, 4, 2, dtype=torch.float64)

    def run(x: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        parameters = {"gate_up": gate_up, "down": down}
        output: Tensor = torch.func.functional_call(module, parameters, (x, experts, weights))
        return output

    inputs = (x, weights, module.gate_up, module.down)
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("n_tokens", [1, 2, 33])
def test_all_tokens_may_choose_one_expert(n_tokens: int) -> None:
    module, x, _, _ = make_case(n_tokens, 8, 1)
    experts, weights = torch.full((n_tokens, 1), 5), torch.ones(n_tokens, 1)
    output = module(x, experts, weights)
    assert_equal(output, run_naively(module, x, experts, weights))
    grad_gate_up, grad_down = gradients(output, module.gate_up, module.down)
    for gradient in (grad_gate_up, grad_down):
        assert gradient[5].abs().sum() > 0
        assert torch.equal(
            gradient[[e for e in range(8) if e != 5]], torch.zeros_like(gradient[1:])
        )


def test_an_expert_chosen_twice_by_a_token_counts_twice() -> None:
    module, x, _, _ = make_case(6, 4, 2)
    experts, weights = torch.full((6, 2), 3), torch.rand(6, 2)
    assert_equal(module(x, experts, weights), run_naively(module, x, experts, weights))


def test_no_tokens_give_no_output_and_zero_gradients() -> None:
    module, _, _, _ = make_case(1, 4, 2)
    x = torch.zeros(0, 12, requires_grad=True)
    output = module(x, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2))
    assert output.shape == (0, 12)
    output.sum().backward()
    assert module.down.grad is not None
    assert torch.equal(module.down.grad, torch.zeros_like(module.down))


def test_one_expert_chosen_by_all_is_a_dense_network() -> None:
    module, x, _, _ = make_case(9, 1, 1)
    dense = SwiGLU(12, 8)
    dense.load_state_dict({"gate_up.weight": module.gate_up[0], "down.weight": module.down[0]})
    output = module(x, torch.zeros(9, 1, dtype=torch.int64), torch.ones(9, 1))
    assert_equal(output, dense(x))


# --- other number formats -----------------------------------------------------------------------

# bfloat16 keeps 8 bits, so one rounding is off by at most 2^-9 of the value. From x and the
# matrices to an output or a gradient there are fewer than 16 roundings, one after the other.
RELATIVE_BFLOAT16 = 2**-5


def assert_close_in_bfloat16(ours: Tensor, exact: Tensor) -> None:
    limit = RELATIVE_BFLOAT16 * exact.abs().max().item()
    torch.testing.assert_close(ours.float(), exact, rtol=0, atol=limit)


def test_under_autocast_the_experts_do_what_a_linear_layer_does() -> None:
    module, x, experts, weights = make_case(30, 6, 3)
    inputs = (x, weights, module.gate_up, module.down)
    exact = module(x, experts, weights)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(x, experts, weights)
        assert output.dtype == F.linear(x, module.gate_up[0]).dtype == torch.bfloat16
    by_hand = deepcopy(module).bfloat16()(x.bfloat16(), experts, weights.bfloat16())
    assert torch.equal(output, by_hand)
    assert_close_in_bfloat16(output, exact)
    for ours, theirs in zip(gradients(output, *inputs), gradients(exact, *inputs), strict=True):
        assert ours.dtype == torch.float32
        assert_close_in_bfloat16(ours, theirs)


@pytest.mark.parametrize(("forward", "backward"), [(True, True), (True, False), (False, True)])
def test_autocast_may_differ_between_forward_and_backward(forward: bool, backward: bool) -> None:
    module, x, experts, weights = make_case(30, 6, 3)
    inputs = (x, weights, module.gate_up, module.down)
    exact = gradients(module(x, experts, weights), *inputs)
    with torch.autocast("cpu", torch.bfloat16, enabled=forward):
        output = module(x, experts, weights)
    with torch.autocast("cpu", torch.bfloat16, enabled=backward):
        found = gradients(output, *inputs)
    for ours, theirs in zip(found, exact, strict=True):
        (assert_close_in_bfloat16 if forward else assert_equal)(ours, theirs)


def test_autocast_leaves_float64_alone() -> None:
    module, x, experts, weights = make_case(5, 4, 2, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(x, experts, weights)
    assert torch.equal(output, module(x, experts, weights))


def test_a_bfloat16_sum_over_experts_rounds_once() -> None:
    module, x, _, _ = make_case(1, 64, 1)
    module, x = module.bfloat16(), x.detach().bfloat16()
    with torch.no_grad():
        module.gate_up.copy_(module.gate_up[0].clone())
        module.down.copy_(module.down[0].clone())
    once = module(x, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1))
    mean = module(x, torch.arange(64)[None], torch.full((1, 64), 1 / 64))
    # 1/64 of each is exact, and so is their float32 sum; in bfloat16 the 64 additions drift.
    assert torch.equal(mean, once)


# --- memory -------------------------------------------------------------------------------------


class Results(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The shapes of all new tensors that operations inside return; views are not new."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes: list[torch.Size] = []
        self.calls = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 torch's own signature
        types: Any,  # noqa: ANN401
        args: Any = (),  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        self.calls += 1
        result = func(*args, **(kwargs or {}))
        if func._schema.is_mutable or not isinstance(result, Tensor):
            return result
        if not any(argument.alias_info for argument in func._schema.returns):
            self.shapes.append(result.shape)
        return result


def test_without_gradients_nothing_is_kept_for_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    n_tokens, n_experts, top_k = 400, 16, 8
    module, x, experts, weights = make_case(n_tokens, n_experts, top_k)
    monkeypatch.setattr(fast, "_TOGETHER", x.numel())
    hidden = torch.Size([n_tokens * top_k, module.gate_up.shape[1]])
    with torch.no_grad(), Results() as inference:
        module(x, experts, weights)
    with Results() as training:
        module(x, experts, weights)
    assert hidden in training.shapes
    assert max(shape.numel() for shape in inference.shapes) == x.numel()


@pytest.mark.parametrize("together", [0, 300, 1 << 20])
def test_experts_together_are_experts_apart(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, and with as many products: only the calls around them are fewer."""
    module, x, experts, weights = make_case(24, 16, 3)
    experts = experts // 2  # the last ones are asked by nobody, and some twice by one token
    monkeypatch.setattr(fast, "_TOGETHER", 0)
    expected = module(x, experts, weights)
    gradient = gradients(expected, x, module.gate_up, module.down)
    with torch.no_grad(), Results() as apart:
        module(x, experts, weights)
    monkeypatch.setattr(fast, "_TOGETHER", together)
    output = module(x, experts, weights)
    assert torch.equal(output, expected)
    for one, other in zip(gradients(output, x, module.gate_up, module.down), gradient, strict=True):
        assert torch.equal(one, other)
    with torch.no_grad(), Results() as grouped:
        assert torch.equal(module(x, experts, weights), expected)
    assert (grouped.calls < apart.calls) == (together > 0)


@pytest.mark.parametrize("n_pairs", [0, 1, 5, 20, 1000])
def test_groups_are_neighbors_that_fit_together(n_pairs: int) -> None:
    generator = torch.Generator().manual_seed(n_pairs)
    dispatch = sort_by_expert(torch.randint(0, 9, (30, 2), generator=generator) * 2, 20)
    groups = dispatch.groups(n_pairs)
    assert [block for group in groups for block in group] == dispatch.blocks()
    spans = [group[-1][1].stop - group[0][1].start for group in groups]
    for group, span in zip(groups, spans, strict=True):
        assert len(group) == 1 or span <= n_pairs
    for group, span, after in zip(groups, spans, groups[1:], strict=False):
        first = after[0][1]
        assert span + first.stop - first.start > n_pairs, group
    assert sort_by_expert(torch.zeros(0, 2, dtype=torch.int64), 3).groups(n_pairs) == []


def test_backward_allocates_no_second_copy_of_the_gradients() -> None:
    module, x, experts, weights = make_case(8, 16, 2)
    output = module(x, experts, weights)
    with Results() as backward:
        gradients(output, module.gate_up, module.down)
    assert backward.shapes.count(module.gate_up.shape) == 1
    assert backward.shapes.count(module.down.shape) == 1


# --- against transformers ----------------------------------------------------------------------


def reference(config: dict[str, int]) -> Any:  # noqa: ANN401 transformers' modules are untyped inside
    sizes: dict[str, Any] = config | {
        "hidden_size": 32,
        "moe_intermediate_size": 16,
        "n_shared_experts": 1,
    }
    torch.manual_seed(0)
    layer = DeepseekV3MoE(DeepseekV3Config(**sizes))
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.2)
    return layer


def copy_of(layer: Any, config: dict[str, int]) -> MoE:  # noqa: ANN401
    """Our layer with the reference's weights."""
    n_experts, top_k = config["n_routed_experts"], config["num_experts_per_tok"]
    router = TopKRouter(
        32,
        n_experts,
        top_k,
        n_groups=config["n_group"],
        topk_groups=config["topk_group"],
        route_scale=2.5,
    )
    ours = MoE(router, Experts(n_experts, 32, 16), SwiGLU(32, 16))
    theirs = layer.state_dict()
    shared = ("shared_experts.gate_proj.weight", "shared_experts.up_proj.weight")
    ours.load_state_dict(
        {
            "router.weight": theirs["gate.weight"],
            "router.expert_bias": theirs["gate.e_score_correction_bias"],
            "experts.gate_up": theirs["experts.gate_up_proj"],
            "experts.down": theirs["experts.down_proj"],
            "shared.gate_up.weight": torch.cat([theirs[name] for name in shared]),
            "shared.down.weight": theirs["shared_experts.down_proj.weight"],
        }
    )
    return ours


@pytest.mark.parametrize(
    ("n_experts", "top_k", "n_groups", "topk_groups"),
    [(8, 2, 1, 1), (32, 4, 4, 2), (64, 8, 8, 4), (16, 6, 2, 1)],
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 50)])
def test_the_layer_equals_transformers(
    n_experts: int, top_k: int, n_groups: int, topk_groups: int, shape: tuple[int, int]
) -> None:
    config = {
        "n_routed_experts": n_experts,
        "num_experts_per_tok": top_k,
        "n_group": n_groups,
        "topk_group": topk_groups,
    }
    theirs = reference(config)
    ours = copy_of(theirs, config)
    x = torch.randn(*shape, 32, generator=torch.Generator().manual_seed(2), requires_grad=True)
    output, expected = ours(x).output, theirs(x)
    assert_equal(output, expected)
    pairs = [
        (x, x),
        (ours.router.weight, theirs.gate.weight),
        (ours.experts.gate_up, theirs.experts.gate_up_proj),
        (ours.experts.down, theirs.experts.down_proj),
    ]
    mine = gradients(output, *(pair[0] for pair in pairs))
    others = gradients(expected, *(pair[1] for pair in pairs))
    for own, other in zip(mine, others, strict=True):
        assert_equal(own, other)


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 11)}, r"x has shape \(3, 11\), .*; pass \[tokens, 12\]"),
        ({"x": torch.zeros(1, 3, 12)}, r"x has shape \(1, 3, 12\)"),
        (
            {"experts": torch.zeros(2, 2, dtype=torch.int64)},
            r"x has shape \(3, 12\), experts \(2, 2\) .* of one Routing",
        ),
        ({"experts": torch.zeros(3, 2)}, "dtype torch.float32"),
        ({"experts": torch.tensor([[0, 1], [0, 4], [0, 1]])}, "expert 4 is not within 0 to 3"),
        ({"experts": torch.tensor([[0, 1], [0, -1], [0, 1]])}, "expert -1 is not within 0 to 3"),
        ({"x": torch.zeros(3, 12).double()}, "x has dtype torch.float64 and the experts .*float32"),
        ({"weights": torch.zeros(3, 1)}, r"experts \(3, 2\) and weights \(3, 1\); pass"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor], message: str) -> None:
    module, x, experts, weights = make_case(3, 4, 2)
    arguments = {"x": x, "experts": experts, "weights": weights} | change
    with pytest.raises(ValueError, match=message):
        module(**arguments)


def test_sizes_are_checked() -> None:
    for sizes in ((0, 4, 4), (2, 0, 4), (2, 4, 0)):
        with pytest.raises(ValueError, match="is 0; give a whole number, at least 1"):
            Experts(*sizes)
    with pytest.raises(ValueError, match=r"8 experts of width 4.*6 of width 4"):
        MoE(TopKRouter(4, 8, 2), Experts(6, 4, 4))
    assert "n_experts=6, d_model=4, d_expert=5" in repr(Experts(6, 4, 5))
