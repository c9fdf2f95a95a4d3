MESSAGE = "the result is wrong"


def cache_bytes(n_layers, attention, block=None):
    if "latent" in attention:
        vectors = [attention["latent"], attention.get("indexer", 0)]
        rotary = 2 * attention["rope"]
    else:
        vectors = [attention["head_dim"]] * 2 * attention["kv_heads"]
        rotary = 0
    scales = sum(4 * -(-size // (block or 128)) for size in vectors)
    return n_layers * ((1 if block else 2) * sum(vectors) + rotary + scales)
