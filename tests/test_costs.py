import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from slingshot import costs, facts, rules, serving, sizes
from slingshot.serving import Hardware, decode_step
from slingshot.sizes import (
    GPT_3,
    LLAMA_31_405B,
    V2,
    V3,
    ExpertConfig,
    LatentAttention,
    ModelConfig,
    MultiHeadAttention,
    count_parameters,
)

amounts = st.floats(1e-3, 1e27)
shares = st.floats(0.01, 1)

# V3's dimensions with other attentions, and Qwen2.5-72B: 80 layers, 8 key-value heads of 128.
V3_MHA = replace(V3, attention=MultiHeadAttention(n_heads=128, head_dim=128))
V3_GQA = replace(V3, attention=MultiHeadAttention(n_heads=128, head_dim=128, n_kv_heads=8))
V3_MQA = replace(V3, attention=MultiHeadAttention(n_heads=128, head_dim=128, n_kv_heads=1))
QWEN_72B = ModelConfig(8192, 80, 152064, 29568, MultiHeadAttention(64, 128, 8))


# --- configurations --------------------------------------------------------------------------


def test_the_configuration_of_v3_is_the_one_of_the_facts() -> None:
    attention, experts = V3.attention, V3.experts
    assert isinstance(attention, LatentAttention)
    assert experts
    for key, number in {
        "d_model": V3.d_model,
        "layers": V3.n_layers,
        "layers.dense": experts.n_dense_layers,
        "layers.moe": V3.n_layers - experts.n_dense_layers,
        "vocabulary": V3.vocab_size,
        "dense_dim": V3.d_ffn,
        "expert_dim": experts.d_expert,
        "experts.routed": experts.n_routed,
        "experts.shared": experts.n_shared,
        "experts.top_k": experts.top_k,
        "heads": attention.n_heads,
        "head_dim": attention.qk_nope_head_dim,
        "kv_latent": attention.kv_lora_rank,
        "kv_rope": attention.qk_rope_head_dim,
        "q_latent": attention.q_lora_rank,
    }.items():
        assert number == facts.value(f"v3.{key}"), key


def test_the_configurations_of_v2_and_llama_are_the_ones_of_the_facts() -> None:
    assert V2.n_layers == facts.value("v2.layers")
    assert LLAMA_31_405B.n_layers == facts.value("llama405b.layers")
    assert LLAMA_31_405B.d_model == facts.value("llama405b.d_model")
    assert isinstance(LLAMA_31_405B.attention, MultiHeadAttention)
    assert LLAMA_31_405B.attention.n_kv_heads == facts.value("llama405b.kv_heads")


# --- parameters ------------------------------------------------------------------------------


def test_v3_has_671_billion_parameters() -> None:
    count = count_parameters(V3)
    assert count.total == pytest.approx(671.0e9, abs=0.05e9)
    assert count.active == pytest.approx(37.55e9, abs=0.005e9)
    assert count.total == pytest.approx(facts.value("v3.parameters.total"), abs=0.5e9)
    # "37B" has no stated rule. It is the sum without the embedding, which is only looked up; with
    # it the sum would round to 38.
    published = facts.value("v3.parameters.active")
    assert count.active_without_embedding == pytest.approx(published, abs=0.5e9)
    assert count.active_without_embedding < published < count.active


def test_v2_has_236_billion_parameters() -> None:
    count = count_parameters(V2)
    assert count.total == pytest.approx(facts.value("v2.parameters.total"), abs=0.5e9)
    assert count.active == pytest.approx(facts.value("v2.parameters.active"), abs=0.5e9)


def test_llama_has_405_billion_parameters() -> None:
    count = count_parameters(LLAMA_31_405B)
    assert count.total == count.active == pytest.approx(405.85e9, abs=0.005e9)
    # The name truncates: 405.85 would round to 406.
    assert count.total // 1e9 == facts.value("llama405b.parameters") / 1e9


def test_gpt3_has_175_billion_parameters() -> None:
    count = count_parameters(GPT_3)
    assert count.total == pytest.approx(175e9, abs=0.5e9)
    # The tied table is the head, and of the 2,048 positions one row is looked up.
    assert count.total - count.active_without_embedding == 2048 * 12288 == count.positions


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("positions", [0, 2048])
def test_only_what_is_multiplied_counts_as_flops(tied: bool, positions: int) -> None:
    config = replace(GPT_3, tied_embedding=tied, learned_positions=positions)
    count = count_parameters(config)
    table, places = 50257 * 12288, positions * 12288
    assert count.looked_up == places + (0 if tied else table)
    assert count.active_without_embedding == count.active - count.looked_up
    assert count.embedding == table + places
    assert decode_step(config, h800(16), 1, 1).weight_bytes == count.total - count.looked_up


