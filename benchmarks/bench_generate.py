"""Time slingshot.lm.generate against generate of transformers, on the same model.

The model has the shape of Llama; in transformers it is a LlamaForCausalLM with the same weights,
once with the cache that it takes by default and once with the static one, whose memory is taken at
the start as ours is. First all must write the same tokens, the likeliest at each place. Then they
are timed: prompts of one length, each continued by as many tokens; and rollouts as in reinforcement
learning, 256 prompts of several lengths whose continuations are sampled and end with a token, each
at another time. Each draws those from random numbers of its own, so what counts is the time per
token up to the end. transformers gets its prompts padded to one length, and what it writes after an
end is cut off; neither is timed. A ratio above 1 means that slingshot is faster.

Why it is. One prompt: both have torch do as much, on vectors so short that the Python around it
takes as long; a step of the larger model is two hundred calls of Python functions in slingshot and
seven hundred in transformers. Many prompts: the keys and values of all tokens are read in every
step, which takes most of it. By default transformers also copies them all, to append one; its
static cache reads the room for tokens to come as well. Rollouts: slingshot drops a row that has
ended, transformers writes padding to it until all have.

What holds slingshot back. One prompt: a fifth of a step is what it costs that parts of the model
are modules, which can be replaced and hooked; functions of the same weights would do without.
"""

import importlib
import itertools
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import timing
import torch
from torch import Tensor, nn

from slingshot.lm import DecoderLM, LMConfig, generate

WRITER = LMConfig(vocab_size=512, d_model=128, n_layers=4, n_heads=4, d_ffn=344)
SHALLOW = LMConfig(vocab_size=512, d_model=128, n_layers=2, n_heads=4, d_ffn=344)
PLAYER = LMConfig(vocab_size=38, d_model=64, n_layers=2, n_heads=4, d_ffn=171)


class Case(NamedTuple):
    """What is written. With an ``end`` the tokens that are timed are sampled, up to that one."""

    label: str
    config: LMConfig
    n_prompts: int
    prompt_lengths: tuple[int, int]  # the shortest and the longest
    new_tokens: int
    end: int | None = None


