"""The router against two references, its properties, and every argument that it refuses."""

import collections
import importlib
import math
from random import Random
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import DeepseekV2Config, DeepseekV3Config, MixtralConfig
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter

from slingshot import moe
from slingshot.moe import Routing, Score, TopKRouter

D_MODEL = 16

# (n_experts, top_k, n_groups, topk_groups); transformers needs two experts in every group.
SETTINGS = [
    (2, 1, 1, 1),
    (8, 2, 1, 1),
    (16, 16, 1, 1),
    (16, 4, 2, 1),
    (16, 4, 2, 2),
    (32, 6, 4, 2),
    (32, 8, 4, 1),
    (16, 4, 8, 4),
    (64, 8, 8, 1),
    (64, 8, 8, 8),
    (160, 6, 8, 3),
    (256, 8, 8, 4),
]
BIASES = ["zero", "step", "minus 2", "minus 10", "mixed", "favorite group"]

# Tokens whose decision is closer than this are not compared, since a tie has no right answer. The
# worst case here is a bias of -10: float32 holds a biased score to 5e-7 and the sum of two, near
# -20, to 1e-6 more, so two group scores may be wrong by 4e-6 against each other.
MARGIN = 1e-5


class Plain(NamedTuple):
    """What the plain-Python router says about one token."""

    experts: list[int]
    weights: list[float]
    margin: float


def plain_scores(token: list[float], weight: list[list[float]], score: str) -> list[float]:
    logits = [sum(a * b for a, b in zip(token, row, strict=True)) for row in weight]
    if score == "sigmoid":
        return [1 / (1 + math.exp(-logit)) for logit in logits]
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


def plain_best(values: dict[int, float], count: int) -> tuple[list[int], float]:
    """Return the keys of the ``count`` largest values and the gap to the best one left out."""
    order = sorted(values, key=lambda key: values[key], reverse=True)
    gap = values[order[count - 1]] - values[order[count]] if count < len(order) else math.inf
    return order[:count], gap


def plain_routing(x: Tensor, router: TopKRouter) -> list[Plain]:
    """Route ``x`` with loops over Python floats, from the paper's equations."""
    weight, bias = router.weight.tolist(), router.expert_bias.tolist()
    size = router.n_experts // router.n_groups
    answers = []
    for token in x.tolist():
        scores = plain_scores(token, weight, router.score)
        biased = {i: s + b for i, (s, b) in enumerate(zip(scores, bias, strict=True))}
        margin = math.inf
        if router.n_groups > 1:
            members = {g: range(g * size, (g + 1) * size) for g in range(router.n_groups)}
            totals = {g: sum(sorted(biased[i] for i in members[g])[-2:]) for g in members}
            groups, margin = plain_best(totals, router.topk_groups)
            biased = {i: biased[i] for g in groups for i in members[g]}
        experts, gap = plain_best(biased, router.top_k)
        total = sum(scores[i] for i in experts) if router.normalize else 1.0
        weights = [scores[i] / total * router.route_scale for i in experts]
        answers.append(Plain(experts, weights, min(margin, gap)))
    return answers


def dense(weights: Tensor, experts: Tensor, n_experts: int) -> Tensor:
    """Spread the weights over ``[T, E]``, so that the order of the experts does not matter."""
    return torch.zeros(len(weights), n_experts).scatter(1, experts, weights)