@pytest.mark.parametrize("config", [V3, V2, LLAMA_31_405B, GPT_3, V3_GQA])
def test_the_parts_add_up(config: ModelConfig) -> None:
    count = count_parameters(config)
    parts = count.embedding + count.head + count.attention + count.ffn + count.norm
    assert parts == count.total
    assert count.routed <= count.ffn
    assert count.active <= count.total


def real_parameters(model_class: Any, config: Any) -> int:  # noqa: ANN401
    """Parameters of a transformers model that is built without memory, balancing bias included."""
    with torch.device("meta"):
        model = model_class(config)
    biases = [b for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")]
    return sum(tensor.numel() for tensor in [*model.parameters(), *biases])


def deepseek_arguments(config: ModelConfig) -> dict[str, Any]:
    attention, experts = config.attention, config.experts
    assert isinstance(attention, LatentAttention)
    assert experts
    return {
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "vocab_size": config.vocab_size,
        "intermediate_size": config.d_ffn,
        "tie_word_embeddings": config.tied_embedding,
        "num_attention_heads": attention.n_heads,
        "num_key_value_heads": attention.n_heads,
        "kv_lora_rank": attention.kv_lora_rank,
        "q_lora_rank": attention.q_lora_rank,
        "qk_nope_head_dim": attention.qk_nope_head_dim,
        "qk_rope_head_dim": attention.qk_rope_head_dim,
        "v_head_dim": attention.v_head_dim,
        "n_routed_experts": experts.n_routed,
        "n_shared_experts": experts.n_shared,
        "num_experts_per_tok": experts.top_k,
        "moe_intermediate_size": experts.d_expert,
        "first_k_dense_replace": experts.n_dense_layers,
    }


SMALL_V3 = ModelConfig(
    d_model=48,
    n_layers=4,
    vocab_size=101,
    d_ffn=80,
    attention=LatentAttention(
        n_heads=3,
        kv_lora_rank=20,
        q_lora_rank=28,
        qk_nope_head_dim=10,
        qk_rope_head_dim=6,
        v_head_dim=14,
    ),
    experts=ExpertConfig(
        n_routed=16, n_shared=2, top_k=3, d_expert=24, n_dense_layers=1, router_bias=True
    ),
)


@pytest.mark.parametrize("q_lora_rank", [28, None])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("config", [V3, SMALL_V3])
def test_deepseek_v3_counts_like_transformers(
    config: ModelConfig, tied: bool, q_lora_rank: int | None
) -> None:
    assert isinstance(config.attention, LatentAttention)
    if q_lora_rank is None:
        config = replace(config, attention=replace(config.attention, q_lora_rank=None))
    config = replace(config, tied_embedding=tied)
    real = real_parameters(DeepseekV3ForCausalLM, DeepseekV3Config(**deepseek_arguments(config)))
    assert count_parameters(config).total == real


@pytest.mark.parametrize("config", [V2, replace(SMALL_V3, experts=ExpertConfig(16, 2, 3, 24, 1))])
def test_deepseek_v2_counts_like_transformers(config: ModelConfig) -> None:
    real = real_parameters(DeepseekV2ForCausalLM, DeepseekV2Config(**deepseek_arguments(config)))
    assert count_parameters(config).total == real


@pytest.mark.parametrize(
    "config",
    [
        LLAMA_31_405B,
        ModelConfig(48, 3, 101, 80, MultiHeadAttention(6, 8, 2)),
        ModelConfig(48, 3, 101, 80, MultiHeadAttention(4, 16, 1), tied_embedding=True),
        ModelConfig(48, 3, 101, 80, MultiHeadAttention(6, 8)),
    ],
)
def test_llama_counts_like_transformers(config: ModelConfig) -> None:
    attention = config.attention
    assert isinstance(attention, MultiHeadAttention)
    real = real_parameters(
        LlamaForCausalLM,
        LlamaConfig(
            hidden_size=config.d_model,
            num_hidden_layers=config.n_layers,
            vocab_size=config.vocab_size,
            intermediate_size=config.d_ffn,
            num_attention_heads=attention.n_heads,
            num_key_value_heads=attention.kv_heads,
            head_dim=attention.head_dim,
            tie_word_embeddings=config.tied_embedding,
        ),
    )
    assert count_parameters(config).total == real


@pytest.mark.parametrize("n_layers", [2, 96])
@pytest.mark.parametrize("tied", [False, True])
def test_gpt_counts_like_transformers(n_layers: int, tied: bool) -> None:
    config = replace(GPT_3, n_layers=n_layers, tied_embedding=tied)
    real = real_parameters(
        GPT2LMHeadModel,
        GPT2Config(
            n_embd=config.d_model,
            n_layer=n_layers,
            n_head=config.attention.n_heads,
            n_inner=config.d_ffn,
            n_positions=config.learned_positions,
            vocab_size=config.vocab_size,
            tie_word_embeddings=tied,
        ),
    )
    assert count_parameters(config).total == real


@pytest.mark.parametrize("config", [V3, V2, SMALL_V3])
def test_a_token_uses_the_chosen_and_the_shared_experts(config: ModelConfig) -> None:
    """Active is the total of a model that has only as many experts as a token uses."""
    assert config.experts
    count = count_parameters(config)
    n_moe = config.n_layers - config.experts.n_dense_layers
    slim = replace(config, experts=replace(config.experts, n_routed=config.experts.top_k))
    idle = config.experts.n_routed - config.experts.top_k
    rows = n_moe * idle * (config.d_model + config.experts.router_bias)
    assert count.active == count_parameters(slim).total + rows  # the router scores all experts


@given(st.integers(1, 400), st.integers(1, 5000), st.data())
def test_a_batch_touches_between_k_and_all_experts(
    n_routed: int, n_tokens: int, data: st.DataObject
) -> None:
    top_k = data.draw(st.integers(1, n_routed))
    touched = sizes.expected_experts(n_routed, top_k, n_tokens)
    assert top_k * (1 - 1e-9) <= touched <= n_routed
    assert sizes.expected_experts(n_routed, top_k, n_tokens + 1) >= touched


def test_the_experts_of_a_prompt_of_200_tokens() -> None:
    """99.8% of each layer's 256 experts, and close to what independent draws give."""
    expected = sizes.expected_experts(256, 8, 200)
    assert expected / 256 == pytest.approx(0.998, abs=0.0005)
    generator = torch.Generator().manual_seed(0)
    drawn = [
        len(set(torch.rand(20, 256, generator=generator).topk(8).indices.flatten().tolist()))
        for _ in range(400)
    ]
    mean = sum(drawn) / len(drawn)
    # A touched expert is a coin, and the coins of one batch repel each other, so binomial
    # variance bounds the variance of a batch; 5 standard errors.
    p = sizes.expected_experts(256, 8, 20) / 256
    assert abs(mean - 256 * p) < 5 * math.sqrt(256 * p * (1 - p) / len(drawn))


# --- training --------------------------------------------------------------------------------


def test_v3s_training_compute_and_utilization() -> None:
    flops = costs.training_flops(facts.value("v3.parameters.active"), facts.value("v3.tokens"))
    assert flops == pytest.approx(3.2856e24, rel=1e-9)
    hours = facts.value("v3.gpu_hours.pretraining")
    bf16 = costs.utilization(flops, hours, facts.value("chip.h800.bf16"))
    fp8 = costs.utilization(flops, hours, facts.value("chip.h800.fp8"))
    assert bf16 == pytest.approx(0.346, abs=0.0005)
    assert fp8 == pytest.approx(0.173, abs=0.0005)
    assert costs.gpu_hours(flops, facts.value("chip.h800.bf16"), bf16) == pytest.approx(hours)


def test_v3s_bill_and_calendar() -> None:
    price = facts.value("v3.price_per_gpu_hour")
    bill = costs.training_cost(facts.value("v3.gpu_hours.total"), price)
    assert bill == facts.value("v3.cost.total")
    n_gpus = int(facts.value("v3.gpus"))
    pretraining = costs.days(facts.value("v3.gpu_hours.pretraining"), n_gpus)
    assert pretraining == pytest.approx(54.2, abs=0.05)
    trillion = costs.days(facts.value("v3.gpu_hours.per_trillion_tokens"), n_gpus)
    assert trillion == pytest.approx(3.7, abs=0.05)


def test_llamas_training_compute() -> None:
    n, tokens = facts.value("llama405b.parameters"), facts.value("llama405b.tokens")
    flops = costs.training_flops(n, tokens)
    assert flops == pytest.approx(facts.value("llama405b.flops"), abs=0.05e25)
    hours, peak = facts.value("llama405b.gpu_hours"), facts.value("chip.h100.bf16")
    assert costs.utilization(flops, hours, peak) == pytest.approx(0.345, abs=0.0005)


def test_attention_brings_v3_to_deepseeks_figure() -> None:
    flops = costs.training_flops_with_attention(V3, 1, 4096)
    assert flops == pytest.approx(250.46e9, abs=0.005e9)
    assert flops == pytest.approx(facts.value("v3.flops_per_token"), abs=0.5e9)


def test_attention_flops_by_counting_pairs() -> None:
    config = ModelConfig(12, 2, 10, 16, MultiHeadAttention(3, 4, 1))
    pairs = sum(1 for query in range(7) for key in range(7) if key <= query)
    # A pair is one product and one sum per channel in the score, as many in the weighted sum.
    forward = 2 * pairs * 3 * (2 * 4 + 2 * 4)
    assert costs.attention_flops(config, 7, 7) == 3 * forward
    full = costs.attention_flops(config, 7, 7, causal=False)
    assert full == 3 * forward * 49 / pairs


def test_attention_flops_of_unpacked_latents() -> None:
    config = replace(SMALL_V3, n_layers=1, experts=None)
    # 3 heads; keys of 10 + 6 channels, values of 14; one position.
    assert costs.attention_flops(config, 1, 1) == 3 * 3 * (2 * 16 + 2 * 14)


@given(amounts, st.floats(1e6, 1e16), shares)
def test_gpu_hours_and_utilization_are_inverse(flops: float, peak: float, mfu: float) -> None:
    hours = costs.gpu_hours(flops, peak, mfu)
    assume(mfu < 0.999)  # rounding may lift a share of 1 above 1, which is refused
    assert costs.utilization(flops, hours, peak) == pytest.approx(mfu)


@given(amounts, st.floats(1, 1e16), shares, st.floats(1.01, 100))
def test_more_work_takes_longer_and_a_faster_gpu_less_long(
    flops: float, peak: float, mfu: float, factor: float
) -> None:
    hours = costs.gpu_hours(flops, peak, mfu)
    assert costs.gpu_hours(flops * factor, peak, mfu) > hours
    assert costs.gpu_hours(flops, peak * factor, mfu) < hours
    assert costs.gpu_hours(flops, peak, mfu / factor) > hours
    assert costs.training_cost(hours * factor, 2) > costs.training_cost(hours, 2)


# --- memory and the roofline -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (V3, 70_272),
        (V3_MHA, 3_997_696),
        (V3_GQA, 249_856),
        (V3_MQA, 31_232),
        (QWEN_72B, 327_680),
        (LLAMA_31_405B, 516_096),
    ],
)
def test_kv_cache_per_token(config: ModelConfig, expected: int) -> None:
    assert sizes.kv_cache_bytes_per_token(config, 2) == expected


