"""One decoder-only language model, small enough to train on a laptop and of today's shape.

A token becomes a vector. Each layer adds to it what attention found in the tokens before, and what
a feed-forward network made of that. The last vector scores every token that could come next. The
feed-forward network is dense, or a mixture of experts: the one thing in which two models of this
book differ when they are compared.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot import costs
from slingshot.moe import Experts, MoE, Routing, SwiGLU, TopKRouter
from slingshot.moe.experts import _undrawn_linear

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
    experts: costs.ExpertConfig | None = None
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

    def sizes(self) -> costs.ModelConfig:
        """Return the sizes as `slingshot.costs` counts them: parameters, FLOPs, bytes."""
        attention = costs.MultiHeadAttention(self.n_heads, self.width_of_head, self.n_kv_heads)
        return costs.ModelConfig(
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

    Called on ``tokens [B, S]`` int64. A position sees itself and what is before it, never what
    comes after. Matrices that write to the residual stream start at zero, so that an untrained
    model predicts from the current token alone and every layer learns what to add.

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
        """Score the next token at each place; raise ``ValueError`` for tokens that cannot be."""
        self._check(tokens)
        x = self.embedding(tokens)
        rotation = rotations(
            tokens.shape[1], self.config.width_of_head, self.config.rope_base, x.device
        )
        routings: list[Routing] = []
        for layer in self.layers:
            x, routing = layer(x, rotation)
            if routing is not None:
                routings.append(routing)
        return LMOutput(self.head(self.norm(x)), routings)

    def _check(self, tokens: Tensor) -> None:
        if tokens.ndim != 2 or tokens.dtype != torch.int64:
            raise ValueError(
                f"tokens has shape {tuple(tokens.shape)} and dtype {tokens.dtype}; "
                "pass int64 [sequences, tokens]"
            )
        outside = tokens[(tokens < 0) | (tokens >= self.config.vocab_size)]
        if outside.numel():
            raise ValueError(
                f"token {int(outside[0])} is not within 0 to {self.config.vocab_size - 1}; "
                "encode the text with the tokenizer of this model"
            )


class Layer(nn.Module):
    """One layer: attention, then a feed-forward network, each added to what came in."""

    def __init__(self, config: LMConfig, index: int) -> None:
        """Draw the weights of layer ``index``, counted from 0."""
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.ffn = feed_forward(config, index)

    def forward(self, x: Tensor, rotation: Tensor) -> tuple[Tensor, Routing | None]:
        """Return ``x [B, S, d_model]`` with both additions, and the routing if there is one."""
        x = x + self.attention(self.attention_norm(x), rotation)
        answer = self.ffn(self.ffn_norm(x))
        if isinstance(self.ffn, MoE):
            return x + answer.output, answer.routing
        return x + answer, None


class Attention(nn.Module):
    """Causal attention in which several query heads may share one key-value head (GQA).

    Source: Ainslie et al., arXiv 2305.13245; rotary positions: Su et al., arXiv 2104.09864.
    """

    def __init__(self, config: LMConfig) -> None:
        """Draw the weights; the output matrix starts at zero."""
        super().__init__()
        d_model, self.head_dim = config.d_model, config.width_of_head
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads or config.n_heads
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        self.query = nn.Linear(d_model, queries, bias=False)
        self.key = nn.Linear(d_model, keys, bias=False)
        self.value = nn.Linear(d_model, keys, bias=False)
        self.output = nn.Linear(queries, d_model, bias=False)
        for linear in (self.query, self.key, self.value):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(d_model))
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """Return for each of ``x [B, S, d_model]`` what it found in itself and before it."""
        query = rotate(self._heads(self.query(x), self.n_heads), rotation)
        key = rotate(self._heads(self.key(x), self.n_kv_heads), rotation)
        value = self._heads(self.value(x), self.n_kv_heads)
        found = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=self.n_heads != self.n_kv_heads
        )
        mixed: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return mixed

    def _heads(self, x: Tensor, n_heads: int) -> Tensor:
        """``[B, S, H * head_dim]`` as ``[B, H, S, head_dim]``."""
        return x.view(*x.shape[:2], n_heads, self.head_dim).transpose(1, 2)


class SquaredReLU(nn.Module):
    """A feed-forward network without a gate, ``down(relu(up(x))²)``.

    Source: So et al., arXiv 2109.08668, §4.2.
    """

    def __init__(self, d_model: int, d_hidden: int) -> None:
        """Draw the weights."""
        super().__init__()
        self.up = _undrawn_linear(d_model, d_hidden)
        self.down = _undrawn_linear(d_hidden, d_model)
        nn.init.normal_(self.up.weight, std=1 / math.sqrt(d_model))
        nn.init.normal_(self.down.weight, std=1 / math.sqrt(d_hidden))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of ``x [..., d_model]``."""
        output: Tensor = self.down(self.up(x).relu().square())
        return output


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


def rotations(length: int, head_dim: int, base: float, device: torch.device) -> Tensor:
    """Return the angles of RoPE as cosines and sines ``[2, length, head_dim / 2]``, float32.

    Pair j of the channels turns by ``base ** (-2j / head_dim)`` per position, so that the dot
    product of a query and a key depends on their distance alone. Source: arXiv 2104.09864, eq. 15.
    """
    speed = base ** -(torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim)
    angle = torch.arange(length, device=device, dtype=torch.float64)[:, None] * speed
    return torch.stack([angle.cos(), angle.sin()]).float()


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair of channels of ``x [..., S, head_dim]`` by its position's angle.

    Channel j is paired with channel j + head_dim / 2, as transformers stores Llama's weights.
    """
    cos, sin = rotation.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
