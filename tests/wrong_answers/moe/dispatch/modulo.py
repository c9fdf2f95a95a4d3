MESSAGE = "the result is wrong"


import torch


def dispatch(experts, n_experts, capacity):
    order = experts.T.flatten()
    served = torch.nn.functional.one_hot(order, n_experts).cumsum(dim=0)
    places = served.gather(1, order[:, None])[:, 0] - 1
    places = places % capacity
    return places.reshape(experts.T.shape).T
