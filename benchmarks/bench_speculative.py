"""Time speculative decoding by prompt lookup against transformers', on SmolLM2.

Both draft up to eight tokens that followed an earlier match of the last few, and verify them in one
step. The model is the same, float32, in transformers a LlamaForCausalLM with our weights. First all
must write the same tokens, the likeliest at each place; then they are timed. A ratio above 1 means
that speculative decoding with slingshot is faster.

It needs the file of the model, 93 MB (`python -m slingshot.pretrained`).
"""

import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import timing
import torch
from bench_generate import llama_of
from torch import Tensor

from slingshot.lm import generate
from slingshot.pretrained import load_smollm2
from slingshot.speculative import PromptLookup, speculative_generate

NEW_TOKENS, DRAFT = 48, 8
FACTS = (
    "A token leaves keys and values behind. The indexer reads narrow heads. Experts answer in "
    "groups, and the router forgets none of them."
)
PROMPTS = {
    "repeat a text": f"Text: {FACTS}\nThe same text again: {FACTS[:24]}",
    "go on with code": "\n".join(
        f"self.{name} = check({name}, '{name}', low=0, high=100)"
        for name in ("width", "height", "depth")
    )
    + "\nself.weight",
    "answer a question": "Question: Why is the sky blue?\nAnswer:",
}

Write = Callable[[], Tensor]


def main() -> None:
    """Measure every prompt, print the table, write the file if asked."""
    arguments = timing.parse_arguments("Time prompt lookup against transformers.", rounds=5)
    logging.disable(logging.WARNING)
    timing.print_machine()
    print(
        f"{NEW_TOKENS} tokens, median of {arguments.rounds} rounds: seconds of CPU time, and the "
        "ratio of a round to ours (lowest to highest)"
    )
    model, tokenizer = load_smollm2()
    theirs: Callable[..., Tensor] = llama_of(model).generate  # type: ignore[assignment]
    rows = []
    for name, text in PROMPTS.items():
        prompt = torch.tensor(tokenizer.encode(text).ids)
        rows.append(row := measure(name, contestants(model, theirs, prompt), arguments.rounds))
        print(f"\n{name}")
        for contestant, figures in row["contestants"].items():
            low, high = figures["spread"]
            print(
                f"  {contestant:>22} {figures['cpu']:7.2f} {figures['ratio']:6.2f} "
                f"({low:.2f} to {high:.2f})"
            )
    timing.write_report(arguments.json, arguments.rounds, rows)


def contestants(model: Any, theirs: Callable[..., Tensor], prompt: Tensor) -> dict[str, Write]:  # noqa: ANN401
    """Return one call for each: with and without drafts, ours and theirs."""
    settings: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "temperature": 0}

    def other(**extra: Any) -> Write:  # noqa: ANN401
        def write() -> Tensor:
            mask = torch.ones_like(prompt)[None]
            output = theirs(
                prompt[None],
                attention_mask=mask,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                **extra,
            )
            return output[0, len(prompt) :]

        return write

    return {
        "lookup": lambda: (
            speculative_generate(model, prompt, PromptLookup(), n_draft=DRAFT, **settings).tokens
        ),
        "alone": lambda: generate(model, [prompt], **settings)[0],
        "transformers, lookup": other(prompt_lookup_num_tokens=DRAFT, max_matching_ngram_size=3),
        "transformers, alone": other(),
    }


def measure(name: str, calls: dict[str, Write], rounds: int) -> dict[str, Any]:
    """Time all on one prompt, in turn, after checking that they write the same."""
    texts = {contestant: call() for contestant, call in calls.items()}
    for contestant, text in texts.items():
        if not torch.equal(text, texts["alone"]):
            sys.exit(f"{name}: {contestant} writes other tokens; nothing was timed")
    timers = {each: partial(timing.time_calls, call, 1) for each, call in calls.items()}
    times = timing.in_turn(timers, rounds)
    figures = {each: timing.beside(found, times["lookup"]) for each, found in times.items()}
    return {"prompt": name, "contestants": figures}


if __name__ == "__main__":
    main()
