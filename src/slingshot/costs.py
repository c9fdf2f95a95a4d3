"""What training and tokens cost: FLOPs, GPU hours, money.

Parameters give FLOPs, FLOPs at a utilization give GPU hours, and hours at a rent give money. The
second half sets a price per token against what the token cost.

An argument that cannot be meant (negative, zero, NaN, a utilization above 1) raises ``ValueError``
with its value and a remedy; so does a result that is beyond a float, or so small that it would be
0. FLOPs are counts, unscaled; a rate is per second.
"""

from slingshot import require
from slingshot.sizes import ModelConfig, count_parameters


@require.python_numbers()
def training_flops(n_active: float, n_tokens: float) -> float:
    """Return 6 N D: two FLOPs per active parameter and token forward, twice that backward.

    It omits what attention spends on comparing tokens with each other; see ``attention_flops``.
    Source: Kaplan et al., arXiv 2001.08361, §2.1.
    """
    require.positive(n_active=n_active, n_tokens=n_tokens)
    return 6.0 * n_active * n_tokens


@require.python_numbers()
def attention_flops(
    config: ModelConfig, n_tokens: float, sequence_length: int, *, causal: bool = True
) -> float:
    """Return the training FLOPs of attention scores and weighted sums, which 6 N D leaves out.

    Forward and backward, over ``n_tokens`` in sequences of ``sequence_length``. Causal attention
    looks at (S + 1) / 2 positions on average, a full one at S.
    """
    require.positive(n_tokens=n_tokens)
    require.counts(sequence_length=sequence_length)
    positions = (sequence_length + 1) / 2 if causal else sequence_length
    forward = config.n_layers * config.attention.flops_per_position * positions
    return 3.0 * forward * n_tokens


@require.python_numbers()
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


@require.python_numbers()
def gpu_hours(flops: float, peak_flops: float, mfu: float) -> float:
    """Return the GPU hours of ``flops`` at the share ``mfu`` of ``peak_flops`` per second.

    Say which peak: the same run has half the utilization against an FP8 peak as against BF16.
    """
    require.positive(flops=flops, peak_flops=peak_flops)
    require.share(mfu=mfu)
    if mfu == 0:
        raise ValueError("mfu is 0 and the work never ends; give a share above 0, such as 0.4")
    return flops / (peak_flops * mfu) / 3600


@require.python_numbers()
def utilization(flops: float, gpu_hours: float, peak_flops: float) -> float:
    """Return the share of ``peak_flops`` per second that ``gpu_hours`` spent on ``flops`` (MFU)."""
    require.positive(flops=flops, gpu_hours=gpu_hours, peak_flops=peak_flops)
    share = flops / (gpu_hours * 3600 * peak_flops)
    if share > 1 + 2.0**-50:  # a few roundings above 1 are 1
        raise ValueError(
            f"utilization is {share:.3g}: {flops:.4g} FLOPs do not fit in {gpu_hours:.4g} hours "
            f"at {peak_flops:.4g} per second; check the units"
        )
    return min(share, 1.0)


@require.python_numbers()
def training_cost(hours: float, dollars_per_hour: float) -> float:
    """Return the rent in dollars of ``hours`` GPU hours at ``dollars_per_hour``."""
    require.positive(hours=hours, dollars_per_hour=dollars_per_hour)
    return hours * dollars_per_hour


@require.python_numbers()
def days(gpu_hours: float, n_gpus: int) -> float:
    """Return the wall-clock days of ``gpu_hours`` on ``n_gpus`` that work all the time."""
    require.positive(gpu_hours=gpu_hours)
    require.counts(n_gpus=n_gpus)
    return gpu_hours / n_gpus / 24


@require.python_numbers()
def dollars_per_million_tokens(dollars_per_hour: float, tokens_per_second: float) -> float:
    """Return what a million tokens cost on a machine of this rent and speed, always busy."""
    require.positive(dollars_per_hour=dollars_per_hour, tokens_per_second=tokens_per_second)
    return dollars_per_hour / (tokens_per_second * 3600) * 1e6


@require.python_numbers()
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
    require.not_negative(input_price=input_price, output_price=output_price)
    require.share(output_share=output_share, cache_share=cache_share)
    if cached_price is None:
        if cache_share:
            raise ValueError(f"cache_share is {cache_share} without a price; give cached_price")
        cached_price = input_price
    require.not_negative(cached_price=cached_price)
    mean_input = cache_share * cached_price + (1 - cache_share) * input_price
    return output_share * output_price + (1 - output_share) * mean_input


@require.python_numbers(difference=True)
def markup(revenue: float, cost: float) -> float:
    """Return profit over cost: 5.45 is the 545% that DeepSeek calls its cost profit margin."""
    require.not_negative(revenue=revenue)
    require.positive(cost=cost)
    return (revenue - cost) / cost


@require.python_numbers(difference=True)
def gross_margin(revenue: float, cost: float) -> float:
    """Return profit over revenue, at most 1: what accountants call a margin."""
    require.positive(revenue=revenue)
    require.not_negative(cost=cost)
    return (revenue - cost) / revenue
