"""What a language model costs: parameters, FLOPs, GPU hours, money, bytes, seconds.

Nothing here runs a model. A configuration says how large the matrices are, and multiplication does
the rest: parameters give FLOPs, FLOPs at a utilization give GPU hours, hours at a rent give money,
and bytes over a bandwidth give the price of a token. The last section applies the two United States
export rules to a chip.

An argument that cannot be meant (negative, zero, NaN, a utilization above 1, more active parameters
than there are) raises ``ValueError`` with its value and a remedy. Parameters, bytes and FLOPs are
counts, unscaled; a rate is per second. So does a result that is beyond a float, or so small that it
would be 0. NumPy's numbers are taken as Python's, which do not overflow.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, ParamSpec, TypeVar

from slingshot import facts
from slingshot._arguments import is_finite, plain, whole

P = ParamSpec("P")
R = TypeVar("R")

# --- arguments -------------------------------------------------------------------------------


def _check_counts(least: int = 1, **values: int) -> None:
    for name, value in values.items():
        whole(name, value, least)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not is_finite(value) or value <= 0:
            raise ValueError(f"{name} is {value!r}; give a finite number above 0")


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if not is_finite(value) or value < 0:
            raise ValueError(f"{name} is {value!r}; give a finite number, at least 0")


def _check_share(**values: float) -> None:
    for name, value in values.items():
        if not is_finite(value) or not 0 <= value <= 1:
            raise ValueError(f"{name} is {value!r}; give a share between 0 and 1, 0.4 for 40%")


def _python_numbers(*, difference: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Call with Python's numbers, and refuse a result that no float holds.

    A ``difference`` may be 0 where no argument is.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            numbers = [plain(value) for value in args]
            named = {name: plain(value) for name, value in kwargs.items()}
            given = [*numbers, *named.values()]
            has_zero = any(is_finite(value) and value == 0 for value in given)
            try:
                result = function(*numbers, **named)  # type: ignore[arg-type]
                _check_result(result, may_be_zero=difference or has_zero)
            except ArithmeticError as error:
                raise ValueError(
                    f"{function.__name__} of {given} leaves the range of a float, 2.2e-308 to "
                    "1.8e308; check the units"
                ) from error
            return result

        return call

    return decorate


def _check_result(result: object, *, may_be_zero: bool) -> None:
    """Raise ``OverflowError`` for a float, or one in a tuple or dataclass, that is not meant."""
    parts = (
        result if isinstance(result, tuple) else getattr(result, "__dict__", {0: result}).values()
    )
    for part in parts:
        if isinstance(part, float) and not (is_finite(part) and (part or may_be_zero)):
            raise OverflowError


def _make_plain(config: object) -> None:
    """Make NumPy's numbers in the fields of a frozen dataclass Python's."""
    for name, value in vars(config).items():
        object.__setattr__(config, name, plain(value))


# --- configurations --------------------------------------------------------------------------


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
        _make_plain(self)
        _check_counts(n_heads=self.n_heads, head_dim=self.head_dim, n_kv_heads=self.kv_heads)
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

    @_python_numbers()
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

    A token leaves ``kv_rank`` compressed channels and ``rope_dim`` channels of rotary key, which
    all heads share. Keys have ``nope_dim + rope_dim`` channels a head, values ``v_dim``. Queries
    pass through ``q_rank`` channels, or directly when it is ``None``.

    Source: DeepSeek-V2, arXiv 2405.04434, §2.1, eqs. 9-19.
    """

    n_heads: int
    kv_rank: int
    q_rank: int | None
    nope_dim: int
    rope_dim: int
    v_dim: int

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a size below 1."""
        _make_plain(self)
        sizes = {name: size for name, size in vars(self).items() if size is not None}
        _check_counts(**sizes)

    @property
    def cached_elements(self) -> int:
        """Numbers that one token leaves in the KV cache of one layer, whatever the heads."""
        return self.kv_rank + self.rope_dim

    @_python_numbers()
    def count_parameters(self, d_model: int, bias: bool) -> int:
        """Parameters of one layer, the norms of the compressed vectors included; never a bias."""
        if bias:
            raise ValueError("bias is True; latent attention is defined without, give bias=False")
        q_width = self.n_heads * (self.nope_dim + self.rope_dim)
        if self.q_rank is None:
            queries = d_model * q_width
        else:
            queries = (d_model + 1 + q_width) * self.q_rank
        compress = d_model * self.cached_elements + self.kv_rank
        unpack = self.kv_rank * self.n_heads * (self.nope_dim + self.v_dim)
        return queries + compress + unpack + self.n_heads * self.v_dim * d_model

    @property
    def flops_per_position(self) -> int:
        """FLOPs of one token against one position, with keys and values unpacked (training)."""
        return 2 * self.n_heads * (self.nope_dim + self.rope_dim + self.v_dim)

    @property
    def decode_flops_per_position(self) -> int:
        """FLOPs of a new token against one cached position, without unpacking it.

        The unpacking matrices are absorbed in the query and the output (V2, §2.1.2): the cache is
        read as it is, and every head works on all of its channels.
        """
        return 2 * self.n_heads * (self.cached_elements + self.kv_rank)


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
        _make_plain(self)
        _check_counts(n_routed=self.n_routed, top_k=self.top_k, d_expert=self.d_expert)
        _check_counts(least=0, n_shared=self.n_shared, n_dense_layers=self.n_dense_layers)
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
        _make_plain(self)
        _check_counts(d_model=self.d_model, n_layers=self.n_layers, vocab_size=self.vocab_size)
        _check_counts(d_ffn=self.d_ffn)
        _check_counts(least=0, learned_positions=self.learned_positions)
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
        n_heads=128, kv_rank=512, q_rank=1536, nope_dim=128, rope_dim=64, v_dim=128
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
        n_heads=128, kv_rank=512, q_rank=1536, nope_dim=128, rope_dim=64, v_dim=128
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


# --- parameters ------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParameterCount:
    """How many parameters a model has, and how many of them work on one token.

    ``embedding``, ``head`` (0 when tied), ``attention``, ``ffn`` (routers and all experts) and
    ``norm`` add up to ``total``. ``routed`` is the part of ``ffn`` in routed experts. ``active``
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

    @property
    def active_without_embedding(self) -> int:
        """Active parameters but for an embedding that is only looked up, which is no FLOP.

        A tied table stays: as the head it is multiplied. V3's published 37 billion lies between
        this count and ``active``.
        """
        return self.active - self.embedding if self.head else self.active


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
    )


