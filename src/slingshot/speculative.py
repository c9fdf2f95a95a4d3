"""Guess several tokens cheaply, verify them at once, and lose nothing: speculative decoding.

A step of a model that writes reads all of its weights for one token. It takes hardly longer to read
a few tokens at once. So a drafter proposes some, the model scores all of them in one step, and what
it would have written anyway is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from jaxtyping import Bool, Float, Float64, Int64, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot import require
from slingshot.lm import (
    DecoderLM,
    Layer,
    LMConfig,
    check_generation,
    check_prompts,
    choose_tokens,
    in_eval_mode,
)
from slingshot.tensors import at_least_float32, check_shapes, check_within, first, real, whole

# --- the rule ------------------------------------------------------------------------------------


class Accepted(NamedTuple):
    """``tokens [N]`` int64 to write, and whether each is the drafted one, ``kept [N]`` bool."""

    tokens: Int64[Tensor, "N"]
    kept: Bool[Tensor, "N"]


def accept(
    p: Float[Tensor, "N V"],
    q: Float[Tensor, "N V"],
    drafted: Integer[Tensor, "N"],
    uniform: Float[Tensor, "N"],
) -> Accepted:
    """Keep each drafted token, or write another, so that what is written has distribution ``p``.

    ``drafted [N]`` were drawn from the rows of ``q [N, V]``. One is kept with probability ``min(1,
    p / q)``; otherwise a token is drawn from ``max(p - q, 0)``, scaled to sum 1. So a token comes
    out with probability ``min(p, q) + max(p - q, 0) = p``. One number of ``uniform [N]``, within 0
    to 1, does for both: that it was too large to keep the token leaves it uniform above. Rows are
    scaled to sum 1.

    Source: Leviathan et al., arXiv 2211.17192, §2.3 and appendix A.1. Raises ``ValueError`` for
    shapes that do not belong together, numbers that are no distribution, and a drafted token that
    ``q`` cannot have drawn.
    """
    p, q = _distribution("p", p), _distribution("q", q)
    drafted, uniform = whole("drafted", drafted), real("uniform", uniform).double()
    check_shapes("pass [N, V] twice and [N] twice", p=p, q=q, drafted=drafted, uniform=uniform)
    check_within("drafted token", drafted, p.shape[1], "draft tokens of the vocabulary")
    if bool((outside := (uniform < 0) | ~(uniform < 1)).any()):
        raise ValueError(f"{first('uniform', uniform, outside)}; give numbers from 0 to below 1")
    there = drafted[:, None]
    p_drafted, q_drafted = p.gather(1, there)[:, 0], q.gather(1, there)[:, 0]
    if bool((q_drafted == 0).any()):
        token = int(drafted[q_drafted == 0][0])
        raise ValueError(f"q is 0 at the drafted token {token}; pass what it was drawn from")
    rest = (p - q).clamp(min=0)
    sums = rest.cumsum(dim=1)
    # Where nothing is left of p beside q the two are equal, but for rounding.
    kept = (uniform * q_drafted < p_drafted) | (sums[:, -1] == 0)
    left = (uniform - p_drafted / q_drafted) / (1 - p_drafted / q_drafted)
    left = torch.where(kept, 0.0, left).clamp(0, 1 - torch.finfo(left.dtype).eps)
    other = torch.searchsorted(sums, left[:, None] * sums[:, -1:], right=True)[:, 0]
    return Accepted(torch.where(kept, drafted, other), kept)


def _distribution(name: str, values: Tensor) -> Float64[Tensor, "N V"]:
    """Return rows in float64, each scaled to sum 1."""
    values = real(name, values).double()
    if values.ndim != 2:
        raise ValueError(f"{name} has shape {tuple(values.shape)}; pass [N, V]")
    sums = values.sum(dim=1, keepdim=True)
    wrong = (values < 0).any(dim=1) | ~((sums > 0) & sums.isfinite())[:, 0]
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name}[{row}] is no distribution, with numbers from {values[row].min():.3g} and a "
            f"sum of {sums[row, 0]:.3g}; give numbers of at least 0, not all 0"
        )
    return values / sums


# --- writing -------------------------------------------------------------------------------------


class Draft(NamedTuple):
    """``tokens [n]`` that may come next, and what each was drawn from, ``[n, V]``.

    Without ``probabilities`` the tokens are a guess by any means.
    """

    tokens: Int64[Tensor, "n"]
    probabilities: Float[Tensor, "n V"] | None = None


Guess = Callable[[Tensor, Tensor, int, float, torch.Generator | None], Draft]
"""Drafts up to n tokens after ``text [T]``, from ``hidden [T - 1, d]`` if it likes: what the
model's last layer made of all tokens but the newest. Then come n, the temperature, a generator."""


