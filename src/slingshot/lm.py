"""One decoder-only language model, small enough to train on a laptop and of today's shape.

A token becomes a vector. Each layer adds to it what attention found in the tokens before, and what
a feed-forward network made of that. The last vector scores every token that could come next. The
feed-forward network is dense, or a mixture of experts: the one thing in which two models of this
book differ when they are compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar, get_args

import torch
from jaxtyping import Bool, Float, Float64, Int64, Integer, Shaped
from torch import Tensor, nn

from slingshot import require
from slingshot.attention import (
    Attention,
    KVCache,
    LatentAttention,
    LatentCache,
    TokenCache,
    move_rows,
    rotations,
)
from slingshot.layers import SquaredReLU, SwiGLU
from slingshot.moe import Experts, MoE, Routing, TopKRouter
from slingshot.sizes import ExpertConfig, ModelConfig, MultiHeadAttention
from slingshot.sizes import LatentAttention as LatentSizes
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
    ``None`` gives one to each. ``head_dim`` is ``d_model / n_heads`` unless given. With sizes of
    latent ``attention`` the heads are those of `slingshot.attention.LatentAttention` instead, as
    many as ``n_heads``. A tied embedding is also the output head.

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
    experts: ExpertConfig | None = None
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5
    tied_embedding: bool = False
    attention: LatentSizes | None = None

    def __post_init__(self) -> None:
        """Check what the parts cannot check: that the sizes belong together."""
        require.counts(d_model=self.d_model, n_heads=self.n_heads)
        self._check_latent()
        if self.attention is None and self.head_dim is None and self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}; "
                "change one, or give head_dim"
            )
        name = "qk_rope_head_dim" if self.attention else "head_dim"
        require.even_for_rope(**{name: self.rotary_width})
        require.one_of(get_args(Activation), activation=self.activation)
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

    def _check_latent(self) -> None:
        """Refuse sizes of heads that latent attention does not have, or has otherwise."""
        if self.attention is None:
            return
        if self.attention.n_heads != self.n_heads:
            raise ValueError(
                f"n_heads is {self.n_heads} and that of attention {self.attention.n_heads}; give "
                "the same"
            )
        if self.n_kv_heads is not None or self.head_dim is not None:
            raise ValueError(
                f"n_kv_heads is {self.n_kv_heads} and head_dim {self.head_dim} with latent "
                "attention, which has its own sizes; give None, or attention=None"
            )

    @property
    def width_of_head(self) -> int:
        """Channels of one attention head that has keys and values of its own, or shares them."""
        return self.d_model // self.n_heads if self.head_dim is None else self.head_dim

    @property
    def rotary_width(self) -> int:
        """Channels of a head that turn with the position."""
        return self.attention.qk_rope_head_dim if self.attention else self.width_of_head

    def sizes(self) -> ModelConfig:
        """Return the sizes as `slingshot.sizes` counts them: parameters, FLOPs, bytes."""
        attention = self.attention or MultiHeadAttention(
            self.n_heads, self.width_of_head, self.n_kv_heads
        )
        return ModelConfig(
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

    logits: Float[Tensor, "B S V"]
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

    def forward(self, tokens: Integer[Tensor, "B S"]) -> LMOutput:
        """Score the next token at each place.

        Raises ``ValueError`` for tokens that cannot be, and when the logits are not finite.
        """
        tokens = self.check_tokens(tokens)
        x, routings = self.read(tokens, self.rotations(tokens.shape[1]))
        logits = self.head(self.norm(x))
        if not math.isfinite(logits.detach().sum().item()):
            _check_largest(logits.detach().flatten(0, 1).amax(dim=1))
        return LMOutput(logits, routings)

    def read(
        self,
        tokens: Int64[Tensor, "B S"],
        rotation: Float[Tensor, "2 S rope"],
        caches: Sequence[TokenCache] | None = None,
    ) -> tuple[Float[Tensor, "B S d"], list[Routing]]:
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

    def rotations(self, length: int) -> Float[Tensor, "2 S rope"]:
        """Return the rotations of the first ``length`` positions, as `read` takes them."""
        config, weight = self.config, self.embedding.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return rotations(length, config.rotary_width, config.rope_base, weight.device, dtype)

    def make_caches(self, room: int) -> list[TokenCache]:
        """Return an empty cache for each layer."""
        return [layer.attention.make_cache(room) for layer in self.layers]  # type: ignore[union-attr,operator]

    def check_tokens(self, tokens: Integer[Tensor, "B S"]) -> Int64[Tensor, "B S"]:
        """Return ``tokens [B, S]`` as int64; ``ValueError`` if they are not of this model."""
        if isinstance(tokens, Tensor) and (tokens.ndim != 2 or not is_whole(tokens)):
            raise ValueError(
                f"tokens has shape {tuple(tokens.shape)} and dtype {tokens.dtype}; "
                "pass int64 [sequences, tokens]"
            )
        tokens = whole("tokens", tokens)
        self.check_vocabulary(tokens)
        return tokens

    def check_vocabulary(self, tokens: Int64[Tensor, "*shape"]) -> None:
        """Raise ``ValueError`` unless all ``tokens`` are of this model."""
        remedy = "encode the text with the tokenizer of this model"
        check_within("token", tokens, self.config.vocab_size, remedy)


class Layer(nn.Module):
    """One layer: attention, then a feed-forward network, each added to what came in."""

    def __init__(self, config: LMConfig, index: int) -> None:
        """Draw the weights of layer ``index``, counted from 0."""
        super().__init__()
        self.d_model = config.d_model
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = attention_of(config)
        self.ffn_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.ffn = feed_forward(config, index)

    def forward(
        self,
        x: Float[Tensor, "*shape d"],
        rotation: Float[Tensor, "2 S rope"],
        cache: TokenCache | None = None,
        tokens: Integer[Tensor, "*shape"] | None = None,
    ) -> tuple[Float[Tensor, "*shape d"], Routing | None]:
        """Return ``x [B, S, d_model]`` with both additions, and the routing if there is one.

        ``tokens [B, S]`` are the ids, for a mixture whose router goes by them.

        Raises ``ValueError`` for an ``x`` of another width or type, and for results that are not
        finite, or so large that their squares, of which RMSNorm takes the mean, are not.
        """
        x = check_input(x, self.d_model, self.attention.reads)
        x = x + self._attend(self.attention_norm(x), rotation, cache)
        routing = None
        if isinstance(self.ffn, MoE):
            answer, routing = self.ffn(self.ffn_norm(x), tokens)
        else:
            answer = self.ffn(self.ffn_norm(x))
        x = x + answer
        check_output(x, x)
        check_squares(x)
        return x, routing

    def _attend(
        self,
        x: Float[Tensor, "*shape d"],
        rotation: Float[Tensor, "2 S rope"],
        cache: TokenCache | None,
    ) -> Float[Tensor, "*shape d"]:
        """Call the attention. Latents stay packed behind a cache; many at once are unpacked."""
        if isinstance(self.attention, LatentAttention):
            assert cache is None or isinstance(cache, LatentCache)
            absorbed = cache is not None and cache.length > 0
            found: Tensor = self.attention(x, cache, absorbed=absorbed, rotation=rotation)
        else:
            assert cache is None or isinstance(cache, KVCache)
            found = self.attention(x, rotation, cache)
        return found


def attention_of(config: LMConfig) -> Attention | LatentAttention:
    """Return the attention of a layer; what it writes starts at zero."""
    latent = config.attention
    if latent is None:
        return Attention(config.d_model, config.n_heads, config.width_of_head, config.n_kv_heads)
    return LatentAttention(
        config.d_model,
        config.n_heads,
        kv_lora_rank=latent.kv_lora_rank,
        q_lora_rank=latent.q_lora_rank,
        qk_nope_head_dim=latent.qk_nope_head_dim,
        qk_rope_head_dim=latent.qk_rope_head_dim,
        v_head_dim=latent.v_head_dim,
        rope_base=config.rope_base,
    )


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


# --- generation ----------------------------------------------------------------------------------


def generate(
    model: DecoderLM,
    prompts: Sequence[Integer[Tensor, "_"]] | Shaped[Tensor, "B S"],
    *,
    max_new_tokens: int,
    end: int | None = None,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
) -> list[Int64[Tensor, "_"]]:
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
    check_generation(model, max_new_tokens, end, temperature)
    prompts = check_prompts(model, prompts)
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
    prompts: Sequence[Int64[Tensor, "_"]],
    max_new_tokens: int,
    end: int | None,
    temperature: float,
    numbers: Float64[Tensor, "R max_new"] | None,
    use_cache: bool,
) -> list[Int64[Tensor, "_"]]:
    """Do what `generate` promises, with its settings checked and its numbers drawn."""
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=prompts[0].device)
    longest = int(lengths.max())
    room = longest + max_new_tokens
    text = lengths.new_zeros(len(prompts), room)
    for row, prompt in zip(text, prompts, strict=True):
        row[: len(prompt)] = prompt
    rotation = model.rotations(room)
    caches = model.make_caches(room) if use_cache else None
    rows, outputs, known = torch.arange(len(prompts)), list(prompts), 0
    for position in range(int(lengths.min()), room):
        x, _ = model.read(text[:, known:position], rotation[:, known:position], caches)
        known = position if use_cache else 0
        count = position - lengths  # how many new tokens a row has; below 0 in its prompt
        uniform = None if numbers is None else numbers[rows, count.clamp(min=0)]
        chosen = choose_tokens(model.head(model.norm(x[:, -1])), temperature, uniform)
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
        text, lengths, rows = (move_rows(tensor, *moves) for tensor in (text, lengths, rows))
        for cache in caches or ():
            cache.keep(*moves)
        if not len(rows):
            break
    return outputs


def choose_tokens(
    logits: Float[Tensor, "B V"], temperature: float, uniform: Float64[Tensor, "B"] | None
) -> Int64[Tensor, "B"]:
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


def _moves(over: Bool[Tensor, "R"]) -> tuple[int, Int64[Tensor, "gaps"], Int64[Tensor, "gaps"]]:
    """Return how many rows of a batch are not over, and how they move to its front.

    Those behind fill the gaps, the others stay. Copying every row that is kept would cost as much
    as a step of the model.
    """
    n_kept = int((~over).sum())
    gaps, fillers = over[:n_kept].nonzero(), n_kept + (~over[n_kept:]).nonzero()
    return n_kept, gaps[:, 0], fillers[:, 0]


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


def check_prompts(model: DecoderLM, prompts: Sequence[Tensor] | Tensor) -> list[Int64[Tensor, "_"]]:
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
        model.check_vocabulary(prompt)
        checked.append(prompt)
    return checked


def _check_largest(top: Float[Tensor, "rows"]) -> None:
    """Raise ``ValueError`` unless the largest logit of each row is finite: others may be -inf."""
    finite = top.isfinite()
    if not finite.all():
        raise ValueError(
            f"the largest logit is {float(top[~finite][0])}; the model's weights have diverged or "
            f"overflow in {top.dtype}, load or train them again"
        )


def check_generation(
    model: DecoderLM, max_new_tokens: int, end: int | None, temperature: float
) -> None:
    """Raise ``ValueError`` for settings of `generate` that cannot be meant."""
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
