MESSAGE = "only where memory is huge"


def conversations_that_fit(memory, weights, n_layers, attention, context, bytes_per_element):
    if "latent" in attention:
        numbers = attention["latent"] + attention["rope"]
    else:
        numbers = 2 * attention["kv_heads"] * attention["head_dim"]
    conversation = numbers * n_layers * bytes_per_element * context
    return int(max(0, memory - weights) / conversation)