def make_bias(kind: str, n_experts: int, n_groups: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(n_experts, generator=generator)
    if kind == "favorite group":
        noise[: n_experts // n_groups] += 3.0
        return noise
    return {
        "zero": torch.zeros(n_experts),
        "step": 0.001 * noise.sign(),
        "minus 2": 0.1 * noise - 2,
        "minus 10": 0.1 * noise - 10,
        "mixed": 2 * noise - 1,
    }[kind]


def make_case(
    setting: tuple[int, int, int, int],
    kind: str,
    n_tokens: int = 40,
    *,
    score: Score = "sigmoid",
    normalize: bool = True,
    route_scale: float = 1.0,
) -> tuple[TopKRouter, Tensor]:
    """Return a router with logits of spread 1 and tokens for it, the same at every call."""
    n_experts, top_k, n_groups, topk_groups = setting
    router = TopKRouter(
        D_MODEL,
        n_experts,
        top_k,
        score=score,
        n_groups=n_groups,
        topk_groups=topk_groups,
        normalize=normalize,
        route_scale=route_scale,
    )
    generator = torch.Generator().manual_seed(n_experts * 100 + top_k + BIASES.index(kind))
    with torch.no_grad():
        router.weight.normal_(std=D_MODEL**-0.5, generator=generator)
        router.expert_bias.copy_(make_bias(kind, n_experts, n_groups, generator))
    return router, torch.randn(n_tokens, D_MODEL, generator=generator)


def compared(answers: list[Plain]) -> Tensor:
    """Return which tokens have a clear decision; nearly all must."""
    clear = torch.tensor([answer.margin > MARGIN for answer in answers])
    assert clear.float().mean() >= 0.9
    return clear


def deepseek_v3(router: TopKRouter) -> DeepseekV3TopkRouter:
    config = DeepseekV3Config(
        hidden_size=router.d_model,
        n_routed_experts=router.n_experts,
        num_experts_per_tok=router.top_k,
        n_group=router.n_groups,
        topk_group=router.topk_groups,
        norm_topk_prob=router.normalize,
        routed_scaling_factor=router.route_scale,
    )
    reference = DeepseekV3TopkRouter(config)
    reference.load_state_dict(
        {"weight": router.weight, "e_score_correction_bias": router.expert_bias}
    )
    return reference


@pytest.mark.parametrize("kind", BIASES)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize(("normalize", "route_scale"), [(True, 2.5), (True, 1.0), (False, 2.5)])
def test_agrees_with_deepseek_v3_of_transformers(
    setting: tuple[int, int, int, int], kind: str, normalize: bool, route_scale: float
) -> None:
    router, x = make_case(setting, kind, normalize=normalize, route_scale=route_scale)
    routing = router(x)
    logits, weights, experts = deepseek_v3(router)(x)
    clear = compared(plain_routing(x, router))
    ours = dense(routing.weights, routing.experts, router.n_experts)
    theirs = dense(weights, experts, router.n_experts)
    torch.testing.assert_close(ours[clear], theirs[clear], rtol=0, atol=1e-6)
    torch.testing.assert_close(routing.scores, logits.sigmoid(), rtol=0, atol=1e-6)


def test_agrees_with_deepseek_v3_on_bfloat16_tokens() -> None:
    # Both turn x and weight into float32 before the product, so half-precision tokens lose nothing.
    router, x = make_case((64, 8, 8, 4), "step", route_scale=2.5)
    half = x.bfloat16()
    clear = compared(plain_routing(half.float(), router))
    routing, (_, weights, experts) = router(half), deepseek_v3(router)(half)
    assert routing.weights.dtype == weights.dtype == torch.float32
    torch.testing.assert_close(
        dense(routing.weights, routing.experts, 64)[clear],
        dense(weights, experts, 64)[clear],
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("kind", BIASES)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
@pytest.mark.parametrize("normalize", [True, False])
def test_agrees_with_plain_python(
    setting: tuple[int, int, int, int], kind: str, score: Score, normalize: bool
) -> None:
    router, x = make_case(setting, kind, score=score, normalize=normalize, route_scale=1.5)
    routing = router(x)
    answers = plain_routing(x, router)
    assert_same_routing(routing, answers, compared(answers))


def assert_same_routing(routing: Routing, answers: list[Plain], clear: Tensor) -> None:
    n_experts = routing.scores.shape[1]
    expected = dense(
        torch.tensor([answer.weights for answer in answers]),
        torch.tensor([answer.experts for answer in answers]),
        n_experts,
    )
    ours = dense(routing.weights, routing.experts, n_experts)
    torch.testing.assert_close(ours[clear], expected[clear], rtol=0, atol=1e-6)


@pytest.mark.parametrize("top_k", [1, 2, 6, 16])
def test_softmax_without_normalization_agrees_with_deepseek_v2_greedy(top_k: int) -> None:
    # V2 has no bias and ranks groups by their maximum, so only its ungrouped method is the same.
    router, x = make_case(
        (16, top_k, 1, 1), "zero", score="softmax", normalize=False, route_scale=16.0
    )
    config = DeepseekV2Config(
        hidden_size=D_MODEL,
        num_attention_heads=4,
        n_routed_experts=16,
        num_experts_per_tok=top_k,
        topk_method="greedy",
        routed_scaling_factor=16.0,
    )
    reference = DeepseekV2TopkRouter(config)
    reference.load_state_dict({"weight": router.weight})
    _, weights, experts = reference(x)
    assert_same_dense(router, x, weights, experts, atol=16e-6)


@pytest.mark.parametrize("top_k", [1, 2, 6, 16])
def test_normalized_softmax_agrees_with_mixtral(top_k: int) -> None:
    router, x = make_case((16, top_k, 1, 1), "zero", score="softmax")
    config = MixtralConfig(
        hidden_size=D_MODEL,
        num_attention_heads=4,
        num_local_experts=16,
        num_experts_per_tok=top_k,
    )
    reference = MixtralTopKRouter(config)  # type: ignore[no-untyped-call]
    reference.load_state_dict({"weight": router.weight})
    _, weights, experts = reference(x)
    assert_same_dense(router, x, weights, experts, atol=1e-6)


def assert_same_dense(
    router: TopKRouter, x: Tensor, weights: Tensor, experts: Tensor, atol: float
) -> None:
    clear = compared(plain_routing(x, router))
    routing = router(x)
    ours = dense(routing.weights, routing.experts, router.n_experts)
    theirs = dense(weights, experts, router.n_experts)
    torch.testing.assert_close(ours[clear], theirs[clear], rtol=0, atol=atol)


def test_weights_follow_the_equations_by_hand() -> None:
    # Logits ln 3, 0 and -ln 3 give the scores 3/4, 1/2 and 1/4.
    router = TopKRouter(1, 3, 2, route_scale=2.5)
    with torch.no_grad():
        router.weight.copy_(torch.tensor([[math.log(3)], [0.0], [-math.log(3)]]))
        router.expert_bias.copy_(torch.tensor([-1.0, 0.0, 0.0]))
    routing = router(torch.ones(1, 1))
    torch.testing.assert_close(routing.scores, torch.tensor([[0.75, 0.5, 0.25]]))
    assert routing.experts.tolist() == [[1, 2]]
    torch.testing.assert_close(routing.weights, 2.5 * torch.tensor([[2 / 3, 1 / 3]]))


class Case(NamedTuple):
    router: TopKRouter
    x: Tensor


@st.composite
def cases(draw: st.DrawFn, normalize: bool | None = None) -> Case:
    n_groups = draw(st.sampled_from([1, 2, 3, 4]))
    size = draw(st.integers(2, 6))
    topk_groups = draw(st.integers(1, n_groups))
    router = TopKRouter(
        8,
        n_groups * size,
        draw(st.integers(1, size * topk_groups)),
        score=draw(st.sampled_from(["sigmoid", "softmax"])),
        n_groups=n_groups,
        topk_groups=topk_groups,
        normalize=draw(st.booleans()) if normalize is None else normalize,
        route_scale=draw(st.sampled_from([0.5, 1.0, 2.5])),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    lowest_bias = draw(st.sampled_from([0.0, -0.5, -12.0]))
    with torch.no_grad():
        # Entries within 1 and width 8: no logit leaves -8 to 8, so that no score is below 1e-8.
        router.weight.uniform_(-1, 1, generator=generator)
        router.expert_bias.uniform_(lowest_bias, 0.5, generator=generator)
    x = torch.rand(draw(st.integers(0, 12)), 8, generator=generator) * 2 - 1
    return Case(router, x)


repeatable = settings(derandomize=True, deadline=None, max_examples=150)


@repeatable
@given(cases())
def test_every_token_gets_k_distinct_experts_best_first(case: Case) -> None:
    router, x = case
    routing = router(x)
    assert routing.experts.shape == routing.weights.shape == (len(x), router.top_k)
    assert routing.scores.shape == (len(x), router.n_experts)
    assert routing.experts.dtype == torch.int64
    assert routing.weights.dtype == routing.scores.dtype == torch.float32
    for chosen in routing.experts.tolist():
        assert len(set(chosen)) == router.top_k
        assert set(chosen) <= set(range(router.n_experts))
    biased = (routing.scores + router.expert_bias).gather(1, routing.experts)
    assert (biased.diff(dim=1) <= 0).all()


@repeatable
@given(cases(normalize=True))
def test_normalized_weights_sum_to_the_route_scale(case: Case) -> None:
    router, x = case
    # With u = 2**-24, float32 adds k positive scores with relative error (k - 1) u; adding the
    # epsilon, dividing, rounding the scale and multiplying add u each: (k + 3) u. One more u covers
    # products of errors and the epsilon itself, which is below 1e-12 of a sum above 1e-8. The
    # weights are summed here in float64, exactly enough.
    bound = (router.top_k + 4) * 2**-24 * router.route_scale
    sums = router(x).weights.double().sum(dim=1)
    assert ((sums - router.route_scale).abs() <= bound).all()


@repeatable
@given(cases())
def test_weights_do_not_depend_on_the_bias_given_the_selection(case: Case) -> None:
    router, x = case
    routing = router(x)
    with torch.no_grad():
        bias = router.expert_bias.clone()
        router.expert_bias.zero_()
        unbiased_scores = router(x).scores
        router.expert_bias.copy_(bias)
    assert torch.equal(routing.scores, unbiased_scores)
    chosen = unbiased_scores.double().gather(1, routing.experts)
    total = chosen.sum(dim=1, keepdim=True) if router.normalize else torch.ones(len(x), 1)
    expected = chosen / total * router.route_scale
    # Relative bound as for the sum above, with the k + 3 roundings behind each single weight.
    bound = (router.top_k + 4) * 2**-24
    torch.testing.assert_close(routing.weights.double(), expected, rtol=bound, atol=0)


@repeatable
@given(cases())
def test_no_token_uses_more_than_topk_groups(case: Case) -> None:
    router, x = case
    size = router.n_experts // router.n_groups
    for chosen in router(x).experts.tolist():
        assert len({expert // size for expert in chosen}) <= router.topk_groups


@repeatable
@given(cases(), st.randoms(use_true_random=False))
def test_permuting_tokens_permutes_the_routing(case: Case, random: Random) -> None:
    router, x = case
    order = list(range(len(x)))
    random.shuffle(order)
    routing, permuted = router(x), router(x[order])
    torch.testing.assert_close(permuted.scores, routing.scores[order], rtol=0, atol=1e-6)
    for place, token in enumerate(order):
        # The last bit of a score may depend on a token's place in a vectorized loop.
        if plain_routing(x[token : token + 1], router)[0].margin > MARGIN:
            ours = permuted.experts[place].tolist()
            assert set(ours) == set(routing.experts[token].tolist())


@repeatable
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(8, 3, 1, 1), (8, 2, 2, 1), (24, 6, 4, 2), (16, 4, 8, 3)]),
    st.integers(-256, 256),
)
def test_a_constant_on_all_biases_changes_no_choice(
    seed: int, setting: tuple[int, int, int, int], sixteenths: int
) -> None:
    # Multiples of 2**-12 up to 1, shifted by at most 16: even the sum of two takes 18 bits, which
    # float32 holds exactly. No rounding, hence the same order and the same ties.
    n_experts, top_k, n_groups, topk_groups = setting
    generator = torch.Generator().manual_seed(seed)
    biased = torch.randint(0, 2**12, (8, n_experts), generator=generator) / 2**12
    before = moe.select_experts(biased, top_k, n_groups, topk_groups)
    after = moe.select_experts(biased + sixteenths / 16, top_k, n_groups, topk_groups)
    assert torch.equal(before, after)


@repeatable
@given(cases())
def test_gradient_is_that_of_the_weights_with_the_choice_held_fixed(case: Case) -> None:
    router, x = case
    routing = router(x)
    importance = torch.arange(1.0, router.top_k + 1) / router.top_k
    torch.autograd.backward((routing.weights * importance).sum())
    assert router.weight.grad is not None
    assert router.weight.grad.isfinite().all()
    assert not router.expert_bias.requires_grad

    weight = router.weight.detach().double().requires_grad_()
    logits = x.double() @ weight.T
    scores = logits.sigmoid() if router.score == "sigmoid" else logits.softmax(dim=1)
    chosen = scores.gather(1, routing.experts)
    if router.normalize:
        chosen = chosen / chosen.sum(dim=1, keepdim=True)
    torch.autograd.backward((chosen * router.route_scale * importance).sum())
    # A token's gradient of a logit is a difference of terms up to the scale 2.5, each the end of
    # about k + 8 <= 32 roundings of 2**-24; 12 tokens with entries within 1 add up: 5.8e-5.
    bound = 12 * 32 * 2.5 * 2**-24
    torch.testing.assert_close(router.weight.grad.double(), weight.grad, rtol=0, atol=bound)


def test_saturated_scores_give_finite_weights_and_gradients() -> None:
    # Logits of -1000: every score underflows to 0, and so does the sum that normalizes them.
    router = TopKRouter(4, 8, 2)
    with torch.no_grad():
        router.weight.fill_(-250.0)
    x = torch.ones(3, 4, requires_grad=True)
    routing = router(x)
    assert (routing.weights == 0).all()
    torch.autograd.backward(routing.weights.sum())
    assert router.weight.grad is not None
    assert router.weight.grad.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_are_float32_when_the_tokens_are_less(dtype: torch.dtype) -> None:
    router, x = make_case((32, 6, 4, 2), "step")
    x = x.to(dtype)
    for ours, expected in zip(router(x), router(x.float()), strict=True):
        assert torch.equal(ours, expected)


def test_autocast_does_not_lower_the_precision_of_the_router() -> None:
    router, x = make_case((32, 6, 4, 2), "step")
    expected = router(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        routing = router(x)
    assert torch.equal(routing.scores, expected.scores)
    assert torch.equal(routing.weights, expected.weights)


@pytest.mark.parametrize("setting", [(4, 2, 1, 1), (8, 2, 4, 2)], ids=str)
def test_no_tokens_give_an_empty_routing(setting: tuple[int, int, int, int]) -> None:
    router, x = make_case(setting, "mixed", n_tokens=0)
    routing = router(x)
    assert routing.weights.shape == routing.experts.shape == (0, 2)
    assert routing.scores.shape == (0, setting[0])
    assert routing.experts.dtype == torch.int64
    assert moe.expert_load(routing.experts, setting[0]).tolist() == [0] * setting[0]


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
def test_one_expert_gets_everything(score: Score) -> None:
    routing = TopKRouter(4, 1, 1, score=score, route_scale=2.5)(torch.randn(5, 4))
    assert routing.experts.tolist() == [[0]] * 5
    torch.testing.assert_close(routing.weights, torch.full((5, 1), 2.5))


def test_all_experts_chosen_is_the_normalized_score() -> None:
    router, x = make_case((8, 8, 4, 4), "mixed", score="softmax")
    routing = router(x)
    torch.testing.assert_close(dense(routing.weights, routing.experts, 8), routing.scores)


def test_state_is_the_weight_and_the_bias() -> None:
    router = TopKRouter(4, 8, 2)
    assert set(router.state_dict()) == {"weight", "expert_bias"}
    assert [name for name, _ in router.named_parameters()] == ["weight"]
    assert router.expert_bias.dtype == torch.float32
    assert (router.expert_bias == 0).all()


def test_initial_weight_has_the_documented_spread() -> None:
    torch.manual_seed(0)
    weight = TopKRouter(256, 256, 8).weight
    # 65536 draws: the standard error of the standard deviation is std / sqrt(2 n), 0.28 percent.
    assert weight.std().item() == pytest.approx(0.5 / 16, rel=5 * 0.0028)


def test_printing_names_every_argument() -> None:
    router = TopKRouter(4, 8, 2, score="softmax", n_groups=4, topk_groups=3, route_scale=2.5)
    assert repr(router) == (
        "TopKRouter(d_model=4, n_experts=8, top_k=2, score='softmax', n_groups=4, topk_groups=3, "
        "normalize=True, route_scale=2.5)"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"d_model": -3}, "d_model is -3"),
        ({"n_experts": 0}, "n_experts is 0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": 9}, "top_k 9 exceeds n_experts 8"),
        ({"n_groups": 0}, "n_groups is 0"),
        ({"n_groups": 3}, "8 experts do not divide into 3 groups"),
        ({"n_groups": 8}, "8 experts in 8 groups leave 1 in each.*at most 4 groups"),
        ({"n_groups": 2, "topk_groups": 0}, "topk_groups is 0"),
        ({"n_groups": 2, "topk_groups": 3}, "topk_groups 3 exceeds n_groups 2"),
        ({"topk_groups": 2}, "topk_groups 2 exceeds n_groups 1"),
        ({"n_groups": 4, "top_k": 3}, "top_k 3 exceeds the 2 experts in topk_groups 1 of 4"),
        ({"score": "relu"}, "score 'relu' is unknown; use sigmoid or softmax"),
        ({"route_scale": 0.0}, "route_scale is 0.0"),
        ({"route_scale": -2.5}, "route_scale is -2.5"),
        ({"route_scale": math.nan}, "route_scale is nan"),
        ({"route_scale": math.inf}, "route_scale is inf"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    arguments = {"d_model": 4, "n_experts": 8, "top_k": 2} | changes
    with pytest.raises(ValueError, match=message):
        TopKRouter(**arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(4), r"x has shape \(4,\).*reshape\(-1, 4\)"),
        (torch.zeros(2, 3, 4), r"x has shape \(2, 3, 4\).*reshape\(-1, 4\)"),
        (torch.zeros(3, 5), r"x has shape \(3, 5\).*d_model 4"),
        (torch.zeros(4, 3), r"x has shape \(4, 3\).*d_model 4"),
        (torch.tensor(1.0), r"x has shape \(\)"),
        (torch.zeros(3, 4, dtype=torch.int64), r"x has dtype torch.int64.*x.float\(\)"),
        (torch.zeros(3, 4, dtype=torch.complex64), "x has dtype torch.complex64"),
        (torch.full((3, 4), 3e38), r"a logit overflows with \|x\| up to 3e\+38"),
    ],
)
def test_bad_tokens_are_named(x: Tensor, message: str) -> None:
    router = TopKRouter(4, 8, 2)
    torch.nn.init.ones_(router.weight)  # random weights may be too small for the overflow
    with pytest.raises(ValueError, match=message):
        router(x)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("zero_weight", [False, True])
@pytest.mark.parametrize("n_experts", [1, 8, 33])
def test_a_non_finite_token_is_named(bad: float, zero_weight: bool, n_experts: int) -> None:
    router = TopKRouter(40, n_experts, 1)
    if zero_weight:
        torch.nn.init.zeros_(router.weight)
    x = torch.randn(20, 40)
    x[17, 39] = bad
    with pytest.raises(ValueError, match=rf"input holds NaN.*x\[17, 39\] is {bad}"):
        router(x)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_weight_or_bias_is_named(bad: float) -> None:
    router, x = make_case((8, 2, 4, 2), "zero")
    with torch.no_grad():
        router.expert_bias[5] = bad
    with pytest.raises(ValueError, match=rf"expert_bias\[5\] is {bad}"):
        router(x)
    with torch.no_grad():
        router.expert_bias[5] = 0.0
        router.weight[7, 3] = bad
    with pytest.raises(ValueError, match=rf"weight\[7, 3\] is {bad}"):
        router(x)


def test_the_steps_refuse_what_they_cannot_do() -> None:
    scores = torch.rand(3, 8)
    scores[2, 6] = math.nan
    for n_groups, topk_groups in ((1, 1), (4, 1)):
        with pytest.raises(ValueError, match=r"biased\[2, 6\] is nan"):
            moe.select_experts(scores, 2, n_groups, topk_groups)
    with pytest.raises(ValueError, match="top_k 9 exceeds n_experts 8"):
        moe.select_experts(torch.rand(3, 8), 9)
    with pytest.raises(ValueError, match="1 expert in 1 group"):
        moe.group_scores(torch.rand(3, 1), 1)
    with pytest.raises(ValueError, match="topk_groups 5 exceeds n_groups 4"):
        moe.mask_groups(torch.rand(3, 8), 4, 5)
    with pytest.raises(ValueError, match="score 'tanh' is unknown"):
        moe.expert_scores(torch.rand(3, 8), "tanh")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="route_scale is -1"):
        moe.gate_weights(torch.rand(3, 8), torch.zeros(3, 1, dtype=torch.int64), route_scale=-1)


