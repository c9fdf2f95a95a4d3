"""One decoder-only language model, small enough to train on a laptop and of today's shape.

A token becomes a vector. Each layer adds to it what attention found in the tokens before, and what
a feed-forward network made of that. The last vector scores every token that could come next. The
feed-forward network is dense, or a mixture of experts: the one thing in which two models of this
book differ when they are compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot import sizes
from slingshot.layers import SquaredReLU, SwiGLU
from slingshot.moe import Experts, MoE, Routing, TopKRouter
from slingshot.tensors import (
    at_least_float32,
    check_input,
    check_output,
    check_squares,
    check_within,
    is_whole,
    looking_at_the_end,
    whole,
)

M = TypeVar("M", bound=nn.Module)

Activation = Literal["swiglu", "relu2"]
"""The dense feed-forward network: SwiGLU (arXiv 2002.05202), or ReLU² without a gate
(arXiv 2109.08668)."""


@dataclass(frozen=True)
class LMConfig:
    """The sizes of a `DecoderLM`.

    ``d_ffn`` is the width of a dense feed-forward network. With ``experts``, layers from
    ``n_dense_layers`` on are mixtures instead; experts are always SwiGLU, and so are the dense
    layers before them. ``n_kv_heads`` key-value heads are shared by ``n_heads`` query heads (GQA);
    ``None`` gives one to each. ``head_dim`` is ``d_model / n_heads`` unless given. A tied embedding
    is also the output head.

    Raises ``ValueError`` for sizes that do not fit together.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ffn: int
    n_kv_heads: int | None = None
    head_dim: int | None = None
    activation: Activation = "swiglu"
    experts: sizes.ExpertConfig | None = None
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5
    tied_embedding: bool = False

    def __post_init__(self) -> None:
        """Check what the parts cannot check: that the sizes belong together."""
        for name in ("d_model", "n_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.head_dim is None and self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}; "
                "change one, or give head_dim"
            )
        if self.width_of_head % 2:
            raise ValueError(
                f"head_dim is {self.width_of_head}; RoPE turns pairs of channels, give an even one"
            )
        if self.activation not in ("swiglu", "relu2"):
            raise ValueError(f"activation {self.activation!r} is unknown; use swiglu or relu2")
        if self.experts and self.activation != "swiglu":
            raise ValueError(
                f"activation is {self.activation} but experts are always SwiGLU; "
                "give swiglu, or experts=None"
            )
        if not 0 < self.rope_base < math.inf or not 0 < self.norm_eps < math.inf:
            raise ValueError(
                f"rope_base is {self.rope_base} and norm_eps {self.norm_eps}; "
                "give positive finite numbers"
            )
        self.sizes()

    @property
    def width_of_head(self) -> int:
        """Channels of one attention head."""
        return self.d_model // self.n_heads if self.head_dim is None else self.head_dim

    def sizes(self) -> sizes.ModelConfig:
        """Return the sizes as `slingshot.sizes` counts them: parameters, FLOPs, bytes."""
        attention = sizes.MultiHeadAttention(self.n_heads, self.width_of_head, self.n_kv_heads)
        return sizes.ModelConfig(
            d_model=self.d_model,
            n_layers=self.n_layers,
            vocab_size=self.vocab_size,
            d_ffn=self.d_ffn,
            attention=attention,
            experts=self.experts,
            gated_ffn=self.activation == "swiglu",
            tied_embedding=self.tied_embedding,
        )


class LMOutput(NamedTuple):
    """``logits [B, S, V]`` of the next token, and the routing of each layer that has a router.

    A `slingshot.moe.Routing` has one row per token, B * S of them, sequence after sequence.
    """

    logits: Tensor
    routings: list[Routing]


