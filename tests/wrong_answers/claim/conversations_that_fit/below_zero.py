MESSAGE = "the result is below 0 where the weights alone do not fit"


def conversations_that_fit(memory, weights, n_layers, attention, context, bytes_per_element):
    if "latent" in attention:
        numbers = attention["latent"] + attention["rope"]
    else:
        numbers = 2 * attention["kv_heads"] * attention["head_dim"]
    return (memory - weights) // (numbers * n_layers * context * bytes_per_element)
