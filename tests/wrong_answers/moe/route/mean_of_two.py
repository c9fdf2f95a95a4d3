MESSAGE = "the result is wrong"


import torch


def route(x, weight, bias, top_k, n_groups, topk_groups, route_scale):
    scores = torch.sigmoid(x @ weight.T)
    biased = scores + bias
    grouped = biased.reshape(len(x), n_groups, -1)
    rank = grouped.topk(2, dim=2).values.prod(dim=2)
    kept = rank.topk(topk_groups, dim=1).indices
    dropped = torch.ones_like(rank, dtype=torch.bool).scatter(1, kept, False)
    masked = grouped.masked_fill(dropped[:, :, None], -torch.inf)
    experts = masked.reshape(biased.shape).topk(top_k, dim=1).indices
    chosen = scores.gather(1, experts)
    total = chosen.sum(dim=1, keepdim=True)
    weights = route_scale * chosen / torch.where(total > 0, total, 1.0)
    return torch.zeros_like(scores).scatter(1, experts, weights)
