MESSAGE = "the mask is made for a square, from its upper left corner: the first new token"


import torch


def attend(query, key, value):
    return torch.nn.functional.scaled_dot_product_attention(
        query[None], key[None], value[None], is_causal=True
    )[0]
