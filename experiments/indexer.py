"""Sparse attention in a real model: an indexer learns which tokens SmolLM2 attends to.

The model is frozen. Every layer gets a lightning indexer, which learns by KL divergence to imitate
the layer's own attention on windows of NumPy's documentation. Then each query reads its k best
tokens alone, on windows from a part of the text that no indexer has seen, and on texts that hide a
number to be recalled. The notebook sparse_attention reads the results.
"""

import math
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from _runner import Run, main  # first, since it explains a missing package

# isort: split
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot.attention import (
    Attention,
    KVCache,
    LightningIndexer,
    indexer_loss,
    rotate,
    rotations,
    sparse_attention,
)
from slingshot.corpus import numpy_documentation
from slingshot.lm import DecoderLM, Layer, LMConfig
from slingshot.pretrained import Pretrained, load_smollm2

SEEDS = range(3)
HEADS, HEAD_DIM = 4, 32
WINDOWS, LENGTH, RATE = 64, 512, 3e-3  # of training
HELD_OUT_SHARE = 0.2  # the end of the text
READ, LONG, LONG_READ = 4, 1024, 1  # held-out windows of LENGTH, and of a length not trained on
KEPT = (32, 96)
NEEDLES, DIGITS = 6, 5
SENTENCE: Final = "\nThe magic number is "

Choose = Callable[[Attention, Tensor, Tensor, Tensor], Tensor]
"""Scores ``[B, S, S]`` from the layer's attention, its input, its rotation and its true weights."""