class DecoderLM(nn.Module):
    """A decoder-only transformer: RMSNorm before each block, RoPE, GQA, SwiGLU, ReLU² or MoE.

    Called on ``tokens [B, S]``, integers of any width. A position sees itself and what is before
    it, never what comes after. Matrices that write to the residual stream start at zero, so that an
    untrained model predicts from the current token alone and every layer learns what to add.

    Source: the shape of Llama, arXiv 2302.13971, §2.2; the mixture of DeepSeek-V3,
    arXiv 2412.19437, §2.1.2.
    """

    def __init__(self, config: LMConfig) -> None:
        """Draw the weights."""
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        # A tied embedding of 0.5 would be sure that the next token is the one it has just read.
        nn.init.normal_(self.embedding.weight, std=0.02 if config.tied_embedding else 0.5)
        nn.init.normal_(self.head.weight, std=1 / math.sqrt(config.d_model))
        if config.tied_embedding:
            self.head.weight = self.embedding.weight

    @property
    def routers(self) -> list[TopKRouter]:
        """The routers in the order of their layers, as in `LMOutput.routings`."""
        return [module for module in self.modules() if isinstance(module, TopKRouter)]

    def forward(self, tokens: Tensor) -> LMOutput:
        """Score the next token at each place.

        Raises ``ValueError`` for tokens that cannot be, and when the logits are not finite.
        """
        tokens = self._check(tokens)
        x, routings = self._read(tokens, self._rotations(tokens.shape[1]))
        logits = self.head(self.norm(x))
        if not math.isfinite(logits.detach().sum().item()):
            _check_largest(logits.detach().flatten(0, 1).amax(dim=1))
        return LMOutput(logits, routings)

    def _read(
        self, tokens: Tensor, rotation: Tensor, caches: Sequence["KVCache"] | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """Run the layers on ``tokens [B, S]``, which come after those in the caches of the layers.

        ``rotation`` belongs to the positions of these tokens.
        """
        x = self.embedding(tokens)
        routings: list[Routing] = []
        with looking_at_the_end():
            for index, layer in enumerate(self.layers):
                x, routing = layer(x, rotation, caches[index] if caches else None, tokens)
                if routing is not None:
                    routings.append(routing)
        check_squares(x)
        return x, routings

    def _rotations(self, length: int) -> Tensor:
        config, weight = self.config, self.embedding.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return rotations(length, config.width_of_head, config.rope_base, weight.device, dtype)

    def _check(self, tokens: Tensor) -> Tensor:
        """Return ``tokens [B, S]`` as int64; ``ValueError`` if they are not of this model."""
        if isinstance(tokens, Tensor) and (tokens.ndim != 2 or not is_whole(tokens)):
            raise ValueError(
                f"tokens has shape {tuple(tokens.shape)} and dtype {tokens.dtype}; "
                "pass int64 [sequences, tokens]"
            )
        tokens = whole("tokens", tokens)
        self._check_vocabulary(tokens)
        return tokens

    def _check_vocabulary(self, tokens: Tensor) -> None:
        remedy = "encode the text with the tokenizer of this model"
        check_within("token", tokens, self.config.vocab_size, remedy)


class Layer(nn.Module):
    """One layer: attention, then a feed-forward network, each added to what came in."""

    def __init__(self, config: LMConfig, index: int) -> None:
        """Draw the weights of layer ``index``, counted from 0."""
        super().__init__()
        self.d_model = config.d_model
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.ffn = feed_forward(config, index)

    def forward(
        self,
        x: Tensor,
        rotation: Tensor,
        cache: "KVCache | None" = None,
        tokens: Tensor | None = None,
    ) -> tuple[Tensor, Routing | None]:
        """Return ``x [B, S, d_model]`` with both additions, and the routing if there is one.

        ``tokens [B, S]`` are the ids, for a mixture whose router goes by them.

        Raises ``ValueError`` for an ``x`` of another width or type, and for results that are not
        finite, or so large that their squares, of which RMSNorm takes the mean, are not.
        """
        x = check_input(x, self.d_model, self.attention.query)
        x = x + self.attention(self.attention_norm(x), rotation, cache)
        routing = None
        if isinstance(self.ffn, MoE):
            answer, routing = self.ffn(self.ffn_norm(x), tokens)
        else:
            answer = self.ffn(self.ffn_norm(x))
        x = x + answer
        check_output(x, x)
        check_squares(x)
        return x, routing


class Attention(nn.Module):
    """Causal attention in which several query heads may share one key-value head (GQA).

    Source: Ainslie et al., arXiv 2305.13245; rotary positions: Su et al., arXiv 2104.09864.
    """

    def __init__(self, config: LMConfig) -> None:
        """Draw the weights; the output matrix starts at zero."""
        super().__init__()
        d_model, self.head_dim = config.d_model, config.width_of_head
        self.d_model = d_model
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads or config.n_heads
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        self.query = nn.Linear(d_model, queries, bias=False)
        self.key = nn.Linear(d_model, keys, bias=False)
        self.value = nn.Linear(d_model, keys, bias=False)
        self.output = nn.Linear(queries, d_model, bias=False)
        for linear in (self.query, self.key, self.value):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(d_model))
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor, rotation: Tensor, cache: "KVCache | None" = None) -> Tensor:
        """Return for each of ``x [B, S, d_model]`` what it found in itself and before it.

        With a cache that holds tokens already, ``x`` is the one token after them. Raises
        ``ValueError`` for another shape or type, and when a result is not finite.
        """
        x = check_input(x, self.d_model, self.query)
        if x.ndim != 3 or rotation.shape != (2, x.shape[1], self.head_dim):
            raise ValueError(
                f"x has shape {tuple(x.shape)} and rotation {tuple(rotation.shape)}; "
                f"pass [B, S, {self.d_model}] and [2, S, {self.head_dim}]"
            )
        if cache is not None and cache.length and x.shape[1] != 1:
            raise ValueError(
                f"{x.shape[1]} tokens come after {cache.length} in the cache; pass one at a time"
            )
        query = rotate(self._heads(self.query(x), self.n_heads), rotation)
        key = rotate(self._heads(self.key(x), self.n_kv_heads), rotation)
        value = self._heads(self.value(x), self.n_kv_heads)
        if cache is not None:
            key, value = cache.append(key, value)
        if key.shape[2] > query.shape[2]:
            found = attend_to_all(query, key, value)
        else:
            found = F.scaled_dot_product_attention(
                query, key, value, is_causal=True, enable_gqa=self.n_heads != self.n_kv_heads
            )
        mixed: Tensor = self.output(found.transpose(1, 2).flatten(2))
        check_output(mixed, x)
        return mixed

    def _heads(self, x: Tensor, n_heads: int) -> Tensor:
        """``[B, S, H * head_dim]`` as ``[B, H, S, head_dim]``."""
        return x.view(*x.shape[:2], n_heads, self.head_dim).transpose(1, 2)