CASES = (
    Case("1 prompt", SHALLOW, 1, (16, 16), 128),
    Case("1 prompt", WRITER, 1, (16, 16), 128),
    Case("256 prompts", SHALLOW, 256, (16, 16), 128),
    Case("256 prompts", WRITER, 256, (16, 16), 128),
    Case("256 rollouts", PLAYER, 256, (11, 27), 80, end=0),
)
PEERS: dict[str, dict[str, str]] = {
    "transformers": {},
    "static cache": {"cache_implementation": "static"},
}
NAMES_IN_LLAMA = {
    "embedding": "model.embed_tokens",
    "layers": "model.layers",
    "attention_norm": "input_layernorm",
    "attention": "self_attn",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "output": "o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn": "mlp",
    "down": "down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}

Write = Callable[[float], Tensor | list[Tensor]]
"""Continues the prompts at a temperature; returns a row of tokens for each."""


def main() -> None:
    """Measure every case, print the table, write the file if asked."""
    arguments = timing.parse_arguments("Time generation against transformers.", rounds=9)
    logging.disable(logging.WARNING)  # transformers names the GPU libraries that it did not find
    timing.print_machine()
    print(
        f"float32, median of {arguments.rounds} rounds: tokens per second of CPU time, the ratio "
        "of a round (lowest to highest), and that of wall time"
    )
    rows = []
    for case in CASES:
        rows.append(row := measure(case, arguments.rounds))
        print(f"\n{case.label}, d_model={case.config.d_model}, n_layers={case.config.n_layers}")
        for name, figures in row["contestants"].items():
            lowest, highest = figures["spread"]
            print(
                f"  {name:>12} {1 / figures['cpu']:>8.0f} {figures['ratio']:>6.2f} "
                f"({lowest:.2f} to {highest:.2f}) {figures['wall_ratio']:>6.2f}"
            )
    timing.write_report(arguments.json, arguments.rounds, rows)


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Time all on one case, in turn, after checking that they write the same."""
    torch.manual_seed(timing.SEED)
    contestants = make_contestants(case)
    check_same_tokens(case, contestants)
    temperature = 0.0 if case.end is None else 1.0
    timers = {
        name: partial(per_token, case, partial(write, temperature))
        for name, write in contestants.items()
    }
    times = timing.in_turn(timers, rounds)
    figures = {name: timing.beside(found, times["slingshot"]) for name, found in times.items()}
    return {**case._asdict(), "config": asdict(case.config), "contestants": figures}


def per_token(case: Case, write: Callable[[], Tensor | list[Tensor]]) -> timing.Seconds:
    """Return the duration of one call, for each token that it writes."""
    rows: list[Tensor] = []
    seconds = timing.time_calls(lambda: rows.extend(write()), calls=1)
    n_tokens = sum(len(up_to_end(row, case.end)) for row in rows)
    return timing.Seconds(seconds.cpu / n_tokens, seconds.wall / n_tokens)


def make_contestants(case: Case) -> dict[str, Write]:
    """Return one call for each, all with the same weights and the same prompts."""
    ours = DecoderLM(case.config)
    for parameter in ours.parameters():  # some are zero in a new model, which would hide mistakes
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    shortest, longest = case.prompt_lengths
    lengths = torch.randint(shortest, longest + 1, (case.n_prompts,)).tolist()
    prompts = [torch.randint(case.config.vocab_size, (length,)) for length in lengths]
    numbers = torch.Generator().manual_seed(timing.SEED)
    contestants: dict[str, Write] = {
        "slingshot": lambda temperature: generate(
            ours,
            prompts,
            max_new_tokens=case.new_tokens,
            end=case.end,
            temperature=temperature,
            generator=numbers,
        )
    }
    theirs: Callable[..., Tensor] = llama_of(ours).generate  # type: ignore[assignment]
    for name, settings in PEERS.items():
        contestants[name] = transformers_call(theirs, prompts, case, settings)
    return contestants


def transformers_call(
    theirs: Callable[..., Tensor], prompts: list[Tensor], case: Case, settings: dict[str, str]
) -> Write:
    """Return the call that continues the prompts, padded on the left."""
    width = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = prompt
        mask[row, width - len(prompt) :] = 1

    def write(temperature: float) -> Tensor:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0}
        output = theirs(
            tokens,
            attention_mask=mask,
            max_new_tokens=case.new_tokens,
            eos_token_id=case.end,
            pad_token_id=0,
            **(sampling if temperature else {"do_sample": False}),
            **settings,
        )
        return output[:, width:]

    return write


def llama_of(ours: DecoderLM) -> nn.Module:
    """Return a model of transformers with our weights."""
    llama = importlib.import_module("transformers.models.llama")
    config = ours.config
    theirs = llama.LlamaForCausalLM(
        llama.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=config.d_ffn,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads or config.n_heads,
            head_dim=config.width_of_head,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
            tie_word_embeddings=config.tied_embedding,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    weights = [named_in_llama(name, weight) for name, weight in ours.state_dict().items()]
    theirs.load_state_dict(dict(itertools.chain.from_iterable(weights)))
    model: nn.Module = theirs.eval()
    return model


def named_in_llama(name: str, weight: Tensor) -> list[tuple[str, Tensor]]:
    """Return a weight under its name in transformers; gate and up are two there."""
    parts = [NAMES_IN_LLAMA.get(part, part) for part in name.split(".")]
    if "gate_up" not in parts:
        return [(".".join(parts), weight)]
    path = ".".join(parts)
    halves = zip(("gate_proj", "up_proj"), weight.chunk(2), strict=True)
    return [(path.replace("gate_up", half), rows) for half, rows in halves]


def check_same_tokens(case: Case, contestants: dict[str, Write]) -> None:
    """Exit unless all write the same when they take the likeliest token."""
    rows = {
        name: [up_to_end(row, case.end) for row in write(0)] for name, write in contestants.items()
    }
    for name, theirs in rows.items():
        differing = [
            index
            for index, (row, own) in enumerate(zip(theirs, rows["slingshot"], strict=True))
            if not torch.equal(row, own)
        ]
        if differing:
            sys.exit(
                f"{case.label}: {name} and slingshot write different tokens in {len(differing)} "
                f"of {case.n_prompts} rows, the first is {differing[0]}; nothing was timed"
            )


def up_to_end(row: Tensor, end: int | None) -> Tensor:
    """Return the tokens of a row up to the first ``end``, that one included."""
    ends = [] if end is None else (row == end).nonzero().flatten().tolist()
    return row[: ends[0] + 1] if ends else row


if __name__ == "__main__":
    main()
