MESSAGE = "a dropped choice gets the last place"


import torch


def dispatch(experts, n_experts, capacity):
    order = experts.T.flatten()
    served = torch.nn.functional.one_hot(order, n_experts).cumsum(dim=0)
    places = served.gather(1, order[:, None])[:, 0] - 1
    return places.clamp(max=capacity - 1).reshape(experts.T.shape).T