def feed_forward(config: LMConfig, index: int) -> nn.Module:
    """Return the feed-forward network of layer ``index``; what it writes starts at zero."""
    experts = config.experts
    if experts is None or index < experts.n_dense_layers:
        dense = SwiGLU if config.activation == "swiglu" else SquaredReLU
        network = dense(config.d_model, config.d_ffn)
        nn.init.zeros_(network.down.weight)
        return network
    router = TopKRouter(config.d_model, experts.n_routed, experts.top_k)
    routed = Experts(experts.n_routed, config.d_model, experts.d_expert)
    nn.init.zeros_(routed.down)
    if not experts.n_shared:
        return MoE(router, routed)
    shared = SwiGLU(config.d_model, experts.n_shared * experts.d_expert)
    nn.init.zeros_(shared.down.weight)
    return MoE(router, routed, shared)


def rotations(
    length: int,
    head_dim: int,
    base: float,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the angles of RoPE as cosines and signed sines ``[2, length, head_dim]`` in ``dtype``.

    Pair j of the channels turns by ``base ** (-2j / head_dim)`` per position, so that the dot
    product of a query and a key depends on their distance alone. Both channels of a pair have its
    cosine; the first has minus its sine, the second its sine. Source: arXiv 2104.09864, eq. 15.
    """
    speed = base ** -(torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim)
    angle = torch.arange(length, device=device, dtype=torch.float64)[:, None] * speed
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)]).to(dtype)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair of channels of ``x [..., S, head_dim]`` by its position's angle.

    Channel j is paired with channel j + head_dim / 2, as transformers stores Llama's weights;
    rolled by half the channels, each has its partner in its place. Raises ``ValueError`` when
    ``rotation`` is not ``[2, S, head_dim]``.
    """
    if rotation.ndim != 3 or (2, *x.shape[-2:]) != rotation.shape:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and rotation {tuple(rotation.shape)}; "
            "pass [..., S, head_dim] and [2, S, head_dim]"
        )
    cos, sin = rotation.to(x.dtype)
    turned: Tensor = x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin
    return turned