@_python_numbers()
def expected_experts(n_routed: int, top_k: int, n_tokens: int) -> float:
    """Return how many of ``n_routed`` experts a batch of ``n_tokens`` touches, on average.

    E (1 - (1 - k / E)^T), if every token chooses independently and every expert equally often. Real
    routers are less even, so a real batch touches fewer.
    """
    _check_counts(n_routed=n_routed, top_k=top_k, n_tokens=n_tokens)
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


# --- training: FLOPs, GPU hours, money -------------------------------------------------------


@_python_numbers()
def training_flops(n_active: float, n_tokens: float) -> float:
    """Return 6 N D: two FLOPs per active parameter and token forward, twice that backward.

    It omits what attention spends on comparing tokens with each other; see ``attention_flops``.
    Source: Kaplan et al., arXiv 2001.08361, §2.1.
    """
    _check_positive(n_active=n_active, n_tokens=n_tokens)
    return 6.0 * n_active * n_tokens


@_python_numbers()
def attention_flops(
    config: ModelConfig, n_tokens: float, sequence_length: int, *, causal: bool = True
) -> float:
    """Return the training FLOPs of attention scores and weighted sums, which 6 N D leaves out.

    Forward and backward, over ``n_tokens`` in sequences of ``sequence_length``. Causal attention
    looks at (S + 1) / 2 positions on average, a full one at S.
    """
    _check_positive(n_tokens=n_tokens)
    _check_counts(sequence_length=sequence_length)
    positions = (sequence_length + 1) / 2 if causal else sequence_length
    forward = config.n_layers * config.attention.flops_per_position * positions
    return 3.0 * forward * n_tokens


@_python_numbers()
def training_flops_with_attention(
    config: ModelConfig, n_tokens: float, sequence_length: int
) -> float:
    """Return 6 N D plus causal attention, with N the active parameters that are multiplied.

    For V3 at a length of 4096 it gives 250.5 GFLOPs per token; DeepSeek publishes 250 (arXiv
    2505.09343).
    """
    multiplied = count_parameters(config).active_without_embedding
    attention = attention_flops(config, n_tokens, sequence_length)
    return training_flops(multiplied, n_tokens) + attention


@_python_numbers()
def gpu_hours(flops: float, peak_flops: float, mfu: float) -> float:
    """Return the GPU hours of ``flops`` at the share ``mfu`` of ``peak_flops`` per second.

    Say which peak: the same run has half the utilization against an FP8 peak as against BF16.
    """
    _check_positive(flops=flops, peak_flops=peak_flops)
    _check_share(mfu=mfu)
    if mfu == 0:
        raise ValueError("mfu is 0 and the work never ends; give a share above 0, such as 0.4")
    return flops / (peak_flops * mfu) / 3600


