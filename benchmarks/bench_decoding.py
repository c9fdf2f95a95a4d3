"""Time generate on a real model, SmolLM2-135M, in five ways to keep its weights, against others.

Reading a prompt multiplies many rows at once, and a processor's units decide. A step of decoding
multiplies one row for each sequence, and what takes long is to read the weights: the fewer their
bytes, the faster. Both are timed for one sequence and for sixteen; writing begins with reading a
prompt of sixteen tokens, which counts in its time, and not in its tokens. Beside each stands the
perplexity on the windows of ``experiments/quantized_llm.py``.

The ways: float32; BF16; INT8 weights and inputs, ``Int8Linear`` in a float32 model; INT8 or INT4
weights only, in a BF16 model. With INT4 the head has INT8, as in the file, whose 4 bits are the
grid that INT4 in groups of 32 hits again. transformers has the same weights, with the cache that it
takes by default and with the static one, and torchao quantizes its model without compiling it. In
float32 all must write the same tokens. What a step takes without its products is timed as well, in
a model whose linear layers return ones. A ratio above 1 means that slingshot is faster than the
other one with as many bits; for slingshot itself it is the time of float32 over its own.

llama.cpp is timed too where ``llama-cpp-python`` is installed, for one sequence, on the file
itself. It comes as source and takes minutes to compile, so ``make bench`` does not install it. It
keeps the weights as they lie in the file: its own order for AMX ended the process on the machine of
the stored run (0.3.36), so on such a processor it could read prompts faster than it does here.
"""

import copy
import importlib
import logging
import math
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import timing
import torch
from bench_generate import llama_of
from bench_quant import version
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot.corpus import numpy_documentation
from slingshot.lm import DecoderLM, generate
from slingshot.pretrained import download, load_smollm2
from slingshot.quant import (
    Int4WeightOnlyLinear,
    Int8Linear,
    Int8WeightOnlyLinear,
    replace_linears,
)

WINDOWS, LENGTH = 12, 256  # as in experiments/quantized_llm.py

# Who is compared with whom: as many bits. Ours are compared with float32.
AGAINST: Final = {
    "transformers float32": "slingshot float32",
    "transformers float32, static cache": "slingshot float32",
    "transformers BF16": "slingshot BF16",
    "torchao INT8": "slingshot INT8",
    "torchao INT8 weights": "slingshot INT8 weights",
    "llama.cpp Q4_1": "slingshot INT4 weights",
}
OURS: Final = "slingshot float32"
REST: Final = "slingshot without products"


class Case(NamedTuple):
    """What is timed: tokens that are read, or written, by each of so many sequences."""

    what: str
    batch: int
    prompt: int
    new_tokens: int

    @property
    def n_tokens(self) -> int:
        """Tokens that count."""
        return self.batch * (self.prompt if self.what == "prefill" else self.new_tokens)


CASES = (
    Case("prefill", 1, 128, 1),
    Case("prefill", 16, 128, 1),
    Case("decoding", 1, 16, 32),
    Case("decoding", 16, 16, 32),
)
Write = Callable[[], Tensor]


