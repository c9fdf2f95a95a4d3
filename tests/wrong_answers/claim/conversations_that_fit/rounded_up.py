MESSAGE = "a part of a conversation is rounded up"


import math


def conversations_that_fit(memory, weights, n_layers, attention, context, bytes_per_element):
    if "latent" in attention:
        numbers = attention["latent"] + attention["rope"]
    else:
        numbers = 2 * attention["kv_heads"] * attention["head_dim"]
    one = numbers * n_layers * context * bytes_per_element
    return max(0, math.ceil((memory - weights) / one))