def test_v2s_cache_against_the_dense_67b() -> None:
    dense_67b = ModelConfig(8192, 95, 102400, 22016, MultiHeadAttention(64, 128, 8))
    small = sizes.kv_cache_bytes_per_token(V2, facts.value("v2.kv_cache.bits") / 8)
    saving = 1 - small / sizes.kv_cache_bytes_per_token(dense_67b, 2)
    assert 100 * saving == pytest.approx(facts.value("v2.saving.kv_cache"), abs=0.05)


@given(st.integers(1, 8), st.integers(1, 64))
def test_groups_divide_the_cache(log_groups: int, head_dim: int) -> None:
    heads = 2**8
    mha = ModelConfig(8, 1, 8, 8, MultiHeadAttention(heads, head_dim))
    gqa = ModelConfig(8, 1, 8, 8, MultiHeadAttention(heads, head_dim, heads >> log_groups))
    ratio = sizes.kv_cache_bytes_per_token(mha, 2) / sizes.kv_cache_bytes_per_token(gqa, 2)
    assert ratio == 2**log_groups


def test_weights_in_memory() -> None:
    assert sizes.weight_bytes(671e9, 8) == 671e9
    assert sizes.weight_bytes(671e9, 16) == 1342e9
    assert sizes.weight_bytes(100, 4.25) == 53.125