class Drafter(Protocol):
    """Whatever drafts: for each text that is written, it starts a `Guess` of its own."""

    def start(self, model: DecoderLM, room: int) -> Guess:
        """Return what drafts for one text of at most ``room`` tokens."""


class Speculated(NamedTuple):
    """New ``tokens`` int64; how many were ``proposed`` and ``accepted``; ``steps`` of the model."""

    tokens: Int64[Tensor, "N"]
    accepted: int
    proposed: int
    steps: int


def speculative_generate(
    model: DecoderLM,
    prompt: Integer[Tensor, "P"],
    drafter: Drafter,
    *,
    max_new_tokens: int,
    n_draft: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    end: int | None = None,
) -> Speculated:
    """Continue ``prompt [P]`` as `slingshot.lm.generate` does, in fewer steps of the model.

    Each step reads up to ``n_draft`` tokens that ``drafter`` proposes and scores them at once. At
    temperature 0, and for drafts without probabilities, a token is chosen at each place as
    `generate` chooses it, from the same uniform number; the draft is kept as far as it agrees. So
    the tokens are those of `generate`, but where two are so close that rounding decides. For drafts
    with probabilities `accept` decides, and the tokens have the same distribution.

    A text ends after ``max_new_tokens`` or with the token ``end``. Raises ``ValueError`` as
    `generate` does, and for an ``n_draft`` below 0.
    """
    check_generation(model, max_new_tokens, end, temperature)
    require.counts(least=0, n_draft=n_draft)
    (prompt,) = check_prompts(model, [prompt])
    device = generator.device if generator else torch.device("cpu")
    numbers = None
    if temperature:
        shape = (max_new_tokens,)
        numbers = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
        numbers = numbers.to(prompt.device)
    with torch.inference_mode():
        writer = _Writer(in_eval_mode(model), prompt, max_new_tokens)
        guess = drafter.start(writer.model, writer.room)
        while (left := max_new_tokens - writer.written) > 0:
            text, hidden = writer.text[: writer.length], writer.hidden[: writer.known]
            draft = guess(text, hidden, min(n_draft, left - 1), temperature, generator)
            logits = writer.read(draft.tokens)
            place = writer.written
            uniform = None if numbers is None else numbers[place : place + len(logits)]
            writer.write(verify(logits, draft, temperature, uniform), len(draft.tokens), end)
            if end is not None and bool(writer.text[writer.length - 1] == end):
                break
    tokens = writer.text[len(prompt) : writer.length].clone()
    return Speculated(tokens, writer.accepted, writer.proposed, writer.steps)


def verify(
    logits: Float[Tensor, "n_1 V"],
    draft: Draft,
    temperature: float,
    uniform: Float64[Tensor, "n_1"] | None,
) -> Int64[Tensor, "written"]:
    """Return the tokens to write: drafted ones as far as they hold, and one more.

    ``logits [n + 1, V]`` score the n places of the draft and the place after it; ``uniform [n +
    1]`` are their numbers, ``None`` at temperature 0.
    """
    n = len(draft.tokens)
    if draft.probabilities is None or uniform is None:
        chosen = choose_tokens(logits, temperature, uniform)
        kept = chosen[:n] == draft.tokens
    else:
        p = _shares(logits[:n], temperature)
        chosen, kept = accept(p, draft.probabilities, draft.tokens, uniform[:n])
        chosen = torch.cat([chosen, choose_tokens(logits[n:], temperature, uniform[n:])])
    n_kept = int(kept.cumprod(dim=0).sum())
    return chosen[: n_kept + 1]


