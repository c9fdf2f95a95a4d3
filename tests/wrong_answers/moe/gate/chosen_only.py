MESSAGE = "the result has shape"


def gate(scores, k):
    best = scores.topk(k, dim=1).values
    return best / (best.sum(dim=1, keepdim=True) + 1e-20)