@_python_numbers()
def utilization(flops: float, gpu_hours: float, peak_flops: float) -> float:
    """Return the share of ``peak_flops`` per second that ``gpu_hours`` spent on ``flops`` (MFU)."""
    _check_positive(flops=flops, gpu_hours=gpu_hours, peak_flops=peak_flops)
    share = flops / (gpu_hours * 3600 * peak_flops)
    if share > 1 + 2.0**-50:  # a few roundings above 1 are 1
        raise ValueError(
            f"utilization is {share:.3g}: {flops:.4g} FLOPs do not fit in {gpu_hours:.4g} hours "
            f"at {peak_flops:.4g} per second; check the units"
        )
    return min(share, 1.0)


@_python_numbers()
def training_cost(hours: float, dollars_per_hour: float) -> float:
    """Return the rent in dollars of ``hours`` GPU hours at ``dollars_per_hour``."""
    _check_positive(hours=hours, dollars_per_hour=dollars_per_hour)
    return hours * dollars_per_hour


@_python_numbers()
def days(gpu_hours: float, n_gpus: int) -> float:
    """Return the wall-clock days of ``gpu_hours`` on ``n_gpus`` that work all the time."""
    _check_positive(gpu_hours=gpu_hours)
    _check_counts(n_gpus=n_gpus)
    return gpu_hours / n_gpus / 24


# --- memory and the roofline -----------------------------------------------------------------


@_python_numbers()
def kv_cache_bytes_per_token(config: ModelConfig, bytes_per_element: float = 2) -> float:
    """Return the bytes that one token occupies in the KV cache of all layers (V2, Table 1)."""
    _check_positive(bytes_per_element=bytes_per_element)
    return config.n_layers * config.attention.cached_elements * bytes_per_element


@_python_numbers()
def weight_bytes(n_parameters: float, bits: float) -> float:
    """Return the bytes of ``n_parameters`` weights of ``bits`` each, scales not included."""
    _check_positive(n_parameters=n_parameters, bits=bits)
    return n_parameters * bits / 8


class LinearCost(NamedTuple):
    """What one matrix multiplication costs: ``flops``, and ``bytes`` moved at least."""

    flops: float
    bytes: float


@_python_numbers()
def linear_layer_cost(m: int, k: int, n: int, bytes_per_element: float) -> LinearCost:
    """Return the cost of ``[m, k] @ [k, n]``: 2 m k n FLOPs, and each matrix moved once."""
    _check_counts(m=m, k=k, n=n)
    _check_positive(bytes_per_element=bytes_per_element)
    return LinearCost(2.0 * m * k * n, (m * k + k * n + m * n) * float(bytes_per_element))


@_python_numbers()
def arithmetic_intensity(flops: float, bytes_moved: float) -> float:
    """Return the FLOPs per byte moved; below a chip's peak over bandwidth, memory is the limit."""
    _check_positive(flops=flops, bytes_moved=bytes_moved)
    return flops / bytes_moved


@_python_numbers()
def roofline_seconds(
    flops: float, bytes_moved: float, peak_flops: float, bandwidth: float
) -> float:
    """Return the seconds of an operation that computes and moves data at the same time.

    The slower of ``flops / peak_flops`` and ``bytes_moved / bandwidth``: a lower bound, met only
    when the two overlap without a gap. Source: Williams et al., CACM 52(4), 2009.
    """
    _check_not_negative(flops=flops, bytes_moved=bytes_moved)
    _check_positive(peak_flops=peak_flops, bandwidth=bandwidth)
    return max(flops / peak_flops, bytes_moved / bandwidth)


# --- one step of decoding --------------------------------------------------------------------


