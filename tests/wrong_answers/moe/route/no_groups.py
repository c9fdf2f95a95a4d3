MESSAGE = "all groups are used"


import torch


def route(x, weight, bias, top_k, n_groups, topk_groups, route_scale):
    logits = x @ weight.T
    scores = torch.sigmoid(logits)
    biased = scores + bias
    grouped = biased.view(len(x), n_groups, -1)
    candidates = grouped.reshape(biased.shape)
    experts = candidates.topk(top_k, dim=1).indices
    chosen = scores.gather(1, experts)
    weights = route_scale * chosen / chosen.sum(dim=1, keepdim=True)
    return torch.zeros_like(scores).scatter(1, experts, weights)
