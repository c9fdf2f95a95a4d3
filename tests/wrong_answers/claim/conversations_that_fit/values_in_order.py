MESSAGE = "only where `attention` is in another order"


def conversations_that_fit(memory, weights, n_layers, attention, context, bytes_per_element):
    a, b = attention.values()
    numbers = (a + b) if list(attention)[0] == "latent" else 2 * a * b
    return max(0, memory - weights) // (numbers * n_layers * bytes_per_element * context)
