MESSAGE = "the result is wrong"


import torch


def dispatch(experts, n_experts, capacity):
    order = experts.T.flatten()
    ranks = order.sort(stable=True, descending=True).indices.flip(0)
    places = torch.empty_like(order)
    taken = [0] * n_experts
    for i in ranks.tolist():
        e = int(order[i])
        places[i] = taken[e] if taken[e] < capacity else -1
        taken[e] += 1
    return places.reshape(experts.T.shape).T