@dataclass(frozen=True)
class Hardware:
    """``n_gpus`` equal GPUs: FLOPs per second, bytes per second and bytes of memory of one GPU.

    One peak serves all arithmetic. Give that of the precision in which most of it runs.
    """

    name: str
    peak_flops: float
    bandwidth: float
    memory_bytes: float
    n_gpus: int = 1

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a rate or a size that is not positive."""
        _make_plain(self)
        _check_positive(peak_flops=self.peak_flops, bandwidth=self.bandwidth)
        _check_positive(memory_bytes=self.memory_bytes)
        _check_counts(n_gpus=self.n_gpus)


@dataclass(frozen=True)
class DecodeStep:
    """One new token for each sequence of a batch, on all GPUs together.

    ``seconds`` is also the time between two tokens of one sequence; ``tokens_per_second`` counts
    all sequences. ``weight_bytes`` and ``cache_bytes`` are what the step reads.
    """

    seconds: float
    tokens_per_second: float
    bound: Literal["memory", "compute"]
    weight_bytes: float
    cache_bytes: float
    flops: float


@_python_numbers()
def decode_step(
    config: ModelConfig,
    hardware: Hardware,
    batch_size: int,
    context_length: int,
    *,
    weight_bits: float = 8,
    cache_bytes_per_element: float = 2,
    data_parallel: bool = False,
) -> DecodeStep:
    """Return the roofline of one decoding step of ``batch_size`` sequences on all GPUs.

    Each has ``context_length`` tokens in the cache. The step reads every weight that it needs once
    (of the routed experts those that the batch touches, see ``expected_experts``) and every
    sequence's cache, and computes 2 FLOPs per active parameter and token plus attention. With
    ``data_parallel`` each GPU keeps and reads its own copy of all but the routed experts, as
    DeepSeek deploys V3; otherwise all weights are divided evenly.

    It is a bound, not a forecast. Assumed are perfect overlap, an even load and no communication
    between GPUs; activations, redundant copies of experts and multi-token prediction are left out.

    Raises ``ValueError`` when weights and caches do not fit in memory, and when ``data_parallel``
    leaves a GPU without a sequence.
    """
    _check_counts(batch_size=batch_size, context_length=context_length)
    if data_parallel and batch_size < hardware.n_gpus:
        raise ValueError(
            f"batch_size {batch_size} leaves some of {hardware.n_gpus} data-parallel GPUs without "
            "a sequence; give at least one for each, or data_parallel=False"
        )
    count = count_parameters(config)
    copies = hardware.n_gpus if data_parallel else 1
    cache_bytes = (
        batch_size * context_length * kv_cache_bytes_per_token(config, cache_bytes_per_element)
    )
    resident = (count.total - count.routed) * copies + count.routed
    _check_memory(hardware, weight_bytes(resident, weight_bits), cache_bytes)

    read = weight_bytes(_parameters_read(config, batch_size, copies), weight_bits)
    attention = config.n_layers * config.attention.decode_flops_per_position * context_length
    flops = float(batch_size * (2 * count.active_without_embedding + attention))
    peak_flops = hardware.n_gpus * hardware.peak_flops
    bandwidth = hardware.n_gpus * hardware.bandwidth
    moved = read + cache_bytes
    seconds = roofline_seconds(flops, moved, peak_flops, bandwidth)
    return DecodeStep(
        seconds=seconds,
        tokens_per_second=batch_size / seconds,
        bound="memory" if moved / bandwidth >= flops / peak_flops else "compute",
        weight_bytes=read,
        cache_bytes=cache_bytes,
        flops=flops,
    )


def _parameters_read(config: ModelConfig, batch_size: int, copies: int) -> float:
    """Weights that a step reads: all but the idle experts and a table that is only looked up."""
    count = count_parameters(config)
    looked_up = count.embedding if count.head else 0
    rest = count.total - count.routed - looked_up
    if config.experts is None:
        return float(rest * copies)
    experts = config.experts
    touched = expected_experts(experts.n_routed, experts.top_k, batch_size) / experts.n_routed
    return rest * copies + count.routed * touched


def _check_memory(hardware: Hardware, weights: float, cache: float) -> None:
    """Raise ``ValueError`` unless weights and caches fit in the memory of all GPUs."""
    available = hardware.n_gpus * hardware.memory_bytes
    if weights + cache > available:
        raise ValueError(
            f"{weights / 1e9:.1f} GB of weights and {cache / 1e9:.1f} GB of cache do not fit in "
            f"the {available / 1e9:.1f} GB of {hardware.n_gpus} {hardware.name}; "
            "use more GPUs, a smaller batch, a shorter context or fewer bits"
        )


# --- prices ----------------------------------------------------------------------------------


@_python_numbers()
def dollars_per_million_tokens(dollars_per_hour: float, tokens_per_second: float) -> float:
    """Return what a million tokens cost on a machine of this rent and speed, always busy."""
    _check_positive(dollars_per_hour=dollars_per_hour, tokens_per_second=tokens_per_second)
    return dollars_per_hour / (tokens_per_second * 3600) * 1e6


@_python_numbers()
def blended_price(
    input_price: float,
    output_price: float,
    cached_price: float | None = None,
    *,
    output_share: float,
    cache_share: float = 0.0,
) -> float:
    """Return the mean price per token of a mixed load, in the unit of the prices.

    ``output_share`` is the share of output among all tokens, ``cache_share`` that of cache hits
    among the input tokens, which are charged ``cached_price``.
    """
    _check_not_negative(input_price=input_price, output_price=output_price)
    _check_share(output_share=output_share, cache_share=cache_share)
    if cached_price is None:
        if cache_share:
            raise ValueError(f"cache_share is {cache_share} without a price; give cached_price")
        cached_price = input_price
    _check_not_negative(cached_price=cached_price)
    mean_input = cache_share * cached_price + (1 - cache_share) * input_price
    return output_share * output_price + (1 - output_share) * mean_input


@_python_numbers(difference=True)
def markup(revenue: float, cost: float) -> float:
    """Return profit over cost: 5.45 is the 545% that DeepSeek calls its cost profit margin."""
    _check_not_negative(revenue=revenue)
    _check_positive(cost=cost)
    return (revenue - cost) / cost


@_python_numbers(difference=True)
def gross_margin(revenue: float, cost: float) -> float:
    """Return profit over revenue, at most 1: what accountants call a margin."""
    _check_positive(revenue=revenue)
    _check_not_negative(cost=cost)
    return (revenue - cost) / revenue


# --- export rules ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What the arithmetic of a rule says of a chip; ``paragraph`` is empty when it is free."""

    controlled: bool
    paragraph: str
    reason: str


