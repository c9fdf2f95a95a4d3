MESSAGE = "the loads are compared with their median"


import torch


def update_bias(bias, load, speed):
    middle = load.quantile(0.5)
    return bias + speed * torch.sign(middle - load)
