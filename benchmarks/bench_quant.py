"""Time slingshot.quant against what one would use instead: a linear layer in INT8, and one in FP8.

INT8: the activations are float32 and are quantized as they come, the weights beforehand. Torch's
own dynamic quantization has one scale for the weight and one for the input, the others one for each
row of both. FP8: E4M3 in blocks of 1×128 and 128×128, emulated in float32 with the weight's values
kept. Torch's ``_scaled_mm`` has scales for rows only and is handed operands that are FP8 already;
slingshot and the loop over blocks quantize x. A ratio above 1 means that slingshot is faster.

Do not pin the process to one CPU from outside (``taskset``): onnxruntime, imported so, multiplies
with AVX-512 instead of AMX, which takes twice as long. It is held to torch's number of threads.

What holds slingshot back. One row: its bytes of weight are read in a quarter of float32's time at
best, and in a third at 4096. At 1024 they lie in the cache, and around the product there are a
layer in Python and the small operations that quantize the row; others call once. FP8 with few rows:
quantizing x is some twenty calls of torch. With many, float32's product runs within a few percent
of the processor's peak, so quantizing before one like it can only be slower. With AMX blocks are
multiplied faster, and memory limits adding them up.
"""

import copy
import importlib
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

import timing
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot.formats import E4M3
from slingshot.quant import INT8, Int8Linear, Quantized, block_scaled_matmul, quantize

Contestants = dict[str, Callable[[], Tensor]]

INT8_SHAPES = [(1, 1024, 1024), (512, 1024, 1024), (1, 4096, 4096), (512, 4096, 4096)]  # M, K, N
FP8_SHAPES = [(32, 1024, 1024), (512, 1024, 1024), (2048, 1024, 1024), (512, 4096, 4096)]
PEERS = ("torchao", "onnxruntime", "onnx")
# A timing is of so many calls in a row that they make about 2e10 multiplications. A few calls would
# mostly show how long it takes to fill the cache, which is emptied between timings. Few rows cost
# no less than reading the weight, which takes as long as some 16 multiplications an element.
CALLS_WORTH = 2e10
WEIGHT_READ = 16

# Relative errors: INT8 with one scale for everything is off by about 2 %, blocks of E4M3 by 3.6 %.
LARGEST_ERROR = 0.06


def main() -> None:
    """Measure every shape, print the tables, write the file if asked."""
    arguments = timing.parse_arguments("Time INT8 and FP8 linear layers against others.", rounds=7)
    logging.disable(logging.WARNING)  # torchao names the GPU libraries that it did not find
    warnings.filterwarnings("ignore")
    if len(getattr(os, "sched_getaffinity", lambda _: "many")(0)) == 1:
        sys.exit("pinned to one CPU, which slows onnxruntime down; start it without taskset")
    timing.print_machine()
    print("\n".join(f"{name}: {version(name) or 'not installed, skipped'}" for name in PEERS))
    print(f"Median of {arguments.rounds} rounds, milliseconds of CPU time per call; ratios below")
    rows = []
    for title, shapes, make in (
        ("INT8 linear", INT8_SHAPES, int8_contestants),
        ("block-scaled FP8", FP8_SHAPES, fp8_contestants),
    ):
        print(f"\n{title}")
        for shape in shapes:
            rows.append(
                row := {"what": title, "shape": shape, **measure(make, shape, arguments.rounds)}
            )
            print("M={}, K={}, N={}".format(*shape))
            for name, millis in row["millis"].items():
                print(f"  {name:>20} {millis:>9.3f} {row['ratios'][name]:>7.2f}")
    timing.write_report(arguments.json, arguments.rounds, rows)