class Sparse(nn.Module):
    """A layer's attention in which each query reads the ``k`` tokens that ``choose`` scores best.

    Without ``k`` it reads all. Keeps the share of the true weights that fell on what was read.
    """

    def __init__(self, attention: Attention, choose: Choose, k: int | None) -> None:
        """Take what is to be read with."""
        super().__init__()
        self.attention, self.choose, self.k = attention, choose, k
        self.kept: list[float] = []

    @property
    def reads(self) -> nn.Module:
        """The layer that meets the input first."""
        return self.attention.query

    def forward(self, x: Tensor, rotation: Tensor, cache: KVCache | None = None) -> Tensor:
        """Read a window."""
        assert cache is None
        a = self.attention
        query = rotate(a._heads(a.query(x), a.n_heads), rotation)
        key = rotate(a._heads(a.key(x), a.n_kv_heads), rotation)
        value = a._heads(a.value(x), a.n_kv_heads)
        weights = attention_weights(query, key)
        scores = self.choose(a, x, rotation, weights)
        if self.k is None:
            shared = value.repeat_interleave(a.n_heads // a.n_kv_heads, 1)
            found = weights @ shared
        else:
            found = sparse_attention(query, key, value, scores, self.k)
            self.kept.append(kept_mass(weights, scores, self.k))
        mixed: Tensor = a.output(found.transpose(1, 2).flatten(2))
        return mixed


def attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """The causal weights ``[B, H, S, S]`` of a window."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return scores.masked_fill(future(scores.shape[-1]), -math.inf).softmax(-1)


def future(length: int) -> Tensor:
    """What each token must not see."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def kept_mass(weights: Tensor, scores: Tensor, k: int) -> float:
    """The share of the attention of queries with more than k tokens that falls on their k best."""
    best = scores.masked_fill(future(scores.shape[-1]), -math.inf).topk(k).indices
    mass = weights.mean(1).gather(2, best).sum(-1)
    return float(mass[:, k:].mean())


# --- who chooses -----------------------------------------------------------------------------


def by_attention(_: Attention, x: Tensor, rotation: Tensor, weights: Tensor) -> Tensor:
    """The true weights, the mean over the heads: what no cheap choice can beat by much."""
    return weights.mean(1)


def by_window(_: Attention, x: Tensor, rotation: Tensor, weights: Tensor) -> Tensor:
    """The first token and the last ones."""
    recent = torch.arange(x.shape[1], dtype=torch.float32).repeat(x.shape[1], 1)
    recent[:, 0] = math.inf
    return recent[None]


def by_chance(_: Attention, x: Tensor, rotation: Tensor, weights: Tensor) -> Tensor:
    """The first token, the query's own, and random ones."""
    length = x.shape[1]
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(length, length, generator=generator)
    scores[:, 0] = 2.0
    scores.fill_diagonal_(2.0)
    return scores[None]


class Indexers(nn.Module):
    """One indexer for each layer, and what they have to say."""

    def __init__(self, config: LMConfig) -> None:
        """Draw the weights."""
        super().__init__()
        self.base = config.rope_base
        self.each = nn.ModuleList(
            LightningIndexer(config.d_model, HEADS, HEAD_DIM) for _ in range(config.n_layers)
        )

    def at(self, index: int) -> Choose:
        """Whoever chooses in a layer."""

        def choose(_: Attention, x: Tensor, rotation: Tensor, weights: Tensor) -> Tensor:
            scores: Tensor = self.each[index](x, self.rotation(x.shape[1]))
            return scores

        return choose

    def rotation(self, length: int) -> Tensor:
        """The rotations of as many positions."""
        return rotations(length, HEAD_DIM, self.base, torch.device("cpu"))

    def in_wrong_layout(self) -> "Indexers":
        """The same weights read as if the two channels of a rotary pair stood side by side.

        To turn channels 2j and 2j + 1 is to reorder the rows, turn those half a head apart, and
        reorder back, which drops out of the product of a query and a key.
        """
        order = torch.cat([torch.arange(0, HEAD_DIM, 2), torch.arange(1, HEAD_DIM, 2)])
        wrong = Indexers.__new__(Indexers)
        nn.Module.__init__(wrong)
        wrong.base, wrong.each = self.base, nn.ModuleList()
        for indexer in self.each:
            assert isinstance(indexer, LightningIndexer)
            twin = LightningIndexer(indexer.d_model, HEADS, HEAD_DIM)
            rows = torch.cat([head * HEAD_DIM + order for head in range(HEADS)])
            state = dict(indexer.state_dict())
            state["query.weight"] = state["query.weight"][rows]
            for name in ("key.weight", "key_norm.weight", "key_norm.bias"):
                state[name] = state[name][order]
            twin.load_state_dict(state)
            wrong.each.append(twin)
        return wrong


# --- what is measured ------------------------------------------------------------------------


def reading(model: DecoderLM, choosers: Callable[[int], Choose], k: int | None) -> list[Sparse]:
    """Replace the attention of each layer of ``model``; return the replacements."""
    made = []
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        attention = layer.attention
        if isinstance(attention, Sparse):
            attention = attention.attention
        assert isinstance(attention, Attention)
        layer.attention = Sparse(attention, choosers(index), k)  # type: ignore[assignment]
        made.append(layer.attention)
    return made  # type: ignore[return-value]


def train(model: DecoderLM, windows: Tensor, seed: int) -> tuple[Indexers, list[float]]:
    """Teach indexers the attention of ``model``, a window a step; return them and their losses."""
    torch.manual_seed(seed)
    indexers = Indexers(model.config)
    optimizer = torch.optim.AdamW(indexers.parameters(), lr=RATE, weight_decay=0.0)
    losses: list[Tensor] = []

    def teach(index: int) -> Choose:
        def learn(a: Attention, x: Tensor, rotation: Tensor, weights: Tensor) -> Tensor:
            with torch.enable_grad():
                losses.append(indexer_loss(indexers.at(index)(a, x, rotation, weights), weights))
            return weights.mean(1)

        return learn

    reading(model, teach, None)
    means = []
    for window in windows:
        losses.clear()
        with torch.no_grad():
            model._read(window[None], model._rotations(len(window)))
        total = torch.stack(losses)
        optimizer.zero_grad()
        total.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        means.append(round(float(total.detach().mean()), 4))
    return indexers, means


@torch.no_grad()
def measure(choosers: Callable[[int], Choose], k: int | None) -> dict[str, Any]:
    """Read the held-out windows and the hidden numbers; the loss of each, and what was kept."""
    model = pretrained().model
    layers = reading(model, choosers, k)
    result: dict[str, Any] = {"losses": [loss(model, window) for window in held_out(LENGTH, READ)]}
    result["kept"] = [round(sum(each.kept) / len(each.kept), 4) for each in layers if each.kept]
    if k == max(KEPT):  # takes long, and shows less
        return result
    result["long_losses"] = [loss(model, window) for window in held_out(LONG, LONG_READ)]
    found = [recall(model, text) for text in needles()]
    result["recalled"] = [right for right, _ in found]
    result["digit_losses"] = [value for _, value in found]
    return result


def loss(model: DecoderLM, window: Tensor) -> float:
    """The mean loss of a window in nats."""
    logits = model(window[None, :-1]).logits[0]
    return round(float(F.cross_entropy(logits, window[1:])), 5)


def recall(model: DecoderLM, text: Tensor) -> tuple[int, float]:
    """How many of the last digits are the likeliest token, each given those before; their loss."""
    logits = model(text[None, :-1]).logits[0, -DIGITS:]
    digits = text[-DIGITS:]
    right = int((logits.argmax(-1) == digits).sum())
    return right, round(float(F.cross_entropy(logits, digits)), 4)


# --- the texts -------------------------------------------------------------------------------


@cache
def pretrained() -> Pretrained:
    """The model, loaded once in each process."""
    return load_smollm2()


@cache
def text() -> tuple[Tensor, Tensor]:
    """The tokens to learn from, and those that are held out."""
    tokens = torch.tensor(pretrained().tokenizer.encode(numpy_documentation()).ids)
    return tokens.tensor_split([int((1 - HELD_OUT_SHARE) * len(tokens))])  # type: ignore[return-value]


def held_out(length: int, count: int) -> list[Tensor]:
    """Windows spread evenly over the held-out text."""
    tokens = text()[1]
    return [tokens[s : s + length + 1] for s in spread(len(tokens) - length, count)]


def training_windows(seed: int) -> Tensor:
    """Windows of the text to learn from, at random places."""
    tokens = text()[0]
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(tokens) - LENGTH, (WINDOWS,), generator=generator)
    return torch.stack([tokens[s : s + LENGTH] for s in starts.tolist()])