def test_group_steps_by_hand() -> None:
    biased = torch.tensor([[0.9, 0.0, 0.5, 0.5, -3.0, -1.0]])
    torch.testing.assert_close(moe.group_scores(biased, 3), torch.tensor([[0.9, 1.0, -4.0]]))
    assert moe.mask_groups(biased, 3, 1).tolist() == [
        [-math.inf] * 2 + [0.5, 0.5] + [-math.inf] * 2
    ]
    assert set(moe.select_experts(biased, 2, 3, 1)[0].tolist()) == {2, 3}
    assert moe.select_experts(biased - 2, 4, 3, 2)[0].tolist()[0] == 0


@repeatable
@given(st.lists(st.lists(st.integers(0, 6), min_size=2, max_size=2), max_size=20))
def test_expert_load_counts(rows: list[list[int]]) -> None:
    experts = torch.tensor(rows, dtype=torch.int64).reshape(-1, 2)
    counts = collections.Counter(expert for row in rows for expert in row)
    assert moe.expert_load(experts, 7).tolist() == [counts[expert] for expert in range(7)]


def test_max_violation_between_balance_and_collapse() -> None:
    assert moe.max_violation(torch.tensor([3, 3, 3, 3])) == 0
    assert moe.max_violation(torch.tensor([1, 2, 3])) == 0.5
    # All tokens on the same 2 of 16 experts: 16 / 2 - 1.
    everyone_alike = moe.expert_load(torch.tensor([[4, 9]] * 10), 16)
    assert moe.max_violation(everyone_alike) == 7


