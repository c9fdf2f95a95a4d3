MESSAGE = "only where the first expert is not used"


import torch


def dispatch(experts, n_experts, capacity):
    n_experts = len(experts.unique())
    order = experts.T.flatten()
    served = torch.nn.functional.one_hot(order, n_experts).cumsum(dim=0)
    places = served.gather(1, order[:, None])[:, 0] - 1
    places[places >= capacity] = -1
    return places.reshape(experts.T.shape).T