class _Writer:
    """A text on its way: its tokens, which of them the model has read, and what it made of them."""

    def __init__(self, model: DecoderLM, prompt: Tensor, max_new_tokens: int) -> None:
        self.model, self.prompt_length = model, len(prompt)
        self.room = len(prompt) + max_new_tokens
        self.text = prompt.new_zeros(self.room)
        self.text[: len(prompt)] = prompt
        self.hidden = model.embedding.weight.new_empty(self.room, model.config.d_model)
        self.length, self.known = len(prompt), 0
        self.rotation = model.rotations(self.room)
        self.caches = model.make_caches(self.room)
        self.accepted = self.proposed = self.steps = 0

    @property
    def written(self) -> int:
        return self.length - self.prompt_length

    def read(self, drafted: Int64[Tensor, "n"]) -> Float[Tensor, "n+1 V"]:
        """Read what is new and the draft; return the logits of its places and the one after."""
        tokens = torch.cat([self.text[self.known : self.length], drafted])
        end = self.known + len(tokens)
        x, _ = self.model.read(tokens[None], self.rotation[:, self.known : end], self.caches)
        self.hidden[self.known : end] = x[0]
        self.steps += 1
        logits: Tensor = self.model.head(self.model.norm(x[0, -len(drafted) - 1 :]))
        return logits

    def write(self, chosen: Int64[Tensor, "written"], n_drafted: int, end: int | None) -> None:
        """Keep the chosen tokens, and of what was read all that stands before the last of them."""
        n_kept = len(chosen) - 1
        if end is not None and len(places := (chosen == end).nonzero()):
            chosen = chosen[: int(places[0]) + 1]
        self.proposed += n_drafted
        self.accepted += min(n_kept, len(chosen))  # not what stood behind the end
        self.text[self.length : self.length + len(chosen)] = chosen
        self.length += len(chosen)
        self.known = self.length - 1
        for cache in self.caches:
            cache.length = self.known


# --- drafters ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PromptLookup:
    """Drafts what came after the latest earlier place that reads like the last few tokens.

    It looks for the last ``longest`` tokens, then for fewer, down to ``shortest``. Source: Saxena,
    prompt-lookup-decoding, 2023. Raises ``ValueError`` for lengths below 1 or out of order.
    """

    longest: int = 3
    shortest: int = 2

    def __post_init__(self) -> None:
        """Check the lengths."""
        require.counts(longest=self.longest, shortest=self.shortest)
        if self.shortest > self.longest:
            raise ValueError(
                f"shortest is {self.shortest} and longest {self.longest}; give at most the longest"
            )

    def start(self, model: DecoderLM, room: int) -> Guess:
        """Return what drafts for one text; it needs nothing but the text."""
        return lambda text, hidden, n, temperature, generator: Draft(self.look_up(text, n))

    def look_up(self, text: Int64[Tensor, "T"], n: int) -> Int64[Tensor, "drafted"]:
        """Return up to ``n`` tokens that may come after ``text [T]``, none if nothing repeats."""
        for size in range(self.longest, self.shortest - 1, -1):
            if len(text) <= size:
                continue
            places = (text[:-1].unfold(0, size, 1) == text[-size:]).all(dim=1).nonzero()
            if len(places):
                start = int(places[-1]) + size
                return text[start : start + n]
        return text[:0]


