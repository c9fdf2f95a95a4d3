MESSAGE = "the result is wrong"


def cache_bytes(n_layers, attention, block=None):
    if "latent" in attention:
        vectors = [attention["latent"], attention.get("indexer", 0)]
        rotary = attention["rope"]
        if block is None:
            rotary *= 2
        else:
            rotary += 4 * -(-rotary // block)
    else:
        vectors = [attention["head_dim"]] * 2 * attention["kv_heads"]
        rotary = 0
    if block is None:
        stored = 2 * sum(vectors)
    else:
        stored = sum(size + 4 * -(-size // block) for size in vectors)
    return n_layers * (stored + rotary)
