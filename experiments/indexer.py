"""Sparse attention in a real model: an indexer learns which tokens SmolLM2 attends to.

The model is frozen. Each of its layers gets a lightning indexer, which learns by KL divergence to
imitate the layer's own attention on windows of NumPy's documentation. Then each query reads its k
best tokens alone, in texts from a part that no indexer has seen, some twice as long as those. Each
hides a number that is asked for again at its end. The same is measured of the true attention's
choice, of a sliding window, of chance, and of the trained indexers with their rotary channels in
the wrong order. The notebook sparse_attention reads the results.
"""

import math
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple, Self

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
)
from slingshot.corpus import numpy_documentation
from slingshot.lm import DecoderLM, Layer, LMConfig
from slingshot.pretrained import Pretrained, load_smollm2

SEEDS = range(3)  # a run takes five to ten minutes of one core
HEADS, HEAD_DIM = 4, 32
WINDOWS, LENGTH, RATE = 64, 512, 3e-3  # of training
HELD_OUT_SHARE = 0.2  # the end of the text
KEPT = (32, 96)
TEXTS: Final = {LENGTH: 8, 2 * LENGTH: 3}  # how many that are held out, by length
DIGITS = 5
SENTENCE: Final = "\nThe magic number is "

Choose = Callable[[Attention, Tensor, Tensor], Tensor]
"""Scores ``[B, S, S]`` from the layer's attention, its input and its true weights."""
Choosers = Callable[[int], Choose]
"""Who chooses in the layer of this index."""


class Sparse(nn.Module):
    """A layer's attention in which each query reads the ``k`` tokens that ``choose`` scores best.

    Without ``k`` it reads all. ``kept`` collects the share of the true weights on what was read, of
    queries that had more than ``k`` to choose from. All weights are computed and most set to zero:
    that measures quality, and saves nothing.
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
        scores = self.choose(a, x, weights)
        if self.k is not None and self.k < x.shape[1]:
            weights = weights * chosen(scores, self.k)[:, None]
            mass = weights.sum(-1, keepdim=True)
            self.kept.append(float(mass[:, :, self.k :].mean()))
            weights = weights / mass
        found = weights @ value.repeat_interleave(a.n_heads // a.n_kv_heads, 1)
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


def chosen(scores: Tensor, k: int) -> Tensor:
    """Which of the tokens before it each query reads, bool ``[B, S, S]``."""
    unseen = future(scores.shape[-1])
    best = scores.masked_fill(unseen, -math.inf).topk(k).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(2, best, True) & ~unseen


# --- who chooses -----------------------------------------------------------------------------


def by_attention(_: int) -> Choose:
    """The true weights, the mean over the heads: what the indexer imitates."""
    return lambda attention, x, weights: weights.mean(1)


def by_window(_: int) -> Choose:
    """The first token and the last ones."""

    def choose(attention: Attention, x: Tensor, weights: Tensor) -> Tensor:
        recent = torch.arange(x.shape[1], dtype=torch.float32).repeat(x.shape[1], 1)
        recent[:, 0] = math.inf
        return recent[None]

    return choose


def by_chance(index: int) -> Choose:
    """The first token, the query's own, and random ones, others in each layer."""

    def choose(attention: Attention, x: Tensor, weights: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        scores = torch.rand(x.shape[1], x.shape[1], generator=generator)
        scores[:, 0] = 2.0
        scores.fill_diagonal_(2.0)
        return scores[None]

    return choose


class Indexers(nn.Module):
    """One indexer for each layer of a model."""

    def __init__(self, config: LMConfig) -> None:
        """Draw the weights."""
        super().__init__()
        self.base = config.rope_base
        self.each = nn.ModuleList(
            LightningIndexer(config.d_model, HEADS, HEAD_DIM) for _ in range(config.n_layers)
        )

    def __call__(self, index: int) -> Choose:
        """Return the indexer of a layer as one who chooses."""

        def choose(attention: Attention, x: Tensor, weights: Tensor) -> Tensor:
            scores: Tensor = self.each[index](x, self.rotation(x.shape[1]))
            return scores

        return choose

    def rotation(self, length: int) -> Tensor:
        """The rotations of as many positions."""
        return rotations(length, HEAD_DIM, self.base, torch.device("cpu"))

    def in_wrong_layout(self) -> Self:
        """The same weights read as if the two channels of a rotary pair stood side by side.

        To turn channels 2j and 2j + 1 is to reorder the rows, turn those half a head apart, and
        reorder back, which drops out of the product of a query and a key.
        """
        order = torch.cat([torch.arange(0, HEAD_DIM, 2), torch.arange(1, HEAD_DIM, 2)])
        rows = torch.cat([head * HEAD_DIM + order for head in range(HEADS)])
        state = dict(self.state_dict())
        for name, value in state.items():
            if name.endswith("query.weight"):
                state[name] = value[rows]
            elif ".key" in name:
                state[name] = value[order]
        first = self.each[0]
        assert isinstance(first, LightningIndexer)
        config = LMConfig(2, first.d_model, len(self.each), 1, 1, rope_base=self.base)
        wrong = type(self)(config)
        wrong.load_state_dict(state)
        return wrong.requires_grad_(False)


# --- the texts -------------------------------------------------------------------------------


@cache
def pretrained() -> Pretrained:
    """The model, loaded once in each process."""
    return load_smollm2()


@cache
def parts() -> tuple[Tensor, Tensor]:
    """The tokens to learn from, and those that are held out."""
    tokens = torch.tensor(pretrained().tokenizer.encode(numpy_documentation()).ids)
    end = int((1 - HELD_OUT_SHARE) * len(tokens))
    return tokens[:end], tokens[end:]


def training_windows(seed: int) -> Tensor:
    """Windows of the text to learn from, at random places, ``[WINDOWS, LENGTH]``."""
    tokens = parts()[0]
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(tokens) - LENGTH, (WINDOWS,), generator=generator)
    return torch.stack([tokens[s : s + LENGTH] for s in starts.tolist()])