# --- generation ----------------------------------------------------------------------------------


def attend_to_all(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of the last token, which may see all: ``query [B, H, 1, D]`` to ``[B, H, 1, D]``.

    The queries that share one of the heads of ``key [B, H_kv, T, D]`` and ``value`` are the rows of
    one matrix, so that keys and values are read once for all of them.
    """
    if torch.finfo(query.dtype).bits < 32:  # scores of half precision would be off by units
        return F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    # Many rows take a tenth to a half longer with SDPA. One row would take less time; to treat it
    # in another way would round it in another way.
    shared = query.reshape(key.shape[0] * key.shape[1], -1, key.shape[3])
    scores = torch.bmm(shared * key.shape[3] ** -0.5, key.flatten(0, 1).mT)
    return torch.bmm(scores.softmax(dim=-1), value.flatten(0, 1)).view_as(query)


class KVCache:
    """The keys and values of the tokens that one attention layer has seen, ``[B, H_kv, T, D]``.

    They do not depend on what comes later, so they are computed once. ``room`` is the largest T;
    its memory is taken at the first tokens.
    """

    def __init__(self, room: int) -> None:
        """Start with no tokens; ``ValueError`` for no room."""
        if room < 1:
            raise ValueError(f"room is {room}; give the largest number of tokens, at least 1")
        self.room = room
        self.length = 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store ``[B, H_kv, S, D]`` of the next S tokens; return all so far.

        Raises ``ValueError`` for more tokens than there is room, and for tensors that differ in
        more than S from those before.
        """
        self._check(key, value)
        if not self.length:
            shape = (*key.shape[:2], self.room, key.shape[3])
            self._keys, self._values = key.new_empty(shape), value.new_empty(shape)
        start, self.length = self.length, self.length + key.shape[2]
        self._keys[:, :, start : self.length] = key
        self._values[:, :, start : self.length] = value
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def _check(self, key: Tensor, value: Tensor) -> None:
        if key.ndim != 4 or key.shape != value.shape or key.dtype != value.dtype:
            raise ValueError(
                f"key has shape {tuple(key.shape)} and dtype {key.dtype}, value "
                f"{tuple(value.shape)} and {value.dtype}; pass two of [B, H_kv, S, D]"
            )
        if self.length + key.shape[2] > self.room:
            raise ValueError(
                f"{key.shape[2]} tokens come after {self.length} and room is {self.room}; "
                "make the cache with more room"
            )
        if not self.length:
            return
        if (*key.shape[:2], key.shape[3]) != (*self._keys.shape[:2], self._keys.shape[3]):
            raise ValueError(
                f"key has shape {tuple(key.shape)} and those in the cache "
                f"{tuple(self._keys.shape)}; pass the same rows and heads"
            )
        if key.dtype != self._keys.dtype:
            raise ValueError(
                f"key has dtype {key.dtype} and those in the cache {self._keys.dtype}; "
                "make a cache for each type"
            )

    def keep(self, n_kept: int, gaps: Tensor, fillers: Tensor) -> None:
        """Keep ``n_kept`` rows: the first ones, with those of ``fillers`` in place of ``gaps``.

        Raises ``ValueError`` for rows that are not there.
        """
        n_rows = len(self._keys) if self.length else 0
        gaps, fillers = whole("gaps", gaps), whole("fillers", fillers)
        if not 0 <= n_kept <= n_rows or gaps.shape != fillers.shape or gaps.ndim != 1:
            raise ValueError(
                f"n_kept is {n_kept} with gaps {tuple(gaps.shape)} and fillers "
                f"{tuple(fillers.shape)}; keep 0 to {n_rows} rows, a filler for each gap"
            )
        check_within("gap", gaps, n_kept, "fill rows that are kept")
        check_within("filler", fillers, n_rows, "fill with rows of the cache")
        for rows in (self._keys, self._values):
            _move(rows[:, :, : self.length], n_kept, gaps, fillers)
        self._keys, self._values = self._keys[:n_kept], self._values[:n_kept]


def generate(
    model: DecoderLM,
    prompts: Sequence[Tensor] | Tensor,
    *,
    max_new_tokens: int,
    end: int | None = None,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
) -> list[Tensor]:
    """Continue each prompt token by token; return the new tokens of each, int64.

    ``prompts`` are integer tensors of one dimension, of any lengths, or one tensor ``[B, S]``. A
    continuation is over after ``max_new_tokens``, or with the token ``end``, which it then
    includes. All prompts run as one batch that shares its position and shrinks as they finish: the
    length of the shortest is read at once, from there on each step reads one token of every row,
    the prompt's own while there are any. So prompts of equal length are read fastest. What takes
    long in a step of one row is a few hundred calls of torch and Python; in one of many rows, to
    read their keys and values.

    At ``temperature`` 0 the likeliest token is taken, at another one is drawn from
    ``softmax(logits / temperature)``. Row r's token t uses uniform number ``[r, t]`` of
    ``[len(prompts), max_new_tokens]`` that are drawn from ``generator`` in advance, whatever
    happens later. So no row's numbers depend on another row, on its prompt or on when it ended.
    Its logits do not either but for their rounding, which varies with the size of the batch.

    Without ``use_cache`` every step recomputes all tokens, which gives the same up to rounding. It
    matters for a quantized model: one scale for a whole tensor of activations spans all tokens
    without a cache, and with it each new token alone.

    The model runs in eval mode without gradients. It is not changed for that, so that several
    threads can write with one model, and another can train it.

    Raises ``ValueError`` for prompts that are empty or no tokens of this model, for settings that
    cannot be meant, and when the model's logits are not finite.
    """
    _check_settings(model, max_new_tokens, end, temperature)
    prompts = _check_prompts(model, prompts)
    if not prompts:
        return []
    numbers = None
    if temperature:
        shape = (len(prompts), max_new_tokens)
        device = generator.device if generator else torch.device("cpu")
        numbers = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
        numbers = numbers.to(prompts[0].device)
    with torch.inference_mode():
        outputs = _continue(
            in_eval_mode(model), prompts, max_new_tokens, end, temperature, numbers, use_cache
        )
    # What is made in inference mode cannot take part in training; a copy can.
    return [output.clone() for output in outputs]


def _continue(
    model: DecoderLM,
    prompts: Sequence[Tensor],
    max_new_tokens: int,
    end: int | None,
    temperature: float,
    numbers: Tensor | None,
    use_cache: bool,
) -> list[Tensor]:
    """Do what `generate` promises, with its settings checked and its numbers drawn."""
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=prompts[0].device)
    longest = int(lengths.max())
    room = longest + max_new_tokens
    text = lengths.new_zeros(len(prompts), room)
    for row, prompt in zip(text, prompts, strict=True):
        row[: len(prompt)] = prompt
    rotation = model._rotations(room)
    caches = [KVCache(room) for _ in model.layers] if use_cache else None
    rows, outputs, known = torch.arange(len(prompts)), list(prompts), 0
    for position in range(int(lengths.min()), room):
        x, _ = model._read(text[:, known:position], rotation[:, known:position], caches)
        known = position if use_cache else 0
        count = position - lengths  # how many new tokens a row has; below 0 in its prompt
        uniform = None if numbers is None else numbers[rows, count.clamp(min=0)]
        chosen = _choose(model.head(model.norm(x[:, -1])), temperature, uniform)
        if position < longest:
            chosen = torch.where(count < 0, text[:, position], chosen)
        text[:, position] = chosen
        over = count == max_new_tokens - 1
        if end is not None:
            over |= (chosen == end) & (count >= 0)
        if not bool(over.any()):
            continue
        for row in over.nonzero().flatten().tolist():
            outputs[int(rows[row])] = text[row, int(lengths[row]) : position + 1].clone()
        moves = _moves(over)
        text, lengths, rows = (_move(tensor, *moves) for tensor in (text, lengths, rows))
        for cache in caches or ():
            cache.keep(*moves)
        if not len(rows):
            break
    return outputs


