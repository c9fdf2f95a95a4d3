MESSAGE = "the tokens are served one after another"


import torch


def dispatch(experts, n_experts, capacity):
    taken = [0] * n_experts
    places = torch.full(experts.shape, -1)
    for token, choices in enumerate(experts.tolist()):
        for choice, expert in enumerate(choices):
            if taken[expert] < capacity:
                places[token, choice] = taken[expert]
                taken[expert] += 1
    return places
