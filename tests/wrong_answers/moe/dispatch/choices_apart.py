MESSAGE = "every column of choices is counted from 0 again"


import torch


def dispatch(experts, n_experts, capacity):
    places = torch.empty_like(experts)
    for choice in range(experts.shape[1]):
        one_hot = torch.nn.functional.one_hot(experts[:, choice], n_experts)
        place = (one_hot.cumsum(dim=0) - 1).gather(1, experts[:, choice, None])
        places[:, choice] = place[:, 0]
    return torch.where(places < capacity, places, -1)