def _choose(logits: Tensor, temperature: float, uniform: Tensor | None) -> Tensor:
    """Return the next token of each row of ``logits [B, V]``; ``uniform [B]`` float64 decides."""
    logits = at_least_float32(logits)
    top, likeliest = logits.max(dim=-1)
    if not math.isfinite(top.sum()):
        _check_largest(top)
    if uniform is None:
        return likeliest
    weights = ((logits - top[:, None]).double() / temperature).exp()
    # The first token whose cumulative sum exceeds uniform * total. One below 1, times the total in
    # float64, stays below the total, so there is one; a token of weight 0 is never the first.
    sums = weights.cumsum(dim=-1)
    return torch.searchsorted(sums, uniform[:, None] * sums[:, -1:], right=True)[:, 0]


def _moves(over: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return how many rows of a batch are not over, and how they move to its front.

    Those behind fill the gaps, the others stay. Copying every row that is kept would cost as much
    as a step of the model.
    """
    n_kept = int((~over).sum())
    gaps, fillers = over[:n_kept].nonzero(), n_kept + (~over[n_kept:]).nonzero()
    return n_kept, gaps[:, 0], fillers[:, 0]


def _move(rows: Tensor, n_kept: int, gaps: Tensor, fillers: Tensor) -> Tensor:
    """Move ``rows`` as `_moves` says, in place; return those that are kept."""
    if len(gaps):
        rows[gaps] = rows[fillers]
    return rows[:n_kept]


def in_eval_mode(model: M) -> M:
    """Return ``model`` in eval mode: itself if it is, otherwise other modules with its tensors.

    They share parameters, buffers and hooks with those of ``model`` and differ in their mode, so
    that nobody who uses ``model`` at the same time, or after Ctrl-C, finds it in another.
    """
    twins: dict[int, nn.Module] = {}

    def twin(module: nn.Module) -> nn.Module:
        if id(module) in twins:
            return twins[id(module)]
        parts = {name: part and twin(part) for name, part in module._modules.items()}
        same = not module.training
        for name, part in module._modules.items():
            same = same and parts[name] is part
        if same:
            made = module
        else:
            made = object.__new__(type(module))
            vars(made).update(vars(module))
            vars(made).update(_modules=parts, training=False)
        twins[id(module)] = made
        return made

    evaluated = twin(model)
    assert isinstance(evaluated, type(model))
    return evaluated


def _check_prompts(model: DecoderLM, prompts: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """Return each prompt as int64; ``ValueError`` for one that ``model`` cannot read."""
    if isinstance(prompts, Tensor) and not prompts.ndim:
        raise ValueError(f"prompts is a number, {prompts.item()}; pass a list of tensors")
    checked = []
    for given in prompts:
        prompt = whole("a prompt", given, "pass int64")
        if prompt.ndim != 1 or not len(prompt):
            raise ValueError(
                f"a prompt has shape {tuple(prompt.shape)}; give one dimension, at least one token"
            )
        model._check_vocabulary(prompt)
        checked.append(prompt)
    return checked


def _check_largest(top: Tensor) -> None:
    """Raise ``ValueError`` unless the largest logit of each row is finite: others may be -inf."""
    finite = top.isfinite()
    if not finite.all():
        raise ValueError(
            f"the largest logit is {float(top[~finite][0])}; the model's weights have diverged or "
            f"overflow in {top.dtype}, load or train them again"
        )


def _check_settings(
    model: DecoderLM, max_new_tokens: int, end: int | None, temperature: float
) -> None:
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; give at least 1")
    # At this one all tokens are as likely, and differences of logits beyond float32 still are not.
    if not 0 <= temperature <= 1e30:
        raise ValueError(
            f"temperature is {temperature}; give 0 for the likeliest token, or a positive number "
            "up to 1e30"
        )
    if end is not None and not 0 <= end < model.config.vocab_size:
        raise ValueError(
            f"end is {end}, not a token within 0 to {model.config.vocab_size - 1}; "
            "give one, or None"
        )
