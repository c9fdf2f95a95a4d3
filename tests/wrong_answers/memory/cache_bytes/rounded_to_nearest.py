MESSAGE = "the result is wrong"


def cache_bytes(n_layers, attention, block=None):
    if "latent" in attention:
        vectors = [attention["latent"], attention.get("indexer", 0)]
        rotary = 2 * attention["rope"]
    else:
        vectors = [attention["head_dim"]] * 2 * attention["kv_heads"]
        rotary = 0
    if block is None:
        stored = 2 * sum(vectors)
    else:
        stored = sum(size + 4 * max(1, round(size / block)) for size in vectors)
    return n_layers * (stored + rotary)
