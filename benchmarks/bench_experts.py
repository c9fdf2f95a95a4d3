"""Time slingshot.moe.Experts against the experts of transformers and a dense network.

All run the same tokens through the same weights, given the same choices; the router is left out.
The dense network is one SwiGLU with the FLOPs of the chosen experts: the speed that dispatch can at
best reach. transformers is measured in each of its implementations that fits in memory; the one
that it takes by default on a CPU is grouped_mm. A ratio above 1 means that slingshot is faster.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import timing
import torch
from torch import Tensor, nn
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Experts

from slingshot.moe import Experts, SwiGLU

N_TOKENS = 2048
# d_model, experts, top-k, width of an expert
SHAPES = ((512, 32, 4, 256), (512, 64, 8, 128), (256, 8, 2, 512))
PEERS = ("grouped_mm", "eager")


def main() -> None:
    """Measure every shape, print the table, write the file if asked."""
    arguments = timing.parse_arguments("Time the experts against those of transformers.", rounds=7)
    timing.print_machine()
    print(
        f"{N_TOKENS} tokens, float32, median of {arguments.rounds} rounds, "
        "milliseconds of CPU time per pass\n"
    )
    names = ("slingshot", *PEERS, "dense")
    print(f"{'d, E, k, width':>16} {'pass':>9} | " + " ".join(f"{n:>10}" for n in names))
    rows = []
    for shape in SHAPES:
        for backward in (False, True):
            row = measure(shape, backward, arguments.rounds)
            rows.append(row)
            label = ", ".join(map(str, shape))
            figures = " ".join(f"{row[name]:>10.1f}" for name in names)
            print(f"{label:>16} {row['pass']:>9} | {figures}")
            ratios = " ".join(f"{row[name] / row['slingshot']:>10.2f}" for name in names)
            print(f"{'':>16} {'ratio':>9} | {ratios}")
    timing.write_report(arguments.json, arguments.rounds, rows)


def measure(shape: tuple[int, int, int, int], backward: bool, rounds: int) -> dict[str, Any]:
    """Time all contestants on one shape, after checking that they give the same answer."""
    d_model, n_experts, top_k, width = shape
    torch.manual_seed(timing.SEED)
    ours = Experts(n_experts, d_model, width)
    x = torch.randn(N_TOKENS, d_model, requires_grad=backward)
    experts = torch.rand(N_TOKENS, n_experts).topk(top_k).indices
    weights = torch.rand(N_TOKENS, top_k, requires_grad=backward)
    modules: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "slingshot": (ours, partial(ours, x, experts, weights))
    }
    for peer in PEERS:
        theirs = copy_of(ours, peer)
        modules[peer] = (theirs, partial(theirs, x, experts, weights))
    dense = SwiGLU(d_model, top_k * width)
    check_same_answer(modules)
    modules["dense"] = (dense, partial(dense, x))
    run = forward_and_backward if backward else forward
    contestants = {name: partial(run, module, call) for name, (module, call) in modules.items()}
    seconds = timing.interleave(contestants, rounds)
    millis = {name: 1e3 * duration.cpu for name, duration in seconds.items()}
    return {"shape": shape, "pass": "training" if backward else "forward", **millis}


def forward(_module: nn.Module, call: Callable[[], Tensor]) -> None:
    """One pass without gradients."""
    with torch.inference_mode():
        call()


def forward_and_backward(module: nn.Module, call: Callable[[], Tensor]) -> None:
    """One pass with the gradients of everything."""
    module.zero_grad(set_to_none=True)
    call().sum().backward()  # type: ignore[no-untyped-call]


def copy_of(ours: Experts, implementation: str) -> nn.Module:
    """The experts of transformers with our weights, in one of its implementations."""
    n_experts, d_model, width = ours.down.shape
    config = DeepseekV3Config(
        hidden_size=d_model, moe_intermediate_size=width, n_routed_experts=n_experts
    )
    config._experts_implementation = implementation
    theirs: nn.Module = DeepseekV3Experts(config)  # type: ignore[no-untyped-call]
    theirs.load_state_dict({"gate_up_proj": ours.gate_up, "down_proj": ours.down})
    return theirs


def check_same_answer(modules: dict[str, tuple[nn.Module, Callable[[], Tensor]]]) -> None:
    """Exit unless all give the same output."""
    with torch.inference_mode():
        outputs = {name: call() for name, (_, call) in modules.items()}
    ours = outputs["slingshot"]
    for name, output in outputs.items():
        if (output - ours).abs().max() > 1e-5 * ours.abs().max():
            sys.exit(f"{name} and slingshot disagree; nothing was timed")


if __name__ == "__main__":
    main()
