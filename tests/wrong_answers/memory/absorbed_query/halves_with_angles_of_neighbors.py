MESSAGE = "the folded channels are right, and the rotary ones behind them are not"


import torch


def absorbed_query(query, angles, unpack):
    rope = 2 * len(angles)
    nope = query.shape[1] - rope
    plain, turning = query[:, :nope], query[:, nope:]
    folded = torch.einsum("hn,hnr->hr", plain, unpack[:, :nope])
    spread = angles.repeat_interleave(2)
    x, y = turning.chunk(2, dim=1)
    turned = turning * spread.cos() + torch.cat([-y, x], dim=1) * spread.sin()
    return torch.cat([folded, turned], dim=1) / (nope + rope) ** 0.5