class MultiTokenHead(nn.Module):
    """A layer that guesses the token after the next one: multi-token prediction (MTP) as in V3.

    It takes what the model made of a token and the embedding of the token that came next, both
    normalized, joins them, runs one layer, and shares the model's embedding and head. Drafting
    more than one token, it takes its own output for that of the model.

    Source: DeepSeek-V3, arXiv 2412.19437, §2.2, eqs. 21-23.
    """

    def __init__(self, config: LMConfig) -> None:
        """Draw the weights for a model of this configuration."""
        super().__init__()
        self.hidden_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.token_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.join = nn.Linear(2 * config.d_model, config.d_model, bias=False)
        nn.init.normal_(self.join.weight, std=(2 * config.d_model) ** -0.5)
        self.layer = Layer(config, config.n_layers - 1)
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)

    @classmethod
    def of(cls, model: DecoderLM) -> Self:
        """Return a new one for ``model``, of its type."""
        return cls(model.config).to(model.embedding.weight)

    def read(
        self,
        model: DecoderLM,
        hidden: Float[Tensor, "B S d"],
        tokens: Int64[Tensor, "B S"],
        start: int = 0,
    ) -> Float[Tensor, "B S d"]:
        """Return a hidden vector for each pair of ``hidden [B, S, d]`` and ``tokens [B, S]``.

        ``tokens`` are those that came after what ``hidden`` stands for. Raises ``ValueError`` for
        tokens that are not of this model, and for shapes that do not belong together.
        """
        tokens = model.check_tokens(tokens)
        remedy = f"pass [B, S, {model.config.d_model}] and [B, S]"
        check_shapes(remedy, hidden=hidden, tokens=tokens)
        require.counts(least=0, start=start)
        rotation = model.rotations(start + tokens.shape[1])[:, start:]
        return self._read(model, hidden, tokens, rotation, None)

    def _read(
        self,
        model: DecoderLM,
        hidden: Float[Tensor, "B S d"],
        tokens: Int64[Tensor, "B S"],
        rotation: Float[Tensor, "2 S rope"],
        cache: object,
    ) -> Float[Tensor, "B S d"]:
        pair = [self.hidden_norm(hidden), self.token_norm(model.embedding(tokens))]
        x: Tensor = self.layer(self.join(torch.cat(pair, dim=-1)), rotation, cache)[0]
        return x

    def logits(self, model: DecoderLM, hidden: Float[Tensor, "*B d"]) -> Float[Tensor, "*B V"]:
        """Score the token after the next, with the model's head."""
        scores: Tensor = model.head(self.norm(hidden))
        return scores

    def loss(
        self, model: DecoderLM, hidden: Float[Tensor, "B S d"], tokens: Int64[Tensor, "B S+1"]
    ) -> Float[Tensor, ""]:
        """Return the loss of guessing the token after the next, the mean in nats.

        ``hidden [B, S, d]`` is what the model made of all but the last of ``tokens [B, S + 1]``.
        Raises ``ValueError`` for tokens that are not of this model, for shapes that do not belong
        together, and for fewer than three tokens, of which none comes after the next.
        """
        tokens, width = model.check_tokens(tokens), model.config.d_model
        n_rows, n_tokens = tokens.shape
        fits = hidden.shape == (n_rows, n_tokens - 1, width)
        if not fits or n_rows < 1 or n_tokens < 3:
            raise ValueError(
                f"hidden has shape {tuple(hidden.shape)} and tokens {tuple(tokens.shape)}; pass "
                f"[B, S, {width}] and [B, S + 1] with S at least 2, for the third token is the "
                "first to be guessed"
            )
        guessed = self.logits(model, self.read(model, hidden[:, :-1], tokens[:, 1:-1]))
        return F.cross_entropy(at_least_float32(guessed).flatten(0, 1), tokens[:, 2:].flatten())

    def start(self, model: DecoderLM, room: int) -> Guess:
        """Return what drafts for one text, with a cache of its own."""
        head = in_eval_mode(self)
        cache = head.layer.attention.make_cache(room + 1)
        rotation = model.rotations(room + 1)

        def read(hidden: Tensor, tokens: Tensor) -> Tensor:
            at = cache.length
            turns = rotation[:, at : at + len(tokens)]
            return head._read(model, hidden[None], tokens[None], turns, cache)[0, -1:]

        def guess(
            text: Tensor, hidden: Tensor, n: int, temperature: float, source: torch.Generator | None
        ) -> Draft:
            if not len(hidden) or n < 1:  # nothing has been read yet
                return Draft(text[:0])
            x = read(hidden[cache.length :], text[cache.length + 1 :])
            tokens: list[Tensor] = []
            logits: list[Tensor] = []
            for place in range(n):
                if place:
                    x = read(x, tokens[-1])
                logits.append(head.logits(model, x))
                uniform = None
                if temperature:
                    device = source.device if source else torch.device("cpu")
                    uniform = torch.rand(1, generator=source, dtype=torch.float64, device=device)
                    uniform = uniform.to(x.device)
                tokens.append(choose_tokens(logits[-1], temperature, uniform))
            cache.length = len(hidden)
            shares = _shares(torch.cat(logits), temperature) if temperature else None
            return Draft(torch.cat(tokens), shares)

        return guess


def _shares(logits: Float[Tensor, "N V"], temperature: float) -> Float64[Tensor, "N V"]:
    """Return the distribution from which `generate` draws at a temperature."""
    logits = at_least_float32(logits)
    # Subtracted before the division, which a tiny temperature would let overflow.
    return ((logits - logits.amax(dim=-1, keepdim=True)).double() / temperature).softmax(dim=-1)
