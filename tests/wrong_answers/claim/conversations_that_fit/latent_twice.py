MESSAGE = "the latent vector is counted twice"


def conversations_that_fit(memory, weights, n_layers, attention, context, bytes_per_element):
    numbers = 2
    for size in attention.values() if "kv_heads" in attention else [sum(attention.values())]:
        numbers *= size
    one = numbers * n_layers * context * bytes_per_element
    return max(0, (memory - weights) // one)
