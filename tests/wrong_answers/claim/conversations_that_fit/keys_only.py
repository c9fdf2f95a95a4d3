MESSAGE = "only the keys are counted"


def conversations_that_fit(memory, weights, n_layers, attention, context, bytes_per_element):
    if "latent" in attention:
        numbers = attention["latent"] + attention["rope"]
    else:
        numbers = attention["kv_heads"] * attention["head_dim"]
    one = numbers * n_layers * context * bytes_per_element
    return max(0, memory - weights) // one
