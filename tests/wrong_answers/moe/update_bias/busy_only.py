MESSAGE = "only the bias of busy experts is moved"


import torch


def update_bias(bias, load, speed):
    busy = load > load.mean()
    return torch.where(busy, bias - speed, bias)
