MESSAGE = "the result is wrong"


def cache_bytes(n_layers, attention, block=None):
    if "latent" in attention:
        vectors = [
            attention["latent"],
        ]
        rotary = 2 * (attention["rope"] + attention.get("indexer", 0))
    else:
        vectors = [attention["head_dim"]] * 2 * attention["kv_heads"]
        rotary = 0
    if block is None:
        stored = 2 * sum(vectors)
    else:
        stored = sum(size + 4 * -(-size // block) for size in vectors)
    return n_layers * (stored + rotary)
