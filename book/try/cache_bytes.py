# What one token leaves behind for those that come after it.
layers = 61  # fact: v3.layers
heads, head_dim = 128, 128  # fact: v3.heads
bytes_per_number = 2

latent = 512 + 64  # of a token in a layer of V3, with a rotary key
kept = {
    "a key and a value for each head": 2 * heads * head_dim,
    "one for eight groups of heads": 2 * 8 * head_dim,
    "one for all heads": 2 * head_dim,
    "a latent for all heads": latent,
}

context = 4989  # fact: inference.context
print(f"a token, and a conversation of {context:,} tokens")
for name, numbers in kept.items():
    size = numbers * layers * bytes_per_number
    print(f"{name:33}{size:>10,} bytes, {size * context / 1e9:.2f} GB")
