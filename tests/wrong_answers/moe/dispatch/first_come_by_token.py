MESSAGE = "the result is wrong"


import torch


def dispatch(experts, n_experts, capacity):
    places = torch.full_like(experts, -1)
    taken = [0] * n_experts
    for k in range(experts.shape[1]):
        for t in range(len(experts)):
            e = int(experts[t, k])
            if taken[e] < capacity and (k == 0 or places[t, k - 1] >= 0):
                places[t, k] = taken[e]
                taken[e] += 1
    return places
