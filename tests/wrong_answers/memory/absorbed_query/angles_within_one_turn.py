MESSAGE = "the folded channels are right, and the rotary ones behind them are not"


import torch


def absorbed_query(query, angles, unpack):
    rope = 2 * len(angles)
    nope = query.shape[1] - rope
    plain, x, y = query.split([nope, rope // 2, rope // 2], dim=1)
    folded = torch.einsum("hn,hnr->hr", plain, unpack[:, :nope])
    angles = angles.float().double()
    cos, sin = angles.cos(), angles.sin()
    turned = [x * cos - y * sin, y * cos + x * sin]
    return torch.cat([folded, *turned], dim=1) / (nope + rope) ** 0.5
