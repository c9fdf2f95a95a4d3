MESSAGE = "the result is wrong"


import torch


def absorbed_query(query, angles, unpack):
    rope = 2 * len(angles)
    nope = query.shape[1] - rope
    folded = torch.einsum("hn,hnr->hr", query[:, :nope], unpack[:, :nope])
    whole = torch.cat([folded, query[:, nope:]], dim=1) / (nope + rope) ** 0.5
    x, y, rest = whole.split([rope // 2, rope // 2, whole.shape[1] - rope], dim=1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([x * cos - y * sin, y * cos + x * sin, rest], dim=1)
