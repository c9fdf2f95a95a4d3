MESSAGE = "nothing is dropped"


import torch


def dispatch(experts, n_experts, capacity):
    taken = [0] * n_experts
    places = torch.full(experts.shape, -1)
    for choice in range(experts.shape[1]):
        for token in range(len(experts)):
            expert = int(experts[token, choice])
            places[token, choice] = taken[expert]
            taken[expert] += 1
    return places