def version(package: str) -> str | None:
    """Return the installed version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@torch.no_grad()
def measure(
    make: Callable[[Tensor, nn.Linear], Contestants], shape: tuple[int, int, int], rounds: int
) -> dict[str, Any]:
    """Time all that ``make`` returns, after checking that they compute the same layer."""
    m, k, n = shape
    torch.manual_seed(timing.SEED)
    x, linear = torch.randn(m, k), nn.Linear(k, n, bias=False)
    contestants = make(x, linear)
    expected = linear(x)
    for name, call in contestants.items():
        error = float((call() - expected).norm() / expected.norm())
        if not error < LARGEST_ERROR:
            sys.exit(f"{name}, {shape}: off by {error:.2%}; nothing was timed")
    calls = math.ceil(CALLS_WORTH / (m * k * n + WEIGHT_READ * k * n))
    seconds = timing.interleave(contestants, rounds, calls)
    millis = {name: 1e3 * duration.cpu for name, duration in seconds.items()}
    return {
        "millis": millis,
        "ratios": {name: value / millis["slingshot"] for name, value in millis.items()},
    }


def int8_contestants(x: Tensor, linear: nn.Linear) -> Contestants:
    """Return one call for each INT8 layer, and float32."""
    contestants: Contestants = {
        "slingshot": partial(Int8Linear.from_linear(linear), x),
        "torch fp32": partial(linear, x),
        "torch dynamic x86": partial(torch_dynamic(linear), x),
    }
    if version("torchao"):
        contestants["torchao eager"] = partial(torchao_linear(linear), x)
    if version("onnxruntime") and version("onnx"):
        contestants["onnxruntime"] = onnxruntime_call(x, linear)
    return contestants


def torch_dynamic(linear: nn.Linear) -> nn.Module:
    """Return torch's dynamically quantized layer."""
    torch.backends.quantized.engine = "x86"
    layer: nn.Module = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
        nn.Sequential(copy.deepcopy(linear)), {nn.Linear}, dtype=torch.qint8
    )
    return layer


def torchao_linear(linear: nn.Linear) -> nn.Module:
    """Return torchao's layer, not compiled."""
    torchao = importlib.import_module("torchao.quantization")

    layer = nn.Sequential(copy.deepcopy(linear))
    torchao.quantize_(layer, torchao.Int8DynamicActivationInt8WeightConfig())
    return layer


def onnxruntime_call(x: Tensor, linear: nn.Linear) -> Callable[[], Tensor]:
    """Return a call of onnxruntime's DynamicQuantizeMatMul, the fastest peer that we know."""
    onnx = importlib.import_module("onnx")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    onnxruntime = importlib.import_module("onnxruntime")

    weight = quantize(linear.weight, INT8, (1, None))
    tensors = {"w": weight.values.T.contiguous(), "s": weight.scale[:, 0].contiguous()}
    graph = helper.make_graph(
        [helper.make_node("DynamicQuantizeMatMul", ["x", *tensors], ["y"], domain="com.microsoft")],
        "linear",
        [helper.make_tensor_value_info("x", number, list(x.shape))],
        [helper.make_tensor_value_info("y", number, [len(x), len(linear.weight)])],
        [onnx.numpy_helper.from_array(tensor.numpy(), name) for name, tensor in tensors.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    inputs = {"x": x.numpy()}
    return lambda: torch.from_numpy(session.run(None, inputs)[0])


def fp8_contestants(x: Tensor, linear: nn.Linear) -> Contestants:
    """Return one call for each way to multiply in FP8, and float32."""
    weight = quantize(linear.weight, E4M3, (128, 128))
    contestants: Contestants = {
        "slingshot": partial(block_scaled_matmul, x, weight),
        "torch fp32": partial(F.linear, x, linear.weight),
        "loop over blocks": partial(loop_over_blocks, x, weight),
    }
    if hasattr(torch, "_scaled_mm"):
        contestants["torch._scaled_mm"] = scaled_mm_call(x, linear.weight)
    return contestants


def loop_over_blocks(x: Tensor, weight: Quantized) -> Tensor:
    """What tutorials write: quantize x, then multiply and add block by block."""
    tiles = x.view(len(x), -1, 128)
    scale = tiles.abs().amax(-1) / E4M3.max
    codes = (tiles / scale[..., None]).to(torch.float8_e4m3fn).view(x.shape)
    output = torch.zeros(len(x), len(weight.values))
    stored = weight.values.to(torch.float8_e4m3fn)
    for n in range(0, output.shape[1], 128):
        for k in range(0, x.shape[1], 128):
            product = codes[:, k : k + 128].float() @ stored[n : n + 128, k : k + 128].float().T
            block_scale = scale[:, k // 128, None] * weight.scale[n // 128, k // 128]
            output[:, n : n + 128] += product * block_scale
    return output


def scaled_mm_call(x: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    """Return torch's product of FP8 operands, quantized beforehand, one scale a row."""
    a, b = quantize(x, E4M3, (1, None)), quantize(weight, E4M3, (1, None))
    return partial(
        torch._scaled_mm,
        a.values.to(torch.float8_e4m3fn),
        b.values.to(torch.float8_e4m3fn).T,
        scale_a=a.scale,
        scale_b=b.scale.T.contiguous(),
        out_dtype=torch.float32,
    )


if __name__ == "__main__":
    main()