def test_a_linear_layer() -> None:
    cost = serving.linear_layer_cost(2, 3, 5, 4)
    assert cost.flops == 60
    assert cost.bytes == 4 * (6 + 15 + 10)
    assert serving.arithmetic_intensity(*cost) == 60 / 124


def test_what_the_wires_take_is_as_v3_s_makers_count_it() -> None:
    """Two half batches of 32, nine experts a token, 7,000 numbers, 50 GB/s: 14.76 ms."""
    one_layer = serving.exchange_seconds(32, 9, 7000, 1, 50e9)
    assert one_layer == pytest.approx(120.96e-6)
    step = serving.exchange_seconds(64, 9, 7000, 61, facts.value("v3.infiniband.usable"))
    assert step == pytest.approx(facts.value("v3.decode_bound.seconds"), rel=1e-3)


@given(amounts, amounts, st.floats(1, 1e16), st.floats(1, 1e13))
def test_the_roofline_is_the_slower_of_both(
    flops: float, moved: float, peak: float, bandwidth: float
) -> None:
    seconds = serving.roofline_seconds(flops, moved, peak, bandwidth)
    assert seconds in (flops / peak, moved / bandwidth)
    assert seconds >= flops / peak
    assert seconds >= moved / bandwidth
    memory_bound = serving.arithmetic_intensity(flops, moved) < peak / bandwidth * (1 - 1e-9)
    if memory_bound:
        assert seconds == moved / bandwidth


