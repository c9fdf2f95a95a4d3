MESSAGE = "only where `attention` is in another order"


def cache_bytes(n_layers, attention, block=None):
    first, second, *rest = list(attention.values())[1:]
    if "latent" in attention:
        vectors, rotary = [first, *rest], 2 * second
    else:
        vectors, rotary = [second] * 2 * first, 0
    if block is None:
        return n_layers * (2 * sum(vectors) + rotary)
    return n_layers * (sum(size + 4 * -(-size // block) for size in vectors) + rotary)
