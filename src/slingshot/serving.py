"""How fast a machine can generate tokens: bytes over a bandwidth, FLOPs over a peak.

One matrix product, then one decoding step of a whole model on many GPUs: the slower of the two
times is a bound (a roofline) on what any program can reach.

An argument that cannot be meant raises ``ValueError`` with its value and a remedy, as does a result
beyond a float. Bytes and FLOPs are counts, unscaled; a rate is per second.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from slingshot import require
from slingshot.sizes import (
    ModelConfig,
    count_parameters,
    expected_experts,
    kv_cache_bytes_per_token,
    weight_bytes,
)


class LinearCost(NamedTuple):
    """What one matrix multiplication costs: ``flops``, and ``bytes`` moved at least."""

    flops: float
    bytes: float


@require.python_numbers()
def linear_layer_cost(m: int, k: int, n: int, bytes_per_element: float) -> LinearCost:
    """Return the cost of ``[m, k] @ [k, n]``: 2 m k n FLOPs, and each matrix moved once."""
    require.counts(m=m, k=k, n=n)
    require.positive(bytes_per_element=bytes_per_element)
    return LinearCost(2.0 * m * k * n, (m * k + k * n + m * n) * float(bytes_per_element))


@require.python_numbers()
def arithmetic_intensity(flops: float, bytes_moved: float) -> float:
    """Return the FLOPs per byte moved; below a chip's peak over bandwidth, memory is the limit."""
    require.positive(flops=flops, bytes_moved=bytes_moved)
    return flops / bytes_moved


@require.python_numbers()
def roofline_seconds(
    flops: float, bytes_moved: float, peak_flops: float, bandwidth: float
) -> float:
    """Return the seconds of an operation that computes and moves data at the same time.

    The slower of ``flops / peak_flops`` and ``bytes_moved / bandwidth``: a lower bound, met only
    when the two overlap without a gap. Source: Williams et al., CACM 52(4), 2009.
    """
    require.not_negative(flops=flops, bytes_moved=bytes_moved)
    require.positive(peak_flops=peak_flops, bandwidth=bandwidth)
    return max(flops / peak_flops, bytes_moved / bandwidth)


@require.python_numbers()
def exchange_seconds(
    n_tokens: int, copies: float, d_model: int, n_layers: int, bandwidth: float
) -> float:
    """Return how long one GPU's link takes for its tokens to reach their experts and come back.

    In each layer ``copies`` of a token leave, a byte for each of ``d_model`` numbers (FP8), and as
    many results return, two bytes each (BF16). Nothing waits and no message is too small. Source:
    the formats of DeepSeek-V3, arXiv 2412.19437, §3.3.3.
    """
    require.counts(n_tokens=n_tokens, d_model=d_model, n_layers=n_layers)
    require.positive(copies=copies, bandwidth=bandwidth)
    return n_tokens * copies * d_model * (1 + 2) * n_layers / bandwidth


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
        require.make_plain(self)
        require.positive(peak_flops=self.peak_flops, bandwidth=self.bandwidth)
        require.positive(memory_bytes=self.memory_bytes)
        require.counts(n_gpus=self.n_gpus)


@dataclass(frozen=True)
class DecodeStep:
    """One new token for each sequence of a batch, on all GPUs together.

    ``seconds`` is also the time between two tokens of one sequence; ``tokens_per_second`` counts
    all sequences. ``weight_bytes`` and ``cache_bytes`` are what the step reads. ``attention_flops``
    is the part of ``flops`` that works on the caches; a chip may do it at another rate.
    """

    seconds: float
    tokens_per_second: float
    bound: Literal["memory", "compute"]
    weight_bytes: float
    cache_bytes: float
    flops: float
    attention_flops: float


@require.python_numbers()
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

    It is a bound, not a forecast. Assumed are perfect overlap, also of attention with the experts,
    one peak for both, an even load and no communication between GPUs; activations, redundant copies
    of experts and multi-token prediction are left out.

    Raises ``ValueError`` when weights and caches do not fit in memory, and when ``data_parallel``
    leaves a GPU without a sequence.
    """
    require.counts(batch_size=batch_size, context_length=context_length)
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
    attention_flops = float(batch_size * attention)
    flops = float(batch_size * 2 * count.active_without_embedding) + attention_flops
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
        attention_flops=attention_flops,
    )


def _parameters_read(config: ModelConfig, batch_size: int, copies: int) -> float:
    """Weights that a step reads: all but the idle experts and a table that is only looked up."""
    count = count_parameters(config)
    rest = count.total - count.routed - count.looked_up
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
