MESSAGE = "the places are counted over all experts"


import torch


def dispatch(experts, n_experts, capacity):
    count = experts.numel()
    places = torch.arange(count).reshape(experts.T.shape).T
    return torch.where(places < capacity, places, -1)
