"""Time slingshot.moe.Experts against the experts of transformers and a dense network.

All run the same tokens through the same weights, given the same choices; the router is left out.
The dense network is one SwiGLU with the FLOPs of the chosen experts: the speed that dispatch can at
best reach. "unbind" is the loop of a tutorial that takes the packed weights apart once, where that
of transformers, "eager", indexes them for each expert. transformers is measured in each of its
implementations that runs on a CPU; the one that it takes by default is grouped_mm. batched_mm
copies the weights of every chosen expert for every token, so it is measured where these copies fit
in `LARGEST_COPY`: with few tokens. A ratio above 1 means that slingshot is faster.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import timing
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Experts

from slingshot.moe import Experts, SwiGLU

MANY, FEW = 2048, 16
# d_model, experts, top-k, width of an expert
SHAPES = ((512, 32, 4, 256), (512, 64, 8, 128), (256, 8, 2, 512))
PEERS = ("grouped_mm", "eager", "batched_mm")
NAMES = ("slingshot", "unbind", *PEERS, "dense")
LARGEST_COPY = 2**30

Shape = tuple[int, int, int, int]
Contestant = tuple[nn.Module, "partial[Tensor]"]


def main() -> None:
    """Measure every shape, print the table, write the file if asked."""
    arguments = timing.parse_arguments("Time the experts against those of transformers.", rounds=7)
    timing.print_machine()
    print(
        f"float32, median of {arguments.rounds} rounds, milliseconds of CPU time per pass; "
        "- where batched_mm would copy over 1 GiB of weights\n"
    )
    print(f"{'tokens: d, E, k, width':>24} {'pass':>8} | " + " ".join(f"{n:>10}" for n in NAMES))
    rows = []
    for n_tokens, backward in ((MANY, False), (MANY, True), (FEW, False)):
        for shape in SHAPES:
            row = measure(n_tokens, shape, backward, arguments.rounds)
            rows.append(row)
            label = f"{n_tokens}: {', '.join(map(str, shape))}"
            ratios = {name: row[name] / row["slingshot"] for name in NAMES if name in row}
            print(f"{label:>24} {row['pass']:>8} | {cells(row, 1)}")
            print(f"{'':>24} {'ratio':>8} | {cells(ratios, 2)}")
    timing.write_report(arguments.json, arguments.rounds, rows)


def cells(figures: dict[str, Any], digits: int) -> str:
    """One figure per contestant, with a dash for those that did not run."""
    return " ".join(
        f"{figures[name]:>10.{digits}f}" if name in figures else f"{'-':>10}" for name in NAMES
    )


def measure(n_tokens: int, shape: Shape, backward: bool, rounds: int) -> dict[str, Any]:
    """Time all contestants on one shape, after checking that they give the same answer."""
    modules = contestants(n_tokens, shape, backward)
    run = forward_and_backward if backward else forward
    calls = {name: partial(run, module, call) for name, (module, call) in modules.items()}
    seconds = timing.interleave(calls, rounds, calls=max(1, FEW * 8 // n_tokens))
    millis = {name: 1e3 * duration.cpu for name, duration in seconds.items()}
    label = "training" if backward else "forward"
    return {"n_tokens": n_tokens, "shape": shape, "pass": label, **millis}


def contestants(n_tokens: int, shape: Shape, backward: bool) -> dict[str, Contestant]:
    """Return every contestant that fits, with the call that is measured, after `check_same_answer`.

    With ``backward`` the tokens and the weights of their experts ask for gradients too.
    """
    d_model, n_experts, top_k, width = shape
    torch.manual_seed(timing.SEED)
    ours = Experts(n_experts, d_model, width)
    x = torch.randn(n_tokens, d_model, requires_grad=backward)
    experts = torch.rand(n_tokens, n_experts).topk(top_k).indices
    weights = torch.rand(n_tokens, top_k, requires_grad=backward)
    modules: dict[str, Contestant] = {
        "slingshot": (ours, partial(ours, x, experts, weights)),
        "unbind": (ours, partial(unbind, ours, x, experts, weights)),
    }
    copied = n_tokens * top_k * 3 * width * d_model * ours.down.element_size()
    for peer in PEERS:
        if peer != "batched_mm" or copied <= LARGEST_COPY:
            theirs = copy_of(ours, peer)
            modules[peer] = (theirs, partial(theirs, x, experts, weights))
    check_same_answer(modules)
    dense = SwiGLU(d_model, top_k * width)
    return modules | {"dense": (dense, partial(dense, x))}


def unbind(ours: Experts, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    """The loop over experts that looks up its tokens, with each expert's weights a tensor."""
    y = torch.zeros_like(x)
    parts = zip(ours.gate_up.unbind(0), ours.down.unbind(0), strict=True)
    for e, (gate_up, down) in enumerate(parts):
        token, choice = torch.where(experts == e)
        gate, up = (x[token] @ gate_up.T).chunk(2, dim=-1)
        answer = (F.silu(gate) * up) @ down.T
        y = y.index_add(0, token, weights[token, choice, None] * answer)
    return y


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


def check_same_answer(modules: dict[str, Contestant]) -> None:
    """Exit unless all give the same output."""
    with torch.inference_mode():
        outputs = {name: call() for name, (_, call) in modules.items()}
    ours = outputs["slingshot"]
    for name, output in outputs.items():
        if (output - ours).abs().max() > 1e-5 * ours.abs().max():
            sys.exit(f"{name} and slingshot disagree; nothing was timed")


if __name__ == "__main__":
    main()