class Ones(nn.Module):
    """Stands for a linear layer and multiplies nothing."""

    def __init__(self, n_outputs: int) -> None:
        """Keep what was returned, by shape: filling it would take time, too."""
        super().__init__()
        self.n_outputs = n_outputs
        self.kept: dict[tuple[int, ...], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Return ones ``[..., n_outputs]``."""
        shape = (*x.shape[:-1], self.n_outputs)
        if shape not in self.kept:
            self.kept[shape] = x.new_ones(shape)
        return self.kept[shape]


class Logits(NamedTuple):
    """What a model returns."""

    logits: Tensor  # [B, S, V]


class LlamaCpp:
    """The file in llama.cpp, on as many threads, called as the other models are."""

    def __init__(self) -> None:
        """Open the file, once to read with all logits and once to write with the last ones."""
        self.library = importlib.import_module("llama_cpp")
        keep_order(self.library)
        self.reader, self.writer = (
            self.library.Llama(
                str(download()),
                n_ctx=512,
                n_threads=torch.get_num_threads(),
                n_threads_batch=torch.get_num_threads(),
                logits_all=every,
                verbose=False,
            )
            for every in (True, False)
        )

    def __call__(self, tokens: Tensor) -> Logits:
        """Read ``tokens [1, S]``."""
        self.reader.reset()
        self.reader.eval(tokens[0].tolist())
        return Logits(torch.from_numpy(self.reader.scores[None, : tokens.shape[1]].copy()))

    def write(self, prompts: Tensor, new_tokens: int) -> Tensor:
        """Return the likeliest continuation ``[1, new_tokens]``."""
        self.writer.reset()
        unread = prompts[0].tolist()
        tokens: list[int] = []
        while len(tokens) < new_tokens:
            self.writer.eval(unread)
            last = self.library.llama_get_logits_ith(self.writer.ctx, -1)
            unread = [int(np.ctypeslib.as_array(last, (self.writer.n_vocab(),)).argmax())]
            tokens += unread
        return torch.tensor([tokens])


def keep_order(library: Any) -> None:  # noqa: ANN401 has no types
    """Let llama.cpp leave weights in the order of the file: its class has no argument for it."""
    default = library.llama_model_default_params

    def settings() -> Any:  # noqa: ANN401 as above
        params = default()
        params.use_extra_bufts = False
        return params

    library.llama_cpp.llama_model_default_params = settings


Model = nn.Module | LlamaCpp
Models = Mapping[str, Model]


def main() -> None:
    """Measure every case, print the tables, write the file if asked."""
    arguments = timing.parse_arguments("Time a real model's decoding against others.", rounds=5)
    logging.disable(logging.WARNING)  # transformers and torchao name what they did not find
    warnings.filterwarnings("ignore")
    timing.print_machine()
    for other in ("torchao", "llama-cpp-python"):
        print(f"{other}: {version(other) or 'not installed, skipped'}")
    limits = timing.machine_limits(arguments.rounds)
    print(f"one core: {limits['bandwidth'] / 1e9:.1f} GB/s, {limits['flops'] / 1e9:.0f} GFLOP/s")
    model, tokenizer = load_smollm2()
    ids = torch.tensor(tokenizer.encode(numpy_documentation()).ids)
    models = {**ways_of(model), **others_of(model)}
    print("perplexity, and MB of weights that a step of decoding reads:")
    about = {name: described(each, ids) for name, each in models.items()}
    for name, told in about.items():
        megabytes = f"{told['bytes'] / 1e6:>6.0f}" if "bytes" in told else ""
        print(f"  {name:>34} {told['perplexity']:>8.2f} {megabytes}")
    print(
        f"median of {arguments.rounds} rounds: tokens per second of CPU time, the ratio of a round "
        "(lowest to highest), and that of wall time"
    )
    rows = []
    for case in CASES:
        rows.append(row := measure(case, models, ids, arguments.rounds))
        print_row(case, row)
    timing.write_report(
        arguments.json,
        arguments.rounds,
        [{"machine": limits, "models": about, "beside": AGAINST}, *rows],
    )


def ways_of(model: DecoderLM) -> dict[str, DecoderLM]:
    """Return ``model`` in the five ways to keep its weights."""

    def four_bits(name: str, linear: nn.Linear) -> nn.Module:
        kind = Int8WeightOnlyLinear if name == "head" else Int4WeightOnlyLinear
        return kind.from_linear(linear)

    eight = replace_linears(model, lambda _, linear: Int8WeightOnlyLinear.from_linear(linear))
    return {
        OURS: model,
        "slingshot BF16": copy.deepcopy(model).bfloat16(),
        "slingshot INT8": replace_linears(model, lambda _, m: Int8Linear.from_linear(m)),
        # Copies, since what is not replaced is shared, and would become BF16 in the model as well.
        "slingshot INT8 weights": copy.deepcopy(eight).bfloat16(),
        "slingshot INT4 weights": copy.deepcopy(replace_linears(model, four_bits)).bfloat16(),
    }


def others_of(model: DecoderLM) -> dict[str, Model]:
    """Return transformers' model with the same weights, in BF16 and by torchao, and llama.cpp's."""
    full = llama_of(model).requires_grad_(False)
    half = copy.deepcopy(full).bfloat16()
    models: dict[str, Model] = {"transformers float32": full, "transformers BF16": half}
    if version("torchao"):
        torchao = importlib.import_module("torchao.quantization")
        for name, base, config in (
            ("torchao INT8", full, torchao.Int8DynamicActivationInt8WeightConfig()),
            ("torchao INT8 weights", half, torchao.Int8WeightOnlyConfig()),
        ):
            models[name] = quantized = untied(base)
            torchao.quantize_(quantized, config)
    if version("llama-cpp-python"):
        models["llama.cpp Q4_1"] = LlamaCpp()
    return models


def untied(model: nn.Module) -> nn.Module:
    """Return a copy whose head has a weight of its own, which torchao can replace."""
    twin = copy.deepcopy(model)
    head = twin.get_submodule("lm_head")
    head.weight = nn.Parameter(head.get_parameter("weight").detach().clone(), requires_grad=False)
    return twin


def described(model: Model, ids: Tensor) -> dict[str, float]:
    """Return its perplexity, and of ours how many bytes of weights are read for each token."""
    told = {"perplexity": perplexity(model, ids)}
    return told | ({"bytes": bytes_read(model)} if isinstance(model, DecoderLM) else {})


def bytes_read(model: DecoderLM) -> int:
    """Return the bytes of all weights but an embedding, of which a token reads one row."""
    tensors = {
        tensor.data_ptr(): tensor.nbytes
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    }
    return sum(tensors.values())


@torch.inference_mode()
def perplexity(model: Model, ids: Tensor) -> float:
    """Return the exponential of the mean loss over the windows."""
    starts = torch.arange(2 * WINDOWS)[::2] * (len(ids) // (2 * WINDOWS))
    total = 0.0
    for start in starts.tolist():
        window = ids[start : start + LENGTH + 1]
        logits = model(window[None, :-1]).logits[0].float()
        total += float(F.cross_entropy(logits, window[1:])) / WINDOWS
    return math.exp(total)


def measure(case: Case, models: Models, ids: Tensor, rounds: int) -> dict[str, Any]:
    """Time all on one case, in turn, after checking that float32 writes the same."""
    prompts = torch.stack([ids[1000 * i : 1000 * i + case.prompt] for i in range(case.batch)])
    calls = calls_of(case, models, prompts)
    expected = calls[OURS]()
    for name, call in calls.items():
        if "float32" in name and not torch.equal(call(), expected):
            sys.exit(f"{name}, {case}: writes other tokens; nothing was timed")
    timers = {name: partial(per_token, case, call) for name, call in calls.items()}
    for timer in timers.values():
        timer()  # packs weights, warms caches
    times = timing.in_turn(timers, rounds)
    figures = {n: timing.beside(found, times[AGAINST.get(n, n)]) for n, found in times.items()}
    for name in figures:
        if name not in AGAINST:
            figures[name] = (
                timing.beside(times[OURS], times[name]) | timing.median(times[name])._asdict()
            )
    return {**case._asdict(), "contestants": figures}


def per_token(case: Case, call: Write) -> timing.Seconds:
    """Return the duration of one call, for each token that counts."""
    seconds = timing.time_calls(call, calls=1)
    return timing.Seconds(seconds.cpu / case.n_tokens, seconds.wall / case.n_tokens)


def calls_of(case: Case, models: Models, prompts: Tensor) -> dict[str, Write]:
    """Return for each contestant the call that continues ``prompts [batch, prompt]``."""
    calls: dict[str, Write] = {}
    for name, model in models.items():
        if isinstance(model, DecoderLM):
            calls[name] = partial(write_ours, model, prompts, case.new_tokens)
        elif isinstance(model, LlamaCpp):
            if case.batch == 1:
                calls[name] = partial(model.write, prompts, case.new_tokens)
        else:
            calls[name] = partial(write_theirs, model, prompts, case.new_tokens)
        if name == "transformers float32" and case.what == "decoding":
            settings = {"cache_implementation": "static"}
            static = partial(write_theirs, model, prompts, case.new_tokens, **settings)
            calls[f"{name}, static cache"] = static
    if case.what == "decoding":
        full = models[OURS]
        assert isinstance(full, DecoderLM)
        rest = replace_linears(full, lambda _, linear: Ones(linear.out_features))
        calls[REST] = partial(write_ours, rest, prompts, case.new_tokens)
    return calls


def write_ours(model: DecoderLM, prompts: Tensor, new_tokens: int) -> Tensor:
    """Return the likeliest continuations ``[batch, new_tokens]``."""
    return torch.stack(generate(model, prompts, max_new_tokens=new_tokens, temperature=0))


def write_theirs(model: Any, prompts: Tensor, new_tokens: int, **settings: str) -> Tensor:  # noqa: ANN401 has no types
    """Return what transformers continues, as `write_ours` does."""
    output: Tensor = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=0,
        **settings,
    )
    return output[:, prompts.shape[1] :]


def print_row(case: Case, row: dict[str, Any]) -> None:
    """Print what `measure` found."""
    print(f"\n{case.what}, {case.batch} x {case.prompt} tokens, {case.new_tokens} new")
    for name, figures in row["contestants"].items():
        lowest, highest = figures["spread"]
        print(
            f"  {name:>34} {1 / figures['cpu']:>8.1f} {figures['ratio']:>6.2f} "
            f"({lowest:.2f} to {highest:.2f}) {figures['wall_ratio']:>6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