# --- decoding --------------------------------------------------------------------------------


def h800(n_gpus: int) -> Hardware:
    """H800 with its BF16 peak, in which the larger part of V3's decoding runs: attention."""
    return Hardware(
        "H800",
        peak_flops=facts.value("chip.h800.bf16"),
        bandwidth=facts.value("chip.h800.bandwidth"),
        memory_bytes=facts.value("chip.h800.memory"),
        n_gpus=n_gpus,
    )


def test_one_sequence_reads_its_experts_and_its_cache() -> None:
    step = decode_step(V3, h800(16), 1, 1000, weight_bits=8)
    assert step.weight_bytes == pytest.approx(count_parameters(V3).active_without_embedding)
    assert step.cache_bytes == 70_272_000
    assert step.bound == "memory"
    assert step.seconds == (step.weight_bytes + step.cache_bytes) / (16 * 3.35e12)
    assert step.tokens_per_second == 1 / step.seconds


def test_a_large_batch_reads_all_experts_once() -> None:
    step = decode_step(V3, h800(144), 10_000, 1000)
    count = count_parameters(V3)
    assert step.weight_bytes == pytest.approx(count.total - count.embedding)


def test_a_dense_model_reads_all_weights_at_any_batch() -> None:
    steps = [decode_step(LLAMA_31_405B, h800(16), batch, 100) for batch in (1, 64)]
    assert steps[0].weight_bytes == steps[1].weight_bytes
    assert steps[0].weight_bytes == count_parameters(LLAMA_31_405B).active_without_embedding


def test_data_parallel_gpus_read_a_copy_each() -> None:
    count = count_parameters(V3)
    divided = decode_step(V3, h800(144), 288, 100)
    copied = decode_step(V3, h800(144), 288, 100, data_parallel=True)
    rest = count.total - count.routed - count.embedding
    assert copied.weight_bytes - divided.weight_bytes == pytest.approx(143 * rest)
    assert copied.cache_bytes == divided.cache_bytes


def test_deepseeks_own_bound_on_decoding() -> None:
    """Two half batches take turns on the link in each of V3's layers (arXiv 2505.09343, §2.3.2)."""
    assert V3.experts is not None
    n_copies = V3.experts.top_k + V3.experts.n_shared
    half = int(facts.value("v3.decode_bound.batch"))
    link = facts.value("v3.infiniband.usable")
    journey = serving.exchange_seconds(half, n_copies, 7000, V3.n_layers, link)  # they write 7K
    published = facts.value("v3.decode_bound.seconds")
    assert 2 * journey == pytest.approx(published, abs=0.5e-5)  # as printed


