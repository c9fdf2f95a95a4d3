MESSAGE = "the result is wrong"


import torch


def dispatch(experts, n_experts, capacity):
    places = torch.full_like(experts, -1)
    for e in range(n_experts):
        hits = (e == experts.T).nonzero()
        for place, (k, t) in enumerate(hits.tolist()[-capacity:]):
            places[t, k] = place
    return places
