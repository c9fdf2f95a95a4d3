"""Time slingshot.moe.TopKRouter against DeepseekV3TopkRouter of transformers, forward pass only.

Both route the same tokens with the same weights. A ratio above 1 means that slingshot is faster. It
checks its input for NaN, which the reference does not.
"""

import sys
from functools import partial
from typing import Any

import timing
import torch
from torch import Tensor
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

from slingshot.moe import TopKRouter

D_MODEL = 512
TOP_K = 8
N_GROUPS = 8
TOPK_GROUPS = 4
ROUTE_SCALE = 2.5
# Each timing repeats the call until this many tokens are routed: long against the clock's step.
TOKENS_PER_TIMING = 16384


def main() -> None:
    """Measure every shape, print the table, write the file if asked."""
    arguments = timing.parse_arguments("Time the router against that of transformers.", rounds=21)
    timing.print_machine()
    print(
        f"d_model {D_MODEL}, top-{TOP_K} in {TOPK_GROUPS} of {N_GROUPS} groups, float32, no "
        f"gradients, median of {arguments.rounds} rounds, microseconds of CPU time per call\n"
    )
    print(f"{'tokens':>6} {'experts':>7} | {'slingshot':>9} {'transformers':>12} {'ratio':>6}")
    rows = []
    for n_experts in (64, 256):
        for n_tokens in (256, 2048):
            rows.append(row := measure(n_tokens, n_experts, arguments.rounds))
            print(
                f"{n_tokens:>6} {n_experts:>7} | {row['slingshot']:>9.0f} "
                f"{row['transformers']:>12.0f} {row['ratio']:>6.2f}"
            )
    timing.write_report(arguments.json, arguments.rounds, rows)


def measure(n_tokens: int, n_experts: int, rounds: int) -> dict[str, Any]:
    """Time both routers on one shape, after checking that they give the same answer."""
    ours, theirs = make_routers(n_experts)
    x = torch.randn(n_tokens, D_MODEL, generator=torch.Generator().manual_seed(timing.SEED))
    calls = max(1, TOKENS_PER_TIMING // n_tokens)
    with torch.inference_mode():
        check_same_answer(ours, theirs, x)
        contestants = {"slingshot": partial(ours, x), "transformers": partial(theirs, x)}
        seconds = timing.interleave(contestants, rounds, calls)
    micros = {name: 1e6 * duration.cpu for name, duration in seconds.items()}
    ratio = micros["transformers"] / micros["slingshot"]
    return {"n_tokens": n_tokens, "n_experts": n_experts, **micros, "ratio": ratio}


def make_routers(n_experts: int) -> tuple[TopKRouter, DeepseekV3TopkRouter]:
    """Return the two routers with the same random weight and bias."""
    torch.manual_seed(timing.SEED)
    ours = TopKRouter(
        D_MODEL,
        n_experts,
        TOP_K,
        n_groups=N_GROUPS,
        topk_groups=TOPK_GROUPS,
        route_scale=ROUTE_SCALE,
    )
    torch.nn.init.normal_(ours.expert_bias, std=0.01)
    config = DeepseekV3Config(
        hidden_size=D_MODEL,
        n_routed_experts=n_experts,
        num_experts_per_tok=TOP_K,
        n_group=N_GROUPS,
        topk_group=TOPK_GROUPS,
        norm_topk_prob=True,
        routed_scaling_factor=ROUTE_SCALE,
    )
    theirs = DeepseekV3TopkRouter(config)
    theirs.load_state_dict({"weight": ours.weight, "e_score_correction_bias": ours.expert_bias})
    return ours, theirs


def check_same_answer(ours: TopKRouter, theirs: DeepseekV3TopkRouter, x: Tensor) -> None:
    """Exit unless both send nearly every token to the same experts with the same weights."""
    routing = ours(x)
    _, weights, experts = theirs(x)
    empty = torch.zeros_like(routing.scores)
    gap = empty.scatter(1, routing.experts, routing.weights) - empty.scatter(1, experts, weights)
    differing = int((gap.abs().amax(dim=1) > 1e-6).sum())
    # One token in a thousand may sit on a tie, which the two may break differently.
    if differing > len(x) / 1000:
        sys.exit(f"the two routers disagree on {differing} of {len(x)} tokens; nothing was timed")


if __name__ == "__main__":
    main()