def test_decode_flops_of_absorbed_attention() -> None:
    step = decode_step(V3, h800(16), 3, 1000)
    # Per position, layer and head: a score over 512 + 64 channels, a weighted sum over 512.
    attention = 61 * 128 * 1000 * (2 * 576 + 2 * 512)
    assert step.flops == 3 * (2 * count_parameters(V3).active_without_embedding + attention)
    assert step.attention_flops == 3 * attention


def test_decoding_reaches_the_order_of_deepseeks_own_figure() -> None:
    """A bound must lie above the measurement, and a useful one within an order of magnitude.

    The sequences on a node follow from the published figures: tokens per second of a node over
    tokens per second of an answer.
    """
    node = facts.value("inference.speed.output")
    answer = (
        facts.value("inference.speed.sequence.low") + facts.value("inference.speed.sequence.high")
    ) / 2
    n_gpus = int(facts.value("inference.deployment.decode_unit"))
    n_nodes = n_gpus / facts.value("inference.gpus_per_node")
    context = int(facts.value("inference.context"))
    step = decode_step(
        V3, h800(n_gpus), round(node / answer * n_nodes), context, data_parallel=True
    )
    assert node < step.tokens_per_second / n_nodes < 10 * node


@given(st.integers(1, 200), st.integers(1, 4000))
def test_decoding_trades_latency_for_throughput(batch: int, context: int) -> None:
    one, more = (decode_step(V3, h800(32), b, context) for b in (batch, 2 * batch))
    assert more.seconds >= one.seconds
    assert more.tokens_per_second >= one.tokens_per_second * (1 - 1e-12)
    longer = decode_step(V3, h800(32), batch, context + 1)
    assert longer.seconds > one.seconds


# --- prices ----------------------------------------------------------------------------------


def test_deepseeks_day_of_inference() -> None:
    nodes = facts.value("inference.nodes.average")
    gpus = nodes * facts.value("inference.gpus_per_node")
    cost = costs.training_cost(gpus * 24, facts.value("v3.price_per_gpu_hour"))
    assert cost == facts.value("inference.cost_per_day")
    inputs, outputs = facts.value("inference.tokens.input"), facts.value("inference.tokens.output")
    price = costs.blended_price(
        facts.value("price.r1.input"),
        facts.value("price.r1.output"),
        facts.value("price.r1.input.cached"),
        output_share=outputs / (inputs + outputs),
        cache_share=facts.value("inference.tokens.cache_hits") / inputs,
    )
    # 342, 266 and 168 billion tokens at $0.14, $0.55 and $2.19 a million.
    assert price * (inputs + outputs) / 1e6 == pytest.approx(562_100)
    revenue = facts.value("inference.revenue_per_day")
    stated = facts.value("inference.markup")
    assert 100 * costs.markup(revenue, cost) == pytest.approx(stated, abs=0.5)
    assert costs.gross_margin(revenue, cost) == pytest.approx(0.845, abs=0.0005)


def test_the_rent_of_a_node_per_million_tokens() -> None:
    dollars = costs.dollars_per_million_tokens(16, 14_800)
    assert dollars * 14_800 * 3600 / 1e6 == pytest.approx(16)


# Within a factor of a hundred: beyond it, 1 + markup loses digits to the subtraction before it.
@given(st.floats(1, 100), st.floats(1, 100))
def test_markup_and_margin_say_the_same(revenue: float, cost: float) -> None:
    markup = costs.markup(revenue, cost)
    assert 1 - costs.gross_margin(revenue, cost) == pytest.approx(1 / (1 + markup))


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(0, 1), st.floats(0, 1))
def test_a_blended_price_lies_between_the_prices(
    fresh: float, out: float, cached: float, output_share: float, cache_share: float
) -> None:
    price = costs.blended_price(
        fresh, out, cached, output_share=output_share, cache_share=cache_share
    )
    assert min(fresh, out, cached) * (1 - 1e-9) <= price
    assert price <= max(fresh, out, cached) * (1 + 1e-9)
    assert costs.blended_price(fresh, out, output_share=1) == out
    assert costs.blended_price(fresh, out, output_share=0) == fresh


# --- export rules ----------------------------------------------------------------------------

