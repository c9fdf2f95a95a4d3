"""What a language model is made of: parameters, experts, what a token leaves in its cache.

Nothing here runs a model. A configuration says how large the matrices are, and multiplication does
the rest. Parameters, bytes and FLOPs are counts, unscaled.

A size that cannot be meant (negative, zero, NaN, more chosen experts than there are) raises
``ValueError`` with its value and a remedy. NumPy's numbers are taken as Python's, which do not
overflow.
"""

import math
from dataclasses import dataclass

from slingshot import require


@dataclass(frozen=True)
class MultiHeadAttention:
    """Attention with ``n_heads`` heads of ``head_dim`` channels; queries may share keys and values.

    ``n_kv_heads`` is the number of key-value heads: ``None`` for one per head (MHA), 1 for a single
    one (MQA, arXiv 1911.02150), in between for groups (GQA, arXiv 2305.13245).
    """

    n_heads: int
    head_dim: int
    n_kv_heads: int | None = None

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless the heads divide evenly among the key-value heads."""
        require.make_plain(self)
        require.counts(n_heads=self.n_heads, head_dim=self.head_dim, n_kv_heads=self.kv_heads)
        if self.n_heads % self.kv_heads:
            raise ValueError(
                f"n_kv_heads {self.kv_heads} does not divide n_heads {self.n_heads}; "
                "give a divisor, so that every key-value head serves as many heads"
            )

    @property
    def kv_heads(self) -> int:
        """Key-value heads, at most ``n_heads``."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def cached_elements(self) -> int:
        """Numbers that one token leaves in the KV cache of one layer: a key and a value a head."""
        return 2 * self.kv_heads * self.head_dim

    @require.python_numbers()
    def count_parameters(self, d_model: int, bias: bool) -> int:
        """Parameters of one layer: queries, keys, values and the output projection."""
        queries, keys_values = self.n_heads * self.head_dim, self.cached_elements
        weights = d_model * (2 * queries + keys_values)
        return weights + (queries + keys_values + d_model if bias else 0)

    @property
    def flops_per_position(self) -> int:
        """FLOPs of one token against one position: a dot product and a weighted sum per head."""
        return 2 * self.n_heads * (self.head_dim + self.head_dim)

    @property
    def decode_flops_per_position(self) -> int:
        """FLOPs of a new token against one cached position."""
        return self.flops_per_position


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (MLA): keys and values are unpacked from one small vector.

    A token leaves ``kv_lora_rank`` compressed channels and ``qk_rope_head_dim`` channels of rotary
    key, which all heads share. Keys have ``qk_nope_head_dim + qk_rope_head_dim`` channels a head,
    values ``v_head_dim``. Queries pass through ``q_lora_rank`` channels, or directly when it is
    ``None``. The names are those of DeepSeek's configuration files.

    Source: DeepSeek-V2, arXiv 2405.04434, §2.1, eqs. 9-19.
    """

    n_heads: int
    kv_lora_rank: int
    q_lora_rank: int | None
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a size below 1."""
        require.make_plain(self)
        sizes = {name: size for name, size in vars(self).items() if size is not None}
        require.counts(**sizes)

    @property
    def cached_elements(self) -> int:
        """Numbers that one token leaves in the KV cache of one layer, whatever the heads."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @require.python_numbers()
    def count_parameters(self, d_model: int, bias: bool) -> int:
        """Parameters of one layer, the norms of the compressed vectors included; never a bias."""
        if bias:
            raise ValueError("bias is True; latent attention is defined without, give bias=False")
        q_width = self.n_heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        if self.q_lora_rank is None:
            queries = d_model * q_width
        else:
            queries = (d_model + 1 + q_width) * self.q_lora_rank
        compress = d_model * self.cached_elements + self.kv_lora_rank
        unpack = self.kv_lora_rank * self.n_heads * (self.qk_nope_head_dim + self.v_head_dim)
        return queries + compress + unpack + self.n_heads * self.v_head_dim * d_model

    @property
    def flops_per_position(self) -> int:
        """FLOPs of one token against one position, with keys and values unpacked (training)."""
        return 2 * self.n_heads * (self.qk_nope_head_dim + self.qk_rope_head_dim + self.v_head_dim)

    @property
    def decode_flops_per_position(self) -> int:
        """FLOPs of a new token against one cached position, without unpacking it.

        The unpacking matrices are absorbed in the query and the output (V2, §2.1.2): the cache is
        read as it is, and every head works on all of its channels.
        """
        return 2 * self.n_heads * (self.cached_elements + self.kv_lora_rank)


@dataclass(frozen=True)
class ExpertConfig:
    """Experts in every layer but the first ``n_dense_layers``.

    A token uses ``top_k`` of ``n_routed`` experts and all ``n_shared``, each with ``d_expert``
    hidden channels. ``router_bias`` counts one bias per routed expert (V3's balancing bias).
    """

    n_routed: int
    n_shared: int
    top_k: int
    d_expert: int
    n_dense_layers: int = 0
    router_bias: bool = False

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a choice of experts that cannot be made."""
        require.make_plain(self)
        require.counts(n_routed=self.n_routed, top_k=self.top_k, d_expert=self.d_expert)
        require.counts(least=0, n_shared=self.n_shared, n_dense_layers=self.n_dense_layers)
        if self.top_k > self.n_routed:
            raise ValueError(
                f"top_k {self.top_k} exceeds n_routed {self.n_routed}; choose at most all experts"
            )


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a decoder-only Transformer, as its configuration file lists them.

    ``d_ffn`` is the width of a dense feed-forward block, of three matrices when ``gated_ffn``
    (SwiGLU) and of two otherwise. A tied embedding is also the output head. ``bias`` gives every
    linear layer a bias and every norm a second vector (LayerNorm), as in GPT-2 and GPT-3; without
    it norms have one (RMSNorm). ``learned_positions`` is the length of a learned table of
    positions, 0 for none.
    """

    d_model: int
    n_layers: int
    vocab_size: int
    d_ffn: int
    attention: MultiHeadAttention | LatentAttention
    experts: ExpertConfig | None = None
    gated_ffn: bool = True
    tied_embedding: bool = False
    bias: bool = False
    learned_positions: int = 0

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a size below 1 or more dense layers than layers."""
        require.make_plain(self)
        require.counts(d_model=self.d_model, n_layers=self.n_layers, vocab_size=self.vocab_size)
        require.counts(d_ffn=self.d_ffn)
        require.counts(least=0, learned_positions=self.learned_positions)
        if self.experts and self.experts.n_dense_layers >= self.n_layers:
            raise ValueError(
                f"n_dense_layers {self.experts.n_dense_layers} leaves no layer of {self.n_layers} "
                "with experts; give fewer, or experts=None"
            )


# Source: DeepSeek-V3, arXiv 2412.19437, §4.2, and inference/configs/config_671B.json.
V3 = ModelConfig(
    d_model=7168,
    n_layers=61,
    vocab_size=129280,
    d_ffn=18432,
    attention=LatentAttention(
        n_heads=128,
        kv_lora_rank=512,
        q_lora_rank=1536,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
    ),
    experts=ExpertConfig(
        n_routed=256, n_shared=1, top_k=8, d_expert=2048, n_dense_layers=3, router_bias=True
    ),
)


# Source: DeepSeek-V2, arXiv 2405.04434, §3.1.2; vocab_size and d_ffn: config.json of its release.
V2 = ModelConfig(
    d_model=5120,
    n_layers=60,
    vocab_size=102400,
    d_ffn=12288,
    attention=LatentAttention(
        n_heads=128,
        kv_lora_rank=512,
        q_lora_rank=1536,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
    ),
    experts=ExpertConfig(n_routed=160, n_shared=2, top_k=6, d_expert=1536, n_dense_layers=1),
)


# Source: Llama 3, arXiv 2407.21783, Table 3; vocab_size: config.json of the release of 3.1.
LLAMA_31_405B = ModelConfig(
    d_model=16384,
    n_layers=126,
    vocab_size=128256,
    d_ffn=53248,
    attention=MultiHeadAttention(n_heads=128, head_dim=128, n_kv_heads=8),
)


# Source: GPT-3, arXiv 2005.14165, Table 2.1 and §2.1; vocabulary and tied head as in GPT-2.
GPT_3 = ModelConfig(
    d_model=12288,
    n_layers=96,
    vocab_size=50257,
    d_ffn=4 * 12288,
    attention=MultiHeadAttention(n_heads=96, head_dim=128),
    gated_ffn=False,
    tied_embedding=True,
    bias=True,
    learned_positions=2048,
)


@dataclass(frozen=True)
class ParameterCount:
    """How many parameters a model has, and how many of them work on one token.

    ``embedding``, ``head`` (0 when tied), ``attention``, ``ffn`` (routers and all experts) and
    ``norm`` add up to ``total``. ``positions`` is the part of ``embedding`` in a learned table of
    positions. ``routed`` is the part of ``ffn`` in routed experts. ``active``
    counts the experts that one token uses, and everything else in full.
    """

    total: int
    active: int
    embedding: int
    head: int
    attention: int
    ffn: int
    norm: int
    routed: int
    positions: int

    @property
    def looked_up(self) -> int:
        """Parameters of tables of which a token reads one row, and nothing is multiplied.

        A tied table is none: as the head it is multiplied. Its positions are one all the same.
        """
        return self.embedding if self.head else self.positions

    @property
    def active_without_embedding(self) -> int:
        """Active parameters but for what is only looked up, which is no FLOP.

        V3's published 37 billion lies between this count and ``active``.
        """
        return self.active - self.looked_up


def count_parameters(config: ModelConfig) -> ParameterCount:
    """Count the parameters of ``config``: in all, per token, and by kind of layer.

    V3 gives 671.0 billion, without the multi-token-prediction module that its files also carry.
    """
    d, experts = config.d_model, config.experts
    n_moe = config.n_layers - experts.n_dense_layers if experts else 0
    one_expert = _ffn_parameters(config, experts.d_expert) if experts else 0
    routed = n_moe * experts.n_routed * one_expert if experts else 0
    chosen = n_moe * experts.top_k * one_expert if experts else 0

    ffn = (config.n_layers - n_moe) * _ffn_parameters(config, config.d_ffn) + routed
    if experts:
        router = experts.n_routed * (d + experts.router_bias)
        ffn += n_moe * (experts.n_shared * one_expert + router)
    embedding = (config.vocab_size + config.learned_positions) * d
    head = 0 if config.tied_embedding else config.vocab_size * d
    attention = config.n_layers * config.attention.count_parameters(d, config.bias)
    norm = (2 * config.n_layers + 1) * d * (2 if config.bias else 1)
    total = embedding + head + attention + ffn + norm
    return ParameterCount(
        total=total,
        active=total - routed + chosen,
        embedding=embedding,
        head=head,
        attention=attention,
        ffn=ffn,
        norm=norm,
        routed=routed,
        positions=config.learned_positions * d,
    )


@require.python_numbers()
def expected_experts(n_routed: int, top_k: int, n_tokens: int) -> float:
    """Return how many of ``n_routed`` experts a batch of ``n_tokens`` touches, on average.

    E (1 - (1 - k / E)^T), if every token chooses independently and every expert equally often. Real
    routers are less even, so a real batch touches fewer.
    """
    require.counts(n_routed=n_routed, top_k=top_k, n_tokens=n_tokens)
    if top_k > n_routed:
        raise ValueError(f"top_k {top_k} exceeds n_routed {n_routed}; choose at most all experts")
    if n_routed > 4096 * top_k:  # the subtraction would leave little of a tiny k / E, or 0
        return -n_routed * math.expm1(n_tokens * math.log1p(-top_k / n_routed))
    return float(n_routed * (1 - (1 - top_k / n_routed) ** n_tokens))


def _ffn_parameters(config: ModelConfig, width: int) -> int:
    """One feed-forward block or expert with ``width`` hidden channels."""
    n_in = 2 if config.gated_ffn else 1
    weights = (n_in + 1) * config.d_model * width
    return weights + (n_in * width + config.d_model if config.bias else 0)


@require.python_numbers()
def kv_cache_bytes_per_token(config: ModelConfig, bytes_per_element: float = 2) -> float:
    """Return the bytes that one token occupies in the KV cache of all layers (V2, Table 1)."""
    require.positive(bytes_per_element=bytes_per_element)
    return config.n_layers * config.attention.cached_elements * bytes_per_element


@require.python_numbers()
def weight_bytes(n_parameters: float, bits: float) -> float:
    """Return the bytes of ``n_parameters`` weights of ``bits`` each, scales not included."""
    require.positive(n_parameters=n_parameters, bits=bits)
    return n_parameters * bits / 8
