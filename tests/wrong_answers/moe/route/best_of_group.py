MESSAGE = "a group is ranked by its best expert"


import torch


def route(x, weight, bias, top_k, n_groups, topk_groups, route_scale):
    logits = x @ weight.T
    scores = torch.sigmoid(logits)
    biased = scores + bias
    grouped = biased.view(len(x), n_groups, -1)
    rank = grouped.max(dim=2).values
    kept = rank.topk(topk_groups, dim=1).indices
    mask = torch.zeros_like(rank).scatter_(1, kept, 1).bool()
    mask = mask[:, :, None].expand_as(grouped).reshape(biased.shape)
    candidates = biased.masked_fill(~mask, float("-inf"))
    experts = candidates.topk(top_k, dim=1).indices
    chosen = scores.gather(1, experts)
    weights = route_scale * chosen / chosen.sum(dim=1, keepdim=True)
    return torch.zeros_like(scores).scatter(1, experts, weights)