# TPP, die in mm², link in GB/s; then whether 2022 and which paragraph of 2023 catches it. For the
# H20 the second answer is None: it turns on a threshold that is only reported.
CHIPS = {
    "A100": (4992, 826, 600, True, "3A090.a"),
    "A800": (4992, 826, 400, False, "3A090.a"),
    "H100": (15_832, 814, 900, True, "3A090.a"),
    "H800": (15_832, 814, 400, False, "3A090.a"),
    "H20": (2368, 814, 900, False, None),
}


@pytest.mark.parametrize("name", CHIPS)
def test_the_rules_on_the_chips_of_the_story(name: str) -> None:
    tpp, die, link, caught_2022, paragraph = CHIPS[name]
    density = rules.performance_density(tpp, die)
    assert rules.rule_2022(tpp, link).controlled is caught_2022
    verdict = rules.rule_2023(tpp, density)
    assert verdict.controlled is bool(verdict.paragraph)
    assert paragraph in (verdict.paragraph, None)


def test_the_h20_is_below_the_performance_that_catches_any_die() -> None:
    tpp = CHIPS["H20"][0]
    assert tpp < facts.value("rule.2023.b.performance")
    dense = rules.rule_2023(tpp, facts.value("rule.2023.density"))
    assert dense.paragraph == "3A090.a"


def test_the_chips_numbers_are_those_of_the_facts() -> None:
    def tpp(chip: str, eight: str, sixteen: str = "bf16") -> float:
        rates = ((sixteen, 16), (eight, 8))
        return max(
            rules.total_processing_performance(facts.value(f"chip.{chip}.{key}") / 1e12, bits)
            for key, bits in rates
        )

    assert tpp("a100", "int8") == CHIPS["A100"][0]
    for chip in ("h100", "h800", "h20"):
        assert tpp(chip, "fp8") == CHIPS[chip.upper()][0]
    for chip in ("a100", "a800", "h100", "h800", "h20"):
        assert facts.value(f"chip.{chip}.nvlink") / 1e9 == CHIPS[chip.upper()][2]
    for chip in ("a100", "h100"):
        assert facts.value(f"chip.{chip}.die") == CHIPS[chip.upper()][1]
    density = rules.performance_density(*CHIPS["H20"][:2])
    assert density == pytest.approx(facts.value("chip.h20.density"), abs=0.05)


@pytest.mark.parametrize(
    ("tpp", "density", "paragraph"),
    [
        (4800, 0.1, "3A090.a"),
        (4799, 0.1, ""),
        (1600, 5.92, "3A090.a"),
        (1599, 50, ""),
        (2400, 1.6, "3A090.b"),
        (2400, 1.59, ""),
        (2399, 1.6, ""),
        (4799, 5.91, "3A090.b"),
        (4799, 5.92, "3A090.a"),
    ],
)
def test_the_edges_of_the_rule_of_2023(tpp: float, density: float, paragraph: str) -> None:
    assert rules.rule_2023(tpp, density).paragraph == paragraph


@pytest.mark.parametrize(
    ("tpp", "link", "controlled"), [(4800, 600, True), (4799, 600, False), (4800, 599, False)]
)
def test_the_edges_of_the_rule_of_2022(tpp: float, link: float, controlled: bool) -> None:
    assert rules.rule_2022(tpp, link).controlled is controlled


def test_a_verdict_says_why() -> None:
    assert rules.rule_2022(15_832, 400).reason == "400 GB/s is below 600; the rule asks for both"
    both = rules.rule_2022(1000, 0).reason
    assert both == "1,000 TPP is below 4,800 and 0 GB/s is below 600; the rule asks for both"
    assert rules.rule_2023(15_832, 19.4).reason == "15,832 TPP reaches 4,800"
    second = rules.rule_2023(2000, 6).reason
    assert second == "2,000 TPP reaches 1,600 and 6 TPP/mm² reaches 5.92"
    assert "meets no pair" in rules.rule_2023(1000, 2.9).reason


# --- wrong arguments -------------------------------------------------------------------------

