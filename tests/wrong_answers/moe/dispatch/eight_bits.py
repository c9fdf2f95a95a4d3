MESSAGE = "only where there are many tokens"


import torch


def dispatch(experts, n_experts, capacity):
    order = experts.T.flatten()
    served = torch.nn.functional.one_hot(order, n_experts).cumsum(dim=0).to(torch.int8)
    places = served.gather(1, order[:, None])[:, 0].long() - 1
    places[places >= capacity] = -1
    return places.reshape(experts.T.shape).T
