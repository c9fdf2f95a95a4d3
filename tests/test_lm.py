"""The language model against transformers, against its count of parameters, and its properties."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import Glm4MoeConfig, LlamaConfig
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeForCausalLM
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from slingshot import sizes
from slingshot.attention import Attention, rotate, rotations
from slingshot.layers import SquaredReLU, SwiGLU
from slingshot.lm import DecoderLM, Layer, LMConfig, generate
from slingshot.moe import MoE, TopKRouter

DENSE = LMConfig(vocab_size=40, d_model=16, n_layers=3, n_heads=4, d_ffn=24)
EXPERTS = sizes.ExpertConfig(n_routed=6, n_shared=2, top_k=2, d_expert=8, n_dense_layers=1)
MIXTURE = replace(DENSE, experts=EXPERTS)
VARIANTS = {
    "dense": DENSE,
    "relu2": replace(DENSE, activation="relu2"),
    "tied": replace(DENSE, tied_embedding=True),
    "gqa": replace(DENSE, n_kv_heads=2),
    "mqa, wide heads": replace(DENSE, n_kv_heads=1, head_dim=6),
    "mixture": MIXTURE,
    "mixture, tied, gqa": replace(MIXTURE, tied_embedding=True, n_kv_heads=2),
    "mixture, none shared": replace(MIXTURE, experts=replace(EXPERTS, n_shared=0)),
}
variants = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def make_model(config: LMConfig, seed: int = 0) -> DecoderLM:
    """A model in which every weight matters, as after training: none is zero, no norm is one."""
    torch.manual_seed(seed)
    model = DecoderLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
            if parameter.ndim == 1:
                parameter.add_(1.0)
        for router in model.routers:
            router.expert_bias.normal_(std=0.1)
    return model


def make_tokens(n_sequences: int = 3, length: int = 12, vocab_size: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(n_sequences)
    return torch.randint(vocab_size, (n_sequences, length), generator=generator)


def layers_of(model: DecoderLM) -> list[Layer]:
    return [layer for layer in model.layers if isinstance(layer, Layer)]


def dense_weights(ffn: nn.Module | None, prefix: str) -> dict[str, Tensor]:
    assert isinstance(ffn, SwiGLU)
    gate, up = ffn.gate_up.weight.chunk(2)
    return {
        f"{prefix}.gate_proj.weight": gate,
        f"{prefix}.up_proj.weight": up,
        f"{prefix}.down_proj.weight": ffn.down.weight,
    }


def mixture_weights(ffn: MoE, prefix: str) -> dict[str, Tensor]:
    assert isinstance(ffn.router, TopKRouter)
    return {
        f"{prefix}.gate.weight": ffn.router.weight,
        f"{prefix}.gate.e_score_correction_bias": ffn.router.expert_bias,
        f"{prefix}.experts.gate_up_proj": ffn.experts.gate_up,
        f"{prefix}.experts.down_proj": ffn.experts.down,
        **dense_weights(ffn.shared, f"{prefix}.shared_experts"),
    }


def weights_for_transformers(model: DecoderLM) -> dict[str, Tensor]:
    """The weights of the model under the names of transformers."""
    named = {
        "model.embed_tokens.weight": model.embedding.weight,
        "model.norm.weight": model.norm.weight,
        "lm_head.weight": model.head.weight,
    }
    for index, layer in enumerate(layers_of(model)):
        prefix, ffn, attention = f"model.layers.{index}", layer.ffn, layer.attention
        assert isinstance(attention, Attention)
        named |= {
            f"{prefix}.input_layernorm.weight": layer.attention_norm.weight,
            f"{prefix}.post_attention_layernorm.weight": layer.ffn_norm.weight,
            f"{prefix}.self_attn.q_proj.weight": attention.query.weight,
            f"{prefix}.self_attn.k_proj.weight": attention.key.weight,
            f"{prefix}.self_attn.v_proj.weight": attention.value.weight,
            f"{prefix}.self_attn.o_proj.weight": attention.output.weight,
        }
        named |= (
            mixture_weights(ffn, f"{prefix}.mlp")
            if isinstance(ffn, MoE)
            else dense_weights(ffn, f"{prefix}.mlp")
        )
    return named


def sizes_for_transformers(config: LMConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ffn,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads or config.n_heads,
        "head_dim": config.width_of_head,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_embedding,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_base,
            "partial_rotary_factor": 1.0,
        },
    }


def assert_same_logits(model: DecoderLM, theirs: nn.Module, tokens: Tensor) -> None:
    theirs.load_state_dict(weights_for_transformers(model))
    theirs.eval()
    with torch.no_grad():
        ours, reference = model(tokens).logits, theirs(tokens).logits
    assert ((ours - reference).abs().max() / reference.abs().max()).item() < 1e-5


# --- against transformers --------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        DENSE,
        replace(DENSE, n_kv_heads=2),
        replace(DENSE, n_kv_heads=1, head_dim=6),
        replace(DENSE, tied_embedding=True),
        replace(DENSE, rope_base=100.0),
        replace(DENSE, norm_eps=0.3),
    ],
    ids=["dense", "gqa", "mqa, wide heads", "tied", "rope base", "norm eps"],
)
def test_the_logits_are_those_of_llama(config: LMConfig) -> None:
    theirs = LlamaForCausalLM(LlamaConfig(**sizes_for_transformers(config)))
    assert_same_logits(make_model(config), theirs, make_tokens())


@pytest.mark.parametrize("n_dense_layers", [0, 1])
def test_the_logits_with_experts_are_those_of_a_deepseek_v3_mixture(n_dense_layers: int) -> None:
    # GLM-4.5 is the model of transformers with V3's mixture and the attention of Llama.
    experts = replace(EXPERTS, n_dense_layers=n_dense_layers)
    config = replace(MIXTURE, experts=experts, n_kv_heads=2)
    settings = Glm4MoeConfig(
        **sizes_for_transformers(config),
        n_routed_experts=experts.n_routed,
        n_shared_experts=experts.n_shared,
        num_experts_per_tok=experts.top_k,
        moe_intermediate_size=experts.d_expert,
        first_k_dense_replace=experts.n_dense_layers,
    )
    assert_same_logits(make_model(config), Glm4MoeForCausalLM(settings), make_tokens())


def test_relu2_squares_what_is_positive() -> None:
    ffn = layers_of(make_model(VARIANTS["relu2"]))[0].ffn
    assert isinstance(ffn, SquaredReLU)
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    hidden = F.linear(x, ffn.up.weight)
    expected = F.linear(torch.where(hidden > 0, hidden**2, 0.0), ffn.down.weight)
    torch.testing.assert_close(ffn(x), expected)


# --- sizes ---------------------------------------------------------------------------------------


@variants
def test_the_parameters_are_those_that_costs_counts(config: LMConfig) -> None:
    counted = sizes.count_parameters(config.sizes()).total
    assert sum(parameter.numel() for parameter in DecoderLM(config).parameters()) == counted


def test_a_counted_router_bias_is_a_buffer() -> None:
    config = replace(MIXTURE, experts=replace(EXPERTS, router_bias=True))
    model = DecoderLM(config)
    numbers = [*model.parameters(), *(router.expert_bias for router in model.routers)]
    assert sum(map(torch.numel, numbers)) == sizes.count_parameters(config.sizes()).total


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 18}, "d_model 18 is not a multiple of n_heads 4; change one, or give head_di"),
        ({"d_model": 0}, "d_model is 0; give a whole number, at least 1"),
        ({"n_heads": 0}, "n_heads is 0; give a whole number, at least 1"),
        ({"head_dim": 0}, "head_dim is 0; give a whole number, at least 1"),
        ({"head_dim": 5}, "head_dim is 5; RoPE turns pairs of channels, give an even one"),
        ({"d_model": 12}, "head_dim is 3; RoPE turns pairs"),
        ({"n_kv_heads": 3}, "n_kv_heads 3 does not divide n_heads 4; give a divisor"),
        ({"vocab_size": 0}, "vocab_size is 0; give a whole number, at least 1"),
        ({"n_layers": 0}, "n_layers is 0; give a whole number, at least 1"),
        ({"d_ffn": 0}, "d_ffn is 0; give a whole number, at least 1"),
        ({"n_layers": 1, "experts": EXPERTS}, "n_dense_layers 1 leaves no layer of 1 with experts"),
        ({"activation": "gelu"}, "activation 'gelu' is unknown; use swiglu or relu2"),
        ({"activation": "relu2", "experts": EXPERTS}, "activation is relu2 but experts are always"),
        ({"rope_base": 0.0}, "rope_base is 0.0 and norm_eps 1e-05; give positive finite numbers"),
        ({"norm_eps": float("nan")}, "norm_eps nan; give positive finite numbers"),
    ],
)
def test_sizes_that_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(DENSE, **changes)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.tensor([1, 2]), r"tokens has shape \(2,\) and dtype torch.int64; pass int64 \[seq"),
        (torch.ones(1, 2), r"shape \(1, 2\) and dtype torch.float32; pass int64 \[sequences, tok"),
        (torch.tensor([[3, 40]]), "token 40 is not within 0 to 39; encode the text with the token"),
        (torch.tensor([[-1, 3]]), "token -1 is not within 0 to 39; encode the text with the token"),
    ],
)
def test_tokens_that_cannot_be_are_named(tokens: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderLM(DENSE)(tokens)


# --- what a position may know ------------------------------------------------------------------


@variants
def test_a_later_token_changes_no_earlier_logit(config: LMConfig) -> None:
    model, tokens = make_model(config), make_tokens(2, 10)
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 40
    before, after = model(tokens).logits, model(changed).logits
    # An expert that gets one row more may round in another order; nothing else may differ.
    rounding = 1e-6 if config.experts else 0.0
    torch.testing.assert_close(before[0, :6], after[0, :6], rtol=rounding, atol=rounding)
    torch.testing.assert_close(before[1], after[1], rtol=rounding, atol=rounding)
    assert ((before[0, 6:] - after[0, 6:]).abs().amax(1) > 1e-4).all()


@variants
def test_an_untrained_model_knows_the_current_token_alone(config: LMConfig) -> None:
    torch.manual_seed(0)
    model, tokens = DecoderLM(config), make_tokens()
    alone = model(tokens.view(-1, 1)).logits.view(3, 12, -1)
    torch.testing.assert_close(model(tokens).logits, alone)
    skipping = model.head(model.norm(model.embedding(tokens)))
    assert torch.equal(model(tokens).logits, skipping)  # no layer has added anything yet


@variants
def test_an_untrained_model_is_not_far_from_guessing(config: LMConfig) -> None:
    torch.manual_seed(0)
    tokens = make_tokens(8, 32)
    loss = F.cross_entropy(DecoderLM(config)(tokens[:, :-1]).logits.mT, tokens[:, 1:])
    assert loss.item() == pytest.approx(torch.tensor(40.0).log().item(), abs=1.0)


@pytest.mark.parametrize("base", [10.0, 10_000.0])
def test_rotated_products_depend_on_the_distance_alone(base: float) -> None:
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    rotation = rotations(30, 8, base, torch.device("cpu"))
    products = rotate(query.expand(30, 8), rotation) @ rotate(key.expand(30, 8), rotation).T
    for distance in range(-29, 30):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
    assert products.diagonal(1)[0] != pytest.approx(products.diagonal(0)[0].item(), abs=1e-3)


def test_the_first_position_is_not_turned_and_pair_j_turns_by_its_own_angle() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, rotations(3, 4, 100.0, torch.device("cpu")))
    assert torch.equal(turned[0], x[0])
    angles = 2 * torch.tensor([1.0, 0.1])  # 100 ** -(0 / 4) and 100 ** -(2 / 4)
    pairs = torch.complex(x[2, :2], x[2, 2:]) * torch.polar(torch.ones(2), angles)
    torch.testing.assert_close(turned[2], torch.cat([pairs.real, pairs.imag]))


# --- generation ----------------------------------------------------------------------------------

# In float64 no two logits are so close that rounding decides between them.


def make_prompts(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    prompts = [torch.randint(40, (length,), generator=generator) for length in lengths]
    for prompt in prompts:
        prompt[len(prompt) // 2] = END  # which ends nothing there
    return prompts


def one_by_one(
    model: DecoderLM, prompt: Tensor, n_tokens: int, choose: Callable[[int, Tensor], int]
) -> list[int]:
    """What generate writes, in the plainest way: the whole text is read for each token."""
    text = prompt.tolist()
    with torch.no_grad():
        for index in range(n_tokens):
            text.append(choose(index, model(torch.tensor([text])).logits[0, -1]))
            if text[-1] == END:
                break
    return text[len(prompt) :]


END = 7
LENGTHS = (5, 2, 9, 5, 1, 9, 3, 4)


@pytest.mark.slow
@variants
def test_the_likeliest_tokens_are_those_of_a_model_that_reads_all_again(config: LMConfig) -> None:
    model, prompts = make_model(config).double(), make_prompts(*LENGTHS)
    expected = [one_by_one(model, p, 12, lambda _, logits: int(logits.argmax())) for p in prompts]
    for use_cache in (True, False):
        outputs = generate(
            model, prompts, max_new_tokens=12, end=END, temperature=0, use_cache=use_cache
        )
        assert [output.tolist() for output in outputs] == expected, use_cache


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_token_is_the_one_in_whose_share_its_uniform_number_falls(temperature: float) -> None:
    model, prompts = make_model(DENSE).double(), make_prompts(*LENGTHS * 2)
    outputs, without_cache = (
        generate(
            model,
            prompts,
            max_new_tokens=30,
            end=END,
            temperature=temperature,
            generator=torch.Generator().manual_seed(3),
            use_cache=use_cache,
        )
        for use_cache in (True, False)
    )
    numbers = torch.rand(
        len(prompts), 30, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    ).tolist()
    for prompt, row, output in zip(prompts, numbers, outputs, strict=True):

        def choose(index: int, logits: Tensor, row: list[float] = row) -> int:
            bounds = list(accumulate((logits / temperature).softmax(0).tolist()))
            return next(token for token, bound in enumerate(bounds) if bound > row[index])

        assert output.tolist() == one_by_one(model, prompt, 30, choose)
    assert [output.tolist() for output in without_cache] == [output.tolist() for output in outputs]
    assert len({len(output) for output in outputs}) > 2  # so rows have left in between


def test_the_tokens_are_those_of_generate_of_transformers() -> None:
    model, prompts = make_model(DENSE), make_prompts(*LENGTHS)
    theirs: Any = LlamaForCausalLM(LlamaConfig(**sizes_for_transformers(DENSE)))
    theirs.load_state_dict(weights_for_transformers(model))
    theirs.eval()
    outputs = generate(model, prompts, max_new_tokens=20, temperature=0)
    padded = pad_sequence(prompts, batch_first=True, padding_side="left")
    lengths = torch.tensor([[len(prompt)] for prompt in prompts])
    mask = torch.arange(padded.shape[1]) >= padded.shape[1] - lengths
    written = theirs.generate(
        padded,
        attention_mask=mask.long(),
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(torch.stack(outputs), written[:, padded.shape[1] :])


def test_a_row_is_read_once_and_leaves_when_it_ends() -> None:
    model, prompts, shapes = make_model(DENSE).double(), make_prompts(*LENGTHS), []
    model.embedding.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    outputs = generate(model, prompts, max_new_tokens=12, end=END, temperature=0)
    last = [len(prompt) + len(output) for prompt, output in zip(prompts, outputs, strict=True)]
    assert max(last) > min(last)
    # The token at the last place of a row is never read; the shortest prompt has one token.
    assert shapes == [(sum(place > read for place in last), 1) for read in range(1, max(last))]
    shapes.clear()
    generate(model, make_prompts(6, 4, 5), max_new_tokens=3, temperature=0)
    assert shapes == [(3, 4), (3, 1), (3, 1), (2, 1), (1, 1)]


def test_a_row_ends_with_its_budget_or_with_the_end() -> None:
    outputs = generate(
        make_model(DENSE),
        make_prompts(*LENGTHS) * 5,
        max_new_tokens=25,
        end=END,
        generator=torch.Generator().manual_seed(0),
    )
    ended = [output.tolist().index(END) + 1 if END in output else 25 for output in outputs]
    assert [len(output) for output in outputs] == ended
    assert 0 < ended.count(25) < len(ended)


def test_numbers_are_drawn_before_anything_is_written() -> None:
    generator, reference = (torch.Generator().manual_seed(0) for _ in range(2))
    generate(make_model(DENSE), make_prompts(2, 3), max_new_tokens=9, end=END, generator=generator)
    torch.rand(2, 9, generator=reference, dtype=torch.float64)
    assert torch.equal(generator.get_state(), reference.get_state())
    generate(make_model(DENSE), make_prompts(2), max_new_tokens=9, temperature=0)
    state = torch.get_rng_state()
    generate(make_model(DENSE).eval(), make_prompts(2), max_new_tokens=9, generator=generator)
    assert not torch.equal(generator.get_state(), reference.get_state())
    make_model(DENSE)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("broken", [False, True], ids=["finished", "failed"])
def test_the_model_is_left_as_it_was(broken: bool) -> None:
    model = make_model(MIXTURE).train()
    model.layers[1].eval()
    if broken:
        with torch.no_grad():
            model.head.weight[3, 0] = math.inf
    before = [(set(vars(module)), module.training) for module in model.modules()]
    with pytest.raises(ValueError, match="diverged") if broken else nullcontext():
        generate(model, make_prompts(2, 3), max_new_tokens=4)
    assert [(set(vars(module)), module.training) for module in model.modules()] == before
    assert {module.training for module in model.modules()} == {True, False}


def test_a_model_that_has_written_can_change_and_write_again() -> None:
    model, other, prompts = make_model(DENSE), make_model(DENSE, seed=1), make_prompts(3, 6)

    def write(model: DecoderLM) -> list[list[int]]:
        outputs = generate(model, prompts, max_new_tokens=9, temperature=0)
        assert not any(output.is_inference() for output in outputs)
        return [output.tolist() for output in outputs]

    first = write(model)
    model.head, model.layers[0] = other.head, other.layers[0]
    replaced = write(model)
    assert replaced != first
    model.load_state_dict(other.state_dict())
    assert write(model) == write(other) != replaced
    model.embedding.weight = nn.Parameter(make_model(DENSE).embedding.weight.detach())
    assert write(model) != write(other)
    model(make_tokens()).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_replaced_or_hooked_part_takes_part() -> None:
    model, seen = make_model(DENSE), []
    layers_of(model)[2].attention.register_forward_hook(lambda *_: seen.append(1))
    generate(model, make_prompts(3), max_new_tokens=5, temperature=0)
    assert len(seen) == 5
    model.head = nn.Linear(16, 40, bias=True)
    nn.init.constant_(model.head.bias, 0.0)
    with torch.no_grad():
        model.head.bias[11] = 1e6
    (output,) = generate(model, make_prompts(3), max_new_tokens=5, temperature=0)
    assert output.tolist() == [11] * 5


def test_no_prompts_give_no_outputs() -> None:
    assert generate(make_model(DENSE), [], max_new_tokens=3) == []


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        (
            [torch.ones(0).long()],
            {},
            r"a prompt has shape \(0,\); give one dimension, at least one",
        ),
        ([torch.ones(1, 2).long()], {}, r"a prompt has shape \(1, 2\); give one dimension"),
        ([torch.ones(2)], {}, "dtype torch.float32; pass int64"),
        ([torch.tensor([1]), torch.tensor([40])], {}, "token 40 is not within 0 to 39"),
        ([torch.tensor([1])], {"max_new_tokens": 0}, "max_new_tokens is 0; give at least 1"),
        ([torch.tensor([1])], {"temperature": -1.0}, "temperature is -1.0; give 0 for the likel"),
        ([torch.tensor([1])], {"temperature": math.inf}, "temperature is inf; give 0 for"),
        ([torch.tensor([1])], {"temperature": math.nan}, "temperature is nan; give 0 for"),
        ([torch.tensor([1])], {"end": 40}, "end is 40, not a token within 0 to 39; give one, or"),
        ([torch.tensor([1])], {"end": -1}, "end is -1, not a token"),
        ([], {"end": -1}, "end is -1, not a token"),
    ],
)
def test_what_cannot_be_generated_is_named(
    prompts: list[Tensor], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generate(make_model(DENSE), prompts, **{"max_new_tokens": 3, **settings})


@pytest.mark.parametrize("value", [math.inf, math.nan, -math.nan])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_named(value: float, temperature: float) -> None:
    model = make_model(DENSE)
    with torch.no_grad():
        model.embedding.weight[5] = value
    with pytest.raises(
        ValueError, match=r"largest logit is (nan|inf); .* load or train them again"
    ):
        generate(model, [torch.tensor([5, 5])], max_new_tokens=3, temperature=temperature)


# --- the mixture inside --------------------------------------------------------------------------


def test_routings_come_layer_by_layer_and_sequence_after_sequence() -> None:
    model, tokens = make_model(MIXTURE), make_tokens(3, 5)
    seen: list[tuple[Tensor, Tensor]] = []
    for layer in layers_of(model)[1:]:
        layer.ffn.register_forward_hook(
            lambda ffn, inputs, output: seen.append((inputs[0], output.routing.scores))
        )
    output = model(tokens)
    assert len(output.routings) == len(model.routers) == 2
    for routing, router, (x, scores) in zip(output.routings, model.routers, seen, strict=True):
        assert routing.scores is scores
        by_token = [router(x[b, s][None]).scores[0] for b in range(3) for s in range(5)]
        torch.testing.assert_close(routing.scores, torch.stack(by_token))
        assert routing.experts.shape == (15, 2)


def test_a_dense_model_has_no_routings() -> None:
    model = DecoderLM(DENSE)
    assert model.routers == []
    assert model(make_tokens()).routings == []


# --- repeating it ------------------------------------------------------------------------------


@variants
def test_the_weights_come_from_the_seed_and_can_be_stored(config: LMConfig) -> None:
    torch.manual_seed(7)
    first = DecoderLM(config)
    torch.manual_seed(7)
    second = DecoderLM(config)
    tokens = make_tokens()
    assert torch.equal(first(tokens).logits, second(tokens).logits)
    other, trained = make_model(config, seed=8), make_model(config, seed=9)
    assert not torch.equal(other(tokens).logits, trained(tokens).logits)
    other.load_state_dict(trained.state_dict())
    assert torch.equal(other(tokens).logits, trained(tokens).logits)


def test_the_next_draw_gives_other_weights() -> None:
    torch.manual_seed(0)
    first, second = DecoderLM(DENSE), DecoderLM(DENSE)
    assert not torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.embedding.weight, second.embedding.weight)


def test_a_tied_head_is_the_embedding() -> None:
    tied = DecoderLM(VARIANTS["tied"])
    assert tied.head.weight is tied.embedding.weight
    untied = DecoderLM(DENSE)
    assert untied.head.weight is not untied.embedding.weight