@_python_numbers()
def total_processing_performance(tops: float, bits: float) -> float:
    """Return the TPP: dense tera-operations per second times the bit length of the operation.

    A multiplication with addition counts as two. A chip's TPP is the largest over its precisions.
    """
    _check_positive(tops=tops, bits=bits)
    return tops * bits


@_python_numbers()
def performance_density(tpp: float, die_mm2: float) -> float:
    """Return TPP per square millimeter of die."""
    _check_positive(tpp=tpp, die_mm2=die_mm2)
    return tpp / die_mm2


@_python_numbers()
def rule_2022(tpp: float, interconnect_gb_per_s: float) -> Verdict:
    """Apply the thresholds of 2022-10-07 (ECCN 3A090): fast arithmetic and a fast link, both.

    The link is in GB/s, both directions together, 0 for none. Thresholds come from ``facts``. This
    is the arithmetic only: the rule has definitions and exceptions beyond it, and is not law any
    more.
    """
    _check_positive(tpp=tpp)
    _check_not_negative(interconnect_gb_per_s=interconnect_gb_per_s)
    least_tpp = facts.value("rule.2022.performance")
    least_link = facts.value("rule.2022.transfer_rate") / 1e9
    parts = [_compare("TPP", tpp, least_tpp), _compare("GB/s", interconnect_gb_per_s, least_link)]
    if tpp >= least_tpp and interconnect_gb_per_s >= least_link:
        return Verdict(True, "3A090", f"{parts[0]} and {parts[1]}")
    missed = [part for part in parts if "below" in part]
    return Verdict(False, "", f"{' and '.join(missed)}; the rule asks for both")


@_python_numbers()
def rule_2023(tpp: float, performance_density: float) -> Verdict:
    """Apply the thresholds of 2023-10-17 (ECCN 3A090.a and b): arithmetic alone or with density.

    The link no longer counts. Thresholds come from ``facts``; the density of the second branch of
    paragraph b is only reported there. This is the arithmetic only: the real rule treats chips that
    are not designed or marketed for data centers differently, and paragraph b has a license
    exception with notice.
    """
    _check_positive(tpp=tpp, performance_density=performance_density)
    for paragraph, tpp_key, density_key in (
        ("3A090.a", "performance", None),
        ("3A090.a", "performance_with_density", "density"),
        ("3A090.b", "b.performance", "b.density"),
        ("3A090.b", "performance_with_density", "b.density_second"),
    ):
        least_tpp = facts.value(f"rule.2023.{tpp_key}")
        least_density = facts.value(f"rule.2023.{density_key}") if density_key else 0.0
        if tpp >= least_tpp and performance_density >= least_density:
            reason = _compare("TPP", tpp, least_tpp)
            if density_key:
                reason += f" and {_compare('TPP/mm²', performance_density, least_density)}"
            return Verdict(True, paragraph, reason)
    reason = f"{tpp:,.4g} TPP with {performance_density:.3g} TPP/mm² meets no pair of thresholds"
    return Verdict(False, "", reason)


def _compare(unit: str, value: float, threshold: float) -> str:
    relation = "reaches" if value >= threshold else "is below"
    return f"{value:,.10g} {unit} {relation} {threshold:,.10g}"
