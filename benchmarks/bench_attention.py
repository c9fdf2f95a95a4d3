"""Time one step of decoding by kind of attention, alone and against transformers.

First a whole model of four layers, untrained, float32, one text: a new token is read behind caches
of several lengths. Kinds differ in what a token leaves in them: keys and values of all heads (MHA),
of fewer (GQA, MQA), or one latent (MLA), which is read as it is, or unpacked at every step, or kept
unpacked. Beside it stands what this core can do: bytes a second that one core reads in a product of
a matrix and a vector, and operations a second in a product of two matrices.

Then single layers against transformers, with the same weights and the same cache: LlamaAttention,
and DeepseekV3Attention, which keeps the latent and unpacks it at every step. Both must first give
the same, to 1e-5 of outputs of about 1. A ratio above 1 means that slingshot is faster.

Why it is. Llama's: transformers appends a token by copying the cache, here it is written into room
that is there. DeepSeek's: here the query is carried to the latents, so nothing is unpacked. What
holds slingshot back: absorbed, every head multiplies with all channels of the latent, which one
core computes at less than half the rate of large matrices.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import timing
import torch
from torch import Tensor, nn
from transformers import DeepseekV3Config, DynamicCache, LlamaConfig
from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.llama import modeling_llama

from slingshot import sizes
from slingshot.attention import (
    Attention,
    KVCache,
    LatentAttention,
    LatentCache,
    TokenCache,
    rotations,
)
from slingshot.lm import DecoderLM, LMConfig

LENGTHS = (1024, 4096, 16384)
LATENT = sizes.LatentAttention(
    n_heads=16,
    kv_lora_rank=128,
    q_lora_rank=None,
    qk_nope_head_dim=64,
    qk_rope_head_dim=32,
    v_head_dim=64,
)
D_MODEL, N_LAYERS, N_HEADS, HEAD_DIM = 512, 4, 16, 64
KINDS: dict[str, dict[str, Any]] = {
    "MHA": {},
    "GQA, 4 key-value heads": {"n_kv_heads": 4},
    "MQA": {"n_kv_heads": 1},
    "MLA, absorbed": {"attention": LATENT},
    "MLA, unpacked each step": {"attention": LATENT},
    "MLA, kept unpacked": {"head_dim": 80},  # keys of 96 and values of 64: as many numbers
}

Step = Callable[[], object]


def main() -> None:
    """Measure both tables, print them, write the file if asked."""
    arguments = timing.parse_arguments("Time decoding by kind of attention.", rounds=7)
    timing.print_machine()
    limits = timing.machine_limits(arguments.rounds)
    print(f"one core: {limits['bandwidth'] / 1e9:.1f} GB/s, {limits['flops'] / 1e9:.0f} GFLOP/s")
    print(f"milliseconds a token, median of {arguments.rounds} rounds (CPU time)")
    rows = []
    for length in LENGTHS:
        rows += (found := measure_models(length, arguments.rounds))
        for row in found:
            print(f"  T={length:>6} {row['kind']:>24} {1e3 * row['cpu']:8.2f}")
    print("one layer, one token; ratio of transformers to slingshot (lowest to highest)")
    peers = []
    for length in LENGTHS:
        peers += (found := measure_peers(length, arguments.rounds))
        for row in found:
            low, high = row["spread"]
            print(
                f"  T={length:>6} {row['kind']:>24} {1e3 * row['cpu']:8.2f} ms "
                f"{row['ratio']:7.2f} ({low:.2f} to {high:.2f})"
            )
    timing.write_report(
        arguments.json, arguments.rounds, [{"machine": limits}, {"models": rows}, {"peers": peers}]
    )


def measure_models(length: int, rounds: int) -> list[dict[str, Any]]:
    """Time a step of each model behind ``length`` tokens, in turn."""
    steps = {kind: model_step(kind, length) for kind in KINDS}
    with torch.inference_mode():
        times = timing.interleave(steps, rounds)
    return [
        {
            "kind": kind,
            "length": length,
            "cpu": times[kind].cpu,
            "cached_elements": elements(kind),
            "parameters": sizes.count_parameters(config(kind).sizes()).active_without_embedding,
            "flops_per_position": config(kind).sizes().attention.decode_flops_per_position,
        }
        for kind in KINDS
    ]


def config(kind: str) -> LMConfig:
    """The model of a kind."""
    settings = {"head_dim": HEAD_DIM, **KINDS[kind]}
    if "attention" in settings:
        settings["head_dim"] = None
    return LMConfig(512, D_MODEL, N_LAYERS, N_HEADS, 1376, **settings)


def elements(kind: str) -> int:
    """Numbers that a token leaves in a layer."""
    return config(kind).sizes().attention.cached_elements


def model_step(kind: str, length: int) -> Step:
    """Return what reads one token behind full caches, again and again."""
    torch.manual_seed(timing.SEED)
    model = DecoderLM(config(kind)).eval()
    caches = model.make_caches(length + 1)
    for cache in caches:
        fill(cache, config(kind), length)
    rotation = model.rotations(length + 1)[:, length:]
    token = torch.tensor([[1]])
    unpacked = kind == "MLA, unpacked each step"

    def step() -> Tensor:
        for cache in caches:
            cache.length = length
        if not unpacked:
            return model.head(model.read(token, rotation, caches)[0])  # type: ignore[no-any-return]
        x = model.embedding(token)
        for layer, cache in zip(model.layers, caches, strict=True):
            attention: Any = layer.attention
            x = x + attention(layer.attention_norm(x), cache, rotation=rotation)  # type: ignore[operator]
            x = x + layer.ffn(layer.ffn_norm(x))  # type: ignore[operator]
        return model.head(x)  # type: ignore[no-any-return]

    return step


def fill(cache: TokenCache, config: LMConfig, length: int) -> None:
    """Put ``length`` random tokens into an empty cache."""
    if isinstance(cache, LatentCache):
        cache.append(torch.randn(1, length, LATENT.cached_elements))
    elif isinstance(cache, KVCache):
        shape = (1, config.n_kv_heads or config.n_heads, length, config.width_of_head)
        cache.append(torch.randn(shape), torch.randn(shape))


def measure_peers(length: int, rounds: int) -> list[dict[str, Any]]:
    """Time one layer of each kind against that of transformers."""
    makers: dict[str, Callable[[int], tuple[Step, Step]]] = {
        "MHA": partial(llama_steps, N_HEADS),
        "GQA, 4 key-value heads": partial(llama_steps, 4),
        "MQA": partial(llama_steps, 1),
        "MLA": deepseek_steps,
    }
    rows = []
    for kind, make in makers.items():
        torch.manual_seed(timing.SEED)
        ours, theirs = make(length)
        with torch.inference_mode():
            check_same(kind, ours, theirs)
            timers = [partial(timing.time_calls, step, 3) for step in (ours, theirs)]
            times = timing.in_turn(dict(zip(("ours", "theirs"), timers, strict=True)), rounds)
        figures = timing.beside(times["theirs"], times["ours"])
        rows.append(
            {
                "kind": kind,
                "length": length,
                "cpu": timing.median(times["ours"]).cpu,
                "theirs": figures["cpu"],
                "ratio": figures["ratio"],
                "spread": figures["spread"],
            }
        )
    return rows


def check_same(kind: str, ours: Step, theirs: Step) -> None:
    """Exit unless both give the same."""
    own, other = ours(), theirs()
    assert isinstance(own, Tensor)
    assert isinstance(other, Tensor)
    off = float((own - other).abs().max())
    if not off < 1e-5:
        sys.exit(f"{kind}: outputs differ by {off}; nothing was timed")


def randomize(module: nn.Module) -> None:
    """Draw all matrices, so that outputs are about 1."""
    for parameter in module.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)


def llama_steps(n_kv_heads: int, length: int) -> tuple[Step, Step]:
    """Return a step of ours and of LlamaAttention."""
    settings = LlamaConfig(
        hidden_size=D_MODEL,
        num_attention_heads=N_HEADS,
        num_key_value_heads=n_kv_heads,
        head_dim=HEAD_DIM,
        attn_implementation="sdpa",  # type: ignore[call-arg]  # read by the base class
    )
    ours = Attention(D_MODEL, N_HEADS, HEAD_DIM, n_kv_heads).eval()
    randomize(ours)
    theirs = modeling_llama.LlamaAttention(settings, 0).eval()
    theirs.load_state_dict(
        {
            f"{their}.weight": getattr(ours, our).weight
            for our, their in zip(
                ("query", "key", "value", "output"),
                ("q_proj", "k_proj", "v_proj", "o_proj"),
                strict=True,
            )
        }
    )
    shape = (1, n_kv_heads, length, HEAD_DIM)
    key, value = torch.randn(shape), torch.randn(shape)
    cache = KVCache(length + 1)
    cache.append(key, value)
    turn = modeling_llama.LlamaRotaryEmbedding(settings)
    turns = rotations(length + 1, HEAD_DIM, 10_000.0, torch.device("cpu"))
    rotation = turns[:, length:]
    x = torch.randn(1, 1, D_MODEL)

    def step() -> Tensor:
        cache.length = length
        return ours(x, rotation, cache)  # type: ignore[no-any-return]

    return step, their_step(theirs, turn, x, key, value, length)


def deepseek_steps(length: int) -> tuple[Step, Step]:
    """Return a step of ours, absorbed, and of DeepseekV3Attention."""
    settings = DeepseekV3Config(
        hidden_size=D_MODEL,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_HEADS,
        kv_lora_rank=LATENT.kv_lora_rank,
        q_lora_rank=None,
        qk_nope_head_dim=LATENT.qk_nope_head_dim,
        qk_rope_head_dim=LATENT.qk_rope_head_dim,
        v_head_dim=LATENT.v_head_dim,
        rope_interleave=False,
        attn_implementation="sdpa",  # type: ignore[call-arg]  # read by the base class
    )
    theirs = modeling_deepseek_v3.DeepseekV3Attention(settings, 0).eval()
    randomize(theirs)
    ours = LatentAttention.from_deepseek(theirs.state_dict(), settings).eval()
    latents = torch.randn(1, length, LATENT.cached_elements)
    cache = LatentCache(length + 1)
    cache.append(latents)
    latent, key = (
        latents[:, None, :, : LATENT.kv_lora_rank],
        latents[:, None, :, LATENT.kv_lora_rank :],
    )
    turn = modeling_deepseek_v3.DeepseekV3RotaryEmbedding(settings)
    rotation = ours.rotations(length + 1)[:, length:]
    x = torch.randn(1, 1, D_MODEL)

    def step() -> Tensor:
        cache.length = length
        return ours(x, cache, absorbed=True, rotation=rotation)  # type: ignore[no-any-return]

    return step, their_step(theirs, turn, x, latent, key, length)


def their_step(
    layer: nn.Module, turn: nn.Module, x: Tensor, key: Tensor, value: Tensor, length: int
) -> Step:
    """Return a step of transformers behind a cache that holds ``key`` and ``value``."""
    cache = DynamicCache()
    cache.update(key.contiguous(), value.contiguous(), 0)
    places = turn(x, torch.tensor([[length]]))

    def step() -> Tensor:
        found: Tensor = layer(x, places, None, past_key_values=cache)[0]
        cache.crop(-1)
        return found

    return step


if __name__ == "__main__":
    main()