class HiddenNumber(NamedTuple):
    """``tokens [length]`` that end with a number told before, and which are ``about`` it."""

    tokens: Tensor
    about: Tensor


@cache
def hidden_numbers(length: int, count: int) -> list[HiddenNumber]:
    """Held-out texts that name a number in their first half, and name it again at the end."""
    rng = np.random.default_rng(length)
    encode = pretrained().tokenizer.encode
    made = []
    for start in spread(len(parts()[1]) - length, count):
        number = "".join(str(digit) for digit in rng.integers(0, 10, DIGITS))
        said = torch.tensor(encode(f"{SENTENCE}{number}.\n").ids)
        asked = torch.tensor(encode(SENTENCE + number).ids)
        place = int(rng.integers(length // 8, length // 2))
        filler = parts()[1][start : start + length - len(said) - len(asked)]
        about = torch.zeros(length, dtype=torch.bool)
        about[place : place + len(said)] = about[-len(asked) :] = True
        tokens = torch.cat([filler[:place], said, filler[place:], asked])
        made.append(HiddenNumber(tokens, about))
    return made


def spread(end: int, count: int) -> list[int]:
    """``count`` places before ``end``, evenly."""
    return [end * place // count for place in range(count)]


# --- what is learned and measured ------------------------------------------------------------


def reading(model: DecoderLM, choosers: Choosers, k: int | None) -> list[Sparse]:
    """Replace the attention of each layer of ``model``; return the replacements."""
    made: list[Sparse] = []
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        attention: nn.Module = layer.attention
        if isinstance(attention, Sparse):
            attention = attention.attention
        assert isinstance(attention, Attention)
        made.append(Sparse(attention, choosers(index), k))
        layer.attention = made[-1]  # type: ignore[assignment]
    return made


def train(model: DecoderLM, windows: Tensor, seed: int) -> tuple[Indexers, list[float]]:
    """Teach indexers the attention of ``model``, a window a step; return them and their losses."""
    torch.manual_seed(seed)
    indexers = Indexers(model.config)
    optimizer = torch.optim.AdamW(indexers.parameters(), lr=RATE, weight_decay=0.0)
    losses: list[float] = []

    def teach(index: int) -> Choose:
        def learn(attention: Attention, x: Tensor, weights: Tensor) -> Tensor:
            with torch.enable_grad():
                loss = indexer_loss(indexers(index)(attention, x, weights), weights)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(float(loss.detach()))
            return weights.mean(1)

        return learn

    reading(model, teach, None)
    means = []
    for window in windows:
        losses.clear()
        optimizer.zero_grad()
        with torch.no_grad():
            model.read(window[None], model.rotations(len(window)))
        optimizer.step()
        means.append(round(sum(losses) / len(losses), 4))
    return indexers.requires_grad_(False), means


@torch.no_grad()
def measure(model: DecoderLM, choosers: Choosers, k: int | None) -> dict[str, Any]:
    """Read the held-out texts, the longer ones too unless ``k`` is the larger one.

    By length: the mean share of attention kept in each layer, and of each text the loss, how many
    digits of its number were recalled, and their loss.
    """
    result: dict[str, Any] = {}
    for length, count in TEXTS.items():
        if length > LENGTH and k == max(KEPT):
            continue
        layers = reading(model, choosers, k)
        found = [read_text(model, text) for text in hidden_numbers(length, count)]
        result[str(length)] = {
            "kept": [round(sum(each.kept) / len(each.kept), 4) for each in layers if each.kept],
            **{name: [each[name] for each in found] for name in found[0]},
        }
    return result


def read_text(model: DecoderLM, text: HiddenNumber) -> dict[str, float]:
    """The loss of what is not about the number, how many of its digits are the likeliest, theirs.

    Each token is given all before it, so a digit is given those before it.
    """
    tokens = text.tokens
    x, _ = model.read(tokens[None, :-1], model.rotations(len(tokens) - 1))
    scores = model.head(model.norm(x[0]))
    losses = F.cross_entropy(scores, tokens[1:], reduction="none")
    right = scores[-DIGITS:].argmax(-1) == tokens[-DIGITS:]
    return {
        "losses": round(float(losses[~text.about[1:]].mean()), 5),
        "recalled": int(right.sum()),
        "digit_losses": round(float(losses[-DIGITS:].mean()), 4),
    }


# --- the runs --------------------------------------------------------------------------------


REFERENCES: Final[dict[str, Choosers]] = {
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
        "texts": [[length, count] for length, count in TEXTS.items()],
        "digits": DIGITS,
    }
    indexer = {"heads": HEADS, "head_dim": HEAD_DIM, "trained_on": WINDOWS, "rate": RATE}
    few = min(KEPT)
    references = [
        Run(f"{name}, {few}", 0, {**common, "choice": name, "k": few}) for name in REFERENCES
    ]
    trained = [
        Run("indexer", seed, {**common, **indexer, "k": list(KEPT), "seed": seed}) for seed in SEEDS
    ]
    return [Run("dense", 0, common), *references, *trained]


def execute(run: Run) -> dict[str, Any]:
    """Train indexers or take another choice, then measure."""
    model = pretrained().model
    if run.name == "dense":
        return measure(model, by_attention, None)
    if run.name != "indexer":
        return measure(model, REFERENCES[run.configuration["choice"]], run.configuration["k"])
    indexers, losses = train(model, training_windows(run.seed), run.seed)
    return {
        "training": losses,
        "parameters": sum(each.numel() for each in indexers.parameters()),
        "right": {str(k): measure(model, indexers, k) for k in KEPT},
        "wrong": {str(min(KEPT)): measure(model, indexers.in_wrong_layout(), min(KEPT))},
    }


if __name__ == "__main__":
    sys.exit(main("indexer", runs(), execute))
