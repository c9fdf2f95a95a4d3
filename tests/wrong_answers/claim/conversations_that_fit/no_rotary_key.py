MESSAGE = "the rotary key is missing"


def conversations_that_fit(memory, weights, n_layers, attention, context, bytes_per_element):
    if "latent" in attention:
        numbers = attention["latent"]
    else:
        numbers = 2 * attention["kv_heads"] * attention["head_dim"]
    one = numbers * n_layers * context * bytes_per_element
    return max(0, memory - weights) // one