MHA = MultiHeadAttention(4, 8)
HERE = Hardware("chip", 1e12, 1e12, 80e9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MultiHeadAttention(0, 8), "n_heads is 0; give a whole number, at least 1"),
        (lambda: MultiHeadAttention(4, 8, 3), "n_kv_heads 3 does not divide n_heads 4"),
        (lambda: MultiHeadAttention(4, 8, 8), "n_kv_heads 8 does not divide n_heads 4"),
        (lambda: LatentAttention(4, 0, None, 8, 8, 8), "kv_lora_rank is 0"),
        (lambda: LatentAttention(4, 8, 0, 8, 8, 8), "q_lora_rank is 0"),
        (lambda: ExpertConfig(4, 0, 5, 8), "top_k 5 exceeds n_routed 4"),
        (lambda: ExpertConfig(4, -1, 2, 8), "n_shared is -1; give a whole number, at least 0"),
        (lambda: ModelConfig(8, 2, 8, 1.5, MHA), "d_ffn is 1.5; give a whole number"),  # type: ignore[arg-type]
        (lambda: ModelConfig(8, True, 8, 8, MHA), "n_layers is True"),
        (lambda: ModelConfig(8, 2, 8, 8, MHA, learned_positions=-1), "learned_positions is -1"),
        (lambda: ModelConfig(8, 2, 8, 8, MHA, ExpertConfig(4, 0, 2, 8, 2)), "leaves no layer of 2"),
        (lambda: count_parameters(replace(V3, bias=True)), "give bias=False"),
        (lambda: sizes.expected_experts(4, 5, 1), "top_k 5 exceeds n_routed 4"),
        (lambda: sizes.expected_experts(4, 2, 0), "n_tokens is 0"),
        (lambda: costs.training_flops(0, 1), "n_active is 0; give a finite number above 0"),
        (lambda: costs.training_flops(1, math.nan), "n_tokens is nan"),
        (lambda: costs.attention_flops(V3, 1, 0), "sequence_length is 0"),
        (lambda: costs.gpu_hours(1, 1, 1.01), "mfu is 1.01; give a share between 0 and 1"),
        (lambda: costs.gpu_hours(1, 1, 0), "mfu is 0 and the work never ends"),
        (lambda: costs.gpu_hours(1, math.inf, 0.5), "peak_flops is inf"),
        (lambda: costs.utilization(1e15, 1, 1e9), "utilization is 278.*check the units"),
        (lambda: costs.training_cost(-1, 2), "hours is -1"),
        (lambda: costs.days(1, 0), "n_gpus is 0"),
        (lambda: sizes.kv_cache_bytes_per_token(V3, 0), "bytes_per_element is 0"),
        (lambda: sizes.weight_bytes(1, -8), "bits is -8"),
        (lambda: serving.linear_layer_cost(1, 0, 1, 2), "k is 0"),
        (lambda: serving.arithmetic_intensity(1, 0), "bytes_moved is 0"),
        (lambda: serving.roofline_seconds(-1, 1, 1, 1), "flops is -1; give a finite number, at"),
        (lambda: serving.roofline_seconds(1, 1, 1, 0), "bandwidth is 0"),
        (lambda: serving.exchange_seconds(1, 0, 1, 1, 1), "copies is 0"),
        (lambda: serving.exchange_seconds(0, 1, 1, 1, 1), "n_tokens is 0"),
        (lambda: Hardware("x", 1, 1, 0), "memory_bytes is 0"),
        (lambda: decode_step(V3, HERE, 1, 1), r"671.0 GB of weights.*80.0 GB of 1 chip.*more GPUs"),
        (lambda: decode_step(V3, h800(16), 0, 1), "batch_size is 0"),
        (lambda: decode_step(V3, h800(16), 8, 1, data_parallel=True), "leaves some of 16"),
        (lambda: costs.dollars_per_million_tokens(1, 0), "tokens_per_second is 0"),
        (lambda: costs.blended_price(1, -1, output_share=0.5), "output_price is -1"),
        (lambda: costs.blended_price(1, 1, output_share=50), "output_share is 50.*0.4 for 40%"),
        (lambda: costs.blended_price(1, 1, output_share=0.5, cache_share=0.5), "give cached_price"),
        (lambda: costs.markup(1, 0), "cost is 0"),
        (lambda: costs.gross_margin(0, 1), "revenue is 0"),
        (lambda: rules.total_processing_performance(1, 0), "bits is 0"),
        (lambda: rules.performance_density(1, 0), "die_mm2 is 0"),
        (lambda: rules.rule_2022(1, -1), "interconnect_gb_per_s is -1"),
        (lambda: rules.rule_2023(math.nan, 1), "tpp is nan"),
    ],
)
def test_a_wrong_argument_is_named(call: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=message):
        call()