def spread(end: int, count: int) -> list[int]:
    """``count`` places before ``end``, evenly."""
    return [end * place // count for place in range(count)]


@cache
def needles() -> list[Tensor]:
    """Held-out texts with a sentence that names a number, asked for again in the end."""
    rng = np.random.default_rng(0)
    encode = pretrained().tokenizer.encode
    made = []
    for window in held_out(LENGTH, NEEDLES):
        number = "".join(str(digit) for digit in rng.integers(0, 10, DIGITS))
        said = torch.tensor(encode(f"{SENTENCE}{number}.\n").ids)
        asked = torch.tensor(encode(SENTENCE + number).ids)
        place = int(rng.integers(64, 300))
        filler = window[: LENGTH - len(said) - len(asked)]
        made.append(torch.cat([filler[:place], said, filler[place:], asked]))
    return made


# --- the runs --------------------------------------------------------------------------------


REFERENCES: Final[dict[str, Choose]] = {
    "attention": by_attention,
    "window": by_window,
    "chance": by_chance,
}


def runs() -> list[Run]:
    """All runs, in the order in which they are stored."""
    common = {
        "model": "SmolLM2-135M-Instruct.Q4_1",
        "text": f"NumPy {np.__version__}",
        "held_out": HELD_OUT_SHARE,
        "windows": [READ, LENGTH, LONG_READ, LONG],
        "needles": [NEEDLES, DIGITS],
    }
    indexer = {"heads": HEADS, "head_dim": HEAD_DIM, "trained_on": WINDOWS, "rate": RATE}
    references = [
        Run(f"{name}, {k}", 0, {**common, "choice": name, "k": k})
        for name in REFERENCES
        for k in KEPT
    ]
    trained = [
        Run("indexer", seed, {**common, **indexer, "k": list(KEPT), "seed": seed}) for seed in SEEDS
    ]
    return [Run("dense", 0, common), *references, *trained]


def execute(run: Run) -> dict[str, Any]:
    """Train indexers or take another choice, then measure."""
    if run.name == "dense":
        return measure(lambda _: by_attention, None)
    if run.name != "indexer":
        choose = REFERENCES[run.configuration["choice"]]
        return measure(lambda _: choose, run.configuration["k"])
    indexers, losses = train(pretrained().model, training_windows(run.seed), run.seed)
    indexers.requires_grad_(False)
    wrong = indexers.in_wrong_layout()
    return {
        "training": losses,
        "parameters": sum(each.numel() for each in indexers.parameters()),
        "right": {str(k): measure(indexers.at, k) for k in KEPT},
        "wrong": {str(min(KEPT)): measure(wrong.at, min(KEPT))},
    }


if __name__ == "__main__":
    sys.exit(main("indexer", runs(), execute))