@pytest.mark.parametrize(
    ("experts", "n_experts", "message"),
    [
        (torch.tensor([[0, 4]]), 4, "expert 4 is not within 0 to 3"),
        (torch.tensor([[-1, 2]]), 4, "expert -1 is not within 0 to 3"),
        (torch.tensor([[0.0]]), 4, "experts has dtype torch.float32"),
        (torch.tensor([[True]]), 4, "experts has dtype torch.bool"),
        (torch.tensor([[0]]), 0, "n_experts is 0"),
    ],
)
def test_bad_experts_are_named(experts: Tensor, n_experts: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moe.expert_load(experts, n_experts)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (torch.zeros(3), r"load is \[0.0, 0.0, 0.0\]; balance is undefined"),
        (torch.tensor([2, -1]), r"load is \[2, -1\]; pass counts"),
        (torch.tensor([1.0, math.nan]), r"load is \[1.0, nan\]; pass counts"),
        (torch.tensor([]), r"load has shape \(0,\)"),
        (torch.ones(2, 3), r"load has shape \(2, 3\)"),
    ],
)
def test_bad_loads_are_named(load: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moe.max_violation(load)


def test_a_float64_router_computes_in_float64() -> None:
    router = TopKRouter(8, 16, 4).double()
    x = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    routing = router(x)
    assert routing.weights.dtype == routing.scores.dtype == torch.float64
    # A float32 sigmoid would be off by about 1e-8.
    torch.testing.assert_close(routing.scores, (x @ router.weight.T).sigmoid(), atol=1e-15, rtol=0)


def test_every_public_name_can_be_imported_from_the_package() -> None:
    for name in ("routing", "dispatch", "experts", "hashing", "balance"):
        module = importlib.import_module(f"slingshot.moe.{name}")
        own = {key for key, item in vars(module).items() if is_from(item, module.__name__)}
        assert {key for key in own if not key.startswith("_")} - set(moe.__all__) == set()


def is_from(item: object, module: str) -> bool:
    return getattr(item, "__module__", None) == module
