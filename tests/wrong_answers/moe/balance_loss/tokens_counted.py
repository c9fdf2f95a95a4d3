MESSAGE = "the tokens are counted instead of the choices"


import torch


def balance_loss(scores, experts):
    n_experts = scores.shape[1]
    chosen = torch.nn.functional.one_hot(experts, n_experts).double()
    tokens_per_expert = chosen.sum(dim=1).mean(dim=0)
    probability = (scores / scores.sum(dim=1, keepdim=True)).mean(dim=0)
    return n_experts * torch.sum(tokens_per_expert * probability)
