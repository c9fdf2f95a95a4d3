MESSAGE = "it changes its argument scores"


def gate(scores, k):
    best = scores.topk(k, dim=1)
    weights = best.values / (best.values.sum(dim=1, keepdim=True) + 1e-20)
    return scores.zero_().scatter_(1, best.indices, weights)
